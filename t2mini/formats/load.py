"""
Open weights into the model: a GGUF file, or a Hugging Face folder of config.json and safetensors
(paper 4.1).

Kept:     every tensor of the file is used exactly once; missing, extra or misshapen ones stop the
          load before anything is allocated. Tensors are read one at a time, straight to the device
          and dtype: an 8B model needs its own size (on a CPU with room for it, a second copy of
          each matrix comes with the first answer: machine/packed.py).
Left out: pickled checkpoints (`.bin`), which may run code.
"""
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from . import tokenizer as tok
from ..machine import packed
from ..machine.files import read_json
from ..machine.text import one_line, printable
from .configs import config_from_gguf, config_from_json, tied
from .download import locate
from .gguf import Lazy, read_parts

GGUF_NAMES = {
    "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj"}
GGUF_GPT2 = {
    "token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head",
    "attn_norm": "ln_1", "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
PICKLED = ("pickles may run code and are not read. Convert to safetensors, in a throw-away "
           "environment: python -c \"from transformers import AutoModelForCausalLM as M; "
           "M.from_pretrained('FOLDER').save_pretrained('NEW-FOLDER')\"")
# what reading a list as a number, say, raises
DAMAGE = TypeError, AttributeError, ArithmeticError, IndexError, RecursionError
# endings of a file's name that say how it is stored, not what it is
STORED = re.compile(r"([.-](q\d\w*|iq\d\w*|f16|f32|fp16|bf16))?(-\d{5}-of-\d{5})?")


@dataclass(frozen=True)
class Checkpoint:
    """name; files: the weight files; settings: the fields of model.Config; tensors: name -> Lazy,
    under our names; tokenizer: None where a folder has no tokenizer.json."""
    name: str
    files: list
    settings: SimpleNamespace
    tensors: dict
    tokenizer: Any


def open_checkpoint(path=None):
    """A .gguf file, a Hugging Face folder or a name that `download` knows (default: the default
    model) -> Checkpoint; no weight is read yet.

    Raises FileNotFoundError or ValueError with one line that says what is wrong.
    """
    path = locate(path)
    if path.is_file() and path.suffix in PICKLES:
        raise ValueError(f"{path}: {PICKLED}")
    if path.is_file() and path.suffix == ".safetensors":
        raise ValueError(f"{path}: give the folder with its config.json instead of the file")
    found = open_folder(path) if path.is_dir() else open_gguf(path)
    return Checkpoint(model_name(path), *found)


def model_name(path):
    """How the model of this path is called, and with it its folder of experts."""
    if path.is_dir():
        return one_line(path.resolve().name.lower())
    name = path.stem.lower()
    for at in range(1, len(name)):
        if STORED.fullmatch(name, at):
            return one_line(name[:at])
    return one_line(name)


def check_tokenizer(tokenizer, vocab_size):
    """Every id that it can write must have its row in the embedding, else ValueError."""
    ids = {*tokenizer.known, *tokenizer.prompt("a")}
    if tokenizer.unk_id is not None:
        ids.add(tokenizer.unk_id)
    odd = [i for i in ids if type(i) is not int or not 0 <= i < vocab_size]
    if odd:
        raise ValueError(f"the tokenizer writes the id {odd[0]!r}, the model knows {vocab_size} "
                         "(files of two models?)")


def check_config(cfg, n_tensors):
    """Refuse sizes that only a damaged file claims, before a model of that size is built, and
    settings under which no logit is a finite number."""
    sizes = (cfg.vocab_size, cfg.hidden_size, cfg.num_hidden_layers, cfg.num_attention_heads,
             cfg.num_key_value_heads, cfg.head_dim, cfg.intermediate_size,
             cfg.max_position_embeddings)
    if not all(type(n) is int and 0 < n < 1 << 24 for n in sizes):
        raise ValueError(f"these sizes are not those of a model (damaged file?): {cfg}")
    if cfg.num_hidden_layers > n_tensors:
        raise ValueError(f"weights do not fit the config: {cfg.num_hidden_layers} layers, but only "
                         f"{n_tensors} tensors")
    if not within(cfg.norm_eps, 0, 0.1):
        raise ValueError(f"norm_eps {cfg.norm_eps!r} is not usable: it must lie between 0 and 0.1")
    if cfg.family == "llama" and not within(cfg.rope_theta, 1, 1e15):
        raise ValueError(f"rope_theta {cfg.rope_theta!r} is not usable: it must lie between 1 and "
                         "1e15")
    if not all(within(x, 1e-6, 1e6) for x in cfg.rope_factors):
        raise ValueError(f"rope factors {cfg.rope_factors[:3]}... are not usable")
    if type(cfg.sliding_window) is not int or cfg.sliding_window < 0:
        raise ValueError(f"sliding window {cfg.sliding_window!r} is not usable")
    if cfg.family == "llama":
        whole = cfg.head_dim % 2 == 0
    else:
        whole = cfg.num_attention_heads * cfg.head_dim == cfg.hidden_size
    if cfg.num_attention_heads % cfg.num_key_value_heads or not whole:
        raise ValueError(f"{cfg.num_attention_heads} heads of size {cfg.head_dim} for "
                         f"{cfg.num_key_value_heads} key/value heads and hidden size "
                         f"{cfg.hidden_size} do not divide evenly")


def within(x, low, high):
    """Is x a number from low to high? NaN is not."""
    return type(x) in (int, float) and low <= x <= high


def stop_ids(eos, vocab_size):
    """An eos_token_id as files spell it (a number, a list of them, -1 or nothing) -> list of ids.

    ValueError for what is no id of this vocabulary.
    """
    ids = eos if isinstance(eos, list) else [eos]
    ids = [i for i in ids if i is not None and i not in (-1, (1 << 32) - 1)]
    for i in ids:
        if type(i) is not int:
            raise ValueError(f"eos_token_id {str(i)[:40]!r} is not a number or a list of numbers")
        if not 0 <= i < vocab_size:
            raise ValueError(f"eos_token_id {hex(i)[:40]} is not the id of a token: this model "
                             f"knows {vocab_size}")
    return ids


def load_into(model, tensors, device, dtype):
    """Fill a model on the meta device from `tensors`: name -> Lazy. Strict both ways, and checked
    before it is read."""
    ours = dict(model.named_parameters())
    missing, extra = sorted(ours.keys() - tensors.keys()), sorted(tensors.keys() - ours.keys())
    if missing or extra:
        raise ValueError(f"weights do not fit the config: missing {missing[:3]}, unexpected "
                         f"{extra[:3]}")
    for name, p in ours.items():
        shape = tuple(tensors[name].shape)
        if shape != p.shape:
            raise ValueError(f"{name}: file has shape {shape}, config says {tuple(p.shape)}")
    for name in ours:
        parent, _, leaf = name.rpartition(".")
        weight = tensors[name](device, dtype)
        check_finite(name, weight)
        weight = torch.nn.Parameter(weight, requires_grad=False)
        setattr(model.get_submodule(parent), leaf, weight)
    packed.allow(sum(p.nbytes for p in model.parameters()))


def check_finite(name, weight):
    """ValueError where a weight holds Inf or NaN. One pass: their sum shows in every sum."""
    if weight.is_meta:                                      # shapes without numbers
        return
    wide = torch.float32 if weight.dtype == torch.float16 else weight.dtype
    if torch.isfinite(weight.sum(dtype=wide)):
        return
    if not torch.isfinite(weight).all():                    # else only the sum was too large
        kind = str(weight.dtype).removeprefix("torch.")
        raise ValueError(f"{name} holds Inf or NaN in {kind}: a damaged file, or numbers beyond "
                         "this --dtype")


# --------------------------------------------------------------------------------------------- GGUF
def open_gguf(path):
    """A .gguf file -> (paths of its parts, Settings, name -> Lazy, Tokenizer). ValueError where it
    is damaged or not supported."""
    files, meta, raw = read_parts(path)
    try:
        cfg, tokenizer = config_from_gguf(meta, raw), tok.from_gguf(meta)
        stop_ids(meta.get("tokenizer.ggml.eos_token_id"), cfg.vocab_size)
    except KeyError as e:
        raise ValueError(f"{path}: metadata {e} is missing (damaged file)") from None
    except DAMAGE as e:
        raise ValueError(f"{path}: metadata of a wrong kind: {type(e).__name__} {printable(e)} "
                         "(damaged file)") from None
    except ValueError as e:
        raise ValueError(f"{path}: {printable(e)}") from None
    heads = {"attn_q": cfg.num_attention_heads, "attn_k": cfg.num_key_value_heads}
    turned = heads if meta["general.architecture"] == "llama" else {}
    gpt2 = cfg.family == "gpt2"
    tensors = {}
    for name, lazy in raw.items():
        if name == "rope_freqs.weight":                     # part of the config
            continue
        part = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        ours = gguf_name(part, gpt2) if part else None
        if ours is None:
            raise ValueError(f"{path}: unexpected tensor {name!r}")
        if gpt2 and part[1] and len(lazy.shape) == 2:
            lazy = transposed(lazy)
        elif part[2] in turned:
            lazy = unpermuted(lazy, turned[part[2]])
        tensors[ours] = lazy
    return files, cfg, tensors, tokenizer


def gguf_name(part, gpt2):
    """The match of a GGUF tensor's name (layer, word, kind) -> our name, or None where it has
    none."""
    layer, word, kind = part.groups()
    names = GGUF_GPT2 if gpt2 else GGUF_NAMES
    if word not in names:
        return None
    ours = f"{names[word]}.{kind}"
    if gpt2 and layer:
        return f"transformer.h.{layer}.{ours}"
    if gpt2 and word != "output":
        return f"transformer.{ours}"
    return f"model.layers.{layer}.{ours}" if layer else ours


def transposed(lazy):
    """GGUF keeps GPT-2's matrices as (out, in), Hugging Face as (in, out)."""
    return Lazy(lazy.shape[::-1], lambda device, dtype: lazy(device, dtype).T.contiguous())


def unpermuted(lazy, heads):
    """llama-type GGUF keeps the two halves of each rotary pair side by side; Hugging Face half a
    head apart."""
    def rows_back(device, dtype):
        w = lazy(device, dtype)
        pairs = w.view(heads, w.shape[0] // heads // 2, 2, *w.shape[1:])
        return pairs.transpose(1, 2).reshape(w.shape)
    return Lazy(lazy.shape, rows_back)


# ------------------------------------------------------------------------------ Hugging Face folder
def open_folder(folder):
    """A Hugging Face folder -> (safetensors paths, Settings, name -> Lazy, Tokenizer or None).
    ValueError as above."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: no config.json here; expected a Hugging Face model "
                                "folder or a .gguf file")
    spec, told = read_json(folder / "config.json"), {}
    if (folder / "generation_config.json").exists():
        told = read_json(folder / "generation_config.json")
    try:
        cfg = config_from_json(spec)
        stop = []
        for said in (spec, told):
            stop += stop_ids(said.get("eos_token_id"), cfg.vocab_size)
    except (KeyError, *DAMAGE) as e:
        raise ValueError(f"{folder}/config.json: {type(e).__name__} {printable(e)} (damaged "
                         "file?)") from None
    except ValueError as e:
        raise ValueError(f"{folder}: {printable(e)}") from None
    files, index = weight_files(folder)
    tensors = folder_tensors(folder, files, index, spec)
    try:
        tokenizer = tok.from_folder(folder, set(stop))
    except (KeyError, *DAMAGE) as e:
        raise ValueError(f"{folder}/tokenizer.json: {type(e).__name__} {printable(e)} (damaged "
                         "file?)") from None
    return files, cfg, tensors, tokenizer


def folder_tensors(folder, files, index, spec):
    """The tensors of these safetensors files -> our name -> Lazy. index: the names they must
    hold."""
    tensors, unseen = {}, set(index)
    for path in files:
        try:
            with safe_open(path, "pt") as f:
                found = {name: f.get_slice(name) for name in f.keys()}
                found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in found.items()}
        except (SafetensorError, OSError) as e:
            raise ValueError(f"{path}: damaged safetensors file ({printable(e)}); download it "
                             "again") from None
        for name, (shape, kind) in found.items():
            unseen.discard(name)
            ours = our_name(name, spec)
            if ours is None:
                continue
            if ours in tensors:
                raise ValueError(f"{path}: tensor {name!r} is in two files")
            if kind not in ("F64", "F32", "F16", "BF16"):
                raise ValueError(f"{path}: tensor {name!r} holds {kind}; only plain floating-point "
                                 "weights are supported")
            tensors[ours] = lazy_safetensor(path, name, shape)
    if unseen:
        raise ValueError(f"{folder}: the index names {sorted(unseen)[0]!r}, which its file does "
                         "not hold (download it again)")
    return tensors


def weight_files(folder):
    """-> (the safetensors files of a folder, the names their index promises).

    The index decides; without one model.safetensors is the model, and where that is not there
    either, all files are it. Names that begin with a dot never count.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(map(in_folder, names.values())):
            raise ValueError(f"{index}: weight_map must name .safetensors files of this folder "
                             "(damaged file?)")
        files = [folder / f for f in sorted(set(names.values()))]
        for path in files:
            if not path.exists():
                raise FileNotFoundError(f"{path}: named by the index, but missing; download it")
    else:
        names = {}
        files = [p for p in sorted(folder.glob("*.safetensors")) if not p.name.startswith(".")]
        whole = folder / "model.safetensors"
        if whole in files:
            files = [whole]
    if not files:
        pickled = any(p.suffix in PICKLES for p in folder.iterdir())
        begun = any(p.suffix == ".part" for p in folder.iterdir())
        raise FileNotFoundError(f"{folder}: no *.safetensors file" + f"; {PICKLED}" * pickled
                                + "; run the same `download` again to finish it" * begun)
    for path in files:
        if not path.is_file():  # opening a pipe would wait for its other end
            raise ValueError(f"{path}: not a regular file")
    return files, names


def in_folder(name):
    """Is this the name of a .safetensors file, and no path to somewhere else?"""
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def lazy_safetensor(path, name, shape):
    """One tensor of a safetensors file as Lazy."""
    return Lazy(shape, lambda device, dtype: read_safetensor(path, name, device, dtype))


def read_safetensor(path, name, device, dtype):
    with safe_open(path, "pt", device=str(device)) as f:
        return f.get_tensor(name).to(dtype)


def our_name(name, spec):
    """The checkpoint's tensor name -> ours; None for buffers and tied copies, which are not
    parameters."""
    if spec["model_type"] == "gpt2":
        if not name.startswith("lm_head"):
            name = "transformer." + name.removeprefix("transformer.")
        # the causal mask, saved by old versions
        if re.search(r"\.attn\.(bias|masked_bias)$", name):
            return None
    if name.endswith("rotary_emb.inv_freq"):
        return None
    return None if name == "lm_head.weight" and tied(spec) else name

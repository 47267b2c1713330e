"""
Open weights into the model: a GGUF file, or a Hugging Face folder of config.json and safetensors (paper 4.1).

Kept:     every tensor of the file is used exactly once; missing, extra or misshapen ones stop the load before anything is
          allocated. Tensors are read one at a time, straight to the device and dtype: an 8B model needs its own size.
Left out: pickled checkpoints (`.bin`), which may run code.
"""
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from . import tokenizer as tok
from .configs import config_from_gguf, config_from_json, tied
from .download import find_weights
from .gguf import Lazy, read_gguf

GGUF_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
              "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
              "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj"}
GGUF_GPT2 = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head", "attn_norm": "ln_1",
             "ffn_norm": "ln_2", "attn_qkv": "attn.c_attn", "attn_output": "attn.c_proj", "ffn_up": "mlp.c_fc",
             "ffn_down": "mlp.c_proj"}
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
PICKLED = ("pickles may run code and are not read. Convert to safetensors, in a throw-away environment: python -c \"from transformers "
           "import AutoModelForCausalLM as M; M.from_pretrained('FOLDER').save_pretrained('NEW-FOLDER')\"")
DAMAGE = TypeError, AttributeError, ArithmeticError, IndexError, RecursionError     # what reading a list as a number, say, raises


@dataclass(frozen=True)
class Checkpoint:
    """name; files: the weight files; settings: the fields of model.Config; tensors: name -> Lazy, under our names;
    tokenizer: None where a folder has no tokenizer.json."""
    name: str
    files: list
    settings: SimpleNamespace
    tensors: dict
    tokenizer: Any


def open_checkpoint(path=None):
    """A .gguf file or a Hugging Face folder (default: what `t2mini download` fetched) -> Checkpoint; no weight is read yet.

    Raises FileNotFoundError or ValueError with one line that says what is wrong.
    """
    path = Path(path) if path else find_weights()
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; run `python -m t2mini download` or give --weights=PATH")
    if path.is_file() and path.suffix in PICKLES:
        raise ValueError(f"{path}: {PICKLED}")
    if path.is_file() and path.suffix == ".safetensors":
        raise ValueError(f"{path}: give the folder with its config.json instead of the file")
    found = open_folder(path) if path.is_dir() else open_gguf(path)
    name = path.stem.lower() if path.is_file() else path.resolve().name.lower()
    return Checkpoint(re.sub(r"\.(q\d\w*|f16|f32|bf16)$", "", name), *found)


def check_tokenizer(tokenizer, vocab_size):
    """Every id that it can write must have its row in the embedding, else ValueError."""
    ids = {*tokenizer.known, tokenizer.unk_id, *tokenizer.prompt("a")}
    odd = [i for i in ids if type(i) is not int or not 0 <= i < vocab_size]
    if odd:
        raise ValueError(f"the tokenizer writes the id {odd[0]!r}, the model knows {vocab_size} (files of two models?)")


def check_config(cfg, n_tensors):
    """Refuse sizes that only a damaged file claims, before a model of that size is built."""
    sizes = (cfg.vocab_size, cfg.hidden_size, cfg.num_hidden_layers, cfg.num_attention_heads, cfg.num_key_value_heads,
             cfg.head_dim, cfg.intermediate_size, cfg.max_position_embeddings)
    if not all(type(n) is int and 0 < n < 1 << 24 for n in sizes):
        raise ValueError(f"these sizes are not those of a model (damaged file?): {cfg}")
    if cfg.num_hidden_layers > n_tensors:
        raise ValueError(f"weights do not fit the config: {cfg.num_hidden_layers} layers, but only {n_tensors} tensors")
    if not all(type(x) in (int, float) and 0 <= x < float("inf") for x in (cfg.rope_theta, cfg.norm_eps)):
        raise ValueError(f"rope_theta {cfg.rope_theta!r} or norm_eps {cfg.norm_eps!r} is not a usable number")
    if not all(1e-6 < x < 1e6 for x in cfg.rope_factors) or type(cfg.sliding_window) is not int or cfg.sliding_window < 0:
        raise ValueError(f"rope factors {cfg.rope_factors[:3]}... or sliding window {cfg.sliding_window!r} are not usable")
    whole = cfg.head_dim % 2 == 0 if cfg.family == "llama" else cfg.num_attention_heads * cfg.head_dim == cfg.hidden_size
    if cfg.num_attention_heads % cfg.num_key_value_heads or not whole:
        raise ValueError(f"{cfg.num_attention_heads} heads of size {cfg.head_dim} for {cfg.num_key_value_heads} key/value "
                         f"heads and hidden size {cfg.hidden_size} do not divide evenly")


def load_into(model, tensors, device, dtype):
    """Fill a model on the meta device from `tensors`: name -> Lazy. Strict both ways, and checked before it is read."""
    ours = dict(model.named_parameters())
    missing, extra = sorted(ours.keys() - tensors.keys()), sorted(tensors.keys() - ours.keys())
    if missing or extra:
        raise ValueError(f"weights do not fit the config: missing {missing[:3]}, unexpected {extra[:3]}")
    for name, p in ours.items():
        if tuple(tensors[name].shape) != p.shape:
            raise ValueError(f"{name}: file has shape {tuple(tensors[name].shape)}, config says {tuple(p.shape)}")
    for name in ours:
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, torch.nn.Parameter(tensors[name](device, dtype), requires_grad=False))


# ---------------------------------------------------------------------------------------------- GGUF
def open_gguf(path):
    """A .gguf file -> ([its path], Config, name -> Lazy, Tokenizer). ValueError where it is damaged or not supported."""
    meta, raw = read_gguf(path)
    try:
        cfg, tokenizer = config_from_gguf(meta, raw), tok.from_gguf(meta)
    except KeyError as e:
        raise ValueError(f"{path}: metadata {e} is missing (damaged file)") from None
    except DAMAGE as e:
        raise ValueError(f"{path}: metadata of a wrong kind: {type(e).__name__} {e} (damaged file)") from None
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None
    gpt2, heads = cfg.family == "gpt2", {"attn_q": cfg.num_attention_heads, "attn_k": cfg.num_key_value_heads}
    names, tensors = GGUF_GPT2 if gpt2 else GGUF_NAMES, {}
    for name, lazy in raw.items():
        if name == "rope_freqs.weight":                     # part of the config
            continue
        part = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        if not part or part[2] not in names:
            raise ValueError(f"{path}: unexpected tensor {name!r}")
        layer, ours = part[1], f"{names[part[2]]}.{part[3]}"
        if gpt2 and part[2] != "output":
            ours = f"transformer.h.{layer}.{ours}" if layer else f"transformer.{ours}"
        elif layer:
            ours = f"model.layers.{layer}.{ours}"
        if gpt2 and layer and len(lazy.shape) == 2:
            lazy = transposed(lazy)
        elif meta["general.architecture"] == "llama" and part[2] in heads:
            lazy = unpermuted(lazy, heads[part[2]])
        tensors[ours] = lazy
    return [path], cfg, tensors, tokenizer


def transposed(lazy):
    """GGUF keeps GPT-2's matrices as (out, in), Hugging Face as (in, out)."""
    return Lazy(lazy.shape[::-1], lambda device, dtype: lazy(device, dtype).T.contiguous())


def unpermuted(lazy, heads):
    """llama-type GGUF keeps the two halves of each rotary pair side by side; Hugging Face half a head apart."""
    def rows_back(device, dtype):
        w = lazy(device, dtype)
        return w.view(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)
    return Lazy(lazy.shape, rows_back)


# ---------------------------------------------------------------------------------------------- Hugging Face folder
def open_folder(folder):
    """A Hugging Face folder -> (safetensors paths, Config, name -> Lazy, Tokenizer or None). ValueError as above."""
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: no config.json here; expected a Hugging Face model folder or a .gguf file")
    spec = read_json(folder / "config.json")
    try:
        cfg = config_from_json(spec)
    except (KeyError, *DAMAGE) as e:
        raise ValueError(f"{folder}/config.json: {type(e).__name__} {e} (damaged file?)") from None
    files, index = weight_files(folder)
    tensors, unseen = {}, set(index)
    for path in files:
        try:
            with safe_open(path, "pt") as f:
                found = {name: f.get_slice(name) for name in f.keys()}
                found = {name: (tuple(s.get_shape()), s.get_dtype()) for name, s in found.items()}
        except (SafetensorError, OSError) as e:
            raise ValueError(f"{path}: damaged safetensors file ({e}); download it again") from None
        for name, (shape, kind) in found.items():
            unseen.discard(name)
            ours = our_name(name, spec)
            if ours is None:
                continue
            if ours in tensors:
                raise ValueError(f"{path}: tensor {name!r} is in two files")
            if kind not in ("F64", "F32", "F16", "BF16"):
                raise ValueError(f"{path}: tensor {name!r} holds {kind}; only plain floating-point weights are supported")
            tensors[ours] = Lazy(shape, lambda device, dtype, path=path, name=name: read_safetensor(path, name, device, dtype))
    if unseen:
        raise ValueError(f"{folder}: the index names {sorted(unseen)[0]!r}, which its file does not hold (download it again)")
    stop = []                                               # what the file says need not fit into a set
    for said in (spec, read_json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}):
        eos = said.get("eos_token_id")
        stop += eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(type(i) is int for i in stop):
        raise ValueError(f"{folder}: eos_token_id {sorted(map(str, stop))} is not a number or a list of numbers")
    try:
        tokenizer = tok.from_folder(folder, set(stop))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, *DAMAGE) as e:
        raise ValueError(f"{folder}/tokenizer.json: {type(e).__name__} {e} (damaged file?)") from None
    return files, cfg, tensors, tokenizer


def read_json(path):
    """A JSON object from a file; anything else is a ValueError with the file's name."""
    try:
        spec = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise ValueError(f"{path}: {type(e).__name__} {e} (damaged file?)") from None
    if not isinstance(spec, dict):
        raise ValueError(f"{path}: not a JSON object (damaged file?)")
    return spec


def weight_files(folder):
    """-> (the safetensors files of a folder, the names their index promises). The index, where there is one, decides."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names or not all(
                isinstance(f, str) and Path(f).name == f and f.endswith(".safetensors") for f in names.values()):
            raise ValueError(f"{index}: weight_map must name .safetensors files of this folder (damaged file?)")
        files = [folder / f for f in sorted(set(names.values()))]
        for path in files:
            if not path.is_file():
                raise FileNotFoundError(f"{path}: named by the index, but missing; download it")
        return files, names
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = any(p.suffix in PICKLES for p in folder.iterdir())
        raise FileNotFoundError(f"{folder}: no *.safetensors file" + (f"; {PICKLED}" if pickled else ""))
    return files, {}


def read_safetensor(path, name, device, dtype):
    with safe_open(path, "pt", device=str(device)) as f:
        return f.get_tensor(name).to(dtype)


def our_name(name, spec):
    """The checkpoint's tensor name -> ours; None for buffers and tied copies, which are not parameters."""
    if spec["model_type"] == "gpt2":
        name = "transformer." + name.removeprefix("transformer.") if not name.startswith("lm_head") else name
        if re.search(r"\.attn\.(bias|masked_bias)$", name):             # the causal mask, saved by old versions
            return None
    if name.endswith("rotary_emb.inv_freq"):
        return None
    return None if name == "lm_head.weight" and tied(spec) else name

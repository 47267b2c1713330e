"""
Open weights into the model: a GGUF file, or a Hugging Face folder of config.json and safetensors (paper 4.1).

Kept:     every tensor of the file is used exactly once and every shape is checked; missing or extra ones stop the load.
Left out: pickled checkpoints (`.bin`), which may run code. K-quants and rope scaling are refused by name.
"""
import ctypes
import hashlib
import json
import re
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import tokenizer as tok
from .download import find_weights
from .gguf import read_gguf
from .model import Config, Transformer

GGUF_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
              "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
              "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj"}
DAMAGE = TypeError, AttributeError, ArithmeticError, IndexError, RecursionError     # what reading a list as a number, say, raises


def load(path=None, device=None, dtype=None):
    """Load open weights. -> (model, tokenizer), ready for `model(ids)` with ids (B, T) -> logits (B, T, V).

    path    a .gguf file or a folder with config.json and *.safetensors; default: what `t2mini download` fetched
    device  "cuda", "cpu", ...; default: CUDA when present
    dtype   "float32", "bfloat16" or a torch dtype; default: bfloat16 where this device multiplies it faster
    The model gets `name`, `base_sha256` (of the weight files; experts are tied to it). The tokenizer is None where a
    folder has no tokenizer.json. Raises FileNotFoundError or ValueError with one line that says what is wrong.
    """
    path = Path(path) if path else find_weights()
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; run `python -m t2mini download` or give --weights=PATH")
    keep_memory()
    device, dtype = pick(device, dtype)
    files, cfg, tensors, tokenizer = open_folder(path) if path.is_dir() else open_gguf(path)
    check_config(cfg, len(tensors))
    with torch.device("meta"):                              # shapes only: no memory is used twice
        model = Transformer(cfg)
    load_into(model, tensors, device, dtype)
    model.name = re.sub(r"\.(q\d\w*|f16|f32|bf16)$", "", path.stem.lower() if path.is_file() else path.resolve().name.lower())
    model.base_sha256 = file_hash(files)
    if tokenizer is not None:
        model.valid_vocab = min(cfg.vocab_size, tokenizer.n_vocab)
    return model.eval().requires_grad_(False), tokenizer


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
    whole = cfg.head_dim % 2 == 0 if cfg.family == "llama" else cfg.num_attention_heads * cfg.head_dim == cfg.hidden_size
    if cfg.num_attention_heads % cfg.num_key_value_heads or not whole:
        raise ValueError(f"{cfg.num_attention_heads} heads of size {cfg.head_dim} for {cfg.num_key_value_heads} key/value "
                         f"heads and hidden size {cfg.hidden_size} do not divide evenly")


def load_into(model, tensors, device, dtype):
    """Fill a model on the meta device from `tensors`: name -> function that gives the tensor. Strict both ways."""
    ours = dict(model.named_parameters())
    missing, extra = sorted(ours.keys() - tensors.keys()), sorted(tensors.keys() - ours.keys())
    if missing or extra:
        raise ValueError(f"weights do not fit the config: missing {missing[:3]}, unexpected {extra[:3]}")
    for name, p in ours.items():
        t = tensors[name]()
        if t.shape != p.shape:
            raise ValueError(f"{name}: file has shape {tuple(t.shape)}, config says {tuple(p.shape)}")
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, torch.nn.Parameter(t.to(device, dtype), requires_grad=False))


def pick(device=None, dtype=None):
    """-> (device, dtype). CUDA when present, else CPU; bfloat16 where it is the faster one, else float32."""
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError):
        raise ValueError(f"unknown device {device!r}; try cpu or cuda") from None
    if dtype is not None:
        known = {str(d).split(".")[-1]: d for d in (torch.float32, torch.bfloat16, torch.float16)}
        dtype = known.get(str(dtype).split(".")[-1])
        if dtype is None:
            raise ValueError("dtype must be float32, bfloat16 or float16")
    if dtype is None and device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if dtype is None:                                       # a CPU without bf16 units is slower in bf16: measure
        seconds = {d: min(gemm_seconds(d) for _ in range(3)) for d in (torch.bfloat16, torch.float32)}
        dtype = min(seconds, key=seconds.get)
    return device, dtype


def keep_memory():
    """Tell glibc to keep freed memory. By default it returns every large tensor to the system at once, and the next one
    pays for fresh pages again: 15 % of a training pass, measured on 2 CPU cores. Elsewhere than glibc: nothing."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-4, 0)                                          # M_MMAP_MAX: take large blocks from the heap as well
    mallopt(-1, -1)                                         # M_TRIM_THRESHOLD: never shrink the heap
    mallopt(-2, 1 << 28)                                    # M_TOP_PAD: grow it in large steps


def gemm_seconds(dtype, rows=64, inner=576, out=1536):
    """Wall time of one CPU matrix product of the sizes that decoding uses."""
    a, b = torch.zeros(rows, inner, dtype=dtype), torch.zeros(out, inner, dtype=dtype)
    t0 = time.perf_counter()
    for _ in range(4):
        torch.nn.functional.linear(a, b)
    return time.perf_counter() - t0


def file_hash(files):
    """sha256 over the bytes of the files, in order."""
    h = hashlib.sha256()
    for path in files:
        with open(path, "rb") as f:
            while chunk := f.read(1 << 22):
                h.update(chunk)
    return h.hexdigest()


# ---------------------------------------------------------------------------------------------- GGUF
def open_gguf(path):
    meta, raw = read_gguf(path)
    arch = meta.get("general.architecture")
    if arch != "llama":
        raise ValueError(f"{path}: GGUF architecture {arch!r} is not supported (llama is)")
    try:
        heads = meta["llama.attention.head_count"]
        kv_heads = meta.get("llama.attention.head_count_kv", heads)
        cfg = Config(vocab_size=len(meta["tokenizer.ggml.tokens"]), hidden_size=meta["llama.embedding_length"],
                     num_hidden_layers=meta["llama.block_count"], num_attention_heads=heads,
                     num_key_value_heads=kv_heads,
                     head_dim=meta.get("llama.rope.dimension_count", meta["llama.embedding_length"] // heads),
                     intermediate_size=meta["llama.feed_forward_length"],
                     max_position_embeddings=meta["llama.context_length"],
                     rope_theta=meta.get("llama.rope.freq_base", 10_000.0),
                     norm_eps=meta["llama.attention.layer_norm_rms_epsilon"],
                     tie_word_embeddings="output.weight" not in raw)
        tokenizer = tok.from_gguf(meta)
    except KeyError as e:
        raise ValueError(f"{path}: metadata {e} is missing (damaged file)") from None
    except DAMAGE as e:
        raise ValueError(f"{path}: metadata of a wrong kind: {type(e).__name__} {e} (damaged file)") from None
    if "rope_freqs.weight" in raw or meta.get("llama.rope.scaling.type", "none") != "none":
        raise ValueError(f"{path}: rope scaling is not supported")
    tensors = {}
    for name, read in raw.items():
        part = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        if not part or part[2] not in GGUF_NAMES:
            raise ValueError(f"{path}: unexpected tensor {name!r}")
        ours = (f"model.layers.{part[1]}." if part[1] else "") + f"{GGUF_NAMES[part[2]]}.{part[3]}"
        if part[2] in ("attn_q", "attn_k"):
            read = unpermuted(read, heads if part[2] == "attn_q" else kv_heads)
        tensors[ours] = read
    return [path], cfg, tensors, tokenizer


def unpermuted(read, heads):
    """llama-type GGUF keeps the two halves of each rotary pair side by side; Hugging Face half a head apart."""
    def rows_back():
        w = read()
        if not isinstance(heads, int) or heads < 1 or w.shape[0] % (2 * heads):
            raise ValueError(f"a query or key matrix of shape {tuple(w.shape)} does not split into {heads} heads")
        return w.view(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)
    return rows_back


# ---------------------------------------------------------------------------------------------- Hugging Face folder
def open_folder(folder):
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"{folder}: no config.json here; expected a Hugging Face model folder or a .gguf file")
    try:
        spec = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        cfg = config_from_json(spec)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, *DAMAGE) as e:
        raise ValueError(f"{folder}/config.json: {type(e).__name__} {e} (damaged file?)") from None
    files = shards(folder / "model.safetensors.index.json") or sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = any(folder.glob("*.bin"))
        raise FileNotFoundError(f"{folder}: no *.safetensors file" + (
            "; .bin files are pickles that may run code and are not read: convert them to safetensors" if pickled else ""))
    tensors = {}
    for path in files:
        try:
            with safe_open(path, "pt") as f:
                names = list(f.keys())
        except (SafetensorError, OSError) as e:
            raise ValueError(f"{path}: damaged safetensors file ({e}); download it again") from None
        for name in names:
            ours = our_name(name, spec)
            if ours is None:
                continue
            if ours in tensors:
                raise ValueError(f"{path}: tensor {name!r} is in two files")
            tensors[ours] = lambda path=path, name=name: read_safetensor(path, name)
    eos = spec.get("eos_token_id")
    eos = [eos] if isinstance(eos, int) else eos or []
    try:
        tokenizer = tok.from_folder(folder, eos)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, *DAMAGE) as e:
        raise ValueError(f"{folder}/tokenizer.json: {type(e).__name__} {e} (damaged file?)") from None
    return files, cfg, tensors, tokenizer


def shards(index):
    """The files that an index names, sorted; () where there is no index. A name that leads out of the folder is refused."""
    if not index.exists():
        return ()
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, *DAMAGE) as e:
        raise ValueError(f"{index}: {type(e).__name__} {e} (damaged file?)") from None
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name):
            raise ValueError(f"{index}: refusing the file name {name!r}")
        if not (index.parent / name).is_file():
            raise FileNotFoundError(f"{index}: {name} is missing; download it again")
    return [index.parent / name for name in names]


def read_safetensor(path, name):
    with safe_open(path, "pt") as f:
        return f.get_tensor(name)


def our_name(name, spec):
    """The checkpoint's tensor name -> ours; None for buffers and tied copies, which are not parameters."""
    if spec["model_type"] == "gpt2":
        name = "transformer." + name.removeprefix("transformer.") if not name.startswith("lm_head") else name
        if re.search(r"\.attn\.(bias|masked_bias)$", name):             # the causal mask, saved by old versions
            return None
    if name.endswith("rotary_emb.inv_freq"):
        return None
    return None if name == "lm_head.weight" and tied(spec) else name


def tied(spec):
    return spec.get("tie_word_embeddings", spec["model_type"] == "gpt2")


def config_from_json(spec):
    """A Hugging Face config.json (as dict) -> Config. Raises ValueError naming what is not supported."""
    kind = spec.get("model_type")
    if kind == "gpt2":
        if spec.get("activation_function", "gelu_new") != "gelu_new":
            raise ValueError(f"activation {spec['activation_function']!r} is not supported (gelu_new is)")
        if spec.get("scale_attn_by_inverse_layer_idx") or not spec.get("scale_attn_weights", True):
            raise ValueError("GPT-2 with another scaling of the attention scores is not supported")
        heads, size = spec["n_head"], spec["n_embd"]
        return Config("gpt2", spec["vocab_size"], size, spec["n_layer"], heads, heads, size // heads,
                      spec.get("n_inner") or 4 * size, spec["n_positions"], 0.0, spec["layer_norm_epsilon"], tied(spec))
    if kind not in ("llama", "qwen2", "mistral"):
        raise ValueError(f"model_type {kind!r} is not supported (llama, qwen2, mistral and gpt2 are)")
    rope = spec.get("rope_parameters") or spec.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise ValueError(f"rope type {rope_type!r} is not supported (default is)")
    if spec.get("hidden_act", "silu") != "silu":
        raise ValueError(f"activation {spec['hidden_act']!r} is not supported (silu is)")
    if spec.get("sliding_window") and spec.get("use_sliding_window", kind == "mistral"):
        raise ValueError("sliding-window attention is not supported")
    heads = spec["num_attention_heads"]
    bias = spec.get("attention_bias", False)
    return Config("llama", spec["vocab_size"], spec["hidden_size"], spec["num_hidden_layers"], heads,
                  spec.get("num_key_value_heads") or heads, spec.get("head_dim") or spec["hidden_size"] // heads,
                  spec["intermediate_size"], spec["max_position_embeddings"],
                  rope.get("rope_theta", spec.get("rope_theta", 10_000.0)), spec["rms_norm_eps"], tied(spec),
                  qkv_bias=bias or kind == "qwen2", o_bias=bias, mlp_bias=spec.get("mlp_bias", False))

"""
What a checkpoint says about itself -> the fields of model.Config: a Hugging Face config.json or GGUF metadata, and back for `export`.

Kept:     Llama 1 to 3.3, Mistral, Qwen2, Qwen2.5, Qwen3 and GPT-2; both spellings of the rope settings.
Refused:  by its name, whatever would change the arithmetic: another architecture, rope type or activation, a window in
          some layers only, quantised weights. A guess here gives fluent, wrong text.
"""
import math
from types import SimpleNamespace as Settings


ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel"}
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


def llama3_factors(rope, theta, head_dim):
    """The `llama3` rope type: head_dim/2 divisors of the rotation frequencies (Llama 3.1 and later).

    A pair that turns fewer than `low` times within the original context is slowed down by `factor`, one that turns more
    than `high` times keeps its speed, and between the two lies a straight line in the frequency.
    """
    factor, low, high, context = (rope[key] for key in LLAMA3)
    if not 0 < head_dim < 1 << 16:                          # before a list of that length is made
        raise ValueError(f"head_dim {head_dim} is not that of a model (damaged file?)")
    out = []
    for i in range(0, head_dim, 2):
        turns = context * theta ** (-i / head_dim) / (2 * math.pi)
        s = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(1 / ((1 - s) / factor + s))
    return tuple(out)


def llama3_settings(cfg):
    """The inverse: GGUF keeps only the divisors. One of them on the straight line tells the original context."""
    factor = max(cfg.rope_factors)
    i, between = next(((i, f) for i, f in enumerate(cfg.rope_factors) if 1.001 < f < 0.999 * factor), (0, factor))
    s = (1 / between - 1 / factor) / (1 - 1 / factor) if factor > 1 else 0
    turns = 2 * math.pi * cfg.rope_theta ** (2 * i / cfg.head_dim)
    found = dict(zip(LLAMA3, (factor, 1.0, 4.0, round((1 + 3 * s) * turns))))
    made = llama3_factors(found, cfg.rope_theta, cfg.head_dim)
    if max(abs(a / b - 1) for a, b in zip(made, cfg.rope_factors)) > 1e-4:
        raise ValueError("the rope factors of this file are not those of a llama3 rope setting")
    return found


# ---------------------------------------------------------------------------------------------- config.json
def tied(spec):
    return spec.get("tie_word_embeddings", spec["model_type"] == "gpt2")


def window(spec, kind):
    """Positions that a query sees in every layer, or 0 for all of them."""
    size = spec.get("sliding_window") or 0
    if kind == "llama" or (kind != "mistral" and not spec.get("use_sliding_window")):
        return 0
    if kind != "mistral" and size:                          # Qwen: full attention below max_window_layers
        first, types = spec.get("max_window_layers", 28), set(spec.get("layer_types") or ())
        full = types == {"full_attention"} if types else first >= spec["num_hidden_layers"]
        if not full and (len(types) > 1 or (not types and first > 0)):
            raise ValueError("a sliding window in some of the layers only is not supported")
        size = 0 if full else size
    return size if size < spec["max_position_embeddings"] else 0


def config_from_json(spec):
    """A Hugging Face config.json (as dict) -> Settings. Raises ValueError naming what is not supported."""
    kind = spec.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"model_type {kind!r} is not supported ({', '.join(ARCHITECTURES)} are)")
    if spec.get("quantization_config"):
        raise ValueError(f"weights quantised by {spec['quantization_config'].get('quant_method')!r} are not supported; "
                         "take the original checkpoint or a GGUF file")
    if kind == "gpt2":
        if spec.get("activation_function", "gelu_new") != "gelu_new":
            raise ValueError(f"activation {spec['activation_function']!r} is not supported (gelu_new is)")
        if spec.get("scale_attn_by_inverse_layer_idx") or not spec.get("scale_attn_weights", True):
            raise ValueError("GPT-2 with another scaling of the attention scores is not supported")
        heads, size = spec["n_head"], spec["n_embd"]
        return Settings(
            family="gpt2", vocab_size=spec["vocab_size"], hidden_size=size,
            num_hidden_layers=spec["n_layer"], num_attention_heads=heads, num_key_value_heads=heads,
            head_dim=size // heads, intermediate_size=spec.get("n_inner") or 4 * size,
            max_position_embeddings=spec["n_positions"], rope_theta=0.0,
            norm_eps=spec["layer_norm_epsilon"], tie_word_embeddings=tied(spec))
    if spec.get("hidden_act", "silu") != "silu":
        raise ValueError(f"activation {spec['hidden_act']!r} is not supported (silu is)")
    rope = spec.get("rope_parameters") or spec.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise ValueError(f"rope type {rope_type!r} is not supported (default and llama3 are)")
    if spec.get("partial_rotary_factor", 1) != 1:
        raise ValueError("partial_rotary_factor is not supported: RoPE must turn whole heads")
    theta, heads = rope.get("rope_theta", spec.get("rope_theta", 10_000.0)), spec["num_attention_heads"]
    head_dim = spec.get("head_dim") or spec["hidden_size"] // heads
    bias = kind in ("llama", "qwen3") and spec.get("attention_bias", False)
    if "max_position_embeddings" not in spec:               # the first Llama has the older name
        spec = spec | {"max_position_embeddings": spec["max_sequence_length"]}
    return Settings(
        family="llama", vocab_size=spec["vocab_size"], hidden_size=spec["hidden_size"],
        num_hidden_layers=spec["num_hidden_layers"], num_attention_heads=heads,
        num_key_value_heads=spec.get("num_key_value_heads") or heads, head_dim=head_dim,
        intermediate_size=spec["intermediate_size"],
        max_position_embeddings=spec["max_position_embeddings"], rope_theta=theta,
        norm_eps=spec["rms_norm_eps"], tie_word_embeddings=tied(spec),
        rope_factors=llama3_factors(rope, theta, head_dim) if rope_type == "llama3" else (),
        sliding_window=window(spec, kind), qk_norm=kind == "qwen3",
        qkv_bias=bias or kind == "qwen2", o_bias=bias,
        mlp_bias=kind == "llama" and spec.get("mlp_bias", False))


def config_to_json(cfg):
    """The inverse of `config_from_json`, as dict, for weights that came without a config.json (GGUF)."""
    out = {"vocab_size": cfg.vocab_size, "tie_word_embeddings": cfg.tie_word_embeddings}
    if cfg.family == "gpt2":
        return out | {"model_type": "gpt2", "architectures": [ARCHITECTURES["gpt2"]], "n_embd": cfg.hidden_size,
                      "n_layer": cfg.num_hidden_layers, "n_head": cfg.num_attention_heads,
                      "n_inner": cfg.intermediate_size, "n_positions": cfg.max_position_embeddings,
                      "layer_norm_epsilon": cfg.norm_eps}
    kind = ("qwen3" if cfg.qk_norm else "qwen2" if cfg.qkv_bias and not cfg.o_bias else "mistral" if cfg.sliding_window
            else "llama")
    rope = {"rope_type": "default", "rope_theta": cfg.rope_theta}
    if cfg.rope_factors:
        guess = llama3_settings(cfg)
        rope |= {"rope_type": "llama3", **guess}
    out |= {key: getattr(cfg, key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim",
                                               "num_key_value_heads", "intermediate_size", "max_position_embeddings")}
    out |= {"model_type": kind, "architectures": [ARCHITECTURES[kind]], "hidden_act": "silu",
            "rms_norm_eps": cfg.norm_eps, "rope_theta": cfg.rope_theta, "rope_parameters": rope,
            "sliding_window": cfg.sliding_window or None, "use_sliding_window": bool(cfg.sliding_window),
            "max_window_layers": 0, "attention_bias": cfg.o_bias, "mlp_bias": cfg.mlp_bias}
    if cfg.rope_factors:
        out["rope_scaling"] = {k: v for k, v in rope.items() if k != "rope_theta"}      # as older readers spell it
    return out


# ---------------------------------------------------------------------------------------------- GGUF metadata
def config_from_gguf(meta, tensors):
    """GGUF metadata and tensors (name -> Lazy) -> Settings. KeyError for a missing key, ValueError for what is refused."""
    arch = meta["general.architecture"]
    if arch not in ("llama", "qwen2", "qwen3", "gpt2"):
        raise ValueError(f"GGUF architecture {arch!r} is not supported (llama, qwen2, qwen3 and gpt2 are)")
    heads, size = meta[f"{arch}.attention.head_count"], meta[f"{arch}.embedding_length"]
    layers, inner = meta[f"{arch}.block_count"], meta[f"{arch}.feed_forward_length"]
    context, vocab = meta[f"{arch}.context_length"], tensors["token_embd.weight"].shape[0]
    tie = "output.weight" not in tensors
    if arch == "gpt2":
        return Settings(
            family="gpt2", vocab_size=vocab, hidden_size=size, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads, head_dim=size // heads,
            intermediate_size=inner, max_position_embeddings=context, rope_theta=0.0,
            norm_eps=meta["gpt2.attention.layer_norm_epsilon"], tie_word_embeddings=tie)
    scaling = meta.get(f"{arch}.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"rope scaling {scaling!r} is not supported (rope_freqs.weight, as of Llama 3.1, is)")
    rotated = meta.get(f"{arch}.rope.dimension_count")
    head_dim = meta.get(f"{arch}.attention.key_length", rotated or size // heads)
    if rotated not in (None, head_dim):
        raise ValueError(f"rope over {rotated} of {head_dim} dimensions is not supported: it must turn whole heads")
    factors = tensors.get("rope_freqs.weight")
    if factors is not None and factors.shape != (head_dim // 2,):
        raise ValueError(f"rope_freqs.weight has shape {factors.shape}, not ({head_dim // 2},)")
    window = meta.get(f"{arch}.attention.sliding_window", 0)
    return Settings(
        family="llama", vocab_size=vocab, hidden_size=size, num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=meta.get(f"{arch}.attention.head_count_kv", heads), head_dim=head_dim,
        intermediate_size=inner, max_position_embeddings=context,
        rope_theta=meta.get(f"{arch}.rope.freq_base", 10_000.0),
        norm_eps=meta[f"{arch}.attention.layer_norm_rms_epsilon"], tie_word_embeddings=tie,
        rope_factors=() if factors is None else tuple(factors().tolist()),
        sliding_window=window if window < context else 0,
        qk_norm="blk.0.attn_q_norm.weight" in tensors, qkv_bias="blk.0.attn_q.bias" in tensors,
        o_bias="blk.0.attn_output.bias" in tensors, mlp_bias="blk.0.ffn_up.bias" in tensors)

"""
What a checkpoint says about itself -> the fields of model.Config: a Hugging Face config.json or
GGUF metadata, and back for `export`.

Kept:     Llama 1 to 3.3, Mistral, Qwen2, Qwen2.5, Qwen3 and GPT-2; every spelling of the rope
          settings that is known.
Refused:  by its name, whatever would change the arithmetic: another architecture, rope setting or
          activation, a window in some layers only, quantised weights. A guess here gives fluent,
          wrong text.
"""
import math
from types import SimpleNamespace as Settings


ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel"}
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
# the settings of rope that are understood, and those that the types of rope here do not look at
ROPE_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned", *LLAMA3}
GGUF_ROPE = {
    "dimension_count", "freq_base", "scale_linear", "scaling.type", "scaling.factor",
    "scaling.finetuned", "scaling.original_context_length"}
# GGUF keys that change the arithmetic, and the value under which they do not
GGUF_PLAIN = {
    "attention.scale": 0, "attention.clamp_kqv": 0, "attention.max_alibi_bias": 0,
    "attention.causal": True, "logit_scale": 0, "embedding_scale": 0, "residual_scale": 0,
    "attn_logit_softcapping": 0, "final_logit_softcapping": 0}


# --------------------------------------------------------------------------------------------- rope
def linear_factors(factor, head_dim):
    """The `linear` rope type: positions / factor, which is every rotation frequency / factor. ()
    for the factor 1."""
    if type(factor) not in (int, float) or not 0 < factor < float("inf"):
        raise ValueError(f"the rope scaling factor {factor!r} is not a positive number")
    if factor == 1:
        return ()
    return (float(factor),) * (checked(head_dim) // 2)


def llama3_factors(rope, theta, head_dim):
    """The `llama3` rope type: head_dim/2 divisors of the rotation frequencies (Llama 3.1 and
    later).

    A pair that turns fewer than `low` times within the original context is slowed down by `factor`,
    one that turns more than `high` times keeps its speed, and between the two lies a straight line
    in the frequency.
    """
    factor, low, high, context = (rope[key] for key in LLAMA3)
    out = []
    for i in range(0, checked(head_dim), 2):
        turns = context * theta ** (-i / head_dim) / (2 * math.pi)
        s = min(max((turns - low) / (high - low), 0.0), 1.0)
        out.append(1 / ((1 - s) / factor + s))
    return tuple(out)


def checked(head_dim):
    """head_dim, before a list of that length is made."""
    if not 0 < head_dim < 1 << 16:
        raise ValueError(f"head_dim {head_dim} is not that of a model (damaged file?)")
    return head_dim


def rope_of(spec):
    """The rope settings of a config.json, old and new spelling in one dict with `rope_type` and
    `rope_theta`.

    ValueError by its name for every setting that would change the rotation and is not understood.
    """
    known = ("rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor")
    odd = [k for k in spec if ("rope" in k or "rotary" in k) and k not in known]
    odd = [k for k in odd if spec[k] not in (None, False, 1)]
    if odd:
        raise ValueError(f"{odd[0]} {spec[odd[0]]!r} is not supported: it is not known what it "
                         "does to RoPE")
    scaling = spec.get("rope_scaling") or {}
    rope = {"rope_theta": spec.get("rope_theta", 10_000.0)}
    rope |= (spec.get("rope_parameters") or {}) | scaling
    if "type" in scaling and "rope_type" not in scaling:  # of two that disagree the scaling decides
        rope["rope_type"] = scaling["type"]
    rope.setdefault("rope_type", rope.get("type"))
    if rope["rope_type"] is None:
        rope["rope_type"] = "default"
    if rope["rope_type"] not in ("default", "linear", "llama3"):
        raise ValueError(f"rope type {rope['rope_type']!r} is not supported (default, linear and "
                         "llama3 are)")
    odd = [k for k, v in rope.items() if k not in ROPE_KEYS and v is not None]
    if odd:
        raise ValueError(f"the rope setting {odd[0]!r} is not supported")
    if rope["rope_type"] == "default" and rope.get("factor", 1) != 1:
        raise ValueError(f"a rope setting with the factor {rope['factor']!r}, but without a type, "
                         "is not supported")
    if {spec.get("partial_rotary_factor", 1), rope.get("partial_rotary_factor", 1)} != {1}:
        raise ValueError("partial_rotary_factor is not supported: RoPE must turn whole heads")
    return rope


def rope_factors(rope, head_dim):
    """The divisors of the rotation frequencies, () where there are none. KeyError for a setting
    that is missing."""
    if rope["rope_type"] == "linear":
        return linear_factors(rope["factor"], head_dim)
    if rope["rope_type"] == "llama3":
        return llama3_factors(rope, rope["rope_theta"], head_dim)
    return ()


def rope_settings(cfg):
    """The inverse: GGUF keeps only the divisors. -> the rope type and its settings as config.json
    spells them."""
    factor = max(cfg.rope_factors)
    if factor == min(cfg.rope_factors):
        return {"rope_type": "linear", "factor": factor}
    # one divisor on llama3's straight line tells the original context
    between = [(i, f) for i, f in enumerate(cfg.rope_factors) if 1.001 < f < 0.999 * factor]
    i, f = between[0] if between else (0, factor)
    s = (1 / f - 1 / factor) / (1 - 1 / factor) if factor > 1 else 0
    turns = 2 * math.pi * cfg.rope_theta ** (2 * i / cfg.head_dim)
    found = dict(zip(LLAMA3, (factor, 1.0, 4.0, round((1 + 3 * s) * turns))))
    made = llama3_factors(found, cfg.rope_theta, cfg.head_dim)
    if max(abs(a / b - 1) for a, b in zip(made, cfg.rope_factors)) > 1e-4:
        raise ValueError("the rope factors of this file are not those of a llama3 rope setting")
    return {"rope_type": "llama3", **found}


# -------------------------------------------------------------------------------------- config.json
def tied(spec):
    """Does the output head reuse the embedding?"""
    return spec.get("tie_word_embeddings", spec["model_type"] == "gpt2")


def window(spec, kind):
    """Positions that a query sees in every layer, or 0 for all of them."""
    size = spec.get("sliding_window") or 0
    if kind == "llama" or (kind != "mistral" and not spec.get("use_sliding_window")):
        return 0
    if kind != "mistral" and size:  # Qwen: full attention below max_window_layers
        first = spec.get("max_window_layers", 28)
        types = set(spec.get("layer_types") or ())
        full = types == {"full_attention"} if types else first >= spec["num_hidden_layers"]
        if not full and (len(types) > 1 or (not types and first > 0)):
            raise ValueError("a sliding window in some of the layers only is not supported")
        if full:
            return 0
    return size if size < spec["max_position_embeddings"] else 0


def config_from_json(spec):
    """A Hugging Face config.json (as dict) -> Settings. Raises ValueError naming what is not
    supported."""
    kind = spec.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"model_type {kind!r} is not supported ({', '.join(ARCHITECTURES)} are)")
    if spec.get("quantization_config"):
        method = spec["quantization_config"].get("quant_method")
        raise ValueError(f"weights quantised by {method!r} are not supported; take the original "
                         "checkpoint or a GGUF file")
    if kind == "gpt2":
        return gpt2_from_json(spec)
    if spec.get("hidden_act", "silu") != "silu":
        raise ValueError(f"activation {spec['hidden_act']!r} is not supported (silu is)")
    rope = rope_of(spec)
    heads = spec["num_attention_heads"]
    head_dim = spec.get("head_dim") or spec["hidden_size"] // heads
    bias = kind in ("llama", "qwen3") and spec.get("attention_bias", False)
    if "max_position_embeddings" not in spec:               # the first Llama has the older name
        spec = spec | {"max_position_embeddings": spec["max_sequence_length"]}
    return Settings(
        family="llama",
        vocab_size=spec["vocab_size"],
        hidden_size=spec["hidden_size"],
        num_hidden_layers=spec["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=spec.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        intermediate_size=spec["intermediate_size"],
        max_position_embeddings=spec["max_position_embeddings"],
        rope_theta=rope["rope_theta"],
        rope_factors=rope_factors(rope, head_dim),
        norm_eps=spec["rms_norm_eps"],
        tie_word_embeddings=tied(spec),
        sliding_window=window(spec, kind),
        qk_norm=kind == "qwen3",
        qkv_bias=bias or kind == "qwen2",
        o_bias=bias,
        mlp_bias=kind == "llama" and spec.get("mlp_bias", False))


def gpt2_from_json(spec):
    """The same for GPT-2, whose keys have other names."""
    if spec.get("activation_function", "gelu_new") != "gelu_new":
        raise ValueError(f"activation {spec['activation_function']!r} is not supported (gelu_new "
                         "is)")
    if spec.get("scale_attn_by_inverse_layer_idx") or not spec.get("scale_attn_weights", True):
        raise ValueError("GPT-2 with another scaling of the attention scores is not supported")
    return Settings(
        family="gpt2",
        vocab_size=spec["vocab_size"],
        hidden_size=spec["n_embd"],
        num_hidden_layers=spec["n_layer"],
        num_attention_heads=spec["n_head"],
        num_key_value_heads=spec["n_head"],
        head_dim=spec["n_embd"] // spec["n_head"],
        intermediate_size=spec.get("n_inner") or 4 * spec["n_embd"],
        max_position_embeddings=spec["n_positions"],
        rope_theta=0.0,
        norm_eps=spec["layer_norm_epsilon"],
        tie_word_embeddings=tied(spec))


def config_to_json(cfg):
    """The inverse of `config_from_json`, as dict, for weights that came without a config.json
    (GGUF)."""
    out = {"vocab_size": cfg.vocab_size, "tie_word_embeddings": cfg.tie_word_embeddings}
    if cfg.family == "gpt2":
        return out | {
            "model_type": "gpt2", "architectures": [ARCHITECTURES["gpt2"]],
            "n_embd": cfg.hidden_size, "n_layer": cfg.num_hidden_layers,
            "n_head": cfg.num_attention_heads, "n_inner": cfg.intermediate_size,
            "n_positions": cfg.max_position_embeddings,
            "layer_norm_epsilon": cfg.norm_eps}
    kind = "mistral" if cfg.sliding_window else "llama"
    if cfg.qkv_bias and not cfg.o_bias:
        kind = "qwen2"
    if cfg.qk_norm:
        kind = "qwen3"
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                "head_dim", "intermediate_size", "max_position_embeddings", "rope_theta",
                "mlp_bias"):
        out[key] = getattr(cfg, key)
    out |= {
        "model_type": kind, "architectures": [ARCHITECTURES[kind]], "hidden_act": "silu",
        "rms_norm_eps": cfg.norm_eps, "attention_bias": cfg.o_bias, "max_window_layers": 0,
        "sliding_window": cfg.sliding_window or None,
        "use_sliding_window": bool(cfg.sliding_window),
        "rope_parameters": {"rope_type": "default", "rope_theta": cfg.rope_theta}}
    if cfg.rope_factors:
        out["rope_scaling"] = rope_settings(cfg)            # as older readers spell it
        out["rope_parameters"] |= out["rope_scaling"]
    return out


# ------------------------------------------------------------------------------------ GGUF metadata
def config_from_gguf(meta, tensors):
    """GGUF metadata and tensors (name -> Lazy) -> Settings.

    KeyError for a missing key, ValueError for what is refused.
    """
    arch = meta["general.architecture"]
    if arch not in ("llama", "qwen2", "qwen3", "gpt2"):
        raise ValueError(f"GGUF architecture {arch!r} is not supported (llama, qwen2, qwen3 and "
                         "gpt2 are)")
    own = {k.removeprefix(f"{arch}."): v for k, v in meta.items() if k.startswith(f"{arch}.")}
    odd = [k for k, plain in GGUF_PLAIN.items() if own.get(k, plain) != plain]
    if odd:
        raise ValueError(f"{arch}.{odd[0]} = {own[odd[0]]!r} is not supported: it changes the "
                         "arithmetic")
    try:
        return gpt2_from_gguf(own, tensors) if arch == "gpt2" else llama_from_gguf(own, tensors)
    except KeyError as e:
        raise KeyError(f"{arch}.{e.args[0]}") from None


def common_from_gguf(own, tensors):
    """What both families spell alike. own: the metadata under the architecture's name."""
    return dict(
        vocab_size=tensors["token_embd.weight"].shape[0],
        hidden_size=own["embedding_length"],
        num_hidden_layers=own["block_count"],
        num_attention_heads=own["attention.head_count"],
        intermediate_size=own["feed_forward_length"],
        max_position_embeddings=own["context_length"],
        tie_word_embeddings="output.weight" not in tensors)


def gpt2_from_gguf(own, tensors):
    """-> Settings of a GPT-2."""
    both = common_from_gguf(own, tensors)
    heads = both["num_attention_heads"]
    return Settings(
        **both,
        family="gpt2",
        num_key_value_heads=heads,
        head_dim=both["hidden_size"] // heads,
        rope_theta=0.0,
        norm_eps=own["attention.layer_norm_epsilon"])


def llama_from_gguf(own, tensors):
    """-> Settings of the Llama family: Llama, Mistral, Qwen2 and Qwen3."""
    both = common_from_gguf(own, tensors)
    heads = both["num_attention_heads"]
    rotated = own.get("rope.dimension_count")
    head_dim = own.get("attention.key_length", rotated or both["hidden_size"] // heads)
    if rotated not in (None, head_dim):
        raise ValueError(f"rope over {rotated} of {head_dim} dimensions is not supported: it must "
                         "turn whole heads")
    span = own.get("attention.sliding_window", 0)
    return Settings(
        **both,
        family="llama",
        num_key_value_heads=own.get("attention.head_count_kv", heads),
        head_dim=head_dim,
        rope_theta=own.get("rope.freq_base", 10_000.0),
        rope_factors=gguf_rope_factors(own, tensors, head_dim),
        norm_eps=own["attention.layer_norm_rms_epsilon"],
        sliding_window=span if span < both["max_position_embeddings"] else 0,
        qk_norm="blk.0.attn_q_norm.weight" in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        o_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors)


def gguf_rope_factors(own, tensors, head_dim):
    """The divisors of the rotation frequencies: of linear scaling times those that the file lists
    (Llama 3.1).

    A factor without a type is linear, as for the program that the format comes from; 0 and the type
    `none` mean that nothing is scaled.
    """
    odd = [k for k in own if k.startswith("rope.") and k.removeprefix("rope.") not in GGUF_ROPE]
    if odd:
        raise ValueError(f"the rope setting {odd[0]} = {own[odd[0]]!r} is not supported")
    scaling = own.get("rope.scaling.type", "linear")
    if scaling not in ("none", "linear"):
        raise ValueError(f"rope scaling {scaling!r} is not supported (linear is, and "
                         "rope_freqs.weight of Llama 3.1)")
    factor = own.get("rope.scaling.factor", own.get("rope.scale_linear", 1))
    scaled = ()
    if scaling == "linear" and factor != 0:
        scaled = linear_factors(factor, head_dim)
    if "rope_freqs.weight" not in tensors:
        return scaled
    listed = tensors["rope_freqs.weight"]
    if listed.shape != (head_dim // 2,):
        raise ValueError(f"rope_freqs.weight has shape {listed.shape}, not ({head_dim // 2},)")
    listed = listed().tolist()
    return tuple(a * b for a, b in zip(listed, scaled or [1.0] * len(listed)))

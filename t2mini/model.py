"""
A decoder-only transformer in one file: the Llama family and GPT-2 (paper 4.1 uses Llama-3 and Mistral).

Kept:     RMSNorm or LayerNorm, RoPE or learned positions, grouped-query attention, SwiGLU or GELU, a KV cache. What
          Mistral, Qwen2 and Qwen3 add to Llama is a field of Config each: a window, biases, a norm of q and k.
Left out: dropout and training of the base weights; here they are frozen, only SVF's z is ever trained.
Names:    parameters are called as in the Hugging Face checkpoints, so open weights load by name.
Letters:  B batch, S new positions, T all positions so far, H query heads, G key/value heads, D head size,
          C hidden size, V vocabulary, L layers, r rank.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .machine.packed import linear


@dataclass(frozen=True)
class Config:
    family: str = "llama"               # "llama" or "gpt2"
    vocab_size: int = 49152
    hidden_size: int = 576
    num_hidden_layers: int = 30
    num_attention_heads: int = 9
    num_key_value_heads: int = 3        # fewer than query heads: grouped-query attention
    head_dim: int = 64
    intermediate_size: int = 1536
    max_position_embeddings: int = 8192
    rope_theta: float = 100_000.0       # must be read from the checkpoint: a wrong base still gives fluent text
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = True    # the output head reuses the embedding matrix
    rope_factors: tuple = ()            # D/2 numbers that divide the rotation frequencies (Llama 3.1 and later)
    sliding_window: int = 0             # a query sees this many positions, its own included; 0: all (Mistral v0.1)
    qk_norm: bool = False               # RMSNorm of every query and key head before RoPE (Qwen3)
    qkv_bias: bool = False              # Qwen2
    o_bias: bool = False
    mlp_bias: bool = False


class KVCache:
    """Keys and values of every layer, allocated once for `length` positions.

    k, v: a list of L tensors (B, G, length, D); positions (B, length): where each key stands in its text, which a
    sliding window asks for. `filled` counts the slots written so far; all rows advance together, so ragged prompts are
    padded on the left.
    """

    def __init__(self, cfg, batch, length, device, dtype):
        shape = (batch, cfg.num_key_value_heads, length, cfg.head_dim)
        self.k, self.v = ([torch.zeros(shape, device=device, dtype=dtype) for _ in range(cfg.num_hidden_layers)]
                          for _ in "kv")
        self.positions = torch.zeros(batch, length, device=device, dtype=torch.long)
        self.filled = 0

    def update(self, layer, k, v):
        """Write k, v (B, G, S, D) behind the filled part; return all keys and values (B, G, T, D) of this layer."""
        all_k, all_v, S = self.k[layer], self.v[layer], k.shape[2]
        all_k[:, :, self.filled:self.filled + S] = k
        all_v[:, :, self.filled:self.filled + S] = v
        return all_k.narrow(2, 0, self.filled + S), all_v.narrow(2, 0, self.filled + S)

    def select(self, rows):
        """Keep these rows, in this order; a row named twice is copied (one prompt, many samples)."""
        for layers in (self.k, self.v):
            for i, old in enumerate(layers):                # one by one: the old and the new cache never exist at once
                layers[i] = old[rows]
        self.positions = self.positions[rows]


# ---------------------------------------------------------------------------------------------- shared pieces
def attend(q, k, v, mask):
    """Grouped-query attention. q (B, H, S, D), k and v (B, G, T, D), mask additive (B or 1, 1, H/G * S, T).

    Query head h reads key head h // (H/G), so the H/G heads of one group are stacked along S and meet K and V
    unexpanded: no repeated keys in memory. `mask` is stacked the same way, once per forward (see `additive_mask`).
    """
    B, H, S, D = q.shape
    G = k.shape[1]
    y = F.scaled_dot_product_attention(q.reshape(B, G, H // G * S, D), k, v, attn_mask=mask)
    return y.reshape(B, H, S, D).transpose(1, 2).reshape(B, S, H * D)    # reshape: CUDA's y is not contiguous


def additive_mask(allowed, repeats, dtype):
    """Boolean (B or 1, S, T), True where a query may look -> 0 / -inf of shape (B or 1, 1, repeats * S, T)."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, float("-inf"))
    return mask.repeat(1, repeats, 1).unsqueeze(1)


def causal(S, T, device):
    """(1, S, T): the last S of T positions, each looking at itself and everything before."""
    return torch.ones(S, T, dtype=torch.bool, device=device).tril(T - S)[None]


class Linear(nn.Linear):
    """nn.Linear through packed.linear, like the SVF layer that may take its place: z = 1 gives the same bits."""

    def forward(self, x):
        """x (..., n) -> (..., m)."""
        y = linear(x, self.weight)
        return y if self.bias is None else y + self.bias


# ---------------------------------------------------------------------------------------------- Llama
class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        """x (..., size) -> (..., size) in x's dtype; the mean square is taken in float32."""
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def rope_tables(positions, cfg, dtype):
    """cos, sin (B, 1, S, D/2) of the rotation angles position * theta^(-2i/D) / factor_i."""
    exponent = torch.arange(0, cfg.head_dim, 2, device=positions.device, dtype=torch.float32) / cfg.head_dim
    frequency = 1.0 / cfg.rope_theta ** exponent
    if cfg.rope_factors:
        frequency = frequency / torch.tensor(cfg.rope_factors, device=positions.device)
    angle = positions[:, None, :, None].float() * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, cos, sin):
    """Rotate-half RoPE: dimension i turns together with i + D/2 (GGUF stores neighbours instead: weights.py)."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class LlamaAttention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        q, kv = cfg.num_attention_heads * cfg.head_dim, cfg.num_key_value_heads * cfg.head_dim
        self.q_proj = Linear(cfg.hidden_size, q, bias=cfg.qkv_bias)
        self.k_proj = Linear(cfg.hidden_size, kv, bias=cfg.qkv_bias)
        self.v_proj = Linear(cfg.hidden_size, kv, bias=cfg.qkv_bias)
        self.o_proj = Linear(q, cfg.hidden_size, bias=cfg.o_bias)
        self.q_norm, self.k_norm = ((RMSNorm(cfg.head_dim, cfg.norm_eps) if cfg.qk_norm else nn.Identity()) for _ in "qk")

    def forward(self, x, rope, mask, cache, layer):
        """x (B, S, C), rope: cos and sin (B, 1, S, D/2), mask (B or 1, 1, H/G * S, T) -> (B, S, C)."""
        B, S, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(B, S, -1, self.cfg.head_dim)).transpose(1, 2)       # (B, H, S, D)
        k = self.k_norm(self.k_proj(x).view(B, S, -1, self.cfg.head_dim)).transpose(1, 2)       # (B, G, S, D)
        v = self.v_proj(x).view(B, S, -1, self.cfg.head_dim).transpose(1, 2)
        q, k = rotate(torch.cat((q, k), 1), *rope).split((q.shape[1], k.shape[1]), 1)
        if cache is not None:
            k, v = cache.update(layer, k, v)
        return self.o_proj(attend(q, k, v, mask))


class LlamaMLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.gate_proj = Linear(cfg.hidden_size, cfg.intermediate_size, bias=cfg.mlp_bias)
        self.up_proj = Linear(cfg.hidden_size, cfg.intermediate_size, bias=cfg.mlp_bias)
        self.down_proj = Linear(cfg.intermediate_size, cfg.hidden_size, bias=cfg.mlp_bias)

    def forward(self, x):
        """SwiGLU: x (B, S, C) -> (B, S, C)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class LlamaBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.hidden_size, cfg.norm_eps)
        self.self_attn = LlamaAttention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_size, cfg.norm_eps)
        self.mlp = LlamaMLP(cfg)

    def forward(self, x, rope, mask, cache, layer):
        """States x (B, S, C) -> (B, S, C); the rest as in LlamaAttention."""
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.layers = nn.ModuleList(LlamaBlock(cfg) for _ in range(cfg.num_hidden_layers))
        self.norm = RMSNorm(cfg.hidden_size, cfg.norm_eps)

    def forward(self, ids, positions, mask, cache):
        """ids, positions (B, S), mask (B or 1, 1, H/G * S, T) -> states (B, S, C) before the final norm."""
        x = self.embed_tokens(ids)
        rope = rope_tables(positions, self.cfg, x.dtype)
        for i, block in enumerate(self.layers):
            x = block(x, rope, mask, cache, i)
        return x


# ---------------------------------------------------------------------------------------------- GPT-2
class Conv1D(nn.Module):
    """GPT-2's linear layer: the checkpoint stores the weight as (in, out), the transpose of nn.Linear."""
    transposed = True

    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        """x (..., in) -> (..., out)."""
        return F.linear(x, self.weight.T, self.bias)


class GPT2Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.c_attn = Conv1D(cfg.hidden_size, 3 * cfg.hidden_size)              # q, k and v side by side
        self.c_proj = Conv1D(cfg.hidden_size, cfg.hidden_size)

    def forward(self, x, mask, cache, layer):
        """x (B, S, C), mask (B or 1, 1, S, T) -> (B, S, C)."""
        B, S, _ = x.shape
        q, k, v = (t.view(B, S, -1, self.cfg.head_dim).transpose(1, 2) for t in self.c_attn(x).chunk(3, -1))
        if cache is not None:
            k, v = cache.update(layer, k, v)
        return self.c_proj(attend(q, k, v, mask))


class GPT2MLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.c_fc = Conv1D(cfg.hidden_size, cfg.intermediate_size)
        self.c_proj = Conv1D(cfg.intermediate_size, cfg.hidden_size)

    def forward(self, x):
        """x (B, S, C) -> (B, S, C)."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class GPT2Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.ln_1 = nn.LayerNorm(cfg.hidden_size, cfg.norm_eps)
        self.attn = GPT2Attention(cfg)
        self.ln_2 = nn.LayerNorm(cfg.hidden_size, cfg.norm_eps)
        self.mlp = GPT2MLP(cfg)

    def forward(self, x, mask, cache, layer):
        """States x (B, S, C) -> (B, S, C); the rest as in GPT2Attention."""
        x = x + self.attn(self.ln_1(x), mask, cache, layer)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.wte = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.wpe = nn.Embedding(cfg.max_position_embeddings, cfg.hidden_size)
        self.h = nn.ModuleList(GPT2Block(cfg) for _ in range(cfg.num_hidden_layers))
        self.ln_f = nn.LayerNorm(cfg.hidden_size, cfg.norm_eps)

    def forward(self, ids, positions, mask, cache):
        """ids, positions (B, S), mask (B or 1, 1, S, T) -> states (B, S, C) before the final norm."""
        x = self.wte(ids) + self.wpe(positions)
        for i, block in enumerate(self.h):
            x = block(x, mask, cache, i)
        return x


# ---------------------------------------------------------------------------------------------- the whole model
class Transformer(nn.Module):
    """`model(ids)` gives the logits (B, S, V) of ids (B, S).

    `valid_vocab` may be set below `cfg.vocab_size` where a checkpoint pads its vocabulary: the logits of the padding
    are then -inf, so that it is never sampled and never scored.
    """

    def __init__(self, cfg):
        super().__init__()
        self.cfg, self.valid_vocab = cfg, cfg.vocab_size
        if cfg.family == "llama":
            self.model = Llama(cfg)
        elif cfg.family == "gpt2":
            self.transformer = GPT2(cfg)
        else:
            raise ValueError(f"unknown model family {cfg.family!r}; known: llama, gpt2")
        if not cfg.tie_word_embeddings:
            self.lm_head = nn.Linear(cfg.hidden_size, cfg.vocab_size, bias=False)

    @property
    def embedding(self):
        """(V, C)"""
        return self.model.embed_tokens.weight if self.cfg.family == "llama" else self.transformer.wte.weight

    @property
    def device(self):
        return self.embedding.device

    @property
    def dtype(self):
        return self.embedding.dtype

    def hidden(self, ids, positions=None, allowed=None, cache=None):
        """States (B, S, C) before the final norm.

        ids (B, S); positions (B, S), default: counting on from the cache; allowed (B or 1, S, T) boolean, True where a
        query may look, default: causal. Raises ValueError where the context is exceeded.
        """
        (B, S), cfg = ids.shape, self.cfg
        past = cache.filled if cache is not None else 0
        if past + S > cfg.max_position_embeddings and positions is None:
            raise ValueError(f"{past + S} positions exceed this model's context of {cfg.max_position_embeddings}")
        if positions is None:
            positions = torch.arange(past, past + S, device=ids.device).expand(B, S)
        if allowed is None:
            allowed = causal(S, past + S, ids.device)
        if cfg.sliding_window:                              # by position, not by slot: padding and packing move slots
            keys = positions
            if cache is not None:
                cache.positions[:, past:past + S] = positions
                keys = cache.positions[:, :past + S]
            allowed = allowed & (positions[:, :, None] - keys[:, None, :] < cfg.sliding_window)     # (B, S, T)
        mask = additive_mask(allowed, cfg.num_attention_heads // cfg.num_key_value_heads, self.dtype)
        body = self.model if cfg.family == "llama" else self.transformer
        x = body(ids, positions, mask, cache)
        if cache is not None:
            cache.filled += S
        return x

    def head(self, x):
        """Final norm and output head: states (..., C) -> logits (..., V)."""
        x = self.model.norm(x) if self.cfg.family == "llama" else self.transformer.ln_f(x)
        logits = linear(x, self.embedding if self.cfg.tie_word_embeddings else self.lm_head.weight)
        if self.valid_vocab < self.cfg.vocab_size:
            logits[..., self.valid_vocab:] = float("-inf")
        return logits

    def forward(self, ids, positions=None, allowed=None, cache=None):
        """Logits (B, S, V); the arguments are those of `hidden`."""
        return self.head(self.hidden(ids, positions, allowed, cache))

    def new_cache(self, batch, length):
        """An empty KVCache for `batch` rows of `length` positions, where the model is."""
        return KVCache(self.cfg, batch, length, self.device, self.dtype)

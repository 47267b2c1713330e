"""
A decoder-only transformer in one file: the Llama family and GPT-2 (paper 4.1 uses Llama-3 and
Mistral).

Kept:     RMSNorm or LayerNorm, RoPE or learned positions, grouped-query attention, SwiGLU or GELU,
          a KV cache. What Mistral, Qwen2 and Qwen3 add to Llama is a field of Config each: a
          window, biases, a norm of q and k.
Left out: dropout and training of the base weights; here they are frozen, only an expert's numbers
          are ever trained.
Names:    parameters are called as in the Hugging Face checkpoints, so open weights load by name.
Letters:  B batch, S new positions, T all positions so far, H query heads, G key/value heads, D head
          size, C hidden size, V vocabulary, L blocks, r rank.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from .machine.attention import attention
from .machine.fused import rms_norm
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
    rope_theta: float = 100_000.0       # a wrong one still gives fluent text
    norm_eps: float = 1e-5
    tie_word_embeddings: bool = True    # the output head reuses the embedding matrix
    rope_factors: tuple = ()            # D/2 numbers that divide the frequencies (Llama 3.1 on)
    sliding_window: int = 0             # positions that a query sees, its own included; 0: all
    qk_norm: bool = False               # RMSNorm of every query and key head before RoPE (Qwen3)
    qkv_bias: bool = False              # Qwen2
    o_bias: bool = False
    mlp_bias: bool = False


class KVCache:
    """Keys and values of every block, allocated once for `length` positions.

    k, v: a list of L tensors (B, G, length, D); positions (B, length): where each key stands in its
    text, which a sliding window asks for. `filled` counts the slots written so far; all rows
    advance together, so ragged prompts are padded on the left.
    """

    def __init__(self, cfg, batch, length, device, dtype):
        shape = (batch, cfg.num_key_value_heads, length, cfg.head_dim)
        options = {"device": device, "dtype": dtype}
        self.k = [torch.zeros(shape, **options) for _ in range(cfg.num_hidden_layers)]
        self.v = [torch.zeros(shape, **options) for _ in range(cfg.num_hidden_layers)]
        self.positions = torch.zeros(batch, length, device=device, dtype=torch.long)
        self.filled = 0

    def update(self, number, k, v):
        """Write k, v (B, G, S, D) of block `number` behind the filled part. -> all of its keys and
        values (B, G, T, D)."""
        T = self.filled + k.shape[2]
        all_k = self.k[number]
        all_v = self.v[number]
        all_k[:, :, self.filled:T] = k
        all_v[:, :, self.filled:T] = v
        filled_k = all_k.narrow(2, 0, T)
        filled_v = all_v.narrow(2, 0, T)
        return filled_k, filled_v

    def select(self, rows):
        """Keep these rows, in this order; a row named twice is copied (one prompt, many samples).

        One tensor at a time: the old and the new cache never exist at once.
        """
        for tensors in (self.k, self.v):
            for number, old in enumerate(tensors):
                tensors[number] = old[rows]
        self.positions = self.positions[rows]


# ------------------------------------------------------------------------ shared pieces
def attend(q, k, v, mask):
    """Grouped-query attention. q (B, H, S, D), k and v (B, G, T, D), mask additive (B or 1, 1,
    H/G * S, T).

    Query head h reads key head h // (H/G), so the H/G heads of one group are stacked along S and
    meet K and V unexpanded: no repeated keys in memory. `mask` is stacked the same way, once per
    forward (see `additive_mask`).
    """
    B, H, S, D = q.shape
    G = k.shape[1]
    q = q.reshape(B, G, H // G * S, D)
    y = attention(q, k, v, mask, S)                     # softmax(q k^T / sqrt(D) + mask) v
    y = y.reshape(B, H, S, D).transpose(1, 2)
    return y.reshape(B, S, H * D)                       # reshape: CUDA's y is not contiguous


def additive_mask(allowed, repeats, dtype):
    """Boolean (B or 1, S, T), True where a query may look -> 0 / -inf of shape (B or 1, 1,
    repeats * S, T)."""
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    mask.masked_fill_(~allowed, float("-inf"))
    return mask.repeat(1, repeats, 1).unsqueeze(1)


def causal(S, T, device):
    """(1, S, T): the last S of T positions, each looking at itself and everything before."""
    everything = torch.ones(S, T, dtype=torch.bool, device=device)
    return everything.tril(T - S)[None]


class Linear(nn.Linear):
    """nn.Linear through packed.linear, like the SVF layer that may take its place: without
    gradients z = 1 gives the same bits."""

    def forward(self, x):
        """x (..., n) -> (..., m)."""
        y = linear(x, self.weight)
        return y if self.bias is None else y + self.bias


# ------------------------------------------------------------------------ Llama
class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        """x (..., size) -> x / sqrt(mean(x^2) + eps) * weight, in x's dtype; the mean square is
        taken in float32."""
        return rms_norm(x, self.weight, self.eps)


def rope_tables(positions, cfg, dtype):
    """cos, sin (B, 1, S, D/2) of the rotation angles position * theta^(-2i/D) / factor_i."""
    device = positions.device
    even = torch.arange(0, cfg.head_dim, 2, device=device, dtype=torch.float32)
    frequency = 1.0 / cfg.rope_theta ** (even / cfg.head_dim)                   # (D/2,)
    if cfg.rope_factors:
        frequency = frequency / torch.tensor(cfg.rope_factors, device=device)
    angle = positions[:, None, :, None].float() * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x, cos, sin):
    """Rotate-half RoPE: dimension i turns together with i + D/2 (GGUF stores neighbours instead:
    formats/load.py)."""
    a, b = x.chunk(2, -1)
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned, -1)


def heads(x, size):
    """(B, S, heads * size) -> (B, heads, S, size)."""
    B, S, _ = x.shape
    return x.view(B, S, -1, size).transpose(1, 2)


class LlamaAttention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        q = cfg.num_attention_heads * cfg.head_dim
        kv = cfg.num_key_value_heads * cfg.head_dim
        self.q_proj = Linear(cfg.hidden_size, q, bias=cfg.qkv_bias)
        self.k_proj = Linear(cfg.hidden_size, kv, bias=cfg.qkv_bias)
        self.v_proj = Linear(cfg.hidden_size, kv, bias=cfg.qkv_bias)
        self.o_proj = Linear(q, cfg.hidden_size, bias=cfg.o_bias)
        self.q_norm = self.k_norm = nn.Identity()
        if cfg.qk_norm:
            self.q_norm = RMSNorm(cfg.head_dim, cfg.norm_eps)
            self.k_norm = RMSNorm(cfg.head_dim, cfg.norm_eps)

    def forward(self, x, rope, mask, cache, number):
        """x (B, S, C), rope: cos and sin (B, 1, S, D/2), mask (B or 1, 1, H/G * S, T), number of
        this block -> (B, S, C)."""
        size = self.cfg.head_dim
        q = self.q_norm(heads(self.q_proj(x), size))                            # (B, H, S, D)
        k = self.k_norm(heads(self.k_proj(x), size))                            # (B, G, S, D)
        v = heads(self.v_proj(x), size)
        both = rotate(torch.cat((q, k), 1), *rope)
        q, k = both.split((q.shape[1], k.shape[1]), 1)
        if cache is not None:
            k, v = cache.update(number, k, v)
        y = attend(q, k, v, mask)
        return self.o_proj(y)


class LlamaMLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        small = cfg.hidden_size
        large = cfg.intermediate_size
        self.gate_proj = Linear(small, large, bias=cfg.mlp_bias)
        self.up_proj = Linear(small, large, bias=cfg.mlp_bias)
        self.down_proj = Linear(large, small, bias=cfg.mlp_bias)

    def forward(self, x):
        """SwiGLU: x (B, S, C) -> (B, S, C)."""
        gate = F.silu(self.gate_proj(x))
        return self.down_proj(gate * self.up_proj(x))


class LlamaBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.input_layernorm = RMSNorm(cfg.hidden_size, cfg.norm_eps)
        self.self_attn = LlamaAttention(cfg)
        self.post_attention_layernorm = RMSNorm(cfg.hidden_size, cfg.norm_eps)
        self.mlp = LlamaMLP(cfg)

    def forward(self, x, rope, mask, cache, number):
        """States x (B, S, C) -> (B, S, C); the rest as in LlamaAttention."""
        normed = self.input_layernorm(x)
        x = x + self.self_attn(normed, rope, mask, cache, number)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.embed_tokens = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.layers = nn.ModuleList(LlamaBlock(cfg) for _ in range(cfg.num_hidden_layers))
        self.norm = RMSNorm(cfg.hidden_size, cfg.norm_eps)

    def forward(self, ids, positions, mask, cache):
        """ids, positions (B, S), mask (B or 1, 1, H/G * S, T) -> states (B, S, C) before the final
        norm."""
        x = self.embed_tokens(ids)
        rope = rope_tables(positions, self.cfg, x.dtype)
        for number, block in enumerate(self.layers):
            x = block(x, rope, mask, cache, number)
        return x


# ------------------------------------------------------------------------ GPT-2
class Conv1D(nn.Module):
    """GPT-2's linear layer: the checkpoint stores the weight as (in, out), the transpose of
    nn.Linear's."""
    transposed = True

    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x):
        """x (..., in) -> (..., out)."""
        return linear(x, self.weight.T) + self.bias         # rounded twice, like the SVF layer's


class GPT2Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.c_attn = Conv1D(cfg.hidden_size, 3 * cfg.hidden_size)      # q, k and v side by side
        self.c_proj = Conv1D(cfg.hidden_size, cfg.hidden_size)

    def forward(self, x, mask, cache, number):
        """x (B, S, C), mask (B or 1, 1, S, T), number of this block -> (B, S, C)."""
        qkv = self.c_attn(x).chunk(3, -1)
        q, k, v = (heads(t, self.cfg.head_dim) for t in qkv)                    # (B, H, S, D)
        if cache is not None:
            k, v = cache.update(number, k, v)
        y = attend(q, k, v, mask)
        return self.c_proj(y)


class GPT2MLP(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.c_fc = Conv1D(cfg.hidden_size, cfg.intermediate_size)
        self.c_proj = Conv1D(cfg.intermediate_size, cfg.hidden_size)

    def forward(self, x):
        """x (B, S, C) -> (B, S, C)."""
        x = F.gelu(self.c_fc(x), approximate="tanh")
        return self.c_proj(x)


class GPT2Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.ln_1 = nn.LayerNorm(cfg.hidden_size, cfg.norm_eps)
        self.attn = GPT2Attention(cfg)
        self.ln_2 = nn.LayerNorm(cfg.hidden_size, cfg.norm_eps)
        self.mlp = GPT2MLP(cfg)

    def forward(self, x, mask, cache, number):
        """States x (B, S, C) -> (B, S, C); the rest as in GPT2Attention."""
        normed = self.ln_1(x)
        x = x + self.attn(normed, mask, cache, number)
        return x + self.mlp(self.ln_2(x))


class GPT2(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.wte = nn.Embedding(cfg.vocab_size, cfg.hidden_size)
        self.wpe = nn.Embedding(cfg.max_position_embeddings, cfg.hidden_size)
        self.h = nn.ModuleList(GPT2Block(cfg) for _ in range(cfg.num_hidden_layers))
        self.ln_f = nn.LayerNorm(cfg.hidden_size, cfg.norm_eps)

    def forward(self, ids, positions, mask, cache):
        """ids, positions (B, S), mask (B or 1, 1, S, T) -> states (B, S, C) before the final
        norm."""
        x = self.wte(ids) + self.wpe(positions)
        for number, block in enumerate(self.h):
            x = block(x, mask, cache, number)
        return x


# ------------------------------------------------------------------------ the whole model
class Transformer(nn.Module):
    """`model(ids)` gives the logits (B, S, V) of ids (B, S).

    `valid_vocab` may be set below `cfg.vocab_size` where a checkpoint pads its vocabulary: the
    logits of the padding are then -inf, so that it is never sampled and never scored.
    """

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.valid_vocab = cfg.vocab_size
        if cfg.family == "llama":
            self.model = Llama(cfg)
        elif cfg.family == "gpt2":
            self.transformer = GPT2(cfg)
        else:
            raise ValueError(f"unknown model family {cfg.family!r}; known: llama, gpt2")
        if not cfg.tie_word_embeddings:
            self.lm_head = nn.Linear(cfg.hidden_size, cfg.vocab_size, bias=False)

    @property
    def body(self):
        """All but the output head."""
        return self.model if self.cfg.family == "llama" else self.transformer

    @property
    def embedding(self):
        """(V, C)"""
        llama = self.cfg.family == "llama"
        return self.model.embed_tokens.weight if llama else self.transformer.wte.weight

    @property
    def device(self):
        return self.embedding.device

    @property
    def dtype(self):
        return self.embedding.dtype

    def hidden(self, ids, positions=None, allowed=None, cache=None):
        """States (B, S, C) before the final norm.

        ids (B, S); positions (B, S), default: counting on from the cache; allowed (B or 1, S, T)
        boolean, True where a query may look, default: causal. Raises ValueError where the context
        is exceeded, but for positions that are given.
        """
        B, S = ids.shape
        cfg = self.cfg
        past = 0 if cache is None else cache.filled
        T = past + S
        if positions is None:
            if T > cfg.max_position_embeddings:
                raise ValueError(f"{T} positions exceed this model's context of "
                                 f"{cfg.max_position_embeddings}")
            positions = torch.arange(past, T, device=ids.device).expand(B, S)
        if allowed is None:
            allowed = causal(S, T, ids.device)
        if cfg.sliding_window:
            allowed = allowed & self.within_window(positions, cache)
        repeats = cfg.num_attention_heads // cfg.num_key_value_heads
        mask = additive_mask(allowed, repeats, self.dtype)
        x = self.body(ids, positions, mask, cache)
        if cache is not None:
            cache.filled += S
        return x

    def within_window(self, positions, cache):
        """(B, S, T): is a key near enough to a query? By position, not by slot: padding and packing
        move slots."""
        keys = positions
        if cache is not None:
            T = cache.filled + positions.shape[1]
            cache.positions[:, cache.filled:T] = positions
            keys = cache.positions[:, :T]
        distance = positions[:, :, None] - keys[:, None, :]
        return distance < self.cfg.sliding_window

    def head(self, x):
        """Final norm and output head: states (..., C) -> logits (..., V); NaN where a state is so
        large that its square is infinite, of which the norm would make 0, and all tokens alike."""
        norm = self.model.norm if self.cfg.family == "llama" else self.transformer.ln_f
        W = self.embedding if self.cfg.tie_word_embeddings else self.lm_head.weight
        square = x.detach().float().square().sum(-1, keepdim=True)
        normed = norm(x).masked_fill(square.isinf(), float("nan"))
        logits = linear(normed, W)
        if self.valid_vocab < self.cfg.vocab_size:
            logits.detach()[..., self.valid_vocab:] = float("-inf")         # its gradient is 0
        return logits

    def forward(self, ids, positions=None, allowed=None, cache=None):
        """Logits (B, S, V); the arguments are those of `hidden`."""
        x = self.hidden(ids, positions, allowed, cache)
        return self.head(x)

    def new_cache(self, batch, length):
        """An empty KVCache for `batch` rows of `length` positions, where the model is."""
        return KVCache(self.cfg, batch, length, self.device, self.dtype)

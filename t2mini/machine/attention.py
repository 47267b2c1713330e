"""
Attention of long rows, without the keys that nobody may see.

Why:      a question and its answers stand in one row, and an answer sees the question and itself.
          With eight answers of 300 tokens nine tenths of the scores are masked. The plain call
          computes them all and multiplies them by 0, forward and backward.
How:      some queries at a time, with the keys that any of them may see.
Kept:     the result, up to rounding: what is left out has the weight 0.
"""
import torch
import torch.nn.functional as F

LONG = 512                      # keys; below that there are too few to leave out
TILE = 256                      # queries at a time


def plain_attention(q, k, v, mask):
    """softmax(q k^T / sqrt(D) + mask) v: q (B, G, N, D), k and v (B, G, T, D), mask (B or 1, 1, N,
    T). -> (B, G, N, D)"""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention(q, k, v, mask, S):
    """`plain_attention`; where a gradient is asked of long rows, tile by tile. The N queries are
    those of N / S heads, one head after the other, under the same S x T mask. With keys of a cache
    (S < T) nothing is left out."""
    N, T = mask.shape[2:]
    if T < LONG or S < T or q.device.type != "cpu" or not torch.is_grad_enabled():
        return plain_attention(q, k, v, mask)
    heads = N // T
    q = q.unflatten(2, (heads, T))
    mask = mask[:, :, :T]
    found = []
    for at in range(0, T, TILE):
        some = slice(at, at + TILE)
        seen = (mask[:, :, some] > float("-inf")).flatten(0, 2).any(0).nonzero()[:, 0]
        here = mask[:, :, some, seen].repeat(1, 1, heads, 1)
        y = plain_attention(q[:, :, :, some].flatten(2, 3), k[:, :, seen], v[:, :, seen], here)
        found.append(y.unflatten(2, (heads, -1)))
    return torch.cat(found, 3).flatten(2, 3)

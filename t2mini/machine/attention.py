"""
Attention on a CPU: written out where that is quicker, and without the keys that nobody may see.

Written out:  torch's fused call is made for a single long row. In bfloat16 it takes two to five
              times as long as the plain products with their gradient, and twice as long for one
              token of each of many rows. The plain ones hold all weights, so they work on some
              rows at a time.
Unseen keys:  a question and its answers stand in one row, and an answer sees the question and
              itself. With eight answers of 300 tokens nine tenths of the scores are masked, and
              the plain call multiplies them by 0, forward and backward. So where a gradient is
              asked of long rows, some queries go at a time, with the keys that any of them may see.
Kept:         the result, up to rounding.
"""
import torch
import torch.nn.functional as F

LONG = 512                      # keys; below that there are too few to leave out
TILE = 256                      # queries at a time
AT_ONCE = 1_000_000             # weights that are written out at a time: they stay in the cache
MANY = 16                       # rows of a batch; below that torch's call is quicker for a token
FEW = 16                        # queries; below that the keys come first, which is quicker


def plain_attention(q, k, v, mask):
    """softmax(q k^T / sqrt(D) + mask) v: q (B, G, N, D), k and v (B, G, T, D), mask (B or 1, 1, N,
    T). -> (B, G, N, D)"""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def written_out(q, k, v, mask):
    """`plain_attention` as it is written. The scores are rounded to the dtype, the softmax is
    not."""
    q = q * q.shape[-1] ** -0.5
    if q.shape[2] < FEW:
        scores = (k @ q.transpose(2, 3)).transpose(2, 3).float()
    else:
        scores = q @ k.transpose(2, 3)
    return (scores + mask).softmax(-1).to(v.dtype) @ v


def some_rows(q, k, v, mask):
    """`written_out`, some rows of the batch at a time."""
    rows = max(1, AT_ONCE // (q[0, :, :, 0].numel() * k.shape[2]))
    parts = zip(*(t.split(rows) for t in (q, k, v, mask.expand(len(q), -1, -1, -1))))
    return torch.cat([written_out(*part) for part in parts])


def attention(q, k, v, mask, S):
    """`plain_attention`, as it is quickest. The N queries are those of N / S heads, one head after
    the other, under the same S x T mask. With keys of a cache (S < T) nothing is left out."""
    N, T = mask.shape[2:]
    if q.device.type != "cpu":
        return plain_attention(q, k, v, mask)
    if S == 1:
        return (written_out if len(q) >= MANY else plain_attention)(q, k, v, mask)
    # with a gradient and without: the KL of two equal models is 0
    way = some_rows if q.dtype == torch.bfloat16 else plain_attention
    if T < LONG or S < T or not torch.is_grad_enabled():
        return way(q, k, v, mask)
    heads = N // T
    q = q.unflatten(2, (heads, T))
    mask = mask[:, :, :T]
    found = []
    for at in range(0, T, TILE):
        some = slice(at, at + TILE)
        seen = (mask[:, :, some] > float("-inf")).flatten(0, 2).any(0).nonzero()[:, 0]
        here = mask[:, :, some, seen].repeat(1, 1, heads, 1)
        y = way(q[:, :, :, some].flatten(2, 3), k[:, :, seen], v[:, :, seen], here)
        found.append(y.unflatten(2, (heads, -1)))
    return torch.cat(found, 3).flatten(2, 3)

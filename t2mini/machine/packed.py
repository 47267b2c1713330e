"""
x W^T for a frozen W, in the layout this CPU multiplies fastest.

`linear(x, W)` is F.linear(x, W); that is all a reader needs. F.linear hands oneDNN a row-major
matrix, which it has to rearrange in every call, so few rows are slow. Here the rearranged copy of W
is made once and kept on the tensor W.
Trades:   a second copy of every weight, for 2x at one row and 1.3x at 64 rows (bfloat16 and
          float32; `t2mini bench`).
Off:      CUDA, products that autograd follows through x (tuned layers have gradients of their own
          and are not among them), small or transposed matrices, bfloat16 on a CPU that does not
          compute in it, models of more than two fifths of the memory, and torch builds without
          these functions, which are not public.
"""
import torch
import torch.nn.functional as F

from . import memory

SMALLEST = 1 << 16              # numbers in W; below that the call costs more than it saves
ROWS = 64                       # the batch size the layout is chosen for
MANY = 1024                     # tokens of a batch whose tensors are large
SHARE = 0.4                     # of the memory: weights of more have no room for a second copy
OPS = torch.ops.mkldnn
NEEDED = ("_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported")
ON = torch.backends.mkldnn.is_available() and all(hasattr(OPS, name) for name in NEEDED)
DTYPES = {torch.float32}
if ON and OPS._is_mkldnn_bf16_supported():
    DTYPES.add(torch.bfloat16)


class Room:
    """Is there memory for a second copy of all weights? Told when a model is loaded."""
    enough = True


def allow(size):
    """A model of so many bytes of weights was loaded: may its matrices be copied?"""
    room = memory.share()
    Room.enough = room is None or size < SHARE * room


def gains(W):
    """Is a rearranged copy of W of any use here?"""
    if not ON or not Room.enough or W.device.type != "cpu" or W.dtype not in DTYPES:
        return False
    return W.numel() >= SMALLEST and W.is_contiguous()


def pack(W):
    """-> (version of W, its rearranged copy or None where that is of no use), kept on W: made anew
    once W is written to."""
    if W.is_inference():                        # such tensors do not count their versions
        return None, None
    W.packed = None                             # first, so that the old copy's memory is free
    copy = None
    if gains(W):
        with torch.inference_mode(False), torch.no_grad():
            copy = OPS._reorder_linear_weight(W.detach(), ROWS)
    W.packed = W._version, copy
    return W.packed


def ahead(model, ids):
    """Copy the weights before a model reads ids (B, P), if these are many: copies that are made
    among a batch's large tensors leave holes in the memory that no later one fits in."""
    if ids.numel() > MANY and ids.device.type == "cpu" and ON and Room.enough:
        x = model.hidden(ids[:, :1])
        model.head(x[:, -1])


def linear(x, W):
    """x (..., n), W (m, n) -> x W^T (..., m)."""
    if x.requires_grad and torch.is_grad_enabled():
        return F.linear(x, W)
    kept = getattr(W, "packed", None)
    if kept is None or kept[0] != W._version:
        kept = pack(W)
    copy = kept[1]
    if copy is None:
        return F.linear(x, W)
    return OPS._linear_pointwise.default(x, copy, None, "none", [], "")

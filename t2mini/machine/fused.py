"""
Two functions of the model whose gradients are written by hand, some rows at a time; and one whose
gradient is added up in a fixed order.

Why:      autograd keeps what every step of a formula needs, and its backward reads all of that
          again: several float32 copies of tokens x vocabulary, for which memory takes longer than
          the processor for the product that made the logits. The formula's own derivative needs one
          copy, and a few rows of it stay in the processor's cache.
Kept:     the values and the precision: float32 inside, one rounding at the end. Each function has
          its plain form beside it, which is what it computes.
Trades:   a hundred lines for a tenth to a fifth of a training pass (tutorials/speed.md).
"""
import torch
from torch.autograd.function import once_differentiable

FEW = 1 << 16                   # numbers at a time where some ten tensors of them are in use
MANY = 1 << 18                  # where one is: 1 MB of float32


def blocks(x, numbers):
    """Slices over the rows of x (n, size), so many numbers in each, for every thread; on a GPU,
    whose memory is quick, one of all rows."""
    rows = max(1, numbers * torch.get_num_threads() // x.shape[1])
    if x.device.type != "cpu":
        rows = max(1, len(x))
    return [slice(at, at + rows) for at in range(0, len(x), rows)]


def in_blocks(work, logits, u, *settings):
    """work(logits, u, *settings), some rows of logits (n, V) and u (n,) at a time: the same bits,
    as long as `work` does not mix rows. It gives a tuple of tensors with as many rows."""
    found = [work(logits[rows], u[rows], *settings) for rows in blocks(logits, MANY)]
    return [torch.cat(parts) for parts in zip(*found)]


# ------------------------------------------------------------------------ how likely a token is
def plain_log_likelihood(logits, target, temperature):
    """log softmax(logits / temperature)[target]: logits (n, V), target (n,). -> (n,) float32"""
    logp = (logits.float() / temperature).log_softmax(-1)
    return logp.gather(1, target[:, None])[:, 0]


def log_likelihood(logits, target, temperature=1.0):
    """`plain_log_likelihood`. Where a gradient is asked for, backward puts it in the place of the
    logits, which nobody may read afterwards."""
    return LogLikelihood.apply(logits, target, temperature)


class LogLikelihood(torch.autograd.Function):
    """With p = softmax(logits / T) and what comes back, g (n,), the gradient of the logits is

        g / T * (one-hot(target) - p)

    so p need not be kept: the logits and two numbers per row make it again.
    """

    @staticmethod
    def forward(ctx, logits, target, temperature):
        """-> log pi(target) (n,)."""
        top = torch.empty(len(logits), 1, device=logits.device)         # the largest, t
        total = torch.empty_like(top)                                   # sum of exp(logit / T - t)
        for rows, scaled in in_float32(logits, temperature):
            top[rows] = scaled.amax(-1, keepdim=True)
            total[rows] = scaled.sub_(top[rows]).exp_().sum(-1, keepdim=True)
        ctx.save_for_backward(logits, target, top, total)
        ctx.temperature = temperature
        chosen = logits.gather(1, target[:, None]).float() / temperature
        return (chosen - top - total.log())[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        """g (n,) -> the gradient of the logits (n, V), in their place."""
        logits, target, top, total = ctx.saved_tensors
        g = (g / ctx.temperature)[:, None]
        for rows, scaled in in_float32(logits, ctx.temperature):
            minus_p = scaled.sub_(top[rows]).exp_().mul_(-g[rows] / total[rows])
            logits[rows] = minus_p.scatter_add_(1, target[rows, None], g[rows])
        return logits, None, None


def in_float32(logits, temperature):
    """(rows, their logits / temperature) of all rows, block by block, in the same piece of
    memory."""
    room = None
    for rows in blocks(logits, MANY):
        part = logits[rows]
        if room is None:
            room = torch.empty_like(part, dtype=torch.float32)
        scaled = room[:len(part)].copy_(part)
        yield rows, scaled if temperature == 1 else scaled.div_(temperature)


# ------------------------------------------------------------------------ RMSNorm
def plain_rms_norm(x, weight, eps):
    """x (..., size) -> x / sqrt(mean(x^2) + eps) * weight, in x's dtype; the mean square is taken
    in float32."""
    x32 = x.float()
    mean_square = x32.pow(2).mean(-1, keepdim=True)
    normed = x32 * torch.rsqrt(mean_square + eps)
    return normed.to(x.dtype) * weight


def rms_norm(x, weight, eps):
    """`plain_rms_norm`, to the last bit. The weight is frozen: only x gets a gradient."""
    if not (x.requires_grad and torch.is_grad_enabled()) or weight.requires_grad:
        return plain_rms_norm(x, weight, eps)
    return RMSNorm.apply(x, weight, eps)


class RMSNorm(torch.autograd.Function):
    """y = n * weight with n = r x and r = 1 / sqrt(mean(x^2) + eps), one number per row. r depends
    on x as well: dr/dx = -r^3 x / size. So, with a = dL/dn = g * weight,

        dL/dx = r (a - n mean(a * n))
    """

    @staticmethod
    def forward(ctx, x, weight, eps):
        """x (..., size) -> y (..., size)."""
        rows = x.reshape(-1, x.shape[-1])
        y, r = torch.empty_like(rows), torch.empty(len(rows), 1, device=x.device)
        for part in blocks(rows, FEW):
            x32 = rows[part].float()
            r[part] = torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)
            y[part] = (x32 * r[part]).to(x.dtype) * weight
        ctx.save_for_backward(rows, weight, r)
        return y.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        """g = dL/dy (..., size) -> dL/dx (..., size)."""
        rows, weight, r = ctx.saved_tensors
        grad, gx = g.reshape(rows.shape), torch.empty_like(rows)
        for part in blocks(rows, FEW):
            n = rows[part].float() * r[part]
            a = (grad[part] * weight).float()
            mean = (a * n).mean(-1, keepdim=True)
            gx[part] = a.addcmul_(n, mean, value=-1).mul_(r[part])
        return gx.view(g.shape), None, None


# ------------------------------------------------------------------------ states by their places
def picked(x, row, col):
    """x[row, col] of x (B, S, C), row and col (N,). -> (N, C)

    On a CPU the gradient of x[row, col] adds what comes back for one state, a prompt's last, from
    which each of its answers begins, in the order in which threads get there. Here the order is
    always the same, and so are the last bits of a training. (On CUDA it is the other way round.)
    """
    if x.device.type != "cpu":
        return x[row, col]
    return x.flatten(0, 1).index_select(0, row * x.shape[1] + col)

"""
LoRA and (IA)^3, the baselines: layers that train, fold, save and load as SVF's do (svf.SVF says what a layer must have).

    LoRA    W' = W + (alpha / rank) B A           A (rank, n) random and B (m, rank) 0 at the start; (m + n) rank numbers
    IA3     W' = diag(l) W  or  W diag(l)         l = 1 at the start; m or n numbers

Kept:     LoRA starts as in its paper (Kaiming-uniform A, B = 0); IA3 scales what k_proj and v_proj put out and what down_proj
          takes in (on other layers: what they put out). Both are the base model at the start, bit for bit.
Changed:  trained by REINFORCE like SVF (the paper gives LoRA next-token loss only: A.2), or both by either: --objective.
Left out: dropout of LoRA's input (0.05 in the paper's Table 6); biases are never scaled.
"""
import torch
from torch import nn

from . import svf
from .machine.packed import linear

METHODS = {"svf": svf.ALL, "lora": svf.ALL, "ia3": "k,v,down"}          # each with the modules that it tunes unless told


class LoRALinear(torch.autograd.Function):
    """y = x W'^T through the weights that sampled, with gradients for x, A and B but none for W.

    x (..., n), A (rank, n), B (m, rank), g = dL/dy (..., m). From y = x W^T + factor (x A^T) B^T, over all tokens t:

        dL/dA = factor sum_t (B^T g_t) x_t^T            dL/dB = factor sum_t g_t (A x_t)^T
    """

    @staticmethod
    def forward(ctx, x, A, B, folded, factor):
        """x (..., n) -> y (..., m)."""
        ctx.factor = factor
        ctx.save_for_backward(x, A, B, folded)
        return linear(x, folded)

    @staticmethod
    def backward(ctx, g):
        """g = dL/dy (..., m) -> dL/dx (..., n), dL/dA (rank, n), dL/dB (m, rank)."""
        x, A, B, W = ctx.saved_tensors
        gx = g @ W if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return gx, None, None, None, None
        x, g = x.flatten(0, -2), g.flatten(0, -2)                               # (tokens, n), (tokens, m)
        gA = (g @ B.to(g.dtype)).T @ x
        gB = g.T @ (x @ A.to(x.dtype).T)
        return gx, ctx.factor * gA.float(), ctx.factor * gB.float(), None, None


class LoRA(nn.Module):
    """A linear layer with a low-rank change. A and B are trained in float32; `base` keeps the layer that it replaces."""
    off = {".B": 0.0}

    def __init__(self, base, rank, alpha, generator):
        super().__init__()
        self.base, self.W, self.factor = base, svf.weight(base), alpha / rank
        m, n = self.W.shape
        A = (2 * torch.rand(rank, n, generator=generator) - 1) * n ** -0.5      # on the CPU: the same on every device
        self.A = nn.Parameter(A.to(self.W.device))
        self.B = nn.Parameter(torch.zeros(m, rank, device=self.W.device))
        self.folded, self.bank, self.rows = self.W, None, None

    def trained(self):
        return {".A": self.A, ".B": self.B}

    expert = trained

    def stack(self, parts):
        """A (experts, rank, n), B (experts, m, rank) -> what forward picks from, B with the factor."""
        return parts[".A"].to(self.W.dtype), (self.factor * parts[".B"]).to(self.W.dtype)

    @torch.no_grad()
    def fold(self):
        """W' = W + factor B A, rounded once; W itself where B = 0."""
        change = self.factor * (self.B.float() @ self.A.float())
        self.folded = (self.W.float() + change).to(self.W.dtype) if bool((self.B != 0).any()) else self.W

    def forward(self, x):
        """x (..., n) -> y (..., m)."""
        if self.bank is not None:                                               # one pair of factors per row of the batch
            A, B = (t[self.rows.index] for t in self.bank)
            y = linear(x, self.W) + (x @ A.mT) @ B.mT
        elif torch.is_grad_enabled():
            y = LoRALinear.apply(x, self.A.float(), self.B.float(), self.folded, self.factor)
        else:
            y = linear(x, self.folded)
        return y if self.base.bias is None else y + self.base.bias


class IA3Linear(torch.autograd.Function):
    """y = x W'^T through the weights that sampled, with gradients for x and l but none for W.

    From y = l * (x W^T), over all tokens t: dL/dl = sum_t g_t * (W x_t). From y = (l * x) W^T: sum_t (W^T g_t) * x_t.
    """

    @staticmethod
    def forward(ctx, x, l, W, folded, on_input):
        """x (..., n) -> y (..., m)."""
        ctx.on_input = on_input
        ctx.save_for_backward(x, W, folded)
        return linear(x, folded)

    @staticmethod
    def backward(ctx, g):
        """g = dL/dy (..., m) -> dL/dx (..., n), dL/dl (m,) or, with on_input, (n,)."""
        x, W, folded = ctx.saved_tensors
        gx = g @ folded if ctx.needs_input_grad[0] else None
        gl = None
        if ctx.needs_input_grad[1]:
            gl = (g @ W) * x if ctx.on_input else g * (x @ W.T)
            gl = gl.flatten(0, -2).sum(0, dtype=torch.float32)
        return gx, gl, None, None, None


class IA3(nn.Module):
    """A linear layer whose output (m,) or, with on_input, whose input (n,) is multiplied by a trained vector l."""
    off = {".l": 1.0}

    def __init__(self, base, on_input):
        super().__init__()
        self.base, self.W, self.on_input = base, svf.weight(base), on_input
        self.l = nn.Parameter(torch.ones(self.W.shape[1 if on_input else 0], device=self.W.device))
        self.folded, self.bank, self.rows = self.W, None, None

    def trained(self):
        return {".l": self.l}

    expert = trained

    def stack(self, parts):
        return parts[".l"].to(self.W.dtype)

    @torch.no_grad()
    def fold(self):
        """W' = W diag(l) or diag(l) W, rounded once; W itself at l = 1."""
        l = self.l.float()
        scaled = self.W.float() * (l if self.on_input else l[:, None])
        self.folded = self.W if bool((l == 1).all()) else scaled.to(self.W.dtype)

    def forward(self, x):
        """x (..., n) -> y (..., m)."""
        if self.bank is not None:                                               # one l per row of the batch
            l = self.bank[self.rows.index][:, None]
            y = linear(x * l, self.W) if self.on_input else linear(x, self.W) * l
        elif torch.is_grad_enabled():
            y = IA3Linear.apply(x, self.l.float(), self.W, self.folded, self.on_input)
        else:
            y = linear(x, self.folded)
        return y if self.base.bias is None else y + self.base.bias


def attach(model, method, modules=None, depth="all", rank=16, alpha=32.0, seed=0):
    """Swap every selected linear layer for a LoRA or IA3 view of itself. -> list of names.

    method: "lora" or "ia3"; modules, depth: see svf.targets (modules None or "": METHODS). rank, alpha, seed (of A): LoRA
    only. Raises RuntimeError when layers are tuned already.
    """
    if method not in ("lora", "ia3"):
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    if method == "lora" and (rank < 1 or alpha <= 0):
        raise ValueError("--rank must be at least 1 and --lora-alpha above 0")
    names = svf.chosen(model, modules or METHODS[method], depth)
    g = torch.Generator().manual_seed(seed)
    bases = {name: model.get_submodule(name).requires_grad_(False) for name in names}
    svf.swap(model, {name: LoRA(base, rank, alpha, g) if method == "lora" else
                     IA3(base, name.endswith(svf.SHORT["down"])) for name, base in bases.items()})
    return names


def mix(experts, alpha):
    """Mixture of K LoRA experts: change = sum_k alpha_k B_k A_k, which is again a LoRA, of rank K * rank.

    alpha: K numbers. -> dict name.A (K * rank, n), name.B (m, K * rank), for layers of that rank and the same alpha / rank.
    """
    return {name: torch.cat([e[name] for e in experts]) if name.endswith(".A") else
            torch.cat([float(a) * e[name] for a, e in zip(alpha, experts, strict=True)], 1) for name in experts[0]}

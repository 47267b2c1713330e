"""
All kinds of expert (`METHODS`), and the baselines LoRA and (IA)^3: layers that train, fold, save
and load as SVF's do (svf.Tuned says what a layer must have).

    LoRA    W' = W + (alpha / rank) B A         A (rank, n) random, B (m, rank) 0 at the start
    IA3     W' = diag(l) W  or  W diag(l)       l (m,) or (n,), 1 at the start

Kept:     LoRA starts as in its authors' code (Kaiming-uniform A, B = 0); IA3 scales what k_proj
          and v_proj put out and what down_proj takes in (on other layers: what they put out). Both
          are the base model at the start, bit for bit.
Changed:  trained by REINFORCE like SVF (the paper's LoRA imitates, A.2; under rewards it collapsed,
          Table 4), or both by either: --objective.
Left out: dropout of LoRA's input (0.05 in the paper's Table 6); biases are never scaled.
"""
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from . import svf
from .machine.packed import linear


# ------------------------------------------------------------------------ beside W
class Beside(svf.Tuned):
    """A layer that computes its change beside the product with W, so that autograd finds all
    gradients. W' is built for `svf.merged` alone: in bfloat16 the sum keeps little of a small
    change (of a LoRA with |B| = 3e-5 an eighth)."""

    def fold(self):
        """`folded` says whether anything is changed: W, or None where something is."""
        changed = any(bool((self.trained()[end] != was).any()) for end, was in self.off.items())
        self.folded = None if changed else self.W

    def sampled(self, x):
        # folded is W: nothing is changed, or svf.at_base leaves it out
        if self.folded is self.W:
            return linear(x, self.W)
        return self.product(x)


# ------------------------------------------------------------------------ LoRA
class LoRA(Beside):
    """A linear layer with a low-rank change. A and B are trained in float32."""
    off = {".B": 0.0}

    def __init__(self, base, rank, alpha, generator):
        super().__init__(base)
        self.factor = alpha / rank
        m, n = self.W.shape
        if rank > max(m, n):
            raise ValueError(f"--rank={rank} is more than either side of a matrix of {m} x {n}")
        uniform = torch.rand(rank, n, generator=generator)      # on the CPU: equal on every device
        A = (2 * uniform - 1) * n ** -0.5
        self.A = nn.Parameter(A.to(self.W.device))
        self.B = nn.Parameter(torch.zeros(m, rank, device=self.W.device))

    def trained(self):
        return {".A": self.A, ".B": self.B}

    @torch.no_grad()
    def dense(self):
        """W' = W + factor B A, rounded once."""
        change = self.factor * (self.B.float() @ self.A.float())
        return (self.W.float() + change).to(self.W.dtype)

    def product(self, x):
        """x (..., n) -> y = x W^T + (x A^T) factor B^T (..., m)."""
        A, B = self.A.to(x.dtype), (self.factor * self.B).to(x.dtype)
        return linear(x, self.W) + (x @ A.T) @ B.T

    def stack(self, bank):
        """A (experts, rank, n), B (experts, m, rank), the latter with the factor."""
        dtype = self.W.dtype
        return bank[".A"].to(dtype), (self.factor * bank[".B"]).to(dtype)

    def by_row(self, x):
        """`product`, with A_b and B_b for row b."""
        A, B = (t[self.rows.index] for t in self.bank)
        return linear(x, self.W) + (x @ A.mT) @ B.mT


def mix(experts, alpha):
    """Mixture of K LoRA experts: change = sum_k alpha_k B_k A_k, which is again a LoRA, of rank
    K * rank.

    alpha: K numbers, not one per matrix. -> dict name.A (K * rank, n), name.B (m, K * rank), for
    layers of that rank and the same alpha / rank.
    """
    if isinstance(alpha, dict) or len({*map(frozenset, experts)}) > 1:
        raise ValueError("LoRA experts are mixed by one alpha each, and on the same matrices")
    mixed = {}
    for name in experts[0]:
        scaled = [float(a) * e[name] for a, e in zip(alpha, experts, strict=True)]
        mixed[name] = torch.cat(scaled, 1)
        if name.endswith(".A"):
            mixed[name] = torch.cat([e[name] for e in experts])
    return mixed


# ------------------------------------------------------------------------ IA3
class IA3(Beside):
    """A linear layer whose output (m,) or, with on_input, whose input (n,) is multiplied by a
    trained vector l."""
    off = {".l": 1.0}

    def __init__(self, base, on_input):
        super().__init__(base)
        self.on_input = on_input
        m, n = self.W.shape
        self.l = nn.Parameter(torch.ones(n if on_input else m, device=self.W.device))

    def trained(self):
        return {".l": self.l}

    @torch.no_grad()
    def dense(self):
        """W' = W diag(l) or diag(l) W, rounded once."""
        l = self.l if self.on_input else self.l[:, None]
        return (self.W.float() * l).to(self.W.dtype)

    def product(self, x):
        return self.scaled(x, self.l)

    def scaled(self, x, l):
        """x (..., n), l (..., n or m) float32 -> y = (l * x) W^T or l * (x W^T) (..., m)."""
        if self.on_input:
            return linear((l * x).to(x.dtype), self.W)
        return (l * linear(x, self.W)).to(x.dtype)

    def stack(self, bank):
        return bank[".l"]

    def by_row(self, x):
        """`product`, with l_b for row b."""
        return self.scaled(x, self.bank[self.rows.index][:, None])          # l (B, 1, n or m)


# ------------------------------------------------------------------------ the registry
@dataclass(frozen=True)
class Method:
    """One kind of expert: all that training, files and mixtures ask of it.

    modules   the layers that it tunes unless told (see svf.targets)
    attach    attach(model, settings, cache, progress) -> names; see `attach` below
    tensors   what its files hold of each layer: end of the name -> number of dimensions
    mix       mix(experts, alpha) -> expert
    """
    modules: str
    attach: Callable
    tensors: dict
    mix: Callable = svf.mix


def attach(model, method, settings=None, cache=None, progress=True):
    """Swap every selected linear layer for one of this method's. -> list of names.

    settings: those of recipe.TrainConfig that say what a layer is (dict; DEFAULTS for what it
    lacks). cache, progress: of decompositions (svf.attach). RuntimeError when layers are tuned
    already.
    """
    kind = find(method)
    settings = DEFAULTS | (settings or {})
    settings["modules"] = settings["modules"] or kind.modules
    return kind.attach(model, settings, cache, progress)


def find(method):
    """-> Method. ValueError lists the names there are."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    return METHODS[method]


def kind_of(expert):
    """-> Method that made these numbers, by the ends of their names; z's have none."""
    for method in METHODS.values():
        ends = tuple(method.tensors)
        if expert and ends != ("",) and all(name.endswith(ends) for name in expert):
            return method
    return METHODS["svf"]


def swap_each(model, settings, make):
    """Put make(name, base) in the place of every selected layer. -> list of names."""
    names = svf.chosen(model, settings["modules"], settings["layers"])
    bases = {name: model.get_submodule(name).requires_grad_(False) for name in names}
    svf.swap(model, {name: make(name, base) for name, base in bases.items()})
    return names


def attach_svf(model, settings, cache, progress):
    return svf.attach(model, settings["modules"], cache, settings["logit_form"],
                      progress, settings["layers"], settings["tie"])


def attach_lora(model, settings, cache, progress):
    g = torch.Generator().manual_seed(settings["seed"])
    return swap_each(model, settings, lambda name, base: LoRA(
        base, settings["rank"], settings["lora_alpha"], g))


def attach_ia3(model, settings, cache, progress):
    down = svf.SHORT["down"]
    return swap_each(model, settings, lambda name, base: IA3(base, name.endswith(down)))


DEFAULTS = {"modules": "", "layers": "all", "rank": 16, "lora_alpha": 32.0, "seed": 0,
            "tie": "none", "logit_form": False}
METHODS = {
    "svf": Method(svf.ALL, attach_svf, {"": 1}),
    "lora": Method(svf.ALL, attach_lora, {".A": 2, ".B": 2}, mix),
    "ia3": Method("k,v,down", attach_ia3, {".l": 1})
}

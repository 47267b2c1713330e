"""
Singular value fine-tuning (paper 3.1): W = U diag(S) Vt, and one number z per singular value gives

    W' = U diag(S * z) Vt.                                          z = 1 is the base model, bit for bit.

Kept:     all z of all tuned matrices together are an "expert"; U, S, Vt and the base weights stay frozen.
Changed:  z starts at 1 (the paper's Table 6 starts at 0.1, which only makes sense as the released code's logit p with
          z = sigmoid(p) and the nuclear norm kept; that form is here as parameterisation "sigmoid").
          Mixing is z = 1 + sum_k alpha_k (z_k - 1), on effective z: alpha = 0 is the base model, a one-hot alpha is the
          expert (the release mixes logits, where neither holds). The paper's plain sum is `mix(..., plain=True)`.
Forms:    during a rollout z stands still, so W' is built once (`fold`) and used as a plain matrix; the gradient of z
          needs no dense weight gradient (`FoldedLinear`); rows with different z go through the factors (`per_row`).
"""
import sys
import time
from contextlib import contextmanager

import torch
from torch import nn

from .machine.packed import linear
from .machine.svd_cache import decompose

SHORT = {"q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj", "attn.c_proj"), "gate": ("gate_proj",),
         "up": ("up_proj", "mlp.c_fc"), "down": ("down_proj", "mlp.c_proj"), "qkv": ("attn.c_attn",)}
ALL = "q,k,v,o,gate,up,down"


class FoldedLinear(torch.autograd.Function):
    """y = x W'^T, with gradients for x and for the scale z but none for W'.

    x (..., n), W' (m, n), U (m, r), Vt (r, n), g = dL/dy (..., m). From W' = sum_i z_i S_i u_i v_i^T over all tokens t:

        dL/dz_i = S_i sum_t (u_i . g_t)(v_i . x_t)

    which is two thin products instead of the m x n gradient of W'. The longer side is met once only: where m > n (gate,
    up) dL/dx reuses the first product, g W' = ((g U) * S z) Vt; where m < n (down, k, v) the second is taken from the
    output, v_i . x_t = (u_i . y_t) / (z_i S_i), unless a z is too small to divide by (`from_y`).
    """

    @staticmethod
    def forward(ctx, x, z, W, U, S, Vt, from_y):
        """x (..., n) -> y (..., m)."""
        y = linear(x, W)
        ctx.from_y = from_y
        ctx.save_for_backward(y if from_y else x, z, W, U, S, Vt)
        return y

    @staticmethod
    def backward(ctx, g):
        """g = dL/dy (..., m) -> dL/dx (..., n), dL/dz (r,)."""
        kept, z, W, U, S, Vt = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return g @ W, None, None, None, None, None, None
        gU = g @ U                                                              # (..., r)
        other = kept @ U if ctx.from_y else kept @ Vt.T
        gz = (gU * other).flatten(0, -2).sum(0, dtype=torch.float32) * (1 / z if ctx.from_y else S)
        gx = None
        if ctx.needs_input_grad[0]:
            gx = (gU * (S * z).to(gU.dtype)) @ Vt if len(U) > Vt.shape[1] else g @ W
        return gx, gz, None, None, None, None, None


def weight(base):
    """W (out, in) of a linear layer, without gradient. GPT-2 stores the transpose."""
    base.weight.packed = None                               # packed.py's copy: `base` does not run while it is replaced
    return base.weight.detach().T if getattr(base, "transposed", False) else base.weight.detach()


class SVF(nn.Module):
    """A linear layer seen through its singular values. Replaces the layer it is given; `base` keeps that layer.

    z (r,) float32 is the trained parameter (the logit p where sigmoid=True). W' lives in `folded` and changes only in
    `fold()`: setting z without folding has no effect on the output.

    Every tuned layer, lora.py's too, has base, W, folded, fold(); trained(), what the optimizer moves, and expert(), what
    an expert file holds, as dicts from the end of a name ("" for z) to a tensor; off, the value at which W' = W; and
    stack(), for a batch whose rows have different experts. Nothing else in t2mini asks which method a layer is.
    """
    off = {"": 1.0}

    def __init__(self, base, U, S, Vt, sigmoid=False):
        super().__init__()
        self.base, self.sigmoid, self.W = base, sigmoid, weight(base)
        dtype = self.W.dtype                                            # S and z stay in float32
        self.U, self.S, self.Vt = U.to(dtype), S.clone(), Vt.to(dtype)  # (m, r), (r,), (r, n); no view of a mapped file
        self.z = nn.Parameter(torch.full_like(S, 0.1) if sigmoid else torch.ones_like(S))
        self.folded, self.from_y = self.W, len(self.U) < self.Vt.shape[1]
        self.bank = self.rows = None                                    # see `per_row`

    def scale(self):
        """Effective z (r,): what multiplies S. Differentiable in the trained parameter."""
        z = self.z.float().expand_as(self.S)                            # a tied z is one number for all of S
        if not self.sigmoid:
            return z
        s = torch.sigmoid(z)
        return s * (self.S.sum() / (self.S * s).sum())                  # the release's rescale: sum(S * z) = sum(S)

    def trained(self):
        return {"": self.z}

    def expert(self):
        return {"": self.scale()}

    def stack(self, parts):
        """parts[""] (experts, r) -> the bank of S z that forward picks from."""
        return (self.S * parts[""]).to(self.W.dtype)

    @torch.no_grad()
    def fold(self):
        """W' = W + U diag(S * (z - 1)) Vt, the sum rounded once. Written as a change to W it is exact at z = 1, and the
        rounding of U and Vt touches only the change."""
        z = self.scale()
        self.from_y = len(self.U) < self.Vt.shape[1] and bool((z.abs() > 0.1).all())
        if bool((z == 1).all()):
            self.folded = self.W
        else:
            if self.folded is self.W:
                self.folded = torch.empty(self.W.shape, dtype=self.W.dtype, device=self.W.device)
                self.W.packed = None                                            # packed.py's copy of W is seldom used now
            change = (self.U * (self.S * (z - 1)).to(self.U.dtype)) @ self.Vt               # (m, n)
            torch.add(self.W, change, out=self.folded)                          # in place: no new memory at each update

    def forward(self, x):
        """x (..., n) -> y (..., m)."""
        if self.bank is not None:                                       # one z per row of the batch
            Sz = self.bank[self.rows.index][:, None]                    # (B, 1, r)
            y = linear(linear(x, self.Vt) * Sz, self.U)
        elif torch.is_grad_enabled():
            y = FoldedLinear.apply(x, self.scale(), self.folded, self.U, self.S, self.Vt, self.from_y)
        else:
            y = linear(x, self.folded)
        return y if self.base.bias is None else y + self.base.bias


# ---------------------------------------------------------------------------------------------- attach, detach
def layers(model):
    """dict name -> tuned layer, in model order."""
    return {name: m for name, m in model.named_modules() if hasattr(m, "folded")}


def trained(model):
    """dict name -> parameter that the optimizer moves, each one once."""
    names = {}
    for name, layer in layers(model).items():
        for part, p in layer.trained().items():
            names.setdefault(p, name + part)
    return {name: p for p, name in names.items()}


def targets(model, modules=ALL, depth="all"):
    """Names of the linear layers that `modules` (such as "q,v" or "gate,up,down") selects.

    depth "half" takes every second block, from the first on. The paper tunes half of the layers of Llama-3-70B and does
    not say which (A.1); these are spread over the whole depth.
    """
    wanted = [m.strip() for m in modules.split(",")]
    unknown = [m for m in wanted if m not in SHORT]
    if unknown:
        raise ValueError(f"unknown module {unknown[0]!r}; choose from {', '.join(SHORT)}")
    ends = tuple("." + e for m in wanted for e in SHORT[m])
    if "qkv" not in wanted and {"q", "k", "v"} & {*wanted}:             # GPT-2 has q, k and v in one matrix
        ends += (".attn.c_attn",)
    if depth not in ("all", "half"):
        raise ValueError(f"layers must be all or half, not {depth!r}")
    return [n for n, m in model.named_modules() if n.endswith(ends) and hasattr(m, "weight")
            and (depth == "all" or int(n.split(".")[2]) % 2 == 0)]          # model.layers.3... or transformer.h.3...


def chosen(model, modules, depth="all"):
    """The names that attach() is to replace. modules may be a list of layer names too. RuntimeError if any layer is tuned."""
    if layers(model):
        raise RuntimeError("this model already has SVF layers; call svf.detach(model) first")
    names = targets(model, modules, depth) if isinstance(modules, str) else list(modules)
    if not names or not set(names) <= set(targets(model, ",".join(SHORT))):
        raise ValueError(f"no linear layer of this model is called {modules if isinstance(modules, str) else names[:1]}")
    return names


def attach(model, modules=ALL, cache=None, sigmoid=False, progress=True, depth="all", tie="none"):
    """Swap every selected linear layer for an SVF view of itself. -> list of names.

    modules, depth: see `targets`; or modules as a list of layer names. cache: folder for the decompositions (created);
    None computes them anew. tie: z is a single number for each "matrix", for all matrices of a block ("layer"), or for all
    of one kind over the blocks ("module"); layers that share it have the same parameter. Raises RuntimeError when
    attached already.
    """
    names, made, t0, shown = chosen(model, modules, depth), {}, time.time(), 0
    for i, name in enumerate(names):
        base = model.get_submodule(name).requires_grad_(False)
        try:
            factors = decompose(weight(base), cache)
        except torch.linalg.LinAlgError as e:
            raise ValueError(f"the SVD of {name} failed: {e}") from None
        made[name] = SVF(base, *factors, sigmoid)
        if progress and time.time() - t0 > shown + 1 or (shown and i + 1 == len(names)):
            shown = time.time() - t0
            left = shown / (i + 1) * (len(names) - i - 1)
            print(f"\rdecomposing {i + 1}/{len(names)} matrices, {left:3.0f} s left ", end="", file=sys.stderr, flush=True)
    if shown:
        print(file=sys.stderr)
    if tie != "none":
        kind = {"matrix": lambda n: n, "layer": lambda n: n.split(".")[2], "module": lambda n: n.split(".", 3)[3]}[tie]
        shared = {kind(name): nn.Parameter(torch.ones(1, device=layer.S.device)) for name, layer in made.items()}
        for name, layer in made.items():
            layer.z = shared[kind(name)]
    swap(model, made)                                       # all or none: a failure above leaves the model as it was
    if sigmoid:
        fold(model)
    return names


def swap(model, made):
    """Put these layers (dict name -> layer) in the places of the present ones."""
    for name, layer in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)


def detach(model):
    """Put the original layers back: the very same tensors, so the base model is restored bit for bit."""
    swap(model, {name: layer.base for name, layer in layers(model).items()})


# ---------------------------------------------------------------------------------------------- z in and out
def get_z(model):
    """dict name -> effective z (r,), a copy: this is the expert. (Of LoRA: name.A, name.B; of IA3: name.l.)"""
    return {name + part: t.detach().float().clone() for name, layer in layers(model).items()
            for part, t in layer.expert().items()}


def shift(model):
    """How far the expert is from the base model: mean |z - 1| over all z (IA3: |l - 1|, LoRA: |B|)."""
    return torch.cat([(t.detach() - layer.off[part]).abs().flatten() for layer in layers(model).values()
                      for part, t in layer.expert().items() if part in layer.off]).mean().item()


def fold(model):
    """Build every W' from its z. Call it after z changed."""
    for layer in layers(model).values():
        layer.fold()


@torch.no_grad()
def set_z(model, expert):
    """Make the model run on `expert` (dict name -> z); layers that it does not name run on the base weights."""
    found = {name + part: (layer, part, p) for name, layer in layers(model).items() for part, p in layer.trained().items()}
    unknown = sorted(expert.keys() - found.keys())
    if unknown:
        raise ValueError(f"the expert tunes {unknown[0]}, which has no SVF layer; attach with the expert's modules")
    for name, (layer, part, p) in found.items():
        if getattr(layer, "sigmoid", False):
            raise ValueError("an effective z cannot be set in sigmoid form; attach with sigmoid=False")
        z = expert.get(name)
        if z is None:
            p.fill_(layer.off[part]) if part in layer.off else None     # LoRA's A may be anything while B is 0
        elif z.shape != p.shape or not bool(torch.isfinite(z).all()):
            raise ValueError(f"the expert's z for {name} is not {tuple(p.shape)} finite numbers")
        else:
            p.copy_(z)
    fold(model)


def reset(model):
    """Back to the base model: z = 1, W' = W, the same tensors as before."""
    set_z(model, {})


def merged(model):
    """The whole model with W' in place of W: dict name in the checkpoint -> tensor."""
    added = trained(model).values()
    out = {n.replace(".base.", "."): p for n, p in model.named_parameters() if all(p is not z for z in added)}
    for name, layer in layers(model).items():
        out[f"{name}.weight"] = layer.folded.T if getattr(layer.base, "transposed", False) else layer.folded
    return out


@contextmanager
def using(model, expert):
    """Run on `expert` inside the block; afterwards the base weights are back, whatever happened."""
    try:
        set_z(model, expert)
        yield
    finally:
        reset(model)


@contextmanager
def at_base(model):
    """Compute with the base weights inside the block without touching z (the reference of the KL term)."""
    found = layers(model).values()
    kept = [layer.folded for layer in found]
    try:
        for layer in found:
            layer.folded = layer.W
        yield
    finally:
        for layer, W in zip(found, kept):
            layer.folded = W


def mix(experts, alpha, plain=False):
    """Mixture of K experts (paper 3.2 C). alpha: K numbers, or dict name -> K numbers (per matrix).

    z = 1 + sum_k alpha_k (z_k - 1). With plain=True the paper's z = sum_k alpha_k z_k, where alpha = 0 erases W.
    """
    names, out = sorted({name for e in experts for name in e}), {}
    if any(name.endswith(".A") for name in names):
        raise ValueError("LoRA experts cannot be mixed number by number: the mean of two B A is not the product of the means")
    for name in names:
        a = alpha[name] if isinstance(alpha, dict) else alpha
        ones = torch.ones_like(next(e[name] for e in experts if name in e))
        zs = [e.get(name, ones) for e in experts]
        out[name] = sum(float(a_k) * (z if plain else z - 1) for a_k, z in zip(a, zs)) + (0 if plain else 1)
    return out


class Rows:
    """Which entry of the bank each batch row uses; `select` follows the batch as generate() copies or drops rows."""

    def __init__(self, index):
        self.index = index

    def select(self, rows):
        self.index = self.index[rows]


@contextmanager
def per_row(model, experts, index):
    """Inside the block, row b of a batch runs on experts[index[b]]. Yields the Rows to hand to generate().

    y = ((x V) * S z_b) U^T reads the weights once for all experts; W' is never built. Base weights afterwards.
    """
    rows = Rows(torch.as_tensor(index, device=model.device))
    found = layers(model)
    base = {name + part: torch.full_like(t, layer.off.get(part, 0.0)) for name, layer in found.items()
            for part, t in layer.expert().items()}                      # an expert without a layer has the base model's
    unknown = sorted({name for e in experts for name in e} - base.keys())
    if unknown:
        raise ValueError(f"an expert tunes {unknown[0]}, which has no SVF layer; attach with the expert's modules")
    try:
        for name, layer in found.items():
            parts = {part: torch.stack([e.get(name + part, base[name + part]) for e in experts]) for part in layer.expert()}
            layer.bank, layer.rows = layer.stack(parts), rows
        yield rows
    finally:
        for layer in found.values():
            layer.bank = layer.rows = None

"""
Singular value fine-tuning (paper 3.1): W = U diag(S) Vt, and one number z per singular value gives

    W' = U diag(S * z) Vt.                              z = 1 is the base model, bit for bit.

Kept:     all z of all tuned matrices together are an "expert"; U, S, Vt and the base weights stay
          frozen.
Changed:  z starts at 1 (the paper's Table 6 starts at 0.1, which only makes sense as the released
          code's logit p with z = sigmoid(p) and the nuclear norm kept; that form is here as
          parameterisation "sigmoid"). Mixing is z = 1 + sum_k alpha_k (z_k - 1), on effective z:
          alpha = 0 is the base model, a one-hot alpha is the expert (the release mixes logits,
          where neither holds). The paper's plain sum is `mix(..., plain=True)`.
Forms:    during a rollout z stands still, so W' is built once (`fold`) and used as a plain matrix;
          the gradient of z needs no dense weight gradient (`FoldedLinear`); rows with different z
          add their change to what the base weights say (`per_row`).
"""
from contextlib import contextmanager

import torch
from torch import nn

from .machine.packed import linear
from .machine.svd_cache import decompose, decompose_all     # noqa: F401 (callers say svf.decompose)

SHORT = {"q": ("q_proj",), "k": ("k_proj",), "v": ("v_proj",), "o": ("o_proj", "attn.c_proj"),
         "gate": ("gate_proj",), "up": ("up_proj", "mlp.c_fc"), "down": ("down_proj", "mlp.c_proj"),
         "qkv": ("attn.c_attn",)}           # GPT-2 has q, k and v in one matrix
ALL = "q,k,v,o,gate,up,down"
FIRST_LOGIT = 0.1                           # the paper's Table 6, in the released code's form
SMALLEST_DIVISOR = 0.1                      # a z up to here is not divided by: see FoldedLinear


# ------------------------------------------------------------------------ what a tuned layer is
def turned(base, W):
    """From (out, in) to the layout in which `base` stores its weight, or back: GPT-2 transposes."""
    return W.T if getattr(base, "transposed", False) else W


def weight(base):
    """W (out, in) of a linear layer, without gradient."""
    base.weight.packed = None               # packed.py's copy: `base` does not run while replaced
    return turned(base, base.weight.detach())


class Tuned(nn.Module):
    """A linear layer that an expert changes: the protocol that SVF and lora.py's layers keep.

    base      the layer that it takes the place of: y = x W^T + bias, W (m, n)
    folded    W' (m, n); W itself where the layer is the base model's; None where W' is not built
    off       dict end of name -> the value that means "base model"
    A subclass says what is special about it:
    trained() what the optimizer moves, dict end of name ("" for z) -> parameter
    expert()  what an expert file holds, dict end of name -> tensor
    fold()    builds `folded` from what is trained; call it after a change
    dense()   W' for `merged`; `folded`, if nothing else is said
    product(x)               x W'^T with gradients for x and for what is trained, none for W
    sampled(x)               the same without gradients; if nothing else is said, x folded^T
    stack(bank), by_row(x)   a batch whose rows have different experts: see `per_row`
    Nothing else in t2mini asks which kind a layer is.
    """
    off = {}
    sigmoid = False                         # True: what is trained is not what a file holds

    def __init__(self, base):
        super().__init__()
        self.base = base
        # no buffers, to keep a checkpoint's names: move the model first, then attach
        self.W = weight(base)
        self.folded = self.W
        self.bank = None                    # the numbers of all experts of a mixed batch
        self.rows = None                    # Rows: which of them each row of the batch uses

    def expert(self):
        return self.trained()

    def forward(self, x):
        """x (..., n) -> y (..., m)."""
        if self.bank is not None:
            y = self.by_row(x)
        elif torch.is_grad_enabled():
            y = self.product(x)
        else:
            y = self.sampled(x)
        return y if self.base.bias is None else y + self.base.bias

    def dense(self):
        return self.folded

    def sampled(self, x):
        """x (..., n) -> x W'^T (..., m), where nobody asks for gradients."""
        return linear(x, self.folded)


class SVF(Tuned):
    """A linear layer seen through its singular values.

    z (r,) float32 is the trained parameter (the logit p where sigmoid=True). U (m, r) and
    Vt (r, n) have W's dtype, S (r,) and z stay in float32.
    """
    off = {"": 1.0}

    def __init__(self, base, U, S, Vt, sigmoid=False):
        super().__init__(base)
        self.sigmoid = sigmoid
        self.U = U.to(self.W.dtype)
        self.S = S.clone()                  # no view of a mapped file
        self.Vt = Vt.to(self.W.dtype)
        self.z = nn.Parameter(torch.full_like(S, FIRST_LOGIT if sigmoid else 1.0))
        self.divisible = True               # is every z large enough to divide by? `fold` looks

    @property
    def from_y(self):
        """Is the gradient of z read from the output? FoldedLinear says when."""
        m, n = self.W.shape
        return m < n and self.divisible

    def scale(self):
        """Effective z (r,): what multiplies S. Differentiable in the trained parameter."""
        z = self.z.float().expand_as(self.S)            # a tied z is one number for all of S
        if not self.sigmoid:
            return z
        s = torch.sigmoid(z)                            # the release keeps sum(S * z) = sum(S)
        return s * (self.S.sum() / (self.S * s).sum())

    def trained(self):
        return {"": self.z}

    def expert(self):
        return {"": self.scale()}

    @torch.no_grad()
    def fold(self):
        """W' = W + U diag(S * (z - 1)) Vt. As a change to W it is exact at z = 1, and the rounding
        of U and Vt touches only the change. In bfloat16 the sum is rounded to W's own grid. Where
        every z moved by 0.001 about half of the change is lost; at 0.005 only 1 % is, with noise a
        third as large as the change (SmolLM2). `by_row` and float32 keep all of it."""
        z = self.scale()
        self.divisible = bool((z.abs() > SMALLEST_DIVISOR).all())
        if bool((z == 1).all()):
            self.folded = self.W
            return
        if self.folded is self.W:
            self.W.packed = None                        # packed.py's copy is seldom used now
            self.folded = torch.empty(self.W.shape, dtype=self.W.dtype, device=self.W.device)
        scaled = self.U * (self.S * (z - 1)).to(self.U.dtype)
        torch.add(self.W, scaled @ self.Vt, out=self.folded)        # no new memory per update

    def product(self, x):
        factors = self.U, self.S, self.Vt
        return FoldedLinear.apply(x, self.scale(), self.folded, *factors, self.from_y)

    def stack(self, bank):
        """bank[""] (experts, r) -> S (z - 1) of each expert."""
        return (self.S * (bank[""] - 1)).to(self.W.dtype)

    def by_row(self, x):
        """y = x W^T + ((x V) * S (z_b - 1)) U^T for row b.

        A change to the base's own product, as in `fold`: where z_b = 1 it is 0, and y has the
        base model's bits. ((x V) * S z_b) U^T would be cheaper by that product, but it rebuilds W
        from factors that bfloat16 rounds, and is another model than the base already at z = 1.
        """
        change = self.bank[self.rows.index][:, None]                # (B, 1, r)
        return linear(x, self.W) + linear(linear(x, self.Vt) * change, self.U)


class FoldedLinear(torch.autograd.Function):
    """y = x W'^T, with gradients for x and for the scale z but none for W'.

    x (..., n), W' (m, n), U (m, r), Vt (r, n), g = dL/dy (..., m). From
    W' = sum_i z_i S_i u_i v_i^T follows, over all tokens t:

        dL/dz_i =  S_i   sum_t (u_i . g_t)(v_i . x_t)                       from the input

    which is two thin products instead of the m x n gradient of W'. The output holds the second
    one too, u_i . y_t = z_i S_i (v_i . x_t), and put in its place S_i cancels:

        dL/dz_i = 1/z_i  sum_t (u_i . g_t)(u_i . y_t)                       from the output

    So no second product runs over the longer side. Where m < n (down, k, v) y is read, which is
    shorter than x, unless some z is too small to divide by (SVF.from_y). Where m > n (gate, up)
    dL/dx reuses the first product: g W' = ((g U) * S z) Vt.
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
        x_or_y, z, W, U, S, Vt = ctx.saved_tensors
        wants_x, wants_z = ctx.needs_input_grad[:2]
        if not wants_z:
            return g @ W, None, None, None, None, None, None
        gU = g @ U                                                  # (..., r)
        if ctx.from_y:
            gz = over_tokens(gU * (x_or_y @ U)) * (1 / z)
        else:
            gz = over_tokens(gU * (x_or_y @ Vt.T)) * S
        gx = None
        m, n = W.shape
        if wants_x and m > n:
            gx = (gU * (S * z).to(gU.dtype)) @ Vt
        elif wants_x:
            gx = g @ W
        return gx, gz, None, None, None, None, None


def over_tokens(t):
    """Sum (..., r) over all tokens -> (r,) in float32."""
    return t.flatten(0, -2).sum(0, dtype=torch.float32)


# ------------------------------------------------------------------------ attach, detach
def layers(model):
    """dict name -> tuned layer, in model order."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Tuned)}


def trained(model):
    """dict name -> parameter that the optimizer moves, each one once."""
    first_name = {}                     # a tied z has many layers, and keeps the first one's name
    for name, layer in layers(model).items():
        for part, p in layer.trained().items():
            first_name.setdefault(p, name + part)
    return {name: p for p, name in first_name.items()}


def targets(model, modules=ALL, depth="all"):
    """Names of the linear layers that `modules` (such as "q,v" or "gate,up,down") selects.

    depth "half" takes every second block, from the first on. The paper tunes half of the layers of
    Llama-3-70B and does not say which (A.1); these are spread over the whole depth. GPT-2 has q, k
    and v in one matrix: any of the three selects all.
    """
    wanted = [m.strip() for m in modules.split(",")]
    for name in wanted:
        if name not in SHORT:
            raise ValueError(f"unknown module {name!r}; choose from {', '.join(SHORT)}")
    if depth not in ("all", "half"):
        raise ValueError(f"layers must be all or half, not {depth!r}")
    if {"q", "k", "v"} & {*wanted}:
        wanted.append("qkv")
    ends = tuple("." + end for name in wanted for end in SHORT[name])
    names = [n for n, m in model.named_modules() if n.endswith(ends) and hasattr(m, "weight")]
    if depth == "half":
        names = [n for n in names if block_of(n) % 2 == 0]
    return names


def block_of(name):
    """3 for model.layers.3.mlp.up_proj and for transformer.h.3.mlp.c_fc."""
    return int(name.split(".")[2])


def chosen(model, modules, depth="all"):
    """The names that attach() is to replace. modules may be a list of layer names too.

    RuntimeError if any layer is tuned, ValueError if there is no such layer.
    """
    if layers(model):
        raise RuntimeError("this model already has SVF layers; call svf.detach(model) first")
    names = targets(model, modules, depth) if isinstance(modules, str) else list(modules)
    unknown = sorted({*names} - {*targets(model, ",".join(SHORT))})
    if unknown or not names:
        raise ValueError(f"no linear layer of this model is called {(unknown or [modules])[0]}")
    return names


def attach(model, modules=ALL, cache=None, sigmoid=False, progress=True, depth="all", tie="none"):
    """Swap every selected linear layer for an SVF view of itself. -> list of names.

    modules, depth: see `targets`; or modules as a list of layer names. cache: folder for the
    decompositions (created); None computes them anew. tie: see `tie_z`. Raises RuntimeError when
    attached already.
    """
    names = chosen(model, modules, depth)
    bases = {name: model.get_submodule(name).requires_grad_(False) for name in names}
    weights = {name: weight(base) for name, base in bases.items()}
    made = {name: SVF(bases[name], *factors, sigmoid)
            for name, factors in decompose_all(weights, cache, progress)}
    tie_z(made, tie)
    swap(model, made)                       # all or none: after a failure the model is as it was
    if sigmoid:
        fold(model)
    return names


def tie_z(made, tie):
    """One number z for many singular values: layers (dict name -> layer) that share it get the same
    parameter. tie: a number for each "matrix", for all matrices of a block ("layer"), for all of
    one kind over the blocks ("module"), or none is shared ("none")."""
    shared = {}
    for name, layer in made.items():
        module = name.split(".", 3)[3]                  # mlp.up_proj, whatever the block
        group = {"none": None, "matrix": name, "layer": block_of(name), "module": module}[tie]
        if group is not None:
            one_number = nn.Parameter(torch.ones(1, device=layer.S.device))
            layer.z = shared.setdefault(group, one_number)


def swap(model, made):
    """Put these layers (dict name -> layer) in the places of the present ones."""
    for name, layer in made.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer)


def detach(model):
    """Put the original layers back: the very same tensors, so the base model is restored bit for
    bit."""
    swap(model, {name: layer.base for name, layer in layers(model).items()})


# ------------------------------------------------------------------------ z in and out
def parts(model):
    """For every tensor of an expert: (its name, its layer, the end of the name, the tensor)."""
    for name, layer in layers(model).items():
        for part, t in layer.expert().items():
            yield name + part, layer, part, t


def get_z(model):
    """dict name -> effective z (r,), a copy: this is the expert. (Of LoRA: name.A, name.B; of IA3:
    name.l.)"""
    return {name: t.detach().float().clone() for name, _, _, t in parts(model)}


def shift(model):
    """How far the expert is from the base model: mean |z - 1| over all z (IA3: |l - 1|, LoRA:
    |B|)."""
    moved = [(t.detach() - layer.off[part]).abs().flatten()
             for _, layer, part, t in parts(model) if part in layer.off]
    return torch.cat(moved).mean().item()


def fold(model):
    """Build every W' from its z. Call it after z changed."""
    with torch.inference_mode(False):               # else a later training could not use it
        for layer in layers(model).values():
            layer.fold()


@torch.no_grad()
def set_z(model, expert):
    """Make the model run on `expert` (dict name -> z); layers that it does not name run on the base
    weights. ValueError where it does not fit: then the model stays as it was."""
    check_fit(model, expert)
    for name, layer in layers(model).items():
        for part, p in layer.trained().items():
            z = expert.get(name + part)
            if z is not None:
                p.copy_(z)
            elif part in layer.off:                     # LoRA's A may be anything while B is 0
                p.fill_(FIRST_LOGIT if layer.sigmoid else layer.off[part])
    fold(model)


def check_fit(model, expert):
    """ValueError where `expert` cannot be set: it names other layers, or a z is of another shape or
    not finite."""
    refuse_unknown(model, expert, "the expert")
    for name, layer in layers(model).items():
        if layer.sigmoid and expert:
            raise ValueError("an effective z cannot be set in sigmoid form; attach with "
                             "sigmoid=False")
        for part, p in layer.trained().items():
            z = expert.get(name + part)
            fits = z is None or z.shape == p.shape and bool(torch.isfinite(z).all())
            if not fits:
                raise misfit(name + part, p)


def refuse_unknown(model, expert, who):
    unknown = sorted(expert.keys() - {name for name, _, _, _ in parts(model)})
    if unknown:
        raise ValueError(f"{who} tunes {unknown[0]}, which has no SVF layer; attach with the "
                         "expert's modules")


def misfit(name, p):
    return ValueError(f"the expert's z for {name} is not {tuple(p.shape)} finite numbers")


def reset(model):
    """Back to the base model: z = 1, W' = W, the same tensors as before. (The sigmoid form has
    z = 1 up to rounding.)"""
    set_z(model, {})


def merged(model):
    """The whole model with W' in place of W: dict name in the checkpoint -> tensor."""
    added = {id(p) for p in trained(model).values()}
    out = {}
    for name, p in model.named_parameters():
        if id(p) not in added:
            out[name.replace(".base.", ".")] = p
    for name, layer in layers(model).items():
        out[f"{name}.weight"] = turned(layer.base, layer.dense())
    return out


@contextmanager
def using(model, expert):
    """Run on `expert` inside the block; afterwards what was set before is back (mostly the base
    model, bit for bit), whatever happened."""
    before = {p: p.data.clone() for p in trained(model).values()}
    try:
        set_z(model, expert)
        yield
    finally:
        for p, z in before.items():
            p.data.copy_(z)
        fold(model)


@contextmanager
def at_base(model):
    """Compute with the base weights inside the block without touching z (the reference of the KL
    term)."""
    kept = {layer: layer.folded for layer in layers(model).values()}
    try:
        for layer in kept:
            layer.folded = layer.W
        yield
    finally:
        for layer, folded in kept.items():
            layer.folded = folded


def normalised(alpha, smallest=0.1):
    """K numbers divided by their sum, as the paper tries it (3.2 C). Left as they are where the sum
    is below `smallest`, zeros (the base model) among them: the quotients would be huge."""
    total = float(sum(alpha))
    if total < smallest:
        return list(alpha)
    return [float(a) / total for a in alpha]


def mix(experts, alpha, plain=False):
    """Mixture of K experts (paper 3.2 C). alpha: K numbers, or dict name -> K numbers (per matrix).

    z = 1 + sum_k alpha_k (z_k - 1). With plain=True the paper's z = sum_k alpha_k z_k, where
    alpha = 0 erases W. A layer that an expert lacks has z = 1 there.
    """
    names = sorted({name for e in experts for name in e})
    if any(name.endswith(".A") for name in names):
        raise ValueError("LoRA experts cannot be mixed number by number: the mean of two B A is "
                         "not the product of the means")
    mixed = {}
    for name in names:
        ones = torch.ones_like(next(e[name] for e in experts if name in e))
        zs = [e.get(name, ones) for e in experts]
        pairs = zip(alpha[name] if isinstance(alpha, dict) else alpha, zs, strict=True)
        if plain:
            mixed[name] = sum(float(a) * z for a, z in pairs)
        else:
            mixed[name] = sum(float(a) * (z - 1) for a, z in pairs) + 1
    return mixed


# ------------------------------------------------------------------------ rows with different z
class Rows:
    """Which expert each batch row uses: index (B,). `select` follows the batch as generate() copies
    or drops rows."""

    def __init__(self, index):
        self.index = index

    def select(self, kept):
        self.index = self.index[kept]


@contextmanager
def per_row(model, experts, index):
    """Inside the block, row b of a batch runs on experts[index[b]]; afterwards all rows run on what
    was folded in before.
    Yields the Rows to hand to generate().

    The weights are read once for all experts; no W' is built. See `by_row` of the layers.
    ValueError where an expert does not fit.
    """
    rows = Rows(torch.as_tensor(index, device=model.device))
    for expert in experts:
        refuse_unknown(model, expert, "an expert")
    try:
        for name, layer in layers(model).items():
            layer.bank = layer.stack(gathered(name, layer, experts))
            layer.rows = rows
        yield rows
    finally:
        for layer in layers(model).values():
            layer.bank = layer.rows = None


def gathered(name, layer, experts):
    """What all experts hold of one layer: dict end of the name -> (experts, ...). An expert without
    the layer has the base model's numbers there."""
    bank = {}
    for part, t in layer.expert().items():
        base = torch.full_like(t, layer.off.get(part, 0.0))
        bank[part] = [expert.get(name + part, base) for expert in experts]
        if any(z.shape != t.shape for z in bank[part]):
            raise misfit(name + part, t)
    return {part: torch.stack(zs) for part, zs in bank.items()}

"""z and its layers: identity, the dense oracle, gradients, mixtures,
restoring the base model, files.
"""
import errno
import os
import threading

import pytest
import torch
import torch.nn.functional as F
from conftest import random_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from t2mini import experts, svf
from t2mini.lab import plots
from t2mini.machine import svd_cache
from t2mini.model import Conv1D

IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [200, 3, 200, 3, 1, 0]])
LLAMA = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def either(family):
    """A random Llama or GPT-2 of 96 positions, its biases not zero."""
    gpt2 = dict(family="gpt2", num_key_value_heads=6)
    model = random_model(3, max_position_embeddings=96, **(gpt2 if family == "gpt2" else {}))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, std=0.1)
    return model


both = pytest.mark.parametrize("family", ["llama", "gpt2"])


def attached(family="llama", modules=svf.ALL, **options):
    model = either(family)
    svf.attach(model, modules, progress=False, **options)
    return model


def random_expert(model, seed=0, size=0.4):
    g = torch.Generator().manual_seed(seed)
    return {n: 1 + size * torch.randn(len(layer.z), generator=g)
            for n, layer in svf.layers(model).items()}


def layer_of(kind):
    """(linear layer, its weight as (out, in)) of one shape; all have a bias but `wide`."""
    torch.manual_seed(1)
    m, n = {"wide": (5, 9), "tall": (9, 5), "square": (6, 6), "conv1d": (5, 9),
            "conv1d tall": (9, 5)}[kind]
    base = Conv1D(n, m) if "conv1d" in kind else nn.Linear(n, m, bias=kind != "wide")
    for p in base.parameters():
        nn.init.normal_(p, std=0.5)
    base.requires_grad_(False)
    return base, base.weight.T if "conv1d" in kind else base.weight


def oracle(W, z):
    """U diag(S * z) Vt in float64, from a decomposition of its own."""
    U, S, Vt = torch.linalg.svd(W.double(), full_matrices=False)
    return U @ torch.diag(S * z.double()) @ Vt


def seen_by_svf(kind, **options):
    base, W = layer_of(kind)
    return svf.SVF(base, *svf.decompose(W), **options), W, base.bias


shapes = pytest.mark.parametrize("kind", ["wide", "tall", "square", "conv1d", "conv1d tall"])


# ---------------------------------------------------------------------------------- z = 1, and back
@both
def test_z_of_one_is_the_base_model_bit_for_bit(family):
    """Fails if W' is rebuilt from its factors at z = 1, or set_z and reset leave anything
    of an expert behind.
    """
    model = either(family)
    base = model(IDS)
    names = svf.attach(model, progress=False)
    assert len(names) == len(svf.layers(model)) == {"llama": 14, "gpt2": 8}[family]
    assert torch.equal(model(IDS), base)
    with torch.no_grad():
        assert torch.equal(model(IDS), base)                # the two forms of forward
    svf.set_z(model, random_expert(model))
    assert (model(IDS) - base).abs().max() > 0.1
    svf.set_z(model, {n: torch.ones_like(z) for n, z in svf.get_z(model).items()})
    assert torch.equal(model(IDS), base)
    svf.set_z(model, random_expert(model))
    svf.reset(model)
    assert torch.equal(model(IDS), base)
    # no copy is kept
    assert all(a.folded.data_ptr() == a.base.weight.data_ptr() for a in svf.layers(model).values())


@both
def test_detach_returns_the_very_same_tensors(family):
    """Fails if the base weights are rebuilt, copied, or written into."""
    model = either(family)
    before = dict(model.named_parameters())
    copies = {n: p.clone() for n, p in before.items()}
    svf.attach(model, progress=False)
    svf.set_z(model, random_expert(model))
    svf.detach(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and not svf.layers(model)
    assert all(after[n] is before[n] and torch.equal(after[n], copies[n]) for n in before)


def test_attach_twice_is_refused():
    """Fails if an SVF layer is decomposed again:
    the second z would act on the first layer's `base`.
    """
    model = attached(modules="q")
    with pytest.raises(RuntimeError, match="detach"):
        svf.attach(model, "v", progress=False)
    svf.detach(model)
    assert svf.attach(model, "v", progress=False) == [f"model.layers.{i}.self_attn.v_proj"
                                                      for i in (0, 1)]


def test_modules_choose_the_layers():
    """Fails if a short name selects another layer, or GPT-2's q,k,v matrix is missed
    or taken twice.
    """
    llama, gpt2 = either("llama"), either("gpt2")
    for short, name in zip(svf.ALL.split(","), LLAMA, strict=True):
        assert [n.rpartition(".")[2] for n in svf.targets(llama, short)] == [name, name]
    assert len(svf.targets(llama, "gate, up,down")) == 6
    ends = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert svf.targets(gpt2) == [f"transformer.h.{i}.{e}" for i in (0, 1) for e in ends]
    for short, end in zip(("qkv", "o", "up", "down"), ends):
        assert svf.targets(gpt2, short) == [f"transformer.h.{i}.{end}" for i in (0, 1)]
    with pytest.raises(ValueError, match="unknown module 'query'.*q, k"):
        svf.attach(llama, "q,query", progress=False)
    with pytest.raises(ValueError, match="no linear layer"):
        svf.attach(gpt2, "gate", progress=False)
    assert svf.targets(llama, "q,down", "half") == [f"model.layers.0.{n}"
                                                    for n in ("self_attn.q_proj", "mlp.down_proj")]
    assert svf.targets(gpt2, "qkv", "half") == ["transformer.h.0.attn.c_attn"]
    with pytest.raises(ValueError, match="all or half, not 'third'"):
        svf.targets(llama, "q", "third")
    names = ["model.layers.1.mlp.up_proj"]
    assert svf.attach(llama, names, progress=False) == names == list(svf.layers(llama))
    svf.detach(llama)
    for wrong in ([], ["model.norm"], ["model.layers.9.mlp.up_proj"]):
        with pytest.raises(ValueError, match="no linear layer"):
            svf.attach(llama, wrong, progress=False)
    assert not svf.layers(llama) and not svf.layers(gpt2)


def test_using_restores_whatever_happens():
    """Fails if an error in the block, or a z that cannot be set, leaves the expert in place."""
    model = attached()
    base, expert = model(IDS), random_expert(model)
    with svf.using(model, expert):
        tuned = model(IDS)
    assert torch.equal(model(IDS), base) and (tuned - base).abs().max() > 0.1
    with pytest.raises(KeyError):
        with svf.using(model, expert):
            assert torch.equal(model(IDS), tuned)
            raise KeyError
    assert torch.equal(model(IDS), base)
    last = list(expert)[-1]
    with pytest.raises(ValueError, match="finite"):
        # the others are set by then
        with svf.using(model, expert | {last: expert[last] * float("nan")}):
            raise AssertionError("the block must not run")
    assert torch.equal(model(IDS), base) and all((z == 1).all() for z in svf.get_z(model).values())


def test_using_gives_back_what_was_set_before():
    """Fails if a block inside of another, or in the middle of a training, ends on the base model:
    the outer one, or the training, would go on with an expert that is none.
    """
    model = attached()
    outer, inner = random_expert(model), random_expert(model, seed=1)
    with svf.using(model, outer):
        want = model(IDS)
        with svf.using(model, inner):
            assert not torch.equal(model(IDS), want)
        assert torch.equal(model(IDS), want)
    released = attached(modules="q", sigmoid=True)
    for layer in svf.layers(released).values():
        layer.z.data += 0.5 * torch.randn(layer.z.shape)
    svf.fold(released)
    want = released(IDS)
    with svf.using(released, {}):
        torch.testing.assert_close(released(IDS), model(IDS))
    assert torch.equal(released(IDS), want)


def test_an_expert_of_few_layers_leaves_the_others_at_base():
    """Fails if a layer that an expert does not name keeps the z of the expert before it."""
    model = attached()
    expert = random_expert(model)
    part = {n: z for n, z in expert.items() if "q_proj" in n}
    svf.set_z(model, part)
    want = model(IDS)
    svf.set_z(model, expert)
    svf.set_z(model, part)
    assert torch.equal(model(IDS), want)


def test_an_expert_that_does_not_fit_is_refused():
    """Fails if z of an unknown layer is ignored,
    or z of a wrong length or with NaN is broadcast or copied.
    """
    model = attached(modules="q,v")
    expert = random_expert(model)
    name = next(iter(expert))
    with pytest.raises(ValueError, match="gate_proj"):
        svf.set_z(model, expert | {"model.layers.0.mlp.gate_proj": torch.ones(48)})
    for bad in (torch.ones(1), torch.ones(47), torch.ones(2, 48), expert[name] * float("inf")):
        with pytest.raises(ValueError, match="48,.*finite"):
            svf.set_z(model, {name: bad})
    # the last of many does not fit: nothing of the others was written
    last = sorted(expert)[-1]
    with pytest.raises(ValueError, match="finite"):
        svf.set_z(model, expert | {last: torch.ones(1)})
    assert all(bool((z == 1).all()) for z in svf.get_z(model).values())
    with pytest.raises(ValueError, match="sigmoid"):
        svf.set_z(attached(modules="q", sigmoid=True), {name: expert[name]})


def test_a_bank_with_unknown_layers_is_refused():
    """Fails if per_row leaves out z of layers that have no SVF view,
    and answers with half an expert.
    """
    model = attached(modules="q,v")
    base = model(IDS)
    with pytest.raises(ValueError, match="gate_proj"):
        with svf.per_row(model, [{}, {"model.layers.0.mlp.gate_proj": torch.ones(48)}], [0, 1]):
            raise AssertionError("the block must not run")
    with pytest.raises(ValueError, match=r"q_proj is not \(48,\) finite"):
        with svf.per_row(model, [{"model.layers.0.self_attn.q_proj": torch.ones(47)}], [0, 0]):
            raise AssertionError("the block must not run")
    assert torch.equal(model(IDS), base)


def test_a_failed_attach_leaves_the_model_as_it_was():
    """Fails if a matrix that has no SVD (NaN in a damaged checkpoint) leaves the layers
    before it wrapped.
    """
    model = either("llama")
    model.model.layers[1].mlp.down_proj.weight[3, 3] = float("nan")
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj"):
        svf.attach(model, progress=False)
    assert not svf.layers(model)


def test_at_base_shows_the_base_model_and_keeps_z():
    """Fails if the block runs on W', moves z, or leaves the base weights in after an error."""
    model = attached()
    base, expert = model(IDS), random_expert(model)
    svf.set_z(model, expert)
    tuned = model(IDS)
    with pytest.raises(KeyError):
        with svf.at_base(model):
            assert torch.equal(model(IDS), base)
            raise KeyError
    assert torch.equal(model(IDS), tuned)
    assert all(torch.equal(z, expert[n]) for n, z in svf.get_z(model).items())


# --------------------------------------------------------------------------------- the dense oracle
@shapes
def test_folded_equals_the_dense_product(kind):
    """Fails if z is applied in reversed order, to the wrong side, without S,
    or the transposed layout is not undone.
    """
    layer, W, bias = seen_by_svf(kind)
    z = torch.randn(len(layer.z), generator=torch.Generator().manual_seed(2))
    x = torch.randn(2, 3, W.shape[1], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        layer.z.copy_(z)
    assert torch.equal(layer.folded, W)                     # z alone changes nothing: fold() does
    layer.fold()
    want = F.linear(x.double(), oracle(W, z), None if bias is None else bias.double())
    torch.testing.assert_close(layer(x).double(), want, rtol=0, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), want, rtol=0, atol=1e-5)


def test_folding_again_takes_no_new_memory():
    """Fails if every fold allocates a new W', or writes into the base weight
    that `folded` is at z = 1.
    """
    layer, W, _ = seen_by_svf("wide")
    kept = W.clone()
    layer.z.data.fill_(1.5)
    layer.fold()
    first = layer.folded.data_ptr()
    layer.z.data.fill_(0.5)
    layer.fold()
    assert layer.folded.data_ptr() == first
    torch.testing.assert_close(layer.folded, 0.5 * kept, rtol=0, atol=1e-5)
    layer.z.data.fill_(1.0)
    layer.fold()
    assert layer.folded is layer.W and torch.equal(layer.W, kept)


@shapes
def test_per_row_equals_folded(kind):
    """Fails if a row reads its neighbour's z, S is left out or applied twice, the bias is missed,
    or select() does not move the rows.
    """
    layer, W, bias = seen_by_svf(kind)
    holder = nn.Sequential(layer)
    holder.device = torch.device("cpu")
    zs = [torch.randn(len(layer.z), generator=torch.Generator().manual_seed(s)) for s in (4, 5)]
    x = torch.randn(4, 3, W.shape[1], generator=torch.Generator().manual_seed(3))
    with svf.per_row(holder, [{"0": zs[0]}, {}, {"0": zs[1]}], [2, 0, 1, 2]) as rows:
        got = holder(x).double()
        rows.select(torch.tensor([3, 1, 1]))                # as generate() drops and copies rows
        torch.testing.assert_close(holder(x[[3, 1, 1]]).double(), got[[3, 1, 1]], rtol=0, atol=1e-5)
    for row, z in enumerate((zs[1], zs[0], torch.ones(len(layer.z)), zs[1])):
        want = F.linear(x[row].double(), oracle(W, z), None if bias is None else bias.double())
        torch.testing.assert_close(got[row], want, rtol=0, atol=3e-5)
    assert torch.equal(holder(x), F.linear(x, W) if bias is None else F.linear(x, W) + bias)


@both
def test_in_bfloat16_too_a_row_at_z_of_one_has_the_base_models_bits(family):
    """Fails if rows with experts of their own rebuild W from its factors:
    bfloat16 rounds these, and the base model's row is then another model's.
    """
    model = either(family).bfloat16()
    with torch.no_grad():
        base = model.hidden(IDS)
        svf.attach(model, progress=False)
        with svf.per_row(model, [random_expert(model), {}], [1, 1]):
            assert torch.equal(model.hidden(IDS), base)
        with svf.per_row(model, [random_expert(model), {}], [0, 1]):
            mixed = model.hidden(IDS)
        assert torch.equal(mixed[1], base[1]) and (mixed[0] - base[0]).abs().max() > 0.5


@both
def test_in_bfloat16_too_a_row_does_not_see_its_batch_mates(family):
    """Fails if a row's numbers change with the experts of the other rows,
    or are further from those of the folded weights than bfloat16 rounds.
    """
    model = either(family).bfloat16()
    svf.attach(model, progress=False)
    experts, ids = [random_expert(model, seed, 0.1) for seed in (1, 2)], IDS[:1].expand(3, -1)
    with torch.no_grad():
        seen = []
        for index in ([0, 0, 0], [0, 1, 1], [0, 2, 1], [0, 1, 2]):
            with svf.per_row(model, [*experts, {}], index):
                seen.append(model.hidden(ids))
        assert all(torch.equal(x[0], seen[0][0]) for x in seen)
        assert not torch.equal(seen[0][1], seen[1][1])
        with svf.using(model, experts[0]):
            folded = model.hidden(ids).float()
        base = model.hidden(ids).float()
    assert (seen[0].float() - folded).norm() < 0.02 * folded.norm() < 0.2 * (base - folded).norm()


@both
def test_whole_model_equals_a_dense_one(family):
    """Fails if a layer gets the z of another one,
    or the model is built on the folded weights in one place only.
    """
    model, dense = attached(family), either(family)
    expert = random_expert(model)
    svf.set_z(model, expert)
    for name, z in expert.items():
        base = dense.get_submodule(name)
        transposed = isinstance(base, Conv1D)
        W = oracle(base.weight.T if transposed else base.weight, z).float()
        base.weight.copy_(W.T if transposed else W)
    torch.testing.assert_close(model(IDS), dense(IDS), rtol=0, atol=1e-3)


# ---------------------------------------------------------------------------------------- gradients
@shapes
def test_gradients_equal_those_of_the_dense_form(kind):
    """Fails if S is missing or squared in dL/dz, U and V are swapped,
    tokens of a second batch row are not summed, dL/dx uses W instead of W',
    or z_i is divided by (a z of exactly 0 must get its gradient).
    """
    layer, W, bias = seen_by_svf(kind)
    g = torch.Generator().manual_seed(6)
    z, x = torch.randn(len(layer.z), generator=g), torch.randn(2, 3, W.shape[1], generator=g)
    dy = torch.randn(2, 3, W.shape[0], generator=g)
    z[1] = 0.0
    with torch.no_grad():
        layer.z.copy_(z)
    layer.fold()
    x.requires_grad_()
    layer(x).backward(dy)
    U, S, Vt = (t.double() for t in (layer.U, layer.S, layer.Vt))
    z64, x64 = z.double().requires_grad_(), x.detach().double().requires_grad_()
    y = x64 @ (U @ torch.diag(S * z64) @ Vt).T + (0 if bias is None else bias)
    y.backward(dy.double())
    torch.testing.assert_close(layer.z.grad.double(), z64.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-5, atol=1e-5)
    assert layer.z.grad[1].abs() > 1e-3


@both
def test_nothing_but_z_is_trained(family):
    """Fails if a base weight, a bias, a norm or the embedding requires or gets a gradient,
    even of a model that was left trainable.
    """
    model = either(family)
    for name in svf.targets(model):
        model.get_submodule(name).requires_grad_(True)
    svf.attach(model, progress=False)
    svf.set_z(model, random_expert(model))
    model(IDS).square().mean().backward()
    z = {id(layer.z) for layer in svf.layers(model).values()}
    for p in model.parameters():
        assert p.requires_grad == (id(p) in z) and (p.grad is not None) == (id(p) in z)
        assert id(p) not in z or (torch.isfinite(p.grad).all() and (p.grad != 0).all())


class Shapes(TorchDispatchMode):
    """Notes the shape of every tensor that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        # views of W' are free
        if name not in ("t", "transpose", "permute", "detach", "view", "alias", "expand"):
            self.seen |= {tuple(t.shape) for t in pytree.tree_leaves(out)
                          if isinstance(t, torch.Tensor)}
        return out


def test_no_dense_gradient_is_ever_made():
    """Fails if the gradient of z goes through the m x n gradient of W', as autograd's own would."""
    layer, W, _ = seen_by_svf("wide")
    x = torch.randn(2, 3, 9, requires_grad=True)
    with Shapes() as spy:
        layer(x).sum().backward()
    # dL/dz, and the thin products it is made of
    assert (5,) in spy.seen and (6, 5) in spy.seen
    assert (5, 9) not in spy.seen and (9, 5) not in spy.seen
    assert layer.base.weight.grad is None and layer.folded.grad is None
    # the spy does see a dense gradient where there is one
    with Shapes() as spy:
        F.linear(x, W.clone().requires_grad_()).sum().backward()
    assert (5, 9) in spy.seen or (9, 5) in spy.seen


# ----------------------------------------------------------------------------- the release's logits
@shapes
def test_sigmoid_form_keeps_the_nuclear_norm(kind):
    """Fails if the sum is rescaled without S or not at all, or equal logits change the matrix."""
    layer, W, _ = seen_by_svf(kind, sigmoid=True)
    layer.fold()
    assert (layer.z == 0.1).all()
    torch.testing.assert_close(layer.scale(), torch.ones(len(layer.z)), rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.folded, W, rtol=0, atol=1e-5)
    p = torch.randn(len(layer.z), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        layer.z.copy_(p)
    layer.fold()
    z = layer.scale()
    torch.testing.assert_close((layer.S * z).sum(), layer.S.sum())
    torch.testing.assert_close(z / z[0], p.sigmoid() / p[0].sigmoid())
    torch.testing.assert_close(layer.folded.double(), oracle(W, z.detach()), rtol=0, atol=1e-5)


def test_sigmoid_form_trains_through_the_rescale():
    """Fails if the rescaling factor is a constant for autograd: logits would drift together."""
    layer, W, _ = seen_by_svf("tall", sigmoid=True)
    g = torch.Generator().manual_seed(8)
    p, x, dy = (torch.randn(5, generator=g), torch.randn(4, 5, generator=g),
                torch.randn(4, 9, generator=g))
    with torch.no_grad():
        layer.z.copy_(p)
    layer.fold()
    layer(x).backward(dy)
    U, S, Vt = (t.double() for t in (layer.U, layer.S, layer.Vt))
    p64 = p.double().requires_grad_()
    scale = p64.sigmoid() * S.sum() / (S * p64.sigmoid()).sum()
    (x.double() @ (U @ torch.diag(S * scale) @ Vt).T).backward(dy.double())
    torch.testing.assert_close(layer.z.grad.double(), p64.grad, rtol=1e-5, atol=1e-5)


def test_get_z_is_the_effective_z():
    """Fails if the expert holds logits, or shares memory with the parameter."""
    model = attached(modules="q", sigmoid=True)
    for z in svf.get_z(model).values():
        torch.testing.assert_close(z, torch.ones_like(z))
    model = attached(modules="q")
    expert = svf.get_z(model)
    svf.set_z(model, random_expert(model))
    assert all((z == 1).all() and not z.requires_grad for z in expert.values())


@pytest.mark.parametrize("family, modules", [("llama", "q,up,down"), ("gpt2", "qkv,o,down")])
@pytest.mark.parametrize("tie", ["matrix", "layer", "module"])
def test_the_gradient_of_a_tied_z_is_the_sum_over_what_it_scales(family, modules, tie):
    """Fails if a tie joins the wrong matrices (GPT-2 calls two of a block c_proj),
    or a share of the gradient is lost.
    """
    free, tied = attached(family, modules), attached(family, modules, tie=tie)
    for model in (free, tied):
        with torch.no_grad():
            for p in svf.trained(model).values():
                p.fill_(1.25)
        svf.fold(model)
        model(IDS).square().sum().backward()
    assert torch.equal(free(IDS), tied(IDS))
    assert all(torch.equal(z, svf.get_z(free)[n]) for n, z in svf.get_z(tied).items())
    groups = {}
    for name, layer in svf.layers(free).items():
        key = {"matrix": name, "layer": ".0." in name,
               "module": name.replace(".0.", ".").replace(".1.", ".")}[tie]
        groups.setdefault(key, []).append(layer.z.grad.sum())
    got = [p.grad for p in svf.trained(tied).values()]
    assert len(got) == {"matrix": 6, "layer": 2, "module": 3}[tie]
    want = torch.stack([torch.stack(g).sum() for g in groups.values()])
    torch.testing.assert_close(torch.cat(got), want, rtol=1e-3, atol=1e-2)
    svf.reset(tied)
    assert torch.equal(tied(IDS), either(family)(IDS))


# ----------------------------------------------------------------------------------------- mixtures
def test_mixtures():
    """Fails if alpha multiplies z instead of z - 1,
    a missing layer counts as 0, or experts are taken out of order.
    """
    a, b = ({"x": torch.tensor([1.5, -0.25]), "y": torch.tensor([2.0])},
            {"x": torch.tensor([0.5, 3.0]), "w": torch.zeros(3)})
    mixed = svf.mix([a, b], [0.5, 0.25])
    assert mixed.keys() == {"w", "x", "y"}
    assert mixed["x"].tolist() == [1 + 0.5 * 0.5 + 0.25 * -0.5, 1 + 0.5 * -1.25 + 0.25 * 2.0]
    assert mixed["y"].tolist() == [1.5] and mixed["w"].tolist() == [0.75] * 3
    per_matrix = svf.mix([a, b], {"x": [1.0, 0.0], "y": [0.25, 9.0], "w": [9.0, 0.0]})
    assert all(torch.isfinite(z).all() for z in svf.mix([a, b], [-3.0, 3.0]).values())
    assert torch.equal(per_matrix["x"], a["x"]) and per_matrix["y"].tolist() == [1.25]
    assert per_matrix["w"].tolist() == [1] * 3
    # an expert without the layer has z = 1 there
    plain = svf.mix([a, b], [0.5, 0.25], plain=True)
    assert plain["x"].tolist() == [0.5 * 1.5 + 0.25 * 0.5, 0.5 * -0.25 + 0.25 * 3.0]
    assert plain["y"].tolist() == [1.25] and plain["w"].tolist() == [0.5] * 3


def test_normalised_alpha():
    """Fails if alpha is not divided by its sum, zeros (the base model) become NaN,
    or a small sum blows the change up.
    """
    assert svf.normalised([0.5, 1.0, 0.5]) == [0.25, 0.5, 0.25]
    assert svf.normalised(torch.tensor([0.25, -0.125])) == [2.0, -1.0]
    for small in ([0, 0, 0], [0.5, -0.5, 0.0625], [-1.0, 0.5]):
        assert svf.normalised(small) == small


def test_mixture_with_one_expert_is_that_expert():
    """Fails if alpha = 0 gives 0 or NaN, or a one-hot alpha something else than its expert
    (the release mixes logits).
    """
    model = attached()
    base, experts = model(IDS), [random_expert(model, s) for s in (1, 2, 3)]
    zero, hot = svf.mix(experts, [0, 0, 0]), svf.mix(experts, [0, 1, 0])
    assert all((z == 1).all() for z in zero.values())
    # 1 + (z - 1) is z up to one rounding of each
    for name, z in hot.items():
        torch.testing.assert_close(z, experts[1][name], rtol=0, atol=2e-7)
    with svf.using(model, zero):
        assert torch.equal(model(IDS), base)
    with svf.using(model, experts[1]):
        want = model(IDS)
    with svf.using(model, hot):
        torch.testing.assert_close(model(IDS), want, rtol=0, atol=1e-4)


# -------------------------------------------------------------------------------- the cache of SVDs
@pytest.fixture
def svds(monkeypatch):
    """The shapes that were decomposed so far."""
    calls, svd = [], torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd",
                        lambda W, **kw: calls.append(tuple(W.shape)) or svd(W, **kw))
    return calls


def test_second_decomposition_is_read_from_the_cache(tmp_path, svds):
    """Fails if the cache is never hit, returns other factors,
    or is made where it was not asked for.
    """
    first = svf.attach(model := either("gpt2"), cache=tmp_path / "svd", progress=False)
    assert len(svds) == len(first) == len(list((tmp_path / "svd").iterdir()))
    svf.attach(again := either("gpt2"), cache=tmp_path / "svd", progress=False)
    assert len(svds) == len(first)
    for a, b in zip(svf.layers(model).values(), svf.layers(again).values(), strict=True):
        for k in ("U", "S", "Vt"):
            assert torch.equal(getattr(a, k), getattr(b, k))
            # in another order in memory, products round otherwise
            assert getattr(a, k).stride() == getattr(b, k).stride()
    svf.attach(either("gpt2"), progress=False)
    assert len(svds) == 2 * len(first)


def test_every_tensor_has_a_cache_entry_of_its_own(tmp_path, svds):
    """Fails if the key leaves out the values, the shape or the dtype:
    another matrix's factors would come back.
    """
    W = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    changed = W.clone()
    changed[3, 5] += 1e-6
    half = W.to(torch.float16)
    kin = [W, changed, W.reshape(6, 4), W.reshape(3, 8), W.T, half, half.view(torch.bfloat16), -W]
    for M in kin:
        U, S, Vt = svf.decompose(M, tmp_path)
        torch.testing.assert_close(U @ torch.diag(S) @ Vt, M.float(), rtol=1e-4, atol=1e-5)
    assert len(svds) == len(kin) == len(list(tmp_path.iterdir()))
    for M in kin:
        U, S, Vt = svf.decompose(M, tmp_path)
        torch.testing.assert_close(U @ torch.diag(S) @ Vt, M.float(), rtol=1e-4, atol=1e-5)
    assert len(svds) == len(kin)


@pytest.mark.parametrize("damage", ["empty", "truncated", "header", "other tensors", "no metadata",
                                    "swapped", "flipped bit"])
def test_damaged_cache_file_is_replaced(tmp_path, svds, damage):
    """Fails if a file that is cut off, overwritten, that of another matrix under this name,
    or one with a single flipped bit is used or stops the run.
    """
    W, other = torch.eye(5, 3) * 2 + 0.1, torch.eye(5, 3) * 3 + 0.1
    want = svf.decompose(W, tmp_path)
    path, = tmp_path.iterdir()
    whole = path.read_bytes()
    if damage == "swapped":
        svf.decompose(other, tmp_path / "b")
        whole_of_other, = (tmp_path / "b").iterdir()
        path.write_bytes(whole_of_other.read_bytes())
    elif damage in ("other tensors", "no metadata"):
        save_file({"U": torch.ones(1)}, path,
                  {"format": "pt"} if damage == "other tensors" else None)
    else:
        path.write_bytes({"empty": b"", "truncated": whole[:-7],
                          "header": b"\xff" * 64 + whole[64:],
                          "flipped bit": whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:]}[damage])
    svds.clear()
    for got in (svf.decompose(W, tmp_path), svf.decompose(W, tmp_path)):
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    # once to repair it; then the file is good again
    assert svds == [(5, 3)]


@pytest.mark.parametrize("why", ["closed", "full"])
def test_a_cache_that_cannot_be_written_to_costs_no_answer(tmp_path, monkeypatch, capsys, why):
    """Fails if a folder that cannot be made or a full disk stops the run,
    is told more than once or not at all, or other factors come back.
    """
    cache = tmp_path / "svd"
    if why == "closed":
        (tmp_path / "file").write_text("no folder")
        cache = tmp_path / "file" / "svd"
    else:
        def full(handle):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        monkeypatch.setattr(os, "fsync", full)
    model, other = either("llama"), attached()
    svf.attach(model, cache=cache, progress=False)
    assert torch.equal(model(IDS), other(IDS))
    for a, b in zip(svf.layers(model).values(), svf.layers(other).values(), strict=True):
        assert all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("U", "S", "Vt"))
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "are not kept in" in told[0] and str(cache) in told[0]
    assert not cache.exists() or not list(cache.iterdir())


def test_matrices_are_decomposed_side_by_side_on_one_thread_each(monkeypatch):
    """Fails if one SVD runs on several threads
    (they wait for each other, and another count gives other bits), if the next matrix waits for it,
    or torch's threads are not what they were, after a failure too.
    """
    together, threads, real = threading.Barrier(2, timeout=60), [], torch.linalg.svd

    def svd(W, **kw):
        threads.append(torch.get_num_threads())
        # for the other one: it must be on its way
        together.wait()
        return real(W, **kw)

    alone = [svf.decompose(torch.rand(40, 30, generator=torch.Generator().manual_seed(s)))
             for s in range(4)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(torch.linalg, "svd", svd)
        weights = {str(s): torch.rand(40, 30, generator=torch.Generator().manual_seed(s))
                   for s in range(4)}
        found = dict(svd_cache.decompose_all(weights, progress=False))
        assert threads == [1] * 4 and torch.get_num_threads() == 2
        for s in range(4):
            assert all(torch.equal(a, b) for a, b in zip(found[str(s)], alone[s], strict=True))
        weights["2"][3, 3] = float("nan")
        with pytest.raises(ValueError, match="SVD of 2 failed"):
            dict(svd_cache.decompose_all(weights, progress=False))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_cache_can_be_listed(tmp_path):
    """Fails if the count or the size is not that of the entries, or no folder at all is an error.
    """
    assert svd_cache.listing(tmp_path / "svd") == (0, 0)
    svf.attach(either("gpt2"), cache=tmp_path / "svd", progress=False)
    count, size = svd_cache.listing(tmp_path / "svd")
    assert count == 8
    assert size == sum(p.stat().st_size for p in (tmp_path / "svd").iterdir()) > 10_000


# ------------------------------------------------------------------------------------- expert files
META = {"base_model": "tiny", "base_sha256": "0" * 64, "task": "123", "seed": 3,
        "val_accuracy": 0.25, "config": {"lr": 0.005, "as_released": False},
        "parameterisation": "z"}


@pytest.fixture
def saved(tmp_path):
    """(model with SVF layers, its expert, the file it was saved to)"""
    model = attached(modules="q,down")
    expert = random_expert(model)
    experts.save_expert(tmp_path / "new" / "math.safetensors", expert, META)
    return model, expert, tmp_path / "new" / "math.safetensors"


def test_expert_file_round_trip(saved):
    """Fails if z loses bits on disk, numbers come back as text,
    or a text that looks like a number becomes one.
    """
    model, expert, path = saved
    loaded, meta = experts.load_expert(path, model)
    assert loaded.keys() == expert.keys() and all(torch.equal(loaded[n], expert[n]) for n in expert)
    assert all(z.dtype == torch.float32 for z in loaded.values())
    assert meta == {"format": "t2mini-svf-1", **META}
    assert all(torch.equal(z, expert[n]) for n, z in experts.read_expert(path).items())
    assert [p.name for p in path.parent.iterdir()] == ["math.safetensors"]


def test_expert_of_another_base_is_refused(saved):
    """Fails if z of one model is silently used on another one,
    whose singular vectors it does not know.
    """
    model, expert, path = saved
    model.base_sha256 = "f" * 64
    with pytest.raises(ValueError, match="another base.*allow-other-base") as e:
        experts.load_expert(path, model)
    assert "\n" not in str(e.value)
    assert experts.load_expert(path, model, allow_other_base=True)[0].keys() == expert.keys()


def test_damaged_expert_files_are_refused_in_one_line(saved):
    """Fails if a cut-off file, a model's own weights, z that is not finite, not a vector or of no
    number at all, or a missing file is loaded as an expert or reported by a library's traceback.
    """
    model, expert, path = saved
    name, whole = next(iter(expert)), path.read_bytes()

    def refused(match, error=ValueError):
        with pytest.raises(error, match=match) as e:
            experts.load_expert(path, model)
        assert type(e.value) is error and "\n" not in str(e.value)
        assert "math.safetensors" in str(e.value)

    for cut in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused("damaged")
    path.write_bytes(b"\xff" * len(whole))
    refused("damaged")
    save_file({"a": torch.ones(2)}, path)
    refused("not an expert file")
    for bad in (float("nan"), float("inf")):
        experts.save_expert(path, expert | {name: torch.full((48,), bad)}, META)
        refused("not a vector of finite numbers")
    for odd in (torch.ones(4, 12), torch.zeros(0)):
        experts.save_expert(path, expert | {name: odd}, META)
        refused("not a vector of finite numbers")
    experts.save_expert(path, {}, META)
    refused("without any z")
    path.unlink()
    refused("no expert file", FileNotFoundError)
    path.mkdir()
    refused("damaged")


def test_failed_save_keeps_the_old_file(saved, monkeypatch):
    """Fails if the file is written in place, or what was half written is left lying about."""
    model, expert, path = saved
    old = path.read_bytes()

    def full(handle):
        os.ftruncate(handle, 100)
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        experts.save_expert(path, random_expert(model, 1), META)
    assert path.read_bytes() == old and os.listdir(path.parent) == ["math.safetensors"]


def test_new_expert_replaces_the_old_file(saved):
    """Fails if saving over an existing expert keeps any of its layers."""
    model, expert, path = saved
    name = next(iter(expert))
    experts.save_expert(path, {name: torch.zeros(48)}, META)
    assert load_file(path).keys() == {name}
    assert (experts.load_expert(path, model)[0][name] == 0).all()


def test_a_picture_has_a_row_for_each_layer_that_occurs():
    """Fails if a damaged name such as layers.999999999 asks for gigabytes,
    or rows are counted instead of named.
    """
    names = ["model.layers.999999999.mlp.up_proj", "model.layers.2.mlp.up_proj",
             "model.layers.2.self_attn.q_proj"]
    expert = {n: torch.full((3,), 1.0 + i) for i, n in enumerate(names)}
    layers, modules, grid = plots.by_layer_and_module(expert, lambda z: float(z[0]))
    assert layers == [2, 999999999] and modules == ["up_proj", "q_proj"]
    assert grid[0].tolist() == [2, 3]
    assert grid[1, 0] == 1 and grid[1, 1].isnan()


def test_gpt2s_two_matrices_of_one_name_are_two_columns():
    """Fails if one of attn.c_proj and mlp.c_proj hides the other."""
    expert = {f"transformer.h.0.{n}": torch.full((3,), float(i)) for i, n in enumerate(
        ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))}
    _, modules, grid = plots.by_layer_and_module(expert, lambda z: float(z[0]))
    assert modules == ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]
    assert grid.tolist() == [[0, 1, 2, 3]]

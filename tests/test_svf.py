"""Singular value fine-tuning: the paper's algebra, exact identity, and files that lose nothing."""
import pytest
import torch
import torch.nn.functional as F
from conftest import random_model
from safetensors.torch import save_file
from torch import nn

from t2mini import svf
from t2mini.model import Conv1D

IDS = torch.arange(3, 43)[None] % 60


def randomise(model, size=0.3, seed=0):
    g = torch.Generator().manual_seed(seed)
    for layer in svf.layers(model).values():
        layer.z.data.copy_(1 + size * torch.randn(layer.z.shape, generator=g))
    svf.fold(model)
    return svf.get_z(model)


@pytest.fixture
def attached(model):
    svf.attach(model, progress=False)
    return model


def linear(kind):
    torch.manual_seed(1)
    if kind == "conv1d":
        base = Conv1D(10, 6)
        nn.init.normal_(base.weight), nn.init.normal_(base.bias)
        return base.requires_grad_(False)
    m, n = {"wide": (5, 9), "tall": (9, 5), "square": (7, 7)}[kind]
    return nn.Linear(n, m, bias=kind == "wide").requires_grad_(False)


def dense(layer, z):
    """The paper's plain form in float64: U diag(S * z) Vt of the layer's own weight."""
    U, S, Vt = torch.linalg.svd(layer.W.double(), full_matrices=False)
    return U @ torch.diag(S * z.double()) @ Vt


@pytest.mark.parametrize("kind", ["wide", "tall", "square", "conv1d"])
def test_random_z_is_the_dense_matrix(kind):
    """Fails if z is applied in another order, to the wrong side, or GPT-2's transposed layers are not turned."""
    base = linear(kind)
    layer = svf.SVF(base, *svf.decompose(base.weight.T if kind == "conv1d" else base.weight))
    z = torch.rand_like(layer.z) * 3 - 1
    layer.z.data.copy_(z)
    layer.fold()
    x = torch.randn(4, 3, layer.W.shape[1])
    want = F.linear(x.double(), dense(layer, z), None if base.bias is None else base.bias.double())
    with torch.no_grad():
        torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x).double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["wide", "tall", "square", "conv1d"])
def test_gradient_of_z_and_x_is_that_of_the_dense_form(kind):
    """Fails if dL/dz misses S, mixes up U and V, or needs z to be non-zero."""
    base = linear(kind)
    layer = svf.SVF(base, *svf.decompose(base.weight.T if kind == "conv1d" else base.weight))
    z = torch.rand_like(layer.z) * 2
    z[1] = 0.0
    layer.z.data.copy_(z)
    layer.fold()
    x, g = torch.randn(4, 3, layer.W.shape[1], requires_grad=True), torch.randn(4, 3, layer.W.shape[0])
    layer(x).backward(g)
    z64, x64 = z.double().requires_grad_(), x.detach().double().requires_grad_()
    F.linear(x64, dense(layer, z64)).backward(g.double())
    torch.testing.assert_close(layer.z.grad.double(), z64.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-4)
    assert all(p.grad is None for n, p in layer.named_parameters() if n != "z")


def test_only_z_is_trained(attached):
    """Fails if a base weight asks for a gradient (and so for a dense one)."""
    assert {n.rsplit(".", 1)[1] for n, p in attached.named_parameters() if p.requires_grad} == {"z"}


def test_z_of_one_is_the_base_bit_for_bit():
    """Fails if the base model is rebuilt from its SVD instead of kept."""
    model = random_model()
    want = model(IDS)
    svf.attach(model, progress=False)
    assert torch.equal(model(IDS), want)
    randomise(model)
    with torch.no_grad():
        assert not torch.allclose(model(IDS), want)
    svf.reset(model)
    assert torch.equal(model(IDS), want)
    svf.set_z(model, {n: torch.ones_like(z) for n, z in svf.get_z(model).items()})
    with torch.no_grad():
        assert torch.equal(model(IDS), want)


def test_detach_returns_the_same_tensors():
    """Fails if detaching leaves a changed weight or a wrapper behind."""
    model = random_model()
    before = dict(model.named_parameters())
    svf.attach(model, progress=False)
    randomise(model)
    svf.detach(model)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys() and all(after[n] is before[n] for n in before)


def test_attach_once_and_only_what_is_asked(model):
    """Fails if attaching twice stacks two views, or a module subset is ignored."""
    assert all(n.endswith(("q_proj", "v_proj")) for n in svf.attach(model, "q,v", progress=False))
    with pytest.raises(RuntimeError, match="already"):
        svf.attach(model)
    with pytest.raises(ValueError, match="unknown module"):
        svf.targets(random_model(), "q,nose")
    gpt2 = random_model(family="gpt2", num_key_value_heads=6)
    assert {n.split(".", 3)[3] for n in svf.targets(gpt2)} == {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}


def test_released_form():
    """Fails if sigmoid form does not keep the nuclear norm, or does not start at the base model."""
    model = random_model()
    want = model(IDS)
    svf.attach(model, sigmoid=True, progress=False)
    with torch.no_grad():
        torch.testing.assert_close(model(IDS), want, rtol=1e-4, atol=1e-4)
    layer = next(iter(svf.layers(model).values()))
    layer.z.data.normal_()
    torch.testing.assert_close((layer.S * layer.scale()).sum(), layer.S.sum())
    p = layer.z.detach().double().requires_grad_()
    s, S = torch.sigmoid(p), layer.S.double()
    g = torch.randn_like(S)
    (s * S.sum() / (S * s).sum() * g).sum().backward()
    (layer.scale() * g.float()).sum().backward()
    torch.testing.assert_close(layer.z.grad.double(), p.grad, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="sigmoid"):
        svf.set_z(model, {})


def test_mixing():
    """Fails if a one-hot alpha is not its expert or alpha = 0 is not the base (the released code mixes logits)."""
    a, b = {"x": torch.tensor([0.5, 2.0]), "y": torch.tensor([3.0])}, {"x": torch.tensor([1.5, -1.0])}
    for k, e in enumerate((a, b)):
        mixed = svf.mix([a, b], [float(k == 0), float(k == 1)])
        assert all(torch.equal(mixed[n], e.get(n, torch.ones(1))) for n in mixed)
    assert all(torch.equal(z, torch.ones_like(z)) for z in svf.mix([a, b], [0, 0]).values())
    torch.testing.assert_close(svf.mix([a, b], [0.5, 2.0])["x"], torch.tensor([1 - 0.25 + 1.0, 1 + 0.5 - 4.0]))
    torch.testing.assert_close(svf.mix([a, b], {"x": [1.0, 0.0], "y": [0.0, 1.0]})["y"], torch.ones(1))
    torch.testing.assert_close(svf.mix([a, b], [0.5, 0.5], plain=True)["x"], torch.tensor([1.0, 0.5]))
    assert all(torch.isfinite(z).all() for z in svf.mix([a, b], [-3.0, 3.0]).values())


def test_using_restores_whatever_happens(attached):
    """Fails if an exception leaves an expert loaded (the released code answers "other" on the last expert)."""
    with torch.no_grad():
        want = attached(IDS)
        expert = randomise(attached)
        svf.reset(attached)
        with pytest.raises(KeyError), svf.using(attached, expert):
            assert not torch.allclose(attached(IDS), want)
            raise KeyError
        assert torch.equal(attached(IDS), want)
        randomise(attached)
        with svf.at_base(attached):
            assert torch.equal(attached(IDS), want)
        assert not torch.allclose(attached(IDS), want)


def test_rows_of_one_batch_may_use_different_experts(attached):
    """Fails if a row is answered by its neighbour's expert, or the bank outlives the block."""
    with torch.no_grad():
        base, experts = attached(IDS), [randomise(attached, seed=s) for s in (1, 2)]
        svf.reset(attached)
        alone = [attached(IDS) if e is None else _on(attached, e) for e in (*experts, None)]
        with svf.per_row(attached, [*experts, {}], [1, 2, 0]) as rows:
            mixed = attached(IDS.repeat(3, 1))
            rows.select(torch.tensor([2, 2]))
            again = attached(IDS.repeat(2, 1))
        for got, want in zip(mixed, (alone[1], alone[2], alone[0])):
            torch.testing.assert_close(got[None], want, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(again[1:], alone[0], rtol=1e-3, atol=1e-3)
        assert torch.equal(attached(IDS), base)


def _on(model, expert):
    with svf.using(model, expert):
        return model(IDS)


def test_cache_is_used_checked_and_mended(tmp_path, monkeypatch):
    """Fails if the SVD is done twice, another tensor's factors are returned, or a damaged cache file is trusted."""
    real, calls = torch.linalg.svd, []
    monkeypatch.setattr(torch.linalg, "svd", lambda *a, **k: calls.append(1) or real(*a, **k))
    W = torch.randn(8, 5)
    first = svf.decompose(W, tmp_path)
    again = svf.decompose(W, tmp_path)
    assert len(calls) == 1 and all(torch.equal(a, b) for a, b in zip(first, again))
    svf.decompose(W + 1e-6, tmp_path), svf.decompose(W.reshape(5, 8), tmp_path), svf.decompose(W.bfloat16(), tmp_path)
    assert len(calls) == 4
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    mended = svf.decompose(W, tmp_path)
    assert len(calls) == 5 and torch.equal(mended[1], first[1])
    torch.testing.assert_close(first[0] @ torch.diag(first[1]) @ first[2], W, rtol=1e-5, atol=1e-5)


def test_expert_files_round_trip(attached, tmp_path):
    """Fails if z or metadata change on disk, or an expert of another base loads without being asked to."""
    expert, path = randomise(attached), tmp_path / "e.safetensors"
    svf.save_expert(path, expert, {"base_sha256": attached.base_sha256, "base_model": "tiny", "task": "123", "seed": 7})
    loaded, meta = svf.load_expert(path, attached)
    assert all(torch.equal(loaded[n], z) for n, z in expert.items()) and meta["seed"] == 7 and meta["task"] == "123"
    attached.base_sha256 = "f" * 64
    with pytest.raises(ValueError, match="another base"):
        svf.load_expert(path, attached)
    assert svf.load_expert(path, attached, allow_other_base=True)[0].keys() == expert.keys()


def test_bad_expert_files(attached, tmp_path):
    """Fails if a truncated, foreign or non-finite expert file is loaded, or raises anything but one line."""
    expert, path = randomise(attached), tmp_path / "e.safetensors"
    meta = {"base_sha256": attached.base_sha256}
    svf.save_expert(path, expert, meta)
    whole = path.read_bytes()
    for cut in (0, 4, 60, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged"):
            svf.load_expert(path, attached)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not an expert"):
        svf.load_expert(path, attached)
    svf.save_expert(path, {n: z * float("nan") for n, z in expert.items()}, meta)
    with pytest.raises(ValueError, match="finite"):
        svf.load_expert(path, attached)
    with pytest.raises(FileNotFoundError):
        svf.load_expert(tmp_path / "none.safetensors", attached)
    with pytest.raises(ValueError, match="no SVF layer"):
        svf.set_z(attached, {"model.nothing": torch.ones(3)})
    name = next(iter(expert))
    with pytest.raises(ValueError, match="finite numbers"):
        svf.set_z(attached, {name: torch.ones(3)})


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    """Fails if a crash or a full disk while saving can damage what was there."""
    path = tmp_path / "e.safetensors"
    svf.save_tensors(path, {"a": torch.ones(3)}, {})
    old = path.read_bytes()

    def half(tensors, name, metadata):
        with open(name, "wb") as f:
            f.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(svf, "save_file", half)
    with pytest.raises(OSError):
        svf.save_tensors(path, {"a": torch.zeros(3)}, {})
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]

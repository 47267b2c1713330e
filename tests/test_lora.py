"""LoRA and IA3: the base model at the start, the dense oracle, gradients,
rows with different experts, and every verb.
"""
import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_cli import call, home     # noqa: F401
from test_reinforce import (     # noqa: F401
    config, interrupt_at, quiet, rows_of, same_file, toy, without_clock, words)
from test_svf import IDS, both, either, layer_of, shapes

import t2mini
from t2mini import experts, lora, svf, train
from t2mini.reinforce import policy_gradient

methods = pytest.mark.parametrize("method", ["lora", "ia3"])
FORMS = ["lora", "ia3 in", "ia3 out"]
forms = pytest.mark.parametrize("form", FORMS)


def random_expert(model, seed=0, size=0.3):
    """What get_z gives, away from the base model."""
    g = torch.Generator().manual_seed(seed)
    return {n: t + size * torch.randn(t.shape, generator=g) for n, t in svf.get_z(model).items()}


def made(kind, form, rank=3, alpha=5.0):
    """(one layer with random numbers, folded; its W as (out, in); its bias)"""
    base, W = layer_of(kind)
    g = torch.Generator().manual_seed(1)
    layer = lora.LoRA(base, rank, alpha, g) if form == "lora" else lora.IA3(base, form == "ia3 in")
    for p in layer.trained().values():
        p.data += torch.randn(p.shape, generator=g)
    layer.fold()
    return layer, W, base.bias


def dense(layer, W):
    """W' in float64 by the definition, differentiable in the float64 numbers returned with it."""
    p = {k: t.detach().double().requires_grad_() for k, t in layer.trained().items()}
    if isinstance(layer, lora.LoRA):
        return W.double() + 5.0 / 3 * p[".B"] @ p[".A"], p
    l = p[".l"]
    return W.double() @ torch.diag(l) if layer.on_input else torch.diag(l) @ W.double(), p


# --------------------------------------------------------------------------------------- the layers
@both
@methods
def test_the_start_is_the_base_model_bit_for_bit(family, method):
    """Fails if B does not start at 0 or l at 1, W is rebuilt,
    or reset and detach leave anything of an expert behind.
    """
    model = either(family)
    base, before = model(IDS), dict(model.named_parameters())
    lora.attach(model, method)
    assert torch.equal(model(IDS), base) and svf.shift(model) == 0
    with torch.no_grad():
        assert torch.equal(model(IDS), base)
    svf.set_z(model, random_expert(model))
    assert (model(IDS) - base).abs().max() > 0.1 and svf.shift(model) > 0.1
    with torch.no_grad(), svf.at_base(model):
        assert torch.equal(model(IDS), base)
    svf.reset(model)
    assert torch.equal(model(IDS), base)
    svf.set_z(model, random_expert(model))
    with pytest.raises(RuntimeError, match="detach"):
        svf.attach(model, progress=False)
    svf.detach(model)
    assert all(p is before[n] for n, p in model.named_parameters())
    assert torch.equal(model(IDS), base)


@shapes
@forms
def test_the_layer_equals_the_definition(kind, form):
    """Fails if alpha / rank is forgotten, B A is transposed, l scales the other side,
    or a bias is lost or scaled; or where gradients are taken the output is not, bit for bit,
    that of sampling; or the merged matrix is another.
    """
    layer, W, bias = made(kind, form)
    x = torch.randn(4, 7, W.shape[1])
    want = F.linear(x.double(), dense(layer, W)[0], bias if bias is None else bias.double())
    with torch.no_grad():
        sampled = layer(x)
    torch.testing.assert_close(sampled.double(), want, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer.dense().double(), dense(layer, W)[0], rtol=0, atol=1e-5)
    assert torch.equal(layer(x), sampled) and (want - F.linear(x, W, bias)).abs().max() > 0.1


@shapes
@forms
def test_gradients_equal_those_of_the_dense_form(kind, form):
    """Fails if a factor lacks alpha / rank, a token is left out, x gets no gradient, or W gets one.
    Float64 autograd of W'.
    """
    layer, W, bias = made(kind, form)
    x, g = torch.randn(4, 7, W.shape[1]), torch.randn(4, 7, W.shape[0])
    Wp, p = dense(layer, W)
    x64 = x.double().requires_grad_()
    want = torch.autograd.grad(F.linear(x64, Wp, bias if bias is None else bias.double()),
                               [x64, *p.values()], g.double())
    x.requires_grad_()
    got = torch.autograd.grad(layer(x), [x, *layer.trained().values()], g)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    layer(x).backward(g)
    assert layer.base.weight.grad is None
    assert all(t.grad is not None for t in layer.trained().values())


@both
@methods
def test_the_whole_models_policy_gradient(family, method):
    """Fails if any number but the method's own is trained, or a layer's gradient is not
    that of the likelihood.
    """
    model, twin = toy(family), toy(family).double()
    lora.attach(model, method, {"modules": "k,v,up,down", "rank": 2, "lora_alpha": 3})
    svf.set_z(model, random_expert(model))
    policy_gradient(model, [([1, 2, 3], [[1, 0], [4, 2, 0]])],
                    [[1.0, -0.5]], temperature=0.7, norm=5.0)
    p = {n: t.detach().double().requires_grad_() for n, t in svf.trained(model).items()}
    weights = {}
    for name, layer in svf.layers(model).items():
        W = layer.W.double()
        W = (W + 1.5 * p[name + ".B"] @ p[name + ".A"] if method == "lora"
             else W * p[name + ".l"] if name.endswith(("down_proj", "mlp.c_proj"))
             else W * p[name + ".l"][:, None])
        weights[f"{name}.weight"] = W.T if family == "gpt2" else W
    want = 0
    for answer, a in (([1, 0], 1.0), ([4, 2, 0], -0.5)):
        logits = torch.func.functional_call(twin, weights,
                                            (torch.tensor([[1, 2, 3] + answer]),))[0, 2:-1] / 0.7
        want = want - a * logits.log_softmax(-1)[range(len(answer)), answer].sum() / 5
    want = torch.autograd.grad(want, list(p.values()))
    for (name, t), w in zip(svf.trained(model).items(), want, strict=True):
        torch.testing.assert_close(t.grad.double(), w, rtol=1e-3, atol=1e-5)
    assert {n for n, t in model.named_parameters() if t.grad is not None} == set(p)
    assert min(w.norm() for w in want) > 1e-6


def test_rows_with_different_experts():
    """Fails if a row runs on another row's expert, or an expert that lacks a layer does not have
    the base model's there.
    """
    for method in ("lora", "ia3"):
        model = either("llama")
        lora.attach(model, method, {"modules": "v,down", "rank": 2})
        a, b = random_expert(model, 1), random_expert(model, 2)
        b = {n: t for n, t in b.items() if "layers.1" in n}
        ids = IDS[:1].expand(4, -1)
        with torch.no_grad(), svf.per_row(model, [a, {}, b], [1, 2, 0, 0]):
            rows = model(ids)
        for row, expert in zip(rows, ({}, b, a, a)):
            with torch.no_grad(), svf.using(model, expert):
                torch.testing.assert_close(row, model(ids)[0], rtol=0, atol=1e-4)


def test_bfloat16_keeps_its_trained_numbers_in_float32():
    """Fails if the factors are rounded to the model's dtype:
    small steps of the optimizer would be lost.
    """
    for method in ("lora", "ia3"):
        model = either("llama").bfloat16()
        lora.attach(model, method)
        policy_gradient(model, [([1, 2, 3], [[1, 0]])], [[1.0]])
        assert all(p.dtype == p.grad.dtype == torch.float32 for p in svf.trained(model).values())
        svf.set_z(model, random_expert(model))
        assert all(layer.dense().dtype == torch.bfloat16 for layer in svf.layers(model).values())
        # no product reads it
        assert all(layer.folded is None for layer in svf.layers(model).values())
        assert model(IDS).isfinite().all()


@pytest.mark.parametrize("grad", [True, False])
def test_bfloat16_keeps_a_small_change(grad):
    """Fails if B A is added to weights of bfloat16, which are too coarse for it: nine tenths of a
    B of 3e-5 were rounded away, in training and in sampling.
    """
    torch.manual_seed(0)
    base = torch.nn.Linear(256, 256, bias=False).bfloat16()
    base.weight.data.normal_(0, 0.02)
    layer = lora.LoRA(base, 16, 32, torch.Generator().manual_seed(0))
    layer.B.data.normal_(0, 3e-5)
    layer.fold()
    x = 100 * torch.randn(64, 256).bfloat16()
    want = 2 * x.double() @ layer.A.double().T @ layer.B.double().T
    layer.W.data.zero_()                            # so that y is the change alone
    with torch.set_grad_enabled(grad):
        got = layer(x).detach().double()
    assert (got - want).norm() < 0.1 * want.norm()


# ---------------------------------------------------------------------------------- which, how many
def test_loras_start():
    """Fails if A is zero or the same everywhere, its spread is not that of LoRA's paper,
    or the seed does not decide it.
    """
    def A(seed):
        model = either("llama")
        lora.attach(model, "lora", {"modules": "q,v", "rank": 8, "seed": seed})
        return {n: layer.A.detach() for n, layer in svf.layers(model).items()}

    one, two, three = A(0), A(0), A(1)
    assert all(torch.equal(one[n], two[n]) and not torch.equal(one[n], three[n]) for n in one)
    first, second = list(one.values())[:2]
    assert not torch.equal(first, second)
    assert first.shape == (8, 48)
    assert 0.9 * 48 ** -0.5 < first.abs().max() <= 48 ** -0.5 and first.mean().abs() < 0.02


@pytest.mark.parametrize("family, shapes",
                         [("llama", {"k_proj": 16, "v_proj": 16, "down_proj": 96}),
                          ("gpt2", {"c_attn": 144, "c_proj": 96})])
def test_ia3_scales_keys_values_and_what_down_takes_in(family, shapes):     # noqa: F811
    """Fails if another layer is scaled, or the output of down_proj (48 wide) instead of its input.
    """
    model = either(family)
    lora.attach(model, "ia3")
    assert {n.rpartition(".")[2]: len(layer.l) for n, layer in svf.layers(model).items()} == shapes
    assert len(svf.layers(model)) == 2 * len(shapes)


def test_parameter_counts(loaded, words, tmp_path):     # noqa: F811
    """Fails if the count that is printed and stored is not r, (m + n) rank, or m or n,
    summed over the matrices.
    """
    widths = {"q": (48, 48), "k": (16, 48), "v": (16, 48), "o": (48, 48), "gate": (96, 48),
              "up": (96, 48), "down": (48, 96)}
    want = {"svf": 2 * sum(min(w) for w in widths.values()),
            "lora": 2 * sum(4 * sum(w) for w in widths.values()), "ia3": 2 * (16 + 16 + 96)}
    for method, n in want.items():
        said, cfg = [], config(steps=1, method=method, rank=4, modules="")
        out = tmp_path / f"{method}.safetensors"
        train.train(*loaded, cfg, out, log=said.append)
        meta = experts.read_metadata(out)
        assert (said[0]
                == f"{method}: {n:,} trained numbers on {6 if method == 'ia3' else 14} matrices")
        assert meta["parameters"] == n and meta["method"] == method
        assert n == sum(t.numel() for t in experts.read_expert(out).values())
        svf.detach(loaded[0])


# --------------------------------------------------------------------------- training, files, verbs
@methods
def test_training_earns_more(loaded, words, tmp_path, method):     # noqa: F811
    """Fails if the loop's updates do not reach the weights that sample."""
    cfg = config(steps=15, prompts=4, samples=8, val_every=100, modules=svf.ALL, method=method,
                 lr=0.02 if method == "lora" else 0.05)
    train.train(*loaded, cfg, tmp_path / "e.safetensors", log=quiet)
    reward = [r["reward"] for r in rows_of(tmp_path / "e.jsonl") if "reward" in r]
    assert sum(reward[-3:]) / 3 > sum(reward[:3]) / 3 + 0.3


@methods
def test_resumed_equals_uninterrupted(tiny_folder, words, tmp_path, method):     # noqa: F811
    """Fails if A, B, l, their moments or the best expert so far do not survive a stop,
    to the last bit.
    """
    cfg, a, b = (config(steps=6, method=method, rank=2), tmp_path / "a.safetensors",
                 tmp_path / "b.safetensors")

    def run(out, **options):
        return train.train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"),
                           cfg, out, **options)

    run(a, log=quiet)
    with pytest.raises(KeyboardInterrupt):
        run(b, log=interrupt_at("step    5"))
    run(b, resume=True, log=quiet)
    assert same_file(a, b) and same_file(a.with_suffix(".ckpt"), b.with_suffix(".ckpt"))
    assert without_clock(a.with_suffix(".jsonl")) == without_clock(b.with_suffix(".jsonl"))
    assert max(t.abs().max() for k, t in load_file(a.with_suffix(".ckpt")).items()
               if k.startswith("m/")) > 0


def move(path, by=0.5):
    """Training of two steps may move nothing: move it by hand."""
    expert = {n: t + by * torch.randn(t.shape, generator=torch.Generator().manual_seed(0))
              for n, t in experts.read_expert(path).items()}
    experts.save_expert(path, expert, experts.read_metadata(path))
    return expert


@methods
def test_every_verb_takes_a_baselines_expert(call, home, tiny_folder, method):     # noqa: F811
    """Fails if eval, ask, show or export need to be told the method,
    or run the base model instead of the expert.
    """
    task, out = f"--task={home}/mine.jsonl", home / "b.safetensors"
    status, said, err = call("train", task, f"--method={method}", "--rank=2",
                             "--lora-alpha=3", "--steps=1", "--prompts=2",
                             "--samples=2", "--val-every=1", "--val-n=2", f"--out={out}")
    assert status == 0 and f"{method}: " in said, err
    expert = move(out)
    texts = {}
    for name, how in (("base", "--expert=none"), ("tuned", f"--expert={out}")):
        status, said, err = call("eval", task, how, "--n=3", "--json",
                                 f"--samples-file={home}/{name}")
        assert status == 0, err
        texts[name] = [json.loads(r)["text"] for r in (home / name).read_text().splitlines()]
    assert texts["base"] != texts["tuned"]
    assert call("ask", "hello?", f"--expert={out}", "--max-tokens=4")[0] == 0
    assert call("ask", "hello?", "and you?", f"--expert={out}", "--max-tokens=4")[0] == 0
    status, said, err = call("show", out)
    count = sum(t.numel() for t in expert.values())
    assert status == 0 and f"{count:,} numbers of {method}" in said, err
    status, said, err = call("export", f"--expert={out}", f"--out={home}/merged")
    assert status == 0 and not (home / "merged" / "adapter").exists(), err
    model, _ = t2mini.load(tiny_folder, device="cpu", dtype="float32")
    merged, _ = t2mini.load(home / "merged", device="cpu", dtype="float32")
    lora.attach(model, method, {"rank": 2, "lora_alpha": 3.0})
    svf.set_z(model, expert)
    torch.testing.assert_close(merged(IDS), model(IDS), rtol=0, atol=1e-4)


def test_a_baselines_expert_is_never_taken_for_z(call, home):     # noqa: F811
    """Fails if LoRA or IA3 numbers are used as scales of singular values, or end in a traceback."""
    tiny = ["--steps=1", "--prompts=1", "--samples=2", "--val-n=1", "--modules=k"]
    for method in ("lora", "ia3"):
        shutil.rmtree(home / "out", ignore_errors=True)
        for name in ("math", "code", "reasoning"):
            out = home / "out" / f"{name}.safetensors"
            assert call("train", f"--task={home}/mine.jsonl", f"--method={method}",
                        *tiny, f"--out={out}")[0] == 0
        assert call("eval", f"--task={home}/mine.jsonl", "--expert=math", "--n=2")[0] == 0
        for path in (home / "out").glob("code.*"):
            path.unlink()
        assert call("train", f"--task={home}/mine.jsonl", *tiny,
                    f"--out={home}/out/code.safetensors")[0] == 0
        status, _, err = call("eval", f"--task={home}/mine.jsonl", "--alpha=1,0,0", "--n=2")
        last = err.splitlines()[-1]
        assert status == 1 and f"code.safetensors is of method svf, others are of {method}" in last
        assert "move yours away" in last and "Traceback" not in err


def test_experts_of_several_methods_one_after_the_other(call, home, tiny_folder):     # noqa: F811
    """Fails if the layers of one method, left behind by a block, refuse the next expert."""
    (home / "out").mkdir()
    tiny = ["--steps=1", "--prompts=2", "--samples=2", "--val-n=1", "--objective=next-token"]
    for name, how in (("z", []), ("l", ["--method=lora"]), ("wide", ["--method=lora", "--rank=3"]),
                      ("strong", ["--method=lora", "--lora-alpha=640"]), ("i", ["--method=ia3"])):
        status, _, err = call("train", f"--task={home}/mine.jsonl", *how, *tiny,
                              f"--out={home}/out/{name}.safetensors")
        assert status == 0, err
    meta = experts.read_metadata(home / "out" / "l.safetensors")
    experts.save_expert(home / "damaged.safetensors",
                        experts.read_expert(home / "out" / "l.safetensors"),
                        {**meta, "config": {}})
    shelf = experts.Shelf(t2mini.load(tiny_folder, dtype="float32")[0])
    shelf["l"]
    for name, says in (("strong", "rank 16 with .* 40, others are of lora of rank 16 .* 2:"),
                       ("wide", "lora of rank 3 with .*, others are of lora of rank 16")):
        with pytest.raises(ValueError, match=says):
            shelf[name]
    model, _ = t2mini.load(tiny_folder, dtype="float32")
    shelf = experts.Shelf(model)
    with t2mini.use(model, "z"):                            # its layers end with the block
        assert shelf["z"]
    with svf.using(model, shelf["z"]):
        assert svf.layers(model)
    svf.detach(model)
    with torch.no_grad():
        base = model(IDS)
        alone = {}
        for name in ("l", "z", "wide", "strong", "i"):
            fresh = t2mini.load(tiny_folder, dtype="float32")[0]
            with t2mini.use(fresh, name):
                alone[name] = fresh(IDS)
            assert not svf.layers(fresh)                    # of no method: it had none
        for name in ("l", "strong", "z", "wide", "strong", "l", "i", "z"):
            z = experts.read_expert(home / "out" / f"{name}.safetensors")
            with t2mini.use(model, name):
                assert all(torch.equal(t, z[n]) for n, t in svf.get_z(model).items())
                want = model(IDS)
                assert torch.equal(want, alone[name])
                for inner in ("i", "l", "strong", "z"):     # back to this one, whatever ran inside
                    with t2mini.use(model, inner):
                        assert not model(IDS).isnan().any()
                    assert torch.equal(model(IDS), want)
                with pytest.raises(ValueError, match="does not say how it was trained"):
                    with t2mini.use(model, home / "damaged.safetensors"):
                        pass
                with pytest.raises(ValueError, match="math"):       # a share of a name is no z
                    with t2mini.use(model, {"math": 0.5}):
                        pass
                assert torch.equal(model(IDS), want)
            assert torch.equal(model(IDS), base)


@pytest.mark.parametrize("args, says", [
    (["--rank=0"], "--rank must be"), (["--rank=1025"], "--rank must be"),
    (["--rank=97"], "--rank=97 is more than either side of a matrix of 48 x 48"),
    (["--lora-alpha=0"], "--lora-alpha must be"),
    (["--method=lorra"], "invalid choice: 'lorra'")])
def test_bad_settings_are_one_line(call, home, args, says):     # noqa: F811
    """Fails if a setting that cannot be trained is accepted or is a traceback."""
    status, _, err = call("train", f"--task={home}/mine.jsonl", "--method=lora", *args)
    told = [line for line in err.splitlines() if line.startswith("t2mini: ")]
    assert status not in (0, None) and len(told) == 1 and says in told[0]


@both
def test_a_mixture_of_lora_experts_is_the_sum_of_their_changes(family):
    """Fails if factors are averaged instead of their products, an alpha is lost,
    or the wider layers scale otherwise.
    """
    model = either(family)
    lora.attach(model, "lora", {"rank": 2, "lora_alpha": 4.0})
    two, changes = [random_expert(model, seed) for seed in (1, 2)], []
    for expert in two:
        with svf.using(model, expert):
            changes.append({n: layer.dense() - layer.W for n, layer in svf.layers(model).items()})
    svf.detach(model)
    lora.attach(model, "lora", {"rank": 4, "lora_alpha": 8.0})
    with svf.using(model, lora.mix(two, [0.5, -2.0])):
        for n, layer in svf.layers(model).items():
            torch.testing.assert_close(
                layer.dense() - layer.W, 0.5 * changes[0][n] - 2 * changes[1][n],
                rtol=1e-4, atol=1e-4)
    for other in ({n: t for n, t in two[0].items() if ".0." not in n}, {}):
        with pytest.raises(ValueError, match="on the same matrices"):   # not without a word
            lora.mix([other, two[1]], [0.5, 0.5])

"""03: one dial per singular value. z turns the pieces of a weight matrix up and down (paper 3.1 and 3.2)."""
# %% the checkers of the three exercises
import chapter
import torch

import t2mini
from t2mini import experts, svf
from t2mini.lab import plots


def factors(m, n, seed=0):
    """A random matrix and its U, S, Vt."""
    W = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
    return W, *torch.linalg.svd(W, full_matrices=False)


def check_1(reader):
    W, U, S, Vt = factors(6, 4)
    assert torch.allclose(reader.exercise_1(U, S, Vt, torch.ones(4)), W, atol=1e-5), "at z = 1 you must get W itself"
    z = torch.tensor([0.5, 1.0, 2.0, -1.0])
    want = sum(z[i] * S[i] * torch.outer(U[:, i], Vt[i]) for i in range(4))
    assert torch.allclose(reader.exercise_1(U, S, Vt, z), want, atol=1e-5), "z must scale the pieces, not W's columns"


def check_2(reader):
    for shapes, rank in (([(8, 6)], 2), ([(576, 576), (192, 576)], 16), ([(1536, 576), (576, 1536)], 1)):
        want = (sum(min(m, n) for m, n in shapes), sum(rank * (m + n) for m, n in shapes), sum(m * n for m, n in shapes))
        got = tuple(reader.exercise_2(shapes, rank))
        assert got == want, f"for matrices {shapes} and LoRA rank {rank}: (svf, lora, full) is {want}, not {got}"


def check_3(reader):
    W, U, S, Vt = factors(6, 4)
    x, g, z = torch.randn(5, 4), torch.randn(5, 6), torch.full((4,), 1.5, requires_grad=True)
    (x @ ((U * (S * z)) @ Vt).T * g).sum().backward()
    got = reader.exercise_3(U, S, Vt, x, g)
    assert got.shape == (4,), "one number per singular value: sum over the tokens"
    assert torch.allclose(got, z.grad, atol=1e-4), (f"dL/dz is {[round(v, 2) for v in z.grad.tolist()]}, not "
                                                    f"{[round(v, 2) for v in got.tolist()]}: is S in it?")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% a matrix with two dials, on paper
chapter.section("by-hand")
W = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
U, S, Vt = svf.decompose(W)
print("S          ", " ".join(f"{s:.3f}" for s in S))
for z in ((1.0, 1.0), (2.0, 1.0), (1.0, 0.0)):
    turned = (U * (S * torch.tensor(z))) @ Vt
    print(f"z = ({z[0]:.0f}, {z[1]:.0f})  W' =", "  ".join("[" + " ".join(f"{abs(v):.1f}" for v in row) + "]" for row in turned))

# %% dials of the real model: every down_proj gets a z
model, tokenizer = t2mini.load()
svf.attach(model, "down", cache=experts.SVD_CACHE)
ids = torch.tensor([tokenizer.encode("The capital of France is")])
paris = tokenizer.encode(" Paris")[0]


@torch.inference_mode()
def chance(dial=None, value=1.0):
    """p(" Paris") with one dial (layer, i) at `value` and all others at 1."""
    expert = {}
    if dial:
        name = f"model.layers.{dial[0]}.mlp.down_proj"
        expert[name] = torch.ones(576)
        expert[name][dial[1]] = value
    with svf.using(model, expert):
        return float(model(ids)[0, -1].float().softmax(-1)[paris])


# %% z = 1 is the base model, bit for bit
chapter.section("identity")
with torch.inference_mode():
    attached = model(ids)
    svf.detach(model)
    base = model(ids)
    svf.attach(model, "down", cache=experts.SVD_CACHE)
print(f"largest difference of the logits at z = 1: {float((attached - base).abs().max())}")

# %% turn one dial at a time
chapter.section("turning")
DIALS = [(1, 0), (1, 288), (29, 0), (29, 288)]
values = [-1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
curves = {}
print(f"{'layer':>5}{'dial':>6}{'S':>9}" + "".join(f"{f'z={v:g}':>8}" for v in values))
for dial in DIALS:
    S = svf.layers(model)[f"model.layers.{dial[0]}.mlp.down_proj"].S
    curves[dial] = [chance(dial, v) for v in values]
    print(f"{dial[0]:>5}{dial[1]:>6}{float(S[dial[1]]):>9.2f}" + "".join(f"{p:>8.3f}" for p in curves[dial]))

# %% the same in words: what the model writes while the first of these dials is turned
chapter.section("words")
for value in (0.0, 0.5, 1.0, 2.0, 3.0):
    written = list(ids[0].tolist())
    turned = torch.ones(576)
    turned[0] = value
    with torch.inference_mode(), svf.using(model, {"model.layers.1.mlp.down_proj": turned}):
        for _ in range(12):                                 # greedy: always the likeliest token
            written.append(int(model(torch.tensor([written]))[0, -1].argmax()))
    print(f"z = {value:g}: {tokenizer.decode(written)!r}")

# %% how many numbers are trained
chapter.section("counts")


def shapes(layers, width, kv, mlp):
    """The matrices (out, in) of a Llama-type model, by module."""
    one = {"q": (width, width), "k": (kv, width), "v": (kv, width), "o": (width, width), "gate": (mlp, width),
           "up": (mlp, width), "down": (width, mlp)}
    return {name: [shape] * layers for name, shape in one.items()}


def counts(found, rank=16):
    """(SVF, LoRA of that rank, full tuning) for a list of matrices."""
    return (sum(min(s) for s in found), rank * sum(sum(s) for s in found), sum(m * n for m, n in found))


MODELS = {"SmolLM2-135M": shapes(30, 576, 192, 1536), "Llama-3-8B": shapes(32, 4096, 1024, 14336)}
bars = {}
print(f"{'model':<14}{'modules':<14}{'SVF':>10}{'LoRA r16':>12}{'full':>15}")
for label, found in MODELS.items():
    for modules in ("q,v", "gate,up,down", "q,k,v,o,gate,up,down"):
        row = counts([s for name in modules.split(",") for s in found[name]])
        short = modules if len(modules) < 13 else "all seven"
        bars[label, short] = row
        print(f"{label:<14}{short:<14}{row[0]:>10,}{row[1]:>12,}{row[2]:>15,}")

# %% the picture
plt = plots.pyplot()
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4))
for (dial, p), colour, line in zip(curves.items(), (plots.BLUE, plots.BLUE, plots.ORANGE, plots.ORANGE), ("-", ":") * 2):
    left.plot(values, p, line, color=colour, marker="o", ms=4, label=f"layer {dial[0]}, dial {dial[1]}")
left.axvline(1, color=plots.GREY, lw=1)
left.set(xlabel="z of that one dial (1 = base model)", ylabel='p(" Paris")', ylim=(0, 1), title="turning one dial of 17,280")
left.legend(frameon=False, fontsize=9.5, loc=(0.66, 0.36))
rows = [bars["SmolLM2-135M", "all seven"], bars["Llama-3-8B", "all seven"]]
for i, (method, colour) in enumerate((("SVF", plots.BLUE), ("LoRA, rank 16", plots.ORANGE), ("full", plots.GREY))):
    at = [x + 0.29 * (i - 1) for x in range(2)]
    right.bar(at, [row[i] for row in rows], 0.27, color=colour, label=method)
    for x, row in zip(at, rows):
        size = f"{row[i] / 1e3:,.0f} k" if row[i] < 1e6 else f"{row[i] / 1e6:,.0f} M"
        fewer = "" if i == 2 else f"\n{row[2] / row[i]:,.0f} x\nfewer"
        right.text(x, row[i] * 1.25, size + fewer, ha="center", va="bottom", fontsize=9.5)
right.set_yscale("log")
right.set_xticks(range(2), MODELS)
right.set(ylabel="trained numbers (log scale)", title="how many numbers each method trains", ylim=(1e4, 2e11))
right.legend(frameon=False, fontsize=10, ncols=3, loc="upper center")
fig.tight_layout()
chapter.save(fig, "03_one_dial")

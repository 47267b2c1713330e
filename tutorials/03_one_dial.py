"""
03: one dial per singular value. z turns the pieces of a weight matrix up and down (paper 3.1 and
3.2).
"""
# %% the checkers of the three exercises
import textwrap

import chapter
import torch

import t2mini
from t2mini import evaluate, experts, svf, tasks
from t2mini.cli.verbs import tell_of_yours
from t2mini.lab import plots


def factors(m, n, seed=0):
    """A random matrix and its U, S, Vt."""
    W = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
    return W, *torch.linalg.svd(W, full_matrices=False)


def check_1(reader):
    W, U, S, Vt = factors(6, 4)
    assert torch.allclose(reader.exercise_1(U, S, Vt, torch.ones(4)), W, atol=1e-5), (
        "at z = 1 you must get W itself")
    z = torch.tensor([0.5, 1.0, 2.0, -1.0])
    want = sum(z[i] * S[i] * torch.outer(U[:, i], Vt[i]) for i in range(4))
    assert torch.allclose(reader.exercise_1(U, S, Vt, z), want, atol=1e-5), (
        "z must scale the pieces, not W's columns")


def check_2(reader):
    for shapes, rank in (([(8, 6)], 2),
                         ([(576, 576), (192, 576)], 16),
                         ([(1536, 576), (576, 1536)], 1)):
        want = (sum(min(m, n) for m, n in shapes),
                sum(rank * (m + n) for m, n in shapes),
                sum(m * n for m, n in shapes))
        got = tuple(reader.exercise_2(shapes, rank))
        assert got == want, (
            f"for matrices {shapes} and LoRA rank {rank}: (svf, lora, full) is {want}, not {got}")


def check_3(reader):
    W, U, S, Vt = factors(6, 4)
    x, g, z = torch.randn(5, 4), torch.randn(5, 6), torch.full((4,), 1.5, requires_grad=True)
    (x @ ((U * (S * z)) @ Vt).T * g).sum().backward()
    got = reader.exercise_3(U, S, Vt, x, g)
    assert got.shape == (4,), "one number per singular value: sum over the tokens"
    assert torch.allclose(got, z.grad, atol=1e-4), (
        f"dL/dz is {[round(v, 2) for v in z.grad.tolist()]}, not "
        f"{[round(v, 2) for v in got.tolist()]}: is S in it?")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% a matrix with two dials, on paper
chapter.section("by-hand")
W = torch.tensor([[3.0, 0.0], [4.0, 5.0]])
U, S, Vt = svf.decompose(W)
print("S          ", " ".join(f"{s:.3f}" for s in S))
for z in ((1.0, 1.0), (2.0, 1.0), (1.0, 0.0)):
    turned = (U * (S * torch.tensor(z))) @ Vt
    print(f"z = ({z[0]:.0f}, {z[1]:.0f})  W' =",
          "  ".join("[" + " ".join(f"{abs(v):.1f}" for v in row) + "]" for row in turned))

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
    print(f"{dial[0]:>5}{dial[1]:>6}{float(S[dial[1]]):>9.2f}"
          + "".join(f"{p:>8.3f}" for p in curves[dial]))

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

# %% all dials together: the math expert, turned on by a half, fully, and twice as far
svf.detach(model)
svf.attach(model, cache=experts.SVD_CACHE)
tell_of_yours(model)
math = experts.load(["math"], model)["math"]
order = torch.Generator().manual_seed(0)
shuffled = {name: z[torch.randperm(len(z), generator=order)] for name, z in math.items()}
DOSES = {"base": 0.0, "half": 0.5, "expert": 1.0, "double": 2.0}
arms = {name: svf.mix([math], [dose]) for name, dose in DOSES.items()} | {"shuffled": shuffled}
N = 40
task = tasks.get("math")
examples = task.examples("test", N, seed=0)
# every arm answers every question
which = [arm for arm in range(len(arms)) for _ in examples]
texts = evaluate.answers(model, tokenizer, [e.prompt for e in examples] * len(arms), 48,
                         title="answers of five arms", experts=list(arms.values()), which=which)
right = [sum(tasks.rewards(examples, texts[N * arm:N * arm + N])) for arm in range(len(arms))]

chapter.section("doses")
print(examples[0].prompt)
for arm, (name, dose) in enumerate(DOSES.items()):
    print(f"z = 1 + {dose:g} (z_math - 1), {name}:")
    print(textwrap.fill(texts[N * arm].strip(), 96,
                        initial_indent="    ", subsequent_indent="    "))

chapter.section("doses-right")
for name, found in zip(arms, right):
    print(f"{name:<10}{evaluate.percent(found, N)}")
print(f"the expert's dials are {torch.cat(list(math.values())).sub(1).abs().mean():.1%} "
      "away from 1 on average")
chapter.section("verdict")
gain = {name: found - right[0] for name, found in zip(arms, right)}
print(f"the expert answers more questions right than the base model: {gain['expert'] > 0}")
print("shuffled, its dials lose more than half of that gain: "
      f"{gain['shuffled'] < gain['expert'] / 2}")

# %% how many numbers are trained
chapter.section("counts")


def shapes(layers, width, kv, mlp):
    """The matrices (out, in) of a Llama-type model, by module."""
    one = {"q": (width, width), "k": (kv, width), "v": (kv, width), "o": (width, width),
           "gate": (mlp, width), "up": (mlp, width), "down": (width, mlp)}
    return {name: [shape] * layers for name, shape in one.items()}


def counts(found, rank=16):
    """(SVF, LoRA of that rank, full tuning) for a list of matrices."""
    return (sum(min(s) for s in found),
            rank * sum(sum(s) for s in found),
            sum(m * n for m, n in found))


MODELS = {"SmolLM2-135M": shapes(30, 576, 192, 1536), "Llama-3-8B": shapes(32, 4096, 1024, 14336)}
bars = {}
print(f"{'model':<14}{'modules':<14}{'SVF':>10}{'LoRA r16':>12}{'full':>15}")
for label, found in MODELS.items():
    for modules in ("q,v", "gate,up,down", "q,k,v,o,gate,up,down"):
        row = counts([s for name in modules.split(",") for s in found[name]])
        short = modules if len(modules) < 13 else "all seven"
        bars[label, short] = row
        print(f"{label:<14}{short:<14}{row[0]:>10,}{row[1]:>12,}{row[2]:>15,}")

# %% the pictures: all dials of an expert, at four strengths and in wrong places
fig, ax = plots.panel("Small turns of all dials mend answers; in wrong places they do not")
NAMES = ("no turn\n(base model)", "half as far", "the expert", "twice as far",
         "the expert's dials,\nshuffled")
colours = [plots.OF.get(name, plots.OF["expert"]) for name in arms]
plots.score_bars(ax, list(zip(NAMES, right, colours)), N, "math questions")
chapter.save(fig, "03_one_dial")

# %% a matrix turns the unit circle into an ellipse; its half axes are the S_i u_i
fig, ax = plots.panel("A dial stretches one direction and no other", (6.5, 4.6))
angle = torch.linspace(0, 2 * torch.pi, 200)
circle = torch.stack([angle.cos(), angle.sin()])
U, S, Vt = svf.decompose(W)
# the same pieces, arrows to the upper right
U, Vt = -U, -Vt
for z, colour, style, label in ((1.5, plots.OF["expert"], "-", "dial 0 at 1.5"),
                                (1, plots.OF["base"], "-", "both dials at 1: W"),
                                (0.5, plots.OF["expert"], "--", "dial 0 at 0.5")):
    ax.plot(*((U * (S * torch.tensor([z, 1.0]))) @ Vt @ circle), style,
            color=colour, lw=2.5, label=label)
for i, z, colour, at in ((0, 1.5, plots.OF["expert"], (4.6, 9.2)),
                         (0, 1, plots.OF["base"], None),
                         (1, 1, plots.OF["base"], (3, -1.5))):
    tip = z * S[i] * U[:, i]
    ax.annotate("", tip.tolist(), (0, 0),
                arrowprops={"arrowstyle": "-|>", "lw": 2.5, "color": colour,
                            "shrinkA": 0, "shrinkB": 0})
    if at:
        ax.text(*at, f"direction {i}", fontsize=12)
ax.set(aspect="equal", xlim=(-6, 16))
ax.axis("off")
ax.legend(frameon=False, fontsize=12, loc="lower right",
          title="a circle, after the matrix", title_fontsize=12, alignment="left")
chapter.save(fig, "03_stretch")

# %% one dial turned far
fig, ax = plots.panel("Of four dials, turned one at a time, only one breaks the answer")
WORDS = {(29, 0): ("largest, layer 29", 0.87, "-"),
         (1, 288): ("middle one, layer 1", 0.8, "--"),
         (29, 288): ("middle one, layer 29", 0.73, ":"),
         (1, 0): ("largest, layer 1", 0.03, "-")}
for dial, (words, y, style) in WORDS.items():
    colour = plots.RED if curves[dial][-1] < 0.5 else plots.DARK
    ax.plot(values, curves[dial], style, marker="o", color=colour, ms=5, lw=2)
    ax.text(3.1, y, words, color=colour, va="center", weight="bold")
ax.axvline(1, color=plots.GREY, lw=1, ls=":")
ax.text(1.04, 0.05, "base model")
ax.set(xlabel="z of that one dial, of the largest or a middle singular value",
       ylabel='chance of "Paris" after\n"The capital of France is"', ylim=(0, 1))
chapter.save(fig, "03_turned")

# %% trained numbers
fig, ax = plots.panel("SVF trains fifty times fewer numbers than LoRA")
for x, name in enumerate(MODELS):
    row = bars[name, "all seven"]
    for many, who, method in zip(row, ("svf", "lora", "full"),
                                 ("SVF", "LoRA, rank 16", "full tuning")):
        size = f"{many / 1e3:,.0f} thousand" if many < 1e6 else f"{many / 1e6:,.0f} million"
        ax.plot(x, many, "o", ms=14, color=plots.OF[who])
        ax.text(x + 0.08, many, f"{method}: {size}", va="center", fontsize=11.5)
    ax.annotate("", (x, row[0]), (x, row[1]),
                arrowprops={"arrowstyle": "-", "lw": 2, "color": plots.OF["svf"]})
    ax.text(x + 0.08, (row[0] * row[1]) ** 0.5, f"{row[1] / row[0]:.0f} times fewer",
            va="center", fontsize=13, weight="bold", color=plots.OF["svf"])
ax.set_yscale("log")
ax.set_xticks(range(len(MODELS)), MODELS)
ax.set(ylabel="trained numbers (log scale)", ylim=(3e4, 4e10), xlim=(-0.4, 1.8))
chapter.save(fig, "03_counts")

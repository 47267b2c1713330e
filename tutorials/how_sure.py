"""
How sure is a score? The statistics behind chapter 09: what questions, seeds and a choice do to it.

Reads tutorials/results/; needs no weights and trains nothing.
"""
# %% what is read
import json
import math
import random

import chapter
import numpy as np

from t2mini import evaluate
from t2mini.lab import figures, plots
from t2mini.machine import student

RESULTS = chapter.HERE / "results"
SIGMA = 1.96
chapter.start(__doc__, [], __file__)

# %% our own scores, from `make results`
rows = [json.loads(line) for line in (RESULTS / "foundation.jsonl").read_text().splitlines()]
of = {(r["task"], r["arm"]): r for r in rows}
OWN = ("math", "code", "reasoning")                         # each with an expert of its own
UNSEEN = tuple(f"{t}-unseen" for t in OWN)


def against(row, arm):
    """The difference to another arm of the same task in points: (gain, low, high),
    or None where it was not run."""
    other = of.get((row["task"], arm))
    return None if other in (None, row) else [
        100 * v for v in evaluate.paired_difference(row["rewards"], other["rewards"])]


# %% what can be said, sentence by sentence; the data decide
def verdict(gain):
    """better / worse where the interval leaves zero out, else not clear."""
    return ("not run" if gain is None else "better" if gain[1] > 0
            else "worse" if gain[2] < 0 else "not clear")


def compare(task, arm, other):
    row = of.get((task, arm))
    return verdict(against(row, other) if row else None)


chapter.section("verdicts")
made = []
print(f"{'question':<52}" + "".join(f"{t:>11}" for t in OWN))
for text, cells in (
        ("own expert against base, own task",
         [compare(t, f"{t} expert", "base") for t in OWN]),
        ("prompt against base, unseen task",
         [compare(t, "prompt", "base") for t in UNSEEN]),
        ("classifier against base, unseen task",
         [compare(t, "classifier", "base") for t in UNSEEN]),
        ("CEM against base, unseen task",
         [compare(t, "CEM", "base") for t in UNSEEN]),
        ("CEM against uniform alpha, unseen task",
         [compare(t, "CEM", "uniform alpha") for t in UNSEEN]),
        ("CEM against classifier, unseen task",
         [compare(t, "CEM", "classifier") for t in UNSEEN]),
        ("right expert against base, unseen task",
         [compare(u, f"{t} expert", "base") for t, u in zip(OWN, UNSEEN)]),
        ("classifier against prompt, routing real questions",
         [compare(f"real-{t}", "classifier", "prompt") for t in OWN])):
    print(f"{text:<52}" + "".join(f"{c:>11}" for c in cells))
    made += [c for c in cells if c != "not run"]
print(f"{len(made)} comparisons, {sum(c != 'not clear' for c in made)} of them clear; "
      f"if nothing worked at all, {len(made) / 20:.1f} would look clear by chance")

# %% how many items does a gain need?
chapter.section("items")


def items(p, gain):
    """Items for each arm at which a true `gain` equals 1.96 standard errors of the unpaired
    difference, near accuracy p."""
    return math.ceil(SIGMA ** 2 * 2 * p * (1 - p) / gain ** 2)


def items_paired(changed, gain):
    """The same where both arms answer the same items, and a share `changed` of them comes out
    differently."""
    return math.ceil(SIGMA ** 2 * (changed - gain ** 2) / gain ** 2)


GAINS = (0.02, 0.05, 0.10, 0.20)
print(f"{'gain, points':<34}" + "".join(f"{100 * g:>9.0f}" for g in GAINS))
for label, count in (("items per arm, near 50 % right", lambda g: items(0.5, g)),
                     ("items per arm, near 20 % right", lambda g: items(0.2, g)),
                     ("same items, 30 % of them change", lambda g: items_paired(0.3, g)),
                     ("for eight detections in ten",
                      lambda g: math.ceil(items(0.5, g) * ((1.96 + 0.84) / 1.96) ** 2))):
    print(f"{label:<34}" + "".join(f"{count(g):>9,}" for g in GAINS))

# %% the paper's Table 1, gains of SVF over the base model with their unpaired error
chapter.section("paper")
TABLE_1 = {"GSM8K": (1319, {"Llama-3-8B": (75.89, 79.15), "Mistral-7B": (42.83, 49.74),
                            "Llama-3-70B": (85.29, 88.32)}),
           "MBPP-Pro": (99, {"Llama-3-8B": (64.65, 66.67), "Mistral-7B": (49.50, 51.52),
                             "Llama-3-70B": (80.81, 80.81)}),
           "ARC-Easy": (2376, {"Llama-3-8B": (88.59, 89.56), "Mistral-7B": (81.65, 85.14),
                               "Llama-3-70B": (89.10, 88.47)})}
clear, gains = 0, []
for task, (n, row) in TABLE_1.items():
    cells = []
    for base, tuned in row.values():
        half = SIGMA * math.sqrt((base * (100 - base) + tuned * (100 - tuned)) / n)
        clear += abs(tuned - base) > half
        cells.append(f"{tuned - base:+.2f} ± {half:.2f}")
        gains.append((tuned - base, half))
    print(f"{task:<9}{n:>5} items" + "".join(f"{c:>17}" for c in cells))
print(f"gains larger than their 95 % interval: {clear} of 9")

# %% choosing the best of many on the test set: a gain out of nothing
chapter.section("winner")
rng = random.Random(0)
print("arms that are all right with probability 0.3, on 200 items; "
      "how far the best one seems to be above that")
for arms in (1, 4, 8, 50):
    best = [max(sum(rng.random() < 0.3 for _ in range(200)) for _ in range(arms)) / 200
            for _ in range(200)]
    print(f"{arms:>3} arms: {100 * (sum(best) / len(best) - 0.3):+.1f} points")

# %% seeds: the same training three times
chapter.section("math-seeds")
logs = {}
for path in sorted(RESULTS.glob("math-short-[0-9].jsonl")):
    log = [json.loads(line) for line in path.read_text().splitlines()]
    logs[int(path.stem[-1])] = [(r["step"], r["val"], r["val_n"]) for r in log if "val" in r]
finals = [max(v for _, v, _ in curve) for curve in logs.values()]
for seed, curve in logs.items():
    # the first of equal ones, as these runs kept it
    best = max(curve, key=lambda point: point[1])
    print(f"math, seed {seed}: {100 * curve[0][1]:.1f} % of {curve[0][2]} validation questions "
          f"at the start, {100 * best[1]:.1f} % at best (update {best[0]} of {curve[-1][0]})")
if len(finals) > 1:
    mean = sum(finals) / len(finals)
    sd = math.sqrt(sum((v - mean) ** 2 for v in finals) / (len(finals) - 1))
    half = student.student_t(len(finals) - 1) * sd / math.sqrt(len(finals))
    n = next(iter(logs.values()))[0][2]
    print(f"best of each run: mean {100 * mean:.1f} %, "
          f"standard deviation between seeds {100 * sd:.1f} points")
    luck = math.sqrt(mean * (1 - mean) / n)
    both = math.hypot(half, student.student_t(n - 1) * luck)
    print(f"95 % interval for the mean over seeds, on these {n} questions: "
          f"± {100 * half:.1f} points")
    print(f"the luck of the questions alone has a deviation of {100 * luck:.1f} points; "
          f"with both: ± {100 * both:.1f}")
else:
    print(f"{len(finals)} run: the spread between seeds is unknown, "
          "and no interval over items contains it")

# %% what other experiments measured
def measured(name):
    """{(task, base, arm): rewards of each seed} of an experiment's results file."""
    return figures.grouped(json.loads((RESULTS / f"{name}.json").read_text())["rows"])


def points(gain):
    """'+26.9 [+5.6, +48.2]' of three shares."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in gain))


# %% how often does an interval hold the truth?
chapter.section("coverage")
draw = np.random.default_rng(0)
print(f"{'seeds deviate by, points':<40}    2     4     8    12")
held = {"questions only": [], "lowest to highest seed": [], "questions and seeds": []}
for deviation in (0.02, 0.04, 0.08, 0.12):
    inside = dict.fromkeys(held, 0)
    for _ in range(400):
        # (seeds, questions)
        moved = draw.uniform(0.1, 0.9, 200) + deviation * draw.standard_normal((3, 1))
        # the truth is 0.5
        runs = (draw.random((3, 200)) < moved.clip(0, 1)).astype(float)
        means = runs.mean(1)
        low, high = evaluate.wilson(runs.mean() * 200, 200)
        inside["questions only"] += low <= 0.5 <= high
        inside["lowest to highest seed"] += means.min() <= 0.5 <= means.max()
        _, low, high, _ = evaluate.over_seeds(runs)
        inside["questions and seeds"] += low <= 0.5 <= high
    for name, count in inside.items():
        held[name].append(count / 4)
for name, shares in held.items():
    print(f"holds the truth, {name:<23}" + "".join(f"{v:>5.0f} " for v in shares).rstrip())

# %% as good as?
chapter.section("equal")
shots, transfer = measured("shots"), measured("transfer")
for text, seeds, minus in (
        ("3 examples minus 20, CEM",
         shots["math-unseen", "", "3 shots"], shots["math-unseen", "", "20 shots"]),
        ("10 examples minus 20",
         shots["math-unseen", "", "10 shots"], shots["math-unseen", "", "20 shots"]),
        ("math expert, weights in 8 bits minus in 16",
         transfer["math", "weights in 8 bits", "z"], transfer["math", "the same", "z"])):
    found = evaluate.over_seeds(seeds, minus)[:3]
    print(f"{text:<44}{points(found):>19}   "
          f"within {math.ceil(round(100 * max(-found[1], found[2]), 1))} points")

# %% how many numbers each method would train on this model
chapter.section("counts")
SHAPES = {"q": (576, 576), "k": (192, 576), "v": (192, 576), "o": (576, 576),
          "gate": (1536, 576), "up": (1536, 576), "down": (576, 1536)}
print(f"{'modules':<16}{'SVF':>10}{'LoRA r1':>10}{'LoRA r16':>12}{'full':>14}{'r16 / SVF':>11}")
for modules in ("q,v", "gate,up,down", ",".join(SHAPES)):
    found = [SHAPES[m] for m in modules.split(",")]
    svf, pairs, full = (30 * sum(f(s) for s in found) for f in (min, sum, math.prod))
    print(f"{modules if len(found) < 7 else 'all seven':<16}{svf:>10,}{pairs:>10,}"
          f"{16 * pairs:>12,}{full:>14,}{16 * pairs / svf:>11.0f}")

# %% the pictures
fig, ax = plots.panel(f"Only {clear} of the paper's 9 differences are beyond chance", (8, 4.4))
names = [f"{task}, {model}" for task, (_, row) in TABLE_1.items() for model in row]
for y, (gain, half) in enumerate(gains):
    beyond = abs(gain) > half
    ax.errorbar(gain, y, xerr=half, fmt="o", ms=8, capsize=4, lw=2.5,
                color=plots.OF["svf"] if beyond else plots.GREY)
    ax.text(gain + half + 0.6, y, f"{gain:+.1f} ± {half:.1f}", va="center",
            weight="bold" if beyond else None)
ax.axvline(0, color="black", lw=1, ls=":")
ax.set_yticks(range(len(names)), names)
ax.set(ylim=(len(names) - 0.4, -0.6), xlim=(-14, 22),
       xlabel="SVF minus base model, points (line: 95 % interval)")
chapter.save(fig, "how_sure")

fig, ax = plots.panel("To see half the difference takes four times the questions", (7, 4))
x = range(2, 31)
for count, style, y, said in (
        (lambda g: items(0.5, g), "-", 250, "different questions for each model"),
        (lambda g: items_paired(0.3, g), "--", 20,
         "the same questions for both\n(30 % of answers differ)")):
    ax.plot(x, [count(g / 100) for g in x], style, color=plots.DARK, lw=2.5)
    ax.text(13 if style == "-" else 3, y, said, color=plots.DARK)
for gain in (5, 10, 20):
    needed = items(0.5, gain / 100)
    ax.plot(gain, needed, "o", color=plots.RED, ms=8)
    ax.text(gain + 0.5, needed * 1.1, needed, weight="bold", fontsize=12, color=plots.RED)
ax.set_yscale("log")
ax.set(xlabel="true difference of two models, points",
       ylabel="questions for each model to find it\nhalf of the time, near 50 % right")
chapter.save(fig, "how_many")

"""09: does it really help? Scores with intervals, differences on the same items, and what one run cannot say.

Reads tutorials/results/; needs no weights and trains nothing.
"""
# %% the checkers of the three exercises
import json
import math
import random

import chapter
import numpy as np

from t2mini import evaluate
from t2mini.lab import figures, plots
from t2mini.machine import student

RESULTS = chapter.HERE / "results"


def check_1(reader):
    for right, n in ((8, 10), (0, 10), (10, 10), (253, 400)):
        want, got = evaluate.wilson(right, n), tuple(reader.exercise_1(right, n))
        assert all(abs(a - b) < 1e-3 for a, b in zip(got, want)), (
            f"{right} of {n}: the interval is {want[0]:.3f} to {want[1]:.3f}, not {got[0]:.3f} to {got[1]:.3f}")


def check_2(reader):
    a, b = [1, 1, 0, 1, 0, 1, 1, 0] * 10, [1, 0, 0, 1, 0, 1, 0, 1] * 10
    got = reader.exercise_2(a, b)
    assert abs(got[0] - 0.125) < 1e-9, f"the mean difference is 0.125, not {got[0]}"
    want = math.sqrt(sum((x - y - 0.125) ** 2 for x, y in zip(a, b)) / 80 / 80)
    assert abs(got[1] - want) < 1e-3, (f"the standard error is {want:.4f}, not {got[1]:.4f}: take the spread of the 80 "
                                       "differences, not of the two scores apart")


def check_3(reader):
    for p, gain, want in ((0.5, 0.1, 193), (0.5, 0.05, 769), (0.8, 0.05, 492)):
        got = reader.exercise_3(p, gain)
        assert abs(got - want) <= 1, f"near {100 * p:.0f} %, {100 * gain:.0f} points need {want} items per arm, not {got}"


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% one interval and one bootstrap, on paper
chapter.section("by-hand")
low, high = evaluate.wilson(8, 10)
print(f"8 of 10: between {100 * low:.1f} % and {100 * high:.1f} %")
d = [1, 0, 0]                                               # item by item: new minus old
every = sorted((x + y + z) / 3 for x in d for y in d for z in d)
print("27 resamples of the differences 1, 0, 0:",
      ", ".join(f"{every.count(v)} x {v:.2f}" for v in sorted(set(every))))
print(f"standard deviation of these means {math.sqrt(sum((v - 1 / 3) ** 2 for v in every) / 27):.3f}, "
      f"by formula {math.sqrt((1 / 3 - 1 / 9) / 3):.3f}")

# %% how many items does a gain need?
chapter.section("items")
SIGMA = 1.96


def items(p, gain):
    """Items for each arm at which a true `gain` equals 1.96 standard errors of the unpaired difference, near accuracy p."""
    return math.ceil(SIGMA ** 2 * 2 * p * (1 - p) / gain ** 2)


def items_paired(changed, gain):
    """The same where both arms answer the same items, and a share `changed` of them comes out differently."""
    return math.ceil(SIGMA ** 2 * (changed - gain ** 2) / gain ** 2)


GAINS = (0.02, 0.05, 0.10, 0.20)
print(f"{'gain, points':<34}" + "".join(f"{100 * g:>9.0f}" for g in GAINS))
for label, count in (("items per arm, near 50 % right", lambda g: items(0.5, g)),
                     ("items per arm, near 20 % right", lambda g: items(0.2, g)),
                     ("same items, 30 % of them change", lambda g: items_paired(0.3, g)),
                     ("for eight detections in ten", lambda g: math.ceil(items(0.5, g) * ((1.96 + 0.84) / 1.96) ** 2))):
    print(f"{label:<34}" + "".join(f"{count(g):>9,}" for g in GAINS))

# %% the paper's Table 1, gains of SVF over the base model with their unpaired error
chapter.section("paper")
TABLE_1 = {"GSM8K": (1319, {"Llama-3-8B": (75.89, 79.15), "Mistral-7B": (42.83, 49.74), "Llama-3-70B": (85.29, 88.32)}),
           "MBPP-Pro": (99, {"Llama-3-8B": (64.65, 66.67), "Mistral-7B": (49.50, 51.52), "Llama-3-70B": (80.81, 80.81)}),
           "ARC-Easy": (2376, {"Llama-3-8B": (88.59, 89.56), "Mistral-7B": (81.65, 85.14), "Llama-3-70B": (89.10, 88.47)})}
clear = 0
for task, (n, row) in TABLE_1.items():
    cells = []
    for base, tuned in row.values():
        half = SIGMA * math.sqrt((base * (100 - base) + tuned * (100 - tuned)) / n)
        clear += abs(tuned - base) > half
        cells.append(f"{tuned - base:+.2f} ± {half:.2f}")
    print(f"{task:<9}{n:>5} items" + "".join(f"{c:>17}" for c in cells))
print(f"gains larger than their 95 % interval: {clear} of 9")

# %% our own scores, and differences to the base model on the same items
rows = [json.loads(line) for line in (RESULTS / "foundation.jsonl").read_text().splitlines()]
rows = list({(r["task"], r["arm"]): r for r in rows}.values())          # a row measured again replaces the old one
of = {(r["task"], r["arm"]): r for r in rows}
OWN = ("math", "code", "reasoning")                         # each with an expert of its own
UNSEEN = tuple(f"{t}-unseen" for t in OWN)
rows.sort(key=lambda r: (*OWN, *UNSEEN, r["task"]).index(r["task"]))


def against(row, arm):
    """The difference to another arm of the same task in points: (gain, low, high), or None where it was not run."""
    other = of.get((row["task"], arm))
    return None if other in (None, row) else [100 * v for v in evaluate.paired_difference(row["rewards"], other["rewards"])]


chapter.section("scores")
print(f"{'task':<17}{'arm':<18}{'n':>4}{'right, %':>22}{'minus base, points':>24}")
for r in rows:
    if (r["task"], "base") in of:
        score = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in (r["accuracy"], *r["ci95"])))
        gain = against(r, "base")
        print(f"{r['task']:<17}{r['arm']:<18}{r['n']:>4}{score:>22}" +
              ("" if not gain else f"{'{:+.1f} [{:+.1f}, {:+.1f}]'.format(*gain):>24}"))

chapter.section("routing")
print(f"{'questions':<17}{'n':>4}{'prompt, %':>22}{'classifier, %':>22}{'difference, points':>24}")
BY_HAND = tuple(f"hand-{label}" for label in (*OWN, "other"))
for task in ("dispatch", *BY_HAND, "real-math", "real-code", "real-reasoning"):
    both = [of.get((task, arm)) for arm in ("prompt", "classifier")]
    if all(both):
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in (r["accuracy"], *r["ci95"]))) for r in both]
        cells.append("{:+.1f} [{:+.1f}, {:+.1f}]".format(*against(both[1], "prompt")))
        print(f"{task:<17}{both[0]['n']:>4}{cells[0]:>22}{cells[1]:>22}{cells[2]:>24}")


# %% what can be said, sentence by sentence; the data decide
def verdict(gain):
    """better / worse where the interval leaves zero out, else not clear."""
    return "not run" if gain is None else "better" if gain[1] > 0 else "worse" if gain[2] < 0 else "not clear"


def compare(task, arm, other):
    row = of.get((task, arm))
    return verdict(against(row, other) if row else None)


chapter.section("verdicts")
made = []
print(f"{'question':<52}" + "".join(f"{t:>11}" for t in OWN))
for text, cells in (
        ("own expert against base, own task", [compare(t, f"{t} expert", "base") for t in OWN]),
        ("prompt against base, unseen task", [compare(t, "prompt", "base") for t in UNSEEN]),
        ("classifier against base, unseen task", [compare(t, "classifier", "base") for t in UNSEEN]),
        ("CEM against base, unseen task", [compare(t, "CEM", "base") for t in UNSEEN]),
        ("CEM against uniform alpha, unseen task", [compare(t, "CEM", "uniform alpha") for t in UNSEEN]),
        ("CEM against classifier, unseen task", [compare(t, "CEM", "classifier") for t in UNSEEN]),
        ("related expert against base, unseen task", [compare(u, f"{t} expert", "base") for t, u in zip(OWN, UNSEEN)]),
        ("classifier against prompt, routing real questions", [compare(f"real-{t}", "classifier", "prompt") for t in OWN])):
    print(f"{text:<52}" + "".join(f"{c:>11}" for c in cells))
    made += [c for c in cells if c != "not run"]
print(f"{len(made)} comparisons, {sum(c != 'not clear' for c in made)} of them clear; if nothing worked at all, "
      f"{len(made) / 20:.1f} would look clear by chance")

# %% the same difference, with and without pairing
chapter.section("pairing")
print(f"{'task':<12}{'fixed':>6}{'broken':>8}{'gain':>8}{'paired ±':>10}{'unpaired ±':>12}")
for t in OWN:
    if (t, "base") in of and (t, f"{t} expert") in of:
        a, b = of[t, f"{t} expert"]["rewards"], of[t, "base"]["rewards"]
        n, fixed, broken = len(a), sum(x > y for x, y in zip(a, b)), sum(x < y for x, y in zip(a, b))
        paired = SIGMA * math.sqrt(fixed + broken - (fixed - broken) ** 2 / n) / n
        unpaired = SIGMA * math.sqrt(sum(m * (1 - m) for m in (sum(a) / n, sum(b) / n)) / n)
        print(f"{t:<12}{fixed:>6}{broken:>8}{100 * (fixed - broken) / n:>8.1f}{100 * paired:>10.1f}{100 * unpaired:>12.1f}")

# %% choosing the best of many on the test set: a gain out of nothing
chapter.section("winner")
rng = random.Random(0)
print("arms that are all right with probability 0.3, on 200 items; how far the best one seems to be above that")
for arms in (1, 4, 8, 50):
    best = [max(sum(rng.random() < 0.3 for _ in range(200)) for _ in range(arms)) / 200 for _ in range(200)]
    print(f"{arms:>3} arms: {100 * (sum(best) / len(best) - 0.3):+.1f} points")

# %% seeds: the same training three times
chapter.section("seeds")
logs = {}
for path in sorted(RESULTS.glob("math-short-[0-9].jsonl")):
    log = [json.loads(line) for line in path.read_text().splitlines()]
    logs[int(path.stem[-1])] = [(r["step"], r["val"], r["val_n"]) for r in log if "val" in r]
finals = [max(v for _, v, _ in curve) for curve in logs.values()]
for seed, curve in logs.items():
    best = max(curve, key=lambda point: point[1])           # the first of equal ones, as training keeps it
    print(f"math, seed {seed}: {100 * curve[0][1]:.1f} % of {curve[0][2]} validation questions at the start, "
          f"{100 * best[1]:.1f} % at best (update {best[0]} of {curve[-1][0]})")
if len(finals) > 1:
    mean = sum(finals) / len(finals)
    sd = math.sqrt(sum((v - mean) ** 2 for v in finals) / (len(finals) - 1))
    half = student.student_t(len(finals) - 1) * sd / math.sqrt(len(finals))
    n = next(iter(logs.values()))[0][2]
    print(f"best of each run: mean {100 * mean:.1f} %, standard deviation between seeds {100 * sd:.1f} points")
    print(f"95 % interval for the mean over seeds: ± {100 * half:.1f} points; items alone ({n}) give a deviation of "
          f"{100 * math.sqrt(mean * (1 - mean) / n):.1f}")
else:
    print(f"{len(finals)} run: the spread between seeds is unknown, and no interval over items contains it")

# %% the same question asked of three methods with three seeds each
def measured(name):
    """{(task, base, arm): rewards of each seed} of an experiment's results file."""
    return figures.grouped(json.loads((RESULTS / f"{name}.json").read_text())["rows"])


def points(gain):
    """'+26.9 [+5.6, +48.2]' of three shares."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in gain))


chapter.section("three-seeds")
print(f"{'task':<11}{'method':<8}{'each seed, %':<22}{'minus base, questions only':>27}{'questions and seeds':>24}")
finetune = measured("finetune")
for (task, _, method), seeds in finetune.items():
    if method != "base":
        each = " ".join(f"{100 * sum(s) / len(s):.1f}" for s in seeds)
        one_seed = [np.mean(seeds, 0)]                      # as if the mean of three runs were one run
        start = finetune[task, "", "base"]
        narrow, wide = (evaluate.over_seeds(a, start)[:3] for a in (one_seed, seeds))
        print(f"{task:<11}{method:<8}{each:<22}{points(narrow):>27}{points(wide):>24}")

# %% how often does an interval hold the truth?
chapter.section("coverage")
draw = np.random.default_rng(0)
print(f"{'seeds deviate by, points':<40}    2     4     8    12")
held = {"questions only": [], "lowest to highest seed": [], "questions and seeds": []}
for deviation in (0.02, 0.04, 0.08, 0.12):
    inside = dict.fromkeys(held, 0)
    for _ in range(400):
        moved = draw.uniform(0.1, 0.9, 200) + deviation * draw.standard_normal((3, 1))      # (seeds, questions)
        runs = (draw.random((3, 200)) < moved.clip(0, 1)).astype(float)                     # the truth is 0.5
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
        ("3 examples minus 20, CEM", shots["math-unseen", "", "3 shots"], shots["math-unseen", "", "20 shots"]),
        ("math expert, weights in 8 bits minus in 16", transfer["math", "weights in 8 bits", "z"],
         transfer["math", "the same", "z"])):
    found = evaluate.over_seeds(seeds, minus)[:3]
    print(f"{text:<44}{points(found):>19}   within {100 * max(-found[1], found[2]):.0f} points")

# %% how many numbers each method would train on this model
chapter.section("counts")
SHAPES = {"q": (576, 576), "k": (192, 576), "v": (192, 576), "o": (576, 576), "gate": (1536, 576), "up": (1536, 576),
          "down": (576, 1536)}
print(f"{'modules':<16}{'SVF':>10}{'LoRA r1':>10}{'LoRA r16':>12}{'full':>14}{'r16 / SVF':>11}")
for modules in ("q,v", "gate,up,down", ",".join(SHAPES)):
    found = [SHAPES[m] for m in modules.split(",")]
    svf, pairs, full = (30 * sum(f(s) for s in found) for f in (min, sum, math.prod))
    print(f"{modules if len(found) < 7 else 'all seven':<16}{svf:>10,}{pairs:>10,}{16 * pairs:>12,}{full:>14,}"
          f"{16 * pairs / svf:>11.0f}")

# %% the pictures
plt = plots.pyplot()
shown = [r for r in rows if (r["task"], "base") in of and r["arm"] != "base"]
groups = list(dict.fromkeys(r["task"] for r in shown))
fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 1.6 + 0.27 * (len(shown) + 2 * len(groups))), sharey=True)
y, ticks = 0.0, []
for task in groups:
    base = of[task, "base"]
    left.text(1, y, task, fontweight="bold", va="center", fontsize=10)
    y += 1
    for r in [base] + [r for r in shown if r["task"] == task]:
        own = r["arm"].split()[0] == task.split("-")[0]
        colour = plots.GREY if r is base else plots.ORANGE if own else plots.BLUE
        low, high = r["ci95"]
        left.errorbar(100 * r["accuracy"], y, xerr=[[100 * (r["accuracy"] - low)], [100 * (high - r["accuracy"])]], fmt="o",
                      color=colour, capsize=3, ms=6)
        gain = against(r, "base")
        if gain:
            ends = [[gain[0] - gain[1]], [gain[2] - gain[0]]]
            right.errorbar(gain[0], y, xerr=ends, fmt="o", color=colour, capsize=3, ms=6)
        ticks.append((y, r["arm"]))
        y += 1
    y += 0.5
left.set_yticks([t for t, _ in ticks], [name for _, name in ticks], fontsize=9)
left.set(xlim=(0, 100), xlabel="right answers, % of the test items", title="score, Wilson interval", ylim=(y, -0.7))
right.axvline(0, color="black", lw=1, ls=":")
right.set(xlabel="minus base, points", title="difference on the same items, bootstrap")
for ax in (left, right):
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
fig.tight_layout()
chapter.save(fig, "09_does_it_help")

fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8))
x = [g / 100 for g in range(2, 31)]
for label, f, colour, line in (("unpaired, near 50 % right", lambda g: items(0.5, g), plots.BLUE, "-"),
                               ("unpaired, near 20 % right", lambda g: items(0.2, g), plots.BLUE, ":"),
                               ("same items, 30 % change", lambda g: items_paired(0.3, g), plots.ORANGE, "-")):
    left.plot([100 * g for g in x], [f(g) for g in x], line, color=colour, lw=2, label=label)
left.axhline(400, color=plots.GREY, lw=1)
left.text(30, 430, "400 items", ha="right", fontsize=9, color="0.35")
left.set_yscale("log")
left.set(xlabel="true gain, points", ylabel="items per arm (log scale)", title="what a gain costs")
left.legend(frameon=False, fontsize=9)
for (seed, curve), colour, mark in zip(logs.items(), (plots.BLUE, plots.ORANGE, plots.GREEN), "osd"):
    ends = [evaluate.wilson(v * n, n) for _, v, n in curve]
    at = [s + 0.25 * (seed - 1) for s, _, _ in curve]
    right.errorbar(at, [100 * v for _, v, _ in curve], [[100 * (v - e[0]) for (_, v, _), e in zip(curve, ends)],
                   [100 * (e[1] - v) for (_, v, _), e in zip(curve, ends)]], color=colour, marker=mark, capsize=3,
                   label=f"seed {seed}")
right.set(xlabel="update", ylabel="right, % of validation", ylim=(0, 100),
          title=f"math expert, {len(logs)} training run{'s' * (len(logs) != 1)}")
if logs:
    right.legend(frameon=False, fontsize=9)
fig.tight_layout()
chapter.save(fig, "09_items_and_seeds")

"""09: does it really help? How to read a score, and one comparison done right.

Reads tutorials/results/; needs no weights and trains nothing.
"""
# %% the checkers of the three exercises
import json
import math

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
            f"{right} of {n}: the interval is {want[0]:.3f} to {want[1]:.3f}, "
            f"not {got[0]:.3f} to {got[1]:.3f}")


def check_2(reader):
    a, b = [1, 1, 0, 1, 0, 1, 1, 0] * 10, [1, 0, 0, 1, 0, 1, 0, 1] * 10
    got = reader.exercise_2(a, b)
    assert abs(got[0] - 0.125) < 1e-9, f"the mean difference is 0.125, not {got[0]}"
    want = math.sqrt(sum((x - y - 0.125) ** 2 for x, y in zip(a, b)) / 80 / 80)
    assert abs(got[1] - want) < 1e-3, (
        f"the standard error is {want:.4f}, not {got[1]:.4f}: "
        "take the spread of the 80 differences, not of the two scores apart")


def check_3(reader):
    for p, gain, want in ((0.5, 0.1, 193), (0.5, 0.05, 769), (0.8, 0.05, 492)):
        got = reader.exercise_3(p, gain)
        assert got == want, (f"near {100 * p:.0f} %, {100 * gain:.0f} points need {want} "
                             f"items per arm, not {got}")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)


def percent(values):
    """'68.2 [63.5, 72.6]' of three shares: the value and its interval."""
    return "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * v for v in values))


def points(gain):
    """'+47.2 [+41.8, +52.5]' of three shares: a difference and its interval."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * v for v in gain))


# %% an interval, a number of questions and three seeds, on paper
chapter.section("by-hand")
low, high = evaluate.wilson(8, 10)
print(f"8 of 10 right: {100 * low:.1f} to {100 * high:.1f} %")
needed = math.ceil(1.96 ** 2 * 2 * 0.5 * (1 - 0.5) / 0.1 ** 2)
print(f"to see a gain of 10 points near 50 %: {needed} questions for each of the two")
three = np.array([60.0, 64.0, 68.0])
t, error = student.student_t(len(three) - 1), three.std(ddof=1) / math.sqrt(len(three))
print(f"three seeds, 60, 64 and 68 %: {three.mean():.0f} ± {t * error:.1f}, "
      f"not ± {1.96 * error:.1f}")


# %% one comparison from start to end: the math expert against the base model
def verdict(gain):
    """Better or worse where the interval of a difference leaves out zero, else not clear."""
    _, low, high = gain
    return "better" if low > 0 else "worse" if high < 0 else "not clear"


def measured(task, arm):
    """The reward of every question, as `make results` wrote it."""
    rows = map(json.loads, (RESULTS / "foundation.jsonl").read_text().splitlines())
    [rewards] = [r["rewards"] for r in rows if (r["task"], r["arm"]) == (task, arm)]
    return rewards


chapter.section("comparison")
base, tuned = measured("math", "base"), measured("math", "math expert")
n = len(base)
for name, rewards in (("base model", base), ("math expert", tuned)):
    right = sum(rewards)
    print(f"{name:<12}{right:.0f} of {n} right: "
          f"{percent((right / n, *evaluate.wilson(right, n)))} %")
both = [sum((x, y) == pair for x, y in zip(base, tuned))
        for pair in ((1, 1), (0, 1), (1, 0), (0, 0))]
kept, fixed, broken, missed = both
print(f"question by question: both right {kept}, fixed {fixed}, broken {broken}, "
      f"both wrong {missed}")
gain = evaluate.paired_difference(tuned, base)
print(f"expert minus base: {points(gain)} points, on the same questions")
alone = 1.96 * math.sqrt(sum(p * (1 - p) for p in (sum(base) / n, sum(tuned) / n)) / n)
print(f"had each answered questions of its own: ± {100 * alone:.1f}")
print(f"verdict: {verdict(gain)}")

# %% the same training three times
chapter.section("seeds")
print(f"{'task':<11}{'three seeds, %':<18}{'minus base, questions only':>28}"
      f"{'questions and seeds':>22}")
runs = figures.grouped(json.loads((RESULTS / "finetune.json").read_text())["rows"])
for task in ("math", "code", "reasoning"):
    seeds, start = runs[task, "", "svf"], runs[task, "", "base"]
    narrow = evaluate.over_seeds([np.mean(seeds, 0)], start)        # as if three runs were one
    wide = evaluate.over_seeds(seeds, start)
    each = " ".join(f"{100 * np.mean(s):.1f}" for s in seeds)
    print(f"{task:<11}{each:<18}{points(narrow[:3]):>28}{points(wide[:3]):>22}")

# %% the pictures
fig, ax = plots.panel(f"The math expert fixes {fixed} of {n} answers and breaks {broken}", (8, 3.6))
ORDER = ("fixed", fixed, plots.OF["expert"]), ("broken", broken, plots.RED), (
    "both models right", kept, "#cccccc"), ("both models wrong", missed, "#cccccc")
for y, (name, count, colour) in enumerate(ORDER):
    ax.barh(y, count, 0.7, color=colour)
    ax.text(count + n / 100, y, count, va="center", weight="bold", fontsize=12)
ax.set_yticks(range(4), [name for name, _, _ in ORDER])
ax.text(max(both) / 2, 2.5, f"these {kept + missed} do not change the difference", va="center")
ax.set(ylim=(3.6, -0.6), xlim=(0, 1.1 * max(both)),
       xlabel=f"of {n} test questions, asked of both models")
chapter.save(fig, "09_does_it_help")

fig, ax = plots.panel("The more questions, the surer the gain")
SIZES = [size for size in (10, 25, 50, 100, 200, 400) if size <= n]
for x, size in enumerate(SIZES):
    mean, low, high = (100 * v for v in evaluate.paired_difference(tuned[:size], base[:size]))
    ax.errorbar(x, mean, [[mean - low], [high - mean]], color=plots.OF["expert"],
                marker="o", ms=9, capsize=6, lw=2.5)
    ax.text(x + 0.12, mean, f"{mean:+.0f}\n[{low:.0f}, {high:.0f}]", va="center", weight="bold")
ax.axhline(0, color="black", lw=1, ls=":")
ax.text(len(SIZES) - 0.4, 2, "no difference", ha="right")
ax.set_xticks(range(len(SIZES)), SIZES)
ax.set(xlim=(-0.5, len(SIZES) - 0.3), ylim=(-3, None), xlabel="first so many of the questions",
       ylabel="math expert minus base model,\npoints (line: 95 % interval)")
chapter.save(fig, "09_more_questions")

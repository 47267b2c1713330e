"""
How far "held out" goes for the made-up questions: `python tutorials/held_out.py` (a few seconds, no
model; it reads results/foundation.jsonl and results/unseen.json).

Situations: a split holds situations (kinds with numbers, clues or parameters) that no other split
            has. Test questions repeat some in other words, so an interval over questions takes
            them for more than they are: the one over situations draws whole situations.
Kinds:      unseen tasks have few kinds of questions. An interval over questions tells what other
            questions of these kinds would change; one over kinds, what other kinds would.
"""
import json
import random
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from t2mini import evaluate, tasks     # noqa: E402
from t2mini.lab import figures     # noqa: E402


def measured():
    """{(task, arm): rewards} of the committed scores."""
    lines = (HERE / "results" / "foundation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["task"], row["arm"]): row["rewards"] for row in rows if "rewards" in row}


def over_groups(minus, names, draws=4000):
    """Differences, one for each question, and the names of the questions' groups -> 95 % bootstrap
    interval of their mean where whole groups are drawn."""
    groups = defaultdict(list)
    for difference, name in zip(minus, names, strict=True):
        groups[name].append(difference)
    groups, rng, means = list(groups.values()), random.Random(0), []
    for _ in range(draws):
        drawn = [x for group in rng.choices(groups, k=len(groups)) for x in group]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[round(0.025 * draws)], means[round(0.975 * draws) - 1]


def line(task, who, minus, names):
    """A row: a gain with its interval over questions, and over the groups that `names` tells."""
    mean, low, high = evaluate.paired_difference(minus, [0.0] * len(minus))
    wide = over_groups(minus, names)
    return (f"{task:<17}{who:<21}{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]   "
            f"[{100 * wide[0]:+.1f}, {100 * wide[1]:+.1f}] of {len(set(names))}")


def situations():
    """Print what each expert gains, with both intervals."""
    scores = measured()
    print("minus base, points                    over questions   over situations")
    for task in ("math", "code", "reasoning"):
        pairs = zip(scores[task, f"{task} expert"], scores[task, "base"], strict=True)
        minus = [a - b for a, b in pairs]
        keys = [e.key for e in tasks.get(task).examples("test", len(minus))]
        print(line(task, "its expert", minus, keys))


def compared():
    """{(task, who): gains over the base model, one for each test question}: of two passes, and of
    the search with one weight per expert and matrix, the mean of its three draws of examples."""
    scores, found = measured(), {}
    rows = json.loads((HERE / "results" / "unseen.json").read_text(encoding="utf-8"))["rows"]
    for task in ("math-unseen", "code-unseen", "reasoning-unseen"):
        base = scores[task, "base"]
        two = scores[task, "classifier"]
        found[task, "two passes"] = [a - b for a, b in zip(two, base, strict=True)]
        arms = figures.grouped(r for r in rows if r["task"] == task)
        (base,), draws = arms[task, "", "base"], arms[task, "", "cem per matrix"]
        found[task, "searched, per matrix"] = [
            sum(right) / len(right) - b for b, *right in zip(base, *draws, strict=True)]
    return found


def kinds():
    """Print gains on unseen tasks with both intervals."""
    print("minus base, points                    over questions   over kinds")
    for (task, who), minus in compared().items():
        of = [e.kind for e in tasks.get(task).examples("test", len(minus))]
        print(line(task, who, minus, of))


if __name__ == "__main__":
    situations()
    kinds()

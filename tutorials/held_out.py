"""
How far "held out" goes for the made-up questions: `python tutorials/held_out.py` (a few seconds, no
model; it reads results/foundation.jsonl).

Seen:   which of the 400 test questions of math the shipped expert met in its training. The split of
        math goes by all three numbers that are drawn, and most questions show two: the same words
        with another hidden number may be in another split.
Kinds:  unseen tasks have few kinds of questions. An interval over questions tells what other
        questions of these kinds would change; one over kinds, what other kinds would.
"""
import json
import random
import re
import sys
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from t2mini import evaluate, experts, tasks     # noqa: E402
from t2mini.lab import figures     # noqa: E402
from t2mini.questions import tables     # noqa: E402

UPDATES = 195       # of the shipped math expert
ROWS = {row.split(" | ")[0]: row for text in tables.read("math").values()
        for row in text.splitlines()}


def measured():
    """{(task, arm): rewards} of the committed scores."""
    lines = (HERE / "results" / "foundation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["task"], row["arm"]): row["rewards"] for row in rows if "rewards" in row}


def situation(example):
    """The kind of a question and the numbers that its wordings show."""
    kind, *numbers = example.key.split(" ")
    told = ROWS[kind].split(" | ")[-1]
    inside = " ".join(re.findall(r"{([^}]*)}", told))
    shown = [k for k in "abc" if re.search(rf"\b{k}\b", inside)]
    return kind, *(dict(zip("abc", numbers))[k] for k in shown)


def met(step, config):
    """The questions of an update of the shipped expert's training."""
    return tasks.get("math").examples("train", config["prompts"], seed=f"{config['seed']}/{step}")


def share(rewards):
    return evaluate.percent(round(sum(rewards)), len(rewards))


def seen():
    """Print what the math expert has right of questions that it met, nearly met and never met."""
    path = experts.SHIPPED / "smollm2-135m-instruct" / "math.safetensors"
    config = experts.read_metadata(path)["config"]
    trained = [e for step in range(UPDATES) for e in met(step, config)]
    prompts, situations = {e.prompt for e in trained}, {situation(e) for e in trained}
    scores, groups = measured(), defaultdict(list)
    for i, example in enumerate(tasks.get("math").examples("test", 400)):
        near = "same numbers" if situation(example) in situations else "never met"
        group = "word for word" if example.prompt in prompts else near
        groups[group].append(i)
        if group != "never met":
            groups["met in some form"].append(i)
        if example.key.startswith("1step"):
            groups[f"one step, {near}"].append(i)
    for name, members in sorted(groups.items()):
        told = {arm: share([scores["math", arm][i] for i in members])
                for arm in ("base", "math expert")}
        print(f"{name:<25}base {told['base']:<29}expert {told['math expert']}")


def over_kinds(minus, kinds, draws=4000):
    """Differences, one for each question, and the questions' kinds -> 95 % bootstrap interval of
    their mean where whole kinds are drawn."""
    groups = defaultdict(list)
    for difference, kind in zip(minus, kinds, strict=True):
        groups[kind].append(difference)
    groups, rng, means = list(groups.values()), random.Random(0), []
    for _ in range(draws):
        drawn = [x for group in rng.choices(groups, k=len(groups)) for x in group]
        means.append(sum(drawn) / len(drawn))
    means.sort()
    return means[round(0.025 * draws)], means[round(0.975 * draws) - 1]


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
        mean, low, high = evaluate.paired_difference(minus, [0.0] * len(minus))
        wide = over_kinds(minus, of)
        print(f"{task:<17}{who:<21}{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]   "
              f"[{100 * wide[0]:+.1f}, {100 * wide[1]:+.1f}] of {len(set(of))}")


if __name__ == "__main__":
    seen()
    kinds()

"""
How far "held out" goes: `python tutorials/held_out.py` (ten seconds, no model; it reads
results/foundation.jsonl). With `--data=DIR` for easy-VQA, too (results/sight.json).

Situations: a split holds situations (kinds with numbers, clues or parameters) that no other split
            has. Test questions repeat some in other words, so an interval over questions takes
            them for more than they are: the one over situations draws whole situations.
Kinds:      unseen tasks have few kinds of questions. An interval over questions tells what other
            questions of these kinds would change; one over kinds, what other kinds would.
Overlap:    a search learns from ten examples, and is scored on other questions. Are they of the
            same kinds? With a tenth of the situations for each they were not.
Images:     easy-VQA asks ten questions about an image, and of a thousand images in 107 wordings.
"""
import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]    # so that it works from a plain clone

import foundation     # noqa: E402
from t2mini import evaluate, tasks     # noqa: E402
from t2mini.lab.runs import RULES     # noqa: E402
from t2mini.questions.example import split_of     # noqa: E402


def measured():
    """{(task, arm): row} of the committed scores."""
    return {(row["task"], row["arm"]): row for row in foundation.read(foundation.COMMITTED)}


def gains(scores, task, arm):
    """What an arm gains over the base model on each test question. -> (differences, the
    questions). ValueError where these are not today's questions."""
    rows = [scores[task, who] for who in (arm, "base")]
    asked = tasks.get(task).examples("test", rows[0]["n"])
    if any(row.get("asked") != foundation.digest(asked) for row in rows):
        raise ValueError(f"the scores of {task} are of other questions: measure them again")
    return [a - b for a, b in zip(*(row["rewards"] for row in rows), strict=True)], asked


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


def line(task, who, minus, *groupings):
    """A row: a gain with its interval over questions, and over the groups that each of `groupings`
    tells (the name of every question's group)."""
    mean, low, high = evaluate.paired_difference(minus, [0.0] * len(minus))
    mean = round(100 * mean, 6)                             # 6.25, not 6.250000000000001
    told = f"{task:<17}{who:<21}{mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    for names in groupings:
        low, high = over_groups(minus, names)
        told += f"   [{100 * low:+.1f}, {100 * high:+.1f}] of {len(set(names))}"
    return told


def situations():
    """Print what each expert gains, with both intervals."""
    scores = measured()
    print("minus base, points                    over questions   over situations")
    for task in ("math", "code", "reasoning"):
        minus, asked = gains(scores, task, f"{task} expert")
        print(line(task, "its expert", minus, [e.key for e in asked]))


def kinds():
    """Print what two passes, all experts mixed equally, ten examples beside the first pass and a
    search gain on unseen tasks, with all three intervals."""
    scores = measured()
    print("minus base, points                    over questions   over situations   over kinds")
    for task in ("math-unseen", "code-unseen", "reasoning-unseen"):
        for who, arm in (("two passes", "classifier"), ("mixed equally", "uniform alpha")):
            minus, asked = gains(scores, task, arm)
            print(line(task, who, minus, [e.key for e in asked], [e.kind for e in asked]))
        for who, arm in (("and ten examples", "first pass and examples"),
                         ("searched", "cem"), ("mixed equally, 400", "uniform alpha")):
            minus, asked = of_unseen(task, arm)
            print(line(task, who, minus, [e.key for e in asked], [e.kind for e in asked]))


def of_unseen(task, arm):
    """What an arm of results/unseen.json gains on each test question, mean of the draws of its
    examples. -> (differences, the questions)."""
    found = json.loads((HERE / "results" / "unseen.json").read_text(encoding="utf-8"))
    if found["rules"] != RULES:
        sys.exit("t2mini: unseen.json was measured on other questions than today's")
    rewards = defaultdict(list)
    for row in found["rows"]:
        if row["task"] == task:
            rewards[row["arm"]].append([*map(float, row["rewards"])])
    [base] = rewards["base"]
    mean = [sum(drawn) / len(drawn) for drawn in zip(*rewards[arm], strict=True)]
    return ([a - b for a, b in zip(mean, base, strict=True)],
            tasks.get(task).examples("test", len(base)))


def shared(task, buckets, n=3000):
    """Of the kinds of val questions and of test questions, the share that both have."""
    rng = random.Random(0)
    drawn = [task.make(rng) for _ in range(n)]
    val, test = (Counter(e.kind for e in drawn if split_of(e, buckets) == split)
                 for split in ("val", "test"))
    return sum(min(val[kind] / val.total(), test[kind] / test.total()) for kind in val)


def overlap():
    """Print how much the kinds of a search's examples and of the scored questions overlap."""
    print("kinds that examples and scores share    a tenth for each   a third for each (now)")
    for name in ("math-unseen", "code-unseen", "reasoning-unseen"):
        task = tasks.get(name)
        tenth, now = (f"{100 * shared(task, of):.0f} %" for of in (10, task.buckets))
        print(f"{name:<40}{tenth:<19}{now}")


def images(data):
    """Print what the vision expert gains on easy-VQA, of the folder `data`, over whole images and
    over whole wordings."""
    asked = tasks.get("easy-vqa", data).examples("test", 100_000)
    rows = json.loads((HERE / "results" / "sight.json").read_text(encoding="utf-8"))["rows"]
    rewards = {row["arm"]: map(float, row["rewards"]) for row in rows if row["task"] == "easy-vqa"}
    minus = [a - b for a, b in zip(rewards["svf"], rewards["base"], strict=True)]
    print("minus base, points                    over questions   over images, over wordings")
    print(line("easy-vqa", "its expert", minus, [e.prompt.image for e in asked]))
    print(line("easy-vqa", "its expert", minus, [str(e.prompt) for e in asked]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Intervals over groups of questions.")
    parser.add_argument("--data", metavar="DIR", help="a folder with easy-VQA in it")
    folder = parser.parse_args().data
    situations()
    kinds()
    overlap()
    if folder:
        try:
            images(folder)
        except ValueError as e:
            sys.exit(f"held_out.py: {e}")

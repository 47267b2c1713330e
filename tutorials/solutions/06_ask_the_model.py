"""Solutions of chapter 06, and one plausible wrong answer to each exercise."""
import re

from t2mini.tasks import LABELS


def exercise_1(said):
    named = {w for w in re.findall(r"[a-z]+", said.lower()) if w in LABELS}
    return named.pop() if len(named) == 1 else None


def exercise_2(needs, said):
    table = {k: dict.fromkeys((*LABELS, "unreadable"), 0) for k in LABELS}
    for need, label in zip(needs, said):
        table[need][label or "unreadable"] += 1
    return table


def exercise_3(share, habit):
    ratio = {k: share[k] / habit[k] for k in share}
    return {k: v / sum(ratio.values()) for k, v in ratio.items()}


def as_other(needs, said):
    return exercise_2(needs, [label or "other" for label in said])


def subtract(share, habit):
    rest = {k: max(share[k] - habit[k], 0) + 1e-9 for k in share}
    return {k: v / sum(rest.values()) for k, v in rest.items()}


WRONG = {
    # finds "math" in "mathematics"
    1: lambda said: next((k for k in LABELS if k in said.lower()), None),
    # then "other" looks better than it is
    2: as_other,
    3: subtract,
}

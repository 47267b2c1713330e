"""
How far to the right expert, and by how many of ten examples must another part of the way lead?
`python tutorials/which_lead.py` (a few seconds, no model) draws ten of the validation questions of
results/between.json, lets a rule choose on them, and scores its choice on all of these questions.

few_shot.FAR and few_shot.CLEAR are the rule with the best mean. Ties are broken by the order below,
as likelihoods are not in the file.
"""
import json
import random
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = (0.5, 0.25, 0.75, 0.0, 1.0)
RULES = [("the best of all", None, 0)] + [
    (f"{part:g} of the way, others with a lead of {lead}", part, lead)
    for part in (0.5, 0.75, 1.0) for lead in (2, 3)]


def measured():
    """{task: {part of the way: [reward of each validation question]}}"""
    rows = json.loads((HERE / "results" / "between.json").read_text(encoding="utf-8"))["rows"]
    found = {}
    for row in rows:
        part = float(row["arm"].split()[0])
        found.setdefault(row["task"], {})[part] = [*map(int, row["rewards"])]
    return found


def chosen(right, start, lead):
    """right {part: how many of the ten} -> the part that a rule takes."""
    best = max(PARTS, key=right.__getitem__)
    return best if start is None or right[best] >= right[start] + lead else start


def expected(rewards, start, lead, draws=3000):
    """Mean share right, over draws of ten questions, of what the rule takes."""
    rng, total = random.Random(0), 0.0
    n = len(rewards[0.0])
    for _ in range(draws):
        ten = rng.sample(range(n), 10)
        part = chosen({p: sum(rewards[p][i] for i in ten) for p in PARTS}, start, lead)
        total += sum(rewards[part]) / n
    return total / draws


if __name__ == "__main__":
    tasks = measured()
    print(f"{'right, %':<44}" + "".join(f"{task.partition('-')[0]:>11}" for task in tasks)
          + f"{'mean':>11}")
    for name, start, lead in RULES:
        found = [100 * expected(rewards, start, lead) for rewards in tasks.values()]
        print(f"{name:<44}" + "".join(f"{share:>11.1f}" for share in found)
              + f"{sum(found) / len(found):>11.1f}")

"""
Every number of the README's results, from one command:

    python tutorials/foundation.py --data=PATH        (about 30 minutes on 2 CPU cores; stopped runs go on)

Writes tutorials/results/foundation.jsonl (one JSON object per score) and tutorials/figures/results.png. All scores are
greedy and on the test split. Nothing here trains or selects; CEM takes its ten shots from the val split.
The `hand-` rows are the routing of sixty questions written by hand (t2mini/questions/handwritten.txt). --data names a folder
with gsm8k/test.jsonl, mbpp/mbpp.jsonl and arc/ARC-Challenge/*Test.jsonl for the routing of real questions, in the form in
which `eval` asks them; without it that part is left out.
"""
import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import t2mini     # noqa: E402
from t2mini import adapt, evaluate, experts, svf, tasks     # noqa: E402
from t2mini.lab import arms, figures     # noqa: E402
from t2mini.lab.experiments import PROMPT     # noqa: E402
from t2mini.questions import published, tables     # noqa: E402
from t2mini.cli.verbs import agree     # noqa: E402

OUT = HERE / "results" / "foundation.jsonl"


def todo():
    """[(task, n, arm name, options)] in the order of the README."""
    found = [(t, 400, arm, o) for t in ("math", "code", "reasoning") for arm, o in (("base", {}), (f"{t} expert", {"expert": t}))]
    found += [("dispatch", 400, arm, {"strategy": arm}) for arm in ("prompt", "classifier")]
    for t in ("math-unseen", "code-unseen", "reasoning-unseen"):
        found += [(t, 200, "base", {}), (t, 200, "prompt", {"strategy": "prompt"}),
                 (t, 200, "classifier", {"strategy": "classifier"}), (t, 200, "CEM", {"strategy": "cem"}),
                 (t, 200, "uniform alpha", {"alpha": [0.3333] * 3})]
        found += [(t, 200, f"{e} expert", {"expert": e}) for e in adapt.MIXED]
    return found


REAL = {"real-math": "gsm8k", "real-code": "mbpp", "real-reasoning": "arc-challenge"}


def to_route(data):
    """[(task, right label, function that gives its questions)]; nothing here trained on them or chose by them.

    Those written by hand, and where there is `data` the first 100 of each published test set.
    """
    by_hand = tables.handwritten()
    found = [(f"hand-{label}", label, partial(by_hand.get, label)) for label in by_hand]
    if data:
        found += [(task, task.removeprefix("real-"), partial(first, name, data)) for task, name in REAL.items()]
    return found


def first(name, data, n=100):
    return [e.prompt for e in published.load(name, data)["test"][:n]]


def table(done):
    """The scores as Markdown, differences to the base model on the same items with a paired 95 % interval."""
    print("| task (test split) | arm | n | right, % [95 %] | minus base, points [95 %] |\n|---|---|---|---|---|")
    for r in done:
        base = next((b for b in done if b["task"] == r["task"] and b["arm"] == "base"), r)
        against = ""
        if base is not r:
            gain = evaluate.paired_difference(r["rewards"], base["rewards"])
            against = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * g for g in gain))
        arm = r["arm"]
        if arm == "CEM":
            arm += " (alpha " + " ".join(f"{v:.2f}" for v in r["alpha"].values()) + ")"
        low, high = r["ci95"]
        print(f"| {r['task']} | {arm} | {r['n']} | {100 * r['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] | {against} |")
    print(f"\nOne training seed of each expert and one search: intervals are over questions only.\nprompt: {PROMPT}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the published question sets")
    parser.add_argument("--only", default="", help="only tasks whose name holds this")
    parser.add_argument("--table", action="store_true", help="only print the scores so far as a table, and draw them")
    parser.add_argument("--allow-code", action="store_true", help="agree, once, that programs of the model run in the sandbox")
    args = parser.parse_args()
    OUT.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []
    if args.table:
        draw(done)
        return table(done)
    try:
        agree(args.allow_code)
    except ValueError as e:
        sys.exit(f"t2mini: {e}")
    model, tokenizer = t2mini.load()
    svf.attach(model, cache=experts.SVD_CACHE)

    def record(row):
        done.append({**row, "base_sha256": model.base_sha256, "dtype": str(model.dtype)})
        with open(OUT, "a") as f:
            f.write(json.dumps(done[-1]) + "\n")
        print(f"{row['task']:<18} {row['arm']:<18} {evaluate.percent(sum(row['rewards']), row['n'])}  {row['seconds']} s",
              flush=True)

    for task_name, n, arm, options in todo():
        if args.only not in task_name or any((r["task"], r["arm"], r["n"]) == (task_name, arm, n) for r in done):
            continue
        started, task = time.time(), tasks.get(task_name)
        rewards, _, extra = arms.run(model, tokenizer, task, task.examples("test", n, seed=0), **options)
        record(scored(task_name, arm, rewards, started, **extra))
    dispatcher = experts.load(["dispatcher"], model)["dispatcher"]
    for name, label, questions in to_route(args.data):
        for arm, z in (("prompt", None), ("classifier", dispatcher)):
            if args.only not in name or any((r["task"], r["arm"]) == (name, arm) for r in done):
                continue
            started = time.time()
            routes = adapt.route(model, tokenizer, questions(), z, label="routing")
            record(scored(name, arm, [float(r.label == label and r.readable) for r in routes], started))
    draw(done)


def scored(task, arm, rewards, started, **extra):
    """One line of the results file."""
    n = len(rewards)
    return {"task": task, "arm": arm, "n": n, "seed": 0, "split": "test", "accuracy": sum(rewards) / n,
            "ci95": evaluate.wilson(sum(rewards), n), "rewards": rewards, "seconds": round(time.time() - started, 1), **extra}


def draw(done):
    """The picture of the results page: each expert on its own task."""
    rows = []
    for r in done:
        if r["task"] == "dispatch" or r["task"].startswith(("real-", "hand-")):
            continue
        if r["arm"] == f"{r['task']} expert":
            rows.append({**r, "arm": "own expert"})
        elif not r["arm"].endswith(" expert"):
            rows.append(r)
    if rows:
        figures.results(rows, HERE / "figures" / "results.png")


if __name__ == "__main__":
    main()

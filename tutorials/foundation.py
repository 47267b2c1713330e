"""
Every number of the README's results, from one command:

    python tutorials/foundation.py --data=PATH --out=DIR
        (about 30 minutes on 2 CPU cores; stopped runs go on)

Writes foundation.jsonl (one JSON object per score) and results.png into DIR, and says how many
scores are those of tutorials/results/. Without --out it adds to tutorials/results/ what is missing
there. All scores are greedy and on the test split. Nothing here trains or selects; CEM takes its
ten shots from the val split. The `hand-` rows are the routing of sixty questions written by hand
(t2mini/questions/handwritten.txt). --data names a folder with the files of gsm8k, mbpp and
arc-challenge (`python -m t2mini datasets` lists them) for the routing of real questions, in the
form in which `eval` asks them; without it that part is left out.
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
from t2mini.lab.routing import PROMPT     # noqa: E402
from t2mini.lab.runs import digest     # noqa: E402
from t2mini.machine import files, shelves     # noqa: E402
from t2mini.questions import published, tables     # noqa: E402
from t2mini.cli.verbs import agree     # noqa: E402

COMMITTED = HERE / "results" / "foundation.jsonl"


def todo():
    """[(task, n, arm name, options)] in the order of the README."""
    found = [(t, 400, arm, o) for t in ("math", "code", "reasoning")
             for arm, o in (("base", {}), (f"{t} expert", {"expert": t}))]
    found += [("dispatch", 400, arm, {"strategy": arm}) for arm in ("prompt", "classifier")]
    for t in ("math-unseen", "code-unseen", "reasoning-unseen"):
        found += [(t, 200, "base", {}), (t, 200, "prompt", {"strategy": "prompt"}),
                  (t, 200, "classifier", {"strategy": "classifier"}),
                  (t, 200, "CEM", {"strategy": "cem"}),
                  (t, 200, "uniform alpha", {"alpha": [0.3333] * 3})]
        found += [(t, 200, f"{e} expert", {"expert": e}) for e in adapt.MIXED]
    return found


REAL = {"real-math": "gsm8k", "real-code": "mbpp", "real-reasoning": "arc-challenge"}


def to_route(data):
    """[(task, right label, function that gives its questions)]; nothing here trained on them or
    chose by them.

    Those written by hand, and where there is `data` the first 100 of each published test set.
    """
    by_hand = tables.handwritten()
    found = [(f"hand-{label}", label, partial(by_hand.get, label)) for label in by_hand]
    if data:
        found += [(task, task.removeprefix("real-"), partial(first, name, data))
                  for task, name in REAL.items()]
    return found


def first(name, data, n=100):
    return [e.prompt for e in published.load(name, data)["test"][:n]]


def table(done):
    """The scores as Markdown, differences to the base model on the same items with a paired 95 %
    interval."""
    print("| task (test split) | arm | n | right, % [95 %] | minus base, points [95 %] |\n"
          "|---|---|---|---|---|")
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
        print(f"| {r['task']} | {arm} | {r['n']} "
              f"| {100 * r['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}] | {against} |")
    print("\nOne training seed of each expert and one search: intervals are over questions only.\n"
          f"prompt: {PROMPT}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=files.expand, help="folder of the published question sets")
    parser.add_argument("--only", default="", help="only tasks whose name holds this")
    parser.add_argument("--out", type=files.expand, help="folder of the scores and their picture "
                                                 "(default: the committed ones)")
    parser.add_argument("--table", action="store_true",
                        help="only print the scores so far as a table, and draw them")
    parser.add_argument("--allow-code", action="store_true",
                        help="agree, once, that programs of the model run in the sandbox")
    args = parser.parse_args()
    scores = args.out / COMMITTED.name if args.out else COMMITTED
    picture = (args.out or HERE / "figures") / "results.png"
    try:
        files.claim(picture, "picture", [args.data])
        experts.OUT.mkdir(exist_ok=True)
        with files.only_one(experts.OUT / "foundation.lock"):
            if args.table:
                done = read(scores)
                if not done:
                    raise ValueError(f"no scores at {scores}; without --table they are measured")
                draw(done, picture)
                return table(done)
            measure(args, scores, picture)
    except (ValueError, OSError) as e:
        sys.exit(f"t2mini: {e}")


def measure(args, scores, picture):
    """Measure what the file of scores lacks; each score is in it as soon as it is there."""
    kinds = [task for task, *_ in todo()] + [name for name, *_ in to_route(args.data)]
    if not any(args.only in task for task in kinds):
        raise ValueError(f"no task's name holds {args.only!r}: {', '.join(dict.fromkeys(kinds))}")
    for task, name in REAL.items():                         # what is missing is told of at once
        if args.data and args.only in task:
            published.load(name, args.data)
    done = read(scores)
    before = len(done)
    for r in done:
        if r["task"] not in tasks.BUILT_IN:
            continue
        if r.get("asked") != digest(tasks.get(r["task"]).examples("test", r["n"])):
            raise ValueError(f"{scores} asked other questions of {r['task']} than there are today: "
                             "move it away, or take another --out")
    agree(args.allow_code)
    model, tokenizer = t2mini.load()
    yours = shelves.instead(model, experts.OUT, experts.SHIPPED / model.name)
    if yours:
        raise ValueError(f"these are scores of the shipped experts, and {experts.OUT} holds "
                         f"others: {', '.join(yours)}; move them away (`eval` scores them)")
    for r in done:
        if (r["base_sha256"], r["dtype"]) != (model.base_sha256, str(model.dtype)):
            raise ValueError(f"{scores} has scores of other weights or in {r['dtype']}, and they "
                             f"would be compared with those of {model.name} in {model.dtype}: "
                             "take another --out")
    svf.attach(model, cache=experts.SVD_CACHE)

    def record(row):
        done.append({**row, "base_sha256": model.base_sha256, "dtype": str(model.dtype)})
        with files.replacing(scores) as f:
            f.write("".join(json.dumps(row) + "\n" for row in done).encode())
        print(f"{row['task']:<18} {row['arm']:<18} "
              f"{evaluate.percent(sum(row['rewards']), row['n'])}  {row['seconds']} s", flush=True)

    for task_name, n, arm, options in todo():
        if args.only not in task_name or any(
                (r["task"], r["arm"], r["n"]) == (task_name, arm, n) for r in done):
            continue
        started, task = time.time(), tasks.get(task_name)
        examples = task.examples("test", n, seed=0)
        rewards, _, extra = arms.run(model, tokenizer, task, examples, **options)
        record(scored(task_name, arm, rewards, started, asked=digest(examples), **extra))
    dispatcher = experts.load(["dispatcher"], model)["dispatcher"]
    for name, label, questions in to_route(args.data):
        for arm, z in (("prompt", None), ("classifier", dispatcher)):
            if args.only not in name or any((r["task"], r["arm"]) == (name, arm) for r in done):
                continue
            started = time.time()
            routes = adapt.route(model, tokenizer, questions(), z, title="routing")
            record(scored(name, arm, [float(r.label == label and r.readable) for r in routes],
                          started))
    draw(done, picture)
    if len(done) == before:
        which = f"every score of a task that holds {args.only!r}" if args.only else "every score"
        print(f"nothing is left to measure: {scores} has {which}; "
              "another --out measures them again")
    if scores != COMMITTED:
        print(f"{scores}: {as_committed(done, read(COMMITTED))}")


def read(path):
    """The scores of a file; none where there is no file. ValueError where a line is none, or tells
    a score for the second time."""
    if not path.exists():
        return []
    try:
        found = [json.loads(line) for line in path.read_text().splitlines()]
        named = [(r["task"], r["arm"], r["n"]) for r in found]
    except (ValueError, TypeError, KeyError) as e:
        raise ValueError(f"{path} holds a line that is no score ({e}): move it away") from None
    if len(set(named)) < len(named):
        raise ValueError(f"{path} holds a score twice: move it away")
    return found


def as_committed(done, committed):
    """'38 of 40 scores are those of tutorials/results; the others: ...'"""
    def key(r):
        return r["task"], r["arm"], r["n"]

    known = {key(r): r["accuracy"] for r in committed}
    shared = [r for r in done if key(r) in known]
    other = [f"{r['task']}, {r['arm']}: {100 * r['accuracy']:.1f}, "
             f"there {100 * known[key(r)]:.1f} %"
             for r in shared if r["accuracy"] != known[key(r)]]
    text = f"{len(shared) - len(other)} of {len(shared)} scores are those of tutorials/results"
    return "; ".join([text, *other])


def scored(task, arm, rewards, started, **extra):
    """One line of the results file."""
    n = len(rewards)
    return {"task": task, "arm": arm, "n": n, "seed": 0, "split": "test",
            "accuracy": sum(rewards) / n, "ci95": evaluate.wilson(sum(rewards), n),
            "rewards": rewards, "seconds": round(time.time() - started, 1), **extra}


def draw(done, picture):
    """The picture of the results page: each expert on its own task."""
    rows = []
    for r in done:
        if r["task"] == "dispatch" or r["task"].startswith(("real-", "hand-")):
            continue
        if r["task"].endswith("-unseen"):
            continue
        if r["arm"] == f"{r['task']} expert":
            rows.append({**r, "arm": "own expert"})
        elif not r["arm"].endswith(" expert"):
            rows.append(r)
    if rows:
        figures.results(rows, picture)


if __name__ == "__main__":
    main()

"""
One arm of an experiment: answer these examples with a fixed expert, a fixed mixture, or one of the three strategies.

`eval`, `adapt` and tutorials/foundation.py all run their arms here, so that a number means the same wherever it is printed.
"""
import sys
import time

from .. import adapt, evaluate, experts, svf, tasks
from ..machine import ranks


def run(args, model, tokenizer, task, examples):
    """Answer the examples as --expert or --strategy says. -> (rewards, texts, extra numbers for the result)."""
    questions = [e.prompt for e in examples]
    if args.choose and args.strategy:
        raise ValueError("--choose goes with --expert or --alpha: every strategy is about written answers")
    if args.strategy in ("prompt", "classifier"):
        dispatcher = None
        if args.strategy == "classifier":
            dispatcher = experts.load(["dispatcher"], model, args.allow_other_base)["dispatcher"]
        if args.task == "dispatch":                         # its questions are dispatch prompts: the first pass is all
            with svf.using(model, dispatcher or {}):
                texts = evaluate.answers(model, tokenizer, questions, task.max_tokens, label="first pass", opener=task.opener)
            return ranks.spread(tasks.rewards, examples, texts), texts, confusion(examples, texts)
        routes = adapt.route(model, tokenizer, questions, dispatcher, label="first pass")
        labels = [r.label for r in routes]
        chosen = experts.load(sorted(set(labels) - {"other"}), model, args.allow_other_base)
        texts = adapt.answer_routed(model, tokenizer, questions, labels, chosen, task.max_tokens, label="second pass",
                                    opener=task.opener)
        return ranks.spread(tasks.rewards, examples, texts), texts, {"routed": {k: labels.count(k) for k in tasks.LABELS},
                                                       "unreadable": sum(not r.readable for r in routes)}
    if args.strategy == "cem":
        chosen, extra = search(args, model, tokenizer, task)
    elif args.alpha:
        alpha = numbers(args.alpha, len(adapt.MIXED))
        mixed_from = experts.load(adapt.MIXED, model, args.allow_other_base)
        chosen, extra = svf.mix(list(mixed_from.values()), alpha), {"alpha": dict(zip(mixed_from, alpha))}
    else:
        name = args.expert if not args.strategy else "none"
        chosen, extra = experts.load([name], model, args.allow_other_base)[name] if name != "none" else {}, {}
    with svf.using(model, chosen):
        texts = evaluate.choices(model, tokenizer, task, examples, label="choosing") if args.choose else evaluate.answers(
            model, tokenizer, questions, task.max_tokens, label="answering", opener=task.opener)
    return ranks.spread(tasks.rewards, examples, texts), texts, extra


def numbers(text, count):
    """'0.5,0.5,0' -> [0.5, 0.5, 0.0]; ValueError where these are not `count` finite numbers."""
    try:
        found = [float(t) for t in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(abs(v) < 100 for v in found):
        raise ValueError(f"--alpha must be {count} numbers such as 0.3,0.3,0.4, not {text!r}")
    return found


def confusion(examples, texts):
    """Rows: the right label; columns: the label said; "unreadable" where none was."""
    table = {gold: dict.fromkeys((*tasks.LABELS, "unreadable"), 0) for gold in tasks.LABELS}
    for e, text in zip(examples, texts):
        table[e.answer][tasks.find_label(text) or "unreadable"] += 1
    print(f"{'needs / said':<14}" + "".join(f"{c:>12}" for c in (*tasks.LABELS, "unreadable")))
    for gold, row in table.items():
        print(f"{gold:<14}" + "".join(f"{v:>12}" for v in row.values()))
    return {"confusion": table}


def search(args, model, tokenizer, task):
    """Strategy C for the options of `adapt` (or their defaults). -> (mixed expert, numbers for the result)."""
    options = {k: getattr(args, k, d) for k, d in (("shots", 10), ("iterations", 6), ("population", 16),
                                                  ("per_matrix", False), ("experts", ",".join(adapt.MIXED)))}
    if options["shots"] < 1 or options["population"] < 2 or options["iterations"] < 1:
        raise ValueError("--shots and --iterations must be at least 1 and --population at least 2")
    names = options["experts"].split(",")
    mixed_from = list(experts.load(names, model, args.allow_other_base).values())
    shots = task.examples("val", options["shots"], args.seed)           # never scored: those are of the test split
    t0 = time.time()

    def report(i, s):
        left = (time.time() - t0) / (i + 1) * (options["iterations"] - i - 1)
        alpha = " ".join(f"{a:.2f}" for a in s.best) if len(s.best) == len(names) else f"{len(s.best)} alphas"
        print(f"iteration {i + 1}: best {100 * s.best_score[0]:.0f} % of {len(shots)} shots, alpha {alpha}, {left:.0f} s left",
              file=sys.stderr if ranks.rank() == 0 else sys.stdout)      # which the other ranks do not have

    mixed, found = adapt.adapt_cem(model, tokenizer, task, mixed_from, shots, options["per_matrix"],
                                   options["iterations"], options["population"], args.seed, report)
    K, d = len(names), len(found.best)
    alpha = found.best.reshape(d // K, K).mean(0) if d > K else found.best
    mean = found.mean.reshape(d // K, K).mean(0) if d > K else found.mean
    return mixed, {"alpha": dict(zip(names, alpha.round(4).tolist())), "alpha_mean": dict(zip(names, mean.round(4).tolist())),
                   "shots": len(shots), "shots_right": found.best_score[0], "per_matrix": options["per_matrix"],
                   "history": [{k: v for k, v in h.items() if d == K or k not in ("mean", "std")} for h in found.history],
                   "search_seconds": round(time.time() - t0, 1)}

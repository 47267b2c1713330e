"""
One arm of an experiment: these examples answered by a fixed expert, a fixed mixture or a strategy.

`eval`, tutorials/foundation.py and the rows of `Lab.arm` (runs.py) come from here, so that a number
means the same wherever it is printed.
"""
import sys
import time
from collections import Counter

from .. import adapt, evaluate, svf, tasks
from ..experts import Shelf
from ..machine import ranks, settings
from . import few_shot

# of `search`, if nothing else is said: mixtures of an iteration; iterations, by what it goes
POPULATION = 16
ITERATIONS = {"accuracy": 6, "likelihood": 6, "gradient": 15, "first-pass": 1}


def run(model, tokenizer, task, examples, strategy=None, expert="none", alpha=None, choose=False,
        experts=None, seed=0):
    """Answer the examples in one way. -> (rewards, texts, more numbers for the result).

    strategy  one of adapt.STRATEGIES, or None: then
    expert    the name of one expert for all ("none": the base model), or
    alpha     one number for each expert of adapt.MIXED: their mixture
    choose    take the likeliest of the listed options instead of writing; not with a strategy
    experts   name -> z (default: an experts.Shelf); seed: of the shots that strategy "cem" takes
    """
    experts = Shelf(model) if experts is None else experts
    numbers, counts = {}, Counter()
    if choose and strategy:
        raise ValueError("--choose goes with --expert or --alpha: a strategy is about written "
                         "answers")

    if not choose:                                          # before a search, too
        settings.check_room(model, tokenizer, [e.prompt for e in examples], task.opener,
                            task.max_tokens)

    # --- what answers: one z for all questions, or a strategy for each ---
    dispatches = task.name == "dispatch" and strategy in ("prompt", "classifier")
    if dispatches:                                          # its questions are the first pass
        fixed = "dispatcher" if strategy == "classifier" else "none"
    elif strategy == "cem":
        fixed, numbers = search(model, tokenizer, task, experts, seed=seed)
    elif alpha:
        fixed = svf.mix([experts[name] for name in adapt.MIXED], alpha)
        numbers = {"alpha": dict(zip(adapt.MIXED, alpha))}
    else:
        fixed = expert if strategy is None else None

    # --- the answers and what they earn ---
    if choose:
        with svf.using(model, as_z(fixed, experts)):
            texts = evaluate.choices(model, tokenizer, task, examples, title="choosing")
    else:
        found = adapt.answer(
            model, tokenizer, [e.prompt for e in examples], strategy, experts, fixed,
            task.max_tokens, task.opener, title="answering" if fixed else "second pass",
            counts=counts)
        texts = [a.answer for a in found]
    rewards = ranks.spread(tasks.rewards, examples, texts)
    if dispatches:
        numbers = {"confusion": confusion(examples, texts)}
    elif strategy in ("prompt", "classifier"):
        routes = [a.route for a in found]
        routed = {label: routes.count(label) for label in tasks.LABELS}
        if missing := lacking(routes, experts):
            print(f"the base model answers what was sent to {', '.join(missing)}: this model has "
                  "no such expert", file=sys.stderr)
        numbers = {"routed": routed,
                   "unreadable": sum(not a.readable for a in found)}
    return rewards, texts, numbers | {"cut": counts["cut"]}


def lacking(routes, experts):
    """The labels of a first pass that need an expert which is not there, each once, in order."""
    return sorted({label for label in routes if label not in adapt.BASE and label not in experts})


def as_z(expert, experts):
    """A name ("none": the base model) or z itself -> z."""
    if isinstance(expert, dict):
        return expert
    return {} if expert == "none" else experts[expert]


def confusion(examples, texts):
    """Rows: the right label; columns: the label said; "unreadable" where none was. Printed, too."""
    columns = (*tasks.LABELS, "unreadable")
    table = {gold: dict.fromkeys(columns, 0) for gold in tasks.LABELS}
    for example, text in zip(examples, texts):
        table[example.answer][tasks.find_label(text) or "unreadable"] += 1
    print(f"{'needs / said':<14}" + "".join(f"{c:>12}" for c in columns))
    for gold, said in table.items():
        print(f"{gold:<14}" + "".join(f"{count:>12}" for count in said.values()))
    return table


def search(model, tokenizer, task, experts, names=adapt.MIXED, shots=10, iterations=0,
           population=POPULATION, per_matrix=False, seed=0, normalise=False, by="accuracy"):
    """Strategy C on examples of the val split, with progress. -> (mixed z, numbers for the result).

    names: which of `experts` are mixed. by: what a mixture is judged by, "accuracy" (the paper's),
    "likelihood", "gradient" or "first-pass" (few_shot.py). iterations: of the search, or steps
    along the gradient; 0: the usual number (ITERATIONS). The shots are never scored: scores are of
    the test split.
    """
    iterations = iterations or ITERATIONS[by]
    if shots < 1 or population < 2 or iterations < 1:
        raise ValueError("--shots and --iterations must be at least 1 and --population at least 2")
    if by != "accuracy" and (normalise or (per_matrix and by != "gradient")):
        raise ValueError(f"--by={by} does not go with --normalise"
                         + (" or --per-matrix" if by != "gradient" else ""))
    if by == "first-pass" and not {*names} <= {*adapt.MIXED}:
        raise ValueError("--by=first-pass mixes experts that the first pass can name: "
                         f"--experts must be some of {', '.join(adapt.MIXED)}")
    examples = task.examples("val", shots, seed)
    if by == "likelihood":
        for example in examples:                            # before minutes of decompositions
            tasks.gold(example)
    mixed_from = [experts[name] for name in names]
    started = time.time()
    if by != "accuracy":
        if by == "gradient" and any(name.endswith(".A") for z in mixed_from for name in z):
            raise ValueError("--by=gradient turns numbers of each expert, and LoRA's are products: "
                             "take --by=accuracy")
        options = dict(iterations=iterations, population=population)
        if by == "gradient":                                # it searches nothing
            options = dict(per_matrix=per_matrix, steps=iterations)
        elif by == "first-pass":                            # its mixtures are given
            options = dict(dispatcher=experts["dispatcher"], names=names)
        return fitted(model, tokenizer, task, mixed_from, examples, names, by, options, seed)

    def report(i, found):
        """One line for an iteration of the search."""
        left = (time.time() - started) / (i + 1) * (iterations - i - 1)
        [alpha, *more] = adapt.as_mixed(found.best, len(names), normalise)
        alpha = " ".join(f"{a:.2f}" for a in alpha)
        if more:
            alpha = f"of {len(found.best)} numbers"
        screen = sys.stderr if ranks.rank() == 0 else sys.stdout        # other ranks have no stdout
        right = 100 * found.best_score[0]
        print(f"iteration {i + 1}: best {right:.0f} % of {len(examples)} shots, "
              f"alpha {alpha}, {left:.0f} s left", file=screen)

    mixed, found = adapt.adapt_cem(model, tokenizer, task, mixed_from, examples, per_matrix,
                                   iterations, population, seed, report, normalise)
    whole = len(found.best) == len(names)                   # else one alpha per matrix: their mean
    best, mean = (adapt.as_mixed(alpha, len(names), normalise).mean(0).round(4)
                  for alpha in (found.best, found.mean))
    history = [{k: v for k, v in h.items() if whole or k not in ("mean", "std")}
               for h in found.history]
    return mixed, {
        "alpha": dict(zip(names, best.tolist())), "alpha_mean": dict(zip(names, mean.tolist())),
        "shots": len(examples), "shots_right": found.best_score[0], "per_matrix": per_matrix,
        "history": history, "search_seconds": round(time.time() - started, 1)}


def fitted(model, tokenizer, task, mixed_from, examples, names, by, options, seed):
    """A mixture by one of few_shot.WAYS. -> (mixed z, numbers as `search` has them)."""
    started = time.time()

    def report(done, steps, value):
        left = (time.time() - started) / done * (steps - done)
        print(f"{by}, step {done} of {steps}: {value:.3f}, {left:.0f} s left",
              file=sys.stderr if ranks.rank() == 0 else sys.stdout)

    way = few_shot.WAYS[by]
    mixed, alpha, history = way(model, tokenizer, task, mixed_from, examples, seed=seed,
                                progress=report, **options)
    seconds = round(time.time() - started, 1)
    [(right, *_)] = adapt.score_mixtures(model, tokenizer, task, examples, [mixed])
    mean = alpha.view(-1, len(names)).mean(0)               # of all matrices
    return mixed, {
        "alpha": dict(zip(names, mean.double().round(decimals=4).tolist())),
        "shots": len(examples), "shots_right": right, "by": by, "history": history,
        "per_matrix": alpha.dim() > 1, "search_seconds": seconds}

"""
The paper's Tables 1 and 2 and Figure 6 on published questions, with a base model that can do them.

Seen:    each expert on the whole test set of what it was trained on, beside the base model and
         others that are trained here under the expert's own settings: a LoRA, and of what writes
         its answers a second run with another seed. Where solutions are published, experts that
         imitate these (the paper's Table 4), under settings of their own.
Unseen:  the same experts on the set beside it that nobody was trained on; strategies, and mixtures
         of those experts that the base has.
Routed:  where the first pass sends test questions of all six sets.
Experts: those that the base has, each with the settings that its file names. What is missing has
         no rows.
"""
from functools import partial

from .. import adapt, experts, tasks
from ..questions.published import ARC_OPENER, hides_options
from .mixing import FIRST_PASSES, best_single, equally, found_on_shots, searched
from .routing import confusion, note_of
from .runs import SEEDS, WHOLE, cell

# expert -> the set that it is trained on, and the unseen one beside it
SETS = {"math": ("gsm8k-steps", "math-500"), "code": ("mbpp", "humaneval"),
        "reasoning": ("arc-easy-letters", "arc-challenge-letters")}
# the same questions: with options in quotation marks, or without options; without the first words
# of an answer
OTHER_FORMS = {"arc-easy-letters": ("arc-easy", "arc-easy-open"),
               "arc-challenge-letters": ("arc-challenge", "arc-challenge-open"),
               "gsm8k-steps": ("gsm8k",)}
PARTS = {"gsm8k-steps": "gsm8k-few-sums"}               # the same set, a part of it learnt from
BARE = {"gsm8k-steps": "gsm8k"}                         # a first pass sees no answer
# tokens of an answer; under the task's own limit half of this base's answers are cut off
LONGEST = {"gsm8k": 400, "gsm8k-steps": 400}
# of 1e-3, 2e-4 and 3e-5 the rate that ARC-Easy's validation chose; other sets have seen none
LORA = dict(method="lora", lr=3e-5)
# published solutions, copied; the settings under which SVF's validation was looked at before
IMITATION = dict(objective="next-token", prompts=32, steps=24, val_every=12, val_n=192)
RATES = {"svf": 5e-3, "lora": 1e-4}                     # of an imitation; not swept
# experts for the other forms of ARC: words differ more than letters, and a colder draw will do
FORMS = {"arc-easy-open": dict(temperature=3.0, steps=60),
         "arc-easy": dict(temperature=3.0, steps=90)}
NOT_SHARED = ("task", "seed", "method", "lr", "start")
OF_SVF = ("modules", "tie", "as_released")              # nor these with a LoRA


def cells(lab):
    """Every row that the experts of lab.model allow. See experiments.py for what a cell is."""
    there = {name: meta for name in (*SETS, "dispatcher") if (meta := own_expert(lab, name))}
    for name, sets in SETS.items():
        for task in sets:
            yield from alone(lab, task, name, there.get(name))
    mixed = [name for name in adapt.MIXED if name in there]
    if len(mixed) > 1 and "dispatcher" in there:
        for _, task in SETS.values():
            yield from together(lab, task, mixed)
    for arm in ("prompt", "classifier"):
        if arm == "prompt" or "dispatcher" in there:
            run = partial(routed, lab, arm)
            yield cell(run, note_of(arm), task="published", arm=arm)


def own_expert(lab, name):
    """The metadata of the base's own SVF expert of that name, {} where it has none that was trained
    on the set that is asked here."""
    try:
        meta = experts.read_metadata(experts.find(name, lab.model))
    except FileNotFoundError:
        return {}
    own = meta.get("base_sha256") == lab.model.base_sha256 and meta.get("method") == "svf"
    fits = name not in SETS or meta.get("task") in (SETS[name][0], PARTS.get(SETS[name][0]))
    return meta if own and fits and "config" in meta else {}


def alone(lab, task, name, meta):
    """The base model, the expert and what is trained beside it, each for all questions of `task`.

    An expert that was trained to choose among listed options is asked to choose, and so are they.
    What it does to answers that are written is a second pair of rows, and a third pair tells
    whether its form is the better one for the base model.
    """
    choose = bool(meta) and meta["config"]["objective"] == "options"
    ask = partial(lab.score, task, WHOLE, max_tokens=LONGEST.get(task, 0))
    ways = {"": False, ", choosing": True} if choose else {"": False}
    for how, chosen in ways.items():
        yield cell(partial(ask, {}, choose=chosen), task=task, arm=f"base{how}")
        if meta:
            run = partial(with_expert, lab, ask, name, meta, chosen)
            yield cell(run, task=task, arm=f"svf{how}")
    if meta:
        how, own = ", choosing" if choose else "", {"lr": meta["config"]["lr"]}
        others = {f"lora{how}": LORA}
        if not choose:
            others["svf, second run"] = own | {"seed": meta["config"]["seed"] + 1}
        for arm, changes in others.items():
            yield cell(partial(beside, lab, ask, meta, changes, choose), task=task, arm=arm)
    if name == "math":                                      # the set with published solutions
        source = {"task": SETS[name][0], "config": {}}
        for method, lr in RATES.items():
            changes = IMITATION | {"method": method, "lr": lr}
            run = partial(beside, lab, ask, source, changes, False)
            yield cell(run, task=task, arm=f"{method}, next-token")
    for other in OTHER_FORMS.get(task, ()):
        ask = partial(lab.score, other, WHOLE, max_tokens=LONGEST.get(other, 0))
        for how, chosen in ways.items():
            if chosen or not hides_options(other):          # nobody finds the words of an option
                yield cell(partial(ask, {}, choose=chosen), task=other, arm=f"base{how}")
        learnt = other.replace("challenge", "easy")
        if choose and learnt in FORMS:                      # an expert of that form
            changes = {"task": learnt, **FORMS[learnt], "lr": meta["config"]["lr"]}
            run = partial(beside, lab, ask, meta, changes, choose)
            yield cell(run, task=other, arm="svf, choosing")
        elif meta and not hides_options(other):             # the same one
            run = partial(with_expert, lab, ask, name, meta, False)
            yield cell(run, task=other, arm="svf")


def with_expert(lab, ask, name, meta, choose):
    z = experts.load([name], lab.model)[name]
    return {**ask(z, choose=choose), "parameters": meta["parameters"]}


def beside(lab, ask, meta, changes, choose):
    """Trained on the expert's questions, with its settings but for `changes`. -> row.

    A LoRA has rank 16; of an imitation's updates each has one gold answer to a question, and its
    settings are its own.
    """
    apart = NOT_SHARED + OF_SVF * ("method" in changes)
    same = {k: v for k, v in meta["config"].items() if k not in apart}
    found, told = lab.expert(**{"task": meta["task"], "seed": 0, **same, **changes})
    scored = ask(found, told, choose=choose)
    return {**scored, "parameters": told["parameters"], "lr": changes["lr"]}


def together(lab, task, names):
    """Strategies, mixtures of the experts of these names, and examples in the prompt.
    Seeds: of the ten examples and the search."""
    for arm in FIRST_PASSES:
        run = partial(lab.arm, task, WHOLE, strategy=arm)
        yield cell(run, note_of(arm), task=task, arm=arm)
    run = partial(equally, lab, task, names, n=WHOLE)
    yield cell(partial(over, names, run), task=task, arm="uniform alpha")
    for seed in SEEDS:
        key = {"task": task, "seed": seed}
        run = partial(searched, lab, n=WHOLE, names=names, **key)
        yield cell(partial(over, names, run), arm="cem", **key)
        run = partial(found_on_shots, lab, way=best_single, n=WHOLE, names=names, **key)
        yield cell(partial(over, names, run), arm="best single expert", **key)
        run = partial(lab.in_context, task, WHOLE, seed, show=shown)
        yield cell(run, arm="10-shot in context", **key)


def over(names, run):
    """The row of a mixture, with the experts that its alpha are of."""
    return {**run(), "mixed": names}


def shown(example):
    """The answer that an example in the prompt has."""
    if example.match == "math":
        return f"\\boxed{{{example.answer}}}"
    if example.match == "quoted":                           # with what the model's own begins with
        return ARC_OPENER + tasks.gold(example)
    return tasks.gold(example)


def routed(lab, arm):
    """-> row; the prompt asks the base model, the classifier its dispatcher."""
    names = [BARE.get(task, task) for sets in SETS.values() for task in sets]
    first = None
    if arm == "classifier":
        first = experts.load(["dispatcher"], lab.model)["dispatcher"]
    return confusion(lab, "published", names, first, 200)

"""
Figure 5 at this scale: visual questions, and the unseen task that mixes what is seen with what is
known.

Images:   easy-VQA's published test split, whole, and 400 drawn questions that need a fact of the
          world beside the image (questions/drawn.py).
Choosing: instead of writing, the likeliest of the answers that a question can have is taken.
Guessers: "always yes", and every arm's own answers to a blank image: what the words alone tell.
"""
from dataclasses import replace
from functools import partial

from .. import evaluate, experts, svf, tasks
from ..questions.easy_vqa import KINDS, balanced, facts
from ..questions.pictures import Seen, blank
from ..sight.captions import ASKED
from .runs import WHOLE, row

TASK, UNSEEN = "easy-vqa", "vision-unseen"
EVEN = "easy-vqa-yes-no"                # rows about a part of its test questions
TEXT = ("math", "code", "reasoning")    # experts that were trained without images
# the paper tunes half of the layers, and a wrong answer costs 0.1 (A.1); LoRA's rate is math's
SVF = dict(layers="half", wrong=-0.1, lr=2e-3, patience=99)
ARMS = {"svf": SVF, "svf, wrong costs 0": {**SVF, "wrong": 0.0},
        "lora": {**SVF, "method": "lora", "lr": 1e-3}}


def cells(lab):
    """(key, run) of every row; see experiments.py."""
    yield key("captions", "base"), partial(captions, lab)
    yield key(TASK, "base"), partial(seen, lab)
    yield key(TASK, "svf"), partial(seen, lab, arm="svf")
    yield key(TASK, "base, blank image"), partial(seen, lab, blind=True)
    yield key(TASK, "svf, blank image"), partial(seen, lab, arm="svf", blind=True)
    for arm in ARMS:
        if arm != "svf":
            yield key(TASK, arm), partial(seen, lab, arm=arm)
    yield key(TASK, "base, choosing"), partial(seen, lab, choose=True)
    yield key(TASK, "svf, choosing"), partial(seen, lab, arm="svf", choose=True)
    yield key(TASK, "always yes"), partial(always_yes, lab)
    yield key(EVEN, "base"), partial(looked, lab)
    yield key(EVEN, "svf"), partial(looked, lab, "svf")
    yield key(EVEN, "base, told in words"), partial(looked, lab, told=True)
    yield key(UNSEEN, "base"), partial(unseen, lab)
    yield key(UNSEEN, "base, blank image"), partial(unseen, lab, blind=True)
    yield key(UNSEEN, "vision expert"), partial(unseen, lab, ["vision"], [1.0])
    yield key(UNSEEN, "vision expert, blank image"), partial(unseen, lab, ["vision"], [1.0], True)
    every = [*TEXT, "vision"]
    yield key(UNSEEN, "uniform alpha"), partial(unseen, lab, every, [1 / len(every)] * len(every))
    yield key(UNSEEN, "cem"), partial(searched, lab, every)
    yield key(UNSEEN, "cem, text experts alone"), partial(searched, lab, TEXT)


def key(task, arm):
    return {"task": task, "arm": arm, "seed": 0}


# ---------------------------------------------------------------------------------- what is scored
def captions(lab):
    """Does the base model say colour and shape of the test images, both and no other? -> row."""
    known = facts(lab.examples(TASK, WHOLE))
    texts = evaluate.answers(lab.model, lab.tokenizer, [Seen(ASKED[0], image) for image in known],
                             16, title="captions")
    return row([float(named(text) == set(both)) for text, both in zip(texts, known.values())])


def named(text):
    """The colours and shapes that a text names."""
    words = set(text.lower().replace(".", " ").replace(",", " ").split())
    return words & {*KINDS["color"], *KINDS["shape"]}


def seen(lab, arm=None, blind=False, choose=False):
    """Answers to all test questions of easy-VQA: of the base model, or of an expert. -> row."""
    z, meta = expert_of(lab, arm) if arm else ({}, None)
    examples = lab.examples(TASK, WHOLE)
    with lab.running(z, meta):
        rewards = scored(lab, TASK, examples, blind, choose)
    more = {} if meta is None else {
        "parameters": meta["parameters"], "lr": meta["config"]["lr"], "val": meta["val_accuracy"],
        "best_step": meta["best_step"], "steps": meta["steps"]}
    return {**row(rewards), "kinds": by_kind(examples, rewards), **more}


def expert_of(lab, arm):
    """-> (expert, metadata). The arm "svf" is the shipped expert, where one is shipped."""
    if arm == "svf" and not lab.quick:
        return experts.load_expert(experts.find("vision", lab.model), lab.model)
    return lab.expert(TASK, 0, **ARMS[arm])


def always_yes(lab):
    """What the commonest answer earns. -> row."""
    examples = lab.examples(TASK, WHOLE)
    rewards = [float(e.answer == "Yes") for e in examples]
    return {**row(rewards), "kinds": by_kind(examples, rewards)}


def looked(lab, arm=None, told=False):
    """Yes or no, chosen, to the test questions whose words do not tell which (easy_vqa.balanced):
    half of them are right by guessing. -> row.

    told: the base model is told colour and shape in words instead of shown the image. What it
    cannot answer then, no tower helps it to see.
    """
    every = tasks.get(TASK).examples("test", WHOLE, seed=0)    # few of a few would pass
    known = facts(every)
    examples = [e for e in every if e.kind == "yes/no" and e.prompt.image in known]
    examples = balanced(examples)[:lab.n(WHOLE)]
    if told:
        examples = [replace(e, prompt=in_words(e, *known[e.prompt.image])) for e in examples]
    z, meta = expert_of(lab, arm) if arm else ({}, None)
    with lab.running(z, meta):
        return row(scored(lab, TASK, examples, choose=True))


def in_words(example, color, shape):
    return f"The image shows a {color} {shape}. {str(example.prompt).capitalize()}"


def scored(lab, name, examples, blind=False, choose=False):
    """Rewards of greedy answers or, with choose, of the likeliest among a question's options.
    blind: every image is blank, so a question is asked only once."""
    task, asked = tasks.get(name), examples
    if blind:
        examples = [replace(e, prompt=Seen(e.prompt, blank())) for e in examples]
        asked = list({str(e.prompt): e for e in examples}.values())
    if choose:
        texts = evaluate.choices(lab.model, lab.tokenizer, task, asked, title=name)
    else:
        texts = evaluate.answers(lab.model, lab.tokenizer, [e.prompt for e in asked],
                                 task.max_tokens, title=name)
    if blind:
        said = {str(e.prompt): text for e, text in zip(asked, texts)}
        texts = [said[str(e.prompt)] for e in examples]
    return tasks.rewards(examples, texts)


def by_kind(examples, rewards):
    """{kind of answer: [right, questions]}"""
    table = {kind: [0, 0] for kind in KINDS}
    for e, reward in zip(examples, rewards):
        table[e.kind][0] += int(reward)
        table[e.kind][1] += 1
    return table


# ---------------------------------------------------------------------------------- the unseen task
def unseen(lab, names=(), alpha=(), blind=False):
    """The drawn questions under a fixed mixture of experts. -> row."""
    z = svf.mix([experts.load([n], lab.model)[n] for n in names], list(alpha)) if names else {}
    with lab.running(z):
        rewards = scored(lab, UNSEEN, lab.examples(UNSEEN, 400), blind)
    return {**row(rewards), "alpha": dict(zip(names, alpha))}


def searched(lab, names):
    """The same under a mixture that CEM finds on ten of their val questions. -> row."""
    mixed = []
    for name in names:
        path = experts.find(name, lab.model)
        z, meta = experts.load_expert(path, lab.model)
        mixed.append((z, {**meta, "path": path}))
    z, _, found = lab.search(UNSEEN, 0, mixed=mixed)
    with lab.running(z):
        rewards = scored(lab, UNSEEN, lab.examples(UNSEEN, 400))
    return {**row(rewards), "alpha": dict(zip(names, found["alpha"])),
            "shots_right": found["shots_right"]}

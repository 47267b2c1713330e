"""
The paper's tables and figures at this scale, and the controls that they lack: which arms, tasks and
seeds each one compares.

A cell is (key, run): the key (task, arm, seed) names a row, run() makes its numbers. Cells are
listed before any is run, so what is done can be skipped. "seed" is the seed of training and
sampling, or, where nothing is trained, of the search and its shots. Base model answers are greedy,
so they have one seed.
"""
import os
from dataclasses import dataclass
from functools import partial
from statistics import median
from time import perf_counter
from typing import Callable

import torch

from .. import adapt, experts, svf, tasks
from ..questions import math, published
from ..recipe import TrainConfig
from . import agreement as agreements
from . import forms as wordings
from . import larger
from . import signal as signals
from . import sight as visual
from . import few_shot
from .mixing import (ASKED, FEW_SHOT, FIRST_PASSES, QUICK_WAYS, found_on_shots, on_validation,
                     random_alpha, searched)
from .routing import PROMPT, confusion, note_of
from .runs import LOOK, SEEDS, TIED_RATES, WHOLE, cell, widened

DRAWS = range(10)          # of random alpha, and of examples for what searches nothing
# of all that the release does, which learns slowly if it learns: patience must not end it
LONG = dict(steps=64, patience=99)
SHORT = dict(steps=16)      # of the controls that train many arms on math: a third less
SEEN = tasks.MIXED
UNSEEN = tuple(f"{task}-unseen" for task in SEEN)
METHODS = ("svf", "lora", "ia3")

# Said under the tables of every row that it is about.
BARE = "the examples show bare numbers, and an answer in their form leaves the working out"
SHORT_LORA = "LoRA experts of 24 updates each, where the SVF experts had 144 to 240"
RATE = TrainConfig().lr     # of z: the one that the sweep in `finetune` chose
# of worked solutions: what `make train-math` does
COPYING = dict(objective="next-token", prompts=32, steps=100, val_every=20, val_n=256)


def trained(lab, task, seed, n=400, look=0, asked="", **changes):
    """Train an expert on `task` (or find it), then score it on the test split of `asked`, or of
    the same task."""
    if "lr" not in changes:
        method, objective = changes.get("method", "svf"), changes.get("objective", "reward")
        changes["lr"] = lab.best_lr(method, objective)[0]
    expert, meta = lab.expert(task, seed, look, **changes)
    return {**lab.score(asked or task, n, expert, meta), "parameters": meta["parameters"],
            "lr": meta["config"]["lr"], "val": meta["val_accuracy"], "best_step": meta["best_step"],
            "steps": meta["steps"]}


# ------------------------------------------------------------------------------ Table 1, Figure 4
def finetune(lab):
    """The learning rates' sweeps, then every method on every task with the rate it chose."""
    for method in METHODS:                              # on validation questions of math, seed 0
        yield cell(partial(sweep, lab, method), task="math", arm=f"{method}: learning rates")
    for task in SEEN:
        yield cell(partial(lab.score, task, 400, {}), task=task, arm="base")
        for method in METHODS:
            for seed in SEEDS:
                look = LOOK if method == "svf" else 0
                run = partial(trained, lab, task, seed, look=look, method=method)
                yield cell(run, task=task, arm=method, seed=seed)


def sweep(lab, method):
    lr, found = lab.best_lr(method)
    return {"split": "val", "lr": lr, "val": {f"{k:g}": v for k, v in found.items()}}


def curves(lab):
    for task in SEEN:
        for seed in SEEDS:
            yield cell(partial(curve, lab, task, seed), task=task, arm="svf", seed=seed)


def curve(lab, task, seed):
    """The runs of `finetune`, over their updates."""
    _, meta = lab.expert(task, seed, LOOK, method="svf", lr=lab.best_lr()[0])
    return {**lab.curve(meta), "best_step": meta["best_step"], "n_val": meta["val_n"],
            "n_test": lab.n(LOOK)}


# ---------------------------------------------------------------------- Tables 2, 8, 10, Figure 7
def unseen(lab):
    """Strategies, single experts, ways to a mixture, and controls.

    The SVF experts are the shipped ones. Seeds: of the ten examples and of the search on them; of
    the LoRA experts' short trainings; of the numbers of "random alpha".
    """
    for task in UNSEEN:
        yield cell(partial(lab.arm, task, ASKED), task=task, arm="base")
        for arm in FIRST_PASSES:
            run = partial(lab.arm, task, ASKED, strategy=arm)
            yield cell(run, note_of(arm), task=task, arm=arm)
        equal = partial(lab.arm, task, ASKED, alpha=[0.3333] * 3)
        yield cell(equal, task=task, arm="uniform alpha")
        for name in adapt.MIXED:
            yield cell(partial(lab.arm, task, ASKED, expert=name), task=task, arm=f"{name} expert")
        for seed in DRAWS:
            run = partial(random_alpha, lab, task, seed)
            yield cell(run, task=task, arm="random alpha", seed=seed)
    for seed in DRAWS:                                      # of every task, before the next draw
        for task in UNSEEN:
            yield from few_shots(lab, task=task, seed=seed)
    for task in UNSEEN:
        for seed in SEEDS:
            key = {"task": task, "seed": seed}
            yield from in_context(lab, **key)
            for arm in ("uniform alpha", "cem"):
                run = partial(mixed_lora, lab, arm=arm, **key)
                yield cell(run, SHORT_LORA, arm=f"lora, {arm}", **key)


def few_shots(lab, **key):
    """Ways to a mixture on the same ten solved examples; what searches nothing on every draw."""
    every_way = key["seed"] in SEEDS
    if every_way:
        yield cell(partial(searched, lab, **key), arm="cem", **key)
        yield cell(partial(searched, lab, **key, per_matrix=True), arm="cem per matrix", **key)
    for arm, way in FEW_SHOT.items():
        if every_way or arm in QUICK_WAYS:
            yield cell(partial(found_on_shots, lab, way=way, **key), arm=arm, **key)


def in_context(lab, task, seed):
    """Solved examples in the prompt instead of any expert; of math problems also worked out."""
    run = partial(lab.in_context, task, ASKED, seed)
    arm = "10-shot in context"
    if not task.startswith("math"):
        yield cell(run, task=task, arm=arm, seed=seed)
        return
    yield cell(run, BARE, task=task, arm=f"{arm}, bare numbers", seed=seed)
    yield cell(partial(run, show=worked), task=task, arm=f"{arm}, worked", seed=seed)


def worked(example):
    """'9 * 4 = 36. The answer is 36.'"""
    return f"{math.worked(example)}. The answer is {example.answer}."


def mixed_lora(lab, task, seed, arm):
    """The same strategies over the LoRA experts of `finetune`."""
    mixed = [lab.expert(t, seed, method="lora", lr=lab.best_lr("lora")[0]) for t in SEEN]
    if arm == "cem":
        return searched(lab, task, seed, mixed=mixed)
    return lab.score(task, ASKED, adapt.mixture([e for e, _ in mixed], [1 / 3] * 3), widened(mixed))


def between(lab):
    """From the equal mixture to the right expert, on validation questions: few_shot.FAR."""
    for k, task in enumerate(UNSEEN):
        named = [float(j == k) for j in range(len(UNSEEN))]
        for far in sorted(few_shot.FAR):
            run = partial(on_validation, lab, task, named, far)
            yield cell(run, task=task, arm=f"{far:g} of the way")


def shots(lab):
    """More examples at the search budget of `unseen`, then other budgets at its ten examples."""
    task = "math-unseen"
    yield cell(partial(lab.arm, task, ASKED), task=task, arm="base")
    arms = [(f"{count} shots", dict(shots=count)) for count in (3, 5, 10, 20)]
    for population, iterations in ((8, 3), (16, 12)):
        budget = dict(population=population, iterations=iterations)
        arms.append((f"10 shots, {population} x {iterations}", budget))
    for arm, options in arms:
        for seed in SEEDS:
            yield cell(partial(searched, lab, task, seed, **options), task=task, arm=arm, seed=seed)


def alphas(lab):
    for task in UNSEEN:
        for seed in SEEDS:
            yield cell(partial(found_alpha, lab, task, seed), task=task, arm="cem", seed=seed)


def found_alpha(lab, task, seed):
    _, _, found = lab.search(task, seed)
    return {"split": "val", "experts": adapt.MIXED, **found}


# ------------------------------------------------------------------------------ Figure 6, Table 3
def dispatch(lab):
    """The base model against dispatchers trained here; `published` only where --data is given."""
    kinds = {"seen": (*SEEN, "other"), "unseen": (*UNSEEN, "other-unseen"),
             "handwritten": tasks.LABELS}
    if lab.data:
        kinds["published"] = ("gsm8k", "mbpp", "arc-challenge")
    for kind, names in kinds.items():
        yield cell(partial(confusion, lab, kind, names), PROMPT, task=kind, arm="prompt")
        for seed in SEEDS:
            run = partial(trained_first_pass, lab, kind, names, seed)
            yield cell(run, task=kind, arm="classifier", seed=seed)


def trained_first_pass(lab, kind, names, seed):
    """Where a dispatcher that is trained here sends them. -> row."""
    return confusion(lab, kind, names, lab.expert("dispatch", seed)[0])


def timing(lab):
    """12 questions of each unseen task one by one, and 32 in a batch; the seed decides which."""
    yield from timed(lab, adapt.SKILLS, UNSEEN, SEEDS)


def timing05(lab):
    """The same of published questions and a base that can do them; one draw."""
    skills = [name for name in adapt.SKILLS if larger.own_expert(lab, name)]
    if not skills:
        raise ValueError(f"{lab.model.name} has no experts for published questions: take "
                         "--weights=qwen2.5-coder-0.5b")
    yield from timed(lab, skills, [unseen for _, unseen in larger.SETS.values()], SEEDS[:1])


def timed(lab, skills, names, seeds):
    """Both first passes, and the second with the experts of these skills."""
    loaded = experts.load(["dispatcher", *skills], lab.model)
    dispatcher = loaded.pop("dispatcher")
    for task in names:
        for seed in seeds:
            for arm, z in (("prompt", None), ("classifier", dispatcher)):
                run = partial(passes, lab, task, seed, z, loaded)
                yield cell(run, task=task, arm=arm, seed=seed)


def passes(lab, task, seed, dispatcher, loaded):
    """Median seconds per question of both passes, one by one and batched. -> row."""
    t = tasks.get(task)
    questions = [e.prompt for e in t.examples("test", 32, seed)]
    ways = {"one by one": [[q] for q in questions[:lab.n(12)]], "batch of 32": [questions] * 2}
    found = {}
    for name, groups in ways.items():
        first, second = [], []
        for group in groups:
            started = perf_counter()
            routes = adapt.route(lab.model, lab.tokenizer, group, dispatcher)
            routed = perf_counter()
            labels = [r.label for r in routes]
            adapt.second_pass(lab.model, lab.tokenizer, group, labels, loaded, t.max_tokens,
                              opener=t.opener)
            first.append((routed - started) / len(group))
            second.append((perf_counter() - routed) / len(group))
        found[name] = {"first": round(median(first), 4), "second": round(median(second), 4)}
    return {"n": len(questions), "seconds_per_question": found}


# ---------------------------------------------------------------------- Tables 4, 5, 9, Appendix C
def ablation(lab):
    """Method x objective x modules, each method and objective with its own learning rate."""
    yield cell(partial(lab.score, "math", 200, {}), task="math", arm="base")
    places = {"MLP": "gate,up,down", "attention": "q,k,v,o", "both": svf.ALL}
    for method in ("svf", "lora"):
        for objective in ("reward", "next-token"):
            for place, modules in places.items():
                arm = f"{method}, {objective}, {place}"
                changes = dict(method=method, objective=objective, modules=modules, **SHORT)
                for seed in SEEDS:
                    run = partial(trained, lab, "math", seed, 200, **changes)
                    yield cell(run, task="math", seed=seed, arm=arm)


def imitation(lab):
    """Worked solutions copied, beside the shipped expert, which rewards alone have taught.

    LoRA has one run, at the rate that the sweep in `finetune` chose for rewards.
    """
    for task in ("math", "math-unseen"):
        shipped = str(experts.SHIPPED / lab.model.name / "math.safetensors")
        for arm, expert in (("base", "none"), ("svf, reward, shipped", shipped)):
            run = partial(lab.arm, task, 400, expert=expert)
            yield cell(partial(by_steps, lab, task, run), task=task, arm=arm)
        for method, rate, seeds in (("svf", RATE, SEEDS), ("lora", 1e-3, SEEDS[:1])):
            for seed in seeds:
                run = partial(trained, lab, "math-worked", seed, asked=task, method=method,
                              lr=rate, **COPYING)
                yield cell(partial(by_steps, lab, task, run), task=task,
                           arm=f"{method}, worked solutions", seed=seed)


def by_steps(lab, task, run):
    """A row of math, and how many of its problems of two steps were right."""
    scored = run()
    asked = zip(lab.examples(task, 400), scored["rewards"])
    two = [int(reward) for example, reward in asked if example.kind.startswith("2step")]
    return {**scored, "two_steps": f"{sum(two)} of {len(two)}"}


def transfer(lab):
    """z on bases of the same shapes. z shuffled within each matrix: does its order matter?"""
    for base in ("the same", "weights in 8 bits", "weights in 3 bits", "fine-tuned on other"):
        for task in SEEN:
            run = partial(transferred, lab, base, task)
            yield cell(partial(run, None), task=task, base=base, arm="no z")
            yield cell(partial(run, "ordered"), task=task, base=base, arm="z")
            for seed in SEEDS:
                yield cell(partial(run, seed), task=task, base=base, arm="shuffled z", seed=seed)


def transferred(lab, base, task, z):
    expert = {} if z is None else experts.load([task], lab.model)[task]
    if isinstance(z, int):
        g = torch.Generator().manual_seed(z)
        expert = {name: v[torch.randperm(len(v), generator=g)] for name, v in expert.items()}
    with other_base(lab, base):
        return lab.score(task, 200, expert)


class other_base:
    """Inside the block the model has other weights of the same shapes and SVF layers of those."""

    def __init__(self, lab, base):
        self.lab, self.base = lab, base

    def __enter__(self):
        model, self.kept = self.lab.model, {}
        if self.base == "the same":
            return
        change = {}
        if self.base == "fine-tuned on other":              # gold answers, through LoRA, merged
            settings = dict(method="lora", objective="next-token", lr=1e-3)
            expert, meta = self.lab.expert("other", 0, **settings)
            with self.lab.running(expert, meta):
                change = {name: layer.dense().clone() for name, layer in svf.layers(model).items()}
        names = list(svf.layers(model))
        svf.detach(model)
        for name in names:
            W = svf.weight(model.get_submodule(name))
            self.kept[name] = W.clone()
            W.copy_(change[name] if change else rounded(W, int(self.base.split()[2])))
        svf.attach(model, svf.ALL, cache=self.lab.folder / "svd")       # for all cells of this base

    def __exit__(self, *_):
        if self.kept:
            svf.detach(self.lab.model)
            for name, W in self.kept.items():
                svf.weight(self.lab.model.get_submodule(name)).copy_(W)
            self.lab.attach("svf")


def rounded(W, bits):
    """W (m, n) with each row on 2^bits - 1 even steps between minus and plus its largest number."""
    step = W.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / (2 ** (bits - 1) - 1)
    return ((W.float() / step).round() * step).to(W.dtype)


def spectrum(lab):
    """Of each kind of matrix the share of sum(S) and of sum(S^2) in its largest singular values."""
    for kind, ends in svf.SHORT.items():
        if any(name.endswith(ends) for name in svf.layers(lab.model)):
            yield cell(partial(mass, lab, kind), task="weights", arm=kind)


def mass(lab, kind, shares=(0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)):
    """In the largest 1 %, 5 %, ... of them; mean, least and most over the blocks. -> row."""
    S = [layer.S.double() for name, layer in svf.layers(lab.model).items()
         if name.endswith(svf.SHORT[kind])]
    found = {"matrices": len(S), "singular_values": len(S[0]), "top": shares}
    ends = [max(1, round(share * len(S[0]))) - 1 for share in shares]
    for key, power in (("mass", 1), ("energy", 2)):
        # (blocks, r)
        part = torch.stack([s.pow(power).cumsum(0) / s.pow(power).sum() for s in S])
        at = part[:, ends]
        found[key] = at.mean(0).tolist()
        found[f"{key}_least"] = at.amin(0).tolist()
        found[f"{key}_most"] = at.amax(0).tolist()
    return found


# ------------------------------------------------------------------------------ not in the paper
def recipe(lab):
    """One departure of the released code at a time, then all; and its mixing of logits."""
    yield cell(partial(lab.score, "math", 200, {}), task="math", arm="base")
    for departure in ("", "greedy", "no-baseline", "signed", "sigmoid", "bf16", "all"):
        for seed in SEEDS:
            run = partial(trained, lab, "math", seed, 200, lr=RATE, as_released=departure, **SHORT)
            yield cell(run, task="math", arm=departure or "ours", seed=seed)
    run = partial(trained, lab, "math", 0, 200, lr=RATE, as_released="all", **LONG)
    yield cell(run, task="math", arm="all, 64 updates")
    for task in UNSEEN:
        for arm in ("mixed z", "mixed logits"):
            yield cell(partial(mixed_logits, lab, task, arm), task=task, arm=arm)


def mixed_logits(lab, task, arm):
    """A third of each shipped expert: of z, or, as released, of the logits."""
    mixed = list(experts.load(adapt.MIXED, lab.model).values())
    if arm == "mixed z":
        return lab.score(task, 200, adapt.mixture(mixed, [1 / 3] * 3))
    return lab.score(task, 200, released_mixture(svf.layers(lab.model), mixed, [1 / 3] * 3))


def released_mixture(layers, mixed, alpha):
    """The release's mixture: of the logits p of z = sigmoid(p), without the sigmoid, rescaled.

    layers: name -> SVF layer; mixed: experts, name -> z. z = 1 has the logit 0.1, where the release
    starts, so a z up to 1.9 has one. The rescale keeps sum(S). All of one expert is not that expert
    (chapter 10, section `mixing`).
    """
    start = torch.sigmoid(torch.tensor(0.1))
    found = {}
    for name, layer in layers.items():
        logits = [torch.logit((start * expert[name]).clamp(1e-4, 1 - 1e-4)) for expert in mixed]
        p = sum(a * logit for a, logit in zip(alpha, logits))
        found[name] = p * (layer.S.sum() / (layer.S * p).sum())
    return found


def tiny(lab):
    """Few numbers take larger steps, so each count has a learning rate that suits it."""
    yield cell(partial(lab.score, "math", 200, {}), task="math", arm="base")
    for seed in SEEDS:
        run = partial(trained, lab, "math", seed, 200, lr=RATE, **SHORT)
        yield cell(run, task="math", arm="one z per singular value", seed=seed)
    arms = {"matrix": "one per matrix", "layer": "one per layer",
            "module": "one per kind of matrix"}
    for tie, arm in arms.items():
        for seed in SEEDS:
            yield cell(partial(own_rate, lab, seed, tie), task="math", arm=arm, seed=seed)


def own_rate(lab, seed, tie):
    """Trained with the rate that is best on validation questions for so few numbers. -> row."""
    lr, found = lab.best_lr(rates=TIED_RATES, tie=tie, **SHORT)
    scored = trained(lab, "math", seed, 200, tie=tie, lr=lr, **SHORT)
    return {**scored, "rates": {f"{rate:g}": share for rate, share in found.items()}}


REAL = {"gsm8k": ("gsm8k", "math-500"), "mbpp": ("mbpp", "humaneval"),
        "arc-easy": ("arc-easy", "arc-challenge")}
CHOOSING = dict(objective="options", prompts=48, samples=8, temperature=2.0, steps=60, val_every=20,
                val_n=384)


def real(lab):
    """Published questions, whole test sets, one seed. Those with options also by choosing one."""
    for source, targets in REAL.items():
        for task in targets:
            yield cell(partial(lab.score, task, WHOLE, {}), task=task, arm="base")
            yield cell(partial(real_expert, lab, source, task), task=task, arm="svf")
    for task in REAL["arc-easy"]:
        choose = partial(lab.score, task, WHOLE, {}, choose=True)
        yield cell(choose, task=task, arm="base, choosing")
        run = partial(real_expert, lab, "arc-easy", task, choose=True, **CHOOSING)
        yield cell(run, task=task, arm="svf, choosing")
        choose = partial(lab.score, f"{task}-open", WHOLE, {}, choose=True)
        yield cell(choose, task=f"{task}-open", arm="base, choosing")


def real_expert(lab, source, task, choose=False, seed=0, **changes):
    """An expert trained on `source`, scored on `task`. -> row."""
    return lab.score(task, WHOLE, *lab.expert(source, seed, **changes), choose=choose)


def arc(lab):
    """What is learnt from ARC-Easy, on it and on ARC-Challenge, beside the base model in its best
    forms: options in quotation marks, or not listed. Three trainings."""
    for task in REAL["arc-easy"]:
        for form in (task, f"{task}-open"):
            run = partial(lab.score, form, WHOLE, {}, choose=True)
            yield cell(run, task=form, arm="base, choosing")
        for seed in SEEDS:
            run = partial(real_expert, lab, "arc-easy", task, choose=True, seed=seed, **CHOOSING)
            yield cell(run, task=task, arm="svf, choosing", seed=seed)


def sight(lab):
    """Questions about images: base, experts, guessers (sight.py)."""
    yield from visual.cells(lab)


def real05(lab):
    """Published questions and a base that can do them, with the experts that it has (larger.py)."""
    yield from larger.cells(lab)


def signal(lab):
    """Which settings leave an update something to learn from, of training questions (signal.py)."""
    yield from signals.cells(lab)


def agreement(lab):
    """How many answers an update needs to know its direction, before training (agreement.py)."""
    yield from agreements.cells(lab)


def forms(lab):
    """Published questions in several forms, of validation splits (forms.py)."""
    yield from wordings.cells(lab)


@dataclass(frozen=True)
class Experiment:
    """paper: what it answers to; cells(lab) -> iterator of (key, run); draw: see figures.py.

    needs: what of --data it cannot do without; programs: are any run that the model writes?
    """
    paper: str
    cells: Callable
    draw: str
    about: str
    needs: str = ""
    programs: bool = True

    def check(self, data):
        """ValueError where the questions that it needs are not given."""
        if self.needs and not (data or os.environ.get(published.FOLDER)):
            raise ValueError(f"`reproduce {self.cells.__name__}` needs {self.needs}: --data=DIR "
                             "(see `python -m t2mini datasets`)")


PUBLISHED = "the published questions"


ALL = {e.cells.__name__: e for e in (
    Experiment("Table 1", finetune, "bars", "base, SVF, LoRA and IA3 under one budget"),
    Experiment("Table 2", unseen, "bars", "strategies and controls on tasks without an expert"),
    Experiment("-", between, "between", "mixtures between the equal one and an expert"),
    Experiment("Table 4", ablation, "bars", "method, objective and modules",
               programs=False),
    Experiment("Table 4", imitation, "bars", "worked solutions copied, beside rewards",
               programs=False),
    Experiment("Figure 4", curves, "curves", "learning curves on train, validation and test"),
    Experiment("Figure 6", dispatch, "confusion", "what the first pass says", programs=False),
    Experiment("Figure 7", alphas, "alphas", "the mixtures that CEM finds"),
    Experiment("Tables 8, 10", shots, "bars", "examples and search budget",
               programs=False),
    Experiment("Table 3", timing, "timing", "seconds of the two passes", programs=False),
    Experiment("Table 3", timing05, "timing", "the same with --weights=qwen2.5-coder-0.5b",
               PUBLISHED, programs=False),
    Experiment("Tables 5, 9", transfer, "transfer", "z on other bases; shuffled z"),
    Experiment("Appendix C", spectrum, "spectrum", "where the singular mass sits",
               programs=False),
    Experiment("-", recipe, "bars", "what five of the released code's choices cost, and all"),
    Experiment("Figure 5", sight, "pairs", "questions about images, seen and unseen",
               "easy-VQA", programs=False),
    Experiment("-", tiny, "bars", "how few numbers suffice", programs=False),
    Experiment("-", forms, "bars", "which wording suits a model, on validation questions",
               PUBLISHED),
    Experiment("-", signal, "signal",
               "which settings leave training a signal, on training questions",
               PUBLISHED, programs=False),
    Experiment("-", agreement, "agreement", "how much of an update's direction is chance",
               PUBLISHED),
    Experiment("Tables 1, 2", real, "pairs", "published questions, whole test sets", PUBLISHED),
    Experiment("Tables 1, 2", arc, "pairs", "ARC by choosing, seen and unseen, three trainings",
               PUBLISHED, programs=False),
    Experiment("Tables 1, 2", real05, "pairs", "the same with --weights=qwen2.5-coder-0.5b",
               PUBLISHED))}

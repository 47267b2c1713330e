"""
Ways to a mixture, each searched, fitted or drawn, and then scored: one row of an experiment each.
"""
from functools import partial
from time import perf_counter

import torch

from .. import adapt, evaluate, experts, svf, tasks
from ..cem import HIGH, LOW
from . import few_shot
from .runs import SEEDS, row

ASKED = 400         # test questions of an unseen task, if nothing else is said
WITHOUT_FIRST_PASS = ("cem", "none")
FIRST_PASSES = [strategy for strategy in adapt.STRATEGIES if strategy not in WITHOUT_FIRST_PASS]


def searched(lab, task, seed, n=ASKED, **options):
    """The mixture that CEM finds (options: see Lab.search), scored. -> row."""
    expert, meta, found = lab.search(task, seed, **options)
    scored = lab.score(task, n, expert, meta)
    return {**scored, "alpha": found["alpha"], "shots_right": found["shots_right"]}


def equally(lab, task, names, n=ASKED):
    """The experts of these names with the same weight each, scored. -> row."""
    mixed = list(experts.load(names, lab.model).values())
    alpha = [1 / len(mixed)] * len(mixed)
    return {**lab.score(task, n, adapt.mixture(mixed, alpha)), "alpha": alpha}


def random_alpha(lab, task, seed):
    """Three numbers drawn as CEM's first population draws them."""
    g = torch.Generator().manual_seed(seed)
    alpha = (1 / 3 + 0.5 * torch.randn(3, generator=g)).clamp(LOW, HIGH).tolist()
    return lab.arm(task, ASKED, alpha=[round(a, 4) for a in alpha])


def on_validation(lab, task, named, far):
    """Validation questions, but none like the examples of the first three draws, answered by a
    mixture between the equal one and an expert (named: 1 for it, 0 for others). -> row"""
    shots = {e.key for seed in SEEDS for e in lab.shots(task, seed)}
    asked = [e for e in tasks.get(task).examples("val", 300, 7) if e.key not in shots]
    mixed = list(experts.load(adapt.MIXED, lab.model).values())
    with lab.running(adapt.mixture(mixed, few_shot.on_the_way(named, far))):
        rewards = evaluate.score(lab.model, lab.tokenizer, tasks.get(task), asked[:lab.n(250)],
                                 task)
    return {**row(rewards), "split": "val"}


def found_on_shots(lab, task, seed, way, n=ASKED, names=adapt.MIXED):
    """way(model, tokenizer, task, experts, shots, seed) -> (mixed z, alpha): scored. -> row."""
    started = perf_counter()
    mixed = list(experts.load(names, lab.model).values())
    solved = lab.shots(task, seed, 4 if lab.quick else 10)
    z, alpha = way(lab.model, lab.tokenizer, tasks.get(task), mixed, solved, seed=seed)
    seconds = round(perf_counter() - started, 1)
    mean = torch.as_tensor(alpha).view(-1, len(mixed)).float().mean(0)      # of all matrices
    return {**lab.score(task, n, z), "alpha": mean.round(decimals=4).tolist(),
            "search_seconds": seconds}


def best_single(model, tokenizer, task, mixed, solved, seed):
    """The expert, or the base model, that is best on the shots; of equals the likelier one."""
    found = adapt.score_mixtures(model, tokenizer, task, solved, [{}, *mixed])
    k = max(range(len(found)), key=found.__getitem__)
    return [{}, *mixed][k], [float(k == i + 1) for i in range(len(mixed))]


def by_accuracy(*given, normalise=False, **options):
    z, found = adapt.adapt_cem(*given, normalise=normalise, **options)
    return z, svf.normalised(found.best) if normalise else found.best


def by_likelihood(*given, **options):
    return few_shot.by_likelihood(*given, **options)[:2]


def by_gradient(*given, **options):
    return few_shot.by_gradient(*given, **options)[:2]


def by_first_pass(model, tokenizer, *given, **options):
    dispatcher = experts.load(["dispatcher"], model)["dispatcher"]
    return few_shot.by_first_pass(model, tokenizer, *given, dispatcher, **options)[:2]


QUICK_WAYS = ("best single expert", "first pass and examples")     # they search nothing
FEW_SHOT = {
    "best single expert": best_single,
    "first pass and examples": by_first_pass,
    "cem, alpha sums to 1": partial(by_accuracy, normalise=True),
    "cem on likelihood": by_likelihood,
    "gradient of likelihood": partial(by_gradient, goal="gold"),
    "gradient of reward": partial(by_gradient, goal="reward"),
    "gradient of reward, per matrix": partial(by_gradient, goal="reward", per_matrix=True),
}

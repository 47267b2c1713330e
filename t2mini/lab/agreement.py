"""
How many answers it takes until an update knows which way z should go, before anything is trained.

Updates from the same z ask other questions and draw other answers. What their gradients share is
the direction that training follows; the rest is chance, and takes its steps all the same:

    agreement = mean over pairs a != b of (1/N) sum_i g_ai g_bi / v_i       v_i = mean_a g_ai^2

of N numbers z_i, where g_a is the gradient of update a. Each z's gradients are divided by their
size, as Adam does. 0: the updates share nothing; 1: they are all the same. It is the share of
g^2 that is no chance, so after n (1 - agreement) / agreement answers, n of them in an update, what
is shared has grown as large as the chance.
"""
import math
from functools import partial

import torch

from .. import recipe, reinforce, svf, tasks
from ..machine import ranks
from ..machine.batches import at_once
from ..machine.student import student_t
from . import few_shot
from .runs import cell

UPDATES, FEWEST = 8, 3                  # FEWEST: of a quick run
# task -> what its expert is trained with, or would be
TASKS = {"gsm8k-steps": dict(prompts=12, samples=6, temperature=0.7, max_tokens=300),
         "mbpp": dict(prompts=16, samples=6, temperature=0.8, max_tokens=160),
         "math": dict(prompts=32, samples=8, temperature=0.8, max_tokens=96)}


def cells(lab):
    """Every task. See experiments.py for what a cell is."""
    for task, settings in TASKS.items():
        yield cell(partial(measured, lab, task, settings), task=task, arm="before training")


def measured(lab, name, settings):
    """Gradients of several updates at z = 1. -> row.
    ValueError on several ranks, of which each would have those of its own questions."""
    if ranks.world() > 1:
        raise ValueError("reproduce agreement is measured on one process: run it without torchrun")
    config = recipe.settled(recipe.TrainConfig(task=name, must_stop=True, **settings))
    task, found, earned, flat = tasks.get(name), [], 0.0, 0.0
    updates = FEWEST if lab.quick else UPDATES
    with svf.using(lab.model, {}):
        for step in range(1, updates + 1):
            episodes, _ = reinforce.sample(lab.model, lab.tokenizer, task, config, step)
            timeouts = reinforce.score(lab.tokenizer, config, episodes)
            whole = reinforce.totals(config, episodes, False, timeouts)
            reinforce.compare(config, episodes, whole)
            groups, advantage = reinforce.worth_learning(config, episodes, at_once(lab.model))
            dz = few_shot.gradient(lab.model, groups, advantage, config.temperature)[1]
            # per token of all answers, as `learn` has it: these are of the questions that teach
            taught = sum(len(answer) for _, answers in groups for answer in answers)
            part = taught / whole["credited"]
            found.append(part * torch.cat([dz[key].flatten().cpu() for key in sorted(dz)]))
            earned += float(whole["reward"]) / len(episodes) / updates
            flat += float(whole["flat"]) / config.prompts / updates
            told = f"{name}: update {step} of {updates}"
            if step > 2:
                told += ", agreement {:.4f} [{:.4f}, {:.4f}]".format(*with_interval(found))
            print(told, flush=True)
    share, low, high = with_interval(found)
    return {"split": "train", "n": config.prompts, "samples": config.samples, "updates": updates,
            "earn": round(earned, 4), "teach": round(1 - flat, 4),
            "agreement": round(share, 5), "ci95": [round(low, 5), round(high, 5)]}


def agreement(gradients):
    """(updates, N) -> the share that all updates have in common; see above."""
    gradients = gradients.double()
    size = gradients.square().mean(0).sqrt().clamp(min=1e-30)       # a z that no update moves is 0
    scaled = gradients / size
    products = scaled @ scaled.T / gradients.shape[1]               # (updates, updates)
    count = len(gradients)
    return float(products.sum() - products.trace()) / (count * (count - 1))


def with_interval(gradients):
    """List of (N,) -> (agreement, its 95 % interval): a jackknife, which leaves out one update
    after the other. It takes away most of what so few squares in v_i make too little; where
    gradients have heavy tails some of it stays, a fifth of the share or less."""
    gradients = torch.stack(gradients)
    count, share = len(gradients), agreement(gradients)
    without = torch.tensor([agreement(torch.cat([gradients[:i], gradients[i + 1:]]))
                            for i in range(count)])
    variance = (count - 1) / count * float((without - without.mean()).square().sum())
    half = student_t(count - 1) * math.sqrt(variance)
    share = count * share - (count - 1) * float(without.mean())
    return share, share - half, share + half


def answers_needed(share, answers):
    """Answers until what updates of so many `answers` share is as large as the chance; infinite
    where nothing was seen to be shared."""
    return answers * (1 - min(share, 1.0)) / share if share > 0 else math.inf


def needed(row):
    """answers_needed of a row of results. -> (as measured, fewest, most): the largest share takes
    the fewest."""
    answers, (low, high) = row["n"] * row["samples"], row["ci95"]
    return tuple(answers_needed(share, answers) for share in (row["agreement"], high, low))

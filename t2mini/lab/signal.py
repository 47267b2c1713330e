"""
What an update has to learn from: which settings leave a signal, before anything is trained.

A question teaches where some of its answers earn and some do not; where all earn the same, each
advantage is 0. Two settings decide how often that happens: the temperature, and how long an answer
may get. Questions are of the train split, which is what an update asks.
"""
from dataclasses import replace
from functools import partial

import torch

from .. import recipe, reinforce, tasks
from ..evaluate import wilson
from ..machine import ranks
from .runs import cell

TASK = "gsm8k"
TEMPERATURES = (0.4, 0.7, 1.0, 1.3)
LIMITS = (100, 150, 200, 250, 300)          # tokens of an answer
PROMPTS, SAMPLES = 48, 6                    # questions, and answers to each


def cells(lab):
    """Every temperature. See experiments.py for what a cell is."""
    for temperature in TEMPERATURES:
        run = partial(one_update, lab, temperature)
        yield cell(run, task=TASK, arm=f"temperature {temperature:g}")


def one_update(lab, temperature):
    """Answers as an update samples them. -> row: for each limit, what they earn (`learnable`).
    ValueError on several ranks, of which each would sample some of the questions."""
    if ranks.world() > 1:
        raise ValueError("reproduce signal is measured on one process: run it without torchrun")
    config = recipe.settled(recipe.TrainConfig(
        task=TASK, temperature=temperature, prompts=lab.n(PROMPTS), samples=SAMPLES,
        max_tokens=LIMITS[-1], must_stop=True))
    episodes, _ = reinforce.sample(lab.model, lab.tokenizer, tasks.get(TASK), config, step=1)
    limits = {str(limit): learnable(lab, config, [cut(lab, e, limit) for e in episodes])
              for limit in LIMITS}
    tokens = sum(len(e.tokens) for e in episodes) / len(episodes)
    return {"split": "train", "n": config.prompts, "samples": SAMPLES, "tokens": round(tokens, 1),
            "limits": limits}


def cut(lab, episode, limit):
    """The same answer under a smaller limit: its first tokens are drawn from the same numbers."""
    if len(episode.tokens) <= limit:
        return replace(episode)
    tokens = episode.tokens[:limit]
    return replace(episode, tokens=tokens, stopped=False, text=lab.tokenizer.decode(tokens))


def learnable(lab, config, episodes):
    """-> dict of shares: teach, of the questions, with its 95 % interval; earn and cut, of the
    answers; right: for each question the number of answers that earned."""
    timeouts = reinforce.score(lab.tokenizer, config, episodes)
    earned = torch.tensor([e.reward for e in episodes]).view(-1, config.samples)
    right = earned.sum(1)
    teach = int(((right > 0) & (right < config.samples)).sum())
    unfinished = sum(not e.stopped for e in episodes)
    return {"teach": round(teach / len(right), 4),
            "ci95": [round(x, 4) for x in wilson(teach, len(right))],
            "earn": round(float(earned.mean()), 4), "cut": round(unfinished / len(episodes), 4),
            "right": "".join(f"{int(r)}" for r in right), "timeouts": timeouts}

"""
Accuracy with its uncertainty (paper 4.2; the paper prints single scores, most gains lie inside the test noise).

Kept:     greedy answers, zero-shot, one run per cell.
Changed:  every score carries n and a Wilson interval, differences are taken on the same items with a paired bootstrap.
"""
import math
import random
import sys
import time
from contextlib import nullcontext

import numpy as np

from . import svf, tasks
from .machine import ranks
from .generate import generate
from .likelihood import likelihoods


class Progress:
    """One line on stderr with the share done and the time left; silent for the first two seconds."""

    def __init__(self, label, total):
        self.label, self.total, self.done, self.t0, self.shown = label if ranks.rank() == 0 else "", total, 0, time.time(), 0.0

    def add(self, n):
        """n more are done; print at most once a second."""
        self.done += n
        sec = time.time() - self.t0
        if self.label and sec > 2 and (sec - self.shown > 1 or self.done >= self.total):
            self.shown = sec
            left = sec / self.done * (self.total - self.done)
            end = "\r" if sys.stderr.isatty() and self.done < self.total else "\n"
            if end == "\r" or self.done >= self.total or int(sec) % 5 == 0:
                print(f"{self.label}: {self.done}/{self.total}, {sec:.0f} s, {left:.0f} s left   ", end=end,
                      file=sys.stderr, flush=True)


def answers(model, tokenizer, questions, max_tokens, temperature=0.0, seed=0, batch=64, label="", opener="",
            experts=(), which=None):
    """Texts that the model, as its z stand now, answers to `questions` (user messages). Same order as asked.

    which: instead, question i is answered by experts[which[i]], all of them in the same batches (svf.per_row).
    Several ranks share the questions; each gets all the answers.
    """
    prompts = [tokenizer.prompt(q, opener=opener) for q in questions]
    asked = ranks.mine(range(len(prompts)))
    order = sorted(asked, key=lambda i: len(prompts[i]))                        # like lengths share a batch
    texts, progress = [None] * len(prompts), Progress(label, len(order))
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        with svf.per_row(model, experts, [which[i] for i in part]) if which else nullcontext() as rows:
            out = generate(model, [prompts[i] for i in part], max_tokens, tokenizer.stops(opener), temperature, seed=seed,
                           row_ids=part, rows=rows)
        for n, i in enumerate(part):
            texts[i] = tokenizer.decode(out.tokens(n))
        progress.add(len(part))
    return ranks.merged([texts[i] for i in asked])


def choices(model, tokenizer, task, examples, batch=64, label=""):
    """Of the options that each question lists the one that the model, as its z stand now, finds likeliest: texts.

    The rest of the language does not compete: what an expert of --objective=options was trained for.
    """
    asked = ranks.mine(range(len(examples)))
    texts, progress = [tasks.option_texts(examples[i]) for i in asked], Progress(label, len(asked))
    groups = [(tokenizer.prompt(examples[i].prompt, opener=task.opener), [tokenizer.answer(t, task.opener) for t in options])
              for i, options in zip(asked, texts)]
    best = []
    for at in range(0, len(groups), batch):
        best += [int(logp.argmax()) for logp in likelihoods(model, groups[at:at + batch])]
        progress.add(len(groups[at:at + batch]))
    return ranks.merged([options[k] for options, k in zip(texts, best)])


def score(model, tokenizer, task, examples, label="", choose=False):
    """Accuracy per example, a list of 1.0 / 0.0: of greedy answers or, with choose, of the likeliest of the listed options."""
    texts = choices(model, tokenizer, task, examples, label=label) if choose else answers(
        model, tokenizer, [e.prompt for e in examples], task.max_tokens, label=label, opener=task.opener)
    return ranks.spread(tasks.rewards, examples, texts)


def wilson(right, n, sigma=1.96):
    """95 % interval (low, high) of a proportion of `right` out of n; unlike right/n +- it stays inside [0, 1]."""
    p, s2 = right / n, sigma * sigma
    middle = (p + s2 / (2 * n)) / (1 + s2 / n)
    half = sigma / (1 + s2 / n) * math.sqrt(p * (1 - p) / n + s2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(a, b, draws=2000, seed=0):
    """Mean of a - b over the same items with its 95 % bootstrap interval: (difference, low, high)."""
    rng, n = random.Random(seed), len(a)
    d = [x - y for x, y in zip(a, b, strict=True)]
    means = sorted(sum(d[rng.randrange(n)] for _ in range(n)) / n for _ in range(draws))
    return sum(d) / n, means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


def over_seeds(seeds, minus=None, draws=2000):
    """Mean over seeds of their scores on the same items, with a 95 % interval: (mean, low, high, spread between seeds).

    seeds: one list of rewards per seed; minus: likewise, and the difference is taken on the same items. Items and seeds are
    both drawn anew, so the interval holds what another set of questions and another training run would change; with
    three seeds it is a rough one. spread: the standard deviation of the seeds' means, None for a single seed.
    """
    rng = np.random.default_rng(0)
    a = np.array(seeds, dtype=float)                                                            # (seeds, items)
    b = np.zeros_like(a[:1]) if minus is None else np.array(minus, dtype=float)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a difference needs the same items: {a.shape[1]} and {b.shape[1]}")

    def mean(x, items):
        return x[rng.integers(len(x), size=len(x))][:, items].mean()
    found = []
    for _ in range(draws):
        items = rng.integers(a.shape[1], size=a.shape[1])
        found.append(mean(a, items) - mean(b, items))
    low, high = np.quantile(found, (0.025, 0.975))
    spread = a.mean(1).std(ddof=1).item() if len(a) > 1 else None
    return (a.mean() - b.mean()).item(), low.item(), high.item(), spread


def percent(right, n):
    """'53.0 % [48.1, 57.8] of 400'"""
    low, high = wilson(right, n)
    return f"{100 * right / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {n}"

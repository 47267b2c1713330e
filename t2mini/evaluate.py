"""
Accuracy with its uncertainty (paper 4.2; the paper prints single scores, most gains lie inside the test noise).

Kept:     greedy answers, zero-shot, one run per cell.
Changed:  every score carries n and a Wilson interval, differences are taken on the same items with a paired bootstrap.
"""
import math
import random
import sys
import time
from contextlib import contextmanager

import numpy as np

from . import svf, tasks
from .generate import generate
from .likelihood import likelihoods
from .machine import ranks


# ---------------------------------------------------------------------------------- many questions
class Progress:
    """One line on stderr: the share done and the time left; silent for the first two seconds."""

    def __init__(self, label, total):
        self.label = label if ranks.rank() == 0 else ""
        self.total = total
        self.done = 0
        self.started = time.time()
        self.shown = 0.0                                    # seconds after the start

    def add(self, n):
        """n more are done; print at most once a second, and into a file every five."""
        self.done += n
        seconds = time.time() - self.started
        finished = self.done >= self.total
        if not self.label or seconds < 2 or (seconds - self.shown < 1 and not finished):
            return
        terminal = sys.stderr.isatty()
        if not terminal and not finished and int(seconds) % 5:
            return
        self.shown = seconds
        left = seconds / self.done * (self.total - self.done)
        end = "\r" if terminal and not finished else "\n"
        print(f"{self.label}: {self.done}/{self.total}, {seconds:.0f} s, {left:.0f} s left   ",
              end=end, file=sys.stderr, flush=True)


def in_batches(run, sizes, batch, label=""):
    """run(indices) over all of range(len(sizes)), like sizes in one batch. -> results, in order.

    run takes a list of at most `batch` indices and returns one result for each of them. Several
    ranks share the work, and each gets all the results, which are then JSON values.
    """
    mine = ranks.mine(range(len(sizes)))
    order = sorted(mine, key=lambda i: sizes[i])
    progress, results = Progress(label, len(order)), {}
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        results.update(zip(part, run(part)))
        progress.add(len(part))
    return ranks.merged([results[i] for i in mine])


@contextmanager
def rows_of(model, experts, which):
    """The svf.Rows of a batch whose row b runs on experts[which[b]]; None where which is None."""
    if which is None:
        yield None
        return
    with svf.per_row(model, experts, which) as rows:
        yield rows


def answers(model, tokenizer, questions, max_tokens, temperature=0.0, seed=0, batch=64, label="",
            opener="", experts=(), which=None, on_text=None):
    """Texts that the model, as its z stand now, answers to `questions` (user messages), in order.

    which     instead, question i is answered by experts[which[i]], all in the same batches
    on_text   called as on_text(i, piece) while answer i is being written
    """
    prompts = [tokenizer.prompt(q, opener=opener) for q in questions]
    stops = tokenizer.stops(opener)

    def run(part):
        chosen = None if which is None else [which[i] for i in part]
        on_token = on_text and streamed(tokenizer, part, on_text)
        with rows_of(model, experts, chosen) as rows:
            out = generate(model, [prompts[i] for i in part], max_tokens, stops, temperature,
                           seed=seed, row_ids=part, rows=rows, on_token=on_token)
        return [tokenizer.decode(out.tokens(n)) for n in range(len(part))]

    return in_batches(run, [len(p) for p in prompts], batch, label)


def streamed(tokenizer, part, on_text):
    """generate's on_token for the questions `part`: passes text on as soon as it is readable."""
    ids = [[] for _ in part]
    shown = [""] * len(part)

    def on_token(rows, tokens):
        for row, token in zip(rows, tokens):
            ids[row].append(token)
            text = tokenizer.decode(ids[row])
            if not text.endswith("\ufffd"):         # a cut UTF-8 character waits for the rest
                on_text(part[row], text[len(shown[row]):])
                shown[row] = text

    return on_token


def choices(model, tokenizer, task, examples, batch=64, label=""):
    """Of the options that each question lists the one that the model finds likeliest, as texts.

    The rest of the language does not compete: what --objective=options trains an expert for.
    """
    texts = [tasks.option_texts(e) for e in examples]
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in examples]
    options = [[tokenizer.answer(t, task.opener) for t in of_one] for of_one in texts]

    def run(part):
        found = likelihoods(model, [(prompts[i], options[i]) for i in part])
        return [texts[i][int(logprob.argmax())] for i, logprob in zip(part, found)]

    return in_batches(run, [len(p) for p in prompts], batch, label)


def score(model, tokenizer, task, examples, label="", choose=False):
    """Reward per example, mostly 1.0 or 0.0: of greedy answers or, with choose, of `choices`."""
    if choose:
        texts = choices(model, tokenizer, task, examples, label=label)
    else:
        texts = answers(model, tokenizer, [e.prompt for e in examples], task.max_tokens,
                        label=label, opener=task.opener)
    return ranks.spread(tasks.rewards, examples, texts)


# ---------------------------------------------------------------------------------- intervals
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

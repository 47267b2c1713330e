"""
Accuracy with its uncertainty (paper 4.2 prints single scores; most gains lie inside the noise).

Kept:     greedy answers, zero-shot, one run per cell.
Changed:  every score carries n and a Wilson interval, differences are taken on the same items with
          a paired bootstrap; several seeds give a t interval that holds questions and seeds.
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
    """95 % interval (low, high) of a share, `right` out of n; unlike right/n +- inside [0, 1]."""
    p, s2 = right / n, sigma * sigma
    middle = (p + s2 / (2 * n)) / (1 + s2 / n)
    half = sigma / (1 + s2 / n) * math.sqrt(p * (1 - p) / n + s2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(a, b, draws=2000, seed=0):
    """Mean of a - b over the same items, 95 % bootstrap interval: (difference, low, high)."""
    rng, n = random.Random(seed), len(a)
    d = [x - y for x, y in zip(a, b, strict=True)]
    means = sorted(sum(d[rng.randrange(n)] for _ in range(n)) / n for _ in range(draws))
    return sum(d) / n, means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


def student_t(df):
    """t such that 95 % of Student's distribution are within +-t: 4.303 for df 2, 1.96 for many.

    Any df >= 1. With t = sqrt(df) tan(angle) the density is cos(angle) ** (df - 1): summed up, and
    read where 95 % are reached.
    """
    angle = np.linspace(0, np.pi / 2, 4001)
    density = np.cos(angle) ** (df - 1)
    share = np.cumsum((density[1:] + density[:-1]) / 2)
    at = np.interp(0.95, share / share[-1], angle[1:])
    return math.sqrt(df) * math.tan(at)


def seed_variance(rewards):
    """rewards (S, n), S > 1 -> (variance of their mean that other seeds cause, its part of chance).

    The first is the variance of the S means, divided by S. It holds the chance that remains where
    seed and item are given, averaged over n answers. The second is that chance alone: the mean
    square of what neither seed nor item explains, / (S n).
    """
    S, n = rewards.shape
    of_seeds = rewards.mean(1, keepdims=True)
    of_items = rewards.mean(0, keepdims=True)
    left = rewards - of_seeds - of_items + rewards.mean()
    chance = (left ** 2).sum() / max(1, (S - 1) * (n - 1))
    return of_seeds.var(ddof=1) / S, chance / (S * n)


def half_width(arms, by_item):
    """Half of the 95 % interval around the mean of by_item (n,): one arm's, or a difference of two.

    arms: their rewards, (S, n) each, S may be 1. All seeds share the items, so more seeds do not
    average the luck of the questions out:
        half**2 = t**2 * V_seeds + t_n**2 * V_items
    V_seeds: variance of the S means / S, added up over the arms (seed_variance). t: Student's, with
    Welch's df = V_seeds**2 / sum over arms of (V**2 / (S - 1)): 4.303, not 1.96, for three seeds.
    V_items: variance of by_item / n, without the chance that V_seeds holds already; t_n: df n - 1.
    Squares are added as that covers 95 % however the two compare; one t for their sum does not.
    """
    several = [arm for arm in arms if len(arm) > 1]
    found = [seed_variance(arm) for arm in several]
    v_seeds = sum(v for v, _ in found)
    square = 0.0
    if v_seeds > 0:
        each = [v ** 2 / (len(arm) - 1) for arm, (v, _) in zip(several, found)]
        square += student_t(v_seeds ** 2 / sum(each)) ** 2 * v_seeds

    n = len(by_item)
    if n > 1:
        v_items = by_item.var(ddof=1) / n - sum(chance for _, chance in found)
        square += student_t(n - 1) ** 2 * max(0.0, v_items)
    return math.sqrt(square)


def over_seeds(seeds, minus=None):
    """Mean over seeds of scores on the same items, 95 % interval: (mean, low, high, spread).

    seeds: one list of rewards per seed; minus: likewise, and the difference is taken on the same
    items. The interval (half_width) holds what other questions and training runs would change. An
    arm of one seed knows nothing of other runs: its interval is over questions only, and Wilson's
    where it is not compared, as it is where all answers are right, or all wrong. spread: the
    standard deviation of the seeds' means, None for one seed. ValueError where the items differ in
    number.
    """
    first = np.array(seeds, dtype=float)                                    # (S, n)
    spread = None
    if len(first) > 1:
        spread = first.mean(1).std(ddof=1).item()
    if minus is None:
        mean = first.mean().item()
        if len(first) == 1 or first.min() == first.max():
            return mean, *wilson(mean * first.shape[1], first.shape[1]), spread
        half = half_width([first], first.mean(0))
        return mean, max(0.0, mean - half), min(1.0, mean + half), spread

    second = np.array(minus, dtype=float)
    if first.shape[1] != second.shape[1]:
        counts = f"{first.shape[1]} and {second.shape[1]}"
        raise ValueError(f"a difference needs the same items: {counts}")
    by_item = first.mean(0) - second.mean(0)
    mean = by_item.mean().item()
    half = half_width([first, second], by_item)
    return mean, max(-1.0, mean - half), min(1.0, mean + half), spread


def percent(right, n):
    """'53.0 % [48.1, 57.8] of 400'"""
    low, high = wilson(right, n)
    return f"{100 * right / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {n}"

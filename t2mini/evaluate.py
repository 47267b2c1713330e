"""
Accuracy with its uncertainty (paper 4.2 prints single scores; most gains lie inside the noise).

Kept:     greedy answers, zero-shot, one run per cell.
Changed:  every score carries n and a Wilson interval, differences are taken on the same items with
          a paired bootstrap; several seeds give a t interval that holds questions and seeds.
"""
import math
import random
from contextlib import nullcontext

import numpy as np

from . import svf, tasks
from .generate import generate
from .likelihood import check_length, likelihoods
from .machine import ranks
from .machine.batches import NotFinite, in_batches, ticking
from .machine.settings import check_prompts
from .machine.student import half_width, with_doubt
from .machine.text import streamed


def rows_of(model, experts, which):
    """A block for a batch whose row b runs on experts[which[b]], with its svf.Rows; with None where
    which is None."""
    if which is None:
        return nullcontext()
    return svf.per_row(model, experts, which)


def answers(model, tokenizer, questions, max_tokens, temperature=0.0, seed=0, batch=64, title="",
            opener="", experts=(), which=None, on_text=None, counts=None):
    """Texts that the model, as its z stand now, answers to `questions` (user messages), in order.

    which     instead, question i is answered by experts[which[i]], all in the same batches
    on_text   called as on_text(i, piece) while answer i is being written
    counts    a Counter, to which the number of answers that max_tokens ended is added as "cut"
    """
    prompts = [tokenizer.prompt(q, opener=opener) for q in questions]
    if prompts:                         # the longest comes last, when all others are answered
        check_prompts(prompts, max_tokens, temperature, model.cfg.max_position_embeddings)
    stops = tokenizer.stops(opener)

    def run(part):
        """Some of the questions in one generation. -> (answer, did it end by itself?) of each."""
        chosen = None if which is None else [which[i] for i in part]
        on_token = ticking(max_tokens, on_text and streamed(tokenizer, part, on_text))
        with rows_of(model, experts, chosen) as rows:
            out = generate(model, [prompts[i] for i in part], max_tokens, stops, temperature,
                           seed=seed, row_ids=part, rows=rows, on_token=on_token)
        texts = [tokenizer.decode(out.tokens(n)) for n in range(len(part))]
        return list(zip(texts, out.stopped.tolist()))

    found = in_batches(run, [len(p) for p in prompts], batch, title, max_tokens)
    if counts is not None:
        counts["cut"] += sum(not stopped for _, stopped in found)
    return [text for text, _ in found]


def choices(model, tokenizer, task, examples, batch=64, title=""):
    """Of the options that each question lists the one that the model finds likeliest, as texts.

    The rest of the language does not compete: what --objective=options trains an expert for.
    """
    texts = [tasks.option_texts(e) for e in examples]
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in examples]
    options = [[tokenizer.answer(t, task.opener) for t in of_one] for of_one in texts]
    check_length(model, zip(prompts, options))              # the longest would come last

    def run(part):
        found = likelihoods(model, [(prompts[i], options[i]) for i in part])
        if not all(logprob.isfinite().all() for logprob in found):
            raise NotFinite
        return [texts[i][int(logprob.argmax())] for i, logprob in zip(part, found)]

    return in_batches(run, [len(p) for p in prompts], batch, title)


def score(model, tokenizer, task, examples, title="", choose=False, counts=None):
    """Reward per example, mostly 1.0 or 0.0: of greedy answers or, with choose, of `choices`.

    counts: see `answers`.
    """
    if choose:
        texts = choices(model, tokenizer, task, examples, title=title)
    else:
        texts = answers(model, tokenizer, [e.prompt for e in examples], task.max_tokens,
                        title=title, opener=task.opener, counts=counts)
    return ranks.spread(tasks.rewards, examples, texts)


# ---------------------------------------------------------------------------------- intervals
def wilson(right, n, sigma=1.96):
    """95 % interval (low, high) of a share, `right` out of n; unlike right/n +- inside [0, 1]."""
    p, s2 = right / n, sigma * sigma
    middle = (p + s2 / (2 * n)) / (1 + s2 / n)
    half = sigma / (1 + s2 / n) * math.sqrt(p * (1 - p) / n + s2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_difference(a, b, draws=2000, seed=0):
    """Mean of a - b over the same items, 95 % bootstrap interval: (difference, low, high).

    Where hardly an item differs from the others, two more are drawn from (student.with_doubt).
    """
    d = [x - y for x, y in zip(a, b, strict=True)]
    pool = with_doubt(d)
    rng = random.Random(seed)
    n = len(pool)
    means = sorted(sum(pool[rng.randrange(n)] for _ in range(n)) / n for _ in range(draws))
    return sum(d) / len(d), means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


def over_seeds(seeds, minus=None):
    """Mean over seeds of scores on the same items, 95 % interval: (mean, low, high, spread).

    seeds: one list of rewards per seed; minus: likewise, and the difference is taken on the same
    items. The interval (half_width) holds what other questions and training runs would change. An
    arm of one seed knows nothing of other runs: its interval is over questions only. A score that
    is not compared has Wilson's then, and also where all answers are right, or all wrong. spread:
    the standard deviation of the means of `seeds`, also where a difference is taken; None for one
    seed. ValueError where the items differ in number.
    """
    first = np.array(seeds, dtype=float)                                    # (S, n)
    spread = first.mean(1).std(ddof=1) if len(first) > 1 else None
    if minus is None:
        mean = first.mean().item()
        if len(first) == 1 or first.min() == first.max():
            return mean, *wilson(mean * first.shape[1], first.shape[1]), spread
        half = half_width([first], first.mean(0))
        return mean, max(0.0, mean - half), min(1.0, mean + half), spread

    second = np.array(minus, dtype=float)
    if first.shape[1] != second.shape[1]:
        raise ValueError("a difference needs the same items: "
                         f"{first.shape[1]} and {second.shape[1]}")
    by_item = first.mean(0) - second.mean(0)
    mean = by_item.mean().item()
    half = half_width([first, second], by_item)
    return mean, max(-1.0, mean - half), min(1.0, mean + half), spread


def percent(right, n):
    """'53.0 % [48.1, 57.8] of 400'"""
    low, high = wilson(right, n)
    return f"{100 * right / n:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {n}"

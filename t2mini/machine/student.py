"""
How far a mean over several training runs may be off: Student's t, for runs and for questions.
"""
import math

import numpy as np

RARE = 10           # of fewer items that differ from the others a variance knows too little


def student_t(df):
    """t such that 95 % of Student's distribution are within +-t: 4.303 for df 2, 1.96 for many.

    df from 1 to 100,000. With t = sqrt(df) tan(angle) the density is cos(angle) ** (df - 1):
    summed up, and read where 95 % are reached.
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


def with_doubt(differences):
    """Differences on the same items (n,) -> the same, or (n + 2,): with one item more that each arm
    alone has right, where fewer than RARE items differ from all others.

    20 of 20 against 0 of 20 has no variance, and yet is not certain: the next item may be another
    one. Two more items are what Bonett and Price (2012) add to a paired difference.
    """
    counts = np.unique(differences, return_counts=True)[1]
    if len(differences) - counts.max() >= RARE:
        return list(differences)
    return [*differences, 1.0, -1.0]


def half_width(arms, by_item):
    """Half of the 95 % interval around the mean of by_item (n,): one arm's, or a difference of two
    (with_doubt).

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

    if len(arms) > 1:
        by_item = np.array(with_doubt(by_item))
    n = len(by_item)
    if n > 1:
        v_items = by_item.var(ddof=1) / n - sum(chance for _, chance in found)
        square += student_t(n - 1) ** 2 * max(0.0, v_items)
    return math.sqrt(square)

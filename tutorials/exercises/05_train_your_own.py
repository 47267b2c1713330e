"""Exercises of chapter 05. Check: python tutorials/05_train_your_own.py --check 1"""


def exercise_1(prompt, answer, options):
    """Easy. Return one line of a task file:
    a JSON object with `prompt`, `answer`, `match` "choice" and `options`."""
    raise NotImplementedError


def exercise_2(p, n):
    """Medium. The model answers a question right with probability p, and n answers are sampled.
    Return the probability that all of them earn the same,
    so that the question teaches nothing in this update."""
    raise NotImplementedError


def exercise_3(grads, lr, steps):
    """Hard. grads (t, r): the gradients of the first t of `steps` updates. z starts at 1.
    Return z (r,) after these updates of Adam without weight decay: with m and v the running means
    of g and g squared (beta 0.9 and 0.99, starting at 0), each divided by 1 - beta^t at its update
    t = 1, 2, ..., z falls by rate * m / (r + 1e-8), with r the root of v.
    The rate of update t is lr * (1 + cos(pi * (t - 1) / steps)) / 2."""
    raise NotImplementedError

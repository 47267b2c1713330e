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
    Return z (r,) after these updates of Adam without weight decay: m and v start at 0, and with
    a gradient g they become 0.9 m + 0.1 g and 0.99 v + 0.01 g^2. At update t = 1, 2, ... z falls by
    rate * (m / (1 - 0.9^t)) / (sqrt(v / (1 - 0.99^t)) + 1e-8).
    The rate of update t is lr * (1 + cos(pi * (t - 1) / steps)) / 2."""
    raise NotImplementedError

"""Exercises of chapter 11. Check: python tutorials/11_real_benchmarks.py --check 1"""


def exercise_1(shapes, rank):
    """Easy. shapes: a list of (m, n), the matrices that are tuned. Return how many numbers SVF
    trains there, as a share of those of a LoRA of this rank: 0.5 where it trains half as many."""
    raise NotImplementedError


def exercise_2(p, G):
    """Medium. A question is answered right with chance p.
    Return the chance that of G answers to it some are right and some are wrong."""
    raise NotImplementedError


def exercise_3(rights, samples):
    """Hard. rights: a text with a digit for each question, how many of its `samples` answers were
    right. Return the share of questions that teach the model something: some, but not all of their
    answers are right."""
    raise NotImplementedError

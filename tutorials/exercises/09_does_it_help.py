"""Exercises of chapter 09. Check: python tutorials/09_does_it_help.py --check 1"""


def exercise_1(right, n):
    """Easy. Return the 95 % Wilson interval (low, high) of `right` right answers out of n, both
    between 0 and 1. The formula is on the page; use 1.96."""
    raise NotImplementedError


def exercise_2(a, b):
    """Medium. a, b: the rewards (1 or 0) of two arms on the same items, in the same order. Return
    (mean of a - b, its standard error): the root of the mean squared deviation of the differences,
    divided by the root of their number."""
    raise NotImplementedError


def exercise_3(p, gain):
    """Hard. Both arms are right with a probability near p, and each answers n items of its own.
    Return the smallest n (a whole number) at which `gain`, a true difference of the two, is 1.96
    standard errors of the difference."""
    raise NotImplementedError

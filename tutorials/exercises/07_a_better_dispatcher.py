"""Exercises of chapter 07. Check: python tutorials/07_a_better_dispatcher.py --check 1"""


def exercise_1(table):
    """Easy. table: needs -> said -> count, as `arms.confusion` makes it; said is a label or
    "unreadable". Return the share of questions that are routed right (between 0 and 1)."""
    raise NotImplementedError


def exercise_2(p, n):
    """Medium. The model says the right label with probability p. It is sampled n times, and the
    group's mean reward is the baseline.
    Return the chance that the group teaches anything: that not all n rewards are the same."""
    raise NotImplementedError


def exercise_3(table, right):
    """Hard. table as in exercise 1; right[needs][label] is the share of right answers (between 0
    and 1) that questions of the class `needs` get from the expert `label`; "other" is the base
    model. Unreadable routes get the base model, too.
    Return the share of right answers after both passes."""
    raise NotImplementedError

"""Exercises of chapter 06. Check: python tutorials/06_ask_the_model.py --check 1"""
from t2mini.tasks import LABELS                             # ("code", "math", "reasoning", "other")


def exercise_1(said):
    """Easy. said: what the model answered. Return the label it names, as a whole word in any case,
    or None where it names none or several different ones."""
    raise NotImplementedError


def exercise_2(needs, said):
    """Medium. needs: the right label of each question; said: the label named, None where it could
    not be read. Return the routing table: a dict from each label needed to a dict from each label
    said (and "unreadable") to a count. All cells are there, also those with 0."""
    raise NotImplementedError


def exercise_3(share, habit):
    """Hard. share: dict from label to its share for one question; habit: the mean share over many
    questions of all kinds.
    Return new shares that are proportional to share / habit and add up to 1."""
    raise NotImplementedError

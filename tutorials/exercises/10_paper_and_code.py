"""Exercises of chapter 10. Check: python tutorials/10_paper_and_code.py --check 1"""


def exercise_1(S, p):
    """Easy. S (r,) are the singular values of a matrix, p (r,) its logits in the released form.
    Return what S is multiplied by, shape (r,): the sigmoid of p, times the one number that keeps
    the sum of the singular values as it was."""
    raise NotImplementedError


def exercise_2(tuned, base):
    """Medium. tuned, base: probabilities (n,) of the tuned and of the base model.
    Return two numbers: the KL divergence of equation 1, KL(tuned || base),
    and the one that the released code computes."""
    raise NotImplementedError


def exercise_3(text):
    """Hard. Return the last number in a text as a float, with its sign and without the commas
    between thousands; None where there is none."""
    raise NotImplementedError

"""Exercises of chapter 01. Check: python tutorials/01_rank_one_pieces.py --check 1"""


def exercise_1(U, S, Vt, k):
    """Easy. U (m, r), S (r,) falling, Vt (r, n).
    Return the sum of the k largest rank-one pieces, shape (m, n)."""
    raise NotImplementedError


def exercise_2(S, share):
    """Medium. Return the smallest number of pieces (a whole number) whose squared singular values
    add up to at least `share` (between 0 and 1) of all of them."""
    raise NotImplementedError


def exercise_3(W):
    """Hard. Return (S, u, v) of the largest piece of W without calling torch.linalg: start with
    any v, then repeat v <- W^T W v and set its length to 1. u follows from W v."""
    raise NotImplementedError

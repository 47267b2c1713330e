"""Exercises of chapter 03. Check: python tutorials/03_one_dial.py --check 1"""


def exercise_1(U, S, Vt, z):
    """Easy. U (m, r), S (r,), Vt (r, n), z (r,). Return W' = U diag(S * z) Vt, shape (m, n)."""
    raise NotImplementedError


def exercise_2(shapes, rank):
    """Medium. shapes: a list of (m, n), the tuned matrices. Return three whole numbers: how many
    parameters SVF trains, LoRA of that rank, and full tuning."""
    raise NotImplementedError


def exercise_3(U, S, Vt, x, g):
    """Hard. x (tokens, n) goes into the layer y = x W'^T, and g (tokens, m) is dL/dy.
    Return dL/dz, shape (r,), without building any (m, n) matrix."""
    raise NotImplementedError

"""Exercises of chapter 02. Check: python tutorials/02_gpt_in_one_file.py --check 1"""


def exercise_1(x, weight, eps):
    """Easy. x (rows, C), weight (C,). Return RMSNorm of x: each row divided by the root of
    (its mean square + eps), then times weight."""
    raise NotImplementedError


def exercise_2(q, k, v):
    """Medium. q, k, v (T, D): one head. Return causal attention, shape (T, D): token t looks at
    tokens 0 to t, with weights softmax(q_t . k_s / root of D)."""
    raise NotImplementedError


def exercise_3(x, theta):
    """Hard. x (T, D): one head's queries at positions 0 to T - 1. Return them rotated (RoPE):
    at position p the pair (a, b) of dimensions (i, i + D/2) turns by w = p * theta^(-2i/D), that
    is, becomes (a cos w - b sin w, b cos w + a sin w),
    for i = 0 to D/2 - 1."""
    raise NotImplementedError

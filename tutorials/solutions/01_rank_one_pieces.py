"""Solutions of chapter 01, and one plausible wrong answer to each exercise."""
import torch


def exercise_1(U, S, Vt, k):
    return (U[:, :k] * S[:k]) @ Vt[:k]


def exercise_2(S, share):
    held = (S ** 2).cumsum(0) / (S ** 2).sum()
    return int((held < share - 1e-6).sum()) + 1


def exercise_3(W):
    v = torch.ones(W.shape[1])
    for _ in range(500):
        v = W.T @ (W @ v)
        v = v / v.norm()
    S = (W @ v).norm()
    return S, W @ v / S, v


def not_squared(S, share):
    held = S.cumsum(0) / S.sum()
    return int((held < share - 1e-6).sum()) + 1


def no_root(W):
    S, u, v = exercise_3(W)
    return S ** 2, u, v                                     # W^T W stretches v by S squared


WRONG = {
    1: lambda U, S, Vt, k: (U[:, -k:] * S[-k:]) @ Vt[-k:],  # the smallest ones
    2: not_squared,
    3: no_root,
}

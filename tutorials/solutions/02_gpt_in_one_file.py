"""Solutions of chapter 02, and one plausible wrong answer to each exercise."""
import torch


def exercise_1(x, weight, eps):
    return x * torch.rsqrt((x ** 2).mean(-1, keepdim=True) + eps) * weight


def exercise_2(q, k, v):
    score = q @ k.T / q.shape[1] ** 0.5                     # (T, T)
    score = score.masked_fill(torch.ones_like(score).triu(1).bool(), float("-inf"))
    return score.softmax(-1) @ v


def exercise_3(x, theta):
    T, D = x.shape
    angle = torch.arange(T)[:, None] * theta ** (-torch.arange(0, D, 2) / D)        # (T, D/2)
    a, b = x[:, :D // 2], x[:, D // 2:]
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), 1)


def layer_norm(x, weight, eps):
    x = x - x.mean(-1, keepdim=True)
    return exercise_1(x, weight, eps)


def neighbours(x, theta):
    """Turns (0, 1), (2, 3), ... instead: the order in which GGUF files keep them."""
    half = torch.cat((x[:, ::2], x[:, 1::2]), 1)
    a, b = exercise_3(half, theta).chunk(2, 1)
    return torch.stack((a, b), 2).flatten(1)


WRONG = {
    1: layer_norm,
    # sees the future
    2: lambda q, k, v: (q @ k.T / q.shape[1] ** 0.5).softmax(-1) @ v,
    3: neighbours,
}

"""Solutions of chapter 05, and one plausible wrong answer to each exercise."""
import json
import math

import torch


def exercise_1(prompt, answer, options):
    return json.dumps({"prompt": prompt, "answer": answer, "match": "choice", "options": options})


def exercise_2(p, n):
    return p ** n + (1 - p) ** n


def adam(grads, lr, steps, corrected):
    z = torch.ones(grads.shape[1])
    m, v = torch.zeros_like(z), torch.zeros_like(z)
    for t, g in enumerate(grads, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g ** 2
        rate = lr * (1 + math.cos(math.pi * (t - 1) / steps)) / 2
        a, b = (1 - 0.9 ** t, 1 - 0.99 ** t) if corrected else (1, 1)
        z = z - rate * (m / a) / ((v / b).sqrt() + 1e-8)
    return z


def exercise_3(grads, lr, steps):
    return adam(grads, lr, steps, corrected=True)


WRONG = {
    1: lambda prompt, answer, options: str({"prompt": prompt, "answer": answer,
                                            "match": "choice", "options": options}),
    2: lambda p, n: (1 - p) ** n,                           # forgets that all may be right
    3: lambda grads, lr, steps: adam(grads, lr, steps, corrected=False),
}

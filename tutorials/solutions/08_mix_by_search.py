"""Solutions of chapter 08, and one plausible wrong answer to each exercise."""
import numpy as np


def exercise_1(x, scores, n_elite):
    elite = x[np.argsort(scores)[-n_elite:]]
    return elite.mean(0), elite.std(0)


def exercise_2(scores, n_elite):
    if len(set(scores)) == 1:
        return []
    return sorted(range(len(scores)), key=lambda i: scores[i], reverse=True)[:n_elite]


def exercise_3(score, mean, seed):
    rng, mean = np.random.default_rng(seed), np.array(mean, dtype=float)
    std = np.full_like(mean, 0.5)
    for _ in range(25):
        x = mean + std * rng.standard_normal((24, len(mean)))
        best = exercise_2(score(x), 6)
        if best:
            mean, std = x[best].mean(0), np.maximum(x[best].std(0), 0.03)
    return mean


def never_flat(score, mean, seed):
    rng, mean = np.random.default_rng(seed), np.array(mean, dtype=float)
    std = np.full_like(mean, 0.5)
    for _ in range(25):
        x = mean + std * rng.standard_normal((24, len(mean)))
        scores = score(x)
        best = sorted(range(24), key=scores.__getitem__, reverse=True)[:6]
        mean, std = x[best].mean(0), np.maximum(x[best].std(0), 0.03)
    return mean


WRONG = {
    # the worst ones
    1: lambda x, scores, n: (x[np.argsort(scores)[:n]].mean(0), x[np.argsort(scores)[:n]].std(0)),
    # no tie-break
    2: lambda scores, n: sorted(range(len(scores)), key=lambda i: scores[i][0], reverse=True)[:n],
    # right on hills, walks off on a plain
    3: never_flat,
}

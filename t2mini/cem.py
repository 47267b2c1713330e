"""
The cross-entropy method (paper 3.2 C): sample, keep the elite, refit the Gaussian. Knows nothing
of models.

Changed:  candidates are ranked by (accuracy, log-likelihood), also where the elite is cut. The
          release cuts ties in any order; here only candidates without a right answer can still tie.
          Accuracy on ten shots ties all the time, and on a flat score a search walks off at random.
          The deviation has a floor; the best of the whole search is reported, and its mean. Weights
          lie between LOW and HIGH (release: 0 and 1), and a search is 16 candidates x 6 iterations
          where nothing else is said (adapt.adapt_cem; release: 32 x 50).
"""
from dataclasses import dataclass, field

import numpy as np

LOW, HIGH = -0.5, 1.5           # where the weight of an expert may lie, if nothing else is said


@dataclass
class Search:
    """best (d,) and its score (a tuple); mean, std (d,) of the last Gaussian; history: one dict
    per iteration."""
    best: np.ndarray
    best_score: tuple
    mean: np.ndarray
    std: np.ndarray
    history: list = field(default_factory=list)


def cem(score, mean, std=0.5, iterations=8, population=16, elite_ratio=0.25,
        std_floor=0.03, low=LOW, high=HIGH, include=(), seed=0,
        progress=lambda i, search: None):
    """Maximise `score` over vectors of mean's length. -> Search.

    score     takes candidates (population, d), returns one tuple of numbers (no NaN) per candidate;
              larger tuples are better, so ties in the first entry are broken by the second. It is
              called once per iteration: a batch can be scored at once.
    include   vectors that join the first population, such as "no expert" and "only expert k"
    Where all scores are equal in every entry there is no elite, and the Gaussian stays as it is.
    """
    rng = np.random.default_rng(seed)
    mean = np.asarray(mean, dtype=np.float64).copy()
    std = np.full_like(mean, std)
    search = Search(mean.copy(), (-np.inf,), mean, std)
    n_elite = max(1, round(population * elite_ratio))
    for i in range(iterations):
        # sample (population, d); the mean competes too
        x = mean + std * rng.standard_normal((population, mean.size))
        x = np.clip(x, low, high)
        x[0] = mean
        if i == 0 and len(include):
            # a population too small for all of them grows for this once
            room = max(1, population - len(include))
            given = np.asarray(include, dtype=np.float64)
            x = np.concatenate((x[:room], given))

        # keep the elite, refit the Gaussian to it
        scores = score(x)
        order = sorted(range(len(x)), key=scores.__getitem__, reverse=True)
        if len(set(scores)) > 1:
            elite = x[order[:n_elite]]
            mean = elite.mean(0)
            std = np.maximum(elite.std(0), std_floor)

        # report
        top = order[0]
        if scores[top] > search.best_score:
            search.best = x[top].copy()
            search.best_score = scores[top]
        search.mean = mean
        search.std = std
        mean_score = float(np.mean([s[0] for s in scores]))
        record = {"iteration": i + 1, "best": scores[top], "mean_score": mean_score,
                  "mean": mean.tolist(), "std": std.tolist()}
        search.history.append(record)
        progress(i, search)
    return search

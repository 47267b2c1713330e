"""The cross-entropy method on scores whose answer is known."""
import numpy as np
import pytest

from t2mini.cem import cem


def batch(f):
    return lambda x: [f(v) for v in x]


@pytest.mark.parametrize("seed", range(4))
def test_finds_the_top_of_a_quadratic(seed):
    """Fails if elites are the worst instead of the best, or the refit drifts."""
    top = np.array([0.7, 0.1, 0.2])
    found = cem(batch(lambda v: (-float(((v - top) ** 2).sum()), 0.0)), np.full(3, 1 / 3), iterations=25, population=24, seed=seed)
    assert np.abs(found.mean - top).max() < 0.06 and np.abs(found.best - top).max() < 0.1


def test_a_flat_score_moves_nothing():
    """Fails if ties become random choices: ten shots tie all the time."""
    found = cem(batch(lambda v: (0.4, -1.0)), np.full(3, 1 / 3), std=0.5, iterations=20, seed=1)
    assert np.allclose(found.mean, 1 / 3) and np.allclose(found.std, 0.5) and np.allclose(found.best, 1 / 3)


def test_ties_are_broken_by_likelihood():
    """Fails if elites or the winner ignore the second entry of the score."""
    found = cem(batch(lambda v: (0.5, -abs(float(v[0]) - 0.8))), [0.2], iterations=20, population=16, seed=0)
    assert abs(found.best[0] - 0.8) < 0.05 and abs(found.mean[0] - 0.8) < 0.1
    never_right = cem(batch(lambda v: (0.0, -np.inf) if v[0] < 0.5 else (0.1, -3.0)), [0.2], iterations=5, seed=0)
    assert never_right.best[0] >= 0.5 and np.isfinite(never_right.mean).all()


def test_floor_bounds_and_progress():
    """Fails if the deviation dies out, a candidate leaves its bounds, or the best gets worse."""
    seen, best = [], []
    found = cem(lambda x: seen.extend(x) or [(float(v[0]), 0.0) for v in x], [0.0, 0.0], iterations=12, std_floor=0.05,
                low=-0.5, high=1.5, progress=lambda i, s: best.append(s.best_score))
    assert (found.std >= 0.05).all() and min(map(np.min, seen)) >= -0.5 and max(map(np.max, seen)) <= 1.5
    assert best == sorted(best) and len(found.history) == 12


def test_included_candidates_and_small_populations():
    """Fails if the base model or a single expert is not tried in the first iteration, or two candidates are too few."""
    one_hot = np.array([0.0, 1.0])
    found = cem(batch(lambda v: (float(np.array_equal(v, one_hot)), 0.0)), [0.5, 0.5], iterations=1, population=4,
                include=[[0.0, 0.0], one_hot])
    assert np.array_equal(found.best, one_hot) and found.best_score[0] == 1.0
    assert np.isfinite(cem(batch(lambda v: (float(v[0]), 0.0)), [0.5], iterations=4, population=2).mean).all()


def test_same_seed_same_search():
    """Fails if the search draws from global random state."""
    runs = [cem(batch(lambda v: (-float((v ** 2).sum()), 0.0)), [0.5, 0.5], seed=s).best.tolist() for s in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]

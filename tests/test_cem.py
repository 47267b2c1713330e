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
    found = cem(batch(lambda v: (-float(((v - top) ** 2).sum()), 0.0)), np.full(3, 1 / 3),
                iterations=25, population=24, seed=seed)
    assert np.abs(found.mean - top).max() < 0.06 and np.abs(found.best - top).max() < 0.1


def test_a_flat_score_moves_nothing():
    """Fails if ties become random choices: ten shots tie all the time."""
    found = cem(batch(lambda v: (0.4, -1.0)), np.full(3, 1 / 3), std=0.5, iterations=20, seed=1)
    assert np.allclose(found.mean, 1 / 3)
    assert np.allclose(found.std, 0.5) and np.allclose(found.best, 1 / 3)


def test_ties_are_broken_by_likelihood():
    """Fails if elites or the winner ignore the second entry of the score."""
    found = cem(batch(lambda v: (0.5, -abs(float(v[0]) - 0.8))), [0.2],
                iterations=20, population=16, seed=0)
    assert abs(found.best[0] - 0.8) < 0.05 and abs(found.mean[0] - 0.8) < 0.1
    never_right = cem(batch(lambda v: (0.0, -np.inf) if v[0] < 0.5 else (0.1, -3.0)),
                      [0.2], iterations=5, seed=0)
    assert never_right.best[0] >= 0.5 and np.isfinite(never_right.mean).all()


def test_elites_are_the_best_by_both_entries():
    """Fails if elites of equal accuracy are taken in the order they were drawn,
    or the worst likelihoods are taken.
    """
    seen = []

    def score(x):
        seen.append((x.copy(), [(0.5, float(np.sin(9 * v[0]))) for v in x]))
        return seen[-1][1]

    found = cem(score, [0.2, 0.3], iterations=1, population=12, elite_ratio=0.25, seed=2)
    x, scores = seen[0]
    top = x[np.argsort([-s[1] for s in scores])[:3]]
    np.testing.assert_allclose(found.mean, top.mean(0))
    np.testing.assert_allclose(found.std, np.maximum(top.std(0), 0.03))
    assert np.array_equal(found.best, top[0]) and found.best_score == max(scores)
    assert np.array_equal(x[0], [0.2, 0.3])                                 # the mean competes, too


def test_minus_infinity_is_a_score_like_any_other():
    """Fails if candidates without a right answer (likelihood -inf) turn the Gaussian
    or its record into NaN.
    """
    for f in (lambda v: (0.0, -np.inf),
              lambda v: (float(v[0] > 0.6), -1.0 if v[0] > 0.6 else -np.inf)):
        found = cem(batch(f), [0.3, 0.3], iterations=5, population=8, seed=0)
        assert np.isfinite(found.mean).all()
        assert np.isfinite(found.std).all() and np.isfinite(found.best).all()
        assert all(np.isfinite([*h["mean"], *h["std"], h["mean_score"]]).all()
                   for h in found.history)


def test_floor_bounds_and_progress():
    """Fails if the deviation dies out, a candidate leaves its bounds, or the best gets worse."""
    seen, best = [], []
    found = cem(lambda x: seen.extend(x) or [(float(v[0]), 0.0) for v in x], [0.0, 0.0],
                iterations=12, std_floor=0.05,
                low=-0.5, high=1.5, progress=lambda i, s: best.append(s.best_score))
    assert (found.std >= 0.05).all()
    assert min(map(np.min, seen)) >= -0.5 and max(map(np.max, seen)) <= 1.5
    assert best == sorted(best) and len(found.history) == 12
    # the best of the whole search
    assert max(best)[0] == max(float(v[0]) for v in seen) == found.best[0]
    assert found.history[-1]["mean"] == found.mean.tolist()
    assert found.history[-1]["std"] == found.std.tolist()
    narrow = cem(batch(lambda v: (-float((v ** 2).sum()), 0.0)), [0.5],
                 iterations=40, std_floor=0.05)
    # it would be 0.0001 without a floor
    assert narrow.std[0] == 0.05


def test_included_candidates_and_small_populations():
    """Fails if the base model or a single expert is not tried in the first iteration,
    or two candidates are too few.
    """
    one_hot = np.array([0.0, 1.0])
    found = cem(batch(lambda v: (float(np.array_equal(v, one_hot)), 0.0)), [0.5, 0.5], iterations=1,
                population=4, include=[[0.0, 0.0], one_hot])
    assert np.array_equal(found.best, one_hot) and found.best_score[0] == 1.0
    sizes = []
    # fewer than what must be tried: nothing may be dropped
    for population in (2, 3):
        for wanted in ([0.0, 0.0], [1.0, 0.0], [0.0, 1.0]):
            found = cem(
                lambda x: sizes.append(len(x)) or [(float(v.tolist() == wanted), 0.0) for v in x],
                [0.5, 0.5], iterations=2, population=population, include=[[0, 0], [1, 0], [0, 1]])
            assert found.best.tolist() == wanted
    # later populations have the size asked for
    assert sizes[1::2] == [2] * 3 + [3] * 3
    assert np.isfinite(cem(batch(lambda v: (float(v[0]), 0.0)), [0.5],
                           iterations=4, population=2).mean).all()


def test_same_seed_same_search():
    """Fails if the search draws from global random state."""
    runs = [cem(batch(lambda v: (-float((v ** 2).sum()), 0.0)), [0.5, 0.5], seed=s).best.tolist()
            for s in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]

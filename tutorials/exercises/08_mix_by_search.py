"""Exercises of chapter 08. Check: python tutorials/08_mix_by_search.py --check 1"""


def exercise_1(x, scores, n_elite):
    """Easy. x (population, d) is a NumPy array, scores a list of numbers, larger is better.
    Return (mean, std), each of shape (d,), of the n_elite best candidates;
    the deviation divides by their number."""
    raise NotImplementedError


def exercise_2(scores, n_elite):
    """Medium. scores: a list of (accuracy, log-likelihood). Return the indices of the n_elite best,
    best first; equal accuracies are ordered by likelihood. Where all scores are equal in both,
    return an empty list."""
    raise NotImplementedError


def exercise_3(score, mean, seed):
    """Hard. Write the search: score(x) takes (population, d) and returns a list of tuples, larger
    is better; mean is a list, the start. Return the last mean after 25 iterations of 24 candidates
    and 6 elites, the deviation starting at 0.5 and never below 0.03. On a flat score the mean stays
    where it is."""
    raise NotImplementedError

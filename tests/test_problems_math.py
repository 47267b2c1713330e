"""The arithmetic word problems: right answers, honest splits, nothing to guess."""
import random
import re
from collections import Counter
from functools import cache

import pytest

from t2mini.questions import math as pm
from t2mini.grade import find_number
from t2mini.questions.example import split_of
from t2mini.questions.math import make_math

BUCKETS = {False: 10, True: 3}          # of split_of, in the task of seen and of unseen kinds


@cache
def many(unseen, n=3000, seed=0):
    rng = random.Random(seed)
    return [make_math(rng, unseen) for _ in range(n)]


# kind -> (a, b, c, the answer worked out by hand)
BY_HAND = {"1step/more": (7, 5, 2, 12), "1step/give_away": (9, 4, 2, 5),
           "1step/boxes": (3, 6, 4, 24), "1step/share": (3, 8, 4, 8),
           "2step/get_and_give": (9, 6, 4, 11), "2step/boxes_and_loose": (5, 6, 3, 23),
           "2step/twice": (3, 7, 2, 21), "2step/change": (3, 8, 5, 10),
           "2step/fewer_than": (9, 4, 2, 14), "2step/share_sum": (3, 6, 4, 6),
           "1step/temperature": (8, 5, 2, -3), "2step/perimeter": (3, 7, 4, 22),
           "2step/average": (3, 9, 4, 9), "2step/age_then": (12, 5, 3, 10),
           "2step/dollars": (9, 4, 2, 14)}


@pytest.mark.parametrize("kind", BY_HAND)
def test_answers_by_hand(kind):
    """Fails if a template's formula does not answer its own question."""
    a, b, c, want = BY_HAND[kind]
    _, answer, rule, *_ = next(t for pool in pm.POOLS.values() for t in pool if t[0] == kind)
    v = {"a": a, "b": b, "c": c}
    assert eval(rule, {}, v) and eval(answer, {}, v) == want


@pytest.mark.parametrize("unseen", [False, True])
def test_every_problem_is_well_formed(unseen):
    """Fails if a placeholder is left, a question does not ask,
    or an answer is not a whole number in range.
    """
    for e in many(unseen):
        assert "{" not in e.prompt and e.prompt.endswith("?") and e.match == "number"
        assert (0 < int(e.answer) < 100) or e.kind == "1step/temperature"
        assert find_number(e.answer) == float(e.answer)
        assert len(re.findall(r"\d+", e.prompt)) >= 1
        assert not re.search(r"\b1 [a-z]+s\b", e.prompt)          # "1 apples"


def test_pools_share_nothing():
    """Fails if an unseen kind or wording also trains."""
    seen, unseen = ({t[0] for t in pm.POOLS[u]} for u in (False, True))
    told_seen, told_unseen = ({w for t in pm.POOLS[u] for w in t[3]} for u in (False, True))
    assert not seen & unseen and not told_seen & told_unseen
    assert sum(k.startswith("1step") for k in seen) >= 14
    assert sum(k.startswith("2step") for k in seen) >= 14
    assert sum(k.startswith("1step") for k in unseen) >= 8
    assert sum(k.startswith("2step") for k in unseen) >= 8
    assert all(len(t[3]) >= 2 for pool in pm.POOLS.values() for t in pool)


@pytest.mark.parametrize("unseen", [False, True])
def test_share_of_steps(unseen):
    """Fails if the difficulty is not what TWO_STEP says,
    or the drill reaches what is scored or leaves training out.
    """
    examples = many(unseen)
    scored = [e for e in examples if unseen or split_of(e) != "train"]
    share = sum(e.kind.startswith("2step") for e in scored) / len(scored)
    assert len(scored) > 300 and abs(share - pm.TWO_STEP) < 0.06
    if not unseen:
        drilled = [e for e in examples if split_of(e) == "train"]
        assert sum(e.kind.startswith("2step") for e in drilled) / len(drilled) > 0.35


@pytest.mark.parametrize("unseen", [False, True])
def test_no_cheap_answers(unseen):
    """Fails if one constant, or copying the first or the last number, is often right."""
    examples = many(unseen)
    gold = [e.answer for e in examples]
    assert Counter(gold).most_common(1)[0][1] / len(gold) < 0.12
    for pick in (0, -1):
        assert sum(re.findall(r"\d+", e.prompt)[pick] == e.answer
                   for e in examples) / len(gold) < 0.15


def test_same_seed_same_problems_and_splits_are_apart():
    """Fails if examples depend on anything but the seed, or two splits share a content."""
    assert many(False, 50, 3) == many.__wrapped__(False, 50, 3) != many(False, 50, 4)
    keys = {s: {e.key for e in many(False) if split_of(e) == s} for s in ("train", "val", "test")}
    assert all(keys.values()) and not keys["train"] & keys["test"]
    assert not keys["train"] & keys["val"]
    assert len({e.key for e in many(False, 10000)}) > 1500


@pytest.mark.parametrize("unseen", [False, True])
def test_what_a_question_shows_is_in_one_split(unseen):
    """Fails if a number that is drawn and not shown decides the split: the same words, or words
    with other names and things alone, would train (or be a search's example) and be scored.
    """
    filled_in = rf"\b(?:{'|'.join([*' '.join(pm.NAMES).split(), *pm.THINGS])})\b"
    splits = {}
    for e in many(unseen, 10000):
        splits.setdefault(re.sub(filled_in, "_", e.prompt), set()).add(split_of(e, BUCKETS[unseen]))
    assert len(splits) > 2000 and max(map(len, splits.values())) == 1


@pytest.mark.parametrize("unseen", [False, True])
def test_every_kind_is_in_val_and_in_test_and_none_fills_them(unseen):
    """Fails if keys change and HIDDEN does not: a hash leaves kinds that have few situations out
    of a split, or gives them much of it.
    """
    for split in ("val", "test"):
        counts = Counter(e.kind for e in many(unseen, 10000)
                         if split_of(e, BUCKETS[unseen]) == split)
        one_step = [n for kind, n in counts.items() if kind.startswith("1step")]
        assert counts.keys() == {t[0] for t in pm.POOLS[unseen]}
        assert max(one_step) < 2.5 * sum(one_step) / len(one_step)


@pytest.mark.parametrize("unseen", [False, True])
def test_worked_solutions(unseen):
    """Fails if a solution does not give the answer, names a number that the question does not,
    or is missing for a kind.
    """
    kinds = set()
    for e in many(unseen):
        way, _, answer = pm.worked(e).rpartition(" = ")
        assert eval(way) == float(e.answer) and answer == e.answer
        # "perimeter" and "twice" bring a 2 of their own
        told = set(re.findall(r"\d+", e.prompt)) | {"2"}
        assert set(re.findall(r"\d+", way)) <= told, (e.prompt, way)
        kinds.add(e.kind)
    assert kinds == {kind for kind, *_ in pm.POOLS[unseen]}
    with pytest.raises(ValueError, match="no worked solution"):
        pm.worked(pm.Example("Sum?", "3", "number", key="other 1 2 3"))


@pytest.mark.parametrize("unseen", [False, True])
def test_solutions_in_steps(unseen):
    """Fails if a step is wrong, uses a number that is neither in the question nor an earlier
    result, takes a sum before a product, or the last one is not the answer.
    """
    for e in many(unseen):
        *steps, last = pm.in_steps(e).removesuffix(".").split(". ")
        assert last == f"The answer is {e.answer}" and len(steps) <= 3
        known = set(re.findall(r"\d+", e.prompt)) | {"2"}
        for step in steps:
            way, value = step.split(" = ")
            assert eval(way) == int(value) and set(re.findall(r"\d+", way)) <= known, (e, step)
            known.add(value.lstrip("-"))
        assert value == e.answer
    sums = pm.Example("?", "15", "number", key="2step/boxes_minus 9 6 4")
    assert pm.in_steps(sums) == "6 * 4 = 24. 24 - 9 = 15. The answer is 15."


def test_worked_problems_are_those_of_math():
    """Fails if the worked task draws other problems, or leaves a solution out."""
    for seed in range(50):
        e = pm.make_worked(random.Random(seed))
        assert pm.replace(e, solution="") == pm.make_math(random.Random(seed))
        assert e.solution == pm.in_steps(e)

"""Scores and their intervals."""
import numpy as np
import pytest

from t2mini import adapt, evaluate, recipe, reinforce, svf, tasks
from t2mini.machine import batches, student
from t2mini.questions.example import Example


@pytest.mark.parametrize("right, n, low, high", [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634),
                                                 (10, 10, 0.7225, 1.0), (200, 400, 0.4512, 0.5488)])
def test_wilson(right, n, low, high):
    """Fails if the interval is the symmetric one, which leaves [0, 1]."""
    assert evaluate.wilson(right, n) == pytest.approx((low, high), abs=2e-4)


def test_wilson_stays_inside_and_narrows():
    """Fails if an end leaves [0, 1], the share is outside its interval,
    or more items do not say more.
    """
    for n in (1, 2, 10, 400):
        for right in range(n + 1):
            low, high = evaluate.wilson(right, n)
            assert 0 <= low <= right / n <= high <= 1 and low < high
    widths = [high - low for low, high in (evaluate.wilson(n // 2, n) for n in (10, 100, 1000))]
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_paired_difference():
    """Fails if the difference is not taken item by item, has the wrong sign,
    or depends on the hour.
    """
    a, b = [1.0, 1.0, 0.0, 1.0] * 25, [1.0, 0.0, 0.0, 1.0] * 25
    mean, low, high = evaluate.paired_difference(a, b)
    assert mean == 0.25 and low < mean < high and 0.15 < low and high < 0.35
    assert evaluate.paired_difference(b, a)[0] == -0.25
    assert evaluate.paired_difference(a, b) == (mean, low, high)
    with pytest.raises(ValueError):
        evaluate.paired_difference(a, b[:-1])
    mean, low, high = evaluate.paired_difference([1.0, 0.0] * 50, [0.0, 1.0] * 50)
    assert mean == 0
    assert low == pytest.approx(-0.2, abs=0.05) and high == pytest.approx(0.2, abs=0.05)


def test_where_no_item_differs_nothing_is_certain():
    """Fails if a few items that all agree give an interval without width,
    or more of them do not narrow it.
    """
    for difference in (evaluate.paired_difference, lambda a, b: evaluate.over_seeds([a], [b])[:3]):
        widths = []
        for n in (1, 5, 20, 100, 400):
            mean, low, high = difference([1.0] * n, [1.0] * n)
            assert mean == 0 and -1 <= low < 0 < high <= 1
            widths.append(high - low)
            mean, low, high = difference([1.0] * n, [0.0] * n)
            assert mean == 1 and low < high <= 1
        assert widths == sorted(widths, reverse=True) and widths[-1] < 0.04
        # 4 items, all one way: a fair coin does that once in eight times
        # (McNemar's exact test: p = 0.125)
        mean, low, high = difference([0.0] * 200, [1.0] * 4 + [0.0] * 196)
        assert mean == -0.02 and low < -0.03 and high >= 0


@pytest.mark.parametrize("n", [20, 60, 200])
@pytest.mark.parametrize("better, worse", [(0.02, 0.0), (0.0, 0.05), (0.02, 0.02), (0.97, 0.0)])
def test_the_interval_of_a_difference_holds_where_few_items_differ(n, better, worse):
    """Fails if fewer than 92 of 100 intervals hold the truth where two arms
    nearly always answer alike.
    """
    rng, held, draws = np.random.default_rng(n), 0, 500
    for _ in range(draws):
        u = rng.random(n)
        a, b = u < better, (u >= better) & (u < better + worse)
        _, low, high, _ = evaluate.over_seeds([a], [b])
        held += low <= better - worse <= high
    assert held / draws >= 0.92


@pytest.mark.parametrize("df, t", [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764),
                                   (10, 2.2281), (30, 2.0423), (199, 1.9720), (2375, 1.9610)])
def test_student_t(df, t):
    """Fails if the quantile differs from the printed tables."""
    assert student.student_t(df) == pytest.approx(t, abs=1e-3)


def answered(rng, easy, seeds, deviation):
    """Rewards (seeds, items): item i is right with probability easy[i],
    moved for all items of a seed by a normal draw.
    """
    moved = easy + deviation * rng.standard_normal((seeds, 1))
    return (rng.random((seeds, len(easy))) < moved.clip(0, 1)).astype(float)


@pytest.mark.parametrize("points", [2, 4, 8, 12])
def test_the_interval_over_seeds_covers_what_it_says(points):
    """Fails if fewer than 93 of 100 intervals hold the truth,
    for a score and both kinds of difference, whether seeds differ by little or by much;
    or if they are so wide that all of them do.
    """
    rng, n, draws = np.random.default_rng(points), 200, 400
    held = {"score": 0, "minus one seed": 0, "minus three seeds": 0}
    for _ in range(draws):
        # symmetric around 0.5: that is the true score
        easy = rng.uniform(0.1, 0.9, n)
        arm, other = answered(rng, easy, 3, points / 100), answered(rng, easy, 3, points / 100)
        base = answered(rng, easy, 1, 0.0)
        for name, minus, truth in (("score", None, 0.5), ("minus one seed", base, 0.0),
                                   ("minus three seeds", other, 0.0)):
            _, low, high, _ = evaluate.over_seeds(arm, minus)
            held[name] += low <= truth <= high
    assert all(0.93 <= found / draws < 0.995 for found in held.values()), held


def test_mean_and_interval_over_seeds():
    """Fails if the mean, the spread or the limits are wrong, a seed's luck is left out,
    or other items are compared.
    """
    base = [[1.0] * 80 + [0.0] * 120]
    assert evaluate.over_seeds(base) == (0.4, *evaluate.wilson(80, 200), None)
    apart = [[1.0] * 50 + [0.0] * 50, [1.0] * 90 + [0.0] * 10]
    mean, low, high, spread = evaluate.over_seeds(apart)
    assert mean == pytest.approx(0.7)
    assert spread == pytest.approx(0.4 / 2 ** 0.5) and (low, high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="same items"):
        evaluate.over_seeds([[1.0]], [[1.0, 0.0]])


def test_the_interval_over_seeds_by_hand(monkeypatch):
    """Fails if seeds get 1.96 where three of them need 4.303, or items that all seeds share
    are averaged away by seeds.
    """
    # no doubt where all items agree: only what is put in is uncertain
    monkeypatch.setattr(student, "RARE", 0)
    few, many = [1.0] * 40 + [0.0] * 60, [1.0] * 60 + [0.0] * 40
    half = lambda a, b=None: (     # noqa: E731
        lambda r: (r[2] - r[1]) / 2)(evaluate.over_seeds(a, b))
    # the same answers three times: nothing but the items is uncertain, as if there were one seed
    assert half([few] * 3) == pytest.approx(1.984 * (0.24 / 99) ** 0.5, abs=1e-3)
    # a difference that is the same at every item, in three seeds apart: nothing but the seeds is
    d = [[0.1] * 100, [0.2] * 100, [0.3] * 100]
    assert half(d, [[0.0] * 100]) == pytest.approx(4.303 * 0.1 / 3 ** 0.5, abs=1e-3)
    # Welch: df 4
    assert half(d, d) == pytest.approx(2.776 * 0.1 * (2 / 3) ** 0.5, abs=1e-3)
    assert half([few, many], [few, few]) > half([few, few], [few, few]) == 0


def test_answers_come_back_in_the_order_asked(loaded):
    """Fails if sorting by length mixes questions and answers up,
    or the batch size changes an answer.
    """
    model, tokenizer = loaded
    asked = ["a" * (1 + 7 * i % 23) for i in range(9)]
    one = [evaluate.answers(model, tokenizer, [q], 8)[0] for q in asked]
    assert (evaluate.answers(model, tokenizer, asked, 8, batch=4) == one
            == evaluate.answers(model, tokenizer, asked, 8))
    # else any order would pass
    assert len(set(one)) > 2
    drawn = [evaluate.answers(model, tokenizer, asked, 8, 1.0, 5, batch=b) for b in (2, 9)]
    assert drawn[0] == drawn[1] != evaluate.answers(model, tokenizer, asked, 8, 1.0, 6)


def test_score_asks_what_the_task_asks(loaded, monkeypatch):
    """Fails if the prompt, the opener or the length that is scored is not the task's,
    or rewards and examples part.
    """
    model, tokenizer = loaded
    asked, real = [], evaluate.generate
    monkeypatch.setattr(evaluate, "generate", lambda m, prompts, n, *a, **k: (
        asked.append((prompts, n)) or real(m, prompts, n, *a, **k)))
    task = tasks.Task("t", None, 3, "other", "So:")
    examples = [Example(p, "a", "contains") for p in ("a long question", "short")]
    monkeypatch.setattr(tasks, "rewards",
                        lambda es, texts, counts=None: [float(e is examples[0]) for e in es])
    assert evaluate.score(model, tokenizer, task, examples) == [1.0, 0.0]
    assert asked == [([tokenizer.prompt(p, opener="So:") for p in ("short", "a long question")], 3)]


@pytest.mark.parametrize("module", [evaluate, adapt, reinforce])
def test_scores_training_and_search_stop_at_the_same_tokens(loaded, monkeypatch, module):
    """Fails if one of them goes on behind the mark that closes the opener's quotation,
    where the others stop.
    """
    model, tokenizer = loaded
    task, seen = tasks.Task("quoted", tasks.make_math, 4, "math", 'It is "'), []
    svf.attach(model, progress=False)

    def spy(model, prompts, max_tokens, stop_ids, *args, **options):
        seen.append(stop_ids)
        raise KeyError
    monkeypatch.setattr(module, "generate", spy)
    with pytest.raises(KeyError):
        if module is evaluate:
            evaluate.score(model, tokenizer, task, task.examples("val", 2))
        elif module is adapt:
            adapt.score_mixtures(model, tokenizer, task,
                                 task.examples("val", 2), [svf.get_z(model)])
        else:
            reinforce.update(model, tokenizer, task, recipe.settled(recipe.TrainConfig()), 0, None)
    assert seen == [tokenizer.stop_ids | {ord('"')}]


def test_percent():
    """Fails if a score is printed without its interval or its n."""
    assert evaluate.percent(212, 400) == "53.0 % [48.1, 57.8] of 400"
    assert evaluate.percent(0, 10) == "0.0 % [0.0, 27.8] of 10"


def test_a_long_question_does_not_take_a_full_batch_along():
    """Fails if a batch of like questions is padded to a long one, whatever that takes (52 questions
    of MBPP to the thousand tokens of one: 14 GB), or one is lost or asked twice."""
    sizes = [100, 30_000, 4_000] + [90] * 200 + [4_096, 0, 20_000]
    seen = []
    run = lambda part: seen.append(part) or [sizes[i] for i in part]            # noqa: E731
    assert batches.in_batches(run, sizes, 64) == sizes
    assert sorted(i for part in seen for i in part) == [*range(len(sizes))]
    for part in seen:
        longest = max(sizes[i] for i in part)
        assert len(part) <= 64 and (len(part) == 1 or len(part) * longest <= batches.ROOM)
    # few are asked alone: 4,000 and 4,096 share a batch, and so do the short ones
    assert [len(part) for part in seen] == [64, 64, 64, 10, 2, 1, 1]


def test_long_work_says_how_far_it_is(capsys, monkeypatch):
    """Fails if long work is silent, or work without a label is not."""
    clock = [0.0]
    monkeypatch.setattr(batches.time, "time", lambda: clock[0])
    named, unnamed = batches.Progress("math", 4), batches.Progress("", 4)
    clock[0] = 10.0
    unnamed.add(4)
    assert capsys.readouterr() == ("", "")
    named.add(1)
    named.add(3)
    out, err = capsys.readouterr()
    assert out == "" and "math: 1/4, 10 s, 30 s left" in err and "math: 4/4, 10 s, 0 s left" in err


def test_short_work_is_silent(capsys):
    """Fails if progress is printed for what takes no time."""
    batches.Progress("x", 3).add(3)
    assert capsys.readouterr().err == "" and evaluate.percent(1, 4).startswith("25.0 % [")

"""Scores and their intervals."""
import pytest

from t2mini import evaluate


@pytest.mark.parametrize("right, n, low, high", [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0),
                                                (200, 400, 0.4512, 0.5488)])
def test_wilson(right, n, low, high):
    """Fails if the interval is the symmetric one, which leaves [0, 1]."""
    assert evaluate.wilson(right, n) == pytest.approx((low, high), abs=2e-4)


def test_paired_difference():
    """Fails if the difference is not taken item by item, has the wrong sign, or depends on the hour."""
    a, b = [1.0, 1.0, 0.0, 1.0] * 25, [1.0, 0.0, 0.0, 1.0] * 25
    mean, low, high = evaluate.paired_difference(a, b)
    assert mean == 0.25 and low < mean < high and 0.15 < low and high < 0.35
    assert evaluate.paired_difference(a, a) == (0.0, 0.0, 0.0)
    assert evaluate.paired_difference(b, a)[0] == -0.25 and evaluate.paired_difference(a, b) == (mean, low, high)
    with pytest.raises(ValueError):
        evaluate.paired_difference(a, b[:-1])


def test_answers_come_back_in_the_order_asked(loaded):
    """Fails if sorting by length mixes questions and answers up, or the batch size changes an answer."""
    model, tokenizer = loaded
    asked = ["a" * (1 + 7 * i % 23) for i in range(9)]
    one = [evaluate.answers(model, tokenizer, [q], 8)[0] for q in asked]
    assert evaluate.answers(model, tokenizer, asked, 8, batch=4) == one == evaluate.answers(model, tokenizer, asked, 8)


def test_short_work_is_silent(capsys):
    """Fails if progress is printed for what takes no time."""
    evaluate.Progress("x", 3).add(3)
    assert capsys.readouterr().err == "" and evaluate.percent(1, 4).startswith("25.0 % [")

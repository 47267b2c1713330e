"""Graders judge as a reader would, and give nothing for what cannot be read (the released ones drop signs and commas)."""
import pytest

from t2mini.grade import Example, find_choice, find_code, find_number, normal, same_value, split_of, to_number

NUMBERS = [("1,234", 1234), ("-5", -5), ("\u22125", -5), ("3.0", 3), ("$3.50", 3.5), ("It is .5", 0.5), ("1,080", 1080),
           ("The answer is 8 apples, because 5 + 3 = 8.", 8), ("8 apples", 8), ("5 + 3 = 8\n#### 8", 8),
           ("He has 5 + 3 = 8 apples.", 8), ("8. Let me know if you have 2 other questions!", 8),
           ("5 + 3 = 8, then 8 - 2 = 6.", 6), ("The answer is: **12**.", 12), ("Answer: -3 degrees", -3),
           ("Tom has 9 left", 9), ("no number here", None), ("", None), ("x1y", None), ("5 x 4 = 20 cookies", 20),
           ("2 + 2", 2), ("10 - 4 = 6 apples are left for 2 days", 6)]


@pytest.mark.parametrize("text, want", NUMBERS)
def test_numbers(text, want):
    """Fails if a sign, a comma or trailing text changes the answer read."""
    assert find_number(text) == want


def test_to_number_takes_one_number_only():
    """Fails if a gold answer such as "3 or 4" counts as a number."""
    assert to_number("1,000.5") == 1000.5 and to_number("3 or 4") is None and to_number("1,0") is None


FOUR = ("dog", "hot dog", "sofa", "ice")


@pytest.mark.parametrize("text, want", [
    ("sofa", 2), ("The answer is sofa.", 2), ("C", 2), ("C) sofa", 2), ("(C)", 2), ("C. sofa", 2), ("The answer is C", 2),
    ("A) sofa", None), ("sofa or ice", None), ("A dog is an animal, so sofa", None), ("A", 0), ("I think ice", 3),
    ("hot dog", 1), ("Sofa!", 2), ("The answer is (B) hot dog", 1), ("nice sofas", None), ("", None), ("E", None),
    ("dog, hot dog", 1), ("Answer: D", 3),
])
def test_choices(text, want):
    """Fails if an article is read as a letter, a contradiction as a choice, or part of a word as an option."""
    assert find_choice(text, FOUR) == want


def test_code():
    """Fails if prose reaches the sandbox, or text behind the fence is taken for code."""
    body = "def f(x):\n    return x\n"
    assert find_code(f"Sure!\n```python\n{body}```\nThis works because 1 = 2.") == body
    assert find_code(f"```\n{body}") == body and find_code(f"```py\n{body}```") == body
    assert find_code(f"Here you go:\n{body}") == body and find_code("nothing") == "nothing"
    assert find_code(f"```python\n{body}```\n```python\nprint(1)\n```") == body


def test_values():
    """Fails if True passes for 1, a tuple for a list, or rounding costs the reward."""
    assert same_value(0.1 + 0.2, 0.3) and same_value([1, {"a": (2.0,)}], [1, {"a": (2,)}]) and same_value(None, None)
    assert same_value(10 ** 400, 10 ** 400)
    for a, b in ((10 ** 400, 7), (10 ** 400, 0.5), (10 ** 20, 10 ** 20 + 1), (float("inf"), float("-inf")), (True, 1), (0, False), ([1], (1,)), ("1", 1), ([1], [1, 2]), ({1: 2}, {1: 3}), (None, 0), (1, 1.1)):
        assert not same_value(a, b)


def test_normal_and_splits():
    """Fails if wording decides the split, or the shares are not 80/10/10."""
    assert normal(" The Apple. ") == "apple" == normal("**apple**")
    a, b = (Example(p, "1", "number", key="same") for p in ("one wording", "another"))
    assert split_of(a) == split_of(b)
    found = [split_of(Example(str(i), "1", "number")) for i in range(4000)]
    assert abs(found.count("train") / 4000 - 0.8) < 0.03 and abs(found.count("test") / 4000 - 0.1) < 0.02

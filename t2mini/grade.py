"""
What an example is, and when an answer to it is right (paper 3.2: the reward r(y_hat, y) is correctness).

Kept:     one binary judgement per answer; the reward is 1.0 or 0.0.
Changed:  mends defects of the released graders: a sign counts, `1,234` is one number, an
          unparseable answer is wrong instead of a guess. Still open: prose after a code fence is not graded, but
          earns the reward with the rest of the answer.
"""
import hashlib
import math
import re
from dataclasses import dataclass

MATCHES = ("number", "exact", "choice", "contains", "code", "label", "open")


@dataclass(frozen=True)
class Example:
    """One question with its verifiable answer.

    prompt   what the user says, verbatim
    answer   the gold answer: a number, a text, the right option's text, or (code) a reference solution
    match    how to judge: one of MATCHES; "open" cannot be judged and is used for routing only
    kind     the template or family that made it, for break-downs
    key      what the question is about, without its wording; the split is a hash of this (see `split_of`)
    options  the texts of the choices, in the order shown (choice)
    calls    hidden tests (code): a tuple of (arguments, expected value); `name` is the function's name
    """
    prompt: str
    answer: str
    match: str
    kind: str = ""
    key: str = ""
    options: tuple = ()
    calls: tuple = ()
    name: str = ""


def split_of(example):
    """'train', 'val' or 'test' (80/10/10) from a hash of the key: splits cannot overlap, whatever the seed."""
    bucket = int.from_bytes(hashlib.sha256((example.key or example.prompt).encode()).digest()[:4], "big") % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


# ------------------------------------------------------------------------------------------------ numbers
NUMBER = r"[-+\u2212]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+\u2212]?\$?\.\d+"


def to_number(text):
    """'1,234' -> 1234.0, '-5' -> -5.0, '$3.0' -> 3.0; None where `text` is not one number."""
    text = text.strip().replace("\u2212", "-")
    if not re.fullmatch(NUMBER, text):
        return None
    return float(text.replace(",", "").replace("$", ""))


def find_number(text):
    """The number a reader would take as the answer, or None.

    In this order: after "answer is" / "answer:" / "####"; a number the text opens with; the last "= N"; the last number.
    """
    number = rf"(?<![\w.])({NUMBER})(?![\w]|\.\d)"
    marked = re.findall(rf"(?:answer(?:\s+is)?\s*[:=]?|####)\s*\**\s*{number}", text, re.I)
    opening = re.match(rf"\W{{0,3}}?{number}(?!\s*[-+*/x\u00d7\u00f7=]\s*\d)", text)
    equal = re.findall(rf"=\s*\**\s*{number}(?!\s*[-+*/x\u00d7\u00f7=]\s*\d)", text)
    last = re.findall(number, text)
    for found in (marked[-1:], [opening[1]] if opening else [], equal[-1:], last[-1:]):
        if found:
            return to_number(found[0])
    return None


# ------------------------------------------------------------------------------------------------ text
def normal(text):
    """Lower case, no outer punctuation, articles dropped: 'An Apple.' -> 'apple'."""
    text = re.sub(r"\s+", " ", text.lower()).strip(" \t\n.,;:!?\"'`*()[]")
    return re.sub(r"^(?:a|an|the) ", "", text)


def find_choice(text, options):
    """Index of the chosen option, or None. A letter that leads or is announced, else the one option that is named.

    A text that names several options, or whose letter and words disagree, has not chosen.
    """
    letters = "ABCDEFGHIJ"[:len(options)]
    lead = re.match(rf"\W*([{letters}])(?:[).:]|\s*$)", text.strip())
    said = re.findall(rf"(?i:answer|option|choice)(?:\s+is)?\s*:?\s*\**\(?([{letters}])\b(?!['\w])", text)
    by_letter = letters.index(said[-1]) if said else letters.index(lead[1]) if lead else None
    low = text.lower()
    named = [i for i, o in enumerate(options) if re.search(rf"(?<!\w){re.escape(o.lower())}(?!\w)", low)]
    # "hot dog" also names "dog": an option inside a longer named option does not count on its own
    named = [i for i in named if not any(i != j and options[i].lower() in options[j].lower() for j in named)]
    if len(named) == 1:
        return named[0] if by_letter in (None, named[0]) else None
    return by_letter if not named else None


# ------------------------------------------------------------------------------------------------ code
def find_code(text):
    """The Python code in an answer: the first fenced block (closed or cut off), else from the first def or import on."""
    fence = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", text, re.S | re.I)
    if fence:
        return fence[1]
    start = re.search(r"^(?:def|import|from) ", text, re.M)
    return text[start.start():] if start else text


def same_value(a, b):
    """Equal values of like type: True is not 1, [1] is not (1,), and floats are close rather than equal."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int) and isinstance(b, int):           # exact, and never turned into a float that overflows
        return a == b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) if max(abs(a), abs(b)) < 1e300 else a == b
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_value(a[k], b[k]) for k in a)
    return a == b

"""
What an example is: a question, its gold answer and how the two are compared;
which split it belongs to.

The values that a gold answer may be are here too:
one number as people write it, and what a program returns.
"""
import hashlib
import math
import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Example:
    """One question with its verifiable answer.

    prompt   what the user says, verbatim
    answer   the gold answer: a number, a text, the right option's text, or (code) a reference
             solution
    match    how to judge: number, exact, choice, quoted, contains, code, label or math; "open"
             cannot be judged and is used for routing only; or, from Python, your own function
             (example, answer text) -> reward
    kind     the template or family that made it, for break-downs
    key      what the question is about, without its wording; the split is a hash of this (see
             `split_of`)
    solution the gold answer worked out, where the question's author has written it down
    options  the texts of the choices, in the order shown (choice; quoted, where the answer goes on
             behind an opened ")
    calls    hidden tests (code): a tuple of (arguments, expected value); `name` is the function's
             name
    check    how the values that come back are judged: "" close and of like type, "==" as Python
             does, or a program whose verdict(values, asked) is run in a sandbox of its own, with
             what each call gave and was asked; before and after: program text around the answer's
             (code)
    """
    prompt: str
    answer: str
    match: str
    kind: str = ""
    key: str = ""
    options: tuple = ()
    calls: tuple = ()
    name: str = ""
    check: str = ""
    before: str = ""
    after: str = ""
    solution: str = ""


def split_of(example, buckets=10):
    """'train', 'val' or 'test' from a hash of the key: splits cannot overlap, whatever the seed.

    buckets: the last one is test, the one before it val, the others train: 80/10/10 of ten."""
    digest = hashlib.sha256((example.key or example.prompt).encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % buckets
    return {buckets - 2: "val", buckets - 1: "test"}.get(bucket, "train")


# -------------------------------------------------------------------------------------- gold values
MOST_DIGITS = 1000
NUMBER = r"(?:[-+\u2212]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+\u2212]?\$?\.\d+)"


def unnumbered(text):
    """The text without the numbering of a list, from the list on: 1. and 2. begin lines, behind the
    same marks of a heading, if any."""
    listed = re.search(r"^([ \t]*#*)[ \t]*1[.)] .*\n\1[ \t]*2[.)] ", text, re.S | re.M)
    if not listed:
        return text
    before, of_list = text[:listed.start()], text[listed.start():]
    return before + re.sub(rf"^{listed[1]}[ \t]*\d+[.)] ", "", of_list, flags=re.M)


def to_number(text):
    """'1,234' -> 1234.0, '-5' -> -5.0, '$3.0' -> 3.0; None where `text` is not one number, or has
    thousands of digits."""
    text = text.strip().replace("\u2212", "-")
    if not re.fullmatch(NUMBER, text) or len(text) > MOST_DIGITS:
        return None
    return exact(Fraction(text.replace(",", "").replace("$", "")))


def exact(fraction):
    """A Fraction as a float, or as an int where a float would round it to another one; one that is
    too large for both is infinite, which nothing equals."""
    if fraction.denominator == 1 and abs(fraction) > 2 ** 53:
        return fraction.numerator
    try:
        return float(fraction)
    except OverflowError:
        return math.inf


def same_number(a, b):
    """Are two numbers of `exact` equal, up to the rounding of floats?"""
    if isinstance(a, int) or isinstance(b, int):
        return a == b
    return abs(a - b) <= 1e-9


def normal(text):
    """Lower case, no outer punctuation, articles dropped: 'An Apple.' -> 'apple'; '.5' is '0.5'."""
    outer = " \t\n.,;:!?\"'`*()[]\u201c\u201d"
    text = re.sub(r"^(\W*?)(?<![.\w])\.(?=\d+\W*$)", r"\g<1>0.", plain(text).lower())
    text = text.strip(outer)
    return re.sub(r"^(?:a|an|the) ", "", text).strip(outer)


def plain(text):
    """A text in one of the ways to write the same: accents joined to their letters, straight single
    quotation marks, and one space for any white space."""
    text = unicodedata.normalize("NFC", text).replace("\u2018", "'").replace("\u2019", "'")
    return re.sub(r"\s+", " ", text)


def same_value(a, b):
    """Equal values of like type: True is not 1, [1] is not (1,),
    and floats are close rather than equal."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    # exact, and never turned into a float that overflows
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return (a == b or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
                if max(abs(a), abs(b)) < 1e300 else a == b)
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_value(a[k], b[k]) for k in a)
    return a == b

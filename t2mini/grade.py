"""
What an example is, and when an answer to it is right (paper 3.2: the reward r(y_hat, y) is correctness).

Kept:     one binary judgement per answer; the reward is 1.0 or 0.0.
Changed:  mends defects of the released graders: a sign counts, `1,234` is one number, an unparseable answer is wrong
          instead of a guess, and prose after a code fence, which nobody grades, earns nothing (`graded_end`).
"""
import hashlib
import math
import re
from dataclasses import dataclass

MATCHES = ("number", "exact", "choice", "quoted", "contains", "code", "label", "math", "open")


@dataclass(frozen=True)
class Example:
    """One question with its verifiable answer.

    prompt   what the user says, verbatim
    answer   the gold answer: a number, a text, the right option's text, or (code) a reference solution
    match    how to judge: one of MATCHES; "open" cannot be judged and is used for routing only; or, from Python, your own
             function (example, answer text) -> reward
    kind     the template or family that made it, for break-downs
    key      what the question is about, without its wording; the split is a hash of this (see `split_of`)
    options  the texts of the choices, in the order shown (choice; quoted, where the answer goes on behind an opened ")
    calls    hidden tests (code): a tuple of (arguments, expected value); `name` is the function's name
    check    how the values that come back are judged: "" close and of like type, "==" as Python does, or a program whose
             verdict(*values) is run in a sandbox of its own; before and after: program text around the answer's (code)
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


def split_of(example):
    """'train', 'val' or 'test' (80/10/10) from a hash of the key: splits cannot overlap, whatever the seed."""
    bucket = int.from_bytes(hashlib.sha256((example.key or example.prompt).encode()).digest()[:4], "big") % 10
    return "val" if bucket == 8 else "test" if bucket == 9 else "train"


# ------------------------------------------------------------------------------------------------ numbers
NUMBER = r"(?:[-+\u2212]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+\u2212]?\$?\.\d+)"
UNIT = r"(?:k?g|[ckm]?m[2\u00b2]?|m?l|lbs?|ft|oz)\b"                       # may be glued to a number: 8kg
BETWEEN = rf"(?:{UNIT}|(?: [a-z]+){{0,2}}) *(?:[-+*/x\u00d7\u00f7\u2212\u2013]|plus|minus|times|divided by) *"
CHAIN = rf"(?<![\w.,]){NUMBER}(?:(?:{BETWEEN}|:| to | or ){NUMBER})+"   # 5 + 3, 3 apples + 5, 3-5, 1/2, 12:30, 8 or 9


def to_number(text):
    """'1,234' -> 1234.0, '-5' -> -5.0, '$3.0' -> 3.0; None where `text` is not one number."""
    text = text.strip().replace("\u2212", "-")
    if not re.fullmatch(NUMBER, text):
        return None
    return float(text.replace(",", "").replace("$", ""))


def find_number(text):
    """The number a reader would take as the answer, or None.

    In this order: after "answer is" / "answer:" / "####"; a number the text opens with; the last "= N"; the last number.
    A sum that is not worked out, a range, a date and the numbering of a list hold no answer.
    """
    if re.search(r"^\s*1[.)] .*\n\s*2[.)] ", text, re.S):
        text = re.sub(r"^\s*\d+[.)] ", "", text, flags=re.M)
    text = re.sub(CHAIN, "_", text.replace("**", ""), flags=re.I)
    text = re.sub(r"(?<== )[-\u2212] (?=\$?\d)|\b(?:minus|negative) (?=\$?\d)", "-", text, flags=re.I)
    number = rf"(?<![\w.])(?<!\d,)({NUMBER})(?:(?!\w|[.,]\d)|(?={UNIT}))"
    marked = re.findall(rf"(?:answer(?:[^.\n\d=:]{{0,40}} is\b)?\s*[:=]?|####)(?:\s*_[^.\n=]*=)*\s*{number}", text, re.I)
    # "3 boxes of 4 make 12" opens with a number that is not the answer
    opening = re.match(rf"\W{{0,3}}?{number}(?![^.,;!?\n]*\b(?:is|are|makes?|equals?|gives?) {number})", text)
    equal = re.findall(rf"=\s*{number}", text)
    last = re.findall(number, text)
    for found in (marked[-1:], [opening[1]] if opening else [], equal[-1:], last[-1:]):
        if found:
            return to_number(found[0])
    return None


# ------------------------------------------------------------------------------------------------ text
def normal(text):
    """Lower case, no outer punctuation, articles dropped: 'An Apple.' -> 'apple'."""
    outer = " \t\n.,;:!?\"'`*()[]\u2018\u2019\u201c\u201d"
    text = re.sub(r"\s+", " ", text.lower()).strip(outer)
    return re.sub(r"^(?:a|an|the) ", "", text).strip(outer)


def find_choice(text, options):
    """Index of the chosen option, or None. A letter that leads or is announced, else the one option that is named.

    A text that names several options, or whose letter and words disagree, has not chosen.
    """
    letters, text = "ABCDEFGHIJ"[:len(options)], re.sub(r"\\boxed\{(.*?)\}|\*\*", r"\1", text).strip()
    any_case = letters + letters.lower()
    lead = re.match(rf"\W*([{any_case}])(?:[).:\]]|[!,]?\s*$)", text, re.M)
    # a small letter may be the article, so it must stand in brackets or end the line; "A or B" announces nothing
    said = re.findall(rf"(?i:answer|option|choice|letter)(?:\s+is)?\s*:?\s*(?:\(?([{letters}])\b|\(?([{any_case}])(?=\)|\.?\s*$))"
                      rf"(?!['\w]|(?:,| and| or| &|/) *\(?[{letters}]\b)", text, re.M)
    if len(set(re.findall(rf"(?<!\w)([{letters}])[).:]", text))) > 1:
        lead = None                                                     # a list of the options, not one of them
    by_letter = "".join(said[-1]) if said else lead[1] if lead else None
    by_letter = letters.index(by_letter.upper()) if by_letter else None
    low, named = text.lower(), []
    for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
        # longest first, and taken out of the text: "hot dog" does not name "dog" as well
        rest = re.sub(rf"(?<!\w){re.escape(options[i].lower())}(?!\w)", "_", low)
        named, low = (named + [i], rest) if rest != low else (named, low)
    if len(named) == 1:
        return named[0] if by_letter in (None, named[0]) else None
    return by_letter if not named else None


def find_quoted(text, options):
    """Index of the option that the text says up to its first quotation mark, in full, or None."""
    said = text.split('"')[0]
    for spelling in (str.strip, normal):                    # "Rr" is not "rr", but else capitals and full stops do not count
        found = [i for i, option in enumerate(options) if spelling(option) == spelling(said)]
        if len(found) == 1:
            return found[0]
    return None


# ------------------------------------------------------------------------------------------------ code
FENCE = re.compile(r"```(?:python3?|py)?[ \t\r]*\n(.*?)(?:```|\Z)", re.S | re.I)


def graded_end(text):
    """Where the judged part of a code answer ends: behind its first fenced block, unless nothing but space follows."""
    fence = FENCE.search(text)
    return fence.end() if fence and text[fence.end():].strip() else len(text)


def find_code(text):
    """The Python code in an answer: the first fenced block (closed or cut off), else from its first line of Python on."""
    fence = FENCE.search(text)
    if fence:
        return fence[1]
    start = re.search(r"^(?:(?:def|class|import|from) |@\w|[A-Z_]+ ?= ?)", text, re.M)
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

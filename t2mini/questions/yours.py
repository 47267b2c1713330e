"""
Questions of yours: a .jsonl file with `prompt`, `answer` and optionally `match`, `options` and
`solution` in each row.

Splits:   by place in the file, counting different prompts: of every ten the ninth is val, the tenth
          is test, the rest train. Four validation questions tell nothing, so of fewer than 200
          prompts more are val: two of ten, of fewer than 100 three, of fewer than 67 four. 20
          prompts give 8 val and 2 test, 40 give 16 and 4, 100 give 20 and 10. The same file always
          gives the same splits, no prompt is in two, and what is test stays test when rows are
          added behind.
"""
import difflib
import functools
import math
import os
import re
import sys
from collections import Counter

from ..machine import files
from .example import Example, normal, plain, to_number
from .published import read_rows

# a row may have other fields, which say nothing
FIELDS = ("prompt", "answer", "match", "options", "solution")
MATCHES = ("number", "exact", "choice", "contains")
VAL_PLACES = (8, 3, 6, 1)               # which of ten prompts are val, as many of these as needed
VAL_ROWS = 20                           # ... for so many in all
# how much alike another spelling is; a "resolution" need not be a solution
ALIKE = dict.fromkeys(FIELDS, 0.8) | {"solution": 0.93}
WORDS = ("math", "march")               # as near to `match`, and words of their own
MOST_LABELS = 6                         # as many answers, each repeated tenfold, are a choice


def read(path):
    """A file of questions -> (list of Examples with different prompts, in the file's order; how
    many more rows ask a prompt again and want another answer).

    Raises FileNotFoundError, or ValueError naming the line that is empty, not JSON or no question.
    """
    path = files.expand(path)
    if not path.exists():
        raise FileNotFoundError(f"no task file at {path}")
    found, against = {}, 0
    for number, row in read_rows(path):
        try:
            example = example_of(row)
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ValueError(f"{path} line {number}: {e}") from None
        # a prompt must not sit in two splits
        first = found.setdefault(example.prompt, example)
        against += first.answer != example.answer
    if not found:
        raise ValueError(f"{path}: the file is empty")
    return list(found.values()), against


def example_of(row):
    """One JSONL row (dict) -> Example. ValueError that says what is wrong with it."""
    if not isinstance(row, dict):
        raise ValueError("a row must be an object with `prompt` and `answer`")
    check_spelling(row)
    for field in ("prompt", "answer"):
        if field not in row:
            there = ", ".join(map(repr, row))[:80] or "none"
            raise ValueError(f"`{field}` is missing; the fields here are {there}; "
                             "rename the one that holds it")
        if not is_text(row[field]):
            raise ValueError(f"`{field}` is empty, or neither a text nor a number")
    match = row.get("match", "exact")
    answer = str(row["answer"]).strip()
    if match not in MATCHES:
        raise ValueError(f"`match` is {match!r}; it must be number, exact, choice or contains")
    if match == "number" and to_number(answer) is None:
        raise ValueError(f"`match` is number but the answer {answer!r} is not one")
    if match == "exact" and not normal(answer):
        raise ValueError(f"`answer` is {answer!r}: without punctuation nothing is left to compare")
    options = ()
    if match == "choice" or row.get("options", []) != []:
        options = options_of(row.get("options"), answer)
    solution = row.get("solution")
    if solution is None or solution == "":                  # there is none
        solution = ""
    elif isinstance(solution, bool) or not is_text(solution):
        raise ValueError("`solution`, the answer worked out, is no text; where there is none, "
                         "leave it away")
    return Example(str(row["prompt"]), answer, match, options=options,
                   solution=str(solution).strip())


def check_spelling(row):
    """ValueError where a row lacks a field and has one of nearly that name: `Match`, `option`."""
    others = {field.lower(): field for field in row if field not in FIELDS}
    for name in FIELDS:
        near = [other for other in difflib.get_close_matches(name, others, 3, ALIKE[name])
                if other[0] == name[0] and other not in WORDS]
        if near and name not in row:
            raise ValueError(f"`{name}` is missing; is {others[near[0]]!r:.40} another spelling of "
                             "it? Write it so, or give that field another name")


def is_text(value):
    """A text or a number that is not blank. (Python's JSON has NaN and Infinity.)"""
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, (str, int, float)) and bool(str(value).strip())


def options_of(options, answer):
    """The options of a row as texts. ValueError where they are none, two are equal, or the answer
    is not among them."""
    if not isinstance(options, list) or len(options) < 2 or not all(map(is_text, options)):
        raise ValueError("`options` must be a list of texts (two at least) that holds the answer")
    texts = tuple(str(option).strip() for option in options)
    often, times = Counter(texts).most_common(1)[0]
    if times > 1:
        raise ValueError(f"`options` holds {often!r} {times} times; each must be another text")
    if answer not in texts:
        raise ValueError("`options` must be a list of texts that holds the answer; "
                         f"{answer!r} is not one of them")
    return texts


@functools.cache                        # so that the same words are said once
def say_once(line, changed):
    """changed: when the file that the line is about was."""
    print(line, file=sys.stderr)


def tell(path, warnings):
    """Say what is doubtful in a file: once, however often it is read, until it changes."""
    for warning in warnings:
        say_once(f"t2mini: {path}: {warning}", os.stat(files.expand(path)).st_mtime_ns)


def doubts(found, against):
    """What `read` found -> list of warnings, each one line."""
    said = [hedging(found), few_answers(found)]
    if against:
        said += [f"{against} rows ask a prompt of an earlier row and want another answer: they are "
                 "left out. Put all that a question needs into its prompt"]
    return list(filter(None, said))


def hedging(found):
    """A warning, or "": rows where `contains` pays for repeating the question, as it names several
    of the answers.

    found: Examples of one file, in its order
    """
    asked = [e for e in found if e.match == "contains"]
    answers = {plain(e.answer).lower() for e in asked}

    def names_another(e):
        """Does the prompt hold an answer that is not its own? Few stand in it as a text at all."""
        text, own = plain(e.prompt).lower(), plain(e.answer).lower()
        return any(other in text and names(text, other) for other in answers - {own})

    named = [e for e in asked if names(e.prompt, e.answer) and names_another(e)]
    if not named:
        return ""
    return (f"{len(named)} of {len(asked)} prompts with `match` contains name their answer and "
            f"another row's: an answer that says both is right (as of {named[0].prompt[:60]!r}). "
            "Use `match` choice with `options` instead")


def few_answers(found):
    """A warning, or "": many rows where `contains` pays for saying all of a few answers."""
    asked = [e for e in found if e.match == "contains"]
    answers = sorted({e.answer.lower() for e in asked})
    if not 1 < len(answers) <= min(MOST_LABELS, len(asked) // 10) or hedging(found):
        return ""
    return (f"{len(asked)} rows with `match` contains have only {len(answers)} different answers: "
            f"a text that says {', '.join(answers)!r:.60} is right in all of them. Use `match` "
            "choice with `options` instead")


def names(text, word):
    """Does a text hold these words, as whole words, in any case? (How `contains` compares.) 2 is
    no part of 2.5, -2, 1/2 or 2,000."""
    before, behind = r"(?<!\w)", r"(?!\w)"
    if to_number(word) is not None:
        before = r"(?<![\w/\u2212])(?<!(?<!\.)\.)(?<!\d,(?=\d{3}))(?<!(?<!\w)-)"
        behind = r"(?!\w|\.\d|,\d{3}(?!\d)|/\d)"
    words = re.escape(plain(word).lower())
    return re.search(before + words + behind, plain(text).lower()) is not None


def split(found):
    """Examples with different prompts, in the file's order -> {"train": tuple, "val": tuple,
    "test": tuple, "all": tuple}."""
    wanted = math.ceil(10 * VAL_ROWS / max(len(found), 1))
    val = VAL_PLACES[:wanted]
    splits = {"train": [], "val": [], "test": []}
    for i, example in enumerate(found):
        place = i % 10
        name = {9: "test", **dict.fromkeys(val, "val")}.get(place, "train")
        splits[name].append(example)
    return {name: tuple(rows) for name, rows in splits.items()} | {"all": tuple(found)}

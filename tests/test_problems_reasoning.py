"""
The multiple-choice and everyday questions: nothing but the content may give the answer away,
and pools stay apart.

Each docstring names the break it guards against.
"""
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from t2mini.questions import reasoning as pr
from t2mini.grade import find_choice
from t2mini.questions.example import split_of
from t2mini.questions.other import SEEN, UNSEEN, make_other
from t2mini.questions.reasoning import make_reasoning

ROOT = Path(__file__).resolve().parents[1]


def draw(make, unseen, n=1500, seed=7):
    rng = random.Random(seed)
    return [make(rng, unseen) for _ in range(n)]


POOLS = {unseen: draw(make_reasoning, unseen) for unseen in (False, True)}
OTHER = {unseen: draw(make_other, unseen, 12000) for unseen in (False, True)}
both = pytest.mark.parametrize("unseen", [False, True])


def format_of(prompt):
    """Which option list a prompt has, read from the prompt alone."""
    marks = {"paren": r"\nA\) ", "dot": r"\nA\. ", "inline": r" \(A\) ", "options": r"\nOptions: ",
             "choose": r" Choose one: ", "colon": r"\nA: ", "bullets": r"\n- ",
             "words_first": r"^Here are four"}
    found = [name for name, mark in marks.items() if re.search(mark, prompt)]
    assert len(found) == 1, (found, prompt)
    return found[0]


@both
def test_the_four_options(unseen):
    """An answer that is missing, an option shown twice, or options that differ from the prompt's.
    """
    for e in POOLS[unseen]:
        assert (e.match == "choice" and len({o.lower() for o in e.options}) == 4
                and e.answer in e.options), e
        shown = e.prompt if format_of(e.prompt) != "words_first" else e.prompt.split(". ")[0]
        places = [[m.start() for m in re.finditer(rf"(?<!\w){re.escape(o)}(?!\w)", shown)][-1]
                  for o in e.options]
        assert places == sorted(places), e


@both
def test_no_shortcut(unseen):
    """An answerer that knows nothing (a fixed place, the longest, shortest,
    alphabetically first) gets above chance.
    """
    pool = POOLS[unseen]
    for place in range(4):
        assert abs(sum(e.options[place] == e.answer for e in pool) / len(pool) - .25) <= .04
    blind = {"longest": lambda e: max(e.options, key=len),
             "shortest": lambda e: min(e.options, key=len),
             "alphabet": lambda e: min(e.options, key=str.lower),
             "first": lambda e: min(e.options, key=e.prompt.find)}
    for name, answerer in blind.items():
        assert abs(sum(answerer(e) == e.answer for e in pool) / len(pool) - .25) <= .05, name


@both
def test_the_grader_accepts_the_answer(unseen):
    """Options that the grader takes for one another, in words, by letter, or with both."""
    for e in POOLS[unseen][::3]:
        gold = e.options.index(e.answer)
        for i, option in enumerate(e.options):
            for text in (option, f"The answer is {option}.", "ABCD"[i], f"{'ABCD'[i]}) {option}"):
                assert find_choice(text, e.options) == i, (text, e)
        assert find_choice(e.answer, e.options) == gold


def test_pools_share_no_family_form_or_wording():
    """Unseen questions that training has already shown in kind, wording or option list."""
    assert not set(pr.SEEN_FRAMES) & set(pr.UNSEEN_FRAMES)
    assert not set(pr.SEEN_FORMATS) & set(pr.UNSEEN_FORMATS)
    assert not set(sum(pr.SEEN_FRAMES.values(), [])) & set(sum(pr.UNSEEN_FRAMES.values(), []))
    pools = ((pr.SEEN_FRAMES, pr.SEEN_FORMATS), (pr.UNSEEN_FRAMES, pr.UNSEEN_FORMATS))
    for unseen, (frames, formats) in enumerate(pools):
        assert {e.kind for e in POOLS[unseen]} == set(frames)
        assert all(len(set(f)) >= 3 for f in frames.values())
        shares = Counter(format_of(e.prompt) for e in POOLS[unseen])
        for name, share in formats.items():
            assert abs(shares[name] / 1500 - share) < .03, name
    assert not {e.prompt for e in POOLS[False]} & {e.prompt for e in POOLS[True]}


def test_only_one_option_is_right():
    """A wrong option that the tables call right: of the same category, property,
    or group of answers.
    """
    words = [w for _, _, w in pr.CATEGORY]
    assert len(words) == len(set(words)), [w for w, n in Counter(words).items() if n > 1]
    assert min(Counter(c for _, c, _ in pr.CATEGORY).values()) >= 12
    assert len({c for _, c, _ in pr.CATEGORY}) >= 24
    for (clue,), members, others in pr.PROPERTY:
        assert (not set(members) & set(others)
                and min(len(set(members)), len(set(others))) >= 8), clue
    properties = {clue.replace("_", " "): set(members) for (clue,), members, _ in pr.PROPERTY}
    for e in POOLS[False]:
        wrong = set(e.options) - {e.answer}
        word = e.answer
        (clue,) = set(e.key.split("/")[1:]) - {word}
        if e.kind == "property":
            right = properties[clue.replace("_", " ")]
        else:
            groups = [g for g, c, w in pr.TABLES[e.kind] if (c, w) == (clue, word)]
            right = {w for g, _, w in pr.TABLES[e.kind] if any(g & own for own in groups)}
        assert word in right and not wrong & right, e
    for e in POOLS[True]:
        if e.kind == "odd_one_out":
            category = e.key.split("/")[1]
            inside = {w for _, c, w in pr.CATEGORY if c == category}
            assert e.answer not in inside and len(set(e.options) & inside) == 3, e
        if e.kind == "scale":
            most = e.key.split("/")[1]
            ((ends, things),) = [row for row in pr.SCALES if most in row[0]
                                 and set(e.options) <= set(row[1])]
            at = [things.index(o) for o in e.options]
            assert things.index(e.answer) == (max, min)[ends.index(most)](at), e


def test_keys_make_the_splits():
    """A key that carries the wording (one question in two splits), too few keys, or an empty split.
    """
    many = draw(make_reasoning, False, 5000)
    assert len({e.key for e in many}) >= 900
    for pool in (many, POOLS[True], OTHER[False], OTHER[True]):
        keys = {name: {e.key for e in pool if split_of(e) == name}
                for name in ("train", "val", "test")}
        prompts = {name: {e.prompt for e in pool if split_of(e) == name} for name in keys}
        assert all(keys.values()) and len(keys["train"]) > 5 * len(keys["test"])
        assert not prompts["train"] & (prompts["val"] | prompts["test"])
    # a right word has one key, so one split, and so has a pair that is asked both ways
    asked = set()
    for e in many:
        about = e.key.split("/")[1:]
        clue = "/".join(sorted({*about} - {e.answer})) or e.answer
        asked.add((e.kind, frozenset((clue, e.answer))))
    assert len(asked) == len({e.key for e in many})
    opposites = {frozenset(e.key.split("/")[1:]): set() for e in many if e.kind == "opposite"}
    for e in many:
        if e.kind == "opposite":
            opposites[frozenset(e.key.split("/")[1:])].add((split_of(e), e.answer))
    assert max(len(found) for found in opposites.values()) == 2
    assert all(len({split for split, _ in found}) == 1 for found in opposites.values())


def test_the_seed_decides():
    """Anything drawn from elsewhere than `rng`, or from the order of a set."""
    for make in (make_reasoning, make_other):
        for unseen in (False, True):
            assert (draw(make, unseen, 200, 3) == draw(make, unseen, 200, 3)
                    != draw(make, unseen, 200, 4))
    made = ("[make(random.Random(i), i % 2 > 0) for i in range(20) "
            "for make in (make_reasoning, make_other)]")
    # without loading torch
    bare = "import random, sys, types\nsys.modules['t2mini'] = types.ModuleType('t2mini')\n"
    bare += "sys.modules['t2mini'].__path__ = ['t2mini']\n"
    code = (bare + "from t2mini.questions.reasoning import *\n"
                   f"from t2mini.questions.other import *\nprint({made})")
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                               check=True, cwd=ROOT,
                               # other order of sets
                               env={**os.environ, "PYTHONHASHSEED": "1"}).stdout
    assert elsewhere.strip() == str([make(random.Random(i), i % 2 > 0) for i in range(20)
                                     for make in (make_reasoning, make_other)])


@both
def test_other_needs_no_expert(unseen):
    """A sum, a program or a choice among the everyday requests,
    which would teach the router wrongly.
    """
    for e in OTHER[unseen]:
        assert not re.search(r"\d\s*[-+*/x=\u00d7]\s*\d|how (many|much)|\bsum\b|percent",
                             e.prompt, re.I), e
        assert not re.search(r"function|python|\bcode\b|program|script|algorithm",
                             e.prompt, re.I), e
        assert not re.search(r"\bA[).:]|\(A\)|options|choose|which of|\n", e.prompt, re.I), e
        assert not re.search(r"[{}]|  ", e.prompt) and not e.options, e


@both
def test_other_answers(unseen):
    """A checkable request without an answer, one that gives its answer away,
    or one kind that has gone missing.
    """
    pool = OTHER[unseen]
    for e in pool:
        assert e.match in ("contains", "open") and bool(e.answer) == (e.match == "contains"), e
        shown = (re.search(rf"(?<!\w){re.escape(e.answer)}(?!\w)", e.prompt, re.I)
                 if e.answer else None)
        assert e.kind == "repeat" or not shown, e
    assert abs(sum(e.match == "open" for e in pool) / len(pool) - .5) < .05
    assert {e.kind for e in pool} == set(UNSEEN if unseen else SEEN)


def test_other_is_broad():
    """Templates shared by the pools, or so few requests that a router learns them by heart."""
    wordings = [[w for _, ws in templates.values() for w in ws] for templates in (SEEN, UNSEEN)]
    assert not set(SEEN) & set(UNSEEN) and not set(wordings[0]) & set(wordings[1])
    assert len(wordings[0]) >= 30
    many = OTHER[False]
    assert len({e.key for e in many}) >= 3000
    lengths = [len(e.prompt.split()) for e in many]
    assert min(lengths) <= 3 and max(lengths) >= 18

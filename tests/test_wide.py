"""
The messages that the dispatcher trains on: well-formed, different in every section,
and split by what they are about.

Each docstring names the break it guards against.
"""
import math
import random
import re
from collections import defaultdict

import pytest

from t2mini.questions import wide
from t2mini.questions.example import split_of
from t2mini.questions.wide import LABELS, SLOTS, TABLES, make_wide


def draw(label, n=4000, seed=5):
    rng = random.Random(seed)
    return [make_wide(rng, label) for _ in range(n)]


POOLS = {label: draw(label) for label in LABELS}
each = pytest.mark.parametrize("label", LABELS)


def slots_of(text):
    return set(re.findall(r"\{(\w)\}", text))


@each
def test_every_situation_is_whole(label):
    """A section with fewer than 90 situations, a wording that lacks a slot of its neighbour,
    or a head without use.
    """
    assert len(TABLES[label]) >= 90
    for own, lists, wordings in TABLES[label]:
        named = set("".join(own))
        for wording in wordings:
            assert (slots_of(wording) | slots_of(" ".join(lists))
                    == slots_of(" ".join([*wordings, *lists]))), wording
            assert (len(re.findall(r"\{\?\w*\}", wording)) == (label == "reasoning")
                    == bool(lists)), wording
            assert set(re.findall(r"\{\?(\w+)\}", wording)) <= set(wide.LAYOUTS), wording
        assert (named <= slots_of(" ".join([*wordings, *lists]))
                <= named | set("".join(SLOTS))), wordings
        for slots, values in own.items():
            assert len(set(values)) == len(values) > 1, (slots, values)
            assert all(len(value.split("/", len(slots) - 1)) == len(slots) for value in values), (
                slots, values)


def test_no_wording_stands_twice():
    """A wording that is in the table twice, in one section or, worse, under two labels."""
    seen = {}
    for label in LABELS:
        for number, (_, lists, wordings) in enumerate(TABLES[label]):
            for wording in wordings:
                plain = re.sub(r"\W+", " ", re.sub(r"\{\??\w*\}", "", wording)).strip().lower()
                if plain:                                   # "{a} * {p}" is nothing but slots
                    assert plain not in seen, (wording, seen[plain], label, number)
                    seen[plain] = label, number


@each
def test_nothing_is_left_to_fill(label):
    """A slot that no table fills, or a place for options that is still there."""
    for e in POOLS[label]:
        assert not re.search(r"\{[?a-zA-Z]\w*\}| :: | ~ |\\n(?!e)", e.prompt), e.prompt
        if label in ("reasoning", "other"):
            assert "{" not in e.prompt, e.prompt
        assert e.prompt == e.prompt.strip() and (e.match, e.answer) == ("open", ""), e


@each
def test_a_seed_gives_the_same_messages(label):
    """Anything but `rng` that decides: a set's order, the clock, another generator."""
    assert draw(label, 300, seed=9) == draw(label, 300, seed=9) != draw(label, 300, seed=10)


@each
def test_thousands_of_messages(label):
    """Situations of the table that never come, or few messages that come again and again."""
    assert {e.kind for e in POOLS[label]} == {f"wide/{label}/{i}"
                                              for i in range(len(TABLES[label]))}
    assert len({e.prompt for e in POOLS[label]}) > 2000


@each
def test_the_key_is_the_content(label, monkeypatch):
    """A key that holds the wording (more keys than contents), or that forgets a value
    (more messages than wordings).
    """
    monkeypatch.setattr(wide, "_dressed", lambda rng, text: text)
    monkeypatch.setattr(wide, "_laid_out", lambda rng, text, options: text + str(sorted(options)))
    keys, prompts = defaultdict(set), defaultdict(set)
    for e in draw(label, 6_000):
        number = int(e.kind.split("/")[-1])
        keys[number].add(e.key)
        prompts[number, e.key].add(e.prompt)
    for number, (own, lists, wordings) in enumerate(TABLES[label]):
        if not lists and slots_of(" ".join(wordings)) == set("".join(own)):
            assert len(keys[number]) <= math.prod(map(len, own.values())), wordings
    assert all(len(told) <= len(TABLES[label][number][2]) for (number, _), told in prompts.items())


def test_splits_share_no_content():
    """A message of the test split whose content, in these or other words, is in the train split."""
    splits = defaultdict(set)
    for label in LABELS:
        for e in POOLS[label]:
            number = int(e.kind.split("/")[-1])
            spoken = e.prompt.lower().strip(".?! ")
            splits[e.kind, e.key].add(split_of(e))
            splits[spoken].add(split_of(e))
            if not slots_of(" ".join(TABLES[label][number][2])) and not TABLES[label][number][1]:
                splits[e.kind].add(split_of(e))
    assert all(len(found) == 1 for found in splits.values()), (
        [k for k, found in splits.items() if len(found) > 1][:3])
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}


def test_options_are_in_the_message():
    """A reasoning message without its options, with one of them twice,
    or in another order than said.
    """
    for e in POOLS["reasoning"]:
        prompt, options = e.prompt.lower(), [o.lower().rstrip(".!") for o in e.options]
        assert 2 <= len(set(options)) == len(options) <= 5, e
        after = [prompt.rfind(options[-1])]
        for option in options[-2::-1]:
            after.append(prompt.rfind(option, 0, after[-1] + len(options[-1])))
        assert min(after) >= 0, e
    assert all(not e.options for label in LABELS if label != "reasoning" for e in POOLS[label])


def test_every_layout_is_used(monkeypatch):
    """Fails if a layout of the table is never drawn:
    the dispatcher would know options by fewer looks than it says.
    """
    signed = {name: (*how[:-1], f"{how[-1]}<{name}>") for name, how in wide.LAYOUTS.items()}
    monkeypatch.setattr(wide, "LAYOUTS", signed)
    drawn = set(re.findall(r"<(\w+)>", " ".join(e.prompt for e in draw("reasoning"))))
    assert len(signed) > 30 and signed.keys() - drawn == set()

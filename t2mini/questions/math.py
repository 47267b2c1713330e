"""
Arithmetic word problems of one and two steps, for the math expert (stand-in for the paper's GSM8K).

What:  `make_math(rng)` draws one problem;
       `unseen=True` draws from other situations, told in other words.
Drill: of the train questions, and of no others, DRILL are exchanged for what is hard to come by:
       two steps or a division, half of them with SMALL numbers. One answer in twenty-five of the
       base model to such a problem is right, and a model that has learnt to add and to stop does
       not find the second step any more. Val and test questions stay as drawn.
Why:   a 135M model is rewarded only where it is sometimes right, so numbers are small (RANGES,
       TWO_STEP and the constraints tune the difficulty): what is hard is to see which operation, or
       which two, the story asks for. Differences stay below 10: this model is right about 9 + 8 and
       6 x 7 long before it is right about 13 - 9.

Worked: `make_worked(rng)` draws the same with a solution, an operation at a time: what a training
       imitates, and the last operation of which is the answer.

Tables: questions/math.txt. A line is "kind | answer | constraint | wording ~ other wording".
        {a} {b} {c} are numbers, {n} {m} names, {x} a thing. The answer is arithmetic on a, b, c;
        only that file is ever evaluated.
"""
import random
import re
from dataclasses import replace

from .example import Example, split_of
from .tables import read

RANGES = {"a": (3, 15), "b": (2, 10), "c": (2, 6)}       # small sums, and products of at most 60
SMALL = {"a": (3, 8), "b": (2, 5), "c": (2, 3)}
TWO_STEP = 0.2                                           # share of two-step problems
# share of the train questions that are exchanged
DRILL = 0.6
DIVISIONS = ("1step/share", "1step/fill")
# What a key says for a number that no wording shows. This text was chosen by counting, before any
# training: with it each seen kind has about a tenth of its situations in val and a tenth in test.
HIDDEN = "?551"

NAMES = ("Tom Anna Ben Lisa Omar Mia Sam Nora Leo Emma Raj Kate "
         "Max Zoe Ivan Ella Hugo Lucy Adam Sara Paul Rosa Finn Jane",
         "Yuki Pedro Greta Amir Olga Kofi Ingrid Tariq "
         "Bella Mateo Freya Dmitri Aisha Felix Chen Marta")
THINGS = ("apples pencils marbles stickers books balls stamps shells buttons medals "
          "cards flowers stones toys beads cups hats candies ribbons keys "
          "oranges crayons badges spoons").split()


def _table(text):
    """-> list of (kind, answer code, constraint code, wordings, letters that a wording shows)."""
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    return [(kind, compile(answer, kind, "eval"), compile(rule, kind, "eval"), told.split(" ~ "),
             _shown(told)) for kind, answer, rule, told in rows]


def _shown(told):
    """The numbers that a reader of a wording sees or can tell: ['b', 'c'] of "{b*c} among {c}"."""
    return sorted(set(re.findall(r"\b[abc]\b", " ".join(re.findall(r"{([^}]*)}", told)))))


POOLS = {False: _table(read("math")["SEEN"]), True: _table(read("math")["UNSEEN"])}


def make_math(rng, unseen=False):
    """One word problem. Its key is the kind with the numbers that a reader sees or can tell, so a
    split holds situations that no other split has."""
    step = "2step/" if rng.random() < TWO_STEP else "1step/"
    example = _told(rng, rng.choice([t for t in POOLS[unseen] if t[0].startswith(step)]), unseen)
    if unseen or split_of(example) != "train":
        return example
    # so that `rng`, and what it draws next, is as without a drill
    own = random.Random(example.prompt)
    return _drilled(own) if own.random() < DRILL else example


def _drilled(rng):
    """A train question of two steps (three of four times) or with a division."""
    two = rng.random() < 0.75
    hard = [t for t in POOLS[False] if (t[0].startswith("2step/") if two else t[0] in DIVISIONS)]
    while True:
        example = _told(rng, rng.choice(hard), ranges=rng.choice([SMALL, RANGES]))
        if split_of(example) == "train" and int(example.answer) > 0:
            return example


def _told(rng, row, unseen=False, ranges=RANGES):
    """A row of the table with numbers that keep its constraint, names and a thing filled in."""
    kind, answer, rule, told, shown = row
    while True:
        v = {k: rng.randint(*span) for k, span in ranges.items()}
        if eval(rule, {}, v):
            break
    n, m = rng.sample(NAMES[unseen].split(), 2)
    words = {**v, "n": n, "m": m, "x": rng.choice(THINGS),
             **{e: eval(e, {}, v) for e in ("b*c", "b*c-2", "b-c", "b+c")}}
    text = rng.choice(told)
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    used = " ".join(str(v[k]) if k in shown else HIDDEN for k in "abc")
    return Example(text, str(eval(answer, {}, v)), "number", kind, f"{kind} {used}")


# --------------------------------------------------------------------------------- worked solutions
ROWS = [row.split(" | ") for text in read("math").values() for row in text.splitlines()]
WAYS = {kind: answer for kind, answer, *_ in ROWS}
# where the table's answer is not what a reader of the question would work out
WAYS |= {"1step/share": "(b*c) / c", "1step/fill": "(b*c) / c", "1step/pages": "(b*c) / c",
         "2step/share_sum": "((b*c-2) + 2) / c", "2step/average": "((b-c) + (b+c)) / 2",
         "2step/per_day_left": "(b*c) - 2 * c", "2step/twice": "b + 2 * b"}


def worked(example):
    """'9 * 4 = 36': how the numbers of a problem give its answer. ValueError for other examples."""
    kind, *numbers = example.key.split(" ")
    if kind not in WAYS:
        raise ValueError(f"no worked solution is known to {example.prompt[:60]!r}")
    v = {k: int(number) for k, number in zip("abc", numbers) if number != HIDDEN}
    way = re.sub(r"\(([abc*+\-2]+)\)", lambda found: str(eval(found[1], {}, v)), WAYS[kind])
    way = re.sub(r"\b[abc]\b", lambda found: str(v[found[0]]), way)
    return f"{way} = {example.answer}"


# what is reckoned first: in brackets, then products and quotients, then sums
FIRST = (r"\((\d+ [-+*/] \d+)\)", r"(\d+ [*/] \d+)", r"(\d+ [-+] \d+)")


def in_steps(example):
    """'4 * 6 = 24. 24 - 9 = 15. The answer is 15.' of '4 * 6 - 9 = 15'. ValueError as of
    `worked`."""
    way, told = worked(example).rpartition(" = ")[0], []
    while not re.fullmatch(r"-?\d+", way):
        step = next(found for first in FIRST if (found := re.search(first, way)))
        value = str(int(eval(step[1])))                     # two numbers and a sign between them
        told.append(f"{step[1]} = {value}. ")
        way = way[:step.start()] + value + way[step.end():]
    return "".join(told) + f"The answer is {example.answer}."


def make_worked(rng):
    """A problem of `make_math` with its solution, worked out step by step."""
    example = make_math(rng)
    return replace(example, solution=in_steps(example))

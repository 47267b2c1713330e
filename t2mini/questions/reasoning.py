"""
Multiple-choice questions of common knowledge, for the reasoning expert
(stand-in for the paper's ARC training data).

What:  `make_reasoning(rng)` draws one question with four options; `unseen=True` draws from other
       families, asked with other words and in other option lists, to see whether the expert learned
       to answer questions or these questions.
Why:   a 135M model is rewarded only where it is sometimes right, so the content is what a child
       knows; the form is what it has to learn. The correct option's place is uniform, and right and
       wrong words come from the same tables.

Tables: questions/reasoning.txt. A line of `_pairs` is one group of "clue=answer" (a line that ends
        in ";" goes on); a line of `_sets` is "groups | clue | words". Answers that share a group
        never stand against each other: "saw" cuts paper, too.
"""
import random

from .example import Example
from .tables import read

# How often each option list is drawn, per pool: the one place to tune the difficulty.
SEEN_FORMATS = {"paren": 0.12, "dot": 0.12, "inline": 0.12, "options": 0.32, "choose": 0.32}
UNSEEN_FORMATS = {"colon": 0.35, "bullets": 0.30, "words_first": 0.35}


def _pairs(text, both=False):
    """[(groups, clue, answer)], one group per line; `both`: each pair also the other way round."""
    lines = text.strip().replace(";\n", ";").splitlines()
    table = [({i}, *pair.strip().split("="))
             for i, line in enumerate(lines) for pair in line.split(";")]
    return table + [(g, b, a) for g, a, b in table] if both else table


def _sets(text):
    """[(groups, clue, word)] from lines "groups | clue | words";
    groups are letters, "_" inside a word is a space."""
    rows = [line.split(" | ") for line in text.strip().splitlines()]
    return [({*g.strip(), clue}, clue, w.replace("_", " "))
            for g, clue, words in rows for w in words.split()]


TEXT = read("reasoning")
CATEGORY, MATERIAL, COLOR = (_sets(TEXT[name]) for name in ("CATEGORY", "MATERIAL", "COLOR"))
USE, PLACE, JOB, YOUNG, SOUND, PART, CAUSE = (_pairs(TEXT[name]) for name in (
    "USE", "PLACE", "JOB", "YOUNG", "SOUND", "PART", "CAUSE"))
OPPOSITE, SYNONYM = (_pairs(TEXT[name], both=True) for name in ("OPPOSITE", "SYNONYM"))
PROPERTY, SCALES = ([[part.split() for part in line.split("|")] for line in TEXT[name].splitlines()]
                    for name in ("PROPERTY", "SCALES"))
SCIENCE = [line.split(" = ") for line in TEXT["SCIENCE"].splitlines()]
ORDER = {"day": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
         "month": ("January February March April May June "
                   "July August September October November December").split()}

# clue -> {0}; at least three wordings each
SEEN_FRAMES = {
    "category": ["Which of these is {0}?",
                 "Which one of the following is {0}?",
                 "Only one names {0}. Which one?"],
    "use": ["Which of these would you use to {0}?",
            "What do people use to {0}?",
            "I want to {0}. What do I need?"],
    "property": ["Which of these {0}?", "Which one {0}?", "Find the word for something that {0}."],
    "opposite": ["What is the opposite of {0}?",
                 "Which is the opposite of \"{0}\"?",
                 "{0} is the contrary of what?"],
    "place": ["Where would you find {0}?",
              "Where are you most likely to see {0}?",
              "In what place do you expect {0}?"],
    "job": ["Who {0}?", "Which person {0}?", "What do we call someone who {0}?"],
    "material": ["Which of these is made of {0}?",
                 "Which thing consists of {0}?",
                 "What is mostly made of {0}?"],
    "color": ["Which of these is usually {0}?",
              "Which thing has the color {0}?",
              "What is {0} in color?"],
    "young": ["What is a young {0} called?",
              "What do we call a very young {0}?",
              "Which is the young of a {0}?"],
    "sound": ["Which animal {0}?", "Which of these animals {0}?", "Name the animal that {0}."],
    "part": ["Which of these has {0}?", "What has {0}?", "Which thing comes with {0}?"]}
UNSEEN_FRAMES = {
    "odd_one_out": ["Three are alike. Which one is not?",
                    "Find the odd one out.",
                    "Which does not fit the rest?"],
    "synonym": ["Which word means almost the same as {0}?",
                "Another word for {0} is",
                "{0} has the same meaning as"],
    "analogy": ["{0} is to {1} as {2} is to what?",
                "{0} goes with {1}, so {2} goes with",
                "{0} : {1} = {2} : ?"],
    "scale": ["Out of these four, what is the {0}?",
              "What would you call the {0} here?",
              "Compare them: the {0} is"],
    "order": ["What {0} comes directly {1} {2}?",
              "The {0} right {1} {2} is",
              "Say which {0} is just {1} {2}."],
    "cause": ["What happens when you {0}?",
              "Suppose you {0}. What will happen?",
              "If you {0}, then"],
    "science": ["{0}", "Science class: {0}", "A student asks: {0}"]}
TABLES = {"category": CATEGORY, "use": USE, "opposite": OPPOSITE, "place": PLACE, "job": JOB,
          "material": MATERIAL, "color": COLOR, "young": YOUNG, "sound": SOUND, "part": PART,
          "synonym": SYNONYM, "cause": CAUSE}
WEIGHTS = {"category": 8, "property": 4, "opposite": 2, "young": 0.5, "sound": 0.5, "science": 2}


# ----------------------------------------------------------------------------------------- builders
def _fact(table, clue, word):
    """A key. Of a pair that the table asks both ways (early and late are opposites) it is the same
    for both, so that one split has both."""
    both = any((c, w) == (word, clue) for _, c, w in table)
    return "/".join(sorted((clue, word)) if both else (clue, word))


def _others(table, group):
    """The answers that may stand as wrong ones beside an answer of `group`, in a fixed order."""
    near = {word for g, _, word in table if g & group}
    return sorted({word for g, _, word in table if not g & group} - near)


def _from_table(rng, family):
    table = TABLES[family]
    group, clue, word = rng.choice(table)
    return (clue,), _fact(table, clue, word), word, rng.sample(_others(table, group), 3)


def _property(rng, family):
    (clue,), members, others = rng.choice(PROPERTY)
    word = rng.choice(members)
    return (clue.replace("_", " "),), f"{clue}/{word}", word, rng.sample(others, 3)


def _odd_one_out(rng, family):
    group, clue, _ = rng.choice(CATEGORY)
    same = [w for _, c, w in CATEGORY if c == clue]
    word = rng.choice(_others(CATEGORY, group))
    return (), f"{clue}/{word}", word, rng.sample(same, 3)


def _analogy(rng, family):
    table = TABLES[rng.choice(["young", "opposite", "synonym"])]
    group, clue, word = rng.choice(table)
    example = rng.choice([row for row in table if not row[0] & group])
    pool = [w for w in _others(table, group) if w not in example]
    return (*example[1:], clue), _fact(table, clue, word), word, rng.sample(pool, 3)


def _scale(rng, family):
    (up, down), things = rng.choice(SCALES)
    most, things = rng.choice([(up, things), (down, things[::-1])])
    at = rng.randrange(3, len(things))
    return (most.replace("_", " "),), f"{most}/{things[at]}", things[at], rng.sample(things[:at], 3)


def _order(rng, family):
    unit = rng.choice(list(ORDER))
    names, step = ORDER[unit], rng.choice([1, -1])
    at = rng.randrange(len(names))
    here, word = names[at], names[(at + step) % len(names)]
    pool = [n for n in names if n not in (here, word)]
    return ((unit, "after" if step == 1 else "before", here), "/".join(sorted((here, word))), word,
            rng.sample(pool, 3))


def _science(rng, family):
    question, answers = rng.choice(SCIENCE)
    word, *wrong = answers.split(", ")
    return (question,), f"{question}/{word}", word, wrong


BUILDERS = {"property": _property, "odd_one_out": _odd_one_out, "analogy": _analogy,
            "scale": _scale, "order": _order, "science": _science}


def show(question, options, style):
    """The question with its options in one of the formats above."""
    lettered = list(zip("ABCD", options))
    if style == "words_first":
        return f"Here are four answers: {'; '.join(options)}. {question}"
    return question + {
        "paren": "".join(f"\n{a}) {o}" for a, o in lettered),
        "dot": "".join(f"\n{a}. {o}" for a, o in lettered),
        "inline": "".join(f" ({a}) {o}" for a, o in lettered),
        "options": "\nOptions: " + ", ".join(options),
        "choose": f" Choose one: {', '.join(options[:3])}, or {options[3]}.",
        "colon": "".join(f"\n{a}: {o}" for a, o in lettered),
        "bullets": "".join(f"\n- {o}" for o in options)}[style]


def make_reasoning(rng: random.Random, unseen: bool = False) -> Example:
    """One question with four options;
    its key is the family, the clue and the right word (of a pair asked both ways in one order),
    never the wording."""
    frames, formats = (UNSEEN_FRAMES, UNSEEN_FORMATS) if unseen else (SEEN_FRAMES, SEEN_FORMATS)
    family = rng.choices(list(frames), [WEIGHTS.get(f, 1) for f in frames])[0]
    slots, about, word, wrong = BUILDERS.get(family, _from_table)(rng, family)
    question = rng.choice(frames[family]).format(*slots)
    options = [word, *wrong]
    rng.shuffle(options)
    style = rng.choices(list(formats), list(formats.values()))[0]
    prompt = show(question[0].upper() + question[1:], options, style)
    return Example(prompt, word, "choice", family, f"{family}/{about}", tuple(options))

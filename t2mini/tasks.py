"""
Tasks: where examples come from and what pays the reward (paper 4.1 uses GSM8K, MBPP and ARC; these
are made here).

Built in: math, code, reasoning (an expert each), their `-unseen` counterparts made of families and
          wording that training never shows, other (needs no expert) and dispatch (which of the
          four does a question need?). A fifth skill is a file in questions/ and a row of
          SKILL_TABLE.
Splits:   train, val and test are disjoint in their keys: a hash of an example's key decides
          (example.split_of). train trains, val selects checkpoints and gives few-shot examples,
          test is only ever scored. Of unseen tasks in words, on which nothing is trained, each
          split has a third: with a tenth, few-shot examples and scored questions were of other
          kinds.
Worked:   math-worked has questions like math's, and solutions that write every step down, for
          --objective=next-token to imitate.
Images:   the questions of vision-unseen are about a drawn image (questions/drawn.py).
Published: gsm8k, mbpp, arc-easy, arc-challenge, math-500, humaneval and easy-vqa, from a folder of
          yours (published.py).
Yours:    a .jsonl file with `prompt`, `answer` and optionally `match` (number, exact, choice,
          contains), `options` and `solution` is a task too (yours.py).
"""
import random
import re
from dataclasses import dataclass, replace
from numbers import Real
from typing import Callable

from .grade import find_choice, find_code, find_number, find_quoted
from .machine.text import meant
from .questions import latex, published, yours
from .questions.asserts import tested
from .questions.code import make_code
from .questions.drawn import make_drawn
from .questions.example import normal, same_number, split_of, to_number
from .questions.math import make_math, make_worked
from .questions.other import make_other
from .questions.reasoning import make_reasoning
from .questions.wide import either

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Task:
    """name; make(rng) -> Example; max_tokens an answer may have; skill: the label a router should
    give; opener: words that every answer goes on from; runs_code: are answers judged by running
    them?; buckets: see split_of."""
    name: str
    make: Callable
    max_tokens: int
    skill: str
    opener: str = ""
    runs_code: bool = False
    buckets: int = 10

    def examples(self, split, n, seed=0):
        """n different examples of a split, the same ones for the same seed. ValueError where there
        are not so many."""
        known_split(split)
        rng = random.Random(f"{self.name} {split} {seed}")
        found, tries = {}, 0
        while len(found) < n:
            example = self.make(rng)
            if split_of(example, self.buckets) == split:
                found.setdefault(example.prompt, example)
            tries += 1
            if tries > 200 * n + 10_000:
                raise ValueError(f"task {self.name} has only {len(found)} examples in its {split} "
                                 f"split; asked for {n}")
        return list(found.values())


class ListTask(Task):
    """A task whose examples are all there: make() -> {split: tuple of Examples}."""

    def examples(self, split, n, seed=0):
        """Up to n different examples of a split (all of them where n is larger), in an order that
        the seed decides. Of a file of yours "all" is a split, too."""
        splits = self.make()
        if split not in splits:
            known_split(split)
        rows = list(splits.get(split, ()))
        if not rows:
            has = ", ".join(f"{len(v)} in {k}" for k, v in splits.items())
            raise ValueError(f"{self.name} has no examples in its {split} split ({has}); of a file "
                             "of yours, the tenth of every ten rows is test, so it needs at least "
                             "10 different rows")
        random.Random(seed).shuffle(rows)
        return rows[:n]


def known_split(split):
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")


# ------------------------------------------------------------------------------------------- skills
@dataclass(frozen=True)
class Skill:
    """label: what the dispatcher says; make(rng, unseen=False) -> Example; words: how the dispatch
    prompt explains the label; max_tokens an answer may have; has_expert: is there an expert of this
    name? (else the base model answers); runs_code: are answers judged by running them?"""
    label: str
    make: Callable
    words: str
    max_tokens: int
    has_expert: bool = True
    runs_code: bool = False


# The one table of skills. Experts are mixed, and tasks listed, in the order of its rows.
SKILL_TABLE = (
    Skill("math", make_math, "a number", 64),
    Skill("code", make_code, "a program", 96, runs_code=True),
    Skill("reasoning", make_reasoning, "options to choose from", 24),
    Skill("other", make_other, "chat, facts, writing", 48, has_expert=False),
)
MIXED = tuple(s.label for s in SKILL_TABLE if s.has_expert)  # what CEM mixes, in the order of alpha
SKILLS = tuple(sorted(MIXED))  # each has an expert of that name
# The order in which the dispatcher's questions are drawn: another one changes every seeded run.
LABELS = SKILLS + tuple(s.label for s in SKILL_TABLE if not s.has_expert)


# ----------------------------------------------------------------------------------------- dispatch
def listed():
    """'"other" (chat, ...), "code" (a program), ... or "reasoning" (...)': every label with its
    words."""
    words = {skill.label: skill.words for skill in SKILL_TABLE}
    said = [f'"{label}" ({words[label]})' for label in [*LABELS[len(SKILLS):], *SKILLS]]
    return ", ".join(said[:-1]) + f" or {said[-1]}"


DISPATCH = f"""{{question}}

---
The message above is either {listed()}. Which one is it?"""
# Put into the model's mouth, so that it goes on with a label. Of two dozen wordings this is the one
# after which the base model's labels are spread most evenly (2 % at least, on train questions):
# what is never sampled is never rewarded.
DISPATCH_OPENER = 'This is "'
DISPATCH_TOKENS = 2  # a label is one or two tokens; what follows does not matter


def dispatch_prompt(question):
    """The one dispatch prompt: training, testing and asking all build it here. Long questions are
    cut."""
    if len(question) > 1200:
        question = question[:800] + " ... " + question[-400:]
    return DISPATCH.format(question=question)


def find_label(text):
    """The label an answer names, or None if it names none or several. Case and punctuation do not
    matter."""
    named = {*re.findall(r"[a-z]+", text.lower())} & {*LABELS}
    return named.pop() if len(named) == 1 else None


def make_dispatch(rng):
    """A question of one of the classes; the class is the answer. Classes are equally likely."""
    label = rng.choice(LABELS)
    skill = next(skill for skill in SKILL_TABLE if skill.label == label)
    example = either(rng, label, skill.make)
    prompt = dispatch_prompt(example.prompt)
    return replace(example, prompt=prompt, answer=label, match="label", kind=label,
                   options=LABELS)


def unseen(make):
    """A maker of questions that training never shows."""
    return lambda rng: make(rng, unseen=True)


def gradable(make):
    """A maker of those questions of `make` that have a right answer."""
    def made(rng):
        while True:
            example = make(rng)
            if example.match != "open":
                return example
    return made


def built_in():
    """name -> Task: of each skill one, of each expert one more with unseen questions, and
    dispatch."""
    experts = [(s.label, s.make, s) for s in SKILL_TABLE if s.has_expert]
    others = [(s.label, s.make, s) for s in SKILL_TABLE if not s.has_expert]
    rows = experts + [(f"{name}-unseen", unseen(make), s) for name, make, s in experts] + others
    tasks = [Task(name, gradable(make), s.max_tokens, s.label, runs_code=s.runs_code,
                  buckets=3 if name.endswith("-unseen") else 10)
             for name, make, s in rows]
    tasks += [Task("math-worked", make_worked, 64, "math"),
              Task("vision-unseen", make_drawn, 12, "vision"),
              Task("dispatch", make_dispatch, DISPATCH_TOKENS, "other", DISPATCH_OPENER)]
    return {task.name: task for task in tasks}


BUILT_IN = built_in()


# ------------------------------------------------------------------------------------------ by name
def get(name, data=None, choose=False):
    """A built-in task by name, a published one from the folder `data`, or one made of the user's
    .jsonl file.

    choose: answers will be chosen among each question's options (--objective=options, --choose), so
    each must list some. ValueError for anything else, and where the data are missing or wrong.
    """
    if name in BUILT_IN:
        task = BUILT_IN[name]
    elif name in published.SETS:
        task = from_published(name, data)
    elif str(name).endswith(".jsonl"):
        task = from_jsonl(name)
    else:
        known = [*BUILT_IN, *published.SETS]
        raise ValueError(f"unknown task {name!r}{meant(str(name), known)} Choose from "
                         f"{', '.join(known)} or give a file of yours, whose name ends in .jsonl")
    if choose:
        whole = isinstance(task, ListTask)
        for example in sum(task.make().values(), ()) if whole else [task.make(random.Random(0))]:
            option_texts(example)
    return task


def from_published(name, data=None):
    """A published set, read from the folder `data` -> Task."""
    of = published.SETS[name]
    splits = published.load(name, published.folder_of(data))
    return ListTask(name, lambda: splits, of.max_tokens, of.skill, of.opener, of.skill == "code")


def from_jsonl(path):
    """A .jsonl file -> Task; its prompts are split by their place (see yours.py).

    Raises ValueError naming the line that is empty, not JSON, or lacks `prompt` or `answer`.
    """
    found, against = yours.read(path)
    yours.tell(path, yours.doubts(found, against))
    splits = yours.split(found)
    return ListTask(str(path), lambda: splits, 96, "other")


# --------------------------------------------------------------------------------------- the reward
def gold(example):
    """A text that is a right answer, worked out where that is written down: what next-token
    training imitates. ValueError where an example has none."""
    if example.match not in ("number", "exact", "choice", "quoted", "contains", "label", "code"):
        raise ValueError(f"no right answer is known to {example.prompt[:60]!r}, so there is "
                         "nothing to imitate or to measure: this needs examples with a gold answer")
    if example.match == "code":
        return f"```python\n{example.answer.strip()}\n```"
    answer = example.solution or example.answer
    return answer + '"' * (example.match in ("quoted", "label"))   # closes its opener's quotation


def option_texts(example):
    """The answers that name each option of an example, in their order. ValueError where it lists
    none."""
    if not example.options:
        raise ValueError(f"{example.prompt[:60]!r} lists no options to choose among "
                         "(--choose, --objective=options)")
    return [gold(replace(example, answer=option, solution="")) for option in example.options]


class RewardError(ValueError):
    """A judge failed or gave no usable number; the line names the example."""


def rewards(examples, texts, counts=None):
    """What each (example, answer text) earns: 1.0 or 0.0, or what the example's own judge says
    (`match` a function).

    Code runs in the sandbox, all answers of the batch at once. counts: a Counter, to which the
    number of programs that took too long is added as "timeouts". Raises RewardError.
    """
    programs = [(e, find_code(text)) for e, text in zip(examples, texts) if e.match == "code"]
    passed = iter(tested(programs, counts))
    return [float(next(passed)) if e.match == "code" else judged(e, text)
            for e, text in zip(examples, texts)]


def judged(example, text):
    """What one answer earns that needs no program to be run. Nothing but a number from 0 to 1 is a
    reward: scores are shares, and `wrong` counts from them."""
    judge = example.match if callable(example.match) else right
    try:
        earned = judge(example, text)
        if isinstance(earned, Real) and 0 <= earned <= 1:
            return float(earned)
        problem = f"gave {earned!r:.60}, which is not a number from 0 to 1,"
    except Exception as e:
        problem = f"raised {type(e).__name__} ({str(e)[:80]})"
    raise RewardError(f"the reward {problem} for the answer {text[:80]!r} "
                      f"to {example.prompt[:80]!r}")


FIND = {"choice": find_choice, "quoted": find_quoted}       # (text, options) -> index or None


def right(example, text):
    """Judge one answer that needs no program to be run. What cannot be read as an answer is
    wrong."""
    if example.options and text.strip() in option_texts(example):
        # an option in full is that option, also where another one contains it or differs in case
        # only
        return text.strip() == gold(replace(example, solution=""))
    if example.match == "number":
        got, want = find_number(text), to_number(example.answer)
        return got is not None and same_number(got, want)
    if example.match == "math":
        return latex.right(text, example.answer, example.prompt)
    if example.match in FIND:
        i = FIND[example.match](text, example.options)
        return i is not None and example.options[i] == example.answer
    if example.match == "label":
        return find_label(text) == example.answer
    if example.match == "contains":
        return yours.names(text, example.answer)
    if example.match == "exact":
        return normal(text) == normal(example.answer)
    raise ValueError(f"an example with match={example.match!r} has no right answer")

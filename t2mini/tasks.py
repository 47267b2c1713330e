"""
Tasks: where examples come from and what pays the reward (paper 4.1 uses GSM8K, MBPP and ARC; these are made here).

Built in: math, code, reasoning (an expert each), their `-unseen` counterparts made of families and wording that
          training never shows, other (needs no expert) and dispatch (which of the four does a question need?).
Splits:   train, val and test are disjoint by construction: a hash of an example's content decides (grade.split_of).
          train trains, val selects checkpoints and gives few-shot examples, test is only ever scored.
Published: gsm8k, mbpp, arc-easy, arc-challenge, math-500 and humaneval, from a folder of yours (published.py).
Yours:    a .jsonl file with `prompt`, `answer` and optionally `match` (number, exact, choice, contains) is a task too.
"""
import difflib
import math
import operator
import random
import re
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Callable

from .questions import latex, published, sandbox
from .grade import find_choice, find_code, find_number, find_quoted
from .questions.code import make_code
from .questions.example import Example, normal, same_value, split_of, to_number
from .questions.yours import example_of
from .questions.math import make_math
from .questions.other import make_other
from .questions.reasoning import make_reasoning

SPLITS = ("train", "val", "test")
LABELS = ("code", "math", "reasoning", "other")     # "other" means: the base model, no expert


@dataclass(frozen=True)
class Task:
    """name; make(rng) -> Example; max_tokens an answer may have; skill: the label a router should give; opener: words
    that every answer goes on from; runs_code: are answers judged by running them?"""
    name: str
    make: Callable
    max_tokens: int
    skill: str
    opener: str = ""
    runs_code: bool = False

    def examples(self, split, n, seed=0):
        """n different examples of a split, the same ones for the same seed. ValueError where there are not so many."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        rng = random.Random(f"{self.name} {split} {seed}")
        found, tries = {}, 0
        while len(found) < n:
            example = self.make(rng)
            if split_of(example) == split:
                found.setdefault(example.prompt, example)
            tries += 1
            if tries > 200 * n + 10_000:
                raise ValueError(f"task {self.name} has only {len(found)} examples in its {split} split; asked for {n}")
        return list(found.values())


# ---------------------------------------------------------------------------------------------- dispatch
DISPATCH = """{question}

---
The message above is either "other" (chat, facts, writing), "code" (a program), "math" (a number) or "reasoning" (options \
to choose from). Which one is it?"""
# Put into the model's mouth, so that it goes on with a label. Of two dozen wordings this is the one after which the base
# model's labels are spread most evenly (2 % at least, on train questions): what is never sampled is never rewarded.
DISPATCH_OPENER = 'This is "'
DISPATCH_TOKENS = 2                                 # a label is one or two tokens; what follows does not matter


def dispatch_prompt(question):
    """The one dispatch prompt: training, testing and asking all build it here. Long questions are cut."""
    question = question if len(question) <= 1200 else question[:800] + " ... " + question[-400:]
    return DISPATCH.format(question=question)


def find_label(text):
    """The label an answer names, or None if it names none or several. Case and punctuation do not matter."""
    named = [w for w in re.findall(r"[a-z]+", text.lower()) if w in LABELS]
    return named[0] if len(set(named)) == 1 else None


def make_dispatch(rng):
    """A question of one of the four classes; the class is the answer. Classes are equally likely."""
    label = rng.choice(LABELS)
    example = {"code": make_code, "math": make_math, "reasoning": make_reasoning, "other": make_other}[label](rng)
    return replace(example, prompt=dispatch_prompt(example.prompt), answer=label, match="label", kind=label)


def make_gradable_other(rng, unseen=False):
    while (example := make_other(rng, unseen)).match == "open":
        pass
    return example


def unseen(make):
    return lambda rng: make(rng, unseen=True)


BUILT_IN = {t.name: t for t in (
    Task("math", make_math, 64, "math"),
    Task("code", make_code, 96, "code", runs_code=True),
    Task("reasoning", make_reasoning, 24, "reasoning"),
    Task("math-unseen", unseen(make_math), 64, "math"),
    Task("code-unseen", unseen(make_code), 96, "code", runs_code=True),
    Task("reasoning-unseen", unseen(make_reasoning), 24, "reasoning"),
    Task("other", make_gradable_other, 48, "other"),
    Task("dispatch", make_dispatch, DISPATCH_TOKENS, "other", DISPATCH_OPENER),
)}


def get(name, data=None):
    """A built-in task by name, a published one from the folder `data`, or one made of the user's .jsonl file.

    ValueError for anything else, and where the data are missing or wrong.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name in published.SETS:
        of, splits = published.SETS[name], published.load(name, published.folder_of(data))
        return ListTask(name, lambda: splits, of.max_tokens, of.skill, of.opener, of.skill == "code")
    if str(name).endswith(".jsonl"):
        return from_jsonl(name)
    known = [*BUILT_IN, *published.SETS]
    near = difflib.get_close_matches(name, known, 1)
    raise ValueError(f"unknown task {name!r}" + (f"; did you mean {near[0]}?" if near else "") +
                     f" Choose from {', '.join(known)} or give a .jsonl file")


# ---------------------------------------------------------------------------------------------- your own examples
class ListTask(Task):
    """A task whose examples are all there: make() -> {split: tuple of Examples}."""

    def examples(self, split, n, seed=0):
        """Up to n different examples of a split (all of them where n is larger), in an order that the seed decides."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
        rows = list(self.make().get(split, ()))
        if not rows:
            has = ", ".join(f"{len(v)} in {k}" for k, v in self.make().items())
            raise ValueError(f"{self.name} has no examples in its {split} split ({has}); of a file of yours, rows 9 and 10 "
                             "of every ten are val and test, so it needs at least 10 different rows")
        random.Random(seed).shuffle(rows)
        return rows[:n]


def from_jsonl(path):
    """A .jsonl file -> Task. Of every ten different prompts eight train, one is val and one is test.

    Raises ValueError naming the line that is empty, not JSON, or lacks `prompt` or `answer`.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no task file at {path}")
    found = {}
    for number, row in published.read_rows(path):
        try:
            example = example_of(row)
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise ValueError(f"{path} line {number}: {e}") from None
        found.setdefault(example.prompt, example)       # a repeated prompt must not sit in two splits
    if not found:
        raise ValueError(f"{path}: the file is empty")
    splits = {s: tuple(e for i, e in enumerate(found.values()) if {8: "val", 9: "test"}.get(i % 10, "train") == s)
              for s in SPLITS}
    return ListTask(str(path), lambda: splits, 96, "other")


# ---------------------------------------------------------------------------------------------- the reward
def gold(example):
    """A text that is a right answer: what next-token training imitates. ValueError where an example has none."""
    if example.match not in ("number", "exact", "choice", "quoted", "contains", "label", "code"):
        raise ValueError(f"no right answer is known to {example.prompt[:60]!r}, so there is nothing to imitate: "
                         "--objective=next-token needs examples with a gold answer")
    if example.match == "code":
        return f"```python\n{example.answer.strip()}\n```"
    return f'{example.answer}"' if example.match == "quoted" else example.answer


def option_texts(example):
    """The answers that name each option of an example, in their order. ValueError where it lists none."""
    if not example.options:
        raise ValueError(f"{example.prompt[:60]!r} lists no options to choose among (--choose, --objective=options)")
    return [gold(replace(example, answer=option)) for option in example.options]


class RewardError(ValueError):
    """A judge failed or gave no usable number; the line names the example."""


def rewards(examples, texts):
    """What each (example, answer text) earns: 1.0 or 0.0, or what the example's own judge says (`match` a function).

    Code runs in the sandbox, all answers of the batch at once. Raises RewardError.
    """
    passed = iter(tested([(e, find_code(t)) for e, t in zip(examples, texts) if e.match == "code"]))
    return [float(next(passed)) if e.match == "code" else judged(e, t) for e, t in zip(examples, texts)]


def judged(example, text):
    """What one answer earns that needs no program to be run. Nothing but a finite number is a reward."""
    judge = example.match if callable(example.match) else right
    try:
        earned = judge(example, text)
        if isinstance(earned, Real) and math.isfinite(earned):
            return float(earned)
        problem = f"gave {earned!r:.60}, which is not a finite number,"
    except Exception as e:
        problem = f"raised {type(e).__name__} ({str(e)[:80]})"
    raise RewardError(f"the reward {problem} for the answer {text[:80]!r} to {example.prompt[:80]!r}")


def tested(programs):
    """[(example, program text), ...] -> which of them pass their tests."""
    outcomes = sandbox.call_many([(f"{e.before}{code}\n{e.after}", e.name, [args for args, _ in e.calls])
                                  for e, code in programs]) if programs else []
    # values that a published program judges: it runs afterwards, and elsewhere than the program that made them
    judged = [n for n, (e, _) in enumerate(programs) if e.check not in ("", "==") and outcomes[n].values is not None]
    jobs = [(programs[n][0].check, "verdict", [(outcomes[n].values, tuple(args for args, _ in programs[n][0].calls))])
            for n in judged]
    verdicts = dict(zip(judged, sandbox.call_many(jobs) if jobs else ()))
    return [passes(e, outcomes[n], verdicts.get(n)) for n, (e, _) in enumerate(programs)]


def passes(example, outcome, verdict=None):
    """All hidden tests hold. The values are compared here: the sandboxed program never sees what is expected."""
    if outcome.values is None or len(outcome.values) != len(example.calls):
        return False
    if example.check not in ("", "=="):
        return verdict is not None and verdict.values == (True,)
    same = operator.eq if example.check == "==" else same_value
    return all(same(got, want) for got, (_, want) in zip(outcome.values, example.calls))


def right(example, text):
    """Judge one answer that needs no program to be run. What cannot be read as an answer is wrong."""
    if example.match == "number":
        got, want = find_number(text), to_number(example.answer)
        return got is not None and abs(got - want) <= 1e-6 * max(1.0, abs(want))
    if example.match == "math":
        return latex.same_answer(latex.find_final(text), example.answer)
    if example.match == "choice":
        i = find_choice(text, example.options)
        return i is not None and example.options[i] == example.answer
    if example.match == "quoted":
        i = find_quoted(text, example.options)
        return i is not None and example.options[i] == example.answer
    if example.match == "label":
        return find_label(text) == example.answer
    if example.match == "contains":
        return re.search(rf"(?<!\w){re.escape(example.answer.lower())}(?!\w)", text.lower()) is not None
    if example.match == "exact":
        return normal(text) == normal(example.answer)
    raise ValueError(f"an example with match={example.match!r} has no right answer")

"""
`make demo`: two-pass adaptation on built-in questions, each beside the base model's answer.

The questions are the first three of each expert's test split, in the order in which every score
takes them (nothing was trained or tuned on these), and three that were written by hand for "other".
None was picked by its result.
"""
import time
from collections import Counter
from dataclasses import replace

from .. import adapt, tasks
from ..formats import download
from ..machine.text import printable
from ..questions.example import Example
from .arms import lacking

BY_HAND = (Example("What is the capital of France?", "Paris", "contains"),
           Example("Hi! Who wrote Romeo and Juliet?", "Shakespeare", "contains"),
           Example("Translate the word 'water' to Spanish.", "agua", "contains"))


def questions():
    """[(skill, Example)]: the first three test questions of each expert
    and three that need none."""
    picked = [(name, e) for name in adapt.SKILLS for e in tasks.get(name).examples("test", 3)]
    return picked + [("other", e) for e in BY_HAND]


def run(model, tokenizer, experts):
    """Print every question with its route and answers, and a closing table. -> dict of the counts.

    experts: name -> z (experts.Shelf).
    A question that needs no expert has one answer, the base model's.
    """
    print("Twelve questions, each answered by the base model and in two passes. "
          "Three of them are answered by\n"
          "programs that the model writes. These run here, each in a process of its own "
          "that cannot open files,\n"
          "connect, or start others, for at most 2 seconds and in 256 MB "
          "(t2mini/questions/sandbox.py).", flush=True)
    started, asked = time.time(), questions()
    adapted, base = [None] * len(asked), [None] * len(asked)
    notes = [None] * len(asked)
    # answers of one task may be of one length
    for skill in tasks.LABELS:
        mine = [i for i, (s, _) in enumerate(asked) if s == skill]
        prompts, limit = [asked[i][1].prompt for i in mine], tasks.get(skill).max_tokens
        answers, cut = [], []
        for strategy in "none", "classifier":
            counts = Counter()
            answers.append(adapt.answer(model, tokenizer, prompts, strategy, experts,
                                        max_tokens=limit, counts=counts))
            cut.append(longest(tokenizer, [a.answer for a in answers[-1]], counts["cut"]))
        for place, (i, b, a) in enumerate(zip(mine, *answers)):
            base[i] = b.answer
            alike = a.route in adapt.BASE or lacking([a.route], experts)
            adapted[i] = replace(a, answer=b.answer) if alike else a
            notes[i] = [f"... (cut at {limit} tokens)" * (place in which)
                        for which in (cut[0] if alike else cut[1], cut[0])]
        print(f"... {skill} questions answered, {time.time() - started:.0f} s", flush=True)
    examples = [e for _, e in asked]
    right = tasks.rewards(examples, [a.answer for a in adapted])
    base_right = tasks.rewards(examples, base)
    for i, (_, e) in enumerate(asked):
        show(e, adapted[i], right[i], base[i], base_right[i],
             lacking([adapted[i].route], experts), notes[i])
    counts = table(asked, adapted, right, base_right)
    seconds = time.time() - started
    print(f"\nall answers and their grading: {seconds:.1f} s. "
          "A dozen questions show how it works, not how well: for that,\n"
          "`.venv/bin/python -m t2mini eval --task=math --expert=math --n=400` "
          "(README has the results).")
    if model.name == download.DEFAULT:
        print("This is a model of 135 million numbers. "
              "One of 500 million solves a quarter of real word problems:\n"
              "`.venv/bin/python -m t2mini download qwen2.5-coder-0.5b`, "
              "then `ask --weights=qwen2.5-coder-0.5b --max-tokens=300`.")
    return {**counts, "seconds": seconds}


def longest(tokenizer, texts, count):
    """The places of the `count` longest texts: those that the token limit ended, as all others
    are shorter."""
    order = sorted(range(len(texts)), key=lambda i: len(tokenizer.encode(texts[i])))
    return order[len(order) - count:]


def show(example, adapted, right, base, base_right, missing, notes=("", "")):
    """One question: where it went, and its answers. missing: is there no expert of that label?
    notes: what to say behind the adapted and the base answer."""
    shares = "  ".join(f"{label} {100 * p:.0f}%" for label, p in adapted.probabilities.items())
    print(f"\n{'-' * 100}\n{example.prompt}\n  needs    {adapted.route}   ({shares})")
    if missing:
        print(f"  no {adapted.route} expert for this model: the base model answers")
    if missing or adapted.route in adapt.BASE:
        print(f"  answer   [{mark(right)}] {indent(adapted.answer, notes[0])}")
        return
    print(f"  adapted  [{mark(right)}] {indent(adapted.answer, notes[0])}")
    print(f"  base     [{mark(base_right)}] {indent(base, notes[1])}")


def table(asked, adapted, right, base_right):
    """Right routes and answers by skill. -> the counts of all."""
    print(f"\n{'skill':<12}{'questions':>10}{'routed right':>14}"
          f"{'adapted right':>15}{'base right':>12}")
    for skill in [*tasks.LABELS, "all"]:
        mine = [i for i, (s, _) in enumerate(asked) if skill in (s, "all")]
        counts = {"questions": len(mine),
                  "routed_right": sum(adapted[i].route == asked[i][0] for i in mine),
                  "adapted_right": sum(right[i] for i in mine),
                  "base_right": sum(base_right[i] for i in mine)}
        print(f"{skill:<12}{counts['questions']:>10}{counts['routed_right']:>14}"
              f"{counts['adapted_right']:>15.0f}{counts['base_right']:>12.0f}")
    return counts


def mark(reward):
    return "right" if reward else "wrong"


def indent(text, note=""):
    """An answer in at most six lines, set under its heading, and a note behind it."""
    lines = printable(text).strip().splitlines() or ["(nothing)"]
    if len(lines) > 6:
        lines = [*lines[:6], note or "..."]
    elif note:
        lines[-1] += f" {note}"
    return ("\n" + " " * 19).join(lines)

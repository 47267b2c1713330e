"""
`make demo`: two-pass adaptation on built-in questions, each beside the base model's answer.

The questions come from the test split (never trained or tuned on) or were written by hand; none was picked by its result.
"""
import time

from .. import adapt, evaluate, tasks
from ..questions.example import Example

BY_HAND = (Example("What is the capital of France?", "Paris", "contains"),
           Example("Hi! Who wrote Romeo and Juliet?", "Shakespeare", "contains"),
           Example("Translate the word 'water' to Spanish.", "agua", "contains"))


def questions():
    """[(skill, Example)]: three of each expert's task and three that need none."""
    picked = [(name, e) for name in adapt.SKILLS for e in tasks.get(name).examples("test", 3, seed=2025)]
    return picked + [("other", e) for e in BY_HAND]


def run(model, tokenizer, dispatcher, experts):
    """Print every question with its route, both answers and a closing table. -> dict of the counts."""
    print("Twelve questions, each answered twice. Three of them are answered by programs that the model writes. These run "
          "here, each in a\nprocess of its own that cannot open files, connect, or start others, for at most 2 seconds and in "
          "256 MB (t2mini/questions/sandbox.py).", flush=True)
    t0, asked = time.time(), questions()
    examples = [e for _, e in asked]
    routes = adapt.route(model, tokenizer, [e.prompt for e in examples], dispatcher, label="first pass")
    t1, texts, base = time.time(), [None] * len(asked), [None] * len(asked)
    for skill in tasks.LABELS:                              # answers of one task may be of one length
        mine = [i for i, (s, _) in enumerate(asked) if s == skill]
        limit, prompts = tasks.get(skill).max_tokens, [examples[i].prompt for i in mine]
        adapted = adapt.answer_routed(model, tokenizer, prompts, [routes[i].label for i in mine], experts, limit)
        plain = evaluate.answers(model, tokenizer, prompts, limit)
        for i, a, b in zip(mine, adapted, plain):
            texts[i], base[i] = a, b
        print(f"... {skill} questions answered, {time.time() - t0:.0f} s", flush=True)
    right, base_right = tasks.rewards(examples, texts), tasks.rewards(examples, base)
    for i, (skill, e) in enumerate(asked):
        r = routes[i]
        shares = "  ".join(f"{k} {100 * p:.0f}%" for k, p in r.probabilities.items())
        print(f"\n{'-' * 100}\n{e.prompt}\n  needs    {r.label}   ({shares})")
        print(f"  adapted  [{mark(right[i])}] {indent(texts[i])}\n  base     [{mark(base_right[i])}] {indent(base[i])}")
    print(f"\n{'skill':<12}{'questions':>10}{'routed right':>14}{'adapted right':>15}{'base right':>12}")
    for skill in [*tasks.LABELS, "all"]:
        mine = [i for i, (s, _) in enumerate(asked) if skill in (s, "all")]
        routed = sum(routes[i].label == asked[i][0] for i in mine)
        print(f"{skill:<12}{len(mine):>10}{routed:>14}{sum(right[i] for i in mine):>15.0f}"
              f"{sum(base_right[i] for i in mine):>12.0f}")
    print(f"\nfirst pass {t1 - t0:.1f} s, both second passes {time.time() - t1:.1f} s. A dozen questions show how it works, "
          f"not how well:\nfor that, `python -m t2mini eval --task=math --expert=math --n=400` (README has the results).")
    return {"questions": len(asked), "adapted_right": sum(right), "base_right": sum(base_right),
            "routed_right": sum(r.label == s for r, (s, _) in zip(routes, asked)), "seconds": time.time() - t0}


def mark(reward):
    return "right" if reward else "wrong"


def indent(text):
    """An answer in at most six lines, set under its heading."""
    lines = text.strip().splitlines() or ["(nothing)"]
    return ("\n" + " " * 19).join(lines[:6] + (["..."] if len(lines) > 6 else []))

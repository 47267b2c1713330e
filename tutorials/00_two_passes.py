"""
00: two passes, one minute. First find out what a question needs, then answer it with that expert
(paper 3.2).
"""
# %% the checkers of the three exercises
import textwrap
import time

import chapter
import torch

from t2mini import adapt, evaluate, experts, tasks
from t2mini.lab import plots


def check_1(reader):
    p = {"code": 0.02, "math": 0.12, "reasoning": 0.05, "other": 0.01}
    got = reader.exercise_1(dict(p))
    assert set(got) == set(p), "one share for each of the four labels"
    assert abs(sum(got.values()) - 1) < 1e-6, "the four shares must add up to 1"
    assert abs(got["math"] - 0.6) < 1e-6, (
        f"math has 0.12 of the 0.20 of all labels, a share of 0.6, not {got['math']:.3f}")


def check_2(reader):
    z = {"code": "z of code", "math": "z of math", "reasoning": "z of reasoning"}
    for said, want in (("math", "z of math"), ("Code.", "z of code"),
                       ("other", None), ("I do not know", None)):
        calls = []

        def ask(text, expert):
            calls.append((text, expert))
            return said if len(calls) == 1 else "the answer"

        got = reader.exercise_2("How much is 2 + 2?", ask, dict(z))
        assert got == "the answer" and len(calls) == 2, (
            "ask twice: what the question needs, then the question itself")
        assert calls[0] == (tasks.dispatch_prompt("How much is 2 + 2?"), None), (
            "the first pass asks tasks.dispatch_prompt(question), with no expert")
        assert calls[1][0] == "How much is 2 + 2?", "the second pass asks the question as it was"
        assert calls[1][1] == want, (
            f"the first pass said {said!r}: the second must run on {want}, not {calls[1][1]}")


def check_3(reader):
    loaded = []
    labels, questions = ["math", "other", "code", "math", "other"], list("abcde")
    got = reader.exercise_3(labels, questions, loaded.append,
                            lambda qs: [f"{q} by {loaded[-1]}" for q in qs])
    want = [f"{q} by {label}" for q, label in zip(questions, labels)]
    assert sorted(got) == sorted(want), f"some answers come from a wrong expert: {got}"
    assert got == want, f"the answers must come back in the order asked: {got}"
    assert loaded[-1] == "other", "the base model (label other) must be loaded when you are done"
    assert len(loaded) <= 4, (
        f"{len(loaded)} loads; each label needs one, and the base model one more at the end")


chapter.start(__doc__, [check_1, check_2, check_3], __file__, runs_code=True)

# %% the first pass, on paper
chapter.section("by-hand")
# of the token after: This is "
p = {"code": 0.10, "math": 0.30, "reasoning": 0.05, "other": 0.05}
share = {label: p[label] / sum(p.values()) for label in p}
print("shares:", "  ".join(f"{label} {100 * s:.0f}%" for label, s in share.items()))
print("the question needs:", max(share, key=share.get))

# %% the model, and four sets of z: three experts and the dispatcher
model, tokenizer = chapter.load()
skilled = experts.load(adapt.SKILLS, model)
dispatcher = experts.load(["dispatcher"], model)["dispatcher"]
EACH = 8
asked = [(skill, e) for skill in tasks.LABELS
         for e in tasks.get(skill).examples("test", EACH, seed=0)]
examples, questions = [e for _, e in asked], [e.prompt for _, e in asked]
ids = torch.tensor([tokenizer.encode("The capital of France is")])
with torch.inference_mode():
    untouched = model(ids)

# %% two passes
t0 = time.time()
routes = adapt.route(model, tokenizer, questions, dispatcher)
t1 = time.time()
labels = [r.label for r in routes]
adapted = adapt.second_pass(model, tokenizer, questions, labels, skilled, max_tokens=96)
t2 = time.time()
base = evaluate.answers(model, tokenizer, questions, max_tokens=96)
unchanged = [label in adapt.BASE for label in labels]       # no expert: one answer serves both
adapted = [b if same else a for same, a, b in zip(unchanged, adapted, base)]
right = {"adapted": tasks.rewards(examples, adapted), "base": tasks.rewards(examples, base)}

# %% the same question before and after: the first one of each skill, whatever came out
chapter.section("before-and-after")
firsts = [EACH * i for i in range(len(tasks.LABELS))]
mark = lambda reward: "right" if reward else "wrong"


def shown(text, width, most):
    """An answer in at most `most` lines of at most `width` characters, as a list: of a longer one
    the first and the last lines, as the end often decides whether it is right."""
    lines = [part for line in text.strip().splitlines() for part in textwrap.wrap(line, width)]
    if len(lines) <= most:
        return lines
    first = most // 2
    return [*lines[:first], "...", *lines[first + 1 - most:]]


for i in firsts:
    print(questions[i])
    shares = "  ".join(f"{k} {100 * s:.0f}%" for k, s in routes[i].probabilities.items())
    print(f"  first pass  {labels[i]}  ({shares})")
    for name, texts in ((("answer", base),) if unchanged[i]
                        else (("base", base), ("adapted", adapted))):
        reward = right["base" if texts is base else "adapted"][i]
        print(f"  {name:<8}[{mark(reward)}] " + ("\n" + " " * 18).join(shown(texts[i], 90, 5)))

# %% all of them
chapter.section("counts")
print(f"{'skill':<11}{'questions':>10}{'routed right':>14}{'base right':>12}{'adapted right':>15}")
for skill in (*tasks.LABELS, "all"):
    mine = [i for i, (s, _) in enumerate(asked) if skill in (s, "all")]
    routed = sum(labels[i] == asked[i][0] for i in mine)
    base_right, adapted_right = (sum(right[who][i] for i in mine) for who in ("base", "adapted"))
    print(f"{skill:<11}{len(mine):>10}{routed:>14}{base_right:>12.0f}{adapted_right:>15.0f}")

# %% what it costs, and what is left behind
chapter.section("seconds")
print(f"first pass {t1 - t0:.1f} s, second pass {t2 - t1:.1f} s")
chapter.section("verdict")
with torch.inference_mode():
    print(f"adapting answers more questions right: {sum(right['adapted']) > sum(right['base'])}")
    print(f"the base model is back, bit for bit: {torch.equal(model(ids), untouched)}")

# %% the picture
fig, ax = plots.panel("The right expert mends most wrong answers", (9, 5.4))
ax.axis("off")
ax.set(xlim=(0, 3), ylim=(len(firsts), -0.2))


def cell(column, row, text, beside="", reward=None):
    """Text in a cell, at most four short lines, grey where the answer beside it has the same line;
    a reward marks it."""
    lines, other = (shown(part.replace("```python", "").replace("```", ""), 35, 4)
                    for part in (text, beside))
    for colour, grey in (("black", False), (plots.GREY, True)):
        ax.text(0.04 + column, row + 0.1,
                "\n".join(line * ((line in other) == grey) for line in lines),
                va="top", fontsize=9.5, family="monospace" if column else None, color=colour)
    if reward is not None:
        colour = plots.GREEN if reward else plots.RED
        ax.plot([0.01 + column] * 2, [row + 0.06, row + 0.94], color=colour, lw=5)
        ax.text(column + 0.04, row + 0.92, mark(reward), fontsize=12, weight="bold", color=colour)


for column, title in enumerate(("question → what it needs", "base model", "with that expert")):
    ax.text(0.04 + column, -0.08, title, fontsize=12.5, weight="bold")
for row, i in enumerate(firsts):
    ax.axhline(row, color=plots.GREY, lw=0.8)
    cell(0, row, questions[i])
    ax.text(0.04, row + 0.92, f"→ {labels[i]}", fontsize=12, weight="bold")
    if unchanged[i]:
        cell(1, row, base[i], "", right["base"][i])
        ax.text(2.04, row + 0.1, "No expert is needed, so the\nbase model's answer stays.",
                va="top", fontsize=11, style="italic", color=plots.DARK)
    else:
        cell(1, row, base[i], adapted[i], right["base"][i])
        cell(2, row, adapted[i], base[i], right["adapted"][i])
chapter.save(fig, "00_two_passes")

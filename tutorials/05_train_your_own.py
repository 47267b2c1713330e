"""
05: train your own expert. A file of questions and a few minutes are enough (paper 4.2, figure 4).
"""
# %% the checkers of the three exercises
import json
import math
import random
import sys
from dataclasses import replace

import chapter
import torch

import t2mini
from t2mini import evaluate, experts, svf, tasks
from t2mini.lab import plots
from t2mini.recipe import TrainConfig
from t2mini.questions import yours
from t2mini.train import train


def check_1(reader):
    for prompt, answer, options in (("Is ice cold?", "yes", ["yes", "no"]),
                                    ('He said "stop".\nWho spoke?', "he", ["he", "she"])):
        line = reader.exercise_1(prompt, answer, options)
        assert isinstance(line, str) and "\n" not in line.rstrip("\n"), (
            "one line of text: escape a line break inside")
        try:
            row = json.loads(line)
        except json.JSONDecodeError as e:
            raise AssertionError(
                f"{line!r} is not JSON ({e.msg}); json.dumps knows how to write quotes") from None
        example = yours.example_of(row)
        assert (example.prompt, example.answer, example.match) == (prompt, answer, "choice"), (
            f"the row means {example}")
        assert example.options == tuple(options), (
            f"the options are {example.options}, not {tuple(options)}")


def check_2(reader):
    for p, n in ((0.5, 8), (0.1, 8), (0.9, 4), (1.0, 8)):
        want, got = p ** n + (1 - p) ** n, reader.exercise_2(p, n)
        assert abs(got - want) < 1e-9, (
            f"for p = {p} and {n} answers {want:.4f}, not {got:.4f}: all right, or all wrong")


def check_3(reader):
    grads = (torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
             * torch.tensor([1e-4, 1e-2, 1.0, 10.0, 0.1]))
    z = torch.ones(5, requires_grad=True)
    optimizer = torch.optim.AdamW([z], lr=5e-3, betas=(0.9, 0.99), weight_decay=0.0)
    for step, g in enumerate(grads):
        z.grad, optimizer.param_groups[0]["lr"] = (
            g.clone(), 5e-3 * 0.5 * (1 + math.cos(math.pi * step / len(grads))))
        optimizer.step()
        got = reader.exercise_3(grads[:step + 1], 5e-3, len(grads))
        assert torch.allclose(got, z.detach(), atol=1e-6), (
            f"after {step + 1} of {len(grads)} updates z is {[round(v, 5) for v in z.tolist()]}, "
            f"yours {[round(v, 5) for v in got.tolist()]}: are both means divided by 1 - beta^t?")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% a training run, on paper
chapter.section("by-hand")
for step in (0, 100, 200):
    print(f"learning rate of update {step:>3} of 200: "
          f"{0.005 * 0.5 * (1 + math.cos(math.pi * step / 200)):.4f}")
for p in (0.5, 0.1, 0.01):
    print(f"a question answered right {100 * p:g} % of the time: "
          f"all 8 answers alike in {100 * (p ** 8 + (1 - p) ** 8):.1f} %")

# %% the log of a full run: the math expert, 200 updates
chapter.section("full-run")


def table(rows, every):
    """Means over `every` updates, and the validation at their end."""
    updates, val = ([r for r in rows if "reward" in r],
                    {r["step"]: r["val"] for r in rows if "val" in r})
    print(f"{'updates':<11}{'reward':>8}{'flat':>7}{'cut':>7}{'length':>8}"
          f"{'z_shift':>9}{'validation':>12}")
    for first in range(0, len(updates), every):
        part = updates[first:first + every]
        reward, flat, cut, length = (sum(r[k] for r in part) / len(part)
                                     for k in ("reward", "flat_groups", "cut", "answer_len"))
        end = part[-1]["step"]
        print(f"{first + 1:>3} to {end:<4}{reward:>8.2f}{flat:>7.2f}{cut:>7.2f}{length:>8.1f}"
              f"{part[-1]['z_shift']:>9.4f}{f'{val[end]:.2f}' if end in val else '':>12}")


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


full = read(chapter.HERE / "results" / "math-1.jsonl")
print(f"before training: validation {full[0]['val']:.2f} of {full[0]['val_n']} questions")
table(full, 30)

chapter.section("first-step")
print(f"update 1: grad_norm {full[1]['grad_norm']:.4f}, z_shift {full[1]['z_shift']:.4f}")

# %% a task of your own: one JSON object per line
chapter.section("own-task")
THINGS = ("lamp chair kettle jacket radio blanket clock wallet mirror teapot bicycle camera pillow "
          "guitar ladder bottle towel printer candle carpet drill heater scarf table vase").split()
MONEY = ("I want my money back for the {x}.", "Please refund the {x}.", "I paid twice for the {x}.",
         "How much is the {x}?", "You charged me too much for the {x}.",
         "The bill for the {x} is wrong.", "Is there a discount on the {x}?",
         "Can I pay for the {x} in two parts?")
OTHER = ("My {x} has not arrived yet.", "The driver did not bring the {x}.",
         "Where is the {x} I ordered?", "Please send the {x} to my office.",
         "The {x} is broken.", "My {x} stopped working.",
         "One part of the {x} is cracked.", "The {x} makes a strange noise.")


def row(message, answer):
    """One line of the file. `match` says how an answer is judged: the one option that it names
    must be the right one."""
    return {"prompt": f"{message}\nIs this message about money? Answer yes or no.",
            "answer": answer, "match": "choice", "options": ["yes", "no"]}


rows = [row(pattern.format(x=x), answer) for answer, patterns in (("yes", MONEY), ("no", OTHER))
        for pattern in patterns for x in THINGS]
random.Random(0).shuffle(rows)
path = experts.OUT / "money.jsonl"
path.parent.mkdir(exist_ok=True)
path.write_text("".join(json.dumps(r) + "\n" for r in rows))
task = replace(tasks.get(str(path)), max_tokens=24)         # long enough for yes or no
print(json.dumps(rows[0]))
print(f"{len(rows)} rows:",
      ", ".join(f"{len(task.examples(s, len(rows)))} {s}" for s in tasks.SPLITS))

# %% train on it, in short
chapter.section("own-run")
model, tokenizer = t2mini.load()
cfg = TrainConfig(task=str(path), steps=24, prompts=12, samples=8, max_tokens=8, must_stop=True,
                  temperature=1.0, lr=1e-3, val_every=8, val_n=40)
out = experts.OUT / "tutorial-05.safetensors"
train(model, tokenizer, cfg, out, cache=experts.SVD_CACHE,
      log=lambda text: print(text, file=sys.stderr))
own = read(out.with_suffix(".jsonl"))
table(own, 8)

# %% did it help? the test rows, which neither trained nor selected
chapter.section("before-and-after")
test = task.examples("test", len(rows))
fresh = [yours.example_of(row(m, a)) for m, a in (
    ("Did you get the cheque I mailed?", "yes"), ("Your price went up since last week!", "yes"),
    ("I would like a receipt.", "yes"), ("My card was declined at the till.", "yes"),
    ("The parcel was left in the rain.", "no"), ("Do you have it in green?", "no"),
    ("Nobody answers your phone.", "no"), ("The zip got stuck after a day.", "no"))]
expert = experts.load_expert(out, model)[0]
right = {}
for name, z in (("base", {}), ("own expert", expert)):
    with svf.using(model, z):
        for label, examples in (("test rows", test), ("other words", fresh)):
            right[name, label] = evaluate.score(model, tokenizer, task, examples)
            print(f"{name:<12}{label:<13}"
                  f"{evaluate.percent(sum(right[name, label]), len(examples))}")

# %% which way it went
chapter.section("verdict")
reward = [r["reward"] for r in own if "reward" in r]
rose = sum(reward[-5:]) > sum(reward[:5])
print(f"the reward of sampled answers rose: {rose}")
print("more test rows right than before: "
      f"{sum(right['own expert', 'test rows']) > sum(right['base', 'test rows'])}")

# %% the pictures
val, steps = [r for r in full if "val" in r], [r for r in full if "reward" in r]
share = [100 * r["val"] for r in val]
fig, ax = plots.panel("Training lifts right answers to math questions "
                      f"from {share[0]:.0f} to {max(share):.0f} %")
ax.plot([r["step"] for r in steps], [100 * r["reward"] for r in steps],
        color=plots.GREY, alpha=0.6, lw=1)
low, high = 100 * torch.tensor([evaluate.wilson(r["val"] * r["val_n"], r["val_n"]) for r in val]).T
ax.fill_between([r["step"] for r in val], low, high, color=plots.BLUE, alpha=0.2, lw=0)
ax.plot([r["step"] for r in val], share, "-o", color=plots.BLUE, lw=2.5)
ax.text(110, 88, "likeliest answers, validation", color=plots.BLUE, weight="bold", ha="right")
ax.text(120, 33, "sampled answers, while training", color="#666666", weight="bold")
ax.set(xlabel="update", ylabel="right answers, %\n(band: 95 % interval)", ylim=(0, 100))
chapter.save(fig, "05_train_your_own")

before, after = (sum(right[name, "test rows"]) for name in ("base", "own expert"))
fig, ax = plots.panel("A file of your own and two dozen updates: more right answers", (6.5, 4))
plots.score_bars(ax, [("base model", before, plots.GREY),
                      (f"own expert,\n{cfg.steps} updates", after, plots.BLUE)],
                 len(test), "test rows")
chapter.save(fig, "05_own_file")

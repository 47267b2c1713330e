"""
11: real benchmarks. The paper's three claims on published questions, with a model of half a billion
numbers.
"""
# %% the checkers of the three exercises
import json
import sys
import time

import chapter
import torch

from t2mini import adapt, evaluate, experts, svf, tasks
from t2mini.lab import agreement, arms, figures, larger, plots, reproduce


def check_1(reader):
    for shapes, rank in (([(4, 6)], 2), ([(896, 896), (896, 128)], 16),
                         ([(10, 10), (3, 7), (7, 3)], 1)):
        want = sum(min(m, n) for m, n in shapes) / sum(rank * (m + n) for m, n in shapes)
        got = reader.exercise_1(shapes, rank)
        assert abs(got - want) < 1e-9, (
            f"for {shapes} and rank {rank} the share is {want:.4f}, not {got:.4f}: an m x n matrix "
            "has min(m, n) singular values, and its LoRA an r x n and an m x r matrix")


def check_2(reader):
    for p, G in ((0.3, 6), (0.02, 4), (0.5, 2), (1.0, 8)):
        want = 1 - p ** G - (1 - p) ** G
        got = reader.exercise_2(p, G)
        assert abs(got - want) < 1e-9, (
            f"with p = {p} and {G} answers it is {want:.4f}, not {got:.4f}: "
            "take away that all are right and that all are wrong")


def check_3(reader):
    for rights, samples, want in (("0615", 6, 0.5), ("000", 6, 0.0),
                                  ("12340", 4, 0.6), ("66", 6, 0.0)):
        got = reader.exercise_3(rights, samples)
        assert abs(got - want) < 1e-9, (
            f"of questions with {', '.join(rights)} of {samples} answers right {want:g} teach, "
            f"not {got:g}: where all earn the same, each advantage is 0")


chapter.start(__doc__, [check_1, check_2, check_3], __file__, live=True)
MODEL = "qwen2.5-coder-0.5b"                # its name for --weights
FOLDER = experts.SHIPPED / "qwen2.5-coder-0.5b-instruct"
RANK = 16                                   # of the paper's LoRA
# rows and columns of the matrices of one of its 24 blocks
BLOCK = {"q": (896, 896), "k": (128, 896), "v": (128, 896), "o": (896, 896),
         "gate": (4864, 896), "up": (4864, 896), "down": (896, 4864)}
rows = json.loads((reproduce.RESULTS / "real05.json").read_text())["rows"]
scores = figures.grouped(rows)


def gain(task, arm, base):
    """'+9.9 [+7.3, +12.5]': an arm minus another one on the same questions."""
    mean, low, high, _ = evaluate.over_seeds(scores[task, "", arm], scores[base[0], "", base[1]])
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def share(task, arm):
    """'45.1 %', or a dash where this was not measured."""
    seeds = scores.get((task, "", arm))
    return f"{100 * sum(seeds[0]) / len(seeds[0]):.1f} %" if seeds else "-"


# %% claim 1: an expert beats its base model on what it was trained on
PAIRS = (("base", "svf", ""), ("base", "svf, second run", ", second run"),
         ("base, choosing", "svf, choosing", ", choosing"))


def table(names):
    """A line for each set and way to answer: base model, expert, and what lies between them."""
    print(f"{'questions':<34}{'n':>6}{'base':>9}{'expert':>9}   expert minus base, points")
    for task in names:
        for base, tuned, how in PAIRS:
            if (task, "", base) in scores and (task, "", tuned) in scores:
                n = len(scores[task, "", base][0])
                print(f"{task + how:<34}{n:>6}{share(task, base):>9}{share(task, tuned):>9}"
                      f"   {gain(task, tuned, (task, base))}")


def beside(task, *forms):
    """The expert of lettered options against the base model that is asked in other forms."""
    for other, arm, form in forms:
        print(f"letters, chosen, against the base model with options {form}, {share(other, arm)}: "
              f"{gain(f'{task}-letters', 'svf, choosing', (other, arm))}")


chapter.section("seen")
table(("gsm8k", "gsm8k-steps", "mbpp", "arc-easy-letters", "arc-easy", "arc-easy-open"))
beside("arc-easy", ("arc-easy", "base", "in quotation marks"),
       ("arc-easy-open", "base, choosing", "hidden"))

# %% claim 2: with fewer than a tenth of LoRA's numbers
chapter.section("numbers")
blocks = 24
z = blocks * sum(min(shape) for shape in BLOCK.values())
lora = blocks * sum(RANK * sum(shape) for shape in BLOCK.values())
print(f"SVF:  one z for each singular value of {blocks} x {len(BLOCK)} matrices: {z:,}")
print(f"LoRA: rank {RANK} on the same matrices: {lora:,}")
print(f"SVF / LoRA: {100 * z / lora:.1f} %")
told = experts.read_metadata(FOLDER / "reasoning.safetensors")
print(f"the shipped expert has {told['parameters']:,}: "
      f"{'the same' if told['parameters'] == z else 'another number'}")

# what a LoRA learns from the same questions in as many updates
chapter.section("lora")
print(f"{'questions':<34}{'n':>6}{'SVF':>9}{'LoRA':>9}   LoRA minus SVF, points")
for task, _, arm in scores:
    if arm.startswith("lora"):
        own = arm.replace("lora", "svf")
        n = len(scores[task, "", arm][0])
        print(f"{task + arm.removeprefix('lora'):<34}{n:>6}{share(task, own):>9}"
              f"{share(task, arm):>9}   {gain(task, arm, (task, own))}")

# %% claim 3: it carries over to questions beside it
chapter.section("unseen")
table(("math-500", "humaneval", "arc-challenge-letters", "arc-challenge",
       "arc-challenge-open"))
beside("arc-challenge", ("arc-challenge", "base, choosing", "in quotation marks"))

# the same of the smaller model: three trainings on ARC-Easy, options in quotation marks
chapter.section("smaller")
small = figures.grouped(json.loads((reproduce.RESULTS / "arc.json").read_text())["rows"])
print(f"{'questions, chosen':<19}{'n':>5}   {'three experts':<22}"
      "minus the base model with options")
print(f"{'':<49}{'in quotation marks':<23}not listed")
for task in ("arc-easy", "arc-challenge"):
    tuned = small[task, "", "svf, choosing"]
    n = len(tuned[0])
    said = []
    for form in (task, f"{task}-open"):
        mean, low, high, _ = evaluate.over_seeds(tuned, small[form, "", "base, choosing"])
        said.append(f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    shares = ", ".join(f"{100 * sum(one) / n:.1f}" for one in tuned)
    print(f"{task:<19}{n:>5}   {shares + ' %':<20}  {said[0]:<23}{said[1]}")

# the paper's Table 2: who answers, and each control
chapter.section("strategies")
WHO = {"svf": "the expert of its skill", "prompt": "first pass: a prompt",
       "classifier": "first pass: trained", "cem": "mixture, searched",
       "best single expert": "best one on examples", "uniform alpha": "both, equally",
       "10-shot in context": "base, ten examples"}
print(f"{'questions, answers written':<28}{'who answers':<24}{'right':>7}   minus base, points")
for task in ("humaneval", "arc-challenge-letters", "math-500"):
    print(f"{task:<28}{'the base model':<24}{share(task, 'base'):>7}")
    for arm, who in WHO.items():
        if (task, "", arm) in scores:
            lead = gain(task, arm, (task, "base"))
            print(f"{task:<28}{who:<24}{share(task, arm):>7}   {lead}")

# %% where the first pass sends 200 test questions of each set
chapter.section("routes")
SKILL = {larger.BARE.get(task, task): skill
         for skill, sets in larger.SETS.items() for task in sets}
print(f"{'first pass by':<15}{'questions':<24}{'n':>5}  sent to")
for row in rows:
    for name, said in row.get("confusion", {}).items():
        n = sum(said.values())
        sent = ", ".join(f"{label} {100 * k / n:.1f} %" for label, k in said.items() if k)
        print(f"{row['arm']:<15}{name:<24}{n:>5}  {sent}")
for row in rows:
    if "confusion" in row:
        right = sum(said[SKILL[name]] for name, said in row["confusion"].items())
        print(f"{row['arm']}: {evaluate.percent(right, row['n'])} questions sent where they belong")

# %% the picture: a line for each set, from one first pass to the other
found = {row["arm"]: row["confusion"] for row in rows if "confusion" in row}
fig, ax = plots.panel(
    "A short training teaches the first pass to send published questions to the right skill",
    (8.5, 5.4))
for y, name in enumerate(SKILL):
    at = {arm: 100 * said[name][SKILL[name]] / sum(said[name].values())
          for arm, said in found.items()}
    ax.plot(list(at.values()), [y] * len(at), color="#cccccc", lw=4, zorder=1)
    for arm, colour, up in (("prompt", plots.GREY, -0.12), ("classifier", plots.BLUE, 0.12)):
        ax.scatter(at[arm], y - up, s=100, color=colour, zorder=2,
                   label=None if y else plots.in_words(arm))
        ax.annotate(f"{at[arm]:.1f}", (at[arm], y - up), (0, 7 if up > 0 else -16),
                    textcoords="offset points", ha="center", color=colour)
ax.set_yticks(range(len(SKILL)),
              [f"{plots.in_words(name)} [{sum(found['prompt'][name].values())}]: {label}"
               for name, label in SKILL.items()])
ax.set(ylim=(len(SKILL) - 0.3, -0.7), xlim=(-4, 104),
       xlabel="sent where it belongs, % of the [n] questions of a set")
fig.legend(frameon=False, ncols=2, loc="outside lower right")   # inside, its dots look like data
chapter.save(fig, "11_real_benchmarks")

# %% what an update can learn from, before any training
chapter.section("signal")
first = json.loads((reproduce.RESULTS / "signal.json").read_text())["rows"]
n, G = first[0]["n"], first[0]["samples"]
print(f"{n} training questions of GSM8K, {G} answers each; an answer that is cut off earns nothing")
print(f"{'temperature':<13}{'longest answer':>15}{'cut off':>9}{'earn':>7}   questions that teach")
for row in first:
    for limit, found in row["limits"].items():
        if int(limit) in (100, 200, 300):
            low, high = (100 * v for v in found["ci95"])
            print(f"{row['arm'].split()[-1]:<13}{limit:>15}"
                  f"{100 * found['cut']:>7.0f} %{100 * found['earn']:>5.0f} %"
                  f"{100 * found['teach']:>7.0f} % [{low:.0f}, {high:.0f}]")

teaches = {(row["arm"], limit): [0 < int(k) < G for k in found["right"]]
           for row in first for limit, found in row["limits"].items()}
usual = teaches["temperature 0.7", "300"]
for what, other in (("200 tokens instead of 300", teaches["temperature 0.7", "200"]),
                    ("temperature 1.3 instead of 0.7", teaches["temperature 1.3", "300"])):
    mean, low, high = (100 * v for v in evaluate.paired_difference(other, usual))
    print(f"{what}: {mean:+.0f} [{low:+.0f}, {high:+.0f}] points of questions that teach")

# %% by hand: how often six answers to one question differ
chapter.section("by-hand")
for p in (0.02, 0.16, 0.5, 0.98):
    print(f"chance {p:.2f} to be right: "
          f"6 answers teach with chance {1 - p ** 6 - (1 - p) ** 6:.2f}")

# %% by hand: what two updates have in common, of two numbers z
chapter.section("by-hand-two")
first, second = [3.0, 1.0], [1.0, -1.0]
shared = agreement.agreement(torch.tensor([first, second]))
print(f"gradients {first} and {second}: in common {100 * shared:.0f} %")

# %% how much of an update's direction is chance
chapter.section("agreement")
found = json.loads((reproduce.RESULTS / "agreement.json").read_text())["rows"]
print(f"{'questions':<12} {'an update':>9} {'earn':>6} {'teach':>6}   in common, % [95 %]   "
      "answers needed")
for task, _, answers, earn, teach, share, needed in figures.agreement_rows(found)[1:]:
    print(f"{task:<12} {answers:>9} {earn:>4} % {teach:>4} %   {share:<21}  {needed}")

# %% the picture: what sampled answers earned while experts were trained
RUNS = (("ARC-Easy, options with letters", "reasoning-0", plots.GREEN),
        ("ARC-Easy, options hidden", "reasoning-open-0", plots.ORANGE),
        ("MBPP, two trainings", "code-0", plots.BLUE), (None, "code-1", plots.BLUE),
        ("GSM8K, the expert", "math-0", plots.PINK),
        ("GSM8K, four that were stopped", "gsm8k-few-sums-stopped", plots.GREY),
        (None, "gsm8k-steps-stopped", plots.GREY), (None, "gsm8k-stopped", plots.GREY),
        (None, "gsm8k-stopped-4e-3", plots.GREY))
LAST = 8                                    # updates that a point is the mean of: each asks others
fig, ax = plots.panel("Rewards rose on ARC-Easy and on MBPP, and little on GSM8K", (8.5, 4.8))
for label, name, colour in RUNS:
    log = plots.read_log(reproduce.RESULTS / f"qwen-{name}.jsonl")
    earned = [100 * row["reward"] for row in log if "reward" in row]
    means = [sum(earned[i - LAST:i]) / LAST for i in range(LAST, len(earned) + 1)]
    ax.plot(range(LAST, len(earned) + 1), means, color=colour, lw=1.8, label=label)
    ax.plot(len(earned), means[-1], "o", color=colour, ms=5)
ax.set(xlim=(0, 93), ylim=(0, 60), xlabel="update",
       ylabel=f"sampled answers that earn, %,\nmean of {LAST} updates")
fig.legend(frameon=False, ncols=2, loc="outside lower center")
chapter.save(fig, "11_rewards")

# %% the same here, on 32 questions
chapter.section("live")
if chapter.start.live is None:
    print("not asked for: --live=DIR asks the model itself, with the published questions in DIR")
else:
    import t2mini
    started, data = time.time(), chapter.start.live
    try:
        questions = {name: tasks.get(name, data).examples("test", 2) for name in SKILL}
        model, tokenizer = t2mini.load(MODEL)
    except (OSError, ValueError) as e:
        sys.exit(f"t2mini: --live={data}: {e}")
    svf.attach(model, cache=experts.SVD_CACHE)
    shelf = experts.Shelf(model)
    print(f"{model.name}, {str(model.dtype).removeprefix('torch.')}, ready")
    task = tasks.get("arc-easy-letters", data)
    asked = task.examples("test", 32)
    for name in ("none", "reasoning"):
        right, *_ = arms.run(model, tokenizer, task, asked, expert=name, choose=True, experts=shelf)
        who = "base model" if name == "none" else f"{name} expert"
        print(f"ARC-Easy, choosing a letter, {who}: {evaluate.percent(sum(right), len(right))}")
    for name, examples in questions.items():
        routes = adapt.route(model, tokenizer, [e.prompt for e in examples], shelf["dispatcher"],
                             title="routing")
        print(f"{name:<24}is sent to {', '.join(r.label for r in routes)}")
    print(f"{time.time() - started:.0f} seconds")

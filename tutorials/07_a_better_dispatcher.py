"""
07: a better dispatcher. The first pass is trained too, and what it never says it never learns
(paper 3.2 B).
"""
# %% the checkers of the three exercises
import chapter
import torch

from t2mini import adapt, evaluate, experts, tasks
from t2mini.lab import arms, figures, plots
from t2mini.generate import generate

LABELS = tasks.LABELS                                       # code, math, reasoning, other
PAPER_TABLE = {"code": [10, 0, 0, 0, 0], "math": [0, 10, 0, 0, 0],
               "reasoning": [0, 0, 10, 0, 0], "other": [2, 3, 4, 0, 1]}


def as_dicts(table):
    """Rows of five counts -> what `arms.confusion` makes: needs -> said -> count."""
    return {need: dict(zip((*LABELS, "unreadable"), row)) for need, row in table.items()}


def check_1(reader):
    got = reader.exercise_1(as_dicts(PAPER_TABLE))
    assert abs(got - 0.75) < 1e-9, (
        f"30 of the 40 questions of the page's table are on the diagonal: 0.75, not {got}")
    got = reader.exercise_1(as_dicts({k: [0, 0, 0, 1, 3] for k in LABELS}))
    assert abs(got - 1 / 16) < 1e-9, (
        f"1 of 16 is right where unreadable answers are wrong, not {got}")


def check_2(reader):
    for p, n, want in ((0.5, 2, 0.5), (0.02, 4, 0.0776), (0.0, 8, 0.0), (1.0, 8, 0.0),
                       (0.9, 8, 0.5695)):
        got = reader.exercise_2(p, n)
        assert abs(got - want) < 2e-3, (
            f"with p = {p} and {n} samples the chance is {want:.4f}, not {got:.4f}: "
            "the group is flat when all are right, and also when all are wrong")


def check_3(reader):
    table = as_dicts({"code": [8, 0, 0, 2, 0], "math": [0, 6, 4, 0, 0],
                      "reasoning": [0, 0, 10, 0, 0], "other": [0, 0, 0, 5, 5]})
    right = {need: {"code": 0.1, "math": 0.2, "reasoning": 0.3, "other": 0.4} for need in LABELS}
    right["math"] = {"code": 0.0, "math": 0.6, "reasoning": 0.1, "other": 0.2}
    want = (8 * 0.1 + 2 * 0.4 + 6 * 0.6 + 4 * 0.1 + 10 * 0.3 + 10 * 0.4) / 40
    got = reader.exercise_3(table, right)
    assert abs(got - want) < 1e-6, (
        f"for this table {want:.4f} of the answers are right, not {got:.4f}: every cell counts, "
        "and unreadable means the base model, as \"other\" does")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% a table and two chances, on paper
chapter.section("by-hand")
for need, row in PAPER_TABLE.items():
    low, high = evaluate.wilson(row[LABELS.index(need)], sum(row))
    print(f"{need:<10}{row}  right {row[LABELS.index(need)]:>2} of {sum(row)}, "
          f"interval {100 * low:5.1f} to {100 * high:5.1f} %")
for p in (0.5, 0.02):
    print(f"p = {p}: one of 4 samples says it {1 - (1 - p) ** 4:.4f}, "
          f"the 4 rewards differ {1 - p ** 4 - (1 - p) ** 4:.4f}")

# %% the same questions, routed by the base model and by the trained dispatcher
model, tokenizer = chapter.load()
examples = tasks.get("dispatch").examples("test", 120)
# `route` asks the dispatch question itself
questions = [e.prompt.rpartition("\n\n---\n")[0] for e in examples]
dispatcher = experts.load(["dispatcher"], model)["dispatcher"]
routes = {"prompt": adapt.route(model, tokenizer, questions, title="prompt"),
          "classifier": adapt.route(model, tokenizer, questions, dispatcher, title="classifier")}
tables = {}
for strategy, found in routes.items():
    chapter.section(strategy)
    tables[strategy] = arms.confusion(examples, [r.said for r in found])

# %% how much of each class arrives, with intervals
chapter.section("recall")
rewards = {s: [float(r.label == e.answer and r.readable) for e, r in zip(examples, found)]
           for s, found in routes.items()}
print(f"{'needs':<12}{'questions':>9}{'prompt, %':>24}{'classifier, %':>24}")
for need in (*LABELS, "all four"):
    mine = [i for i, e in enumerate(examples) if need in (e.answer, "all four")]
    cells = []
    for strategy in routes:
        right, n = sum(rewards[strategy][i] for i in mine), len(mine)
        cells.append("{:.1f} [{:.1f}, {:.1f}]".format(
            *(100 * v for v in (right / n, *evaluate.wilson(right, n)))))
    print(f"{need:<12}{len(mine):>9}{cells[0]:>24}{cells[1]:>24}")
gain, low, high = evaluate.paired_difference(rewards["classifier"], rewards["prompt"])
print(f"classifier minus prompt, same questions: {100 * gain:+.1f} points "
      f"[{100 * low:+.1f}, {100 * high:+.1f}]")

# %% how often would the untrained model say each label, if it were sampled?
chapter.section("sampled")
OPENERS = {"with the opener": tasks.DISPATCH_OPENER, "without": ""}
first = {name: [tokenizer.encode(form)[0] for form in (name, name.capitalize())] for name in LABELS}
drawn = tasks.get("dispatch").examples("train", 64)
print(f"{'':<33}" + "".join(f"{name:>11}" for name in LABELS))
for how, opener in OPENERS.items():
    prompts = [tokenizer.prompt(e.prompt, opener=opener) for e in drawn]
    p = torch.cat([
        generate(model, prompts[at:at + 16], 1, tokenizer.stop_ids, 0)
        .first_logits.float().softmax(-1)
        for at in range(0, len(prompts), 16)])                                      # (64, V)
    own = torch.stack([p[:, ids].sum(1) for ids in first.values()], 1)              # (64, 4)
    for text, value in (("p", own), ("one of 4 says it", 1 - (1 - own) ** 4)):
        mine = [value[[i for i, e in enumerate(drawn) if e.answer == name], n].mean()
                for n, name in enumerate(LABELS)]
        print(f"{f'{how}, {text}':<33}" + "".join(f"{float(v):>11.4f}" for v in mine))


# %% a dispatcher with 20 numbers: what it starts with decides how soon it learns
def learn(p_other, golds, updates=150, runs=16, lr=4.0):
    """REINFORCE on logits (need, label) plus one shared bias per label.
    -> p("other" | needs other), per update."""
    g = torch.Generator().manual_seed(0)
    bias = torch.tensor([(1 - p_other) / 3] * 3 + [p_other]).log().repeat(runs, 1)  # (runs, 4)
    table, curve = torch.zeros(runs, 4, 4), []                              # (runs, need, label)
    for _ in range(updates):
        p = (table + bias[:, None]).softmax(-1)
        curve.append(p[:, 3, 3])
        # 24 questions
        need = torch.tensor(golds)[torch.randint(len(golds), (runs, 24), generator=g)]
        asked = p.gather(1, need[..., None].expand(-1, -1, 4))              # (runs, 24, 4)
        # 4 answers each
        said = torch.multinomial(asked.flatten(0, 1), 4, True, generator=g).view(runs, 24, 4)
        reward = (said == need[..., None]).float()
        advantage = reward - reward.mean(-1, keepdim=True)
        onehot = torch.nn.functional.one_hot(said, 4).float()
        # (runs, 24, label)
        grad = (advantage[..., None] * (onehot - asked[:, :, None])).sum(2) / 96
        table.scatter_add_(1, need[..., None].expand(-1, -1, 4), lr * grad)
        bias += lr * grad.sum(1)
    return torch.stack(curve)


chapter.section("toy")
STARTS = {"p = 0.25": (0.25, [0, 1, 2, 3]),
          "p = 0.02": (0.02, [0, 1, 2, 3]),
          "p = 0.0005": (0.0005, [0, 1, 2, 3]),
          "p = 0.25, never asked": (0.25, [0, 1, 2])}
curves = {name: learn(*start) for name, start in STARTS.items()}
print(f"{'start':<24}" + "".join(f"{f'update {u}':>12}" for u in (1, 50, 100, 150)))
for name, curve in curves.items():
    print(f"{name:<24}"
          + "".join(f"{float(curve[u - 1].mean()):>12.3f}" for u in (1, 50, 100, 150)))

# %% the pictures
hits = {strategy: sum(table[need][need] for need in LABELS) for strategy, table in tables.items()}
fig, axes = plots.panel("Training teaches the model to say what a question needs", (10.5, 4.4), 2)
for ax, (strategy, table), title in zip(axes, tables.items(),
                                        ("untrained, asked by a prompt", "trained")):
    figures.draw_confusion(ax, [table])
    ax.set_title(f"{title}: {hits[strategy]} of {len(examples)} right")
fig.supxlabel("what the model said, % of the questions of a row  (frame: right)", fontsize=11)
fig.supylabel("what the question needs", fontsize=11)
chapter.save(fig, "07_a_better_dispatcher")

fig, ax = plots.panel("A word that is never said is never learnt")
for name, colour, said, *at in (("p = 0.25", plots.DARK, "chance at the start: 0.25", 20, 1.05),
                                ("p = 0.02", plots.DARK, "start 0.02", 53, 0.5),
                                ("p = 0.0005", plots.RED, "start 0.0005: not learnt", 90, 0.05)):
    x, curve = torch.arange(1, len(curves[name]) + 1), curves[name]
    ax.fill_between(x, curve.min(1).values, curve.max(1).values, color=colour, alpha=0.15, lw=0)
    ax.plot(x, curve.mean(1), color=colour, lw=3, clip_on=False)
    ax.text(*at, said, color=colour, weight="bold", fontsize=12, va="center")
ax.set(xlabel="update  (line: mean, band: range of 16 runs)",
       ylabel="chance to say the right word", ylim=(0, 1.1), yticks=(0, 0.5, 1))
chapter.save(fig, "07_sampled")

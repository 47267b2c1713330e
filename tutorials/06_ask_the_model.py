"""
06: ask the model what it needs. The base model routes by itself, and how it is asked matters (paper
3.2 A).
"""
# %% the checkers of the three exercises
import chapter
import torch

from t2mini import adapt, evaluate, experts, tasks
from t2mini.lab import figures, plots
from t2mini.generate import generate


def check_1(reader):
    for said, want in (("math", "math"), (" Code.", "code"), ("\\boxed{Reasoning}", "reasoning"),
                       ("OTHER", "other"), ("mathematics", None), ("math or code", None),
                       ("math, math", "math"), ("", None)):
        got = reader.exercise_1(said)
        assert got == want, (
            f"{said!r} means {want}, not {got}: whole words, any case, and two labels are none")


def check_2(reader):
    needs = ["math", "math", "code", "other", "math"]
    said = ["math", "reasoning", "code", None, None]
    got = reader.exercise_2(needs, said)
    assert got["math"]["math"] == 1 and got["math"]["reasoning"] == 1, (
        f"of the math questions one was called math and one reasoning; you have {got['math']}")
    assert got["math"]["unreadable"] == 1, (
        "an answer that names no label (None) counts in the column unreadable")
    assert got["other"]["other"] == 0, (
        "the question that needs other got an unreadable answer, which is not right")
    assert all(sum(row.values()) == needs.count(k) for k, row in got.items()), (
        "each row must add up to its questions")
    assert (set(got) == set(tasks.LABELS)
            and all(set(row) == {*tasks.LABELS, "unreadable"} for row in got.values())), (
        "four rows, five columns, and zeros where nothing is")


def check_3(reader):
    prior = {"code": 0.1, "math": 0.6, "reasoning": 0.2, "other": 0.1}
    got = reader.exercise_3({"code": 0.15, "math": 0.5, "reasoning": 0.25, "other": 0.1}, prior)
    assert isinstance(got, dict) and abs(sum(got.values()) - 1) < 1e-6, (
        "return shares, and make them add up to 1 again")
    assert max(got, key=got.get) == "code", (
        "against the model's habit of saying math, code rose by half: it must win now. "
        "Divide, do not subtract")
    assert abs(got["code"] - 1.5 / (1.5 + 5 / 6 + 1.25 + 1)) < 1e-6, (
        f"code has 1.5 of 4.583, a share of 0.327, not {got['code']:.3f}")
    flat = reader.exercise_3(dict(prior), prior)
    assert all(abs(v - 0.25) < 1e-6 for v in flat.values()), (
        "a question that moves nothing must get four equal shares")


chapter.start(__doc__, [check_1, check_2, check_3], __file__, runs_code=True)

# %% from a routing table to a score, on paper
chapter.section("by-hand")
# ten math questions, by what the first pass said
table = {"math": 6, "reasoning": 3, "other": 1}
# of a right answer, by expert (other: the base model)
chance = {"math": 0.6, "reasoning": 0.2, "other": 0.3}
print(f"routed right: {table['math']} of {sum(table.values())}")
print(f"answered right, expected: {sum(table[k] * chance[k] for k in table):.1f} of 10")
print(f"with every question routed right: {10 * chance['math']:.1f}; "
      f"with the base model: {10 * chance['other']:.1f}")

# %% forty questions of every class, from the test split
model, tokenizer = chapter.load()
EACH = 40
asked = [(skill, e) for skill in tasks.LABELS
         for e in tasks.get(skill).examples("test", EACH, seed=0)]
needs, questions = [skill for skill, _ in asked], [e.prompt for _, e in asked]

# %% strategy A: ask the base model
chapter.section("routing-table")
routes = adapt.route(model, tokenizer, questions)
COLUMNS = (*tasks.LABELS, "unreadable")
said = [r.label if r.readable else "unreadable" for r in routes]
counts = {k: [sum(n == k and s == c for n, s in zip(needs, said)) for c in COLUMNS]
          for k in tasks.LABELS}
print(f"{'needs / said':<14}" + "".join(f"{c:>12}" for c in COLUMNS))
for k, row in counts.items():
    print(f"{k:<14}" + "".join(f"{v:>12}" for v in row))

chapter.section("dispatch-prompt")
print(tasks.dispatch_prompt("{question}"))
print(f"the answer begins: {tasks.DISPATCH_OPENER}")

# %% the same questions, asked in other words
chapter.section("wordings")
BOXED = ('Which skill does the message above need: "code", "math", "reasoning" or "other"? '
         "Put one of these four words into \\boxed{}.")


def ask(build, opener, max_tokens):
    """Labels that the base model names when each question is asked as build(question);
    None where it names none."""
    found = [None] * len(questions)
    prompts = [tokenizer.prompt(build(q), opener=opener) for q in questions]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for at in range(0, len(order), 32):
        part = order[at:at + 32]
        out = generate(model, [prompts[i] for i in part], max_tokens, tokenizer.stop_ids,
                       temperature=0)
        for n, i in enumerate(part):
            found[i] = tasks.find_label(tokenizer.decode(out.tokens(n)))
    return found


# The model's habit: what it says, on average, whatever the question is. Taken from train questions.
habit_from = [e.prompt for k in tasks.LABELS for e in tasks.get(k).examples("train", 10, seed=0)]
usual = [r.probabilities for r in adapt.route(model, tokenizer, habit_from)]
habit = {k: sum(p[k] for p in usual) / len(usual) for k in tasks.LABELS}


def against_habit(share):
    """The label whose share is largest compared with how often the model says it anyway."""
    return max(share, key=lambda k: share[k] / habit[k])


ways = {"the shipped wording": [r.label if r.readable else None for r in routes],
        "the same, no opener": ask(tasks.dispatch_prompt, "", 16),
        "label in a box": ask(lambda q: f"{q}\n\n---\n{BOXED}", "", 24),
        "shipped, against habit": [against_habit(r.probabilities) for r in routes]}
print(f"{'asked how':<24}{'right':>7}{'unreadable':>12}   said most often")
for name, labels in ways.items():
    most = max(tasks.LABELS, key=labels.count)
    print(f"{name:<24}{sum(a == b for a, b in zip(labels, needs)):>7}"
          f"{labels.count(None):>12}   {most}")
print("habit: " + "  ".join(f"{k} {100 * v:.0f}%" for k, v in habit.items()))

# %% what wrong routes cost: the second pass, on a quarter of the questions
chapter.section("second-pass")
few = [i for i in range(len(asked)) if i % EACH < EACH // 4]
examples, texts = [asked[i][1] for i in few], [questions[i] for i in few]
skilled = experts.load(adapt.SKILLS, model)
answers = {"base": evaluate.answers(model, tokenizer, texts, 64),
           "prompt": adapt.second_pass(model, tokenizer, texts,
                                       [routes[i].label for i in few], skilled, 64),
           "told": adapt.second_pass(model, tokenizer, texts,
                                     [needs[i] for i in few], skilled, 64)}
right = {arm: sum(tasks.rewards(examples, found)) for arm, found in answers.items()}
NAMES = {"base": "base model, one pass", "prompt": "routed by the base model",
         "told": "told what is needed"}
for arm, label in NAMES.items():
    print(f"{label:<26}{evaluate.percent(right[arm], len(few))}")

# %% facts that should hold on any machine
chapter.section("verdict")
share_right = sum(a == b for a, b in zip(said, needs)) / len(needs)
print(f"better than guessing one of four: {share_right > 0.25}; "
      f"right on nine in ten: {share_right > 0.9}")
hits = {name: sum(a == b for a, b in zip(labels, needs)) for name, labels in ways.items()}
print("the shipped wording is the best of the four: "
      f"{max(hits, key=hits.get) == 'the shipped wording'}")
print(f"knowing the need helps most: {right['told'] >= max(right['base'], right['prompt'])}")

# %% the picture
fig, (left, bars) = plots.panel(
    "Asked what a question needs, the base model often errs, and that costs right answers",
    (10.5, 4.3), 2)
figures.draw_confusion(left, [{need: dict(zip(COLUMNS, row)) for need, row in counts.items()}])
left.set(xlabel=f"what the base model says, % of {EACH} questions a row\n(frame: right)",
         ylabel="what the question needs",
         title=f"{hits['the shipped wording']} of {len(asked)} questions sorted right")
left.spines[:].set_visible(False)
COLOURS = plots.OF["base"], plots.OF["prompt"], plots.OF["expert"]
WHO = "base\nmodel", "expert that the\nbase model names", "right\nexpert"
plots.score_bars(bars, list(zip(WHO, right.values(), COLOURS)), len(few))
bars.set_title("right answers of")
chapter.save(fig, "06_ask_the_model")

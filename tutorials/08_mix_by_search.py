"""
08: mix by search. The cross-entropy method finds weights for the experts from ten solved examples
(paper 3.2 C).
"""
# %% the checkers of the three exercises
import time

import chapter
import numpy as np

from t2mini import adapt, evaluate, experts, tasks
from t2mini.lab import few_shot, plots
from t2mini.cem import cem


def check_1(reader):
    x = np.array([[0.1], [0.3], [0.5], [0.6], [0.9]])
    mean, std = reader.exercise_1(x, [-0.49, -0.25, -0.09, -0.04, -0.01], 2)
    assert abs(float(mean[0]) - 0.75) < 1e-6, (
        f"the elites are 0.6 and 0.9, their mean is 0.75, not {float(mean[0]):.3f}")
    assert abs(float(std[0]) - 0.15) < 1e-6, (
        f"their deviation is 0.15, not {float(std[0]):.3f}: the root of the mean square")
    x = np.array([[0.0, 5.0], [1.0, 7.0], [9.0, 9.0]])
    assert np.allclose(reader.exercise_1(x, [3.0, 2.0, 1.0], 2)[0], [0.5, 6.0]), (
        "larger scores are better, entry by entry")


def check_2(reader):
    scores = [(0.4, -2.0), (0.4, -1.0), (0.5, -9.0), (0.0, -np.inf), (0.4, -1.5)]
    got = list(reader.exercise_2(scores, 3))
    assert got == [2, 1, 4], f"the three best are numbers 2, 1 and 4, in this order, not {got}"
    got = list(reader.exercise_2([(0.2, -1.0)] * 5, 3))
    assert got == [], f"where all scores are equal there is no elite: an empty list, not {got}"


def check_3(reader):
    top = np.array([0.7, 0.1, 0.2])
    mean = reader.exercise_3(lambda x: [(-float(((v - top) ** 2).sum()), 0.0) for v in x],
                             [1 / 3] * 3, 0)
    assert np.abs(np.asarray(mean) - top).max() < 0.08, (
        f"the top is at 0.7, 0.1, 0.2; yours is at {np.round(mean, 2)}")
    mean = reader.exercise_3(lambda x: [(0.5, -abs(float(v[0]) - 0.8)) for v in x], [0.2], 1)
    assert abs(mean[0] - 0.8) < 0.1, (
        f"ties in the first entry are broken by the second: 0.8, not {mean[0]:.2f}")
    mean = reader.exercise_3(lambda x: [(0.4, -1.0) for _ in x], [1 / 3] * 3, 2)
    assert np.allclose(mean, 1 / 3), "on a flat score the mean must stay where it is"


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% one step, on paper
chapter.section("by-hand")
x = np.array([0.1, 0.3, 0.5, 0.6, 0.9])
score = -(x - 0.8) ** 2
elite = x[np.argsort(score)[-2:]]
print("candidate", "  ".join(f"{v:5.2f}" for v in x))
print("score    ", "  ".join(f"{v:5.2f}" for v in score))
print(f"the two best: {sorted(elite.tolist())}, next mean {elite.mean():.2f}, "
      f"next deviation {elite.std():.2f}")

# %% the library on a function whose top is known
chapter.section("toy")
TOP = np.array([0.7, 0.1, 0.2])
found = cem(lambda c: [(-float(((v - TOP) ** 2).sum()), 0.0) for v in c], np.full(3, 1 / 3),
            iterations=20, population=24)
print(f"top {TOP}, start [0.33 0.33 0.33]")
for step in (1, 5, 10, 20):
    now = found.history[step - 1]
    print(f"after {step:>2}: mean " + " ".join(f"{v:.2f}" for v in now["mean"]) + "  deviation "
          + " ".join(f"{v:.2f}" for v in now["std"]))

# %% ties: a score that says nothing
chapter.section("ties")


def cut_anywhere(seed, iterations=20, population=16, n_elite=4):
    """A search that takes whatever sorting puts first among equals, as the release does.
    -> means, one per iteration."""
    rng, mean, std, path = np.random.default_rng(seed), np.full(3, 1 / 3), np.full(3, 0.5), []
    for _ in range(iterations):
        x = np.clip(mean + std * rng.standard_normal((population, 3)), 0, 1)
        # all scores are 0.4
        elite = x[np.argsort(np.full(population, 0.4), kind="stable")[:n_elite]]
        mean, std = elite.mean(0), elite.std(0)
        path.append(mean)
    return np.array(path)


def far(means):
    """How far from the uniform mixture, per iteration."""
    return np.linalg.norm(np.asarray(means) - 1 / 3, axis=-1)


loose = np.array([far(cut_anywhere(seed)) for seed in range(20)])           # (seeds, iterations)
held = np.array([
    far([h["mean"] for h in cem(lambda c: [(0.4, -1.0)] * len(c), np.full(3, 1 / 3),
                                iterations=20, seed=seed).history])
    for seed in range(20)])
likelier = cem(lambda c: [(0.4, -abs(float(v[0]) - 0.8)) for v in c], np.full(3, 1 / 3),
               iterations=20)
print("flat score, distance walked by the mean in 20 iterations: "
      f"cut anywhere {loose[:, -1].mean():.2f}, t2mini {held[:, -1].max():.2f}")
print("accuracy flat, likelihood best at alpha_0 = 0.8: "
      f"the mean of alpha_0 ends at {likelier.mean[0]:.2f}")

# %% a real search: ten solved examples of a task that no expert was trained on
TASK, SHOTS, ITERATIONS, POPULATION, N = "reasoning-unseen", 10, 5, 12, 100
model, tokenizer = chapter.load()
task, t0 = tasks.get(TASK), time.time()
mixed = list(experts.load(adapt.MIXED, model).values())
shots, test = task.examples("val", SHOTS), task.examples("test", N)
assert not {e.prompt for e in shots} & {e.prompt for e in test}

chapter.section("search")
print(f"{'iteration':<11}{'best shots, %':>14}{'mean shots, %':>15}   mean alpha of "
      + ", ".join(adapt.MIXED))


def report(i, search):
    now = search.history[-1]
    print(f"{i + 1:<11}{100 * now['best'][0]:>14.0f}{100 * now['mean_score']:>15.0f}   "
          + " ".join(f"{a:+.2f}" for a in now["mean"]), flush=True)


expert, search = adapt.adapt_cem(model, tokenizer, task, mixed, shots, iterations=ITERATIONS,
                                 population=POPULATION, progress=report)
print(f"found: {' '.join(f'{a:+.2f}' for a in search.best)}, "
      f"right on {100 * search.best_score[0]:.0f} % of the shots")

# %% one number instead of three: how far to go to what the first pass names
chapter.section("between")
dispatcher = experts.load(["dispatcher"], model)["dispatcher"]
between, alpha, right = few_shot.by_first_pass(model, tokenizer, task, mixed, shots, dispatcher)
print("from the equal mixture to the named experts   shots, %")
for part, share in sorted(zip(few_shot.FAR, right)):
    print(f"{part:<46.2f}{100 * share:>8.0f}")
print(f"{'base model':<46}{100 * right[-1]:>8.0f}")
print("taken: " + " ".join(f"{a:+.2f}" for a in alpha.tolist()))

# %% scored on test questions, beside what needs no search
chapter.section("test")
arms = {"base": {}, "uniform alpha": adapt.mixture(mixed, [1 / 3] * 3), "found alpha": expert,
        "between": between, "reasoning expert": mixed[adapt.MIXED.index("reasoning")]}
# all arms at once: every row of a batch has its own z
asked = [e.prompt for e in test] * len(arms)
texts = evaluate.answers(model, tokenizer, asked, task.max_tokens, opener=task.opener, title="test",
                         experts=list(arms.values()), which=[n // N for n in range(len(asked))])
rewards = dict(zip(arms, np.reshape(tasks.rewards(test * len(arms), texts),
                                    (len(arms), N)).tolist()))
print(f"{TASK}, {N} test questions")
for name, r in rewards.items():
    gain = [100 * v for v in evaluate.paired_difference(r, rewards["base"])]
    print(f"{name:<17}{evaluate.percent(sum(r), N):<32}" + ("" if name == "base" else
          "minus base {:+.1f} [{:+.1f}, {:+.1f}]".format(*gain)))
for name in ("found alpha", "between"):
    gain = [100 * v for v in evaluate.paired_difference(rewards[name], rewards["uniform alpha"])]
    print(name, "minus uniform {:+.1f} [{:+.1f}, {:+.1f}]".format(*gain))

chapter.section("cost")
print(f"answers written to search: {SHOTS * POPULATION * ITERATIONS}; gradient steps: 0; "
      f"seconds: {time.time() - t0:.0f}")

# %% the pictures
fig, ax = plots.panel("On these 100 questions every mixture beats the base model;\n"
                      "which one is best they cannot tell", (8, 4.4))
WHO = {"base": "base model", "uniform alpha": "all three experts,\nmixed equally",
       "found alpha": "mixture found\nby search", "between": "first pass\nand examples",
       "reasoning expert": "right expert\nalone"}
colours = [plots.OF[of] for of in ("base", "uniform alpha", "search", "search", "expert")]
plots.score_bars(ax, [(WHO[arm], sum(rewards[arm]), colour)
                      for arm, colour in zip(WHO, colours)], N)
chapter.save(fig, "08_mix_by_search")

fig, ax = plots.panel("Where all tries score the same, a search should stand still")
for paths, colour, said, height in (
        (loose, plots.RED,
         "released code keeps any of the equal tries:\nthe search walks away", 0.5),
        (held, plots.OF["search"], "t2mini keeps none of them: it stays", 0.03)):
    ends = paths.mean(0)
    ax.plot(range(1, 21), ends, color=colour, lw=3, clip_on=False)
    ax.text(20.3, ends[-1], f"{ends[-1]:.2f}", color=colour, fontsize=13, weight="bold",
            va="center")
    ax.text(4, height, said, color=colour, fontsize=12, weight="bold")
ax.set(xlabel="iteration", ylabel=f"distance from the start\n(mean of {len(loose)} searches)",
       ylim=(0, 0.6), xlim=(0, 20), xticks=range(0, 21, 5))
chapter.save(fig, "08_ties")

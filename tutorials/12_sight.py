"""
12: sight. Image tokens in front of a question, and the same z and reward as before (paper 4.2,
Figure 5).
"""
# %% the checkers of the three exercises
import random
import textwrap
import time

import chapter
import numpy as np
import torch

from t2mini import evaluate, experts, svf, tasks
from t2mini.lab import plots
from t2mini.questions.drawn import RGB, draw
from t2mini.questions.easy_vqa import COLORS, KINDS, SHAPES
from t2mini.questions.example import Example
from t2mini.questions.pictures import Seen, blank
from t2mini.sight import towers
from t2mini.sight.tower import patches


def check_1(reader):
    image = np.arange(36).reshape(6, 6)
    got = [np.asarray(p).ravel().tolist() for p in reader.exercise_1(image, 3)]
    want = [[0, 1, 2, 6, 7, 8, 12, 13, 14], [3, 4, 5, 9, 10, 11, 15, 16, 17]]
    assert len(got) == 4, f"6 x 6 pixels make four patches of 3 x 3, not {len(got)}"
    assert got[:2] == want, (
        f"the first two patches are {want}, not {got[:2]}: squares, from left to right")
    assert got[2][0] == 18, "behind the first row of squares comes the second"


def check_2(reader):
    got = list(reader.exercise_2([1, 4093, 198], [5, 6, 7], 2, 3, 100))
    assert got == [1, 4093, 198, 106, 107, 108, 5, 6, 7], (
        "image 2 of 3 tokens behind a vocabulary of 100 has the ids 106, 107, 108, "
        f"between the chat's opening and the words; yours is {got}")
    assert list(reader.exercise_2([], [5], 0, 1, 10)) == [10, 5], (
        "the first image begins right behind the vocabulary")


def check_3(reader):
    words, tokens = torch.arange(12.0).view(6, 2), torch.tensor(
        [[[-1.0, -2.0], [-3.0, -4.0]], [[-5.0, -6.0], [-7.0, -8.0]]])
    got = reader.exercise_3(torch.tensor([5, 8, 9, 0, 7]), words, tokens)
    want = torch.tensor([[10.0, 11.0], [-5.0, -6.0], [-7.0, -8.0], [0.0, 1.0], [-3.0, -4.0]])
    assert torch.is_tensor(got) and got.shape == (5, 2), "five ids give five rows of two numbers"
    assert torch.equal(got, want), "id 8 is V + Q n + k = 6 + 2 * 1 + 0: token 0 of image 1"
    plain = torch.tensor([1, 2])
    assert torch.equal(reader.exercise_3(plain, words, tokens), words[plain]), (
        "words alone are rows of the matrix, as ever")


chapter.start(__doc__, [check_1, check_2, check_3], __file__)

# %% an image of four by four pixels becomes four patches
chapter.section("by-hand")
tiny = np.full((4, 4, 3), 255, np.uint8)
tiny[2:, :2] = (255, 0, 0)                                  # a red square, lower left, on white
found = patches(torch.from_numpy(tiny)[None], 2)[0]         # (4, 12)
for name, patch in zip(("upper left", "upper right", "lower left", "lower right"), found.tolist()):
    print(f"{name:<12}" + " ".join(f"{v:+.0f}" for v in patch))

# %% a model that sees: eight words that the vocabulary lacks
chapter.section("tokens")
model, tokenizer = chapter.load()
started = time.time()
before = tokenizer.prompt("what color is the shape?")
eye = towers.open_eye(model, tokenizer)
shown = draw("red", "triangle", random.Random(0))
ids = tokenizer.prompt(Seen("what color is the shape?", shown))
V = model.cfg.vocab_size
print(f"the question alone: {len(before)} ids; "
      f"with an image: {len(ids)}, of which {sum(i >= V for i in ids)} are not words")
print("the ids beyond the vocabulary:", *(i for i in ids if i >= V))
print(f"the tower: {sum(p.numel() for p in eye.tower.parameters()):,} numbers; an image becomes "
      f"{eye.Q} tokens of {model.cfg.hidden_size}")
print("the same words without an image have the same ids:",
      tokenizer.prompt("what color is the shape?") == before)

# %% what the frozen model says of an image
chapter.section("captions")
rng = random.Random(12)
gallery = [(draw(color, shape, rng), color, shape)
           for color, shape in (("red", "triangle"), ("blue", "circle"),
                                ("teal", "rectangle"), ("yellow", "circle"))]
texts = evaluate.answers(model, tokenizer,
                         [Seen("Describe the image.", image) for image, *_ in gallery], 16)
for (_, color, shape), text in zip(gallery, texts):
    print(f"a {color} {shape}: {text.strip()}")

# %% questions in the manner of easy-VQA, about images that are drawn here
FORMS = ("is there a {} shape?", "is no {} shape present?",
         "does the image contain a {}?", "is there not a {}?")


def question(rng):
    """One image and one question about it. Most are answered with yes or no, as in easy-VQA."""
    color, shape = rng.choice(COLORS), rng.choice(SHAPES)
    image = draw(color, shape, rng)
    kind = rng.choice(("yes/no", "yes/no", "yes/no", "color", "shape"))
    if kind == "color":
        return Example(Seen("what color is the shape?", image), color, "choice", kind,
                       options=COLORS)
    if kind == "shape":
        return Example(Seen("what shape is in the image?", image), shape, "choice", kind,
                       options=SHAPES)
    number = rng.randrange(len(FORMS))
    of, true = ((COLORS, color), (SHAPES, shape))[number // 2]
    named = true if rng.random() < 0.5 else rng.choice([word for word in of if word != true])
    right = (named == true) != (number % 2 == 1)            # every second form says "no" or "not"
    return Example(Seen(FORMS[number].format(named), image), "Yes" if right else "No",
                   "choice", kind, options=KINDS[kind])


N = 200
rng = random.Random(0)
asked = [question(rng) for _ in range(N)]


def score(examples, z):
    """Right or wrong (1.0, 0.0) for each, and the answers."""
    with svf.using(model, z):
        texts = evaluate.answers(model, tokenizer, [e.prompt for e in examples], 8)
    return tasks.rewards(examples, texts), texts


def instead(change):
    """The same questions about another image."""
    return [Example(Seen(e.prompt, change(e.prompt.image)), e.answer, "choice", e.kind,
                    options=e.options) for e in asked]


def shuffled(image):
    """The same patches, each somewhere else."""
    x = image.reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 8, 8, 3)[
        np.random.default_rng(0).permutation(64)]
    return x.reshape(8, 8, 8, 8, 3).swapaxes(1, 2).reshape(64, 64, 3)


chapter.section("score")
vision = experts.load(["vision"], model)["vision"]
arms = {"base": (asked, {}), "vision expert": (asked, vision),
        "blank image": (instead(lambda image: blank()), vision),
        "shuffled": (instead(shuffled), vision)}
rewards, texts = {}, {}
print(f"{N} questions about drawn images; right, %{'':<14}"
      + "".join(f"{kind:>8}" for kind in KINDS))
for name, (examples, z) in arms.items():
    rewards[name], texts[name] = score(examples, z)
    by = {kind: [r for r, e in zip(rewards[name], asked) if e.kind == kind] for kind in KINDS}
    print(f"{name:<14}{evaluate.percent(sum(rewards[name]), N):<32}"
          + "".join(f"{100 * sum(r) / len(r):>8.0f}" for r in by.values()))
gain = [100 * v for v in evaluate.paired_difference(rewards["vision expert"], rewards["base"])]
print("expert minus base {:+.1f} [{:+.1f}, {:+.1f}] points".format(*gain))

chapter.section("answers")
for i in range(6):
    print(f"{asked[i].prompt}  right: {asked[i].answer}  base: {texts['base'][i].strip()}  "
          f"expert: {texts['vision expert'][i].strip()}")

chapter.section("dials")
print(f"z in {len(vision)} of {len(svf.layers(model))} matrices: "
      f"{sum(z.numel() for z in vision.values()):,} numbers; "
      f"farthest from 1: {max(float((z - 1).abs().max()) for z in vision.values()):.2f}")

chapter.section("cost")
print(f"seconds behind the loading: {time.time() - started:.0f}")

# %% the picture: the first four questions about color or shape
# and the first four with yes or no, whatever came out
kinds = ["yes/no" if e.kind == "yes/no" else "seen" for e in asked]
fig, axes = plots.pyplot().subplots(2, 4, figsize=(9.6, 7.4))
for line, kind, heading in zip(axes, ("seen", "yes/no"),
                               ("which color or shape? (sees it)", "yes or no? (guesses)")):
    line[0].text(0, 1.3, heading, transform=line[0].transAxes, fontsize=13, weight="bold")
    for ax, i in zip(line, [i for i in range(N) if kinds[i] == kind]):
        ax.imshow(asked[i].prompt.image)
        ax.axis("off")
        ax.set_title(textwrap.fill(asked[i].prompt, 22), loc="left", fontsize=11)
        for y, name in ((-0.05, "base"), (-0.3, "vision expert")):
            said = texts[name][i].strip().split(",")[0]
            colour, sign = ((plots.GREEN, "\N{CHECK MARK}") if rewards[name][i]
                            else (plots.RED, "\N{BALLOT X}"))
            ax.text(0, y, sign, transform=ax.transAxes, fontsize=14, weight="bold", va="top",
                    color=colour)
            ax.text(0.13, y, textwrap.fill(f"{name}: {said}", 24), transform=ax.transAxes,
                    fontsize=10.5, va="top")
fig.suptitle("The model sees color and shape, but guesses yes or no", weight="bold", fontsize=14)
fig.subplots_adjust(0.02, 0.1, 0.98, 0.82, wspace=0.25, hspace=1.05)
chapter.save(fig, "12_sight")

# %% an image to ask about, of another size than the tower's
fig, ax = plots.pyplot().subplots(figsize=(2, 2))
fig.subplots_adjust(0, 0, 1, 1)
ax.imshow(draw("yellow", "circle", random.Random(3)))
ax.axis("off")
chapter.save(fig, "shape")

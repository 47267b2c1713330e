"""
The pictures (the only file that imports matplotlib, and only when a picture is drawn).

Colours are the colour-blind safe set of Okabe and Ito; intervals are drawn wherever a score is.
"""
import json
import math
import re
from pathlib import Path

import torch

from .. import evaluate
from ..machine import files
from ..machine.text import one_line

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"
PINK, RED, SKY, YELLOW = "#CC79A7", "#D55E00", "#56B4E9", "#F0E442"
DARK = "#444444"

# one colour for one thing, in every picture
OF = {"base": GREY, "expert": BLUE, "svf": BLUE, "own expert": BLUE, "lora": ORANGE, "full": DARK,
      "shuffled": PINK, "ia3": SKY, "prompt": SKY, "classifier": BLUE, "CEM": GREEN,
      "search": GREEN, "uniform alpha": YELLOW, "random alpha": YELLOW, "in context": DARK,
      "best single expert": PINK, "first pass and examples": GREEN,
      "second run": SKY, "options hidden": DARK, "other form": DARK}

# arms and tasks in words, where a name in a results file is short
WORDS = {
    "base": "base model", "no z": "base model", "z": "expert", "shuffled z": "expert, shuffled",
    "svf": "SVF expert", "lora": "LoRA", "ia3": "IA3",
    "svf, reward, shipped": "SVF, rewards, 200 updates (shipped)",
    "svf, worked solutions": "SVF, copying solutions, 100 updates",
    "lora, worked solutions": "LoRA, copying solutions, 100 updates",
    "svf, second run": "SVF expert, another seed", "second run": "SVF expert, another seed",
    "prompt": "first pass by prompt", "classifier": "trained first pass",
    "uniform alpha": "all experts mixed equally", "random alpha": "mixed at random",
    "cem": "mixture found by search", "CEM": "mixture found by search",
    "own expert": "its own expert", "cem per matrix": "searched, per matrix",
    "cem, alpha sums to 1": "searched, weights add up to 1",
    "cem on likelihood": "searched by likelihood",
    "gradient of likelihood": "likelihood, by gradient",
    "gradient of reward": "reward, by gradient",
    "gradient of reward, per matrix": "the same, per matrix",
    "best single expert": "best expert on the examples",
    "right expert": "right expert alone (the first pass's)",
    "10-shot in context, worked": "the same, worked out",
    "lora, uniform alpha": "LoRA, mixed equally", "lora, cem": "LoRA, searched",
    "10-shot in context": "ten examples in the prompt",
    "10-shot in context, bare numbers": "ten examples in the prompt",
    "10 shots, 8 x 3": "10 examples, 8 tries in 3 rounds",
    "10 shots, 16 x 12": "10 examples, 16 tries in 12 rounds",
    "ours": "t2mini", "greedy": "t2mini, but one greedy answer each",
    "no-baseline": "t2mini, but no baseline",
    "signed": "t2mini, but wrong answers cost 1", "sigmoid": "t2mini, but z is a sigmoid",
    "bf16": "t2mini, but z in bfloat16",
    "all": "all choices of the release", "all, 64 updates": "all of them, 64 updates",
    "all, stopped at 32": "all of them, stopped after 32 updates",
    "mixed z": "experts mixed by z",
    "mixed logits": "mixed by logits (released)",
    "one z per singular value": "one dial per singular value",
    "base, choosing": "base model, picking an option",
    "svf, choosing": "SVF expert, picking an option",
    "lora, choosing": "LoRA, picking an option",
    "options hidden": "base model, options not in its prompt",
    "other form": "base model, asked in another form",
    "dispatch": "made-up, all kinds", "real-math": "the first 100 of GSM8K",
    "real-code": "the first 100 of MBPP", "real-reasoning": "the first 100 of ARC-Challenge",
    "hand-math": "math, by hand", "hand-code": "code, by hand",
    "hand-reasoning": "reasoning, by hand", "hand-other": "other, by hand",
    "easy-vqa": "easy-VQA, whole test set",
    "easy-vqa-yes-no": "yes or no, where words give no hint (guessing: 50)",
    "vision-unseen": "unseen: which thing has that color? (guessing: 25)",
    "captions": "captions: color and shape right",
    "base, blank image": "base model, image hidden", "svf, blank image": "SVF expert, image hidden",
    "vision expert": "SVF expert", "vision expert, blank image": "SVF expert, image hidden",
    "svf, wrong costs 0": "SVF expert, wrong answers cost nothing",
    "base, told in words": "base model, told in words what is shown",
    "cem, text experts alone": "searched, text experts alone",
    "math-unseen": "math of unseen kinds", "code-unseen": "code of unseen kinds",
    "reasoning-unseen": "reasoning of unseen kinds", "math-500": "MATH-500",
    "gsm8k": "GSM8K", "gsm8k-steps": "GSM8K, in steps",
    "mbpp": "MBPP", "humaneval": "HumanEval", "arc-easy": "ARC-Easy",
    "arc-challenge": "ARC-Challenge", "arc-easy-letters": "ARC-Easy, with letters",
    "arc-challenge-letters": "ARC-Challenge, with letters",
    "arc-easy-open": "ARC-Easy, options hidden",
    "arc-challenge-open": "ARC-Challenge, options hidden",
    "the same": "original weights", "fine-tuned on other": "model fine-tuned on chat answers",
    "q": "query", "k": "key", "v": "value", "o": "attention out",
    "gate": "MLP gate", "up": "MLP up", "down": "MLP down",
}


def in_words(name):
    """An arm or a task as a reader would say it."""
    for short, word in (("svf", "SVF"), ("lora", "LoRA"),
                        ("next-token", "copying"), ("shots", "examples")):
        name = name if name in WORDS else name.replace(short, word)
    return WORDS.get(name, name)


def pyplot():
    """matplotlib without a screen."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False,
                         "font.size": 11, "figure.dpi": 120})
    return plt


def panel(title, size=(8, 4.2), panels=1):
    """-> figure and axes (one, or a list of `panels` side by side)
    under a title that says what they show."""
    fig, axes = pyplot().subplots(1, panels, figsize=size, layout="constrained")
    fig.suptitle(title, fontsize=13, weight="bold")
    return fig, axes


def score_bars(ax, bars, n, what="questions"):
    """A bar per score, its value on it and its 95 % interval as a line.
    bars: [(label, right answers of n, colour)]."""
    for x, (_, right, colour) in enumerate(bars):
        low, high = evaluate.wilson(right, n)
        ax.bar(x, 100 * right / n, 0.7, color=colour)
        ax.plot([x, x], [100 * low, 100 * high], color="black", lw=1.2)
        ax.text(x + 0.04, 100 * right / n + 2, f"{100 * right / n:.3g} %",
                weight="bold", fontsize=12)
    ax.set_xticks(range(len(bars)), [label for label, _, _ in bars])
    ax.set(ylim=(0, 102), ylabel=f"right of {n} {what}, %\n(line: 95 % interval)")


def by_layer_and_module(expert, value):
    """expert: dict name -> z. -> (layer numbers, module names,
    matrix (layers, modules) of value(z); NaN where there is no z).

    Layers without any z have no row.
    """
    cells = {}
    for name, z in expert.items():
        layer = re.search(r"\.(\d+)\.", "." + name)
        module = name.rpartition(".")[2]
        if module == "c_proj":                              # GPT-2 has two: attn.c_proj, mlp.c_proj
            module = ".".join(name.split(".")[-2:])
        cells[int(layer[1]) if layer else 0, module] = value(z)
    layers = sorted({i for i, _ in cells})
    modules = list(dict.fromkeys(m for _, m in cells))
    grid = torch.full((len(layers), len(modules)), float("nan"), dtype=torch.float64)
    for (i, m), v in cells.items():
        grid[layers.index(i), modules.index(m)] = v
    return layers, modules, grid


def in_picture(text):
    """What a file says, fit for a picture: no formula, and of the few letters that its font has."""
    return one_line(text).encode("ascii", "backslashreplace").decode().replace("$", r"\$")


def brief(number, digits):
    """'0.98'; what no training makes has a power of ten, '3e+20', and still fits into a title."""
    return f"{number:.{digits}f}" if abs(number) < 1e4 else f"{number:.0e}"


def places(size, least):
    """Digits behind the point, at least `least`, that show two figures of a number so large."""
    return max(least, 1 - math.floor(math.log10(size))) if size > 1e-9 else least


def draw_expert(expert, meta, path):
    """Left: where an expert turned its dials (mean |z - 1| per layer and module).
    Right: all its z."""
    plt = pyplot()
    # sums of the largest floats, too
    expert = {name: z.double() for name, z in expert.items()}
    layers, modules, grid = by_layer_and_module(expert, lambda z: 100 * float((z - 1).abs().mean()))
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained",
                                      width_ratios=[1.2, 1])
    turned = float(grid.nan_to_num(0).max()) > 1e-4         # less is rounding
    image = left.imshow(grid.numpy(), aspect="auto", cmap="viridis", origin="lower",
                        vmin=0, vmax=None if turned else 1)
    modules = list(map(in_picture, modules))
    left.set_xticks(range(len(modules)), modules, rotation=35, ha="right")
    if layers != list(range(len(layers))):                  # every second block, for example
        left.set_yticks(range(len(layers)), layers)
    left.set(ylabel="layer", title="how far, matrix by matrix")
    fig.colorbar(image, ax=left, label="mean distance of its dials from 1, %")
    z = torch.cat([z.flatten() for z in expert.values()])
    least = 1e-3 * max(1.0, float(z.abs().max()))           # a smaller spread is rounding
    spread = (None if z.max() - z.min() > least
              else (float(z.min()) - 500 * least, float(z.max()) + 500 * least))
    right.hist(z.numpy(), bins=80, range=spread, color=BLUE)
    right.axvline(1, color="black", lw=1, ls=":")
    ordered = z.sort().values
    low, high = float(ordered[len(z) // 20]), float(ordered[-1 - len(z) // 20])
    right.axvspan(low, high, color=BLUE, alpha=0.12, lw=0)
    right.locator_params(axis="x", nbins=4)                 # of z near 1 the labels are long
    digits = places(high - low, 2)
    right.set(xlabel="z of a dial (dotted: 1, the base model)", ylabel="how many dials",
              title=f"90 % of {len(z):,} dials (shaded):\n{brief(low, digits)} to "
                    f"{brief(high, digits)}")
    task = str(meta.get("task", "?"))
    if task.endswith(".jsonl"):                             # a file of yours, wherever it is
        task = Path(task).name
    told = "The expert '{}' of {} (seed {})\n".format(
        *(in_picture(text) for text in (task, meta.get("base_model", "?"), meta.get("seed", "?"))))
    if turned:
        most = int(grid.nan_to_num(-1).argmax())
        i, j = divmod(most, len(modules))
        for colour, width in ("white", 5), (RED, 2.5):
            left.plot(j, i, "o", ms=16, mfc="none", mec=colour, mew=width)
        far, farthest = 100 * float((z - 1).abs().mean()), float(grid.flatten()[most])
        told += (f"turned its dials by {brief(far, places(far, 1))}% on average, "
                 f"most in {modules[j]} of layer {layers[i]}: "
                 f"{brief(farthest, places(farthest, 1))}% (ring)")
    else:
        told += "turned no dial"
    fig.suptitle(told, fontsize=13, weight="bold")
    save(fig, path)


def draw_log(path_log, path):
    """Reward per update and validation accuracy over a training log (JSON lines)."""
    plt = pyplot()
    rows = read_log(path_log)
    steps = [r for r in rows if "reward" in r]
    val = [r for r in rows if "val" in r]
    fig, ax = plt.subplots(figsize=(7, 4.3), layout="constrained")
    if steps:                                               # next-token training samples nothing
        ax.plot([r["step"] for r in steps], [r["reward"] for r in steps], ".-", color=GREY,
                lw=1.2, ms=4, label="reward of sampled answers (train)")
    shares = [max(0.0, r["val"]) for r in val]              # -1 / n: the model had run away
    ends = [evaluate.wilson(share * r["val_n"], r["val_n"]) for share, r in zip(shares, val)]
    error = [[max(0.0, share - low) for share, (low, _) in zip(shares, ends)],   # rounding: -1e-16
             [max(0.0, high - share) for share, (_, high) in zip(shares, ends)]]
    ax.errorbar([r["step"] for r in val], shares, error,
                color=BLUE, marker="o", capsize=3,
                label=f"right on validation (n={val[0]['val_n'] if val else 0})")
    ax.set(xlabel="update", ylabel="share right", ylim=(-0.04, 1.04))   # room for 0 and 1
    ax.locator_params(axis="x", integer=True)               # no half updates
    if val:
        ax.set_title(f"Validation questions right: {val[0]['val']:.0%} at the start, at best "
                     f"{max(r['val'] for r in val):.0%}", weight="bold")
    # under the picture, where no line is
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    save(fig, path)


def read_log(path):
    """The rows of a training log. ValueError where they are none, or hold no numbers."""
    try:
        rows = [json.loads(line) for line in files.read_text(path).splitlines()]
    except RecursionError:
        raise ValueError("nested too deeply (damaged file?)") from None
    for i, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not all(between(row, *limits) for limits in LOGGED):
            raise ValueError(f"row {i} is not one of a training log (damaged file?)")
        if "step" not in row or ("val" in row) != ("val_n" in row):
            raise ValueError(f"row {i} lacks a number (damaged file?)")
    return rows


# what a row of a log may say: name, least, most
LOGGED = ("step", 0, 1e9), ("val", -1, 1), ("val_n", 1, 1e9), ("reward", -1e6, 1e6)


def between(row, name, least, most):
    """Is the number of that name within these limits, or not there?"""
    value = row.get(name, least)
    return type(value) in (int, float) and least <= value <= most


def save(fig, path):
    """Write a picture. A figure without a layout of its own gets a tight one."""
    if fig.get_layout_engine() is None:
        fig.tight_layout()
    kind = Path(path).suffix.lstrip(".") or "png"
    maker = "Software" if kind == "png" else "Creator"
    with files.replacing(path) as f:
        fig.savefig(f, format=kind, metadata={maker: files.MARK})   # by which `claim` knows it
    pyplot().close(fig)

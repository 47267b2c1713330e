"""
The pictures (the only file that imports matplotlib, and only when a picture is drawn).

Colours are the colour-blind safe set of Okabe and Ito; intervals are drawn wherever a score is.
"""
import json
import re
from pathlib import Path

import torch

from . import files

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"


def pyplot():
    """matplotlib without a screen."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 11, "figure.dpi": 120})
    return plt


def by_layer_and_module(expert, value):
    """expert: dict name -> z. -> (module names, matrix (layers, modules) of value(z); NaN where there is no z)."""
    cells = {}
    for name, z in expert.items():
        layer = re.search(r"\.(\d+)\.", "." + name)
        cells[int(layer[1]) if layer else 0, name.rpartition(".")[2]] = value(z)
    modules = list(dict.fromkeys(m for _, m in cells))
    grid = torch.full((max(i for i, _ in cells) + 1, len(modules)), float("nan"))
    for (i, m), v in cells.items():
        grid[i, modules.index(m)] = v
    return modules, grid


def draw_expert(expert, meta, path):
    """Left: where an expert turned its dials (mean |z - 1| per layer and module). Right: all its z."""
    plt = pyplot()
    modules, grid = by_layer_and_module(expert, lambda z: float((z - 1).abs().mean()))
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), gridspec_kw={"width_ratios": [1.2, 1]})
    image = left.imshow(grid, aspect="auto", cmap="viridis", origin="lower")
    left.set_xticks(range(len(modules)), modules, rotation=35, ha="right")
    left.set(xlabel="module", ylabel="layer", title="mean |z - 1|")
    fig.colorbar(image, ax=left)
    z = torch.cat([z.flatten() for z in expert.values()])
    right.hist(z.numpy(), bins=120, color=BLUE, log=True)
    right.axvline(1, color="black", lw=1, ls=":")
    right.set(xlabel="z (1 = base model)", ylabel="how many (log scale)", title=f"all {len(z):,} z")
    fig.suptitle(f"expert '{meta.get('task', '?')}' of {meta.get('base_model', '?')}, seed {meta.get('seed', '?')}")
    save(fig, path)


def draw_log(path_log, path):
    """Reward per update and validation accuracy over a training log (JSON lines)."""
    plt = pyplot()
    rows = [json.loads(line) for line in Path(path_log).read_text().splitlines()]
    steps = [r for r in rows if "reward" in r]
    val = [r for r in rows if "val" in r]
    fig, ax = plt.subplots(figsize=(7, 4))
    ax.plot([r["step"] for r in steps], [r["reward"] for r in steps], color=GREY, lw=1.2,
            label="reward of sampled answers (train)")
    error = [1.96 * (r["val"] * (1 - r["val"]) / r["val_n"]) ** 0.5 for r in val]
    ax.errorbar([r["step"] for r in val], [r["val"] for r in val], error, color=BLUE, marker="o", capsize=3,
                label=f"greedy accuracy, validation (n={val[0]['val_n'] if val else 0})")
    ax.set(xlabel="update", ylabel="share right", ylim=(0, 1))
    ax.legend(frameon=False)
    save(fig, path)


def draw_strategies(results, path):
    """results: list of {task, arm, accuracy, ci95}. Grouped bars with intervals, one group per task."""
    plt = pyplot()
    task_names, arms = (list(dict.fromkeys(r[k] for r in results)) for k in ("task", "arm"))
    colours = [GREY, BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#D55E00"]
    fig, ax = plt.subplots(figsize=(10, 4.4))
    width = 0.8 / len(arms)
    for a, arm in enumerate(arms):
        for r in (r for r in results if r["arm"] == arm):
            x = task_names.index(r["task"]) + (a - (len(arms) - 1) / 2) * width
            low, high = r["ci95"]
            ax.bar(x, 100 * r["accuracy"], width * 0.92, color=colours[a % 7],
                   label=arm if r["task"] == task_names[0] else None)
            ax.errorbar(x, 100 * r["accuracy"], [[100 * (r["accuracy"] - low)], [100 * (high - r["accuracy"])]],
                        color="black", lw=1, capsize=2)
    ax.set_xticks(range(len(task_names)), task_names)
    ax.set(ylabel="right answers, % (bars: 95 % interval)", ylim=(0, 100))
    ax.legend(frameon=False, ncols=min(4, len(arms)), loc="upper center", bbox_to_anchor=(0.5, 1.2), fontsize=9)
    save(fig, path)


def save(fig, path):
    fig.tight_layout()
    with files.replacing(path) as f:
        fig.savefig(f, format=Path(path).suffix.lstrip(".") or "png")
    pyplot().close(fig)

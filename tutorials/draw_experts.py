"""
Draw how the shipped experts were learnt: `python tutorials/draw_experts.py` writes
tutorials/figures/experts.png, experts05.png (the larger model's) and teachers.png (two ways to
learn math) from the logs tutorials/results/NAME-SEED.jsonl.

One panel for each expert: greedy answers to validation questions over the updates, one line for
each seed, and how many updates the paper's curves of such a task have.
"""
import json
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from t2mini import evaluate  # noqa: E402
from t2mini.lab import plots  # noqa: E402

PAPER = {"math": 400, "code": 100, "reasoning": 200}        # updates of the paper's curves
NAMES = (*PAPER, "dispatcher")
SHIPPED = {"math": 1}               # the seed that is shipped, where it is not 0 (own_data.md)


@dataclass(frozen=True)
class Figure:
    """prefix: of the logs; updates: how far the axis goes; sets: what an expert was trained on."""
    prefix: str
    updates: int
    title: str
    sets: dict


FIGURES = {
    "experts": Figure("", 400, "Most is learnt in the first fifty updates", {}),
    "experts05": Figure(
        "qwen-", 100, "A larger model: reasoning and the first pass learn most in thirty updates;\n"
                      "code's and math's rises are within chance",
        {"math": "GSM8K", "code": "MBPP", "reasoning": "ARC-Easy", "dispatcher": "made up"})}


def rows_of(log):
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def validation(rows):
    """-> (updates, share of right answers in %) of a log's rows, and n."""
    rows = [r for r in rows if "val" in r]
    return [r["step"] for r in rows], [100 * r["val"] for r in rows], rows[0]["val_n"]


def logs_of(name):
    """The logs of an expert's trainings, that of the shipped one first."""
    first = f"{name}-{SHIPPED.get(name, 0)}"
    found = (HERE / "results").glob(f"{name}-[0-9].jsonl")
    return sorted(found, key=lambda log: (log.stem != first, log.stem))


def panel(ax, name, logs, figure):
    """The curves of one expert; the first log is that of the shipped one."""
    for log in reversed(logs):
        updates, right, _ = validation(rows_of(log))
        shipped = log == logs[0]
        ax.plot(updates, right, color=plots.BLUE if shipped else plots.SKY,
                marker="o" if shipped else "", ms=4, lw=2 if shipped else 1.4,
                label="shipped" if shipped else "another seed")
    updates, right, n = validation(rows_of(logs[0]))
    low, high = zip(*(evaluate.wilson(n * share / 100, n) for share in right))
    ax.fill_between(updates, [100 * v for v in low], [100 * v for v in high], color=plots.BLUE,
                    alpha=0.15, lw=0)
    best = max(range(len(right)), key=lambda i: (right[i], i))      # of equals the later is kept
    ax.annotate(f"best: {right[best]:.1f} %", (updates[best], right[best]), (0, 10),
                textcoords="offset points", ha="center", weight="bold", color=plots.BLUE,
                bbox={"fc": "white", "ec": "none", "pad": 1})
    ax.annotate(f"{right[0]:.0f} %", (updates[0], right[0]), (6, -12), textcoords="offset points",
                color=plots.DARK)
    if name in PAPER:
        budget(ax, PAPER[name], figure.updates)
    said = {"dispatcher": "trained first pass"}.get(name, f"{name} expert")
    where = f"{figure.sets[name]}, " if figure.sets else ""
    ax.set(title=f"{said}\n({where}{n} questions)", xlabel="update",
           xlim=(-0.02 * figure.updates, 1.04 * figure.updates), ylim=(0, 114))


def budget(ax, updates, most):
    """A line where the paper's curve ends, or words where that is beyond `most` updates."""
    if updates <= most:
        ax.axvline(updates, ymax=0.66, color=plots.ORANGE, ls="--", lw=1.4)
    left = updates > most / 2
    arrow = "" if updates <= most else " →"
    ax.text(min(updates, most) + (-0.015 if left else 0.015) * most, 3,
            f"the paper:\n{updates} updates{arrow}", ha="right" if left else "left", fontsize=9,
            color=plots.DARK)


def draw(figure):
    """-> the picture."""
    logs = {name: logs_of(figure.prefix + name) for name in NAMES}
    logs = {name: found for name, found in logs.items() if found}
    fig, axes = plots.pyplot().subplots(1, len(logs), figsize=(0.5 + 3.125 * len(logs), 4.1),
                                        sharey=True, layout="constrained")
    for ax, (name, found) in zip(axes, logs.items()):
        panel(ax, name, found, figure)
    axes[0].set_ylabel("validation questions right, %\n(band: 95 % interval)")
    # one of each name
    lines = {name: line for ax in axes for line, name in zip(*ax.get_legend_handles_labels())}
    if len(lines) > 1:
        fig.legend(lines.values(), lines, frameon=False, ncols=2, loc="outside lower center")
    fig.suptitle(figure.title, fontsize=13, weight="bold")
    return fig


# logs: how their line is drawn, and what it is called
TEACHERS = {"math": ("rewards: 256 sampled answers an update", plots.BLUE),
            "math-worked": ("worked solutions: 32 copied an update", plots.ORANGE)}


def draw_teachers():
    """Validation of made-up math over the updates, by rewards and by worked solutions. -> the
    picture."""
    fig, ax = plots.panel("Worked solutions teach made-up math sooner than rewards do", (8, 4.0))
    for name, (said, colour) in TEACHERS.items():
        for n, log in enumerate(logs_of(name)):
            updates, right, questions = validation(rows_of(log))
            ax.plot(updates, right, color=colour, marker="o", ms=4, label=None if n else said)
    ax.set(xlabel="update", ylim=(0, 102),
           ylabel=f"right of {questions} validation questions, %\n(a line for each training)")
    ax.legend(frameon=False, loc="lower right")
    return fig


if __name__ == "__main__":
    plots.save(draw_teachers(), HERE / "figures" / "teachers.png")
    for name, figure in FIGURES.items():
        plots.save(draw(figure), HERE / "figures" / f"{name}.png")

"""
Draw how the shipped experts were learnt: `python tutorials/draw_experts.py` writes
tutorials/figures/experts.png from the logs tutorials/results/NAME-SEED.jsonl.

One panel for each expert: greedy answers to validation questions over the updates, one line for
each seed, and how many updates the paper's curves of such a task have.
"""
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from t2mini.lab import plots  # noqa: E402

PAPER = {"math": 400, "code": 100, "reasoning": 200}        # updates of the paper's curves
NAMES = (*PAPER, "dispatcher")


def validation(path):
    """-> (updates, share of right answers in %) of a log, and n."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [r for r in rows if "val" in r]
    return [r["step"] for r in rows], [100 * r["val"] for r in rows], rows[0]["val_n"]


def panel(ax, name):
    """The curves of one expert; the first seed is the shipped one."""
    logs = sorted((HERE / "results").glob(f"{name}-[0-9].jsonl"))
    for seed, log in reversed(list(enumerate(logs))):
        updates, right, n = validation(log)
        shipped = seed == 0
        ax.plot(updates, right, color=plots.BLUE if shipped else plots.SKY,
                marker="o" if shipped else "", ms=4, lw=2 if shipped else 1.4,
                label="shipped" if shipped else "other seeds")
    best = right.index(max(right))
    ax.annotate(f"best: {right[best]:.1f} %", (updates[best], right[best]), (0, 10),
                textcoords="offset points", ha="center", weight="bold", color=plots.BLUE,
                bbox={"fc": "white", "ec": "none", "pad": 1})
    ax.annotate(f"{right[0]:.0f} %", (updates[0], right[0]), (6, -12), textcoords="offset points",
                color=plots.DARK)
    if name in PAPER:
        ax.axvline(PAPER[name], ymax=0.66, color=plots.ORANGE, ls="--", lw=1.4)
        left = PAPER[name] > 200
        ax.text(PAPER[name] + (-6 if left else 6), 3, f"the paper:\n{PAPER[name]} updates",
                ha="right" if left else "left", fontsize=9, color=plots.DARK)
    said = {"dispatcher": "trained first pass"}.get(name, f"{name} expert")
    ax.set(title=f"{said}\n({n} questions)", xlabel="update", xlim=(-8, 415), ylim=(0, 114))


def draw():
    """-> the figure."""
    fig, axes = plots.pyplot().subplots(1, len(NAMES), figsize=(13, 4.1), sharey=True)
    for ax, name in zip(axes, NAMES):
        panel(ax, name)
    axes[0].set_ylabel("validation questions right, %")
    # one of each name
    lines = {name: line for ax in axes for line, name in zip(*ax.get_legend_handles_labels())}
    if len(lines) > 1:
        fullest = max(axes, key=lambda ax: len(ax.lines))
        fullest.legend(lines.values(), lines, frameon=False, fontsize=9, loc="lower right",
                       bbox_to_anchor=(1.0, 0.2))
    fig.suptitle("Most is learnt in the first fifty updates",
                 fontsize=13, weight="bold")
    return fig


if __name__ == "__main__":
    plots.save(draw(), HERE / "figures" / "experts.png")

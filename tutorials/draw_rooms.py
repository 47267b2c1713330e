"""
Draw how the files lie: `python tutorials/draw_rooms.py` writes tutorials/figures/rooms.png.

In the middle the trunk, which is the method; above it the three packages that use it, below it the
three that serve it. Imports go down only.
"""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from draw_method import INK, PALE_BLUE, SOFT, arrow, box  # noqa: E402

from t2mini.lab import plots  # noqa: E402

ABOVE = (("cli/", "options and verbs:\nwhat you type"),
         ("lab/", "experiments, figures,\nspeed, demo"),
         ("sight/", "images: a small network\nthat reads them"))
BELOW = (("questions/", "made-up and published\nquestions, the sandbox"),
         ("formats/", "weights, tokenizers,\nexport"),
         ("machine/", "files, locks, processes,\nmemory, caches"))
TRUNK = (("the model", "model.py"),
         ("W′ = U diag(S z) Vᵀ", "svf.py  experts.py  lora.py"),
         ("a question to its answer", "adapt.py  generate.py  evaluate.py  cem.py"),
         ("a reward to z", "train.py  reinforce.py  likelihood.py  recipe.py"),
         ("what an answer earns", "tasks.py  grade.py"))


def room(ax, x, y, width, name, text):
    """One package: its name and what is in it; (x, y) is its lower left."""
    box(ax, x, y, width, 11, edge="#999999")
    middle = {"ha": "center", "va": "center"}
    ax.text(x + width / 2, y + 8.4, name, fontsize=14, weight="bold", color=INK, **middle)
    ax.text(x + width / 2, y + 3.7, text, fontsize=11.5, color=SOFT, linespacing=1.25, **middle)


def draw():
    """-> the figure of the rooms."""
    plt = plots.pyplot()
    fig, ax = plt.subplots(figsize=(10, 6.6), facecolor="white")
    fig.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    ax.axis("off")
    ax.set(xlim=(-0.5, 100.5), ylim=(-0.5, 66))
    ax.text(50, 63.6, "The method stands in the middle; six folders use it or serve it",
            fontsize=15, weight="bold", color=INK, ha="center", va="center")
    for i, (name, text) in enumerate(ABOVE):
        room(ax, 2 + 32.5 * i, 50, 31, name, text)
        arrow(ax, (17.5 + 32.5 * i, 49.5), (17.5 + 32.5 * i, 45.5))
    box(ax, 2, 16.5, 96, 28.5, PALE_BLUE, plots.BLUE, 2.4)
    headline = "the trunk: the method, one idea in each file"
    ax.text(5, 41.6, headline, fontsize=15, weight="bold", color=INK, va="center")
    for row, (what, names) in enumerate(TRUNK):
        y = 37.2 - 4.4 * row
        ax.text(5, y, what, fontsize=12.5, color=INK, va="center")
        ax.text(35, y, names, fontsize=12.5, family="monospace", color=plots.BLUE, va="center",
                weight="bold")
    for i, (name, text) in enumerate(BELOW):
        arrow(ax, (17.5 + 32.5 * i, 16), (17.5 + 32.5 * i, 12))
        room(ax, 2 + 32.5 * i, 0.4, 31, name, text)
    ax.text(34, 47.6, "imports go down", fontsize=12, style="italic", color=SOFT, ha="center",
            va="center")
    return fig


if __name__ == "__main__":
    target = HERE / "figures" / "rooms.png"
    draw().savefig(target, dpi=160, facecolor="white", metadata={"Software": None})
    print(f"figure: {target.relative_to(HERE.parent)}")

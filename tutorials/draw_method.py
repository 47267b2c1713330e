"""
Draw the method: `python tutorials/draw_method.py` writes tutorials/figures/method.png.

One question goes through the same model twice. The first pass finds out what it needs; that picks
an expert, which is one number z per singular value; the second pass answers on the weights
W' = U diag(S z) Vᵀ.
"""
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from t2mini.lab import plots  # noqa: E402

QUESTION = "Raj plays 9 games\nevery week. How\nmany games does Raj\nplay in 4 weeks?"
DIALS = {       # a few z of each expert, only to be looked at
    "code": (0.7, 1.2, 0.9, 1.1, 0.6, 1.3, 1.0, 0.8),
    "reasoning": (1.0, 1.3, 0.6, 1.2, 0.9, 0.7, 1.3, 1.1),
    "math": (1.3, 0.8, 1.2, 0.7, 1.1, 1.4, 0.6, 1.2),
}
INK, SOFT, PALE_BLUE, PALE_ORANGE = "#1f1f1f", "#777777", "#e3eef7", "#fdeada"


def box(ax, x, y, width, height, face="white", edge=INK, line=1.6):
    """A rectangle with round corners; (x, y) is its lower left."""
    from matplotlib.patches import FancyBboxPatch
    style = "round,pad=0,rounding_size=1.2"
    ax.add_patch(FancyBboxPatch((x, y), width, height, style, fc=face, ec=edge, lw=line))


def arrow(ax, start, end, colour=INK, bend=0.0):
    """An arrow from start to end, (x, y) each."""
    style = {"arrowstyle": "-|>,head_width=0.35,head_length=0.6", "lw": 2.2, "color": colour,
             "connectionstyle": f"arc3,rad={bend}", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)


def matrix(ax, x, y, width, height, face, edge):
    """A plain block that stands for a matrix."""
    from matplotlib.patches import Rectangle
    ax.add_patch(Rectangle((x, y), width, height, fc=face, ec=edge, lw=1.4))


def title(ax, x, y, number, text, colour):
    """The heading of a step: a coloured number and what happens there."""
    ax.text(x, y, number, fontsize=14, weight="bold", color="white", ha="center", va="center",
            bbox={"boxstyle": "circle,pad=0.25", "fc": colour, "ec": "none"})
    ax.text(x + 2.6, y, text, fontsize=14, weight="bold", color=INK, va="center")


def draw_first_pass(ax):
    """Upper row: the question, the model that is asked first, and the word that it says."""
    title(ax, 30, 46, "1", "What does it need?", plots.ORANGE)
    box(ax, 28.5, 29, 24, 13.5, PALE_ORANGE, plots.ORANGE)
    matrix(ax, 31, 31.7, 8, 8, "white", INK)
    ax.text(35, 35.7, "W", fontsize=16, ha="center", va="center", style="italic")
    ax.text(35, 30.3, "a weight matrix", fontsize=10, ha="center", va="center")
    ax.text(45.7, 35.7, "first pass:\nby prompt,\nor trained",
            fontsize=11, ha="center", va="center")
    arrow(ax, (53, 33.2), (63, 31.2))
    ax.text(57.8, 34.4, "“math”", fontsize=14, ha="center", weight="bold", color=INK)


def draw_experts(ax):
    """Right of it: the shelf of experts; the chosen one, the lowest, is blue."""
    ax.text(64, 46, "Experts: one small z each", fontsize=14, weight="bold", color=INK, va="center")
    for row, (name, dials) in enumerate(DIALS.items()):
        chosen = name == "math"
        y = 38.4 - 5.0 * row
        face, edge, bars, ink, weight = "white", "#bbbbbb", "#cccccc", SOFT, "normal"
        if chosen:
            face, edge, bars, ink, weight = PALE_BLUE, plots.BLUE, plots.BLUE, INK, "bold"
        box(ax, 63.5, y, 36, 4.2, face, edge)
        ax.text(65, y + 2.1, name, fontsize=13, va="center", weight=weight, color=ink)
        for i, z in enumerate(dials):
            ax.bar(79.5 + 2.5 * i, 2.3 * z, 1.5, bottom=y + 0.5, color=bars)


def draw_second_pass(ax):
    """Lower row: W' from its three factors, the middle one turned by z, and the answer."""
    title(ax, 30, 20, "2", "Answer it", plots.BLUE)
    box(ax, 28.5, 0, 37.5, 16.8, PALE_BLUE, plots.BLUE)
    ax.text(34, 10.3, "second\npass: the\nmodel,\nadapted", fontsize=12, ha="center", va="center")
    matrix(ax, 39.5, 6, 5, 8.6, "white", INK)                        # U, (m, r)
    matrix(ax, 46.8, 9.6, 5, 5, "white", plots.BLUE)                      # diag(S z), (r, r)
    matrix(ax, 54.1, 9.6, 9, 5, "white", INK)                        # Vt, (r, n)
    for i, z in enumerate(DIALS["math"][:5]):
        ax.plot(47.5 + 0.9 * i, 13.9 - 0.9 * i, "o", ms=5.2 * z, color=plots.BLUE)
    for x, y, text in ((42, 10.3, "U"), (49.3, 7.6, "S · z"), (58.6, 12.1, "Vᵀ")):
        ax.text(x, y, text, fontsize=16, ha="center", va="center", style="italic")
    middle = {"ha": "center", "va": "center"}
    ax.text(49.5, 2.9, "W′ = U diag(S · z) Vᵀ", fontsize=15, weight="bold", **middle)
    arrow(ax, (72, 28.2), (49.3, 14.8), plots.BLUE, bend=0.18)
    ax.text(63, 21, "z of math", fontsize=14, weight="bold", color=plots.BLUE)
    arrow(ax, (66.5, 8), (73.5, 8))
    ax.text(86.7, 17, "Answer", fontsize=14, weight="bold", color=INK, ha="center", va="center")
    box(ax, 74, 1.5, 25.5, 13)
    ax.text(86.7, 8, "Raj plays\n9 x 4 = 36.", fontsize=13, **middle)


def draw():
    """-> the figure of both passes."""
    plt = plots.pyplot()
    fig, ax = plt.subplots(figsize=(10, 5.4), facecolor="white")
    fig.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    ax.axis("off")
    ax.set(xlim=(-0.5, 100.5), ylim=(-0.5, 53.5))
    ax.text(50, 52, "First find out what a question needs, then answer it with that expert",
            fontsize=16, weight="bold", color=INK, ha="center", va="center")
    ax.text(11, 33.5, "Question", fontsize=14, weight="bold", color=INK, ha="center", va="center")
    box(ax, 0, 15, 22, 16)
    ax.text(11, 23, QUESTION, fontsize=12, ha="center", va="center")
    arrow(ax, (22.5, 26), (28, 34), bend=-0.1)
    arrow(ax, (22.5, 20), (28, 10), bend=0.1)
    draw_first_pass(ax)
    draw_experts(ax)
    draw_second_pass(ax)
    return fig


if __name__ == "__main__":
    target = HERE / "figures" / "method.png"
    draw().savefig(target, dpi=160, facecolor="white", metadata={"Software": None})
    print(f"figure: {target.relative_to(HERE.parent)}")

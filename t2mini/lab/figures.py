"""
Pictures and tables of experiments, each from its results file alone.

Scores are drawn with a 95 % interval over questions and seeds (evaluate.over_seeds), of one seed
over questions only; small circles are the single seeds.
"""
import numpy as np

from .. import evaluate
from .plots import BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY, YELLOW, pyplot, save

COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, "#000000")


def grouped(rows):
    """{(task, base, arm): rewards of each seed} of the rows that have rewards, in their order."""
    found = {}
    for r in rows:
        if "rewards" in r:
            key = r["task"], r.get("base", ""), r["arm"]
            found.setdefault(key, []).append([float(c) for c in r["rewards"]])
    return found


def table(rows, against=None):
    """Markdown: each arm's mean over seeds, its interval and spread, and its lead over another arm.

    against: that arm; without it the task's first one. Where it is beyond its interval the
    difference is bold. An arm of one seed is marked, as its interval is over questions only.
    ValueError where no row is of the arm `against`.
    """
    groups = grouped(rows)
    arms = list(dict.fromkeys(arm for _, _, arm in groups))
    if against and against not in arms:
        raise ValueError(f"there is no arm {against!r} in these results; "
                         f"choose from: {'; '.join(arms) or 'none'}")
    if not groups:
        return other_table(rows)
    lines = ["| task | arm | seeds x n | right, % [95 %] | sd of seeds "
             f"| minus {against or 'the first arm'} [95 %] |", "|---|---|---|---|---|---|"]
    first = {}
    for (task, base, arm), seeds in groups.items():
        first.setdefault((task, base), seeds)
        start = first[task, base]
        if against:
            start = groups.get((task, base, against), seeds)
        gain = ""
        if start is not seeds and len(start[0]) == len(seeds[0]):
            gain = difference(seeds, start)
        mean, low, high, sd = evaluate.over_seeds(seeds)
        spread, mark = "", " q"
        if sd is not None:
            spread, mark = f"{100 * sd:.1f}", ""
        where = task + (base and f", {base}")
        score = f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]{mark}"
        count = f"{len(seeds)} x {len(seeds[0])}"
        lines.append(f"| {where} | {arm} | {count} | {score} | {spread} | {gain} |")
    lines.append("\nq: one seed, so the interval is over questions only. "
                 "Bold: zero is outside the interval.")
    return "\n".join([*lines, *remarks(rows)])


def remarks(rows):
    """What a reader must know of the rows: their notes, and why some must be measured again."""
    said = [f"{r['arm']}: {r['note']}." for r in rows if r.get("note")]
    said += [f"{r['task']}, {r['arm']}: TO BE MEASURED AGAIN: {r['again']}."
             for r in rows if r.get("again")]
    return list(dict.fromkeys(said))


def other_table(rows):
    """Markdown of rows that hold no scores: seconds, singular mass, mixtures or curves."""
    if not rows:
        return "no rows yet"
    for key, build in (("seconds_per_question", timing_rows), ("mass", spectrum_rows),
                       ("alpha", alpha_rows), ("val", curve_rows)):
        if key in rows[0]:
            head, *lines = build(rows)
            rule = ["---"] * len(head)
            return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
    return f"{len(rows)} rows"


def timing_rows(rows):
    """Seconds of both passes, mean over seeds, and the first as a share of the second."""
    lines = [("task", "arm", "asked", "seeds", "first pass, s", "second pass, s",
              "first / second, % [least, most]")]
    for way in rows[0]["seconds_per_question"]:
        for task, arm in dict.fromkeys((r["task"], r["arm"]) for r in rows):
            mine = [r["seconds_per_question"][way] for r in rows
                    if (r["task"], r["arm"]) == (task, arm)]
            first = np.array([m["first"] for m in mine])
            second = np.array([m["second"] for m in mine])
            least, *_, most = sorted(100 * first / second)
            share = 100 * first.mean() / second.mean()
            lines.append((task, arm, way, f"{len(mine)}", f"{first.mean():.3f}",
                          f"{second.mean():.3f}", f"{share:.0f} [{least:.0f}, {most:.0f}]"))
    return lines


def spectrum_rows(rows):
    """Of each kind of matrix the share of sum(S) in its largest singular values; mean of blocks."""
    lines = [("matrix", "singular values", *(f"largest {100 * v:g} %" for v in rows[0]["top"]))]
    for r in rows:
        lines.append((r["arm"], f"{r['singular_values']}", *(f"{100 * v:.0f}" for v in r["mass"])))
    return lines


def alpha_rows(rows):
    """The mixture that each search found."""
    experts = (f"alpha of {name}" for name in rows[0]["experts"])
    lines = [("task", "seed", *experts, "right, % of the shots")]
    for r in rows:
        alpha = (f"{a:.2f}" for a in r["alpha"])
        lines.append((r["task"], f"{r['seed']}", *alpha, f"{100 * r['shots_right']:.0f}"))
    return lines


def curve_rows(rows):
    """Each run at its start and where validation was best; test questions decided nothing."""
    lines = [("task", "seed", "best update", "validation, %: start, best", "test, %: start, there")]
    for r in rows:
        val, test = dict(r["val"]), dict(r["test"])
        best = max(val, key=val.get)                # the first of equal ones, as training keeps it
        start = min(val)
        shares = (f"{100 * scores[start]:.1f}, {100 * scores[best]:.1f}" for scores in (val, test))
        lines.append((r["task"], f"{r['seed']}", f"{best}", *shares))
    return lines


def difference(seeds, start):
    """'+26.9 [+6.4, +47.4]' in points; bold: zero is outside; q: neither arm has several seeds."""
    mean, low, high, _ = evaluate.over_seeds(seeds, start)
    text = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    if low > 0 or high < 0:
        text = f"**{text}**"
    if len(seeds) == len(start) == 1:
        text += " q"
    return text


def bars(done, path):
    """One line of dots per arm, one panel per task: readable however long the names are."""
    plt, groups = pyplot(), grouped(done["rows"])
    panels = list(dict.fromkeys((task, base) for task, base, _ in groups))
    arms = list(dict.fromkeys(arm for _, _, arm in groups))
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    size = 3.2 + 3.1 * columns, height * (1.1 + 0.29 * len(arms))
    fig, axes = plt.subplots(height, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax in axes.flat[len(panels):]:
        ax.axis("off")
    for ax, (task, base) in zip(axes.flat, panels):
        here = {arm: seeds for (t, b, arm), seeds in groups.items() if (t, b) == (task, base)}
        for arm, seeds in here.items():
            mean, low, high, _ = evaluate.over_seeds(seeds)
            y = arms.index(arm)
            colour = GREY if arm == "no z" or arm.startswith("base") else BLUE
            ends = [[100 * max(0, mean - low)], [100 * max(0, high - mean)]]
            ax.errorbar(100 * mean, y, xerr=ends, fmt="o", ms=7, capsize=3, color=colour, zorder=3)
            if len(seeds) > 1:
                single = [100 * np.mean(s) for s in seeds]
                ax.plot(single, [y + 0.25] * len(seeds), "o", ms=3, mfc="none", color=ORANGE)
            if arm in ("base", "no z"):
                ax.axvline(100 * mean, color=GREY, lw=0.8, ls=":")
        ax.set_title(f"{task}{': ' + base if base else ''}", fontsize=11)
        ax.grid(axis="y", lw=0.3)
    axes[0][0].set_yticks(range(len(arms)), arms)
    axes[0][0].set_ylim(len(arms) - 0.4, -0.6)
    axes[0][0].set_xlim(0, 100)
    fig.supxlabel("right answers, %  (blue: mean over seeds and 95 % interval, "
                  "of one seed over questions only; orange: each seed)", fontsize=11)
    save(fig, path)


def curves(done, path):
    """Over the updates: reward of sampled answers, greedy answers right on validation and test."""
    plt, rows = pyplot(), done["rows"]
    names = list(dict.fromkeys(r["task"] for r in rows))
    size = 4 * len(names), 3.8
    fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
    for ax, task in zip(axes[0], names):
        for i, r in enumerate(r for r in rows if r["task"] == task):
            lines = (("train", "train: mean reward of an update", GREY, "-", 0.8),
                     ("val", f"validation, n={r['n_val']}", BLUE, "o-", 1.5),
                     ("test", f"test, n={r['n_test']} (decides nothing)", ORANGE, "s--", 1.5))
            for name, label, colour, style, width in lines:
                steps = [step for step, _ in r[name]]
                shares = [100 * v for _, v in r[name]]
                ax.plot(steps, shares, style, color=colour, ms=4, lw=width, alpha=0.9,
                        label=None if i else label)
        ax.set(title=task, xlabel="update", ylim=(0, 100))
    axes[0][0].set_ylabel("right, %  (one line per seed)")
    axes[0][0].legend(frameon=False, fontsize=9, loc="upper left")
    save(fig, path)


def confusion(done, path):
    """Rows: what a question needs; columns: what the first pass said; mean over seeds, per cent."""
    plt, rows = pyplot(), done["rows"]
    kinds, arms = (list(dict.fromkeys(r[k] for r in rows)) for k in ("task", "arm"))
    size = 4.6 * len(kinds), 3.2 * len(arms)
    fig, axes = plt.subplots(len(arms), len(kinds), figsize=size, squeeze=False)
    for line, arm in zip(axes, arms):
        for ax, kind in zip(line, kinds):
            mine = [r for r in rows if (r["task"], r["arm"]) == (kind, arm)]
            mine = [r for r in mine if "again" not in r] or mine        # old rows may lack a line
            if mine:
                draw_confusion(ax, [r["confusion"] for r in mine])
                right = np.mean([r["score"] for r in mine])
                ax.set_title(f"{arm}, {kind}: {right:.0%} right", fontsize=11)
            else:
                ax.axis("off")
    fig.supxlabel("the first pass said (% of the questions of a line)", fontsize=11)
    save(fig, path)


def draw_confusion(ax, tables):
    """tables: one a seed, {what is needed: {what was said: count}} of the same names."""
    needs = list(tables[0])
    said = list(tables[0][needs[0]])
    counts = np.array([[[t[need][label] for label in said] for need in needs] for t in tables])
    shares = 100 * counts / np.maximum(counts.sum(2, keepdims=True), 1)     # (seeds, needs, said)
    grid = shares.mean(0)
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (y, x), share in np.ndenumerate(grid):
        colour = "white" if share > 55 else "black"
        ax.text(x, y, f"{share:.0f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(len(said)), said, rotation=25, ha="right")
    ax.set_yticks(range(len(needs)), needs)


def alphas(done, path):
    """How the mean of CEM's Gaussian moves, one panel per task, one line per expert and seed."""
    plt, rows = pyplot(), done["rows"]
    names = list(dict.fromkeys(r["task"] for r in rows))
    size = 4 * len(names), 3.8
    fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
    for ax, task in zip(axes[0], names):
        for i, r in enumerate(r for r in rows if r["task"] == task):
            means = np.array([h["mean"] for h in r["history"]]).T           # (K, iterations)
            stds = np.array([h["std"] for h in r["history"]]).T
            x = range(1, means.shape[1] + 1)
            for expert, colour, mean, std in zip(r["experts"], COLOURS, means, stds):
                ax.plot(x, mean, "o-", color=colour, ms=3, label=None if i else expert)
                ax.fill_between(x, mean - std, mean + std, color=colour, alpha=0.1, lw=0)
        ax.axhline(0, color=GREY, lw=0.8, ls=":")
        ax.set(title=task, xlabel="iteration")
    axes[0][0].set_ylabel("alpha: mean and spread of the search\n(one line per seed)")
    axes[0][-1].legend(frameon=False, title="expert", fontsize=9, loc="center left",
                       bbox_to_anchor=(1.02, 0.5))
    save(fig, path)


def timing(done, path):
    """Seconds per question of both passes; a bar per strategy and way of asking; mean of seeds."""
    plt, rows = pyplot(), done["rows"]
    ways = list(rows[0]["seconds_per_question"]) if rows else []
    fig, axes = plt.subplots(1, len(ways), figsize=(5.2 * len(ways), 3.6), squeeze=False)
    for ax, way in zip(axes[0], ways):
        labels = []
        for task, arm in dict.fromkeys((r["task"], r["arm"]) for r in rows):
            mine = [r["seconds_per_question"][way] for r in rows
                    if (r["task"], r["arm"]) == (task, arm)]
            first, second = (np.mean([m[k] for m in mine]) for k in ("first", "second"))
            y = len(labels)
            ax.barh(y, first, color=ORANGE, label=None if y else "first pass")
            ax.barh(y, second, left=first, color=BLUE, label=None if y else "second pass")
            ax.text(first + second, y, f" {first / second:.0%}", va="center", fontsize=9)
            labels.append(f"{task}, {arm}")
        ax.set_yticks(range(len(labels)), labels)
        ax.invert_yaxis()
        ax.set(xlabel="seconds per question", title=f"{way} (text: first / second)")
        ax.margins(x=0.12)
    axes[0][-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.02, 0.5))
    save(fig, path)


def spectrum(done, path):
    """What share of sum(S) the largest singular values hold; band: least to most of the blocks."""
    plt, rows = pyplot(), done["rows"]
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.9), sharey=True)
    for ax, key, title in ((axes[0], "mass", "of sum(S)"), (axes[1], "energy", "of sum(S²)")):
        for r, colour in zip(rows, COLOURS):
            x = [0, *(100 * v for v in r["top"])]
            parts = (key, f"{key}_least", f"{key}_most")
            y, low, high = ([0, *(100 * v for v in r[part])] for part in parts)
            label = f"{r['arm']} ({r['singular_values']} values)"
            ax.plot(x, y, "o-", ms=3, color=colour, label=label)
            ax.fill_between(x, low, high, color=colour, alpha=0.08, lw=0)
        ax.plot([0, 100], [0, 100], color=GREY, lw=0.8, ls=":")
        ax.set(xlabel="largest singular values, % of their number", title=f"share {title}, %")
    axes[0].set_ylabel("share, %  (line: mean over blocks)")
    axes[1].legend(frameon=False, fontsize=9)
    save(fig, path)

"""
Pictures and tables of experiments, each from its results file alone.

Scores are drawn with a 95 % interval over questions and seeds (evaluate.over_seeds), of one seed
over questions only; small circles are the single seeds.
"""
import math
from textwrap import fill

import numpy as np

from .. import evaluate
from ..machine import files
from ..questions import published
from ..tasks import LABELS
from .agreement import needed
from .plots import BLUE, DARK, GREY, OF, ORANGE, PINK, RED, in_words, pyplot, save

ORDER = (*LABELS, "unreadable")         # of labels, in rows and columns, as tables print them

# what each picture says, in its title
MESSAGE = {
    "finetune": "SVF, LoRA and IA3 all learn math and code; none is shown to be the best",
    "unseen": "On kinds never trained on, the first pass and ten examples together\n"
              "find a mixture above the base model, on code not beyond doubt",
    "between": "Half of the way to the right expert helps math and reasoning;\n"
               "a quarter more may be chance, and for code nothing is seen",
    "ablation": "Rewarding right answers teaches;\ncopying bare right answers does not",
    "imitation": "Copying solutions worked out step by step\n"
                 "teaches in minutes what rewards take an hour for",
    "shots": "Ten examples do about as well as twenty;\n"
             "three are a matter of luck",
    "transfer": "With its dials shuffled, an expert is worth nothing",
    "recipe": "All choices of the authors' code together:\n"
              "not seen to beat the base model, after 16 updates or 32",
    "tiny": "A dial per singular value learns in every run,\na shared one hardly ever",
    "sight": "The expert for images has 86.8 % right, still 66.5 % with the image hidden,\n"
             "and only chance where words give no hint",
    "real": "On published questions experts of this size gain or lose a few points;\n"
            "most of ARC-Easy's big rise comes to the base model, too, "
            "if its prompt omits the options",
    "arc": "Three experts of ARC-Easy are above the base model there,\n"
           "also in its better form; on ARC-Challenge they are not shown to be",
    "real05": "Experts of a larger model gain 4 points on GSM8K, 5 on MBPP, and 6 on ARC-Easy\n"
              "in its best form for the base model; nothing is shown to carry over to other sets",
    "forms": "Telling the larger model more about how to answer\n"
             "is not seen to help it; on GSM8K two wordings hurt",
    "signal": "Cut answers off at 200 tokens,\nand few questions are left to learn from",
    "agreement": "Made-up math shows in a thousand answers which way\n"
                 "z should go; GSM8K takes four thousand or more",
    "timing": "The first pass costs less than the second",
    "timing05": "With the larger model the first pass takes little time before a long answer,\n"
                "and as long as the second where one letter is the answer",
    "spectrum": "On average the largest tenth of the singular values\n"
                "holds less than a third of their sum",
    "curves": "Twenty-four updates lift math and code; in reasoning three runs end far apart",
    "alphas": "Search again on ten other examples, and another mixture comes out",
    "dispatch": "A short training teaches the first pass math and code;\n"
                "it does not learn to say reasoning",
}
SURVIVES = ("An expert survives weights in 8 bits, not in 3;\n"
            "on a model tuned for chat only that of reasoning still works")

# of rows that are too many for one picture: those that its message is about (the table has all)
MIXTURES = ("base", "prompt", "classifier", "uniform alpha", "random alpha", "cem",
            "cem per matrix", "best single expert", "first pass and examples")
SHOWN = {"recipe": lambda r: r["task"] == "math",
         "unseen": lambda r: r["arm"] in (*MIXTURES, right_expert(r["task"])),
         "transfer": lambda r: r["base"] == "the same",
         "dispatch": lambda r: r["task"] == "unseen",
         "results": lambda r: "unseen" not in r["task"],
         "forms": lambda r: r["task"] != "arc-easy",
         "sight": lambda r: "unseen" not in r["task"] and "choosing" not in r["arm"]}

PAIRED = ("base", "svf", "lora", "second run", "always yes", "options hidden", "other form")
WAYS = {"": "", "choosing": ", picking an option", "blank image": ", image hidden"}
BESIDE = {"vision expert": "svf",
          "vision expert, blank image": "svf, blank image",      # on the line of that way
          "svf, second run": "second run"}
GUESSING = {"easy-vqa-yes-no": 50, "vision-unseen": 25,         # % right by chance
            "arc-easy": 25, "arc-challenge": 25, "arc-easy-letters": 25,
            "arc-challenge-letters": 25, "arc-easy-open": 25, "arc-challenge-open": 25}
NEEDS = {"gsm8k": "math", "mbpp": "code", "arc-challenge": "reasoning"}
KINDS = {"seen": "kinds seen in training", "unseen": "kinds never trained on",
         "published": "published questions"}
ASKED = {"batch of 32": "32 at once"}
CLEAR = {"fc": "white", "ec": "none", "pad": 0.5}                # behind a number: no line
EXPERTS = {"math": "#0B3C6F", "code": BLUE, "reasoning": "#9CCBEB"}   # shades of the experts' blue
HEAT = {"temperature 0.4": "#0B3C6F", "temperature 0.7": BLUE, "temperature 1": ORANGE,
        "temperature 1.3": RED}
APART = {"q": (BLUE, "--", "query"), "k": (ORANGE, "-.", "key"), "o": (PINK, ":", "attention out")}
# the arm that the title is about, where not all are
TOLD = {"unseen": "first pass and examples"}
# what a circle is
SINGLE = {"shots": "searches", "unseen": "draws of examples or weights", "transfer": "shuffles"}


def colour_of(arm):
    """One colour for one thing, in every picture (plots.OF)."""
    if arm == "no z" or arm.startswith("base"):
        return OF["base"]
    if arm.startswith("lora"):
        return OF["lora"]
    if "shuffled" in arm:
        return OF["shuffled"]
    if arm.startswith(("cem", "gradient")) or " shots" in arm:
        return OF["search"]
    if "in context" in arm or arm == "always yes":
        return OF["in context"]
    if arm.startswith("all"):                               # that the authors' code does
        return RED
    return OF.get(arm, OF["expert"])


def headline(fig, done):
    """The message of the picture above its panels."""
    text = done.get("title") or MESSAGE.get(done.get("name"), "")
    if done.get("quick"):
        text = "A quick run: it shows that the experiment runs, and nothing else"
    fig.suptitle(text, fontsize=13, weight="bold")


def right_expert(task):
    """The arm that answers an unseen task with the expert of its own skill."""
    return f"{task.removesuffix('-unseen')} expert"


def shown(done):
    """The rows that the picture of an experiment is about; all, where none of those is measured
    yet."""
    rows = list(filter(SHOWN.get(done.get("name")), done["rows"])) or done["rows"]
    if done.get("name") == "unseen":                        # one name in all panels
        rows = [r | {"arm": "right expert"} if r["arm"] == right_expert(r["task"]) else r
                for r in rows]
    return rows


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

    against: that arm, or "TASK, ARM" where the same questions stand in another form; without it the
    task's first one. Where it is beyond its interval the difference is bold. An arm of one seed is
    marked, as its interval is over questions only. ValueError where no row is of the arm `against`.
    """
    groups = grouped(rows)
    one = next(((task, arm) for task, _, arm in groups if against == f"{task}, {arm}"), None)
    arms = list(dict.fromkeys(arm for _, _, arm in groups))
    if against and not one and against not in arms:
        of_task = [f"{task}, {arm}" for task, _, arm in groups if task == against]
        raise ValueError(f"there is no arm {against!r} in these results; choose from: "
                         f"{'; '.join(of_task or arms) or 'none'}; or write TASK, ARM")
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
        if one and questions_of(task) == questions_of(one[0]):
            start = groups.get((one[0], base, one[1]), seeds)
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


def questions_of(task):
    """The published set whose questions a task asks, in this form or another; else the task."""
    return getattr(published.SETS.get(task), "form_of", "") or task


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
                       ("alpha", alpha_rows), ("test", curve_rows), ("limits", signal_rows),
                       ("agreement", agreement_rows)):
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
            shares = 100 * first / second
            least, most = min(shares), max(shares)
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
        best = r.get("best_step", max(val, key=val.get))    # older runs kept the first of equals
        start = min(val)
        shares = (f"{100 * scores[start]:.1f}, {100 * scores[best]:.1f}" for scores in (val, test))
        lines.append((r["task"], f"{r['seed']}", f"{best}", *shares))
    return lines


def signal_rows(rows):
    """For each temperature and limit: questions that teach, answers that earn, answers cut off."""
    lines = [("task", "arm", "longest answer", "questions", "of these teach, % [95 %]",
              "answers that earn, %", "answers cut off, %")]
    for r in rows:
        for limit, f in r["limits"].items():
            low, high = f["ci95"]
            lines.append((r["task"], r["arm"], limit, f"{r['n']} x {r['samples']}",
                          f"{100 * f['teach']:.0f} [{100 * low:.0f}, {100 * high:.0f}]",
                          f"{100 * f['earn']:.0f}", f"{100 * f['cut']:.0f}"))
    return lines


def agreement_rows(rows):
    """For each task: what updates share, and how many answers make that as large as the chance."""
    lines = [("task", "updates", "answers of an update", "of these earn, %",
              "questions that teach, %", "agreement, % [95 %]", "answers needed [95 %]")]
    for r in rows:
        share, *ends = (f"{100 * x:.2f}" for x in (r["agreement"], *r["ci95"]))
        measured, fewest, most = map(in_hundreds, needed(r))
        lines.append((r["task"], f"{r['updates']}", f"{r['n']} x {r['samples']}",
                      f"{100 * r['earn']:.0f}", f"{100 * r['teach']:.0f}",
                      f"{share} [{', '.join(ends)}]",
                      f"{measured} [{fewest}, {most}]"))
    return lines


def in_hundreds(count):
    if math.isinf(count):
        return "no end"
    return "under 100" if count < 100 else f"{round(count, -2):,.0f}"


def difference(seeds, start):
    """'+26.9 [+6.4, +47.4]' in points; bold: zero is outside; q: neither arm has several seeds."""
    mean, low, high, _ = evaluate.over_seeds(seeds, start)
    text = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
    if low > 0 or high < 0:
        text = f"**{text}**"
    if len(seeds) == len(start) == 1:
        text += " q"
    return text


def explained(done, groups):
    """What the axis of right answers shows, and what its lines and circles are."""
    single = SINGLE.get(done.get("name"), "trainings")
    several = any(len(seeds) > 1 for seeds in groups.values())
    circles = f"; circles: single {single}" if several else ""
    return f"right answers, %  (line: 95 % interval{circles})"


def number_asked(groups, task, base=None):
    """'400 questions'; '' where arms were asked different ones. base: None for all."""
    asked = {len(rewards) for key, seeds in groups.items() for rewards in seeds
             if key[0] == task and base in (None, key[1])}
    return f"{asked.pop():,} questions" if len(asked) == 1 else ""


def panel_title(groups, task, base=""):
    """'code, 400 questions', on two lines where it is long."""
    name = in_words(task) + (f", {in_words(base)}" if base else "")
    return name + (", " if len(name) < 18 else "\n") + number_asked(groups, task, base or None)


def counted(rows):
    """{arm: 'SVF: 97,920 numbers'} of the arms in words, where a training says how many numbers."""
    return {in_words(r["arm"]): f"{in_words(r['arm'])}: {r['parameters']:,} numbers"
            for r in rows if r.get("parameters")}


def rows_of_panels(groups, most=3):
    """Side by side where the arms are the same: [(arms in words, [(task, base)])]; none empty."""
    arms = {}
    for task, base, arm in groups:
        arms.setdefault((task, base), []).append(arm)
    lines = []
    for panel, mine in arms.items():
        names = [in_words(arm) for arm in mine]
        if not lines or lines[-1][0] != names or len(lines[-1][1]) == most:
            lines.append((names, []))
        lines[-1][1].append(panel)
    return lines


def bars(done, path):
    """A bar per arm with its score and interval; small circles are the single seeds."""
    plt, groups = pyplot(), grouped(shown(done))
    if not groups:                                          # a part that has no scores yet
        return
    lines = rows_of_panels(groups)
    counts = counted(done["rows"]) if done.get("name") in ("finetune", "tiny") else {}
    heights = [len(arms) + 2.6 for arms, _ in lines]
    widest = max(len(panels) for _, panels in lines)
    size = 3.6 + 3.2 * widest, 0.9 + 0.34 * sum(heights)
    fig, grid = plt.subplots(len(lines), widest, figsize=size, height_ratios=heights,
                             squeeze=False, layout="constrained")
    ends, drawn = [], []
    for row, (names, panels) in zip(grid, lines):
        axes = row[:len(panels)]
        for ax in row[len(panels):]:
            ax.axis("off")
        drawn += [*axes]
        for ax, panel in zip(axes, panels):
            here = {arm: seeds for (*where, arm), seeds in groups.items() if (*where,) == panel}
            colours = {arm: OF["base"] for arm in here} if done.get("name") == "forms" else {}
            ends.append(draw_arms(ax, here, TOLD.get(done.get("name")), colours))
            ax.set_title(panel_title(groups, *panel), fontsize=11)
            said = [counts.get(name, name) if ax is axes[0] else "" for name in names]
            ax.set_yticks(range(len(names)), said)
            ax.tick_params(axis="y", length=0)
    for ax in drawn:                                        # one scale, with room for the numbers
        ax.set_xticks(range(0, 101, 20))
        ax.set_xlim(0, 100 * max(ends) * (1.08 + 0.08 * widest))
    fig.supxlabel(explained(done, groups), fontsize=11)
    headline(fig, done)
    save(fig, path)


def results(rows, path):
    """The front picture, of {task, arm, rewards}: each expert on the kind it was trained on."""
    title = "An expert beats the base model on its own kind of questions"
    bars({"name": "results", "title": title, "rows": rows}, path)


def pictures(name, path):
    """All that an experiment draws, where its picture is `path`."""
    if name == "transfer":
        return [path, path.with_stem(f"{path.stem}_weights")]
    return [path]


def transfer(done, path):
    """Two pictures: shuffled z on the original weights, and z on other weights. ValueError where
    something else stands in the second one's place."""
    _, second = pictures("transfer", path)
    files.claim(second, "picture", [])
    bars(done, path)
    other = [r for r in done["rows"] if r["arm"] != "shuffled z"]
    if other:
        dots({"title": SURVIVES, "rows": other}, second)


def pairs(done, path):
    """A line per task and way of asking, from the base model to its expert; see PAIRED.

    Other arms, and a task or way without both of them, are in the table only. The base model
    asked the same questions in another form, or without the options, is a dot on their line.
    """
    plt, found, asked = pyplot(), {}, {}
    for (task, _, arm), seeds in grouped(shown(done)).items():
        who, _, way = BESIDE.get(arm, arm).partition(", ")
        if who in PAIRED:
            found.setdefault((task, way), {})[who] = evaluate.over_seeds(seeds)[:3]
            asked[task] = len(seeds[0])
    lines = {where: arms for where, arms in found.items() if {"base", "svf"} <= arms.keys()}
    for (other, way), theirs in found.items():
        for (task, same_way), arms in lines.items():
            alike = way == same_way and questions_of(other) == questions_of(task)
            beside = (other, way) not in lines and not published.hides_options(task)
            if alike and beside and "base" in theirs:
                hidden = published.hides_options(other)
                arms["options hidden" if hidden else "other form"] = theirs["base"]
    fig, ax = plt.subplots(figsize=(10, 2.2 + 0.45 * len(lines)), layout="constrained")
    for y, ((task, _), arms) in enumerate(lines.items()):
        draw_pair(ax, y, arms)
        if task in GUESSING:
            ax.plot([GUESSING[task]] * 2, [y - 0.42, y + 0.42], color="black", ls=":")
    names = [f"{in_words(task)}{WAYS[way]} [{asked[task]:,}]" for task, way in lines]
    ax.set_yticks(range(len(lines)), [fill(name, 32) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set(ylim=(len(lines) - 0.4, -0.6))
    ax.margins(x=0.12)
    ax.grid(axis="x", alpha=0.3)
    guessed = "; dotted: by guessing" if any(task in GUESSING for task, _ in lines) else ""
    ax.set_xlabel(f"right answers, %\n(line: 95 % interval{guessed}; [n]: questions)")
    named = dict(zip(*reversed(ax.get_legend_handles_labels())))        # each name once
    fig.legend(named.values(), named, frameon=False, ncols=3, fontsize=10,
               loc="outside lower right")                   # inside, its dots look like scores
    headline(fig, done)
    save(fig, path)


def draw_pair(ax, y, arms):
    """One line of `pairs`. arms: who -> (mean, low, high). Numbers of the base model and expert."""
    ends = sorted((*arms[who], OF[who]) for who in ("base", "svf"))
    ax.plot([100 * mean for mean, *_ in ends], [y, y], color=OF["svf"], lw=7, alpha=0.25)
    for who, (mean, low, high) in sorted(arms.items(), key=lambda arm: arm[0] in ("base", "svf")):
        ax.plot([100 * low, 100 * high], [y, y], color=colour_of(who), lw=2)
        size = {"base": 7, "svf": 9}.get(who, 12)           # the lowest is the largest
        ax.plot(100 * mean, y, "o", ms=size, color=colour_of(who), label=in_words(who))
        if who not in ("base", "svf"):
            to = -18 if who in ("other form", "options hidden") else 8      # apart from LoRA's
            ax.annotate(f"{100 * mean:.1f}", (100 * mean, y), (0, to), textcoords="offset points",
                        ha="center", fontsize=9.5, color=colour_of(who), bbox=CLEAR)
    (left, low, _, at_left), (right, _, high, at_right) = ends
    numbers = (left, low, -9, "right", at_left), (right, high, 9, "left", at_right)
    for share, x, to, side, colour in numbers:
        ax.annotate(f"{100 * share:.1f}", (100 * x, y), (to, 0), textcoords="offset points",
                    ha=side, va="center", weight="bold", color=colour, bbox=CLEAR)


def draw_arms(ax, here, told, colours):
    """One panel of `bars`. here: arm -> rewards of each seed. -> the highest end of a line.

    told: the arm that stands out, as the title is about it; None: all are alike. colours: arm ->
    colour, where not its own.
    """
    ends = []
    for y, (arm, seeds) in enumerate(here.items()):
        mean, low, high, _ = evaluate.over_seeds(seeds)
        ax.barh(y, 100 * mean, 0.7, color=colours.get(arm, colour_of(arm)),
                alpha=1 if told in (None, arm) else 0.4)
        ax.plot([100 * low, 100 * high], [y, y], color="black", lw=1.2)
        if len(seeds) > 1:
            single = [100 * np.mean(s) for s in seeds]
            spread = y + np.linspace(-0.2, 0.2, len(seeds))     # equal ones do not hide each other
            ax.plot(single, spread, "o", ms=4, mfc="white", mec="black", mew=0.8)
        end = max(high, np.mean(seeds, axis=1).max())           # behind the line and the circles
        ax.annotate(f"{100 * mean:.1f}", (100 * end, y), (8, 0), textcoords="offset points",
                    va="center", weight="bold" if arm == told else "normal", bbox=CLEAR)
        ends.append(end)
    ax.set_ylim(len(here) - 0.4, -0.6)
    return max(ends)


def dots(done, path):
    """A panel per task, a line per base; on it a dot for every arm, with its interval."""
    plt, groups = pyplot(), grouped(done["rows"])
    names, bases, arms = (list(dict.fromkeys(key[i] for key in groups)) for i in range(3))
    size = 1.6 + 3.4 * len(names), 1.8 + 0.7 * len(bases)
    fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False,
                             layout="constrained")
    for ax, task in zip(axes[0], names):
        for (_, base, arm), seeds in ((k, v) for k, v in groups.items() if k[0] == task):
            mean, low, high, _ = evaluate.over_seeds(seeds)
            y = bases.index(base) + 0.2 * (arms.index(arm) - (len(arms) - 1) / 2)
            ax.plot([100 * low, 100 * high], [y, y], color=colour_of(arm), lw=2)
            label = in_words(arm) if base == bases[0] else None
            ax.plot(100 * mean, y, "o", ms=8, color=colour_of(arm), label=label)
        ax.set(title=panel_title(groups, task), xlim=(-3, 100), ylim=(len(bases) - 0.5, -0.5))
        ax.set_yticks(range(len(bases)), [fill(in_words(base), 18) for base in bases])
        ax.grid(axis="x", alpha=0.3)
    fig.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, ncols=len(arms),
               loc="outside lower right")
    fig.supxlabel("right answers, %  (line: 95 % interval)", fontsize=11)
    headline(fig, done)
    save(fig, path)


def curves(done, path):
    """Over the updates: greedy answers right on test, each run and their mean. What validation,
    which chooses the update, said is in the table."""
    plt, rows = pyplot(), done["rows"]
    names = list(dict.fromkeys(r["task"] for r in rows))
    size = 4 * len(names), 4.2
    fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False)
    for ax, task in zip(axes[0], names):
        mine = [r for r in rows if r["task"] == task]
        looked = [dict(r["test"]) for r in mine]                # none where z had run away
        steps = sorted(set.intersection(*map(set, looked)))
        shares = 100 * np.array([[of[step] for step in steps] for of in looked])
        mean = shares.mean(0)                                   # over the trainings
        ax.plot(steps, mean, "o-", color=BLUE, ms=6, lw=2.6, label="mean")
        ax.plot(steps, shares[0], color=BLUE, lw=0.9, alpha=0.5, label="single trainings")
        ax.plot(steps, shares[1:].T, color=BLUE, lw=0.9, alpha=0.5)
        ax.text(steps[-1] + 1, mean[-1], f"{mean[-1]:.0f} %", va="center", weight="bold")
        ax.text(steps[0] - 1, mean[0], f"{mean[0]:.0f} %", va="top", ha="right", weight="bold")
        ax.set(title=f"{task}, {len(mine)} trainings", xlabel="update", ylim=(0, 100),
               xlim=(-6, 30), xticks=steps)
    axes[0][0].set_ylabel("right answers, %")
    axes[0][-1].legend(frameon=False, fontsize=10, loc="upper left", alignment="left",
                       title=f"{rows[0]['n_test']} test questions")
    headline(fig, done)
    save(fig, path)


def confusion(done, path):
    """Rows: what a question needs; columns: what the first pass said; mean over seeds, per cent."""
    plt, rows = pyplot(), shown(done)
    kinds, arms = (list(dict.fromkeys(r[k] for r in rows)) for k in ("task", "arm"))
    size = 5.2 * len(arms), 0.8 + 3 * len(kinds)
    fig, axes = plt.subplots(len(kinds), len(arms), figsize=size, squeeze=False,
                             layout="constrained")
    for line, kind in zip(axes, kinds):
        for ax, arm in zip(line, arms):
            mine = [r for r in rows if (r["task"], r["arm"]) == (kind, arm)]
            mine = [r for r in mine if "again" not in r] or mine        # old rows may lack a line
            if mine:
                draw_confusion(ax, [r["confusion"] for r in mine])
                right = np.mean([r["score"] for r in mine])
                times = f", mean of {len(mine)} trainings" if len(mine) > 1 else ""
                what = KINDS.get(kind, kind) + times
                ax.set_title(f"{in_words(arm)}: {right:.0%} right\n({what})", fontsize=11.5)
            else:
                ax.axis("off")
    fig.supxlabel("what the first pass said, % of the questions of a row  "
                  "(frame: right; blank: below 0.5)", fontsize=11)
    fig.supylabel("what the question needs", fontsize=11)
    headline(fig, done)
    save(fig, path)


def draw_confusion(ax, tables):
    """tables: one a seed, {what is needed: {what was said: count}} of the same names."""
    skill = {name: NEEDS.get(name, name.removesuffix("-unseen")) for name in tables[0]}
    needs = sorted(tables[0], key=lambda name: ORDER.index(skill[name]))
    said = sorted(tables[0][needs[0]], key=ORDER.index)     # as the rows: right is the diagonal
    counts = np.array([[[t[need][label] for label in said] for need in needs] for t in tables])
    shares = 100 * counts / np.maximum(counts.sum(2, keepdims=True), 1)     # (seeds, needs, said)
    grid = shares.mean(0)
    ax.imshow(grid, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (y, x), share in np.ndenumerate(grid):
        right = said[x] == skill[needs[y]]
        if right:
            ax.add_patch(pyplot().Rectangle((x - 0.48, y - 0.47), 0.96, 0.94, fill=False,
                                            ec=RED, lw=2.5))
        if right or share >= 0.5:
            ax.text(x, y, f"{share:.0f}", ha="center", va="center", fontsize=13,
                    color="white" if share > 55 else "black", weight="bold" if right else "normal")
    ax.set_xticks(range(len(said)), said, fontsize=9.5)
    source = {name: f"\n({in_words(name)})" if name in NEEDS else "" for name in needs}
    ax.set_yticks(range(len(needs)), [skill[name] + source[name] for name in needs])
    ax.tick_params(length=0)


def alphas(done, path):
    """The mixture that each search chose: a group of bars per search, a bar per expert."""
    plt, rows = pyplot(), done["rows"]
    names = list(dict.fromkeys(r["task"] for r in rows))
    size = 0.6 + 3.8 * len(names), 4.2
    fig, axes = plt.subplots(1, len(names), figsize=size, sharey=True, squeeze=False,
                             layout="constrained")
    for ax, task in zip(axes[0], names):
        mine = [r for r in rows if r["task"] == task]
        count = len(mine[0]["experts"])
        for i, expert in enumerate(mine[0]["experts"]):
            at = np.arange(len(mine)) + 0.81 / count * (i - (count - 1) / 2)
            weights = [r["alpha"][i] for r in mine]
            colour = EXPERTS.get(expert, GREY)
            bars = ax.bar(at, weights, 0.72 / count, color=colour, label=f"{expert} expert")
            said = [f"{w:.1f}" if any(r["alpha"]) else "" for w, r in zip(weights, mine)]
            ax.bar_label(bars, said, fontsize=9, padding=1)
        for x, r in enumerate(mine):
            if not any(r["alpha"]):
                ax.text(x, 0.04, "all 0: the\nbase model\nis kept", ha="center", fontsize=10)
        ax.axhline(0, color=GREY, lw=0.8)
        ax.set_xticks(range(len(mine)), [f"search {i}" for i in range(1, len(mine) + 1)])
        ax.tick_params(axis="x", length=0)
        ax.set(title=in_words(task))
        ax.margins(y=0.1)
    axes[0][0].set_ylabel("weight α of each expert\nin the mixture that was chosen")
    fig.legend(*axes[0][0].get_legend_handles_labels(), frameon=False, ncols=len(names),
               loc="outside lower center")
    headline(fig, done)
    save(fig, path)


def signal(done, path):
    """Over the longest answer: the share of questions that teach; a line per temperature."""
    plt, rows = pyplot(), {r["arm"]: r for r in done["rows"]}
    fig, ax = plt.subplots(figsize=(7.6, 4.6), layout="constrained")
    for i, (arm, mark) in enumerate(zip((arm for arm in HEAT if arm in rows), "os^D")):
        limits = [int(limit) for limit in rows[arm]["limits"]]
        found = list(rows[arm]["limits"].values())
        shares = [100 * f["teach"] for f in found]
        ax.plot(limits, shares, f"{mark}-", color=HEAT[arm], lw=2.2, ms=6, label=arm)
        low, high = (100 * v for v in found[-1]["ci95"])
        ax.plot([limits[-1] + 4 * (i + 1)] * 2, [low, high], color=HEAT[arm], lw=2.2)
    first = done["rows"][0]
    ax.set(title=f"{in_words(first['task'])}, training questions", ylim=(0, None),
           xticks=[int(limit) for limit in first["limits"]],
           xlabel="longest answer, tokens  (lines at the right end: 95 % intervals)",
           ylabel=f"questions that teach, % of {first['n']}\n"
                  f"(of {first['samples']} answers some earn, some do not)")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, loc="upper left")
    headline(fig, done)
    save(fig, path)


def agreement(done, path):
    """Answers until what updates share is as large as the chance; a line for each task, with an
    arrow where the interval has no end."""
    plt, rows = pyplot(), done["rows"]
    fig, ax = plt.subplots(figsize=(7.6, 1.4 + 0.8 * len(rows)), layout="constrained")
    low, high = 100, 100_000
    for y, r in enumerate(rows):
        measured, fewest, most = needed(r)
        ax.plot([max(fewest, low), min(most, high)], [y, y], color=OF["svf"], lw=2.2)
        ax.plot(min(most, high), y, ">" if most > high else "|", color=OF["svf"], ms=9, mew=2.2)
        if low < measured < high:
            ax.plot(measured, y, "o", color=OF["svf"], ms=8)
            ax.annotate(in_hundreds(measured), (measured, y), (0, 9), textcoords="offset points",
                        ha="center", color=OF["svf"])
    ax.set_yticks(range(len(rows)), [f"{in_words(r['task'])}\n{r['n']} x {r['samples']} answers "
                                     "an update" for r in rows])
    ax.set(xscale="log", xlim=(low, high * 1.15), ylim=(len(rows) - 0.5, -0.6),
           xlabel="answers needed until what updates share is as large as the chance\n"
                  "(lines: 95 % intervals; an arrow: no end was seen)")
    decades = [100, 1_000, 10_000, 100_000]
    ax.set_xticks(decades, [f"{n:,}" for n in decades])
    ax.grid(alpha=0.3, axis="x")
    headline(fig, done)
    save(fig, path)


def between(done, path):
    """Right answers over the way from the equal mixture to the right expert; a line per task."""
    plt, groups = pyplot(), grouped(done["rows"])
    fig, ax = plt.subplots(figsize=(7.6, 4.6), layout="constrained")
    for i, task in enumerate(dict.fromkeys(name for name, _, _ in groups)):
        found = sorted((float(arm.split()[0]), *evaluate.over_seeds(seeds)[:3])
                       for (name, _, arm), seeds in groups.items() if name == task)
        far, mean, low, high = 100 * np.array(found).T
        skill = task.removesuffix("-unseen")
        color = EXPERTS[skill]
        beside = far + 1.2 * (i - 1)                        # so that no interval hides another
        ax.errorbar(beside, mean, [mean - low, high - mean], fmt=f"{'os^'[i]}-", color=color,
                    lw=2.2, ms=6, elinewidth=1.4)
        said = f"{skill}\n{number_asked(groups, task)}"
        ax.text(far[-1] + 3, mean[-1], said, color=DARK, va="center", fontsize=10)
    ax.set(xlabel="how far to go from all experts mixed equally to the right one alone, %",
           ylabel="right answers to validation questions\nof unseen kinds, %  (95 % intervals)",
           xticks=[*far], ylim=(0, None), xlim=(-3, 130))
    headline(fig, done)
    save(fig, path)


def timing(done, path):
    """Seconds per question of both passes; a bar per strategy and way of asking; mean of seeds."""
    plt, rows = pyplot(), done["rows"]
    ways = list(rows[0]["seconds_per_question"]) if rows else []
    fig, axes = plt.subplots(1, len(ways), figsize=(4 + 3.8 * len(ways), 4.4), sharey=True,
                             sharex=True, squeeze=False, layout="constrained")
    for ax, way in zip(axes[0], ways):
        labels = []
        for task, arm in dict.fromkeys((r["task"], r["arm"]) for r in rows):
            mine = [r["seconds_per_question"][way] for r in rows
                    if (r["task"], r["arm"]) == (task, arm)]
            first, second = (np.mean([m[k] for m in mine]) for k in ("first", "second"))
            y = len(labels)
            ax.barh(y, first, color=ORANGE, label=None if y else "first pass")
            ax.barh(y, second, left=first, color=BLUE, label=None if y else "second pass")
            ax.text(first + second, y, f" {first:.2f} + {second:.2f} s", va="center", fontsize=10)
            labels.append(f"{in_words(task.removesuffix('-unseen'))}, {in_words(arm)}")
        ax.set_yticks(range(len(labels)), labels)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.set(xlabel="seconds per question", title=f"asked {ASKED.get(way, way)}")
        ax.margins(x=0.3)
        ax.locator_params(axis="x", nbins=4)
    axes[0][-1].legend(*axes[0][0].get_legend_handles_labels(), frameon=False, fontsize=11,
                       loc="center right")
    headline(fig, done)
    save(fig, path)


def spectrum(done, path):
    """What share of sum(S) the largest singular values hold; a line per kind of matrix."""
    plt, rows = pyplot(), done["rows"]
    fig, ax = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    tenth = []
    for r in rows:
        x, y = [0, *(100 * v for v in r["top"])], [0, *(100 * v for v in r["mass"])]
        colour, style, label = APART.get(r["arm"], (GREY, "-", "value, and all of the MLP"))
        label = label if label not in ax.get_legend_handles_labels()[1] else None
        ax.plot(x, y, style, color=colour, lw=2.5, label=label)
        tenth.append(float(np.interp(10, x, y)))
    least, most = min(tenth), max(tenth)
    ax.plot([10, 10], [least, most], color="black", lw=4)
    ax.annotate(f"the largest tenth holds\n{least:.0f} to {most:.0f} %", (10, least), (30, 12),
                va="center", fontsize=12, weight="bold", arrowprops={"arrowstyle": "->"})
    ax.set(xlabel="largest singular values, % of their number", ylabel="share of their sum, %",
           xlim=(0, 100), ylim=(0, 100))
    ax.legend(frameon=False, fontsize=10, loc="lower right", title="mean of the layers")
    headline(fig, done)
    save(fig, path)

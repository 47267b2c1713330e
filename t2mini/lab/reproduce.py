"""
`python -m t2mini reproduce NAME`: run one experiment, write tutorials/results/NAME.json, draw
tutorials/figures/NAME.png.

The file is written after every cell, so a stopped run goes on where it was; what differs in base
weights or budget is not mixed into it, nor what differs in dtype into one task. A row of the file
with `again` is measured again. The picture is drawn from the file alone (`--draw` does only that).
"""
import json
import subprocess
import time
from contextlib import nullcontext

import torch

from .. import evaluate, experts, tasks
from . import figures
from ..machine import files, ranks, shelves
from ..machine.checkpoint import command
from ..machine.text import one_line, printable
from ..questions import published
from .experiments import ALL
from .runs import COMMON, RULES, Lab, digest

RESULTS, FIGURES = experts.ROOT / "tutorials" / "results", experts.ROOT / "tutorials" / "figures"
EXPERTS = (*tasks.SKILLS, "dispatcher", "vision")       # whatever rows may be about
SETTINGS = ("base_sha256", "dtype", "quick", "budget")  # results of others do not share a file


def listing():
    """What there is, with the minutes that the committed run took."""
    lines = [f"{'name':<10} {'paper':<13} {'minutes':>8}  content"]
    for name, e in ALL.items():
        path = RESULTS / f"{name}.json"
        rows = read(path)["rows"] if path.exists() else []
        minutes = f"{sum(r['seconds'] for r in rows) / 60:.0f}" if rows else "not run"
        lines.append(f"{name:<10} {e.paper:<13} {minutes:>8}  {e.about}")
    return "\n".join(lines)


def places(name, quick=False, out=None):
    """Where an experiment's files are: (folder of its experts, results file, picture). quick and
    out: see `run`."""
    folder = experts.OUT / "reproduce" / ("quick" if quick else "full")
    results, pictures = (folder, folder) if quick else (RESULTS, FIGURES)
    return folder, (out or results) / f"{name}.json", (out or pictures) / f"{name}.png"


def read(path):
    """A results file. ValueError where it is not one."""
    try:
        found = json.loads(files.read_text(path))
        whole = all(k in found for k in (*SETTINGS, "name", "rows"))
        if whole and all(isinstance(r["arm"], str) and r["seconds"] >= 0 for r in found["rows"]):
            return found
    except FileNotFoundError:
        raise FileNotFoundError(f"no results at {path}; run "
                                f"`python -m t2mini reproduce {path.stem}` first") from None
    except (ValueError, TypeError, LookupError, RecursionError):
        pass
    raise ValueError(f"{path} is not a results file; move it away to start anew")


def commit():
    """The commit of this project, with a + where files differ from it, but for its results."""
    def git(*args):
        command = ["git", "-C", str(experts.ROOT), *args]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    try:
        measured = [":!tutorials/results", ":!tutorials/figures"]       # a run writes these itself
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", *measured)
        return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)
    except OSError:
        return ""


def run(name, model, tokenizer, quick=False, data=None, out=None, only=""):
    """Run the cells that an experiment's file lacks or marks (`missing`). -> the file's content.

    only: of these, those whose key holds this text, as "cem" or "seed 0". out: folder of the file
    and the picture instead of the project's own.
    """
    ALL[name].check(data)
    yours = shelves.instead(model, experts.OUT, experts.SHIPPED / model.name, EXPERTS)
    if yours and not quick and not out:
        raise ValueError(f"{RESULTS} is about the shipped experts, and {experts.OUT} holds others: "
                         f"{', '.join(yours)}. Move them away, or measure them with --out=DIR")
    folder, path, picture = places(name, quick, out)
    settings = dict(zip(SETTINGS, (model.base_sha256, str(model.dtype), quick, COMMON)))
    machine = {"device": str(model.device), "dtype": settings["dtype"],
               "threads": torch.get_num_threads(), "torch": torch.__version__}
    done = {"name": name, "paper": ALL[name].paper, "command": command(), **settings,
            "rules": RULES, **machine, "rows": []}
    if out:                         # the project's own headline is about the project's own rows
        done["title"] = ALL[name].about
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    # two at once would train the same experts
    alone = files.only_one(folder.parent / f"{name}.lock",
                           busy=f"another `reproduce {name}` is running; wait until it ends")
    with alone if ranks.rank() == 0 else nullcontext():
        if ranks.rank() == 0:
            files.sweep(path)
        if ranks.rank() == 0 and path.exists():
            done = read(path)
            check_settings(path, done, settings)
        done = ranks.agreed(done)       # else a rank may read what the first has written by then
        lab = Lab(model, tokenizer, folder, quick, data)
        cells = list(ALL[name].cells(lab))
        keys = [key for key, _ in cells]
        left = missing(cells, done["rows"], only)
        asked = [key for key, _ in left]
        check_questions(path, done["rows"], asked, lab)
        check_dtype(path, done, asked, settings["dtype"])
        if not left and ranks.rank() == 0:
            which = f"every row that holds {only!r}" if only else "every row"
            print(one_line(f"nothing is left to measure: {path} has {which}; --out=DIR measures "
                           "them again, into DIR"))
        started, loaded = time.time(), commit()             # the files may change meanwhile
        for i, (key, make) in enumerate(left):
            t = time.time()
            row = {**key, **make()}
            row |= {"seconds": round(time.time() - t, 1), "commit": loaded, **machine}
            done["rows"] = placed(done["rows"], key, row, keys)
            if ranks.rank() == 0:
                with files.replacing(path) as f:
                    f.write(pretty(done).encode())
                minutes = (time.time() - started) / (i + 1) * (len(left) - i - 1) / 60
                report(f"{name} {i + 1}/{len(left)}", row, key, minutes)
    if ranks.rank() == 0:
        draw(done, picture)
    return done


def check_settings(path, done, settings):
    """ValueError where a file's rows are about other questions, weights or a budget than this run's
    (of dtypes see `check_dtype`)."""
    if done.get("rules") != RULES:
        raise ValueError(f"{path} was measured on other questions than today's: --out=DIR "
                         "measures all of it, or move it away to start anew")
    other = [k for k in SETTINGS if k != "dtype" and done[k] != settings[k]]
    if other:
        same_base = ("take the --weights that it was measured with, or "
                     if other[0] == "base_sha256" else "take ")
        raise ValueError(f"{path} was measured with another {other[0]}: {same_base}"
                         "--out=DIR, or move it away to start anew")


def staying(rows, left):
    """The rows that none of the cells that are left to measure (their keys) replaces."""
    return [row for row in rows if not any(same(key, row) for key in left)]


def check_questions(path, rows, left, lab):
    """Scores are compared question by question. ValueError where one of the rows that stay tells
    that it was asked others than those that are there now, of a task that is left to measure (its
    keys)."""
    tasks, today = {key.get("task") for key in left}, {}
    for row in staying(rows, left):
        task, n = row.get("task"), row.get("n")
        if "asked" not in row or task not in tasks:
            continue
        if (task, n) not in today:
            today[task, n] = digest(lab.examples(task, n))
        if row["asked"] != today[task, n]:
            raise ValueError(f"{path} asked other questions of {task} than those that are here: "
                             "--out=DIR measures anew" + (", or take the --data of that run"
                                                          if task in published.SETS else ""))


def check_dtype(path, done, left, dtype):
    """Scores on the same questions are compared, so they are of one dtype. ValueError where rows
    that stay have another one than those that are left to measure (their keys)."""
    asked = [figures.questions_of(key.get("task")) for key in left]
    for row in staying(done["rows"], left):
        has = str(row.get("dtype") or done["dtype"])
        if has != dtype and figures.questions_of(row.get("task")) in asked:
            raise ValueError(f"{path} has rows of {row['task']} in {has}, and they would be "
                             f"compared: take --dtype={has.removeprefix('torch.')}, --only=TEXT "
                             "that names other tasks, or --out=DIR")


def placed(rows, key, row, keys):
    """The rows with this one, instead of the one that it replaces, in the order of the cells' keys,
    whatever was measured first: a task's first arm is what its others are compared with. Rows of no
    cell come last."""
    def place(row):
        return next((i for i, key in enumerate(keys) if same(key, row)), len(keys))

    return sorted([*(old for old in rows if not same(key, old)), row], key=place)


def same(key, row):
    return all(row.get(k) == v for k, v in key.items())


ORDER = ("task", "base", "arm", "seed")                     # what names a cell, in words


def label_of(key):
    """'math, svf, seed 0'"""
    last = sorted(key, key=ORDER.index)
    return ", ".join(f"seed {key[name]}" if name == "seed" else f"{key[name]}" for name in last)


def missing(cells, rows, only=""):
    """The cells (key, make) that have no row, or one with `again`: why it must be measured again.

    only: of these, those whose label holds the text. ValueError where no cell's does.
    """
    named = [(key, make) for key, make in cells if only in label_of(key)]
    if not named:
        arms = "; ".join(dict.fromkeys(key["arm"] for key, _ in cells))
        raise ValueError(f"no cell holds {only!r}; they are named TASK, ARM, seed N, with one of "
                         f"the arms: {arms}")
    kept = [r for r in rows if "again" not in r]
    return [(key, make) for key, make in named if not any(same(key, r) for r in kept)]


def report(where, row, key, minutes):
    """One line on the screen for a cell that is done."""
    text = ""
    if "score" in row:
        text = evaluate.percent(round(row["score"] * row["n"]), row["n"])
    print(f"{where}: {label_of(key)}: {text}  {row['seconds']:.0f} s, {minutes:.0f} min left",
          flush=True)


def draw_file(path, picture, against=None):
    """Draw a results file (see `draw`). ValueError where it is none, or somebody has changed it so
    that it says less than its picture needs."""
    done = read(path)
    try:
        draw(done, picture, against)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as e:
        if against and isinstance(e, ValueError):           # of an arm that is not there
            raise
        raise ValueError(f"{path} is not a results file of this program, or is damaged "
                         f"({type(e).__name__}: {e})") from None


def draw(done, picture, against=None):
    """Draw a results file, and print its table (against: see figures.table)."""
    print(printable(figures.table(done["rows"], against)))
    before = written(picture)
    getattr(figures, ALL[done["name"]].draw)(done, picture)
    if written(picture) != before:                          # a part without scores has none
        print(one_line(f"figure: {picture}"))


def written(path):
    """When a file was written last, to the nanosecond; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def pretty(done):
    """JSON with one line per row: short, and read well by `git diff`."""
    head = json.dumps({k: v for k, v in done.items() if k != "rows"}, indent=1)
    rows = ",\n".join("  " + json.dumps(files.finite(r), allow_nan=False) for r in done["rows"])
    return head.removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n ]\n}\n"

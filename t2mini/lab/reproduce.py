"""
`python -m t2mini reproduce NAME`: run one experiment, write tutorials/results/NAME.json, draw tutorials/figures/NAME.png.

The file is written after every cell, so a stopped run goes on where it was; what differs in base weights, dtype or budget is
not mixed into it. The picture is drawn from the file alone (`--draw` does only that).
"""
import json
import subprocess
import time
from contextlib import nullcontext

import torch

from .. import evaluate, experts
from . import figures
from ..machine import files, ranks
from ..machine.checkpoint import command
from .experiments import ALL
from .runs import COMMON, Lab

RESULTS, FIGURES = experts.ROOT / "tutorials" / "results", experts.ROOT / "tutorials" / "figures"
SETTINGS = ("base_sha256", "dtype", "quick", "budget")     # results of other settings do not share a file


def listing():
    """What there is, with the minutes that the committed run took."""
    lines = [f"{'name':<10} {'paper':<13} {'minutes':>8}  content"]
    for name, e in ALL.items():
        path = RESULTS / f"{name}.json"
        rows = read(path)["rows"] if path.exists() else []
        minutes = f"{sum(r['seconds'] for r in rows) / 60:.0f}" if rows else "not run"
        lines.append(f"{name:<10} {e.paper:<13} {minutes:>8}  {e.about}")
    return "\n".join(lines)


def read(path):
    """A results file. ValueError where it is not one."""
    try:
        found = json.loads(path.read_text())
        if all(k in found for k in (*SETTINGS, "rows")) and all("seconds" in r and "arm" in r for r in found["rows"]):
            return found
    except FileNotFoundError:
        raise FileNotFoundError(f"no results at {path}; run `python -m t2mini reproduce {path.stem}` first") from None
    except (ValueError, TypeError, UnicodeDecodeError):
        pass
    raise ValueError(f"{path} is not a results file; move it away to start anew")


def commit():
    """The commit of this project, with a + where files differ from it."""
    def git(*args):
        return subprocess.run(["git", "-C", str(experts.ROOT), *args], capture_output=True, text=True).stdout.strip()
    try:
        return git("rev-parse", "--short", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except OSError:
        return ""


def run(name, model, tokenizer, quick=False, data=None, out=None):
    """Run the cells of an experiment that its file lacks. -> the file's content. out: folder instead of the project's own."""
    folder = experts.OUT / "reproduce" / ("quick" if quick else "full")
    results = out or (folder if quick else RESULTS)
    path = results / f"{name}.json"
    settings = dict(zip(SETTINGS, (model.base_sha256, str(model.dtype), quick, COMMON)))
    done = {"name": name, "paper": ALL[name].paper, "command": command(), **settings, "device": str(model.device),
            "threads": torch.get_num_threads(), "torch": torch.__version__, "rows": []}
    folder.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.only_one(folder.parent / f"{name}.lock") if ranks.rank() == 0 else nullcontext():
        if ranks.rank() == 0:
            files.sweep(path)
        if ranks.rank() == 0 and path.exists():
            done["rows"] = read(path)["rows"]
            other = [k for k in SETTINGS if read(path)[k] != settings[k]]
            if other:
                raise ValueError(f"{path} was measured with another {other[0]}; move it away to start anew")
        done["rows"] = ranks.agreed(done["rows"])           # else a rank may read the file that the first has written to
        lab = Lab(model, tokenizer, folder, quick, data)
        cells = list(ALL[name].cells(lab))
        left = [(key, make) for key, make in cells if key not in [{k: r.get(k) for k in key} for r in done["rows"]]]
        t0 = time.time()
        for i, (key, make) in enumerate(left):
            t = time.time()
            label = ", ".join(f"{v}" if k != "seed" else f"seed {v}" for k, v in key.items())
            found = make()
            done["rows"].append({**key, **found, "seconds": round(time.time() - t, 1), "commit": commit()})
            if ranks.rank() == 0:
                with files.replacing(path) as f:
                    f.write(pretty(done).encode())
                text = evaluate.percent(round(found["score"] * found["n"]), found["n"]) if "score" in found else ""
                minutes = (time.time() - t0) / (i + 1) * (len(left) - i - 1) / 60
                print(f"{name} {len(cells) - len(left) + i + 1}/{len(cells)}: {label}: {text}  "
                      f"{time.time() - t:.0f} s, {minutes:.0f} min left", flush=True)
    if ranks.rank() == 0:
        draw(done, out or (folder if quick else FIGURES))
    return done


def draw(done, folder, against=None):
    """The picture of a results file, and its table on the screen (against: see figures.table)."""
    text = figures.table(done["rows"], against)
    picture = folder / f"{done['name']}.png"
    getattr(figures, ALL[done["name"]].draw)(done, picture)
    print(text)
    print(f"figure: {picture}")


def pretty(done):
    """JSON with one line per row: short, and read well by `git diff`."""
    head = json.dumps({k: v for k, v in done.items() if k != "rows"}, indent=1)
    rows = ",\n".join("  " + json.dumps(r) for r in done["rows"])
    return head.removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n ]\n}\n"

"""
Fill in the tables of results/README.md from the results files beside it:
`python tutorials/tables.py`.

On the page, a table stands between two comments: `<!-- unseen math-unseen -->`, the name of an
experiment and, where it has too many rows, of the tasks to show, and `<!-- end -->`. Arms are
differences to the first one, or to the one after `minus`: `<!-- unseen minus uniform alpha -->`. Of
`foundation` the rows are those of `make results`.
"""
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))        # so that `import t2mini` works from a plain clone

from t2mini import evaluate  # noqa: E402
from t2mini.lab import figures  # noqa: E402
from t2mini.lab.plots import in_words  # noqa: E402

# questions: of fewer the interval of a difference means little, and none is shown
FEW = 30
PAGE = HERE / "results" / "README.md"
PLACE = re.compile(r"<!-- (?P<name>[a-z0-9-]+)(?P<tasks>(?: (?!minus)\S+)*)"
                   r"(?: minus (?P<arm>[^>]+?))? -->\n"
                   r".*?<!-- end -->", re.DOTALL)


def rows_of(name):
    """The rows of a results file."""
    if name == "foundation":
        return [json.loads(line) for line in
                (HERE / "results" / "foundation.jsonl").read_text().splitlines()]
    return json.loads((HERE / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]


def table(rows, tasks=(), against=None):
    """Markdown: of each arm its score and how far it is from another arm on the same questions."""
    groups = figures.grouped([r for r in rows if not tasks or r["task"] in tasks])
    first = {}
    for (task, base, arm), seeds in groups.items():
        if against in (None, arm):
            first.setdefault((task, base), (arm, seeds))
    if unknown := set(tasks) - {task for task, _, _ in groups}:
        raise ValueError(f"no row is about {', '.join(sorted(unknown))}")
    if not first:
        raise ValueError(f"no row has the arm {against!r}")
    against = against or next(iter(first.values()))[0]
    what = (in_words(against) if all(arm == against for arm, _ in first.values())
            else "the first of each")
    lines = ["| questions | who answers | runs x n | right, % [95 %] "
             f"| minus {what}, points [95 %] |",
             "|---|---|---|---|---|"]
    for (task, base, arm), seeds in groups.items():
        mean, low, high, _ = evaluate.over_seeds(seeds)
        start_arm, start = first.get((task, base), (arm, seeds))
        gain = ""
        if arm != start_arm and len(start[0]) == len(seeds[0]) >= FEW:
            gain = figures.difference(seeds, start)
        where = in_words(task) + (f", {in_words(base)}" if base else "")
        lines.append(f"| {where} | {in_words(arm)} | {len(seeds)} x {len(seeds[0])} "
                     f"| {100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] | {gain} |")
    return "\n".join(lines)


def filled(text):
    """The page with every table written anew."""
    def fill(place):
        head = place[0].split("\n", 1)[0]
        return (f"{head}\n{table(rows_of(place['name']), place['tasks'].split(), place['arm'])}\n"
                "<!-- end -->")

    return PLACE.sub(fill, text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

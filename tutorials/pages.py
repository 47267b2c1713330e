"""
Hold pages and scripts together: `python tutorials/pages.py` runs every chapter and compares what it
prints with its page.

A page NN_name.md belongs to the script NN_name.py, and how_sure.md to how_sure.py. In it
    ```python            is code that stands, line for line, in the script
                         (or in the file named after the word python)
    ```text NAME         is the section NAME of the script's output; numbers may differ
                         by 2 %, or by what is stated, as
    ```text NAME ±20%    in this line; "±any" where a number is a time or a random draw
    ```text NAME ±text   is text that a model wrote, which may differ on another machine:
                         only the section must be there
    ```bash              is a command; every path in it exists and every option is known
--write puts the sections just printed into the pages, after which the change is read with
`git diff`; --figures draws the pictures of the pages again. Without them a run changes nothing
here: its pictures go to out/figures.
"""
import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.M | re.S)
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def chapters():
    """The pages in order: [Path of NN_name.md]."""
    return sorted(HERE.glob("[0-9][0-9]*_*.md"))


def checked():
    """The pages that a script stands behind: [Path], the chapters and the statistics behind
    them."""
    return [*chapters(), HERE / "how_sure.md"]


def sections(output):
    """A script's output -> {section name: its lines}."""
    parts = re.split(r"^--- (\S+) ---$", output, flags=re.M)
    return {name: [line.rstrip() for line in text.strip("\n").splitlines()]
            for name, text in zip(parts[1::2], parts[2::2])}


def same_line(promised, printed, tolerance):
    """Equal words, and numbers that differ by at most `tolerance`
    (a share; None: by any amount)."""
    if NUMBER.sub("#", promised).split() != NUMBER.sub("#", printed).split():
        return False
    for a, b in zip(NUMBER.findall(promised), NUMBER.findall(printed)):
        a, b = float(a.replace(",", "")), float(b.replace(",", ""))
        if tolerance is not None and abs(a - b) > tolerance * max(abs(a), abs(b)) + 1e-12:
            return False
    return True


def outputs(page):
    """The output blocks of a page:
    [(section name, tolerance (a share, None for any, "text"), promised lines)]."""
    found = []
    for kind, info, body in FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "text" and info.strip():
            name, *given = info.split()
            given = given[0].removeprefix("±").removesuffix("%") if given else "2"
            tolerance = given if given == "text" else None if given == "any" else float(given) / 100
            found.append((name, tolerance, body.rstrip("\n").splitlines()))
    return found


def differences(page, printed):
    """What the page promises and the script did not print: a list of sentences."""
    found, wrong = sections(printed), []
    for name, tolerance, promised in outputs(page):
        if name not in found:
            wrong.append(f"{page.name}: the script prints no section {name!r}")
            continue
        lines = found[name]
        if tolerance == "text":
            wrong += [] if any(lines) else [f"{page.name}, {name}: the script prints nothing"]
            continue
        if len(lines) != len(promised):
            wrong.append(f"{page.name}, {name}: {len(promised)} lines promised, "
                         f"{len(lines)} printed")
        for want, got in zip(promised, lines):
            if not same_line(want, got, tolerance):
                wrong.append(f"{page.name}, {name}:\n    promised  {want}\n    printed   {got}")
    return wrong


def write(page, printed):
    """Put the sections just printed into the page."""
    found = sections(printed)

    def fresh(match):
        kind, info, body = match.groups()
        if kind == "text" and info.strip() and info.split()[0] in found:
            body = "\n".join(found[info.split()[0]]) + "\n"
        return f"```{kind}{info}\n{body}```"
    page.write_text(FENCE.sub(fresh, page.read_text(encoding="utf-8")), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*",
                        help="chapter numbers such as 03 or 00b, or how; default: all")
    parser.add_argument("--write", action="store_true", help="put what was printed into the pages")
    parser.add_argument("--allow-code", action="store_true",
                        help="agree, once, that programs of the model run in the sandbox")
    parser.add_argument("--figures", action="store_true",
                        help="draw the pages' pictures again, in tutorials/figures")
    args = parser.parse_args()
    known = [p.stem.partition("_")[0] for p in checked()]
    if unknown := [name for name in args.only if name not in known]:
        parser.error(f"no page {unknown[0]!r}; choose from {', '.join(known)}")
    options = ["--allow-code"] * args.allow_code
    options += [f"--figures={HERE / 'figures'}"] * args.figures
    wrong, t0 = [], time.time()
    pages = [p for p in checked() if not args.only or p.stem.partition("_")[0] in args.only]
    for done, page in enumerate(pages):
        t = time.time()
        print(f"{page.stem} ({done + 1} of {len(pages)}, {time.time() - t0:.0f} s so far)",
              flush=True)
        command = [sys.executable, str(page.with_suffix(".py")), *options]
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
        if run.returncode:
            found = [f"{page.with_suffix('.py').name} ended with status {run.returncode}"]
        else:
            if args.write:
                write(page, run.stdout)
            found = differences(page, run.stdout)
        print("\n".join([*found, f"    {time.time() - t:.0f} s"]), flush=True)
        wrong += [page.stem] * bool(found)
    print(f"not what its script prints: {', '.join(wrong)}" if wrong else
          f"all {len(pages)} pages say what their scripts print ({time.time() - t0:.0f} s)")
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("t2mini: stopped; pages that were done are as they were written")

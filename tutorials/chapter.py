"""
What every chapter's script shares: sections, figures, the loaded model and the exercise checker.

A chapter prints its output in named sections. The page shows some of them; `pages.py` holds the
two together.
"""
import argparse
import importlib.util
import os
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
# of a run; `make figures` draws the pages'
FIGURES = HERE.parent / "out" / "figures"
# so that `import t2mini` works from a plain clone
sys.path.insert(0, str(HERE.parent))


def start(doc, checks, script, runs_code=False, live=False):
    """Parse the chapter's options. `--check N` runs checks[N - 1] on your exercise file and ends;
    else print the title.

    checks: three functions, or none on a page without exercises; each takes the reader's module
        and raises AssertionError with a hint where it is wrong.
    runs_code: the chapter runs programs that the model writes, for which the reader must agree
        once.
    live: the chapter has a part that needs a larger model and published questions: start.live is
        their folder, or None.
    """
    from t2mini.cli.options import within
    from t2mini.cli.verbs import agree, take_threads
    parser = argparse.ArgumentParser(description=doc,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    if checks:
        parser.add_argument("--check", type=int, choices=(1, 2, 3),
                            help="check exercise 1, 2 or 3 and stop")
        parser.add_argument("--solutions", action="store_true",
                            help="check the solution instead of your own file")
    parser.add_argument("--allow-code", action="store_true",
                        help="agree, once, that programs which the model writes "
                             "run here in a sandbox")
    parser.add_argument("--threads", type=within(int, 1, 256),
                        help="CPU threads (default: one per core, fewer beside busy programs)")
    parser.add_argument("--figures", metavar="DIR", type=Path, default=FIGURES,
                        help="where the chapter's pictures go (default: out/figures)")
    if live:
        parser.add_argument("--live", metavar="DIR", type=Path,
                            help="also ask the larger model, with the published questions in DIR")
    args = parser.parse_args()
    start.live = args.live if live else None
    if checks and args.check:
        sys.exit(check(Path(script).stem, args.check, checks,
                       "solutions" if args.solutions else "exercises"))
    try:
        agree(args.allow_code, runs_code)
    except ValueError as e:
        sys.exit(f"t2mini: {e}")
    take_threads(argparse.Namespace(threads=args.threads, device=None, verb="ask"))
    save.folder = args.figures
    print(title(doc))


def title(doc):
    """The first paragraph of a docstring, as one line."""
    return " ".join(doc.strip().split("\n\n")[0].split())


def in_one_line(kind, error, trace):
    """What no reader needs a traceback for: weights or a package that are not there yet, and
    `| head`, which has read enough."""
    from t2mini.__main__ import say
    if issubclass(kind, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)        # for what is still to be flushed
    elif issubclass(kind, FileNotFoundError):
        say(error)
    elif issubclass(kind, ModuleNotFoundError) and not str(error.name).startswith("t2mini"):
        say(f"the package {error.name} is missing; run `make setup`, then use .venv/bin/python")
    else:
        sys.__excepthook__(kind, error, trace)


# at once: a chapter imports its packages before it starts
sys.excepthook = in_one_line


def check(name, number, checks, folder):
    """-> 0 where the exercise is solved, else 1 after printing the hint."""
    path = HERE / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        checks[number - 1](module)
    except NotImplementedError:
        print(f"exercise {number}: not started. "
              f"Fill in exercise_{number} in {path.relative_to(HERE.parent)}")
        return 1
    # a reader's code may raise anything: that is a hint, too
    except Exception as e:
        print(f"exercise {number}: not yet. {hint(e, number, path)}")
        return 1
    print(f"exercise {number}: right")
    return 0


def hint(e, number, path):
    """What to say of an error: the check's own hint, where the reader's code went wrong, or that
    the check could not read what it returned."""
    if isinstance(e, AssertionError) and e.args:
        return e
    if isinstance(e, SyntaxError) and e.filename == str(path):
        return f"{e.msg} in line {e.lineno} of {path.name}"
    lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__)
             if frame.filename == str(path)]
    if lines:
        return f"{e!r} in line {lines[-1]} of {path.name}"
    return (f"The check cannot read what exercise_{number} returned ({e!r}); "
            "the words under its name say what it should return.")


def section(name):
    """Start a named section of the output; a page shows it as ```text name."""
    print(f"\n--- {name} ---", flush=True)


def load():
    """The default model and its tokenizer, every linear layer seen through its singular values
    (cached on disk). Says so where experts in out/ will stand for shipped ones."""
    import t2mini
    from t2mini import experts, svf
    from t2mini.cli.verbs import tell_of_yours
    model, tokenizer = t2mini.load()
    tell_of_yours(model)
    svf.attach(model, cache=experts.SVD_CACHE)
    return model, tokenizer


def save(figure, name):
    """Write a picture to out/figures (or --figures), without dates:
    the same picture, the same file."""
    from t2mini.machine import files
    path = (save.folder / f"{name}.png").resolve()
    with files.replacing(path) as file:
        figure.savefig(file, format="png", dpi=120, bbox_inches="tight",
                       metadata={"Software": None})
    shown = path.relative_to(HERE.parent) if path.is_relative_to(HERE.parent) else path
    print(f"figure: {shown}", file=sys.stderr)


save.folder = FIGURES

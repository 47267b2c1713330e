"""
The command line: parse, call, print. `python -m t2mini VERB --help` explains each verb.

All bad input ends here as one line on stderr and a non-zero exit; a traceback is a bug.
"""
import errno
import json
import os
import sys


def main(argv=None):
    """Run one verb. -> exit status: 0, 1 clear error, 2 wrong options, 130 after Ctrl-C."""
    try:
        return run(argv)
    except KeyboardInterrupt as e:
        say(f"\nt2mini: stopped. {e}".rstrip())
        return 130
    except ModuleNotFoundError as e:
        say(f"t2mini: the package {e.name} is missing; run `make setup`, then use .venv/bin/python")
        return 1
    except BrokenPipeError:                         # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as e:
        full = e.errno == errno.ENOSPC
        say(f"t2mini: {'no space left on the disk; nothing was overwritten' if full else e}")
        return 1
    except (ValueError, RuntimeError, MemoryError) as e:
        say(f"t2mini: {first_line(e)}")
        return 1
    except Exception as e:                          # not foreseen, so at least its name
        say(f"t2mini: {type(e).__name__}: {first_line(e)} (a bug in t2mini, please report it)")
        return 1
    finally:
        if "torch" in sys.modules:
            from .machine import ranks
            ranks.stop()


def run(argv=None):
    """Parse, call, print. -> exit status."""
    for name in ("stdout", "stderr"):               # closed by who started us: print into nothing
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
        if hasattr(getattr(sys, name), "reconfigure"):
            getattr(sys, name).reconfigure(errors="backslashreplace")   # letters it cannot show
    from .cli.options import build_parser

    parser, verbs = build_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        verbs.get(args.verb, parser).unknown(unknown[0])
    if not args.verb:
        parser.print_help()
        return 2
    if getattr(args, "data", None):
        os.environ["T2MINI_DATA"] = args.data       # whoever asks for a task by name finds it

    from .cli.verbs import VERBS
    result = VERBS[args.verb](args)
    if getattr(args, "json", False):
        print(json.dumps(result))
    sys.stdout.flush()
    return 0


def say(text):
    """One line on stderr, whatever it quotes."""
    from .machine.text import printable
    print(printable(text), file=sys.stderr)


def first_line(e):
    """What an exception says, in one line."""
    return str(e).splitlines()[0] if str(e) else type(e).__name__


if __name__ == "__main__":
    sys.exit(main())

"""
The command line: parse, call, print. `python -m t2mini VERB --help` explains each verb.

All bad input ends here as one line on stderr and a non-zero exit; a traceback is a bug.
"""
import errno
import os
import sys

from .machine.text import first_line, one_line


def main(argv=None):
    """Run one verb. -> exit status: 0, 1 clear error, 2 wrong options, 130 after Ctrl-C, 141 where
    nobody reads on."""
    try:
        from .cli.run import run                    # here: Ctrl-C and what is missing are caught
        return run(argv)
    except KeyboardInterrupt as e:
        say(f"stopped. {e}".rstrip(), "\n")         # behind the terminal's ^C
        return 130
    except BrokenPipeError:                         # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141                                  # as of a program that the closed pipe kills
    except ModuleNotFoundError as e:
        text = f"the package {e.name} is missing; run `make setup`, then use .venv/bin/python"
    except OSError as e:
        full = "no space left on the disk; nothing was overwritten"
        text = full if e.errno == errno.ENOSPC else e
    except ValueError as e:                         # ours: whole, as a name may hold a newline
        text = str(e) or first_line(e)
    except (RuntimeError, MemoryError) as e:
        text = first_line(e)
    except Exception as e:                          # not foreseen, so at least its name
        text = f"{type(e).__name__}: {first_line(e)} (a bug in t2mini, please report it)"
    finally:
        if "torch" in sys.modules:
            from .machine import ranks
            ranks.stop()
    say(text)
    return 1


def say(text, before=""):
    """One line on stderr, whatever it quotes."""
    print(before + one_line(f"t2mini: {text}", 600), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

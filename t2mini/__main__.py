"""
The command line: parse, call, print. `python -m t2mini VERB --help` explains each verb.

All bad input ends here as one line on stderr and a non-zero exit; a traceback is a bug.
"""
import errno
import os
import sys


def main(argv=None):
    """Run one verb. -> exit status: 0, 1 clear error, 2 wrong options, 130 after Ctrl-C."""
    try:
        from .cli.run import run                    # here: Ctrl-C and what is missing are caught
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


def say(text):
    """One line on stderr, whatever it quotes."""
    from .machine.text import printable
    print(printable(text), file=sys.stderr)


def first_line(e):
    """What an exception says, in one line."""
    return str(e).splitlines()[0] if str(e) else type(e).__name__


if __name__ == "__main__":
    sys.exit(main())

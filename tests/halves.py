"""
All tests, in two processes side by side: on two cores they take little more than half of the time.

What:  `make test` runs this file. One process takes the files of TRAINING, the other all files that
       are not in this list, a new one too. What the second says is printed when both have ended.
Exit:  0 if all tests passed, otherwise the status of the process that failed.
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
# about half of all processor time: mostly tests that train a tiny model
TRAINING = ("adapt", "cli", "files", "kill", "lora", "ranks", "reinforce", "reproduce",
            "sixty_lines", "train", "tutorials")


def halves():
    """-> two lists of file names: those of TRAINING, and the others."""
    first = [f"test_{name}.py" for name in TRAINING]
    return first, sorted({path.name for path in HERE.glob("test_*.py")} - {*first})


def run(*parts):
    """Run pytest on each list of files, one process each, all at the same time. -> exit status."""
    env = {"OMP_NUM_THREADS": "1", **os.environ}            # more threads than cores would wait
    with tempfile.TemporaryFile() as later:
        started = []
        for part in parts:
            command = [sys.executable, "-m", "pytest", *(HERE / name for name in part)]
            started.append(subprocess.Popen(command, cwd=HERE.parent, env=env,
                                            stdout=later if started else None,
                                            stderr=subprocess.STDOUT))
        try:
            statuses = [process.wait() for process in started]
        except KeyboardInterrupt:                           # they were told too
            statuses = [process.wait() for process in started]
        later.seek(0)
        sys.stdout.buffer.write(later.read())
    return next((abs(status) for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(run(*halves()))

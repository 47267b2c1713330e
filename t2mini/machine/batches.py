"""
Much work in batches of like sizes, shared by the ranks, with a line of progress.
"""
import sys
import time

from . import ranks


class Progress:
    """One line on stderr: the share done and the time left; silent for the first two seconds."""

    def __init__(self, label, total):
        self.label = label if ranks.rank() == 0 else ""
        self.total = total
        self.done = 0
        self.started = time.time()
        self.shown = 0.0                                    # seconds after the start

    def add(self, n):
        """n more are done; print at most once a second, and into a file every five."""
        self.done += n
        seconds = time.time() - self.started
        finished = self.done >= self.total
        if not self.label or seconds < 2 or (seconds - self.shown < 1 and not finished):
            return
        terminal = sys.stderr.isatty()
        if not terminal and not finished and int(seconds) % 5:
            return
        self.shown = seconds
        left = seconds / self.done * (self.total - self.done)
        end = "\r" if terminal and not finished else "\n"
        print(f"{self.label}: {self.done}/{self.total}, {seconds:.0f} s, {left:.0f} s left   ",
              end=end, file=sys.stderr, flush=True)


def in_batches(run, sizes, batch, label=""):
    """run(indices) over all of range(len(sizes)), like sizes in one batch. -> results, in order.

    run takes a list of at most `batch` indices and returns one result for each of them. Several
    ranks share the work, and each gets all the results, which are then JSON values.
    """
    mine = ranks.mine(range(len(sizes)))
    order = sorted(mine, key=lambda i: sizes[i])
    progress, results = Progress(label, len(order)), {}
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        results.update(zip(part, run(part)))
        progress.add(len(part))
    return ranks.merged([results[i] for i in mine])

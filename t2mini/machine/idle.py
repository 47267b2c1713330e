"""
When training teaches nothing: what the log says of it, and what may help.
"""
IN_A_ROW = 3            # so many updates without anything to learn from are worth a warning
FEW = 20                # validation questions below which choosing z is mostly luck


class Idle:
    """Counts updates in a row that taught nothing."""

    def __init__(self):
        self.unpaid = 0                 # no answer earned anything
        self.flat = 0                   # all answers to every question earned the same

    def see(self, numbers, sample):
        """numbers: an update's row of the log; sample: one of its answers. -> its warnings, each once."""
        flat = numbers["grad_norm"] == 0
        self.flat = (self.flat + 1) * flat
        self.unpaid = (self.unpaid + 1) * (flat and numbers["reward"] == 0)
        if self.unpaid == IN_A_ROW:
            return [f"warning: no answer earned anything in {IN_A_ROW} updates, so nothing is learnt. "
                    f"Does `match` suit the answers? One of them: {sample}"]
        if self.flat == IN_A_ROW:
            return [f"warning: in {IN_A_ROW} updates all answers to a question earned the same, so "
                    "nothing is learnt. Questions that are neither too easy nor too hard, a "
                    "higher --temperature, more --samples or --baseline=batch may help"]
        return []


def few(n):
    """What to say of n validation questions."""
    return (f"only {n} validation questions: one answer moves their score by {100 / n:.0f} points, so "
            "which z is kept is mostly luck; raise --val-n, or give a task file more rows")


def nothing_learnt(moved):
    """What to say of an expert that is the z training began with. moved: did any update change z?"""
    why = ("no update changed it, as no question had answers that earned differently")
    if moved:
        why = ("no later one was as good on the validation questions; a lower --lr, more --steps "
               "or more --val-n may help")
    return f"warning: this expert is what training began with, so it has learnt nothing: {why}"

"""
When training teaches nothing: what the log says of it, and what may help.
"""
from collections import deque

IN_A_ROW = 3            # so many updates without anything to learn from are worth a warning
WINDOW = 5              # updates over which a run is judged that teaches little, not nothing
ALIKE, PAID = 0.9, 0.7  # there: flat groups above the one, while the reward is below the other
CUT = 0.5               # share of answers cut off above which the limit is the likelier reason
# questions below which a score says little, and choosing z by it is mostly luck
FEW = 20


class Idle:
    """Counts updates in a row that taught nothing, and sees where answers have become all alike."""

    def __init__(self):
        self.unpaid = 0                 # no answer earned anything
        self.flat = 0                   # all answers to every question earned the same
        self.last = deque(maxlen=WINDOW)                # (flat_groups, reward) of the last updates
        self.collapsed = False          # told of it

    def see(self, numbers, sample):
        """numbers: an update's row of the log; sample: one of its answers.
        -> its warnings; each again only after an update that taught something."""
        flat = numbers["grad_norm"] == 0
        self.flat = (self.flat + 1) * flat
        self.unpaid = (self.unpaid + 1) * (flat and numbers["reward"] == 0)
        if self.unpaid == IN_A_ROW:
            why = "Does `match` suit the answers?"
            if numbers["cut"] > CUT:
                why = (f"{100 * numbers['cut']:.0f} % of the answers were cut off by --max-tokens: "
                       "raise it, or ask for short answers in the prompts.")
            return [f"warning: no answer earned anything in {IN_A_ROW} updates, so nothing is "
                    f"learnt. {why} One of them: {sample}"]
        if self.flat == IN_A_ROW:
            return [f"warning: in {IN_A_ROW} updates all answers to a question earned the same, so "
                    "nothing is learnt. Questions that are neither too easy nor too hard, a "
                    "higher --temperature, more --samples or --baseline=batch may help"]
        return self.alike(numbers)

    def alike(self, numbers):
        """Answers to a question that are nearly always the same,
        though many are wrong: told once."""
        self.last.append((numbers.get("flat_groups", 0.0), numbers["reward"]))
        flat, reward = (sum(values) / WINDOW for values in zip(*self.last))
        if len(self.last) < WINDOW or flat <= ALIKE or reward >= PAID or self.collapsed:
            return []
        self.collapsed = True
        return [f"warning: in the last {WINDOW} updates {100 * flat:.0f} % of the questions had "
                f"answers that all earned the same, while only {100 * reward:.0f} % earned: the "
                "model may have settled on one answer. A lower --lr, a higher --temperature or "
                "more --prompts may help; it does not recover by itself"]


def few(n):
    """What to say of n validation questions."""
    return (f"only {n} validation questions: one answer moves their score by {100 / n:.0f} points, "
            "so which z is kept is mostly luck; give a task file more rows, or raise --val-n if it "
            "has more")


def all_right(n):
    """What to say where the n validation questions are all answered right before training."""
    return (f"warning: all {n} validation questions are right before training, so none can tell "
            "whether it helps; it needs harder questions, or more of them")


def no_better(share, n):
    """What to say of an expert that is not the z training began with, but scores the same."""
    return (f"note: on the {n} validation questions this expert has as many right "
            f"({100 * share:.1f} %) as before training; only questions that it has not seen can "
            "tell the two apart (`python -m t2mini eval`, with --expert and without)")


def nothing_learnt(moved):
    """What to say of an expert that is the z training began with.
    moved: did any update change z?"""
    why = ("no update changed it, as no question had answers that earned differently, or --lr is "
           "too low to move anything")
    if moved:
        why = ("no later one was as good on the validation questions; a lower --lr, more --steps "
               "or more --val-n may help")
    return f"warning: this expert is what training began with, so it has learnt nothing: {why}"

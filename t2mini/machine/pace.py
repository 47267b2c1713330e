"""
What the log of a training says after an update, and how long the rest will take.
"""
from statistics import median

SHOWN = ("loss", "reward", "reward_spread", "flat_groups", "grad_norm", "z_shift", "answer_len",
         "cut", "kl", "sec")
SAMPLED = ("cut", "kl")         # which copied answers do not have
LAST = 9                    # estimates are of so many steps; earlier ones may have set things up


def short(value):
    """A number of the log in six digits; a count as it is."""
    return value if isinstance(value, int) else float(f"{value:.6g}")


class Pace:
    """The seconds that updates and validations took, of a run of `steps` updates."""

    def __init__(self, steps, val_every):
        self.steps, self.val_every = steps, val_every
        self.updates, self.validations = [], []

    def validation(self, seconds):
        """A validation is done."""
        self.validations.append(seconds)

    def update(self, step, numbers):
        """Update `step` is done. numbers: its row of the log. -> what the log says of it."""
        self.updates.append(numbers["sec"])
        shown = " | ".join(f"{name} {numbers[name]:.3g}" for name in SHOWN
                           if name in numbers and not ("loss" in numbers and name in SAMPLED))
        return f"step {step:4d} | {shown} | {self.left(step) / 60:.1f} min left"

    def left(self, step):
        """Seconds for what is still to come. Medians: one step that had to wait does not count."""
        updates = self.steps - step
        due = {*range(self.val_every, self.steps + 1, self.val_every), self.steps}
        validations = sum(at >= step for at in due)         # this update's comes behind its line
        seconds = updates * median(self.updates[-LAST:])
        if self.validations:
            seconds += validations * median(self.validations[-LAST:])
        return seconds

"""
Much work in batches of like sizes, shared by the ranks, with a line of progress.
"""
import sys
import time

from . import ranks

BUDGET = 512            # tokens of a batch that learns: more take more memory
ROOM = 16_384           # tokens of a batch that is asked, each question as long as the longest
KEPT = 131_072          # the same with all the tokens that may be answered: keys, values of each


class NotFinite(ValueError):
    """The model computes no numbers, so there is nothing to draw from."""

    def __init__(self):
        super().__init__("the model's logits are not finite numbers: damaged weights, or an expert "
                         "whose z are far too large")


class Progress:
    """One line on stderr: how many are done and the time left; silent for the first two seconds.

    While a batch is being written (`tick`) the estimate is an upper bound: answers may end early.
    """
    now = None                                              # the one that is running

    def __init__(self, title, total):
        self.title = title if ranks.rank() == 0 else ""
        self.total = total
        self.done = self.batch = 0                          # the batch: how many are in the works
        self.started = self.begun = self.first = time.time()
        self.shown = 0.0                                    # seconds after the start

    def begin(self, n):
        """A batch of n begins."""
        self.batch = n
        self.begun = time.time()
        Progress.now = self

    def tick(self, step, steps):
        """The batch has done `step` of at most `steps` steps. The first one read the questions."""
        now = time.time()
        if step == 1:
            self.first = now
        elif step < steps:
            whole = self.first - self.begun + (now - self.first) / (step - 1) * (steps - 1)
            each = whole / self.batch
            if self.done:                                   # batches that are done tell more
                each = (self.begun - self.started) / self.done
            later = each * (self.total - self.done - self.batch)
            self.show("up to ", self.begun + whole - now + later)

    def add(self, n):
        """n more are done."""
        self.done += n
        each = (time.time() - self.started) / self.done
        self.show("", each * (self.total - self.done))

    def show(self, bound, left):
        """Print at most once a second, and into a file less often the longer it takes."""
        seconds = time.time() - self.started
        finished = self.done >= self.total
        terminal = sys.stderr.isatty()
        pause = 1 if terminal else max(5, self.shown / 2)
        if not self.title or seconds < 2 or (seconds - self.shown < pause and not finished):
            return
        self.shown = seconds
        end = "\r" if terminal and not finished else "\n"
        print(f"{self.title}: {self.done}/{self.total}, {duration(seconds)}, "
              f"{bound}{duration(left)} left   ", end=end, file=sys.stderr, flush=True)


def duration(seconds):
    """'48 s', '3.4 min'"""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def ticking(steps, then=None):
    """generate's on_token: tells the running Progress how far its batch is, and calls `then`. None
    where nobody would see it."""
    if not then and not (Progress.now and Progress.now.title):
        return None
    at = 0

    def on_token(rows, tokens):
        nonlocal at
        at += 1
        if Progress.now:
            Progress.now.tick(at, steps)
        if then:
            then(rows, tokens)

    return on_token


def in_batches(run, sizes, batch, title="", answer=0):
    """run(indices) over all of range(len(sizes)), like sizes in one batch. -> results, in order.

    run takes a list of at most `batch` indices, fewer where they are long, and returns one result
    for each of them. answer: so many tokens may follow each. Several ranks share the work, and each
    gets all the results, which are then JSON values. NotFinite where any of them met it.
    """
    mine = ranks.mine(range(len(sizes)))
    progress, results = Progress(title, len(mine)), {}
    problem = None
    try:
        for part in alike(mine, sizes, batch, answer=answer):
            progress.begin(len(part))
            results.update(zip(part, run(part)))
            progress.add(len(part))
    except NotFinite as e:
        problem = e
    if any(ranks.total([float(problem is not None)])):      # on one rank: all stop, in step
        raise problem or NotFinite()
    return ranks.merged([results[i] for i in mine])


def alike(indices, sizes, batch, room=ROOM, answer=0, kept=KEPT):
    """The indices, sorted by size, in lists of at most `batch` of them that take at most `room`
    padded to the longest, and at most `kept` with `answer` more for each; one that takes more is
    alone."""
    lists = []
    for i in sorted(indices, key=lambda i: sizes[i]):
        most = min(batch, room // max(1, sizes[i]), kept // max(1, sizes[i] + answer))
        if not lists or len(lists[-1]) >= most:
            lists.append([])
        lists[-1].append(i)
    return lists


# ------------------------------------------------------------------------ batches that learn
def at_once(model):
    """Tokens of a batch that learns: a small model has room for more, and meets its weights less
    often then."""
    return min(4 * BUDGET, max(BUDGET, BUDGET * 1152 // model.cfg.hidden_size))


def micro_batches(groups, budget=BUDGET):
    """Indices of groups of (prompt ids, [answer ids, ...]), sorted by packed length, in batches of
    at most `budget` padded tokens."""
    size = [len(prompt) + sum(map(len, answers)) for prompt, answers in groups]
    return alike(range(len(size)), size, len(size), budget)


def within(items, budget, fixed, size):
    """The items in lists, in order, in each of which `fixed` and the sizes of its items,
    size(item), add up to at most `budget`; an item larger than that is alone."""
    lists, room = [], -1
    for item in items:
        room -= size(item)
        if room < 0:
            lists.append([])
            room = budget - fixed - size(item)
        lists[-1].append(item)
    return lists

"""
`t2mini chat`: a prompt that stays. Every message goes through both passes, unless a command says
which expert answers.

Messages: each stands alone. The experts were trained on single questions, and the first pass reads
          one message, so nothing said earlier reaches the model.
Commands: lines that begin with a slash (COMMANDS); a mistake in one is told, and the chat goes on.
Ends:     /quit, the end of the input (Ctrl-D), or Ctrl-C at the prompt. Ctrl-C while an answer is
          being written stops that answer only.
"""
import math
import sys
from collections import Counter
from dataclasses import dataclass

from .. import adapt
from ..lab.arms import lacking
from ..lab.page_model import names_of
from ..lora import METHODS
from ..machine.text import cut_note, first_line, one_line, printable
from .options import UNMIXABLE

COMMANDS = {
    "/expert NAME": "this expert answers; without a name: list those that are there",
    "/mix NAME=ALPHA ...": "a mixture answers, such as /mix math=0.5 code=0.5",
    "/base": "the base model answers",
    "/auto": "the first pass chooses for each message, or what --strategy says",
    "/help": "this list",
    "/quit": "end (or Ctrl-D)"}
LONGEST = 1 << 18               # characters of a line that are read: more than any context holds
MOST = 1 << 24                  # characters of all questions that are answered in one batch
WELCOME = "Each message stands alone: earlier ones are not remembered. /help lists the commands."


@dataclass
class Way:
    """Who answers. name: as it is shown; expert: None (the first pass chooses), "none" or z."""
    name: str = "auto"
    expert: object = None


class Chat:
    """One conversation with a model. settings: strategy, max_tokens, temperature, seed of
    adapt.answer."""

    def __init__(self, model, tokenizer, shelf, **settings):
        self.model, self.tokenizer, self.shelf = model, tokenizer, shelf
        self.settings = settings
        self.way = Way()

    def run(self):
        """Until the input ends. ValueError at its end, so that a program that sent the lines sees
        it, where some of them failed; and at a line without an end."""
        terminal, failed = sys.stdin.isatty(), 0
        if terminal:
            line_editing()
            print(WELCOME)
        for line in lines(terminal):
            if line.split()[0] == "/quit":
                break
            try:
                self.take(line)
            except KeyboardInterrupt:
                if not terminal:                    # whoever piped the messages stops all of them
                    raise
                print(" [stopped]", flush=True)     # this answer only
            except (ValueError, OSError, RuntimeError) as e:    # torch's: no memory, say
                if isinstance(e, BrokenPipeError):
                    raise
                text = first_line(e) if isinstance(e, RuntimeError) else e
                if not line.startswith("/"):
                    print("[no answer]", flush=True)        # its line ends, so lines still match
                print(f"t2mini: {one_line(text)}", file=sys.stderr, flush=True)
                failed += 1
        if failed and not terminal:
            raise ValueError(f"{failed} of the lines had no answer, as told above")

    def take(self, line):
        """One line: a command or a message."""
        if line.startswith("/"):
            self.command(*line.split())
        else:
            self.answer(line)

    # --- messages ---
    def answer(self, message):
        """Show where a message goes, and its answer while it is being written."""
        counts = Counter()
        if self.way.expert is not None or self.settings["strategy"] not in ("classifier", "prompt"):
            self.show_name(self.way.name)
        [said] = adapt.answer(self.model, self.tokenizer, [message], experts=self.shelf,
                              expert=self.way.expert, counts=counts, on_text=show_piece,
                              on_route=self.show_route, **self.settings)
        print(flush=True)
        if counts["cut"]:
            note = cut_note(1, 1, self.settings["max_tokens"], said.answer)
            print(note, file=sys.stderr, flush=True)

    def show_route(self, routes):
        """The label that the first pass gave, and how sure it was."""
        [route] = routes
        if route.readable:
            lacks = bool(lacking([route.label], self.shelf))
            self.show_name(f"{route.label} {100 * route.probabilities[route.label]:.0f}%"
                           + ", which has no expert: the base model" * lacks)
        else:
            self.show_name(f"other: the first pass said {route.said!r}, which is no label")

    def show_name(self, name):
        if name == "auto":                          # a strategy without a first pass
            name = self.settings["strategy"]
        print(one_line(f"[{name}] "), end="", flush=True)

    # --- commands ---
    def command(self, word, *rest):
        """Do what a command says. ValueError where it is none, or its words are wrong."""
        if word == "/help":
            print("\n".join(f"  {name:<20} {text}" for name, text in COMMANDS.items()), flush=True)
        elif word == "/expert" and not rest:
            there = ", ".join(names_of(self.model, self.shelf, (*METHODS,)))
            print(one_line(f"there are: {there}"), flush=True)
        elif word == "/expert" and len(rest) == 1:
            self.use(self.named(rest[0]))
        elif word == "/mix" and rest:
            self.use(self.mixture(rest))
        elif word == "/base" and not rest:
            self.use(Way("base", "none"))
        elif word == "/auto" and not rest:
            self.use(Way())
        else:
            usage = [name for name in COMMANDS if name.split()[0] == word]
            raise ValueError(f"the command is {usage[0]}" if usage else
                             f"there is no command {word[:40]!r}; /help lists them")

    def named(self, name):
        """The Way of an expert's name, or of "none"."""
        return Way(name, "none" if name == "none" else self.shelf[name])

    def use(self, way):
        """Let this Way answer from now on, and say who that is."""
        self.way = way
        who = f"{way.name} answers"
        if way.expert is None:                              # as the strategy of the start says
            auto = {"none": "the base model answers", "cem": "the mixture answers"}
            who = auto.get(self.settings["strategy"], "the first pass chooses again")
        print(one_line(f"from now on: {who}"), flush=True)

    def mixture(self, words):
        """NAME=ALPHA ... -> Way. ValueError for what is no finite number, or a name without one."""
        alphas = {}
        for word in words:
            name, _, text = word.partition("=")
            if name in alphas:
                raise ValueError(f"/mix names {name[:40]!r} twice")
            try:
                alphas[name] = float(text)
            except ValueError:
                alphas[name] = math.nan
            if not name or not abs(alphas[name]) < 100:         # nan is below nothing
                raise ValueError(f"/mix takes words such as math=0.5, not {word[:40]!r}")
        found = [self.shelf[name] for name in alphas]
        if len(found) > 1 and any(z.dim() > 1 for z in found[0].values()):
            raise ValueError(UNMIXABLE)
        mixed = adapt.mixture(found, list(alphas.values()))
        told = ", ".join(f"{a:g} {name}" for name, a in alphas.items())
        return Way(f"mixture of {told}", mixed)


def lines(terminal):
    """The lines of the input that are not empty, until it ends; Ctrl-C at the prompt ends it."""
    while True:
        try:
            line = input("> ") if terminal else short_line(sys.stdin)
        except (EOFError, KeyboardInterrupt) as e:
            if not terminal and isinstance(e, KeyboardInterrupt):
                raise
            print()
            return
        if not terminal and not line:
            return
        if line.strip():
            yield line.strip()


def questions(stream):
    """The lines of a stream that are not empty. ValueError where a line, or all of them, are
    longer than what is ever answered: without an end they would fill the memory."""
    asked, size = [], 0
    while line := short_line(stream):
        size += len(line)
        if size > MOST:
            raise ValueError(f"the questions have more than {MOST:,} characters; ask fewer at once")
        if line.strip():
            asked.append(line.strip())
    return asked


def short_line(stream):
    """The next line of a stream, "" at its end. ValueError for one of more than LONGEST characters,
    of which no more is read."""
    line = stream.readline(LONGEST + 2)
    if len(line.rstrip("\n")) > LONGEST:
        raise ValueError(f"a question of more than {LONGEST:,} characters is too long; shorten it")
    return line


def line_editing():
    """Arrow keys and earlier lines at the prompt, where Python was built with them."""
    try:
        import readline     # noqa: F401
    except ImportError:
        pass


def show_piece(i, piece):
    print(printable(piece), end="", flush=True)

"""
The options of every verb: each is described once, and a default that belongs to an algorithm is
read from there.

Unknown options stop the run and name the nearest one; prefixes are not guessed.
"""
import argparse
import difflib
import os
from dataclasses import fields

from .. import adapt, lora, recipe, svf, tasks
from ..lab import arms
from ..machine import settings
from ..machine.text import one_line
from ..questions import published
from ..sight import captions as stage_one

PROGRAM = "python -m t2mini"


class Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the lines of the examples, and shows a default where there is one."""

    def _get_help_string(self, action):
        default = action.default
        if default is None or default is False or default == "" or "default" in action.help:
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse that names the nearest option, and never guesses from a prefix."""

    def __init__(self, **kw):
        super().__init__(**kw, allow_abbrev=False, formatter_class=Help)

    def parse_known_args(self, args=None, namespace=None):
        self.words = args or ()                             # those of this verb, for `error`
        return super().parse_known_args(args, namespace)

    def error(self, message):
        """One line on stderr, and exit status 2. An option that nobody knows is named even where
        another one is missing."""
        if message.startswith("the following arguments are required"):
            for word in self.words:                         # it may be there, misspelt
                name = word.split("=")[0]
                if name.startswith("--") and name not in ("--", *self._option_string_actions):
                    self.unknown(word)
            hints = [self.without_option(w) for w in self.words if not w.startswith("-")]
            message = "; ".join([message, *[hint for hint in hints if hint][:1]])
        text = one_line(message.removeprefix("argument "), 400)
        self.exit(2, f"t2mini: {text}\n")

    def unknown(self, word):
        """Stop because of an option nobody knows, naming the nearest one, or a word too many."""
        if not word.startswith("-"):
            hint = " (several questions stand side by side)" * self.prog.endswith(" ask")
            self.error(self.without_option(word)
                       or f"{word!r:.80} has no place here; see --help{hint}")
        word = word.split("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        if word in known:
            self.error(f"{word} stands behind the verb: python -m t2mini VERB {word} ...")
        near = difflib.get_close_matches(word, known, 1)
        meant = f"did you mean {near[0]}?" if near else "see --help"
        self.error(f"unknown option {word}; {self.without_option(word) or meant}")

    def without_option(self, word):
        """'did you mean --task=mine.jsonl?' of a word whose option was forgotten, or ''."""
        kinds = {"--task": word.endswith(".jsonl") or word in (*tasks.BUILT_IN, *published.SETS),
                 "--expert": word.endswith(".safetensors")}
        for option, fits in kinds.items():
            if fits and option in self._option_string_actions:
                return f"did you mean {option}={word}?"
        return ""


class Once(argparse.Action):
    """An option whose second value would take the first one's place without a word."""

    def __call__(self, parser, args, value, option=None):
        if getattr(args, self.dest) is not None:
            parser.error(f"{option} is given twice, and a question is about one image")
        setattr(args, self.dest, value)


def place(text):
    """A path or name as the user means it: ~ is the home folder, also behind an equals sign."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return os.path.expanduser(text)


def within(kind, low, high):
    """argparse type: an int or a finite float from low to high."""
    def read(text):
        """The number that `text` stands for."""
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:       # nan is in no range
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} from {low} to {high}, not {text!r}")
        return value
    return read


COUNT = within(int, 1, 1_000_000)
TOKENS = within(int, 1, 100_000)
SEED = within(int, 0, 2 ** 31 - 1)


def warmth(text):
    """argparse type: a temperature of sampling."""
    value = within(float, *settings.RANGES["temperature"])(text)
    if 0 < value < settings.COLDEST:
        raise argparse.ArgumentTypeError(f"must be 0 or at least {settings.COLDEST}, not {text!r}")
    return value


def build_parser():
    """-> (parser, {verb: its parser})"""
    parser = Parser(prog=PROGRAM, description="Transformer-Squared: self-adaptive language models.",
                    epilog=f"`{PROGRAM} VERB --help` explains a verb and shows examples.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)
    for name, (text, examples, options) in VERBS.items():
        shown = "".join(f"  {PROGRAM} {name} {line}\n" for line in examples)
        p = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.",
                             epilog=f"examples:\n{shown}" if shown else None)
        for add in options:
            add(p)
    return parser, verbs.choices


# ---------------------------------------------------------------------------------- shared options
def model_options(p):
    """Of every verb that loads a model."""
    p = p.add_argument_group("model and machine")
    p.add_argument("--weights", metavar="PATH", type=place,
                   help=".gguf file, Hugging Face folder or fetched name (default: SmolLM2-135M)")
    p.add_argument("--device", help="cpu, cuda, ... (default: CUDA when present)")
    p.add_argument("--dtype", help="float32, bfloat16 or float16 (default: what the processor or "
                                   "card computes in)")
    p.add_argument("--threads", type=within(int, 1, 256),
                   help="CPU threads (default: one per core; ask, chat, demo and page take fewer "
                        "where other programs are busy)")


def expert_options(p):
    """Of every verb that uses experts on a model."""
    p.add_argument("--allow-other-base", action="store_true",
                   help="load experts of another base model")


def layer_options(p):
    """Which layers get their z as a whole."""
    p.add_argument("--modules", default=svf.ALL, help="which matrices get a z")
    p.add_argument("--layers", choices=("all", "half"), default="all", help=TRAIN_HELP["layers"])


def code_options(p):
    """Of every verb that may judge programs."""
    p.add_argument("--allow-code", action="store_true",
                   help="agree, once, that programs which the model writes run here in a sandbox")


def data_options(p):
    """Where published questions are."""
    p.add_argument("--data", metavar="DIR", default=os.environ.get("T2MINI_DATA") or None,
                   type=place,
                   help="folder with the published questions (see `datasets`); or T2MINI_DATA")


def sight_options(p):
    """Of every verb that may meet an image."""
    p.add_argument("--tower", metavar="PATH", type=place,
                   help="the tower that sees images (default: the shipped one of the model)")


def json_options(p):
    """For programs that read the output."""
    p.add_argument("--json", action="store_true",
                   help="print one line of JSON at the end, an object (of `datasets` a list)")


# ---------------------------------------------------------------------------------- verbs
def download_options(p):
    p.add_argument("name", nargs="?", default="smollm2-135m-instruct",
                   help="which model; a wrong name lists them")


def sampling_options(p):
    """How answers to questions of one's own are written."""
    p.add_argument("--max-tokens", type=TOKENS, default=128, help="longest answer")
    p.add_argument("--temperature", type=warmth, default=0.0,
                   help="0, the default, always takes the likeliest token")
    p.add_argument("--seed", type=SEED, default=0, help="of sampling (default: 0)")


def ask_options(p):
    """What `ask` reads beside the shared options."""
    p.add_argument("question", nargs="+", help="in quotes; several are answered in one batch; "
                   "- reads questions from standard input, one per line")
    p.add_argument("--image", metavar="FILE", type=place, action=Once,
                   help="a PNG file that the questions are about; the vision expert answers, "
                        "without a first pass, unless --strategy or --expert says otherwise")
    p.add_argument("--strategy", choices=adapt.STRATEGIES,
                   help=f"{STRATEGY.format(FOUND)} (default: classifier; none with --image)")
    p.add_argument("--expert", metavar="NAME|PATH|none", type=place,
                   help=f"this expert answers, without a first pass: {EXPERT}")
    sampling_options(p)


def chat_options(p):
    """What `chat` reads beside the shared options."""
    p.add_argument("--strategy", choices=adapt.STRATEGIES,
                   help=f"{STRATEGY.format(FOUND)} (default: classifier)")
    p.add_argument("--expert", metavar="NAME|PATH|none", type=place,
                   help="this expert answers from the start, until a command says otherwise: "
                        + EXPERT)
    sampling_options(p)


def eval_options(p):
    """What `eval` reads beside the shared options."""
    p.add_argument("--task", required=True, type=place, help=TASK)
    p.add_argument("--expert", default="none", metavar="NAME|PATH|none", type=place,
                   help=f"this expert answers, without a first pass: {EXPERT}")
    p.add_argument("--strategy", choices=adapt.STRATEGIES,
                   help=f"instead of --expert; {STRATEGY.format(SEARCHED)}")
    p.add_argument("--alpha", metavar="A,B,C",
                   help="a fixed mixture of the math, code and reasoning experts instead")
    p.add_argument("--n", type=COUNT, default=200,
                   help="examples; more than there are: all of a published set")
    p.add_argument("--max-tokens", type=TOKENS,
                   help="longest answer (default: the task's own limit)")
    p.add_argument("--split", choices=("train", "val", "test", "all"), default="test",
                   help="which examples; all: every row of a file of yours that no training read")
    p.add_argument("--seed", type=SEED, default=0,
                   help="which examples of the split (and, for cem, which shots)")
    p.add_argument("--choose", action="store_true",
                   help="take the likeliest of a question's options, and write nothing")
    p.add_argument("--samples-file", metavar="PATH", type=place,
                   help="write every question, answer and reward as JSON lines")


def adapt_options(p):
    """What `adapt` reads beside the shared options."""
    p.add_argument("--task", required=True, type=place, help=TASK)
    p.add_argument("--by", choices=("accuracy", "likelihood", "gradient", "first-pass"),
                   default="accuracy",
                   help="what a mixture is judged by: the share of shots that are right, or the "
                        "likelihood of their gold answers (both by search), or the gradient of the "
                        "reward of sampled answers, without a search; first-pass: the shots decide "
                        "how far to go to the experts that the first pass names (chapter 08)")
    p.add_argument("--experts", default=",".join(adapt.MIXED), help="what to mix, comma-separated")
    p.add_argument("--shots", type=within(int, 1, 1000), default=10,
                   help="solved examples (val split)")
    p.add_argument("--iterations", type=within(int, 1, 1000),
                   help="of the search, or steps along the gradient (default: 6, or 15 steps)")
    p.add_argument("--population", type=within(int, 2, 1000),
                   help=f"mixtures tried per iteration (default: {arms.POPULATION}); along the "
                        "gradient there is one")
    p.add_argument("--per-matrix", action="store_true",
                   help="one alpha per expert and matrix instead of per expert")
    p.add_argument("--max-tokens", type=TOKENS,
                   help="longest answer (default: the task's own limit)")
    p.add_argument("--normalise", action="store_true", help="divide each alpha by their sum")
    p.add_argument("--n", type=COUNT, default=200, help="unseen examples to score on (test split)")
    p.add_argument("--seed", type=SEED, default=0, help="of the shots, the search and the examples")
    p.add_argument("--out", metavar="PATH", type=place,
                   help="where the mixture goes (default: out/mixture.safetensors)")


def show_options(p):
    p.add_argument("expert", metavar="NAME|PATH", type=place,
                   help="out/NAME.safetensors, else the shipped one; or the PATH of its file")
    p.add_argument("--picture", metavar="PATH", type=place,
                   help="where to draw it (default: out/EXPERT.png)")


def export_options(p):
    p.add_argument("--expert", required=True, metavar="NAME|PATH|none", type=place,
                   help=f"this expert is merged: {EXPERT}")
    p.add_argument("--out", required=True, metavar="DIR", type=place, help="a new folder")


def reproduce_options(p):
    """What `reproduce` reads beside the shared options."""
    p.add_argument("name", help="which one; `all` lists them with the minutes each takes")
    p.add_argument("--quick", action="store_true",
                   help="two updates and a few questions, to see that it runs; kept apart")
    p.add_argument("--draw", action="store_true",
                   help="only draw the picture and print the table again, from the results file")
    p.add_argument("--only", metavar="TEXT", default="",
                   help="run only cells whose task, arm and seed hold this text, such as mixed")
    p.add_argument("--against", metavar="ARM",
                   help="with --draw: what each arm is above this one, not above the first; "
                        "\"TASK, ARM\" compares other forms of the same questions with it")
    p.add_argument("--out", metavar="DIR", type=place,
                   help="write here instead of tutorials/results and tutorials/figures")


def page_options(p):
    p.add_argument("--port", type=within(int, 0, 65535), default=8000,
                   help="of the address 127.0.0.1, which only this machine reaches; 0: a free one")


def see_options(p):
    """What `see` reads beside the shared options."""
    first = stage_one.StageOne()
    p.add_argument("--word-steps", type=COUNT, default=first.word_steps,
                   help="steps that draw image tokens to the words of the caption")
    p.add_argument("--chat-steps", type=COUNT, default=first.chat_steps,
                   help="steps on captions and yes/no questions, through the language model")
    p.add_argument("--lr", type=within(float, 1e-9, 1), default=first.lr,
                   help="learning rate of the word steps")
    p.add_argument("--chat-lr", type=within(float, 1e-9, 1), default=first.chat_lr,
                   help="learning rate of the chat steps")
    p.add_argument("--seed", type=SEED, default=first.seed,
                   help="of the tower's start and of the images' order")
    p.add_argument("--out", metavar="PATH", type=place,
                   help="where the tower goes (default: out/tower.safetensors)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint of --out")


def bench_options(p):
    p.add_argument("--repeats", type=within(int, 1, 1000), default=5,
                   help="of each measurement; the slowest ones run half as often")


def train_options(p):
    """One option per field of TrainConfig, in groups: the defaults live there."""
    known = {f.name: f for f in fields(recipe.TrainConfig)}
    for title, names in TRAIN_GROUPS.items():
        group = p.add_argument_group(title)
        for name in names:
            add_field(group, known.pop(name))
    assert not known, f"no group for {known}"
    p.add_argument("--out", metavar="PATH", type=place,
                   help="the expert file (default: out/TASK.safetensors)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint of --out")


def add_field(group, field):
    """The option of one field of TrainConfig."""
    flag = "--" + field.name.replace("_", "-")
    text = TRAIN_HELP[field.name]
    if field.type in (bool, "bool"):
        group.add_argument(flag, action="store_true", help=text)
    elif field.name == "as_released":
        group.add_argument(flag, nargs="?", default="", const="all", metavar="A,B", help=text)
    elif field.name == "task":
        group.add_argument(flag, type=place, default=field.default, help=text)
    else:
        group.add_argument(flag, type=type(field.default), default=field.default,
                           choices=CHOICES.get(field.name), help=text)


# ---------------------------------------------------------------------------------- words
TASK = (f"{', '.join(tasks.BUILT_IN)}; published, with --data: {', '.join(published.SETS)}; or a "
        ".jsonl file of yours")
STRATEGY = ("who decides which expert a question gets: classifier (a trained dispatcher), prompt "
            "(the base model is asked), cem (nobody: all get {}), none (nobody: all get the base "
            "model)")
FOUND = "the mixture that `adapt` found"
SEARCHED = "a mixture that is searched now, on ten val examples; --expert=mixture is `adapt`'s"
EXPERT = ("NAME (out/NAME.safetensors, else the shipped one), the PATH of its file, or none: the "
          "base model")
CHOICES = {**settings.CHOICES, "method": tuple(lora.METHODS)}
TRAIN_GROUPS = {
    "what is learnt": ("task", "objective", "start", "wrong", "must_stop", "max_tokens", "steps",
                       "seed"),
    "each update": ("prompts", "samples", "temperature", "baseline", "lr", "kl", "clip"),
    "what is trained": ("method", "modules", "layers", "tie", "rank", "lora_alpha"),
    "which update is kept": ("val_every", "val_n", "patience"),
    "to compare": ("as_released",)}
TRAIN_HELP = {
    "task": TASK, "steps": "updates", "prompts": "questions per update",
    "samples": "answers per question",
    "baseline": "mean reward of the question's answers (group) or of the whole update (batch), or "
                "nothing (none)",
    "objective": "earn rewards with sampled answers, or with answers drawn among the question's "
                 "options, or imitate gold ones (the `solution` of a row of yours)",
    "start": "go on from this expert, NAME or PATH, instead of the base model; --kl still pulls to "
             "the base model",
    "tie": "SVF: one z for a whole matrix, block (layer) or kind of matrix (module)",
    "temperature": "of sampling and scoring; with --objective=options, of the draw alone",
    "max_tokens": "longest answer of an update (0: the task's own limit), and of validation on a "
                  "file of yours, or of published questions where their own limit is shorter",
    "must_stop": "an answer that was cut off earns nothing",
    "wrong": "what a wrong answer earns, 0 (the default) or less; under --baseline=group and batch "
             "it only scales all advantages alike",
    "lr": "learning rate of z",
    "kl": "lambda of equation 1: pull towards the base model (default: 0, none)",
    "clip": "largest gradient norm",
    "method": "what is trained: z (svf), or LoRA or IA3, two other ways to change a model by few "
              "numbers, to compare",
    "rank": "of LoRA", "lora_alpha": "LoRA's change is B A alpha / rank",
    "modules": "which matrices are changed (default: of z all seven kinds)",
    "layers": "which blocks: all or half (every second one)",
    "seed": "of data and sampling (default: 0)", "val_every": "updates between validations",
    "val_n": "validation questions",
    "patience": "stop after so many validations without a new best",
    "as_released": "the released code's choices, to compare: "
                   f"{', '.join(recipe.RELEASED)}; nothing named: all"}

UNMIXABLE = ("experts of several methods, or of LoRA, cannot be mixed here: give experts of z "
             "(svf) or of IA3, or a single one of LoRA")

MODEL = (model_options, expert_options)
VERBS = {   # name: (what it does, examples, what adds its options)
    "download": ("fetch open weights into weights/", ("", "qwen2.5-coder-0.5b"),
                 (download_options,)),
    "datasets": ("list published questions: where they are, and what of them is in --data",
                 ("--data=DIR",), (data_options, json_options)),
    "ask": ("answer a question, or several, in two passes",
            ('"Raj plays 9 games every week. How many games does Raj play in 4 weeks?"',
             '--expert=none "What is the capital of France?"',
             '--image=tutorials/figures/shape.png "what color is the shape?"'),
            (ask_options, *MODEL, sight_options, layer_options, json_options)),
    "chat": ("answer messages at a prompt that stays; each message stands alone, earlier ones are "
             "not remembered; /help there lists the commands",
             ("", "--expert=math", "--max-tokens=256 < messages.txt"),
             (chat_options, *MODEL, layer_options)),
    "train": ("train an expert with REINFORCE",
              ("--task=math --max-tokens=96 --must-stop --prompts=32 --samples=8 --steps=200",
               "--task=mine.jsonl --max-tokens=16 --must-stop --lr=1e-3 --temperature=1.0"),
              (train_options, model_options, sight_options, code_options, data_options,
               json_options)),
    "eval": ("measure the accuracy on a split",
             ("--task=math --expert=math --n=400", "--task=math-unseen --strategy=classifier"),
             (eval_options, *MODEL, sight_options, layer_options, code_options, data_options,
              json_options)),
    "adapt": ("search a mixture of experts on a few examples, then score it",
              ("--task=math-unseen", "--task=mine.jsonl --experts=math,mine --shots=20"),
              (adapt_options, *MODEL, sight_options, layer_options, code_options, data_options,
               json_options)),
    "see": ("train the tower that turns images into image tokens (stage one)", ("--data=DIR",),
            (see_options, model_options, data_options, json_options)),
    "show": ("print and draw what an expert is: metadata, z per layer and module",
             ("math", "out/mine.safetensors --picture=mine.png"), (show_options,)),
    "export": ("write merged weights, which other tools read, and an adapter folder for SVF",
               ("--expert=math --out=merged",), (export_options, *MODEL)),
    "reproduce": ("run one experiment: its numbers as JSON and its picture",
                  ("all", "finetune --quick", "finetune --draw --against=lora"),
                  (reproduce_options, model_options, sight_options, code_options, data_options)),
    "bench": ("time every part, beside this machine's limits", ("--json",),
              (bench_options, model_options, layer_options, json_options)),
    "demo": ("show two-pass adaptation on built-in questions", ("--allow-code",),
             (*MODEL, layer_options, code_options)),
    "page": ("serve a page on which one turns the dials, for this machine alone",
             ("", "--port=8080 --weights=weights/SmolLM2-135M-Instruct.Q4_1.gguf --threads=2"),
             (page_options, *MODEL, sight_options, layer_options)),
    "doctor": ("tell what this machine offers, what is missing, and the command that mends it",
               ("", "--json"), (json_options,)),
}

"""
The options of every verb, with their help; each default that belongs to an algorithm is read from there.

Unknown options stop the run and name the nearest one; prefixes are not guessed.
"""
import argparse
import difflib
import os
from dataclasses import fields

from .. import adapt, lora, svf
from ..recipe import DEPARTURES, TrainConfig

STRATEGIES = ("classifier", "prompt", "cem", "none")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows a default where there is one."""

    def _get_help_string(self, action):
        return action.help if action.default in (None, False, "") else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """argparse that names the nearest option, and never guesses from a prefix."""

    def __init__(self, **kw):
        super().__init__(**kw, allow_abbrev=False, formatter_class=Help)

    def error(self, message):
        self.exit(2, f"t2mini: {message}\n")

    def unknown(self, word):
        """Stop because of an option nobody knows, naming the nearest one."""
        word = word.split("=")[0]
        near = difflib.get_close_matches(word, [o for a in self._actions for o in a.option_strings], 1)
        self.error(f"unknown option {word}" + (f"; did you mean {near[0]}?" if near else "; see --help"))


def build_parser():
    """-> (parser, {verb: its parser})"""
    parser = Parser(prog="python -m t2mini", description="Transformer-Squared: self-adaptive language models.")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", parser_class=Parser)

    def verb(name, text, model=True, as_json=False, tuned=True, runs_code=False, asks=False):
        """A verb with the options that all verbs with a model share; tuned: it gives layers their z as a whole."""
        p = verbs.add_parser(name, help=text, description=text)
        if model:
            p.add_argument("--weights", metavar="PATH", help=".gguf file or Hugging Face folder (default: the fetched one)")
            p.add_argument("--device", help="cpu, cuda, ... (default: CUDA when present)")
            p.add_argument("--dtype", help="float32 or bfloat16 (default: the faster one here)")
            p.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")
            p.add_argument("--allow-other-base", action="store_true", help="load experts of another base model")
        if model and tuned:
            p.add_argument("--modules", default=svf.ALL, help=HELP["modules"])
            p.add_argument("--layers", choices=("all", "half"), default="all", help=HELP["layers"])
        if runs_code:
            p.add_argument("--allow-code", action="store_true",
                           help="agree, once, that programs which the model writes run here in a sandbox (code tasks)")
        if asks:
            p.add_argument("--data", metavar="DIR", default=os.environ.get("T2MINI_DATA"),
                           help="folder with the published questions, which `datasets` lists; or set T2MINI_DATA")
        if as_json:
            p.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        return p

    p = verb("download", "fetch open weights into weights/", model=False)
    p.add_argument("name", nargs="?", default="smollm2-135m-instruct", help="which model; a wrong name lists them")
    verb("datasets", "published questions: where they are, and what of them is in --data", model=False, as_json=True, asks=True)
    p = verb("ask", "answer a question, or several, in two passes", as_json=True)
    p.add_argument("question", nargs="+", help="in quotes; several are answered in one batch")
    p.add_argument("--strategy", choices=STRATEGIES, default="classifier", help="how the first pass decides")
    p.add_argument("--expert", metavar="NAME|PATH", help="skip the first pass and use this expert")
    p.add_argument("--max-tokens", type=int, default=128, help="longest answer")
    p.add_argument("--temperature", type=float, default=0.0, help="0 always takes the likeliest token")
    p.add_argument("--seed", type=int, default=0, help="of sampling")
    p = verb("train", "train an expert with REINFORCE", as_json=True, tuned=False, runs_code=True, asks=True)
    add_train_options(p)
    p = verb("eval", "accuracy on a split", as_json=True, runs_code=True, asks=True)
    p.add_argument("--task", required=True, help="built-in or published name, or a .jsonl file")
    p.add_argument("--expert", default="none", metavar="NAME|PATH|none", help="use this expert for every question")
    p.add_argument("--strategy", choices=STRATEGIES, help="adapt to each question instead")
    p.add_argument("--alpha", metavar="A,B,C", help="a fixed mixture of the math, code and reasoning experts instead")
    p.add_argument("--n", type=int, default=200, help="examples; more than there are: all of a published set")
    p.add_argument("--split", choices=("train", "val", "test"), default="test", help="which examples")
    p.add_argument("--seed", type=int, default=0, help="which examples of the split (and, for cem, which shots)")
    p.add_argument("--choose", action="store_true", help="take the likeliest of the options that a question lists, and write nothing")
    p.add_argument("--samples-file", metavar="PATH", help="write every question, answer and reward as JSON lines")
    p = verb("adapt", "search a mixture of experts on a few examples, then score it", as_json=True, runs_code=True, asks=True)
    p.add_argument("--task", required=True, help="built-in or published name, or a .jsonl file")
    p.add_argument("--strategy", choices=("cem",), default="cem", help="the search")
    p.add_argument("--experts", default=",".join(adapt.MIXED), help="what to mix, comma-separated")
    p.add_argument("--shots", type=int, default=10, help="solved examples (val split)")
    p.add_argument("--iterations", type=int, default=6, help="of the search")
    p.add_argument("--population", type=int, default=16, help="mixtures tried per iteration")
    p.add_argument("--per-matrix", action="store_true", help="one alpha per expert and matrix instead of per expert")
    p.add_argument("--n", type=int, default=200, help="unseen examples to score on (test split)")
    p.add_argument("--seed", type=int, default=0, help="of the shots, the search and the examples")
    p.add_argument("--out", metavar="PATH", help="where the mixture goes (default: out/mixture.safetensors)")
    p = verb("show", "what an expert is: metadata, z per layer and module, a picture", model=False)
    p.add_argument("expert", metavar="EXPERT", help="name or path")
    p.add_argument("--picture", metavar="PATH", help="where to draw it (default: out/EXPERT.png)")
    p = verb("export", "merged weights and an adapter folder that other tools read", tuned=False)
    p.add_argument("--expert", required=True, metavar="NAME|PATH|none", help="what to merge; none exports the base weights")
    p.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    p = verb("reproduce", "one experiment: its numbers as JSON and its picture", tuned=False, runs_code=True, asks=True)
    p.add_argument("name", help="which one; `all` lists them with the minutes each takes")
    p.add_argument("--quick", action="store_true", help="two updates and a few questions, to see that it runs; kept apart")
    p.add_argument("--draw", action="store_true", help="only draw the picture and print the table again, from the results file")
    p.add_argument("--against", metavar="ARM", help="with --draw: what each arm is above this one, not above the first")
    p.add_argument("--out", metavar="DIR", help="write JSON and picture here instead of tutorials/results and tutorials/figures")
    p = verb("bench", "speed of every part, beside this machine's limits", as_json=True)
    p.add_argument("--repeats", type=int, default=5, help="of each measurement; the slowest ones run half as often")
    verb("demo", "two-pass adaptation on built-in questions", runs_code=True)
    verb("doctor", "what this machine offers, what is missing, and the command that mends it", model=False, as_json=True)
    return parser, verbs.choices


def add_train_options(p):
    """One option per field of TrainConfig: the defaults live there."""
    for f in fields(TrainConfig):
        flag = "--" + f.name.replace("_", "-")
        if f.type in (bool, "bool"):
            p.add_argument(flag, action="store_true", help=HELP[f.name])
        elif f.name == "as_released":
            p.add_argument(flag, nargs="?", default="", const="all", metavar="A,B", help=HELP[f.name])
        else:
            p.add_argument(flag, type=type(f.default), default=f.default, choices=CHOICES.get(f.name), help=HELP[f.name])
    p.add_argument("--out", metavar="PATH", help="the expert file (default: out/TASK.safetensors)")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint of --out")


CHOICES = {"method": tuple(lora.METHODS), "baseline": ("group", "batch", "none"), "objective": ("reward", "options", "next-token"),
           "tie": ("none", "matrix", "layer", "module")}
HELP = {"task": "built-in or published name, or a .jsonl file", "steps": "updates", "prompts": "questions per update",
        "samples": "answers per question",
        "baseline": "mean reward of the question's answers (group) or of the whole update (batch), or nothing (none)",
        "objective": "earn rewards with sampled answers, or with answers drawn among the question's options, or imitate gold ones",
        "tie": "SVF: one z for a whole matrix, block (layer) or kind of matrix (module)",
        "temperature": "of sampling and scoring; with --objective=options, of the draw alone",
        "max_tokens": "longest written answer (0: the task's own limit)",
        "must_stop": "an answer that was cut off earns nothing",
        "lr": "learning rate of z", "kl": "lambda of equation 1: pull towards the base model", "clip": "largest gradient norm",
        "method": "what is trained: z (svf), or a baseline",
        "rank": "of LoRA", "lora_alpha": "LoRA's change is B A alpha / rank",
        "modules": "which matrices get a z", "layers": "which blocks: all or half (every second one)",
        "seed": "of data and sampling", "val_every": "updates between validations",
        "val_n": "validation questions", "patience": "stop after so many validations without a new best",
        "as_released": f"the released code's choices, to compare: {', '.join(DEPARTURES)}; nothing named: all"}

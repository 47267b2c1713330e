"""
What each verb does: read the options, call the library, print what came out.

Every verb takes the parsed options and returns what --json prints. Only this folder knows them as a
namespace; below it, functions have arguments of their own.
"""
import glob
import heapq
import json
import os
import shlex
import sys
import time
from collections import Counter
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

import t2mini

from .. import adapt, evaluate, experts, recipe, svf, tasks, train
from ..formats import download, export, load
from ..lab import arms, bench, demo, doctor, figures, page, page_model, plots, reproduce
from ..machine import checkpoint, cores, files, ranks, settings, shelves
from ..machine.idle import FEW
from ..machine.batches import duration
from ..machine.checkpoint import keeping, stopped
from ..machine.text import cut_note, meant, one_line, printable
from ..questions import easy_vqa, pictures, published, sandbox
from ..sight import captions, towers
from .chat import Chat, questions
from .options import UNMIXABLE


TALKING = ("ask", "chat", "demo", "page")       # their answers are read, not measured


# ------------------------------------------------------------ what verbs share
def open_model(args, text=True, needed=()):
    """Model and tokenizer as the options say, and a line that tells what runs. needed: experts that
    must be there although no option names them."""
    check_experts(args, needed)
    device = ranks.start(args.device)
    take_threads(args)
    started = time.time()
    model, tokenizer = t2mini.load(args.weights, device, args.dtype)
    if hasattr(args, "layers") and args.verb != "train":
        svf.targets(model, args.modules, args.layers)           # a wrong word is told of at once
    if text and tokenizer is None:
        raise ValueError(f"{args.weights} has no tokenizer.json, and `{args.verb}` reads and "
                         "writes text: put the checkpoint's tokenizer.json there")
    if ranks.rank() == 0:
        dtype = str(model.dtype).removeprefix("torch.")
        each = f" in each of {ranks.world()} processes" if ranks.world() > 1 else ""
        threads = torch.get_num_threads()
        threads = f"{threads} thread{'s' * (threads > 1)}"
        print(f"{one_line(model.name)}, {dtype} on {model.device}, {threads}{each}, "
              f"ready in {time.time() - started:.1f} s", file=sys.stderr)
    return model, tokenizer


def check_experts(args, needed):
    """FileNotFoundError or ValueError before the model loads, where one of its experts is nowhere
    or its file is none, or those to be mixed cannot be."""
    base = SimpleNamespace(name=load.model_name(download.locate(args.weights)))
    methods = Counter()
    for name in filter(lambda name: name != "none", [*named(args), *needed]):
        try:
            method = experts.read_metadata(experts.find(name, base)).get("method", "svf")
        except FileNotFoundError:
            load.open_checkpoint(args.weights)      # weights that are none are told of first
            raise
        if name != "dispatcher":                    # which is mixed with none
            methods[method] += 1
    several = len(methods) > 1                      # of which `eval` names the odd one out
    mixes = args.verb == "adapt" or len(needed) > 1 and not several
    if mixes and (several or methods["lora"] > 1):
        raise ValueError(UNMIXABLE)


def named(args):
    """The experts that the options name or ask for: names, paths or "none"."""
    given = [getattr(args, "expert", None), *(getattr(args, "experts", None) or "").split(","),
             getattr(args, "start", None)]
    if getattr(args, "by", None) == "first-pass":           # which the dispatcher makes
        given.append("dispatcher")
    return [name for name in given if name]


def open_task_model(args, task, needed=()):
    """Model and tokenizer, with an eye where the task's questions are about images."""
    if args.tower and task.skill != "vision":
        raise ValueError(f"--tower is about images, and the questions of {task.name} have none")
    model, tokenizer = open_model(args, needed=needed)
    if task.skill == "vision":
        towers.open_eye(model, tokenizer, args.tower)
    return model, tokenizer


def take_threads(args):
    """As many threads as the options say. Beside busy programs: fewer than torch's choice for verbs
    that talk; the others, whose numbers must not depend on the load, say what would help."""
    if args.threads:
        torch.set_num_threads(args.threads)
    usual = torch.get_num_threads()
    chosen = args.threads or os.environ.get("OMP_NUM_THREADS")
    gpu = torch.cuda.is_available() and args.device != "cpu"
    if chosen or usual == 1 or gpu or ranks.world() > 1:
        return
    got = cores.free(usual)
    better = cores.advised(usual, got)
    if better == usual:
        return
    busy = f"this machine is busy: {usual} threads get {got:.1f} cores and wait for each other"
    if args.verb in TALKING:
        torch.set_num_threads(better)
        print(f"{busy}, so {better} is taken (--threads)", file=sys.stderr)
    else:
        print(f"{busy}; --threads={better} may be faster", file=sys.stderr)


def tell_of_yours(model):
    """Say which experts in out/ are taken for the shipped ones of their names."""
    used = shelves.instead(model, experts.OUT, experts.SHIPPED / model.name)
    if used and ranks.rank() == 0:
        print(one_line(f"from {experts.OUT}, instead of the shipped: {', '.join(used)}"),
              file=sys.stderr)


def shelf(args, model):
    """The experts of the model, in layers as --modules and --layers say; and a line that tells
    which of yours stand for shipped ones."""
    mixes = getattr(args, "strategy", None) not in (None, "none") or getattr(args, "alpha", None)
    if mixes or named(args) != ["none"]:
        tell_of_yours(model)
    return experts.Shelf(model, args.allow_other_base, args.modules, args.layers)


def inputs(args):
    """The paths of everything that the command reads: no output may be one of them."""
    task = getattr(args, "task", None)
    read = [download.locate(args.weights), getattr(args, "tower", None)]
    data = getattr(args, "data", None)
    if data and (task is None or task in published.SETS):
        read += questions_in(data)
    if task and task.endswith(".jsonl"):                    # not a name, which a folder may have
        read.append(task)
    for name in named(args):
        if name.endswith(".safetensors"):
            read.append(name)
        read += [experts.OUT / f"{name}.safetensors",
                 *experts.SHIPPED.glob(f"*/{name}.safetensors")]
    return [path for path in read if path and (Path(path).suffix or Path(path).is_dir())]


def questions_in(data):
    """What is read of --data: all that is in the folder; where out/ lies in it, too, the published
    files alone."""
    if not experts.OUT.resolve().is_relative_to(Path(data).resolve()):
        return [data]
    return [published.locate(data, file) for known in published.SETS.values()
            for file in known.files]


def claim(args, path, kind):
    """The path of an output: nothing that the command reads, of its own kind, and writable."""
    return files.claim(path, kind, inputs(args))


def agree(allow_code, runs_code=True):
    """Model-written programs run only for a user who has agreed, once; a file in out/ remembers."""
    agreed = experts.OUT / "allow-code"
    if allow_code:
        try:
            agreed.parent.mkdir(parents=True, exist_ok=True)
            agreed.touch()
        except OSError as e:                                # of a read-only installation
            print(one_line(f"the agreement is not kept, so give --allow-code each time: {e}"),
                  file=sys.stderr)
    elif runs_code and not agreed.exists():
        raise ValueError("this judges answers by running programs that the model writes, in a "
                         "sandbox (t2mini/questions/sandbox.py says what it guards against); "
                         "add --allow-code, once, to agree")
    if runs_code:
        sandbox.check_locks()                               # not after the model has answered


def numbers(text, count):
    """'0.5,0.5,0' -> [0.5, 0.5, 0.0]; ValueError where these are not `count` finite numbers."""
    try:
        found = [float(t) for t in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count or not all(abs(v) < 100 for v in found):
        raise ValueError(f"--alpha must be {count} numbers such as 0.3,0.3,0.4, not {text!r}")
    return found


# ------------------------------------------------------------ verbs of questions
NEEDED = {"classifier": ["dispatcher"], "cem": ["mixture"]}     # experts, of strategies


def ask(args):
    """One question is streamed; several are answered in one batch, each by its own expert."""
    asked = args.question
    if len(asked) > 1 and not any(" " in question for question in asked):
        print(f"{len(asked)} questions of one word each; put one of several words in quotes",
              file=sys.stderr)
    if asked == ["-"]:
        asked = questions(opened_input())
    elif "-" in asked:
        raise ValueError("- reads the questions from standard input, and stands alone")
    if not asked or not all(q.strip() for q in asked):      # before the model is loaded
        raise ValueError("the question is empty")
    strategy, expert, image = who_answers(args)
    if args.tower and image is None:
        raise ValueError("--tower is about images: add --image=FILE")
    model, tokenizer = open_model(args, needed=NEEDED.get(strategy, ()) if expert is None
                                  else [expert])
    if image is not None:
        towers.open_eye(model, tokenizer, args.tower)
        asked = [pictures.Seen(question, image) for question in asked]
    alone = len(asked) == 1

    def on_text(i, piece):
        print(printable(piece), end="", flush=True)

    counts = Counter()
    there = shelf(args, model)
    found = adapt.answer(
        model, tokenizer, asked, strategy, there, expert,
        args.max_tokens, temperature=args.temperature, seed=args.seed,
        title="" if alone else "second pass", on_route=partial(print_routes, there), counts=counts,
        on_text=on_text if alone and not args.json else None)

    missing = arms.lacking([a.route for a in found], there)
    wrote = ["none" if a.route in missing else a.route for a in found]
    if alone:
        print(printable(found[0].answer) if args.json else "")
    else:
        for a, who in zip(found, wrote):
            to = a.route if who == a.route else f"{a.route}, which has no expert: the base model"
            asked_for = a.question if len(a.question) < 2000 else a.question[:2000] + " ..."
            print(printable(f"\n{asked_for}\n  [{to}] {a.answer}"))
    if counts["cut"]:
        note = cut_note(counts["cut"], len(asked), args.max_tokens, found[-1].answer)
        print(note, file=sys.stderr)
    rows = [{"question": a.question, "expert": who, "probabilities": a.probabilities,
             "answer": a.answer} for a, who in zip(found, wrote)]
    told = rows[0] if alone else {"answers": rows}
    done = how(strategy, expert)
    if missing:
        done += f"; the base model where it chose {', '.join(missing)}, which has no expert"
    return {**told, "strategy": strategy if expert is None else None, "how": done,
            "seed": args.seed, "base_sha256": model.base_sha256}


def opened_input():
    """Standard input. ValueError where who started us has closed it (`<&-`): nothing can be asked,
    and an empty input would look like a success."""
    if sys.stdin is None:
        raise ValueError("standard input is closed, so there is no question to read")
    return sys.stdin


def who_answers(args):
    """-> (strategy, expert, pixels of the image or None), as `ask` was told. A dispatcher reads
    words: who shows an image gets the vision expert, unless asking for a first pass."""
    check_one(args)
    image = pictures.read_png(args.image) if args.image else None
    expert = args.expert
    if image is not None and not args.strategy:
        expert = expert or "vision"
    return args.strategy or "classifier", expert, image


def check_one(args):
    """ValueError where two options say who answers."""
    if args.expert and args.strategy:
        raise ValueError("give one of --expert and --strategy, not both")


def how(strategy, expert):
    """What was done with a question, in words."""
    alone = {"cem": "mixture", "none": "none"}              # the strategies without a first pass
    if expert is None and strategy not in alone:
        return f"the expert that the first pass chose ({strategy})"
    who = expert or alone[strategy]
    called = {"none": "the base model", "mixture": "the mixture"}
    return f"{called.get(who, f'the {who} expert')}, without a first pass"


def print_routes(there, routes):
    """What the first pass found out, on stderr; of several questions with their number. there: the
    experts of the model."""
    for i, r in enumerate(routes, 1):
        which = f" of question {i}" if len(routes) > 1 else ""
        shares = "  ".join(f"{label} {100 * p:.0f}%" for label, p in r.probabilities.items())
        doubt = "" if r.readable else f"  unreadable answer {r.said!r}, so no expert"
        if arms.lacking([r.label], there):
            doubt = f"  this model has no {r.label} expert, so the base model answers"
        print(f"first pass{which}: {r.label}  ({shares}){doubt}", file=sys.stderr)


def chat(args):
    """Answer messages until the input ends."""
    opened_input()
    check_one(args)
    strategy = args.strategy or "classifier"
    model, tokenizer = open_model(args, needed=() if args.expert else NEEDED.get(strategy, ()))
    talk = Chat(model, tokenizer, shelf(args, model), strategy=strategy,
                max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed)
    if args.expert:
        talk.way = talk.named(args.expert)
    talk.run()


def eval_(args):
    """Answer a task's examples in one way. -> the score and all that tells how it came about."""
    task = limited(tasks.get(args.task, choose=args.choose), args.max_tokens)
    agree(args.allow_code, task.runs_code)
    if args.choose and args.max_tokens:
        raise ValueError("--choose picks among options, however long: leave --max-tokens away")
    chosen = (args.strategy is not None) + (args.expert != "none") + (args.alpha is not None)
    if chosen > 1:
        raise ValueError("give one of --expert, --strategy and --alpha, not both")
    alpha = None
    if args.alpha is not None:
        alpha = numbers(args.alpha, len(adapt.MIXED))
    if args.strategy == "cem" and args.split in ("val", "all"):
        raise ValueError("--strategy=cem searches on ten val examples, which are in this split; "
                         "take --split=test or train")
    if published.hides_options(args.task) and not args.choose:
        print("note: these questions do not list their options, and few answers will be one; "
              "--choose picks among them", file=sys.stderr)
    examples = task.examples(args.split, args.n, args.seed)
    if args.samples_file:
        args.samples_file = claim(args, args.samples_file, "samples")
    needed = {"classifier": ["dispatcher"], "cem": adapt.MIXED}.get(args.strategy, ())
    model, tokenizer = open_task_model(args, task, needed if alpha is None else adapt.MIXED)
    started = time.time()
    rewards, texts, more = arms.run(model, tokenizer, task, examples, args.strategy, args.expert,
                                    alpha, args.choose, shelf(args, model), args.seed)
    right, n = sum(rewards), len(rewards)
    alone = args.strategy is None and alpha is None
    result = {"task": args.task, "split": args.split, "n": n, "seed": args.seed,
              "expert": args.expert if alone else None, "strategy": args.strategy,
              "choose": args.choose,
              "accuracy": right / n, "ci95": evaluate.wilson(right, n),
              "base_sha256": model.base_sha256, "seconds": round(time.time() - started, 1), **more}
    who = args.strategy or f"expert {args.expert}"
    if alpha:
        who = "mixture of " + " + ".join(f"{a:g} {e}" for e, a in more["alpha"].items())
    choosing = ", choosing" if args.choose else ""
    print(one_line(f"{args.task} {args.split}: {evaluate.percent(right, n)}  "
                   f"({who}{choosing}, {duration(result['seconds'])})"))
    say_cut(task, more["cut"], n)
    say_few(args, n)
    if args.samples_file and ranks.rank() == 0:
        try:
            write_samples(args.samples_file, examples, texts, rewards)
        except (OSError, ValueError) as e:
            args.unwritten = e                              # the score is told all the same
    return result


def say_cut(task, cut, n):
    """A line about the answers that the limit ended; of a quotation nobody reads on."""
    if cut and not task.opener.endswith('"'):
        print(cut_note(cut, n, task.max_tokens))


def say_few(args, n):
    """A line about a score of few questions, and where more of them are."""
    if n >= FEW:
        return
    more = "raise --n, if the task has more"
    if args.task.endswith(".jsonl"):
        more = "give the file more rows"
        if args.verb == "eval" and args.split != "all":
            more += ", or score all rows of a file that no training read with --split=all"
    print(f"only {n} questions: the interval above is what they can say, and two experts are "
          f"hardly told apart on so few; {more}")


def limited(task, max_tokens):
    """The task with another longest answer, where one is given."""
    return replace(task, max_tokens=max_tokens) if max_tokens else task


def write_samples(path, examples, texts, rewards):
    """Every question, answer and reward as JSON lines."""
    with files.replacing(path) as f:
        for e, text, reward in zip(examples, texts, rewards):
            row = {"prompt": e.prompt, "gold": e.answer, "kind": e.kind, "text": text,
                   "reward": reward}
            image = getattr(e.prompt, "image", None)
            if isinstance(image, str):                      # else drawn: the seed tells it
                row["image"] = image
            f.write(json.dumps(row).encode() + b"\n")


def adapt_(args):
    """Search a mixture on a few solved examples, write it, and score it beside the base model."""
    if args.by == "first-pass" and (args.iterations or args.population):
        raise ValueError("--by=first-pass tries six mixtures and no others: leave --iterations "
                         "and --population away")
    if args.by == "gradient" and args.population:
        raise ValueError("--by=gradient follows one mixture: leave --population away")
    task = limited(tasks.get(args.task), args.max_tokens)
    agree(args.allow_code, task.runs_code)
    examples = task.examples("test", args.n, args.seed)
    out = claim(args, args.out or experts.OUT / "mixture.safetensors", "expert")
    names = args.experts.split(",")
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"--experts must be different names, not {args.experts!r}")
    model, tokenizer = open_task_model(args, task)
    shelves.check_replaced(out, model)
    settings.check_room(model, tokenizer, [e.prompt for e in examples], task.opener,
                        task.max_tokens)
    with stopped("the search is lost; fewer --iterations or --shots make it shorter"):
        mixed, found = arms.search(model, tokenizer, task, shelf(args, model), names, args.shots,
                                   args.iterations or 0, args.population or arms.POPULATION,
                                   args.per_matrix, args.seed, args.normalise, args.by)
    print(one_line(f"alpha {found['alpha']}, {100 * found['shots_right']:.0f} % of "
                   f"{found['shots']} shots"))
    if ranks.rank() == 0:                   # what was found is told, should the disk be full
        made = experts.read_metadata(experts.find(names[0], model))
        layers = {}
        if made.get("method", "svf") != "svf":          # z fits the layers of any training
            layers = {key: made[key] for key in ("method", "config")}
        experts.save_expert(out, mixed, {
            **layers,
            "base_model": model.name, "base_sha256": model.base_sha256, "task": args.task,
            "seed": args.seed, "alpha": found["alpha"], "kind": f"mixture by {args.by}"})

    counts = Counter()
    with stopped(f"the mixture is kept in {out}; `eval` with --expert={shlex.quote(str(out))} "
                 "scores it"):
        with svf.using(model, mixed):
            rewards = evaluate.score(model, tokenizer, task, examples, "adapted", counts=counts)
        base = evaluate.score(model, tokenizer, task, examples, title="base")
    gain = evaluate.paired_difference(rewards, base)
    right, n = sum(rewards), len(rewards)
    print(one_line(f"wrote {out}"))
    points = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * g for g in gain))
    print(one_line(f"{args.task} test, adapted: {evaluate.percent(right, n)}; "
                   f"base: {evaluate.percent(sum(base), n)}; gain {points}"))
    say_few(args, n)
    say_cut(task, counts["cut"], n)
    return {"task": args.task, "split": "test", "n": n, "seed": args.seed, "by": args.by,
            "accuracy": right / n, "ci95": evaluate.wilson(right, n), "cut": counts["cut"],
            "base_accuracy": sum(base) / n, "gain": gain, "base_sha256": model.base_sha256, **found}


def demo_(args):
    """Twelve questions with the shipped experts, beside the base model."""
    agree(args.allow_code)
    model, tokenizer = open_model(args, needed=["dispatcher"])
    return demo.run(model, tokenizer, shelf(args, model))


# ------------------------------------------------------------ verbs of experts
def train_(args):
    """Train an expert and write it."""
    if args.start == "none":                # as --expert=none
        args.start = ""
    cfg = recipe.TrainConfig(**{f.name: getattr(args, f.name) for f in fields(recipe.TrainConfig)})
    recipe.settled(cfg)                     # a wrong word stops before the model loads
    task = tasks.get(cfg.task, choose=cfg.objective == "options")
    agree(args.allow_code, task.runs_code)
    out = args.out or experts.OUT / f"{Path(cfg.task).stem}.safetensors"
    out = files.claim_run(out, inputs(args))
    if args.resume:                         # as it began, whatever is usual here
        begun = checkpoint.told(out.with_suffix(".ckpt"))
        args.dtype = args.dtype or begun["dtype"]
    model, tokenizer = open_task_model(args, task)
    talks = ranks.rank() == 0

    def log(text):
        if talks:
            print(printable(text), flush=True)

    if isinstance(task, tasks.ListTask) and not task.runs_code:
        for note in about_solutions(task, cfg, tokenizer):
            log(note)
    elif cfg.objective == "next-token" and cfg.max_tokens and not isinstance(task, tasks.ListTask):
        log("--max-tokens is not used: nothing is sampled, and validation has the task's own limit")
    if cfg.start:
        log(f"going on from {experts.find(cfg.start, model)}")

    with keeping(out, args.resume):
        result = train.train(model, tokenizer, cfg, out, args.resume, experts.SVD_CACHE, log)
    if result["stale"] >= cfg.patience and result["step"] < cfg.steps:
        log(f"stopped after {result['step']} of {cfg.steps} updates: no better validation in the "
            f"last {result['stale']} (see --patience)")
    print(one_line(f"wrote {out}; next: `python -m t2mini {scoring(args, out, task)}` scores it on "
                   "test questions, and "
                   f"`python -m t2mini show {shlex.quote(str(out))}` shows it"))
    shown = out.resolve().parent == experts.OUT.resolve()
    if shown and out.stem in shelves.instead(model, experts.OUT, experts.SHIPPED / model.name):
        print(one_line(f"from now on it is taken for the shipped {out.stem}; remove "
                       f"{out.with_suffix('.*')} to have that back"))
    return result


def about_solutions(task, cfg, tokenizer):
    """What there is to say of the solutions of a task's train questions before they are copied, or
    left alone. -> list of lines."""
    asked = task.examples("train", sys.maxsize)
    rows = [e for e in asked if e.solution]
    if cfg.objective != "next-token":
        if not rows or cfg.task in published.SETS:
            return []
        return ["note: rewards do not look at `solution`; --objective=next-token copies it"]
    notes = []
    bare = [e for e in asked if not e.solution and e.match == "number"]
    if bare or 0 < len(rows) < len(asked):
        notes.append(f"note: {len(asked) - len(rows)} of {len(asked)} train questions have no "
                     "`solution`: their bare answer is copied, without any working")
    wrong = [e for e in rows if not tasks.right(e, tasks.gold(e))]
    if wrong:
        notes.append(f"note: {len(wrong)} of {len(rows)} solutions would not be judged right "
                     f"(match={wrong[0].match}), so copying them may not help: "
                     f"{wrong[0].solution[-60:]!r} for {wrong[0].answer[:40]!r}")
    longest = heapq.nlargest(50, map(tasks.gold, asked), key=len)
    needed = max(len(tokenizer.answer(text, task.opener)) for text in longest)
    room = settings.with_room(task, cfg).max_tokens
    if needed > room:
        notes.append(f"note: a text to copy has {needed} tokens and validation lets {room} be "
                     f"written: --max-tokens={needed + 16} leaves room for it")
    return notes


def scoring(args, expert, task):
    """The `eval` that asks as the training of this expert did."""
    asked = {"math-worked": "math"}.get(args.task, args.task)       # its questions, judged alike
    words = ["eval", f"--task={asked}", f"--expert={expert}"]
    words += [f"--{name}={value}" for name in ("weights", "data", "tower")
              if (value := getattr(args, name))]
    if args.objective == "options":
        words.append("--choose")
    elif isinstance(task, tasks.ListTask):
        limit = settings.with_room(task, args).max_tokens
        words += [f"--max-tokens={limit}"] * (limit != task.max_tokens)
    return shlex.join(words)


def show(args):
    """Print what an expert's file says and where its z are, and draw it."""
    path = Path(args.expert)
    if path.suffix != ".safetensors":
        file = f"{args.expert}.safetensors"
        places = [experts.OUT / file, experts.SHIPPED / download.DEFAULT / file,
                  *sorted(experts.SHIPPED.glob(f"*/{file}"))]
        path = next((p for p in places if p.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"no expert {args.expert!r}: neither in out/ nor shipped")
    if shelves.is_tower(path):
        raise ValueError(f"{path} is a tower, which has no z to show: ask it about an image with "
                         f"`ask --tower={path} --image=FILE QUESTION`")
    meta, expert = experts.read_metadata(path), experts.read_expert(path)
    print(one_line(summary(path, expert, meta)))
    picture = None
    if meta.get("method", "svf") != "svf":
        if args.picture:
            print(f"no picture: an expert of {one_line(meta['method'])} has no z to draw")
    else:
        picture = args.picture or experts.OUT / f"{path.stem}.png"
        try:
            picture = files.claim(picture, "picture", [path])
        except ValueError as e:
            if args.picture:
                raise
            print(one_line(f"no picture: {e}"), file=sys.stderr)    # where nobody named it
        else:
            plots.draw_expert(expert, meta, picture)
            print(one_line(f"picture: {picture}"))
    aside = sorted(path.parent.glob(f"{glob.escape(path.stem)}.jsonl.old*"))
    if picture and (logs := [p for p in (path.with_suffix(".jsonl"), *aside) if p.exists()]):
        draw_curve(logs, picture.with_name(f"{path.stem}-curve.png"), [path, picture], meta)
    print()
    for key in sorted(meta):
        print(one_line(f"{key:>18}  {meta[key]}"))
    if picture:
        print_z(expert)


def summary(path, expert, meta):
    """What an expert is, in one line: the first thing to know of it."""
    score = ""
    if isinstance(meta.get("val_accuracy"), float):
        score = f", {100 * meta['val_accuracy']:.1f} % of {meta.get('val_n')} validation questions"
    count = sum(t.numel() for t in expert.values())
    size = f"{count:,} numbers of {meta.get('method', 'svf')} in {len(expert)} tensors"
    if meta.get("method", "svf") == "svf":
        shift = torch.cat([(z - 1).abs().flatten() for z in expert.values()]).mean()
        size = f"{count:,} z in {len(expert)} matrices, mean |z - 1| {shift:.4f}"
        if shift == 0:
            size += ": this is the base model"
    return f"{path.stem}: task {meta.get('task')}{score}; {size}"


def draw_curve(logs, curve, read, meta):
    """The learning curve beside an expert's picture, from the first of the logs that is its own: a
    training that began under the same name later has moved it aside, and may have been stopped. One
    line for each that is another's, or no log."""
    for log in logs:
        try:
            check_own(plots.read_log(log), meta)
            curve = files.claim(curve, "picture", read)
            plots.draw_log(log, curve)
        except (ValueError, TypeError, KeyError, OSError) as e:
            print(one_line(f"no learning curve of {log}: {e}"), file=sys.stderr)
        else:
            print(one_line(f"learning curve: {curve}"))
            return


def check_own(rows, meta):
    """ValueError where the rows of a log are not of the training that the expert's file names."""
    told = [(row["step"], row["val"]) for row in rows if "val" in row]
    kept = meta.get("best_step"), meta.get("val_accuracy")
    if "best_step" in meta and (kept not in told or rows[-1]["step"] != meta.get("steps")):
        raise ValueError("it is of another training than the expert")


def print_z(expert):
    """Tables of z by layer and module."""
    tables = {"mean |z - 1|": lambda z: float((z - 1).abs().mean()),
              "smallest z": lambda z: float(z.min()), "largest z": lambda z: float(z.max())}
    for title, value in tables.items():
        layers, modules, grid = plots.by_layer_and_module(expert, value)
        print(f"\n{title:<14}" + "".join(f"{one_line(m):>11}" for m in modules))
        for layer, row in zip(layers, grid.tolist()):
            print(f"layer {layer:<8}" + "".join(f"{v:>11.4f}" for v in row))


def export_(args):
    """Write merged weights, and the adapter folder of an SVF expert."""
    out = claim(args, args.out, "folder")               # before minutes of decomposing
    model, _ = open_model(args, text=False)
    added = None
    if args.expert != "none":
        path = experts.find(args.expert, model)
        expert, meta = experts.load_expert(path, model, args.allow_other_base)
        experts.attach(model, meta, expert)
        svf.set_z(model, expert)
        added = adapter(model, expert, meta)
        if added is None:
            print("merged weights alone: an adapter folder is written for SVF experts")
    source = download.locate(args.weights)
    made = export.export(out, source, svf.merged(model), model.cfg, model.dtype, added)
    print(one_line(made))


def adapter(model, expert, meta):
    """What formats/export.py writes beside merged weights: z with the singular values that it
    scales; None but for SVF."""
    if meta.get("method", "svf") != "svf":
        return None
    sigma = {name: layer.S for name, layer in svf.layers(model).items() if name in expert}
    return {"name": model.name, "base_sha256": model.base_sha256, "z": expert, "sigma": sigma,
            "facts": meta}


# ------------------------------------------------------------ the other verbs
def reproduce_(args):
    """Run one experiment, or draw it again from its results."""
    if args.name == "all":
        return print(reproduce.listing())
    if args.name not in reproduce.ALL:
        raise ValueError(f"unknown experiment {args.name!r}{meant(args.name, reproduce.ALL)} "
                         f"Choose from {', '.join(reproduce.ALL)}; `all` lists them")
    if args.only and args.draw:
        raise ValueError("--draw draws all rows: leave --only away")
    if args.against and not args.draw:
        raise ValueError("--against is about a results file that is there: add --draw")
    if args.tower and args.name != "sight":
        raise ValueError(f"--tower is about images, and {args.name} asks about none")
    out = Path(args.out) if args.out else None
    _, results, picture = reproduce.places(args.name, args.quick, out)
    if args.draw:                                           # without any model
        files.claim(picture, "picture", [results])
        return reproduce.draw_file(results, picture, args.against)
    claim(args, results, "results")
    for path in figures.pictures(args.name, picture):
        claim(args, path, "picture")
    experiment = reproduce.ALL[args.name]
    experiment.check(args.data)
    agree(args.allow_code, experiment.programs)
    model, tokenizer = open_model(args)
    tell_of_yours(model)
    if args.name == "sight":
        towers.open_eye(model, tokenizer, args.tower)
    with stopped("the rows that were done are kept; the same command goes on"):
        return reproduce.run(args.name, model, tokenizer, args.quick, args.data, out, args.only)


def see(args):
    """Train the tower on what easy-VQA's train questions tell of their images."""
    known = easy_vqa.facts(tasks.get("easy-vqa", args.data).make().get("train", ()))
    if not known:
        raise ValueError(f"{args.data}: the train questions tell of no image which colour and "
                         "shape it shows")
    cfg = captions.StageOne(word_steps=args.word_steps, chat_steps=args.chat_steps, lr=args.lr,
                            chat_lr=args.chat_lr, seed=args.seed)
    out = files.claim_run(args.out or experts.OUT / "tower.safetensors", inputs(args), tower=True)
    if args.resume:                         # as it began, whatever is usual here
        checkpoint.check_there(out.with_suffix(".ckpt"))
        args.dtype = args.dtype or towers.begun_in(out.with_suffix(".ckpt"))
    model, tokenizer = open_model(args)
    if not args.resume:
        shelves.check_replaced(out, model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.only_one(out.with_suffix(".lock")), keeping(out, args.resume):
        for path in (out, out.with_suffix(".jsonl"), out.with_suffix(".ckpt")):
            files.sweep(path)
        captions.align(model, tokenizer, known, cfg, out, resume=args.resume,
                       log=lambda text: print(text, flush=True))
    words = ["ask", f"--tower={out}"] + [f"--weights={args.weights}"] * bool(args.weights)
    if "vision" not in experts.Shelf(model):
        words.append("--expert=none")
    print(one_line(f"wrote {out}; try it with `{shlex.join(words)} --image=FILE QUESTION`"))
    return {"tower": str(out), "images": len(known), **asdict(cfg)}


def bench_(args):
    """Time every part of a model, with those of its matrices tuned that the options name."""
    model, tokenizer = open_model(args)
    experts.attach(model, {}, args.modules, args.layers)
    return bench.run(model, tokenizer, args.repeats)


def page_(args):
    """Serve the page until Ctrl-C."""
    server = page.Server(None, args.port)       # first: is the port taken? The model takes minutes
    model, tokenizer = open_model(args)
    if args.tower:
        towers.open_eye(model, tokenizer, args.tower)
    server.lab = page_model.Lab(model, tokenizer, shelf(args, model))
    server.lab.warm_up()
    page.run(server)


def doctor_(args):
    """What this machine offers."""
    return doctor.run()


def download_(args):
    """Fetch open weights."""
    print(download.download(args.name))


def datasets_(args):
    """Published questions, and what of them is in --data."""
    return published.report(args.data)


VERBS = {"ask": ask, "chat": chat, "train": train_, "see": see, "eval": eval_, "adapt": adapt_,
         "show": show, "export": export_, "demo": demo_, "page": page_, "reproduce": reproduce_,
         "bench": bench_, "doctor": doctor_, "download": download_, "datasets": datasets_}

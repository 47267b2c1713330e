"""
t2mini: Transformer-Squared, self-adaptive language models, small enough to read in an afternoon.

    found = t2mini.ask("Raj plays 9 games every week. How many games does Raj play in 4 weeks?")
    print(found.route, "->", found.answer)

    model, tokenizer = t2mini.load()
    with t2mini.use(model, "math"):
        print(t2mini.generate(model, tokenizer, "What is 12 plus 30?"))

What these functions need is imported when they are called: `import t2mini.svf` brings no formats.
"""
import sys
from contextlib import contextmanager
from functools import cache
from types import ModuleType

__all__ = ["ask", "generate", "load", "train_expert", "use"]


def load(path=None, device=None, dtype=None):
    """Load open weights. -> (model, tokenizer); `model(ids)`: ids (B, T) -> logits (B, T, V).

    path    a .gguf file, a folder with config.json and *.safetensors (with or without an index), or
            the name of a model that `t2mini download` fetched; default: its default model
    device  "cuda", "cpu", ...; default: CUDA when present
    dtype   "float32", "bfloat16" or a torch dtype; default: bfloat16 where the device has it
    The model gets `name` and `base_sha256` (of the weight files; experts are tied to it). The
    tokenizer is None where a folder has no tokenizer.json. Raises FileNotFoundError or ValueError
    with one line that says what is wrong. Beside busy programs torch's threads wait for each other:
    torch.set_num_threads(1), or OMP_NUM_THREADS=1 in front of the command, is often faster.
    """
    import torch

    from .formats import load as formats
    from .machine import files, memory
    from .machine.device import pick
    from .model import Config, Transformer

    checkpoint = formats.open_checkpoint(path)
    memory.keep_memory()
    device, dtype = pick(device, dtype)
    cfg, tokenizer = Config(**vars(checkpoint.settings)), checkpoint.tokenizer
    formats.check_config(cfg, len(checkpoint.tensors))
    if tokenizer is not None:
        formats.check_tokenizer(tokenizer, cfg.vocab_size)

    with torch.device("meta"):                              # shapes only: no memory is used twice
        model = Transformer(cfg)
    formats.load_into(model, checkpoint.tensors, device, dtype)
    model.name = checkpoint.name
    model.base_sha256 = files.file_hash(checkpoint.files)
    if tokenizer is not None:
        model.valid_vocab = min(cfg.vocab_size, tokenizer.n_vocab)
    return model.eval().requires_grad_(False), tokenizer


@cache
def default(weights=None):
    """The model that `ask` uses, with its experts; loaded once. -> (model, tokenizer, Shelf)."""
    from .experts import Shelf
    model, tokenizer = load(weights)
    return model, tokenizer, Shelf(model)


def ask(question, strategy="classifier", expert=None, max_tokens=128, temperature=0.0, seed=0,
        weights=None):
    """Answer a question in two passes (paper 3.2). -> adapt.Answer: answer, route, probabilities.

    A list of questions gives a list. strategy, expert: see adapt.answer. The model (`weights`, or
    the default one) is loaded at the first call and kept.
    """
    from . import adapt

    model, tokenizer, experts = default(weights)
    questions = [question] if isinstance(question, str) else question
    found = adapt.answer(model, tokenizer, questions, strategy, experts, expert, max_tokens,
                         temperature=temperature, seed=seed)
    return found[0] if isinstance(question, str) else found


def generate(model, tokenizer, prompt, max_tokens=128, temperature=0.0, seed=0):
    """The text with which the model, as it stands now, answers a prompt (a user's message)."""
    from . import evaluate
    return evaluate.answers(model, tokenizer, [prompt], max_tokens, temperature, seed)[0]


@contextmanager
def use(model, expert):
    """Inside the block the model runs on an expert: its name, its file, or z (dict name -> z).

    Afterwards it runs on what it ran on before, in the layers that it had, if any.
    """
    from . import experts, svf

    z, meta = expert, {}
    if not isinstance(expert, dict):
        z, meta = experts.load_expert(experts.find(expert, model), model)
    outer = svf.layers(model)
    known = {name for name, _, _, _ in svf.parts(model)}
    fits = z.keys() <= known
    try:
        # no layers yet, of an outer block's other method, or of another LoRA's alpha / rank
        if not fits or meta.get("method") == "lora":
            svf.detach(model)
            experts.attach(model, meta, svf.ALL)
        with svf.using(model, z):
            yield model
    finally:
        if outer or not fits:
            svf.detach(model)
            svf.swap(model, outer)


def train_expert(task, out=None, weights=None, log=print, resume=False, **settings):
    """Train an expert (paper 3.2, 4.2) and write it. -> dict of results; ["expert"] is its file.

    task: a task's name or a .jsonl file of yours; out: default out/TASK.safetensors; settings:
    fields of recipe.TrainConfig, such as steps=40. resume: go on from the last checkpoint of out,
    which Ctrl-C leaves there.
    """
    from pathlib import Path

    from . import experts, recipe, train
    from .formats.download import locate
    from .machine import checkpoint, files

    cfg = recipe.TrainConfig(task=str(task), **settings)
    out = files.claim_run(out or experts.OUT / f"{Path(cfg.task).stem}.safetensors",
                          [locate(weights)], task=cfg.task)
    model, tokenizer = load(weights)
    with checkpoint.keeping(out, resume):
        found = train.train(model, tokenizer, cfg, out, resume, experts.SVD_CACHE, log)
    default.cache_clear()                                   # `ask` reads its experts again
    return found


class Door(ModuleType):
    """This package: `t2mini.generate` stays the function, although a file has that name too."""

    def __setattr__(self, name, value):
        if name != "generate" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Door

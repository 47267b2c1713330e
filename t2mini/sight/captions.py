"""
Stage one: train the tower so that the frozen language model can read it (LLaVA's alignment stage).

    first    image token k should be word k of the caption, such as "The image shows a red
             triangle.": near to its embedding, and nearer to it than to any other caption's word.
             The language model itself does not run: a fast start
    then     a chat: the caption is asked for, or a question with yes or no as the answer

Loss:     first the squared distance, and the cross-entropy of naming the word; then the mean of
          -log pi(token) over the tokens of the answer, whose gradient runs through the frozen
          language model into the tower. The tower alone is trained.
Why both: a pass through the language model takes ten times as long as one through the tower. And of
          captions alone the frozen model learns to describe, whatever it is asked: it never says
          yes or no. What is never said is never rewarded, so a few questions are shown. Their
          wording is not that of easy-VQA, whose questions no tower is trained on.
Data:     what easy-VQA's train questions tell of their images (easy_vqa.facts).
Run:      python -m t2mini see --data=DIR
"""
import hashlib
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..likelihood import logprobs, pack
from ..machine import checkpoint, files, settings
from ..machine.fused import picked
from ..questions.easy_vqa import COLORS, SHAPES
from ..questions.pictures import Seen, pixels
from . import towers
from .eye import give_sight
from .tower import Tower, TowerConfig

CAPTION = "The image shows a {} {}."
ASKED = ("Describe the image.", "What does the image show?")
EVERY = 20                              # steps between two lines of the log and two checkpoints
WARM_UP = 20                            # steps in which the learning rate rises
SHARPNESS = 20                          # of the choice among words: what cosines are multiplied by


@dataclass(frozen=True)
class StageOne:
    word_steps: int = 1200              # image tokens towards the words of the caption
    chat_steps: int = 120               # through the language model
    word_images: int = 32               # per step
    chat_images: int = 24
    asked: float = 0.5                  # share of yes/no questions in the chat
    lr: float = 1e-3
    chat_lr: float = 3e-4
    seed: int = 0

    @property
    def steps(self):
        return self.word_steps + self.chat_steps


class Words:
    """The words of all captions as targets of image tokens. A caption of more words than there are
    image tokens is cut, one of fewer is filled up with line breaks.

    ids: dict (colour, shape) -> Q ids; known (W,): all ids that occur; E (W, C): their embeddings.
    """

    def __init__(self, model, tokenizer, Q):
        def target(color, shape):
            return tokenizer.encode(CAPTION.format(color, shape) + "\n" * Q)[:Q]

        self.ids = {(c, s): target(c, s) for c in COLORS for s in SHAPES}
        self.known = sorted({i for ids in self.ids.values() for i in ids})
        self.E = model.embedding[self.known].float().clone()

    def places(self, shown):
        """[(pixels, colour, shape)] -> (B, Q): the rows of E that their captions are."""
        rows = [[self.known.index(i) for i in self.ids[tuple(of)]] for _, *of in shown]
        return torch.tensor(rows, device=self.E.device)

    def mean(self):
        """The mean caption (Q, C)."""
        return self.E[self.places([(None, *of) for of in self.ids])].mean(0)


def distance(tokens, words, places):
    """How far image tokens (B, Q, C) are from their captions: the squared distance over the words'
    square, plus the cross-entropy of picking each word among all of them by its direction."""
    target = words.E[places]
    off = (tokens - target).pow(2).sum() / target.pow(2).sum()
    cosine = F.normalize(tokens, dim=-1) @ F.normalize(words.E, dim=-1).T       # (B, Q, W)
    named = F.cross_entropy(SHARPNESS * cosine.flatten(0, 1), places.flatten())
    return off + tokens.shape[1] * named


def mirrored(image, color, shape, rng):
    """The same, or what a mirror shows of it: other pixels, the same caption."""
    return (image[:, ::-1] if rng.random() < 0.5 else image), color, shape


def lesson(tokenizer, image, color, shape, asked, rng):
    """One image -> (prompt ids, answer ids) of what is to be said about it."""
    if rng.random() >= asked:
        question, answer = rng.choice(ASKED), CAPTION.format(color, shape)
    else:
        question, answer = yes_or_no(color, shape, rng)
    return tokenizer.prompt(Seen(question, image)), tokenizer.answer(answer)


def yes_or_no(color, shape, rng):
    """A question about an image and its answer, as often "Yes" as "No"."""
    of, true, form = rng.choice(
        [(COLORS, color, "Is the shape {}?"), (SHAPES, shape, "Is it a {}?")])
    if rng.random() < 0.5:
        return form.format(true), "Yes"
    return form.format(rng.choice([word for word in of if word != true])), "No"


def loss_of(model, lessons):
    """Mean -log pi per answer token of (prompt ids, answer ids); with a gradient for the tower."""
    groups = [(prompt, [answer]) for prompt, answer in lessons]
    ids, positions, allowed, row, col, target = pack(groups, model.device)
    x = picked(model.hidden(ids, positions, allowed), row, col)                 # (N, C)
    return -logprobs(model, x, target, 1.0)[0].mean()


def rate(cfg, step):
    """The learning rate, in each of the two parts up along a line and down along a cosine."""
    highest, steps = cfg.lr, cfg.word_steps
    if step >= cfg.word_steps:
        highest, steps, step = cfg.chat_lr, cfg.chat_steps, step - cfg.word_steps
    rising = min(1.0, (step + 1) / WARM_UP)
    return highest * rising * 0.5 * (1 + math.cos(math.pi * step / steps))


def align(model, tokenizer, known, cfg, out, log=print, shape=None, resume=False):
    """Train a tower on known: dict image -> (colour, shape). Writes `out` (the tower), beside it a
    .jsonl (loss, seconds) and, every 20 steps, a .ckpt from which `resume` goes on. -> Tower.
    ValueError for a model of another chat format than ChatML."""
    if tokenizer.chat != "chatml":
        raise ValueError(f"images stand in the messages of the ChatML format alone, and the format "
                         f"of {model.name} is {tokenizer.chat or 'none'}: take other --weights")
    settings.check_dtype(model.dtype)
    out = Path(out)
    log_path, ckpt = out.with_suffix(".jsonl"), out.with_suffix(".ckpt")
    tower = Tower(shape or TowerConfig(hidden_size=model.cfg.hidden_size), cfg.seed)
    tower = tower.to(model.device)
    words = Words(model, tokenizer, tower.cfg.queries)
    tower.offset.data.copy_(words.mean())
    eye = give_sight(model, tokenizer, tower, keeps=False)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=cfg.lr, betas=(0.9, 0.98))
    told = {"config": asdict(cfg), "base_sha256": model.base_sha256, "images": len(known),
            "facts": hashlib.sha256(repr(sorted((Path(image).name, *shown)
                                                for image, shown in known.items())).encode()
                                    ).hexdigest()[:16],
            "dtype": str(model.dtype).removeprefix("torch.")}
    rows, step, seconds = [], 0, 0.0
    if resume:
        rows, step, seconds = towers.go_on(ckpt, told, tower, optimizer)
    elif ckpt.exists():
        checkpoint.set_aside(ckpt, log_path, log)
    images = [(pixels(image), *known[image]) for image in sorted(known)]
    started = time.time() - seconds
    while step < cfg.steps:
        rng = random.Random(f"{cfg.seed}/{step}")
        chat = step >= cfg.word_steps
        shown = rng.sample(images, min(len(images), cfg.chat_images if chat else cfg.word_images))
        eye.forget()
        optimizer.zero_grad()
        with sdpa_kernel(SDPBackend.MATH):      # short rows: a third quicker to go back through
            if chat:
                loss = loss_of(model, [lesson(tokenizer, *of, cfg.asked, rng) for of in shown])
            else:
                shown = [mirrored(*of, rng) for of in shown]
                tokens = tower(torch.from_numpy(np.stack([of[0] for of in shown])).to(model.device))
                loss = distance(tokens, words, words.places(shown))
            if not loss.isfinite():
                raise ValueError(f"the loss of step {step + 1} is not a finite number: take a "
                                 "lower --lr or --chat-lr; what was saved before is kept")
            loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate(cfg, step)
        optimizer.step()
        step += 1
        rows.append({"step": step, "loss": round(loss.item(), 5),
                     "seconds": round(time.time() - started, 1)})
        if step % EVERY == 0 or step == cfg.steps:
            last = [r["loss"] for r in rows[-EVERY:]]
            log(f"step {step:4d}  loss {sum(last) / len(last):.4f}  "
                f"{rows[-1]['seconds']:.0f} s")
            towers.save_state(ckpt, told, tower, optimizer, rows)
            with files.replacing(log_path) as f:
                f.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    towers.save(out, tower, {**told, "base_model": model.name, "steps": step,
                             "loss": rows[-1]["loss"], "command": checkpoint.command()})
    ckpt.unlink(missing_ok=True)
    return tower

"""
Stage one: train the tower so that the frozen language model can read it (LLaVA's alignment stage).

    first    image token k is drawn to the embedding of word k of the caption, such as "The image
             shows a red triangle." The language model itself does not run: a fast start
    then     a chat: the caption is asked for, or a question with yes or no as the answer

Loss:     first the squared distance; then the mean of -log pi(token) over the tokens of the answer,
          whose gradient runs through the frozen language model into the tower. The tower alone is
          trained.
Why both: a pass through the language model takes ten times as long as one through the tower. And of
          captions alone the frozen model learns to describe, whatever it is asked: it never says
          yes or no. What is never said is never rewarded, so a few questions are shown. Their
          wording is not that of easy-VQA, whose questions no tower is trained on.
Data:     what easy-VQA's train questions tell of their images (easy_vqa.facts).
Run:      python -m t2mini see --data=DIR
"""
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..likelihood import logprobs, pack
from ..machine import files
from ..machine.checkpoint import command
from ..questions.easy_vqa import COLORS, SHAPES
from ..questions.pictures import Seen, pixels
from . import towers
from .eye import give_sight
from .tower import Tower, TowerConfig

CAPTION = "The image shows a {} {}."
ASKED = ("Describe the image.", "What does the image show?")
EVERY = 20                              # steps between two lines of the log and two checkpoints
WARM_UP = 20                            # steps in which the learning rate rises


@dataclass(frozen=True)
class StageOne:
    word_steps: int = 300               # image tokens towards the words of the caption
    chat_steps: int = 100               # through the language model
    word_images: int = 64               # per step
    chat_images: int = 24
    asked: float = 0.5                  # share of yes/no questions in the chat
    lr: float = 1e-3
    chat_lr: float = 3e-4
    seed: int = 0

    @property
    def steps(self):
        return self.word_steps + self.chat_steps


def distance(model, tokenizer, tower, shown):
    """Mean squared distance between image tokens and the embeddings of the captions' words, over
    the mean square of the latter. shown: [(pixels, colour, shape)]. A caption of fewer words than
    tokens leaves the last ones free."""
    tokens = tower(torch.stack([torch.from_numpy(pixels) for pixels, *_ in shown]).to(model.device))
    off = size = 0.0
    for row, (_, color, shape) in zip(tokens, shown):                           # (Q, C)
        ids = tokenizer.encode(CAPTION.format(color, shape) + "\n")[:len(row)]
        words = model.embedding[ids].float()                                    # (words, C)
        off = off + (row[:len(ids)] - words).pow(2).sum()
        size = size + words.pow(2).sum()
    return off / size


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
    x = model.hidden(ids, positions, allowed)[row, col]                         # (N, C)
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
    .jsonl (loss, seconds) and, every 20 steps, a .ckpt from which `resume` goes on. -> Tower."""
    out = Path(out)
    log_path, ckpt = out.with_suffix(".jsonl"), out.with_suffix(".ckpt")
    tower = Tower(shape or TowerConfig(hidden_size=model.cfg.hidden_size), cfg.seed)
    tower = tower.to(model.device)
    eye = give_sight(model, tokenizer, tower, keeps=False)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=cfg.lr, betas=(0.9, 0.98))
    told = {"config": asdict(cfg), "base_sha256": model.base_sha256, "images": len(known)}
    rows, step, seconds = [], 0, 0.0
    if resume:
        rows, step, seconds = towers.go_on(ckpt, told, tower, optimizer)
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
                loss = distance(model, tokenizer, tower, shown)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = rate(cfg, step)
        optimizer.step()
        step += 1
        rows.append({"step": step, "loss": round(loss.item(), 5),
                     "seconds": round(time.time() - started, 1)})
        if step % EVERY == 0 or step == cfg.steps:
            log(f"step {step:4d}  loss {sum(r['loss'] for r in rows[-EVERY:]) / EVERY:.4f}  "
                f"{rows[-1]['seconds']:.0f} s")
            towers.save_state(ckpt, told, tower, optimizer, rows)
            with files.replacing(log_path) as f:
                f.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    towers.save(out, tower, {**told, "base_model": model.name, "steps": step,
                             "loss": rows[-1]["loss"], "command": command()})
    ckpt.unlink(missing_ok=True)
    return tower

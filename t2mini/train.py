"""
The loop around `reinforce.update`: validate, keep the best, checkpoint, log (paper 4.2, A.1).

Kept:     AdamW (its weight decay is 0 here, so it is Adam) with cosine decay; the z that is best on
          validation questions is the expert, and training stops early where no better one comes.
Changed:  a run can be stopped at any moment and goes on, with the same bits where device,
          threads and processes are the same (machine/checkpoint.py); test questions are never read
          here (the release scores them at every validation).
Files:    OUT.safetensors (the expert), OUT.jsonl (the log, a row per update and per validation),
          OUT.ckpt (after every update: what --resume goes on from).
Warned:   a run that teaches nothing says so while it runs, with what to do, and not only by an
          expert that is the base model.
"""
import json
import os
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import torch

from . import evaluate, experts, lora, reinforce, svf, tasks
from .machine import checkpoint, files, idle, pace, ranks, settings, shelves
from .machine.batches import NotFinite
from .machine.text import cut_mark
from .recipe import TrainConfig, settled, written

BAD = 5             # so many updates in a row whose numbers are not finite end the training


def train(model, tokenizer, cfg, out, resume=False, cache=None, log=print, watch=None):
    """Train and write `out` (expert), `out`.jsonl (log), `out`.ckpt (for --resume). -> dict of
    results.

    Selection uses the val split only. An update whose numbers are not finite, or whose rewards are
    none, is skipped and counted; after five in a row training stops. cache: folder of the
    decompositions (svf.attach). log is called with every line that is shown; watch(step) at every
    validation, on the z of that step, and decides nothing. Raises FileNotFoundError where --resume
    finds no checkpoint, ValueError where it is one of other settings, the log would replace the
    task's own file, or another run is writing the same files.
    """
    given, cfg = written(cfg), settled(cfg)
    check_paths(Path(out), cfg.task, resume)
    if not resume:
        start = cfg.start and experts.find(cfg.start, model)
        shelves.check_replaced(Path(out), model, written(cfg), start)
    prepare(model, cfg, cache)
    run = Run(model, tokenizer, cfg, out, log, watch)
    for said in settings.overridden(given, written(cfg), written(TrainConfig())):
        run.log(said)
    run.read_validation()
    with checkpoint.output(run.out, run.log_path, run.ckpt) as run.log_file:
        if resume:
            run.resume()
        else:
            run.begin()
        while True:
            if run.validation_due():
                run.validate()
            if run.over():
                break
            run.update()
        return run.finish()


def check_paths(out, task, resume):
    """ValueError (of a checkpoint that is not there: FileNotFoundError) where the files cannot be
    this run's."""
    files.claim_run(out, task=task)
    if resume:
        checkpoint.check_there(out.with_suffix(".ckpt"))


def prepare(model, cfg, cache):
    """Give the model the layers that cfg trains, as they are at the start: of the base model, or of
    an expert that was trained before. ValueError where that does not fit."""
    settings.check_dtype(model.dtype)
    lora.attach(model, cfg.method, asdict(cfg), cache, progress=ranks.rank() == 0)
    if cfg.start:
        svf.set_z(model, experts.load([cfg.start], model)[cfg.start])
    z = svf.trained(model).values()
    if cfg.start_noise:
        g = torch.Generator().manual_seed(cfg.seed)     # on the CPU: the same on every device
        for p in z:
            p.data += 0.01 * torch.randn(p.shape, generator=g).to(p.device)
    if cfg.bf16_training:
        for p in z:
            p.data = p.data.bfloat16()
    svf.fold(model)


class Run:
    """A training run: what it works with, its files, and how far it is (`state`)."""

    def __init__(self, model, tokenizer, cfg, out, log, watch):
        self.model, self.tokenizer, self.cfg = model, tokenizer, cfg
        self.task = tasks.get(cfg.task)
        if isinstance(self.task, tasks.ListTask):
            self.task = settings.with_room(self.task, cfg)
        self.log, self.watch = log, watch
        self.out = Path(out)
        self.log_path = self.out.with_suffix(".jsonl")
        self.ckpt = self.out.with_suffix(".ckpt")
        self.z = svf.trained(model)
        self.count = sum(p.numel() for p in self.z.values())
        self.log(f"{cfg.method}: {self.count:,} trained numbers on {len(svf.layers(model))} "
                 "matrices")
        # Weight decay would pull z to 0, which erases the matrix; equation 1 pulls to the base
        # model by its KL term.
        self.optimizer = torch.optim.AdamW(self.z.values(), lr=cfg.lr, betas=(0.9, cfg.beta2),
                                           weight_decay=0.0)
        self.start = self.best = svf.get_z(model)
        self.idle = idle.Idle()
        self.pace = pace.Pace(cfg.steps, cfg.val_every)
        self.state = {"step": 0, "first_val": -1.0, "best_val": -1.0, "best_step": 0, "stale": 0,
                      "seconds": 0.0, "skipped": 0, "bad": 0}
        self.told = checkpoint.identity(written(cfg), model, tokenizer, self.start)

    # --- start ---
    def read_validation(self):
        """The questions that choose which z is kept."""
        self.val = self.task.examples("val", self.cfg.val_n, seed=0)
        if len(self.val) < idle.FEW:
            self.log(idle.few(len(self.val)))
        listed = isinstance(self.task, tasks.ListTask)      # else drawn without an end
        limit = self.cfg.max_tokens or self.task.max_tokens
        self.check_length(self.task.examples("train", sys.maxsize) if listed else [], limit)
        self.check_length(self.val, max(limit, self.task.max_tokens))

    def check_length(self, examples, limit):
        """ValueError where a question leaves no room for its answer, or asks about an image that
        this model cannot see."""
        learnt = {"next-token": lambda e: [tasks.gold(e)], "options": tasks.option_texts}
        answers = learnt.get(self.cfg.objective, lambda e: [])
        rows = [(e.prompt, answers(e)) for e in examples]
        context = self.model.cfg.max_position_embeddings
        settings.check_questions(rows, self.tokenizer, self.task.opener, limit, context)

    def begin(self):
        """From nothing: killed before its first checkpoint, a run must not find another's."""
        checkpoint.begin(self.ckpt, self.log_file, self.log)
        self.t0 = time.time()

    def resume(self):
        """Go on from the checkpoint, and cut off the log what it does not know of."""
        self.best = checkpoint.load(self.ckpt, self.told, self.z, self.optimizer, self.best,
                                    self.state, self.model.device)
        svf.fold(self.model)
        step, end = self.state["step"], 0
        if ranks.rank() == 0:
            end, last = checkpoint.end_of_step(self.log_path, step, self.state.get("validated"))
            if last != step:
                self.log(f"the log {self.log_path} was cut: its rows up to step {step} are missing "
                         f"from step {last + 1} on, and stay so")
        self.log_file.truncate(end)
        self.t0 = time.time() - self.state["seconds"]
        self.log(f"resuming {self.out} after step {step}")

    # --- validate ---
    def validation_due(self):
        step = self.state["step"]
        if step == self.state.get("validated"):             # before the run was stopped
            return False
        return step % self.cfg.val_every == 0 or step == self.cfg.steps

    def validate(self):
        """Score the val split, keep z where none was better so far, and save all of it.

        Of equal scores the later z is kept: it has learnt more. Patience waits for a better one.
        """
        step, n = self.state["step"], len(self.val)
        counts = Counter()
        started = time.time()
        try:
            right = sum(evaluate.score(
                self.model, self.tokenizer, self.task, self.val,
                choose=self.cfg.objective == "options", counts=counts))
        except NotFinite:                           # z has run away: worse than none right
            right = -1.0
        self.pace.validation(time.time() - started)
        mark = cut_mark(counts["cut"], self.task.max_tokens)
        share = right / n
        if step == 0:
            self.state["first_val"] = share
            if right == n:
                self.log(idle.all_right(n))
        self.state["stale"] = 0 if share > self.state["best_val"] else self.state["stale"] + 1
        if share >= self.state["best_val"]:
            self.best = svf.get_z(self.model)
            self.state |= {"best_val": share, "best_step": step}
            mark += "  (best so far)"
        self.log(f"step {step:4d} | validation {evaluate.percent(max(0.0, right), n)}{mark}")
        self.write_row({"step": step, "val": share, "val_n": n})
        if self.watch and right >= 0:
            self.watch(step)
        self.state["validated"] = step
        self.save()

    def save(self):
        """A checkpoint of this moment. The log is durable first, so it has a checkpoint's rows.

        ValueError where the log is no longer this run's.
        """
        self.state["seconds"] = time.time() - self.t0
        checkpoint.check_ours(self.log_file, self.log_path)
        self.log_file.flush()
        os.fsync(self.log_file.fileno())
        checkpoint.save(self.ckpt, self.told, self.z, self.optimizer, self.best, self.state)

    # --- update ---
    def over(self):
        state = self.state
        return (state["step"] >= self.cfg.steps or state["stale"] >= self.cfg.patience
                or state["bad"] >= BAD)

    def update(self):
        """One update, saved before anything is told of it: Ctrl-C loses what is under way only."""
        state = self.state
        numbers, sample = reinforce.update(self.model, self.tokenizer, self.task, self.cfg,
                                           state["step"], self.optimizer)
        state["step"] += 1
        state["skipped"] += numbers["skipped"]
        if numbers["skipped"]:
            state["bad"] += 1
        elif numbers["grad_norm"] > 0:              # a step without any gradient says nothing
            state["bad"] = 0
        self.write_row({"step": state["step"],
                        **{name: pace.short(value) for name, value in numbers.items()}})
        self.save()
        self.log(self.pace.update(state["step"], numbers))
        if state["step"] % 5 == 1 or numbers["skipped"]:
            self.log("          " + sample)
        if "reward" in numbers and not numbers["skipped"] and not self.cfg.kl:
            for warning in self.idle.see(numbers, sample):
                self.log(warning)

    def write_row(self, row):
        self.log_file.write(json.dumps(row) + "\n")

    # --- end ---
    def finish(self):
        """Write the expert. -> what `train` returns."""
        if checkpoint.equal(self.best, self.start):
            moved = not checkpoint.equal(svf.get_z(self.model), self.start)
            self.log(idle.nothing_learnt(moved))
        elif self.state["best_val"] <= self.state["first_val"]:
            self.log(idle.no_better(self.state["best_val"], len(self.val)))
        if self.state["bad"] >= BAD:
            self.log("stopped: five steps in a row had numbers that were not finite; the best "
                     "expert so far is kept")
        checkpoint.check_ours(self.log_file, self.log_path)
        if ranks.rank() == 0:
            experts.save_expert(self.out, self.best, self.metadata())
        return {
            "task": self.cfg.task, "expert": str(self.out), "seed": self.cfg.seed,
            **self.state, "seconds": time.time() - self.t0}

    def metadata(self):
        """What the expert file says of its training. No clock: the same run, the same bytes."""
        form = "sigmoid" if self.cfg.logit_form else "z"
        return {
            **{k: getattr(self.cfg, k) for k in ("task", "seed", "modules", "layers", "method")},
            "base_model": self.model.name, "base_sha256": self.model.base_sha256,
            "steps": self.state["step"], "best_step": self.state["best_step"],
            "val_accuracy": self.state["best_val"], "val_n": len(self.val),
            "parameterisation": form, "parameters": self.count, "config": written(self.cfg),
            **checkpoint.made_on(self.model)}

"""
What every experiment needs: experts trained once and found again, answers scored on one split,
rows that carry n and an interval.

Splits:   train trains, val selects a checkpoint, a learning rate or a mixture, test is scored and
          nothing more. Each use below says which it is.
Resume:   an expert that out/reproduce/ holds whole is not trained again, and one that was stopped
          goes on from its checkpoint.
"""
import hashlib
import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np

from .. import adapt, evaluate, experts, recipe, svf, tasks, train
from . import arms
from ..machine import checkpoint, files, ranks

# One budget for every method and seed: so many rollouts, in so many updates. Shorter than the
# shipped experts' own runs.
BUDGET = {
    "math": dict(max_tokens=40, must_stop=True),
    "code": dict(max_tokens=64, must_stop=True),
    "reasoning": dict(max_tokens=16),
    "dispatch": dict(prompts=24, samples=4, temperature=1.0, steps=30, val_n=128),
    # published questions: long answers, so fewer of them;
    # short ones behind long questions, so many of each
    "gsm8k": dict(max_tokens=128, samples=4, steps=16),
    "mbpp": dict(max_tokens=96, must_stop=True),
    "easy-vqa": dict(prompts=32, samples=8, temperature=1.0, steps=100, val_every=20, val_n=192,
                     must_stop=True),
    "arc-easy": dict(prompts=24, samples=12, temperature=1.0, steps=100, val_every=20, val_n=192)}
COMMON = dict(prompts=12, samples=6, steps=24, val_every=8, val_n=96)
SEEDS = (0, 1, 2)
WHOLE = 10 ** 6     # more questions than any set has
QUICK = dict(prompts=4, samples=4, steps=2, val_every=2, val_n=8)
# raised where questions or what is kept change, or graders judge many answers otherwise: older
# experts do not count, and results files that name older rules take no more rows
RULES = 4
LOOK = 100      # test questions beside every validation of SVF experts, for `curves`
TIED_RATES = (1e-2, 3e-2, 1e-1)     # of few numbers that each move many singular values
LEARNING_RATES = {"svf": (2e-3, 5e-3, 1e-2), "lora": (3e-4, 1e-3, 3e-3), "ia3": (3e-3, 1e-2, 3e-2)}


class Lab:
    """The base model with the experts trained on it so far.
    Between calls the model is the base model, SVF attached.

    folder: of the experts and their logs.
    quick: two updates and few questions, to see that everything runs.
    """

    def __init__(self, model, tokenizer, folder, quick=False, data=None):
        self.model, self.tokenizer, self.folder, self.quick, self.data = (
            model, tokenizer, folder, quick, data)
        if not svf.layers(model):
            svf.attach(model, cache=experts.SVD_CACHE)

    def n(self, full):
        """How many questions to score: `full`, or 16 in a quick run."""
        return min(full, 16) if self.quick else full

    # --- experts ---
    def config(self, task, seed, **changes):
        """The TrainConfig of a run:
        the common budget, the task's own limits, and what this arm changes."""
        quick = QUICK if self.quick else {}
        return recipe.TrainConfig(**{"task": task, "seed": seed, **COMMON, **BUDGET.get(task, {}),
                                     **changes, **quick})

    def expert(self, task, seed, look=0, **changes):
        """-> (expert, its metadata with `path`),
        trained on `task` if out/reproduce/ does not have it yet.

        look: also score so many test questions at every validation,
        for a picture; they decide nothing.
        """
        cfg = self.config(task, seed, **changes)
        settings = {k: v for k, v in asdict(cfg).items() if v != getattr(recipe.TrainConfig(), k)}
        # a setting that came later, at what it was before, does not make an older expert another
        told = {k: v for k, v in asdict(cfg).items() if checkpoint.ADDED.get(k, ...) != v}
        path = self.file(f"{Path(task).stem}-{cfg.method}-{seed}", told | questions(task))
        looked, ckpt = path.with_suffix(".test.jsonl"), path.with_suffix(".ckpt")
        seen = not look or looked.exists()
        there, resume = ranks.agreed([path.exists() and seen and not ckpt.exists(),
                                      ckpt.exists() and seen])
        if not there:
            if ranks.rank() == 0 and not resume:
                # else a kill could leave them beside the new run's first files
                path.unlink(missing_ok=True)
                looked.unlink(missing_ok=True)
            watch = partial(self.look_at_test, task, look, looked, cfg.objective == "options")
            print(f"\ntraining {path.name}: "
                  + ", ".join(f"{k} {v}" for k, v in settings.items()), flush=True)
            svf.detach(self.model)
            try:
                train.train(self.model, self.tokenizer, cfg, path, resume, experts.SVD_CACHE,
                            watch=watch if look else None)
            finally:
                self.attach("svf")
            ranks.agreed(0)                                 # the first rank has written it
            ckpt.unlink(missing_ok=True)
        found, meta = experts.load_expert(path, self.model)
        return found, {**meta, "path": path}

    def look_at_test(self, task, n, log, choose, step):
        """Add the share of right answers to n test questions, under the z of this step, to `log`:
        for a picture; they decide nothing."""
        score = evaluate.score(self.model, self.tokenizer, tasks.get(task), self.examples(task, n),
                               choose=choose)
        if ranks.rank():
            return
        rows = log.read_text().splitlines() if log.exists() else []
        rows = [r for r in rows if json.loads(r)["step"] < step]    # a stopped run does some again
        rows.append(json.dumps({"step": step, "test": sum(score) / len(score)}))
        files.sweep(log)
        with files.replacing(log) as f:
            f.write("".join(r + "\n" for r in rows).encode())

    def file(self, name, settings):
        """The file of an expert of this base and dtype
        that was made with these settings, which are JSON values, under today's RULES."""
        told = [self.model.base_sha256, str(self.model.dtype), RULES, settings]
        if self.tokenizer.eye is not None:
            told.append(self.tokenizer.eye.sha256())
        told = json.dumps(told, sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}.safetensors"

    def curve(self, meta):
        """The logs of an expert's run:
        {train: [(step, mean reward)], val: [(step, share right)], test: likewise}."""
        rows = [json.loads(line) for suffix in (".jsonl", ".test.jsonl")
                for line in meta["path"].with_suffix(suffix).read_text().splitlines()]
        return {name: sorted({r["step"]: r[key] for r in rows if key in r}.items())
                for name, key in (("train", "reward"), ("val", "val"), ("test", "test"))}

    def best_lr(self, method="svf", objective="reward", rates=None, **changes):
        """The learning rate with the best accuracy on validation questions of math, seed 0.
        -> (lr, {lr: accuracy}).

        These are whole runs of `finetune`, so the chosen one is not trained again there.
        rates: instead of the method's.
        """
        if objective != "reward":
            changes["objective"] = objective
        look = LOOK if method == "svf" and not changes else 0
        found = {lr: self.expert("math", 0, look, method=method, lr=lr,
                                 **changes)[1]["val_accuracy"]
                 for lr in rates or LEARNING_RATES[method]}
        return max(found, key=found.get), found

    def attach(self, method, meta=None):
        """Swap the model's layers for those of a method."""
        svf.detach(self.model)
        experts.attach(self.model, meta if method != "svf" else {}, svf.ALL)

    # --- scores ---
    @contextmanager
    def running(self, expert, meta=None):
        """The model runs on an expert of any method;
        afterwards it is the base model with SVF layers."""
        other = bool(meta) and meta.get("method", "svf") != "svf"
        if other:
            self.attach(meta["method"], meta)
        try:
            with svf.using(self.model, expert):
                yield
        finally:
            if other:
                self.attach("svf")

    def examples(self, task, n, split="test"):
        """The same questions for every arm and seed.
        Of `test` unless a caller says, and there says why."""
        return tasks.get(task).examples(split, self.n(n), seed=0)

    def score(self, task, n, expert, meta=None, choose=False, max_tokens=0):
        """Answers of an expert ({}: the base model) to test questions,
        greedy or (choose) out of the options. -> row; of greedy ones with the share that the limit
        cut off.

        max_tokens: of an answer, where not the task's own limit.
        """
        t, counts = tasks.get(task), Counter()
        t = replace(t, max_tokens=max_tokens or t.max_tokens)
        asked = self.examples(task, n)
        with self.running(expert, meta):
            rewards = evaluate.score(self.model, self.tokenizer, t, asked, task, choose, counts)
        if choose:
            return row(rewards, asked)
        cut = round(counts["cut"] / len(rewards), 4)
        return {**row(rewards, asked), "max_tokens": t.max_tokens, "cut": cut}

    def arm(self, task, n, **options):
        """A strategy, an expert by name or a fixed alpha on test questions (arms.run). -> row."""
        asked = self.examples(task, n)
        rewards, _, numbers = arms.run(self.model, self.tokenizer, tasks.get(task), asked,
                                       **options)
        cut = round(numbers["cut"] / len(rewards), 4)
        return {**row(rewards, asked), **numbers, "cut": cut}

    def in_context(self, task, n, seed, shots=10, show=tasks.gold):
        """Test questions behind the solved examples that CEM would search with,
        in one message; no weight changes. -> row.

        show(example): the answer that an example is shown with.
        """
        t, solved = tasks.get(task), self.shots(task, seed, shots)
        before = "".join(f"Question: {e.prompt}\nAnswer: {show(e)}\n\n" for e in solved)
        asked = self.examples(task, n)
        texts = evaluate.answers(self.model, self.tokenizer,
                                 [f"{before}Question: {e.prompt}\nAnswer:" for e in asked],
                                 t.max_tokens, title=f"{task} in context", batch=16,
                                 opener=t.opener)
        return row(tasks.rewards(asked, texts), asked)

    def shots(self, task, seed, count=10):
        """Solved examples for adaptation:
        of the val split, so that no test question is ever among them."""
        return tasks.get(task).examples("val", count, seed)

    def search(self, task, seed, shots=10, population=16, iterations=6, per_matrix=False,
               mixed=None, names=adapt.MIXED):
        """CEM (strategy C) over `mixed` (default: the base's experts of these names).
        -> (mixture, {alpha, history, ...}), kept in a file.

        mixed: [(expert, metadata)] of one method.
        """
        meta = widened(mixed) if mixed else {}
        if self.quick:
            population, iterations = 4, 2
        paths = ([m["path"] for _, m in mixed] if mixed
                 else [experts.find(name, self.model) for name in names])
        told = [shots, population, iterations, per_matrix, files.file_hash(paths)]
        if isinstance(tasks.get(task), tasks.ListTask):
            told.append(digest(self.shots(task, seed, shots)))
        path = self.file(f"cem-{task}-{seed}", told)
        if not ranks.agreed(path.exists()):
            experts_ = ([e for e, _ in mixed] if mixed
                        else list(experts.load(names, self.model).values()))
            with self.running({}, meta):
                mixture, found = adapt.adapt_cem(
                    self.model, self.tokenizer, tasks.get(task), experts_,
                    self.shots(task, seed, shots), per_matrix, iterations, population, seed,
                    lambda i, s: print(f"  cem {task} seed {seed}: iteration {i + 1} of "
                                       f"{iterations}, best {s.best_score[0]:.2f}", flush=True))
            K = len(experts_)
            keep = {"alpha": found.best.reshape(-1, K).mean(0).round(4).tolist(),
                    "shots_right": found.best_score[0],
                    "history": [{**h,
                                 "mean": np.reshape(h["mean"], (-1, K)).mean(0).round(4).tolist(),
                                 "std": np.reshape(h["std"], (-1, K)).mean(0).round(4).tolist()}
                                for h in found.history]}
            told = {"method": meta["method"], "config": meta["config"]} if meta else {}
            if ranks.rank() == 0:
                # another experiment may want the same mixture
                with files.only_one(self.folder, wait=True):
                    files.sweep(path)
                    experts.save_expert(path, mixture, {
                        "base_model": self.model.name, "base_sha256": self.model.base_sha256,
                        "task": task, "seed": seed, "kind": "cem mixture", "found": keep, **told})
            ranks.agreed(0)
        mixture, meta = experts.load_expert(path, self.model)
        return mixture, meta, meta["found"]


def questions(task):
    """What tells which questions, with their solutions, a list has to train on; nothing of made-up
    ones, which RULES is about."""
    t = tasks.get(task)
    if not isinstance(t, tasks.ListTask):
        return {}
    known = t.examples("train", WHOLE) + t.examples("val", WHOLE)
    return {"questions": digest(known) + digest([replace(e, answer=e.solution) for e in known])}


def widened(mixed):
    """Metadata for the layers that run a mixture of LoRA experts [(expert, metadata)]:
    K times the rank (lora.mix)."""
    meta, K = mixed[0][1], len(mixed)
    config = meta["config"]
    return {**meta, "config": {**config, "rank": K * config["rank"],
                               "lora_alpha": K * config["lora_alpha"]}}


def row(rewards, asked=()):
    """What is kept of one test score: share right with its 95 % interval,
    and each question's reward, for paired differences; and which questions these were."""
    told = {"asked": digest(asked)} if asked else {}
    return {"split": "test", "n": len(rewards), "score": round(sum(rewards) / len(rewards), 4),
            "ci95": [round(x, 4) for x in evaluate.wilson(sum(rewards), len(rewards))],
            "rewards": "".join(str(int(r)) for r in rewards), **told}


def digest(examples):
    """Which questions were asked: a hash of them and of their gold answers (of a program, of the
    reference; not of its asserts, nor of an image)."""
    text = json.dumps([(e.prompt, e.answer) for e in examples])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cell(run, note="", **key):
    """A row's key and what makes it; note: what a reader of the row must know."""
    def noted():
        return {**run(), "note": note}
    return {"seed": 0, **key}, noted if note else run

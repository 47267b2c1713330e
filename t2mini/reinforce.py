"""
Train one expert with REINFORCE (paper 3.2, equation 1):

    J(z) = E[ log pi_W'(y_hat | x) * r(y_hat, y) ] - lambda * KL(pi_W' || pi_W)

Kept:     sample answers from the model as it is, reward 1 for a right one, push its log-probability; only z is trained.
Changed:  several answers per question and their mean reward as baseline (the release: one greedy answer, none). Answers
          are sampled at temperature 1 and scored at it. The stop token is part of the answer: stopping is learnt too.
          The sum over tokens is divided by the tokens of the whole batch: one constant per step, so the direction is
          that of the plain sum (the unbiased one) and the size does not depend on the answers' length.
Beside:   --objective=next-token imitates gold answers through the same lines, as answers that were sampled and paid 1;
          --objective=options draws answers among the options that a question lists (likelihood.choose);
          --as-released=... goes back to the released code's choices, one at a time or all (recipe.py).
Left out: importance ratios and clipping of them: sampler and scorer are the same weights, one update per batch.
Run:      python -m t2mini train --task=math
"""
import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path

import torch

from . import evaluate, experts, lora, svf, tasks
from .machine import checkpoint, ranks
from .generate import generate
from .grade import graded_end
from .likelihood import check_length, choose, logprobs, micro_batches, pack
from .recipe import TrainConfig, settled     # noqa: F401 (callers say reinforce.TrainConfig)
from .machine.memory import return_memory


# ---------------------------------------------------------------------------------------------- equation 1
def advantages(reward, baseline="group", mean=None):
    """reward (groups, samples) -> reward minus its baseline; either baseline leaves the expected gradient as it is.

    "group", the mean over a question's answers, has less variance, but a question whose answers all earn the same then
    teaches nothing. Where that is nearly all of them (one-word answers, of which the model is sure), "batch" goes on.
    "none": the reward itself. mean: of all answers of the update, where `reward` holds only a part of them.
    """
    if baseline == "none":
        return reward
    return reward - (reward.mean(1, keepdim=True) if baseline == "group" else reward.mean() if mean is None else mean)


def policy_gradient(model, groups, advantage, temperature=1.0, norm=1.0, kl=0.0, chunk=128):
    """Add the gradient of -J to every z.grad. -> dict(loss, kl, tokens).

    groups     list of (prompt ids, [answer ids, ...]); advantage: one list of numbers per group, one per answer
    norm       what the sum over answer tokens is divided by
    Only answer tokens (stop token included) have a likelihood; prompt and padding get none. The tokens x vocabulary
    matrix exists for `chunk` tokens at a time: the head runs on a detached copy of the states, then one backward pass
    goes through the layers.
    """
    ids, positions, allowed, row, col, target = pack(groups, model.device)
    weight = torch.tensor([a for (_, answers), advs in zip(groups, advantage, strict=True)
                           for answer, a in zip(answers, advs, strict=True) for _ in answer], device=model.device)
    base = None
    if kl:
        with torch.no_grad(), svf.at_base(model):
            base = model.hidden(ids, positions, allowed)[row, col]              # (N, C)
    with torch.enable_grad():
        x = model.hidden(ids, positions, allowed)[row, col]
        leaf = x.detach().requires_grad_()
        loss = total_kl = 0.0
        for part in torch.arange(len(target), device=model.device).split(chunk):
            lp, logp = logprobs(model, leaf[part], target[part], temperature)
            objective = (weight[part] * lp).sum()                               # sum_t A * log pi(y_t | x, y_<t)
            if kl:                                                              # KL(tuned || base) at the states visited
                with torch.no_grad():
                    logq = logprobs(model, base[part], target[part], temperature)[1]
                p, q = logp[:, :model.valid_vocab], logq[:, :model.valid_vocab]     # padding is -inf: 0 * -inf is NaN
                divergence = (p.exp() * (p - q)).sum()
                objective, total_kl = objective - kl * divergence, total_kl + divergence.item()
            (-objective / norm).backward()
            loss -= objective.item() / norm
        x.backward(leaf.grad)
    return {"loss": loss, "kl": total_kl / len(target), "tokens": len(target)}


def credited(tokenizer, example, tokens, text):
    """The leading tokens of an answer that were graded: all, but for the prose that follows a code block.

    That prose did not earn the reward, so its likelihood is left alone; the release strengthens it all the same.
    """
    end = graded_end(text) if example.match == "code" else len(text)
    if end == len(text):
        return tokens
    return next(tokens[:n] for n in range(1, len(tokens) + 1) if len(tokenizer.decode(tokens[:n])) >= end)


# ---------------------------------------------------------------------------------------------- one update
def answers_to(model, tokenizer, task, cfg, step, examples, prompts, asked):
    """What an update learns from. -> (token ids of prompts * samples answers, which of them stopped, are all numbers finite?).

    The model writes them (reward), draws them among the options (options), or they are the gold ones (next-token).
    asked: the number of each question in the whole batch, which names its random stream.
    """
    seed = cfg.seed * 100_003 + step
    if cfg.objective == "reward":
        out = generate(model, prompts, cfg.max_tokens or task.max_tokens, tokenizer.stops(task.opener), cfg.temperature,
                       cfg.samples, seed=seed, row_ids=asked, finite=False)
        return [out.tokens(n) for n in range(len(out.lengths))], out.stopped.tolist(), bool(out.logprobs.isfinite().all())
    if cfg.objective == "options":
        options = [[tokenizer.answer(t, task.opener) for t in tasks.option_texts(e)] for e in examples]
        tokens, finite = choose(model, prompts, options, cfg.samples, cfg.temperature, seed, asked)
    else:
        tokens, finite = [tokenizer.answer(tasks.gold(e), task.opener) for e in examples], True
        check_length(model, [(p, [t]) for p, t in zip(prompts, tokens)])
    return tokens, [True] * len(tokens), finite


def update(model, tokenizer, task, cfg, step, optimizer):
    """Sample, score, update: one step of REINFORCE. -> (numbers for the log, one sample or the problem as text).

    With several ranks each takes some of the questions; all end with the same z. The step is skipped, and z and Adam
    stay as they were, where log-probabilities, rewards or the gradient are not finite numbers on any rank.
    """
    t0 = time.time()
    # --- sample ---
    examples = task.examples("train", cfg.prompts, seed=f"{cfg.seed}/{step}")
    if len(examples) < ranks.world():
        raise ValueError(f"{len(examples)} questions per update for {ranks.world()} processes; each needs one at least")
    asked = ranks.mine(range(len(examples)))
    examples = [examples[i] for i in asked]
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in examples]
    given = cfg.objective == "next-token"                   # the gold answers, as if sampled and paid 1
    tokens, stopped, finite = answers_to(model, tokenizer, task, cfg, step, examples, prompts, asked)
    texts = [tokenizer.decode(t) for t in tokens]
    return_memory()
    t1 = time.time()
    # --- score ---
    problem = "" if finite else "the model's log-probabilities are not finite numbers"
    try:
        earned = [1.0] * len(texts) if given else tasks.rewards([examples[n // cfg.samples] for n in range(len(texts))], texts)
    except tasks.RewardError as e:
        earned, problem = [0.0] * len(texts), str(e)
    if cfg.must_stop:
        earned = [r * float(s) for r, s in zip(earned, stopped)]
    reward = torch.tensor(earned).view(len(examples), cfg.samples)
    spread = reward.std(1, unbiased=False)
    answers = tokens if "all" in cfg.as_released else [
        credited(tokenizer, examples[n // cfg.samples], t, texts[n]) for n, t in enumerate(tokens)]
    # one sum over the ranks: from here on each of them knows the whole batch
    n_credited, n_tokens, n_stopped, reward_sum, spread_sum, n_flat, n_groups, problems = ranks.total([float(x) for x in (
        sum(map(len, answers)), sum(map(len, tokens)), sum(stopped), reward.sum(), spread.sum(), (spread == 0).sum(),
        len(examples), bool(problem))])
    n_answers = n_groups * cfg.samples
    mean, norm = reward_sum / n_answers, n_groups if "all" in cfg.as_released else n_credited
    if "signed" in cfg.as_released:
        reward, mean = 2 * reward - 1, 2 * mean - 1
    advantage = advantages(reward, cfg.baseline, mean)
    t2 = time.time()
    # --- update ---
    groups = [(p, answers[i * cfg.samples:(i + 1) * cfg.samples]) for i, p in enumerate(prompts)]
    used = [i for i in range(len(groups)) if cfg.kl or bool((advantage[i] != 0).any())]     # the rest has no gradient
    optimizer.zero_grad(set_to_none=False)
    kl = loss = 0.0
    for part in micro_batches([groups[i] for i in used]) if not problems else ():
        stats = policy_gradient(model, [groups[used[j]] for j in part], [advantage[used[j]].tolist() for j in part],
                                1.0 if cfg.objective == "options" else cfg.temperature, norm, cfg.kl)
        kl, loss = kl + stats["kl"] * stats["tokens"] / n_credited, loss + stats["loss"]
    for group in optimizer.param_groups:
        group["lr"] = cfg.lr if "all" in cfg.as_released else cfg.lr * 0.5 * (1 + math.cos(math.pi * step / cfg.steps))
    z = list(svf.trained(model).values())
    kl, loss, n_used = ranks.total([kl, loss, float(len(used))])
    ranks.add_gradients(z)
    grad_norm = float(torch.nn.utils.clip_grad_norm_(z, cfg.clip))
    skipped = problems > 0 or not math.isfinite(grad_norm)
    if not skipped and n_used:
        optimizer.step()
        svf.fold(model)
        ranks.check_equal(z)
    numbers = {"loss": loss} if given else {
        "reward": reward_sum / n_answers, "reward_spread": spread_sum / n_groups, "flat_groups": n_flat / n_groups}
    numbers |= {"grad_norm": grad_norm, "z_shift": svf.shift(model),
                "answer_len": n_tokens / n_answers, "cut": 1 - n_stopped / n_answers, "kl": kl,
                "skipped": int(skipped), "sec": time.time() - t0, "sec_sample": t1 - t0, "sec_score": t2 - t1,
                "sec_update": time.time() - t2}
    if skipped:
        return numbers, "skipped: " + (problem or ("another rank's problem" if problems else "the gradient is not finite"))
    return numbers, f"{examples[0].prompt[-90:]!r} -> {texts[0][:160]!r} earns {earned[0]:.0f}"


# ---------------------------------------------------------------------------------------------- the loop
def train(model, tokenizer, cfg, out, resume=False, cache=None, log=print, watch=None):
    """Train and write `out` (expert), `out`.jsonl (log) and `out`.ckpt (for --resume). -> dict of results.

    Selection uses the val split only. A step whose numbers are not finite, or whose rewards are none, is skipped and
    counted; after five in a row training stops. watch(step) is called at every validation, on the z of that step, and
    decides nothing. Raises ValueError where --resume finds no checkpoint or one of other settings, the log would replace
    the task's own file, or another run is writing the same files.
    """
    cfg, out = settled(cfg), Path(out)
    task = tasks.get(cfg.task)
    lora.attach(model, cfg.method, asdict(cfg), cache, progress=ranks.rank() == 0)
    z = svf.trained(model)
    for p in z.values() if "bf16" in cfg.as_released else ():
        p.data = p.data.bfloat16()
    count = sum(p.numel() for p in z.values())
    log(f"{cfg.method}: {count:,} trained numbers on {len(svf.layers(model))} matrices")
    # Weight decay would pull z to 0, which erases the matrix; equation 1 pulls to the base model by its KL term.
    optimizer = torch.optim.AdamW(z.values(), lr=cfg.lr, betas=(0.9, 0.99), weight_decay=0.0)
    state = {"step": 0, "best_val": -1.0, "best_step": 0, "stale": 0, "seconds": 0.0, "skipped": 0, "bad": 0}
    best, log_path, ckpt = svf.get_z(model), out.with_suffix(".jsonl"), out.with_suffix(".ckpt")
    told = {"config": asdict(cfg), "base_sha256": model.base_sha256, "dtype": str(model.dtype)}
    if Path(cfg.task).resolve() == log_path.resolve():
        raise ValueError(f"the log of {out} would replace the task file {cfg.task}; choose another --out")
    if resume and not ckpt.exists():
        raise ValueError(f"--resume: there is no checkpoint {ckpt}; start without --resume")
    val = task.examples("val", cfg.val_n, seed=0)           # selects the checkpoint; test data is never read here
    with checkpoint.output(out, log_path, ckpt) as log_file:
        if resume:
            best = checkpoint.load(ckpt, told, z, optimizer, best, state, model.device)
            svf.fold(model)
            log_file.truncate(checkpoint.end_of_step(log_path, state["step"]) if ranks.rank() == 0 else 0)
            log(f"resuming {out} after step {state['step']}")
        else:
            if ranks.rank() == 0:                           # killed before its first checkpoint, a run must not find
                ckpt.unlink(missing_ok=True)                # that of an earlier one
            log_file.truncate(0)
        t0 = time.time() - state["seconds"]
        while True:
            step = state["step"]
            if step % cfg.val_every == 0 or step == cfg.steps:
                if not resume or step != state.get("validated"):
                    right = sum(evaluate.score(model, tokenizer, task, val, choose=cfg.objective == "options"))
                    state["stale"] = 0 if right / len(val) > state["best_val"] else state["stale"] + 1
                    if state["stale"] == 0:
                        best, state["best_val"], state["best_step"] = svf.get_z(model), right / len(val), step
                    log(f"step {step:4d} | validation {evaluate.percent(right, len(val))}"
                        f"{'  (best so far)' if state['stale'] == 0 else ''}")
                    log_file.write(json.dumps({"step": step, "val": right / len(val), "val_n": len(val)}) + "\n")
                    if watch:
                        watch(step)
                state["validated"], state["seconds"] = step, time.time() - t0
                log_file.flush()
                os.fsync(log_file.fileno())                 # the log of a checkpoint is there when the checkpoint is
                if ranks.rank() == 0:
                    checkpoint.save(ckpt, told, z, optimizer, best, state)
            if step >= cfg.steps or state["stale"] >= cfg.patience or state["bad"] >= 5:
                break
            numbers, sample = update(model, tokenizer, task, cfg, step, optimizer)
            state["step"] += 1
            state["skipped"] += numbers["skipped"]
            if numbers["skipped"] or numbers["grad_norm"] > 0:          # a step without any gradient says nothing
                state["bad"] = state["bad"] + 1 if numbers["skipped"] else 0
            left = (time.time() - t0) / state["step"] * (cfg.steps - state["step"])
            log_file.write(json.dumps({"step": state["step"], **{k: round(v, 5) for k, v in numbers.items()}}) + "\n")
            log_file.flush()
            log(f"step {state['step']:4d} | " + " | ".join(
                f"{k} {numbers[k]:.3g}" for k in ("loss", "reward", "reward_spread", "flat_groups", "grad_norm", "z_shift",
                                                  "answer_len", "kl", "sec") if k in numbers) + f" | {left / 60:.1f} min left")
            if state["step"] % 5 == 1 or numbers["skipped"]:
                log("          " + sample)
        if state["bad"] >= 5:
            log("stopped: five steps in a row had numbers that were not finite; the best expert so far is kept")
        if ranks.rank() == 0:
            experts.save_expert(out, best, {
                "base_model": model.name, "base_sha256": model.base_sha256, "task": cfg.task, "seed": cfg.seed,
                "steps": state["step"], "best_step": state["best_step"], "val_accuracy": state["best_val"],
                "val_n": len(val), "parameterisation": "sigmoid" if "sigmoid" in cfg.as_released else "z",
                "modules": cfg.modules, "layers": cfg.layers, "method": cfg.method, "parameters": count, "config": asdict(cfg),
                "command": checkpoint.command(), "dtype": str(model.dtype), "torch": torch.__version__,
                "threads": torch.get_num_threads(), "processes": ranks.world()})
    return {"task": cfg.task, "expert": str(out), "seed": cfg.seed, **state, "seconds": time.time() - t0}

"""
Train one expert with REINFORCE (paper 3.2, equation 1):

    J(z) = E[ log pi_W'(y_hat | x) * r(y_hat, y) ] - lambda * KL(pi_W' || pi_W)

The first term is used for its gradient alone, with the drawn y_hat held fixed; that is the gradient
of the expected reward E[r].

Kept:     sample answers from the model as it is, reward 1 for a right one, push its
          log-probability; only z is trained.
Changed:  several answers per question and their mean reward as baseline (the release: one greedy
          answer, none). Answers are sampled at one temperature (recipe.py: 0.8) and scored at it.
          The stop token is part of the answer: stopping is learnt too. The sum over tokens is
          divided by the tokens of the whole batch: one constant per step, so the direction is that
          of the plain sum (the unbiased one) and the size does not depend on the answers' length.
Beside:   --objective=next-token imitates gold answers through the same lines, as answers that were
          sampled and paid 1; --objective=options draws answers among the options that a question
          lists (likelihood.draw_from); --as-released=... goes back to the released code's
          choices, one at a time or all (recipe.py).
Left out: importance ratios and clipping of them: sampler and scorer are the same weights, one
          update per batch.
Run:      python -m t2mini train --task=math (train.py has the loop)
"""
import math
import time
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace

import torch

from . import svf, tasks
from .generate import generate
from .grade import graded_end
from .likelihood import check_length, draw_from, logprobs, pack
from .machine import ranks
from .machine.batches import at_once, micro_batches, within
from .machine.fused import picked
from .machine.memory import return_memory
from .machine.text import ending
from .questions.example import Example

ROUNDING = 1e-6     # the mean of equal rewards leaves less. NaN is no less: `learn` skips that step


# ------------------------------------------------------------------------------------- equation 1
def advantages(reward, baseline="group", mean=None):
    """reward (groups, samples) -> reward minus its baseline, the mean over a question's answers
    ("group") or over all of the update ("batch"); "none": the reward itself.

    A mean leaves the expected gradient its direction. It shortens it by the factor 1 - 1/G (0.5 for
    the mean of G = 2 answers, 0.875 of 8), because an answer is part of its own mean. Adam does not
    see a constant factor; lambda of the KL term weighs as if it were divided by it.

    "group" has less variance, but a question whose answers all earn the same teaches nothing. Where
    nearly all do (one-word answers, of which the model is sure), "batch" goes on.
    mean: of all answers of the update, where `reward` holds only a part of them.
    """
    if baseline == "group":
        return reward - reward.mean(1, keepdim=True)
    if baseline == "batch":
        return reward - (reward.mean() if mean is None else mean)
    return reward


def policy_gradient(model, groups, advantage, temperature=1.0, norm=1.0, kl=0.0, chunk=0):
    """Add the gradient of -J to every z.grad. -> dict(loss, kl, tokens).

    groups     list of (prompt ids, [answer ids, ...])
    advantage  one list of numbers per group, one per answer
    norm       what the sum over answer tokens is divided by
    kl         lambda, of KL(tuned || base) over the whole vocabulary at every state that answer
               tokens (those of `credited`) come from, both at `temperature`: of the policies that
               sample. The answers must be drawn from the tuned model. A token also decides which
               states come after it, so it pays for their KL: its weight is the advantage minus
               lambda times the KL to go.
               Rewards are 0 and 1 here and -1 and 1 in the paper, so a lambda here pulls against
               the rewards as twice that lambda does there.
    Only answer tokens (stop token included) have a likelihood; prompt and padding get none. The
    tokens x vocabulary matrix exists for `chunk` tokens at a time (0: 512, and 128 with a KL term,
    which needs several such matrices): the head runs on a detached copy of the states, then one
    backward pass goes through the layers.
    """
    chunk = chunk or (128 if kl else 512)
    ids, positions, allowed, row, col, target = pack(groups, model.device)
    answer, weight = per_token(groups, advantage, model.device)                 # (N,), (N,)
    base = None
    if kl:
        with torch.no_grad(), svf.at_base(model):
            base = model.hidden(ids, positions, allowed)[row, col]              # (N, C)
    with torch.enable_grad():
        x = picked(model.hidden(ids, positions, allowed), row, col)             # (N, C)
        leaf = x.detach().requires_grad_()
        loss = 0.0
        divergence = torch.zeros(len(target), device=model.device)  # KL(tuned || base)
        for part in reversed(torch.arange(len(target), device=model.device).split(chunk)):
            lp, logp = logprobs(model, leaf[part], target[part], temperature, bool(kl))
            objective = (weight[part] * lp).sum()       # sum_t A * log pi(y_t | x, y_<t)
            surrogate = objective
            if kl:                                      # later tokens first: theirs is to go
                with torch.no_grad():
                    logq = logprobs(model, base[part], target[part], temperature, True)[1]
                here = full_kl(logp, logq, model.valid_vocab)                   # (n,)
                divergence[part] = here.detach()
                objective = objective - kl * here.sum()
                surrogate = objective - kl * (to_go(divergence, answer, part) * lp).sum()
            (-surrogate / norm).backward()
            loss -= objective.item() / norm
        x.backward(leaf.grad)
    return {"loss": loss, "kl": divergence.mean().item(), "tokens": len(target)}


def per_token(groups, advantage, device):
    """The number of the answer that each token belongs to and its advantage, in `pack`'s order."""
    numbers, weights, answer = [], [], 0
    for (_, answers), earned in zip(groups, advantage, strict=True):
        for tokens, weight in zip(answers, earned, strict=True):
            numbers += [answer] * len(tokens)
            weights += [weight] * len(tokens)
            answer += 1
    return torch.tensor(numbers, device=device), torch.tensor(weights, device=device)


def full_kl(logp, logq, vocab):
    """KL(p || q) over the whole vocabulary, of log-distributions (n, V). -> (n,)

    Behind `vocab` the vocabulary is padding, where both are -inf and 0 * -inf would be NaN.
    """
    p, q = logp[:, :vocab], logq[:, :vocab]
    return (p.exp() * (p - q)).sum(-1)


def to_go(divergence, answer, part):
    """What the tokens `part` (n,) lead to: the sum of `divergence` (N,) over the later tokens of
    the same answer. -> (n,)"""
    place = torch.arange(len(answer), device=answer.device)
    later = (place > part[:, None]) & (answer == answer[part][:, None])         # (n, N)
    return later.to(divergence.dtype) @ divergence


def credited(tokenizer, example, tokens, must_stop=False):
    """The leading tokens of an answer that decide its reward: all, but for what follows the first
    Python block that defines something.

    What stands behind the block does not earn the reward, so its likelihood is left alone; the
    release strengthens it all the same. The token behind the fence is credited, whichever it is: a
    line break completes the fence, the end is learnt with the answer, and with anything else the
    block goes on. must_stop: everything decides, as endless prose loses the reward.
    """
    def closed(n):
        return graded_end(tokenizer.decode(tokens[:n])) is not None

    if example.match != "code" or must_stop:
        return tokens
    n = bisect_left(range(len(tokens) + 1), True, key=closed)   # once closed, it stays closed
    return tokens[:n]


# ------------------------------------------------------------------------------------- one update
@dataclass
class Episode:
    """One answer to one question, and what came of it."""
    example: Example
    prompt: list                # token ids, the chat format included
    tokens: list                # of the answer, stop token included
    text: str
    stopped: bool               # False: max_tokens cut it off
    credited: list = ()         # the leading tokens that the reward is for
    reward: float = 0.0
    advantage: float = 0.0


def sample(model, tokenizer, task, cfg, step):
    """Answers to learn from. -> (episodes, a question's answers side by side; are all
    log-probabilities finite?).

    The model writes them (reward), draws them among the options (options), or they are the gold
    ones (next-token). With several ranks each takes some of the questions. ValueError where there
    are fewer questions than ranks.
    """
    examples = task.examples("train", cfg.prompts, seed=f"{cfg.seed}/{step}")
    if len(examples) < ranks.world():
        raise ValueError(f"{len(examples)} questions per update for {ranks.world()} processes; "
                         "each needs one at least")
    asked = ranks.mine(range(len(examples)))        # a question's number names its random stream
    examples = [examples[i] for i in asked]
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in examples]
    seed = cfg.seed * 100_003 + step
    if cfg.objective == "reward":
        tokens, stopped, finite = write(model, tokenizer, task, cfg, prompts, seed, asked)
    elif cfg.objective == "options":
        tokens, stopped, finite = pick(model, tokenizer, task, cfg, examples, prompts, seed, asked)
    else:
        tokens, stopped, finite = recite(model, tokenizer, task, examples, prompts)
    return_memory()
    who = [n // cfg.samples for n in range(len(tokens))]
    return [Episode(examples[i], prompts[i], answer, tokenizer.decode(answer), stopped[n])
            for n, (i, answer) in enumerate(zip(who, tokens))], finite


def write(model, tokenizer, task, cfg, prompts, seed, asked):
    """Answers that the model writes. -> (token ids, which stopped, all finite?), prompt-major."""
    out = generate(model, prompts, cfg.max_tokens or task.max_tokens, tokenizer.stops(task.opener),
                   cfg.temperature, cfg.samples, seed=seed, row_ids=asked, finite=False)
    tokens = [out.tokens(n) for n in range(len(out.lengths))]
    return tokens, out.stopped.tolist(), bool(out.logprobs.isfinite().all())


def pick(model, tokenizer, task, cfg, examples, prompts, seed, asked):
    """Answers drawn among the options that a question lists. -> as `write`."""
    options = [[tokenizer.answer(text, task.opener) for text in tasks.option_texts(example)]
               for example in examples]
    tokens, finite = draw_from(model, prompts, options, cfg.samples, cfg.temperature, seed, asked)
    return tokens, [True] * len(tokens), finite


def recite(model, tokenizer, task, examples, prompts):
    """The gold answers. -> as `write`."""
    tokens = [tokenizer.answer(tasks.gold(e), task.opener) for e in examples]
    check_length(model, [(p, [t]) for p, t in zip(prompts, tokens)])
    return tokens, [True] * len(tokens), True


def score(tokenizer, cfg, episodes):
    """Give every episode its reward, and say which of its tokens that is for. -> how many programs
    of the answers took too long.

    Raises RewardError where a judge failed: the episodes then have earned nothing.
    """
    counts = Counter()
    for e in episodes:
        e.credited = e.tokens
        if not cfg.prose_credited:
            e.credited = credited(tokenizer, e.example, e.tokens, cfg.must_stop)
        if cfg.retokenised:
            e.credited = tokenizer.encode(tokenizer.raw_text(e.credited))
    if cfg.objective == "next-token":               # as if sampled and paid 1
        earned = [1.0] * len(episodes)
    else:
        earned = tasks.rewards([e.example for e in episodes], [e.text for e in episodes], counts)
    for e, reward in zip(episodes, earned, strict=True):
        e.reward = reward
        if cfg.must_stop and not e.stopped:
            e.reward = 0.0
    return counts["timeouts"]


def totals(cfg, episodes, failed, timeouts=0):
    """What the whole batch, on all ranks, adds up to. -> dict.

    failed: does this rank know that the numbers of this update are no good? timeouts: of programs.
    """
    reward = by_question(cfg, episodes)
    spread = reward.std(1, unbiased=False)
    return over_ranks({
        "questions": len(reward),
        "tokens": sum(len(e.tokens) for e in episodes),
        "credited": sum(len(e.credited) for e in episodes),
        "stopped": sum(e.stopped for e in episodes),
        "reward": reward.sum(),
        "spread": spread.sum(),
        "flat": (spread < ROUNDING).sum(),
        "failed": failed,
        "timeouts": timeouts})


def compare(cfg, episodes, whole):
    """Give every episode its advantage. whole: of `totals`."""
    reward = by_question(cfg, episodes)
    mean = whole["reward"] / (whole["questions"] * cfg.samples)
    reward = reward + cfg.wrong * (1 - reward)              # a wrong answer earns `wrong`, not 0
    mean = mean + cfg.wrong * (1 - mean)
    advantage = advantages(reward, cfg.baseline, mean).flatten().tolist()
    for e, a in zip(episodes, advantage, strict=True):
        e.advantage = a


def by_question(cfg, episodes):
    """What the episodes earned, as a tensor (questions, samples)."""
    return torch.tensor([e.reward for e in episodes]).view(-1, cfg.samples)


def over_ranks(numbers):
    """dict of numbers -> their sums over all ranks, in one message."""
    return dict(zip(numbers, ranks.total([float(x) for x in numbers.values()])))


def learn(model, cfg, step, optimizer, episodes, whole):
    """One step of Adam along the gradient of J, from all ranks' episodes. -> dict(loss, kl,
    grad_norm, skipped).

    The step is skipped, and z and Adam stay as they were, where rewards or log-probabilities
    (whole["failed"]) or the gradient are not finite numbers on any rank.
    """
    groups, advantage = worth_learning(cfg, episodes, at_once(model))
    norm = whole["questions" if cfg.sum_per_answer else "credited"]
    # options: the gradient is that of the plain likelihoods (likelihood.draw_from)
    temperature = 1.0 if cfg.objective == "options" else cfg.temperature
    sums = {"kl": 0.0, "loss": 0.0, "used": len(groups)}
    optimizer.zero_grad(set_to_none=False)
    for settings in optimizer.param_groups:
        settings["lr"] = learning_rate(cfg, step)
    if not whole["failed"]:
        for part in micro_batches(groups, at_once(model)):
            stats = policy_gradient(model, [groups[i] for i in part], [advantage[i] for i in part],
                                    temperature, norm, cfg.kl)
            sums["kl"] += stats["kl"] * stats["tokens"] / whole["credited"]
            sums["loss"] += stats["loss"]
    sums = over_ranks(sums)
    z = list(svf.trained(model).values())
    ranks.add_gradients(z)
    grad_norm = float(torch.nn.utils.clip_grad_norm_(z, cfg.clip))
    finite = math.isfinite(grad_norm) and math.isfinite(sums["loss"])
    skipped = whole["failed"] > 0 or not finite
    if not skipped and sums["used"]:
        optimizer.step()
        svf.fold(model)                             # the next answers come from the new weights
        ranks.check_equal(z)
    return {"loss": sums["loss"], "kl": sums["kl"], "grad_norm": grad_norm, "skipped": skipped}


def worth_learning(cfg, episodes, budget):
    """The episodes as policy_gradient takes them. -> (groups, advantages), one of each for a
    question, or more where its answers are too long for one batch.

    Without a KL term, a question whose answers all have advantage 0 has no gradient: left out.
    """
    groups, advantage = [], []
    for at in range(0, len(episodes), cfg.samples):
        group = [e for e in episodes[at:at + cfg.samples] if e.credited]    # "" retokenised: none
        # rewards lie between `wrong` and 1
        teaches = any(not abs(e.advantage) <= ROUNDING * (1 - cfg.wrong) for e in group)
        if group and (cfg.kl or teaches):
            for some in within(group, budget, len(group[0].prompt), lambda e: len(e.credited)):
                groups.append((group[0].prompt, [e.credited for e in some]))
                advantage.append([e.advantage for e in some])
    return groups, advantage


def learning_rate(cfg, step):
    """cfg.lr, decayed to 0 along a cosine (paper, Table 6); constant as released."""
    if cfg.constant_lr:
        return cfg.lr
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * step / cfg.steps))


def update(model, tokenizer, task, cfg, step, optimizer):
    """One step of REINFORCE: sample, score, learn. -> (numbers for the log, one sample or what went
    wrong as text). cfg: a Recipe.

    With several ranks each takes some of the questions; all end with the same z.
    """
    t0 = time.time()
    episodes, finite = sample(model, tokenizer, task, cfg, step)
    problem = "" if finite else "the model's log-probabilities are not finite numbers"
    t1, timeouts = time.time(), 0
    try:
        timeouts = score(tokenizer, cfg, episodes)
    except tasks.RewardError as e:
        problem = str(e)
    whole = totals(cfg, episodes, bool(problem), timeouts)
    compare(cfg, episodes, whole)
    t2 = time.time()
    learnt = learn(model, cfg, step, optimizer, episodes, whole)
    numbers = for_the_log(model, cfg, whole, learnt)
    numbers |= {"sec": time.time() - t0, "sec_sample": t1 - t0, "sec_score": t2 - t1,
                "sec_update": time.time() - t2}
    if not learnt["skipped"]:
        return numbers, shown(episodes)
    if not problem:
        problem = "another rank's problem" if whole["failed"] else "the gradient is not finite"
    return numbers, f"skipped: {problem}"


def shown(episodes):
    """One answer as a line; where none of this rank's earned anything, beside the gold one."""
    if any(e.reward for e in episodes):
        return line(episodes[0])
    for e in episodes:
        for match in ("number", "exact", "contains"):
            if not (e.example.options or fits(e, e.example.match)) and fits(e, match):
                return f"{beside_gold(e)}. match={match} would accept it"
    return f"{beside_gold(episodes[0])}, match={episodes[0].example.match}"


def beside_gold(e):
    return f"{line(e)}; gold: {str(e.example.answer)[:80]!r}"


def line(e):
    return f"{ending(e.example.prompt)!r} -> {e.text[:160]!r} earns {e.reward:g}"


def fits(episode, match):
    """Would this answer earn a reward if its example were judged by `match`?"""
    try:
        return tasks.right(replace(episode.example, match=match), episode.text)
    except (ValueError, TypeError, AttributeError):     # a gold answer that is no number, say
        return False


def for_the_log(model, cfg, whole, learnt):
    """What a row of the log says of an update, but for the clock."""
    answers = whole["questions"] * cfg.samples
    if cfg.objective == "next-token":
        numbers = {"loss": learnt["loss"]}
    else:
        numbers = {"reward": whole["reward"] / answers,
                   "reward_spread": whole["spread"] / whole["questions"],
                   # a lone answer is never alike
                   "flat_groups": whole["flat"] / whole["questions"] * (cfg.samples > 1)}
    return numbers | {
        "grad_norm": learnt["grad_norm"], "z_shift": svf.shift(model),
        "answer_len": whole["tokens"] / answers, "cut": 1 - whole["stopped"] / answers,
        "kl": learnt["kl"], "skipped": int(learnt["skipped"]), "timeouts": whole["timeouts"]}

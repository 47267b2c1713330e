"""
Two passes (paper 3.2): the first finds out what a question needs, the second answers it.

    A  prompt       ask the base model which skill the question needs
    B  classifier   ask the same question of a dispatcher expert, trained for nothing else
    C  cem          search, once per task, a mixture of experts on a few solved examples

Changed:  the first pass always runs on the base weights or the dispatcher, never on what was loaded last; "other" and
          unreadable answers get the base model itself; one dispatch prompt is used everywhere; a single question is
          adapted end to end. Shots come from the val split, scores from test (the release takes both from test).
Restores: whatever happens, the base model is back afterwards, bit for bit.
"""
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch

from . import evaluate, lora, svf, tasks
from .machine import ranks
from .cem import cem
from .generate import generate

SKILLS = tuple(label for label in tasks.LABELS if label != "other")     # each has an expert of that name
FEW = 8                 # so few questions go through the dispatcher's factors: folding its matrices would take longer
MIXED = ("math", "code", "reasoning")                                   # what CEM mixes, in the order of alpha


@dataclass(frozen=True)
class Route:
    """label: where the question goes; said: what the model answered; probabilities: dict label -> share.

    readable is False where `said` named no label; the label is "other" then, and evaluation counts it apart.
    """
    label: str
    said: str
    probabilities: dict
    readable: bool = True


# ---------------------------------------------------------------------------------------------- first pass
@torch.inference_mode()
def route(model, tokenizer, questions, dispatcher=None, batch=32, label=""):
    """Strategy A (dispatcher None: the base model is asked) or B (`dispatcher`: that expert is). -> list of Route."""
    prompts = [tokenizer.prompt(tasks.dispatch_prompt(q), opener=tasks.DISPATCH_OPENER) for q in questions]
    asked = ranks.mine(range(len(prompts)))
    order = sorted(asked, key=lambda i: len(prompts[i]))
    routes, progress = [None] * len(prompts), evaluate.Progress(label, len(order))
    # Labels in both spellings; a probability is that of a label's first token, shared out among the four.
    spelt = {name: [tokenizer.encode(form) for form in (name, name.capitalize())] for name in tasks.LABELS}
    first = {name: [ids[0] for ids in forms] for name, forms in spelt.items()}
    stops = {*tokenizer.stop_ids, *(ids[0] for forms in spelt.values() for ids in forms if len(ids) == 1)}  # all is said
    few = dispatcher is not None and len(prompts) <= FEW
    through_factors = svf.per_row(model, [dispatcher], [0] * len(asked)) if few else nullcontext()
    with svf.using(model, dispatcher if dispatcher and not few else {}), through_factors as rows:
        for at in range(0, len(order), batch):
            part = [prompts[i] for i in order[at:at + batch]]
            out = generate(model, part, tasks.DISPATCH_TOKENS, stops, temperature=0, rows=rows)
            p = out.first_logits.float().softmax(-1)                                    # (B, V)
            share = torch.stack([p[:, ids].sum(1) for ids in first.values()], 1)        # (B, 4)
            share = share / share.sum(1, keepdim=True)
            for n, i in enumerate(order[at:at + batch]):
                said = tokenizer.decode(out.tokens(n))
                found = tasks.find_label(said)
                routes[i] = Route(found or "other", said.strip(), dict(zip(first, share[n].tolist())), found is not None)
            progress.add(len(part))
    return [Route(**r) for r in ranks.merged([asdict(routes[i]) for i in asked])]


# ---------------------------------------------------------------------------------------------- second pass
def answer_routed(model, tokenizer, questions, labels, experts, max_tokens, label="", **options):
    """Each question answered by the expert of its label, "other" by the base model. -> list of texts.

    The base model's questions are one batch on its own weights, bit for bit; those of all experts are one more, in which
    every row has its expert's z.
    """
    texts, names = [None] * len(questions), sorted(set(labels) - {"other"})
    for routed in (False, True):
        mine = [i for i, found in enumerate(labels) if (found != "other") == routed]
        which = [names.index(labels[i]) for i in mine] if routed and len(names) > 1 else None
        with svf.using(model, experts[names[0]] if routed and len(names) == 1 else {}):
            found = evaluate.answers(model, tokenizer, [questions[i] for i in mine], max_tokens, **options, which=which,
                                     experts=[experts[n] for n in names],
                                     label=label and f"{label} ({', '.join(names) if routed else 'base'})")
        for i, text in zip(mine, found):
            texts[i] = text
    return texts


# ---------------------------------------------------------------------------------------------- strategy C
def mixture(experts, alpha, names=None):
    """alpha (K,) one weight per expert, or (K * matrices,) one per expert and matrix -> mixed expert."""
    K = len(experts)
    mix = lora.kind_of(experts[0]).mix
    if len(alpha) == K:
        return mix(experts, list(alpha))
    return mix(experts, dict(zip(names, np.reshape(alpha, (len(names), K)))))


def score_mixtures(model, tokenizer, task, shots, mixed, batch=160):
    """(accuracy, mean log-likelihood per token of the right answers) on the shots, for every mixture in `mixed`.

    The tie-break is the paper's: how sure a mixture was of its own right answers. All mixtures times all shots are
    rows of the same generation, each row with its own z (svf.per_row).
    """
    prompts = [tokenizer.prompt(e.prompt, opener=task.opener) for e in shots]
    jobs = sorted(((k, s) for k in range(len(mixed)) for s in range(len(shots))), key=lambda job: len(prompts[job[1]]))
    jobs = ranks.mine(jobs)
    right, sure = np.zeros((len(mixed), len(shots))), np.zeros((len(mixed), len(shots)))
    for at in range(0, len(jobs), batch):
        part = jobs[at:at + batch]
        with svf.per_row(model, mixed, [k for k, _ in part]) as rows:
            out = generate(model, [prompts[s] for _, s in part], task.max_tokens, tokenizer.stops(task.opener), 0, rows=rows)
        texts = [tokenizer.decode(out.tokens(n)) for n in range(len(part))]
        mean_logprob = (out.logprobs.sum(1) / out.lengths).tolist()
        for (k, s), reward, lp in zip(part, tasks.rewards([shots[s] for _, s in part], texts), mean_logprob):
            right[k, s], sure[k, s] = reward, reward * lp
    right, sure = np.array(ranks.total([right.tolist(), sure.tolist()]))
    # no right answer: the tie-break has nothing to say, and must not look better than a real log-likelihood
    likelihood = np.where(right.sum(1) > 0, sure.sum(1) / np.maximum(right.sum(1), 1), -np.inf)
    return list(zip(right.mean(1).tolist(), likelihood.tolist()))


def adapt_cem(model, tokenizer, task, experts, shots, per_matrix=False, iterations=6, population=16, seed=0,
              progress=lambda i, search: None):
    """Strategy C: search alpha on `shots` (examples of the val split). -> (mixed expert, Search).

    alpha starts at the uniform mixture; the base model and each single expert join the first population, so the result
    is, on the shots, never worse than any of them (given a population above K + 1). Base weights are back afterwards.
    """
    K = len(experts)
    names = sorted({n for e in experts for n in e}) if per_matrix else None
    d = K * len(names) if per_matrix else K
    single = [np.tile(np.eye(K)[k], d // K) for k in range(K)]

    def score(candidates):
        return score_mixtures(model, tokenizer, task, shots, [mixture(experts, a, names) for a in candidates])

    try:
        search = cem(score, np.full(d, 1 / K), 0.5 if not per_matrix else 0.3, iterations, population,
                     include=[np.zeros(d), *single], seed=seed, progress=progress)
    finally:
        svf.reset(model)
    return mixture(experts, search.best, names), search

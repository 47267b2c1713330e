"""
log pi(answer | prompt) of answers that are there already (paper 3.2): several answers of a question
in one row.

Trades:   one prompt and its answers in a row need a mask of S x S, and save the prompt's work for
          all answers but one.
"""
import torch

from .generate import at_temperature, uniforms
from .machine.batches import micro_batches
from .machine.fused import log_likelihood


def pack(groups, device):
    """Groups of (prompt ids, [answer ids, ...]) -> one row per group: the prompt once, then its
    answers one by one.

    Returns ids (B, S), positions (B, S), allowed (B, S, S) and, for every answer token, the row and
    column of the state that predicts it and the token itself: row, col, target (N,), in the order
    of groups and answers. An answer sees the prompt and itself but not its siblings, so each token
    gets the state it had when it was sampled.
    """
    # nothing follows an answer's last token, so it is never an input
    S = max(len(prompt) + sum(len(a) - 1 for a in answers)
            for prompt, answers in groups)
    B = len(groups)
    ids = torch.zeros(B, S, dtype=torch.long)
    positions = torch.zeros_like(ids)
    segment = torch.full_like(ids, -1)                      # -1 padding, 0 prompt, 1.. answers
    row, col, target = [], [], []
    for b, (prompt, answers) in enumerate(groups):
        P = len(prompt)
        ids[b, :P] = torch.tensor(prompt)
        positions[b, :P] = torch.arange(P)
        segment[b, :P] = 0
        at = P
        for s, answer in enumerate(answers, 1):
            n = len(answer) - 1
            end = at + n
            ids[b, at:end] = torch.tensor(answer[:n])
            positions[b, at:end] = torch.arange(P, P + n)
            segment[b, at:end] = s
            row += [b] * len(answer)
            col.append(P - 1)                               # the prompt's last state comes first
            col += range(at, end)
            target += answer
            at = end
    found = [ids, positions, visible(segment), *map(torch.tensor, (row, col, target))]
    return [t.to(device) for t in found]


def visible(segment):
    """segment (B, S): -1 padding, 0 prompt, 1.. answers -> allowed (B, S, S): query, key."""
    S = segment.shape[1]
    query, key = segment[:, :, None], segment[:, None, :]
    earlier = torch.ones(S, S, dtype=torch.bool).tril()
    allowed = ((key == query) | (key == 0)) & (key >= 0) & earlier
    return allowed | torch.eye(S, dtype=torch.bool)         # else padding's softmax is NaN


def logprobs(model, x, target, temperature, whole=False):
    """log pi(target) (N,) from states x (N, C), and the log-distribution (N, V) if the `whole` of
    it is wanted, else None."""
    logits = model.head(x)
    if not whole:
        return log_likelihood(logits, target, temperature or 1), None
    logp = at_temperature(logits, temperature).log_softmax(-1)
    return logp.gather(1, target[:, None])[:, 0], logp


def check_length(model, groups):
    """ValueError where a prompt of (prompt ids, [answer ids, ...]) with one of its answers is
    longer than the model's context."""
    longest = max((len(prompt) + max(map(len, answers)) for prompt, answers in groups), default=0)
    if longest > model.cfg.max_position_embeddings:
        raise ValueError(f"a question with its answer has {longest} tokens, which exceeds this "
                         f"model's context of {model.cfg.max_position_embeddings}")


@torch.no_grad()
def likelihoods(model, groups, chunk=128):
    """log pi(answer | prompt), stop token included, of groups of (prompt ids, [answer ids, ...]): a
    tensor (answers,) for each group."""
    check_length(model, groups)
    found = [None] * len(groups)
    for part in micro_batches(groups):
        ids, positions, allowed, row, col, target = pack([groups[i] for i in part], model.device)
        x = model.hidden(ids, positions, allowed)[row, col]                     # (N, C)
        lp = torch.cat([logprobs(model, states, tokens, 1.0)[0]
                        for states, tokens in zip(x.split(chunk), target.split(chunk))])    # (N,)
        lengths = [len(a) for i in part for a in groups[i][1]]
        by_answer = iter(lp.split(lengths))
        for i in part:
            found[i] = torch.stack([next(by_answer).sum() for _ in groups[i][1]])
    return found


def draw_from(model, prompts, options, samples, temperature, seed, row_ids):
    """Draw answers among given ones, instead of among all texts. -> (token ids of prompts * samples
    answers, all finite?).

    options: for each prompt the token ids of every answer there is. pi(option) is proportional to
    likelihood ^ (1 / temperature). No draw is lost to a text that is none of the options, so the
    temperature can be high enough for all of them to be tried. Up to 1 / temperature, a constant,
    the gradient is that of the plain likelihoods: what makes pi sum to 1 is the same for all
    options of a question, and advantages that sum to 0 within a question take it out.
    """
    u = uniforms(seed, row_ids, samples, 1).view(len(prompts), samples)
    found = likelihoods(model, list(zip(prompts, options)))
    tokens, finite = [], True
    for answers, scores, draws in zip(options, found, u):
        finite = finite and bool(scores.isfinite().all())
        below = (scores.float().cpu() / temperature).softmax(0).cumsum(0)
        drawn = torch.searchsorted(below, draws * below[-1]).clamp(max=len(answers) - 1)
        tokens += [answers[k] for k in drawn]
    return tokens, finite

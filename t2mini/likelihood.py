"""
log pi(answer | prompt) of answers that are there already (paper 3.2): several answers of a question in one row.

Trades:   one prompt and its answers in a row need a mask of S x S, and save the prompt's work for all answers but one.
"""
import torch

from .generate import at_temperature, uniforms


def pack(groups, device):
    """Groups of (prompt ids, [answer ids, ...]) -> one row per group: the prompt once, then its answers one by one.

    Returns ids (B, S), positions (B, S), allowed (B, S, S) and, for every answer token, the row and column of the state
    that predicts it and the token itself: row, col, target (N,), in the order of groups and answers. An answer sees the
    prompt and itself but not its siblings, so each token gets the state it had when it was sampled.
    """
    S = max(len(p) + sum(len(a) - 1 for a in answers) for p, answers in groups)
    ids = torch.zeros(len(groups), S, dtype=torch.long)
    positions, segment = torch.zeros_like(ids), torch.full_like(ids, -1)        # segment 0 prompt, 1.. answers
    row, col, target = [], [], []
    for b, (prompt, answers) in enumerate(groups):
        P = at = len(prompt)
        ids[b, :P], positions[b, :P], segment[b, :P] = torch.tensor(prompt), torch.arange(P), 0
        for s, answer in enumerate(answers, 1):
            n = len(answer) - 1                             # nothing follows the last token, so it is never an input
            ids[b, at:at + n] = torch.tensor(answer[:-1])
            positions[b, at:at + n], segment[b, at:at + n] = torch.arange(P, P + n), s
            row += [b] * (n + 1)
            col += [P - 1, *range(at, at + n)]              # the prompt's last state predicts the first token
            target += answer
            at += n
    query, key = segment[:, :, None], segment[:, None, :]
    allowed = ((key == query) | (key == 0)) & (key >= 0) & torch.ones(S, S, dtype=torch.bool).tril()
    allowed |= torch.eye(S, dtype=torch.bool)               # padding looks at itself, else its softmax is NaN
    return [t.to(device) for t in (ids, positions, allowed, *map(torch.tensor, (row, col, target)))]


def logprobs(model, x, target, temperature):
    """log pi(target) (N,) and the whole log-distribution (N, V) from states x (N, C)."""
    logp = at_temperature(model.head(x), temperature).log_softmax(-1)
    return logp.gather(1, target[:, None])[:, 0], logp


def micro_batches(groups, budget=512):
    """Indices of groups, sorted by packed length, in batches of at most `budget` padded tokens."""
    size = [len(p) + sum(map(len, answers)) for p, answers in groups]
    batch, out = [], []
    for i in sorted(range(len(groups)), key=size.__getitem__):
        if batch and (len(batch) + 1) * size[i] > budget:
            out, batch = out + [batch], []
        batch.append(i)
    return out + [batch] if batch else out


def check_length(model, groups):
    """ValueError where a prompt of (prompt ids, [answer ids, ...]) with one of its answers is longer than the model's context."""
    longest = max(len(p) + max(map(len, answers)) for p, answers in groups)
    if longest > model.cfg.max_position_embeddings:
        raise ValueError(f"a question with its answer has {longest} tokens, which exceeds this model's context of "
                         f"{model.cfg.max_position_embeddings}")


@torch.no_grad()
def likelihoods(model, groups, chunk=128):
    """log pi(answer | prompt), stop token included, of groups of (prompt ids, [answer ids, ...]): a tensor for each group."""
    check_length(model, groups)
    found = [None] * len(groups)
    for part in micro_batches(groups):
        ids, positions, allowed, row, col, target = pack([groups[i] for i in part], model.device)
        x = model.hidden(ids, positions, allowed)[row, col]                     # (N, C)
        lp = torch.cat([logprobs(model, a, t, 1.0)[0] for a, t in zip(x.split(chunk), target.split(chunk))])
        answers = iter(lp.split([len(a) for i in part for a in groups[i][1]]))
        for i in part:
            found[i] = torch.stack([next(answers).sum() for _ in groups[i][1]])
    return found


def choose(model, prompts, options, samples, temperature, seed, row_ids):
    """Draw answers among given ones, instead of among all texts. -> (token ids of prompts * samples answers, all finite?).

    options: for each prompt the token ids of every answer there is. pi(option) ~ likelihood ^ (1 / temperature). No draw is
    lost to a text that is none of the options, so the temperature can be high enough for all of them to be tried. The
    gradient is that of the plain likelihoods: what makes pi sum to 1 is the same for all options of a question, and
    advantages that sum to 0 within a question (its mean reward as baseline) take it out.
    """
    u = uniforms(seed, row_ids, samples, 1).view(len(prompts), samples)
    tokens, finite = [], True
    for texts, scores, draws in zip(options, likelihoods(model, list(zip(prompts, options))), u):
        finite = finite and bool(scores.isfinite().all())
        c = (scores.float().cpu() / temperature).softmax(0).cumsum(0)
        tokens += [texts[k] for k in torch.searchsorted(c, draws * c[-1]).clamp_(max=len(texts) - 1)]
    return tokens, finite

"""
Sample answers: batched, cached, and such that no row can see who shares its batch (paper 2:
pi(y | x)).

Kept:     the log-probability of every sampled token, stop token included, at the sampling
          temperature; it is the quantity REINFORCE differentiates (reinforce.py), so sampler and
          scorer must mean the same by it.
Changed:  the prompt is computed once for all samples of it; finished rows leave the batch; every
          row draws from its own random stream, keyed by (seed, row, sample), so neither of these
          changes an answer but by rounding: bfloat16 adds up another batch in another order, and
          of two tokens that are nearly as likely the other one may be drawn.
Left out: top-k, top-p, beams, stop words (the released code cut every answer that contained
          "Instruction").
"""
from dataclasses import dataclass

import torch

from .machine import packed
from .machine.batches import NotFinite
from .machine.fused import in_blocks
from .machine.settings import check_prompts

AT_ONCE = 1024          # of a question: a mask has a number for each of them and each key
SHRINK = 0.75           # the batch shrinks once a quarter of it is done: moving the cache costs too


@dataclass
class Samples:
    """N = prompts * samples rows, prompt-major.

    ids (N, max_tokens) padded with 0; lengths (N,) tokens written, stop token included; logprobs
    (N, max_tokens) float32; stopped (N,) False where `max_tokens` cut the answer; first_logits
    (prompts, V): what the model thought of every token that could open the answer; row_steps: rows
    computed, summed over steps, for row efficiency.
    """
    ids: torch.Tensor
    lengths: torch.Tensor
    logprobs: torch.Tensor
    stopped: torch.Tensor
    first_logits: torch.Tensor
    row_steps: int = 0

    def tokens(self, n):
        """The tokens of row n, stop token included, as a list."""
        return self.ids[n, :self.lengths[n]].tolist()

    def write(self, step, row, token, logprob, stop):
        """Put down the tokens (n,) that the answers row (n,) drew at this step."""
        self.ids[row, step] = token
        self.logprobs[row, step] = logprob
        self.lengths[row] += 1
        self.stopped[row] = torch.isin(token, stop)


@dataclass
class Batch:
    """The rows that still write, and all that must be copied or dropped together with them.

    real (n, T): False at padding; position (n,): where the next token stands in its text.
    """
    cache: object
    rows: object                        # svf.Rows, or None where all rows have the same weights
    real: torch.Tensor
    position: torch.Tensor

    def select(self, kept):
        """Keep these rows, in this order; a row named twice is copied."""
        self.cache.select(kept)
        if self.rows is not None:
            self.rows.select(kept)
        self.real = self.real[kept]
        self.position = self.position[kept]

    def step(self, model, token):
        """Write token (n,) behind the rows. -> logits (n, V) of what follows it."""
        one_more = self.real.new_ones(len(token), 1)
        self.real = torch.cat((self.real, one_more), 1)
        position, allowed = self.position[:, None], self.real[:, None]
        x = model.hidden(token[:, None], position, allowed, self.cache)
        self.position += 1
        return model.head(x[:, -1])


def uniforms(seed, row_ids, samples, count):
    """(rows * samples, count) uniform numbers in (0, 1]; each row has its own generator, whatever
    the batch."""
    table = torch.empty(len(row_ids) * samples, count)
    for n in range(len(table)):
        prompt, sample = divmod(n, samples)
        key = (seed * 1_000_003 + row_ids[prompt]) * 1_009 + sample
        g = torch.Generator().manual_seed(key % (1 << 32))      # of which it reads 32 bits
        table[n] = 1 - torch.rand(count, generator=g)
    return table


def at_temperature(logits, temperature):
    """logits (..., V) -> float32 logits / temperature; temperature 0 (arg-max) is scored at 1."""
    logits = logits.float()
    return logits if temperature in (0, 1) else logits / temperature


def draw(logits, u, temperature):
    """One token per row. logits (n, V), u (n,) in (0, 1] -> tokens (n,), their log-probabilities
    (n,).

    Inverse CDF: the first token whose cumulative probability reaches u. Because u > 0, a token of
    probability 0 is never drawn; torch.multinomial does the same at fifty times the cost on a CPU.
    temperature 0 takes the arg-max and reports log-probabilities at temperature 1.
    """
    logits = at_temperature(logits, temperature)
    p = logits.softmax(-1)
    if temperature == 0:
        token = logits.argmax(-1)               # of float32: six times as quick as of bfloat16
    else:
        c = p.cumsum(-1)
        reached = torch.searchsorted(c, u[:, None] * c[:, -1:])                 # (n, 1)
        token = reached[:, 0].clamp_(max=p.shape[1] - 1)
    return token, p.gather(1, token[:, None])[:, 0].log()


def left_pad(prompts, device):
    """Lists of ids -> ids (B, P), real (B, P) boolean: padding goes left, so all rows end in the
    same column."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    real = torch.zeros_like(ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, -len(prompt):] = torch.tensor(prompt)
        real[row, -len(prompt):] = True
    return ids.to(device), real.to(device)


def prefill(model, prompts, room):
    """Run the prompts once, AT_ONCE positions at a time. -> (cache with `room` free positions, real
    (B, P), lengths (B,), last logits (B, V))."""
    ids, real = left_pad(prompts, model.device)
    B, P = ids.shape
    positions = (real.cumsum(1) - 1).clamp(min=0)
    packed.ahead(model, ids)
    cache = model.new_cache(B, P + room)
    column = torch.arange(P, device=ids.device)
    for at in range(0, P, AT_ONCE):
        end = at + AT_ONCE
        apart = column[at:end, None] - column[:end]                         # (AT_ONCE, keys)
        before = real[:, None, :end] & (apart > 0)
        # A padding position may look at itself only, else its softmax would be over nothing (NaN).
        allowed = before | (apart == 0)                                     # (B, AT_ONCE, keys)
        x = model.hidden(ids[:, at:end], positions[:, at:end], allowed, cache)
    return cache, real, real.sum(1), model.head(x[:, -1])


@torch.inference_mode()
def generate(model, prompts, max_tokens, stop_ids, temperature=1.0, samples=1, seed=0, row_ids=None,
             rows=None, on_token=None, finite=True):
    """Answer a batch of prompts. -> Samples. ValueError: see settings.check_prompts.

    prompts     list of lists of token ids (ragged is fine)
    stop_ids    tokens that end an answer; the stop token is part of it and of its likelihood
    samples     answers per prompt; row n of the result belongs to prompt n // samples
    row_ids     one integer per prompt, naming its random stream (default: its index)
    rows        svf.Rows of a batch whose rows use different experts; kept in step with the batch
    on_token    called as on_token(rows alive (list), tokens (list)) after every step
    finite      raise NotFinite (a ValueError) where logits are not; training, which skips such a
                step, finds it in the log-probabilities instead
    """
    check_prompts(prompts, max_tokens, temperature, model.cfg.max_position_embeddings)
    N = len(prompts) * samples
    device = model.device
    u = uniforms(seed, row_ids or range(len(prompts)), samples, max_tokens).to(device)
    stop = torch.tensor(sorted(stop_ids), device=device)
    cache, real, position, logits = prefill(model, prompts, max_tokens)
    ids = torch.zeros(N, max_tokens, dtype=torch.long, device=device)
    zeros = ids.new_zeros(N)
    out = Samples(ids, zeros, ids.float(), zeros.bool(), logits)

    batch = Batch(cache, rows, real, position)
    row = torch.arange(N, device=device)            # which answer each batch row is writing
    if samples > 1:                                 # one prompt, many samples: copy its cache rows
        batch.select(row // samples)
        logits = logits[row // samples]
    for step in range(max_tokens):
        token, logprob = in_blocks(draw, logits, u[row, step], temperature)
        if finite and not logprob.isfinite().all():
            raise NotFinite
        alive = ~out.stopped[row]
        writing = row[alive]
        out.write(step, writing, token[alive], logprob[alive], stop)
        out.row_steps += len(row)
        if on_token is not None:
            on_token(writing.tolist(), token[alive].tolist())

        alive = ~out.stopped[row]
        if step + 1 == max_tokens or not alive.any():
            break
        if alive.sum() < SHRINK * len(row):
            batch.select(alive)
            row, token = row[alive], token[alive]
        logits = batch.step(model, token)
    return out

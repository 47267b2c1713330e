"""Sampling: no row can see its batch, and every log-probability is the one
that a full forward pass gives.
"""
import math
import sys

import pytest
import torch
from conftest import random_model

from t2mini import likelihood, svf
from t2mini.generate import draw, generate, uniforms
from t2mini.machine import packed
from t2mini.machine.batches import NotFinite

PROMPTS = [[5, 9, 33], [7] * 11, [1, 2, 3, 4, 5, 6, 7], [40]]
# many, so that rows end early and the batch shrinks
STOP = {3, 8, 11, 20, 21, 22, 23, 24, 25, 26}


@pytest.fixture(scope="module")
def small():
    return random_model(vocab_size=64)


def rows(out):
    return [out.tokens(n) for n in range(len(out.lengths))]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_batched_is_one_by_one(small, temperature):
    """Fails if padding, shrinking the batch or a neighbour changes an answer."""
    together = generate(small, PROMPTS, 24, STOP, temperature, seed=5)
    alone = [generate(small, [p], 24, STOP, temperature, seed=5, row_ids=[i])
             for i, p in enumerate(PROMPTS)]
    assert rows(together) == [a.tokens(0) for a in alone]
    # the batch did shrink
    assert len(set(together.lengths.tolist())) > 1
    backwards = generate(small, PROMPTS[::-1], 24, STOP, temperature, seed=5, row_ids=[3, 2, 1, 0])
    assert rows(backwards)[::-1] == rows(together)


def test_samples_of_a_group_are_independent_streams(small):
    """Fails if the samples of one prompt share their random numbers,
    or the shared prompt cache mixes prompts up.
    """
    out = generate(small, PROMPTS, 16, STOP, 1.0, samples=3, seed=1)
    one = generate(small, [PROMPTS[2]], 16, STOP, 1.0, samples=3, seed=1, row_ids=[2])
    assert rows(out)[6:9] == rows(one) and len({tuple(r) for r in rows(out)[3:6]}) > 1


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_logprobs_are_those_of_a_full_forward_pass(small, temperature):
    """Fails if the recorded log-probability is of another temperature, position or token;
    the stop token counts.
    """
    out = generate(small, PROMPTS, 16, STOP, temperature, samples=2, seed=3)
    for n, answer in enumerate(rows(out)):
        prompt = PROMPTS[n // 2]
        logits = small(torch.tensor([prompt + answer]))[0, len(prompt) - 1:-1]
        want = (logits / temperature).log_softmax(-1)[torch.arange(len(answer)), answer]
        torch.testing.assert_close(out.logprobs[n, :len(answer)], want, rtol=1e-4, atol=1e-4)


def test_a_finished_row_writes_nothing_more(small):
    """Fails if tokens follow the stop token, or lengths and stopped disagree with it."""
    out = generate(small, PROMPTS, 16, STOP, 1.0, samples=4, seed=2)
    assert out.stopped.any()
    for n, answer in enumerate(rows(out)):
        assert not set(answer[:-1]) & STOP and bool(out.stopped[n]) == (answer[-1] in STOP)
        assert not out.ids[n, len(answer):].any() and not out.logprobs[n, len(answer):].any()
    assert int(out.lengths.sum()) <= out.row_steps <= 16 * 16
    every = generate(small, PROMPTS, 16, set(range(64)), 1.0)
    assert every.lengths.tolist() == [1] * 4 and every.stopped.all()


def test_streaming_tells_what_was_written(small):
    """Fails if on_token misses a token, repeats one, or reports a finished row."""
    heard = {n: [] for n in range(4)}
    out = generate(small, PROMPTS, 12, STOP, 1.0,
                   on_token=lambda r, t: [heard[n].append(x) for n, x in zip(r, t)])
    assert [heard[n] for n in range(4)] == rows(out)


def test_draw():
    """Fails if the inverse CDF is off by one, can draw an impossible token,
    or has another distribution.
    """
    logits = torch.tensor([[float("-inf"), 0.0, 1.0, 2.0, float("-inf")]])
    p = logits.softmax(-1)[0]
    for u in (1.0, 2.0 ** -24, 0.5):
        assert 1 <= int(draw(logits, torch.tensor([u]), 1.0)[0]) <= 3
    u = 1 - torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    token, logprob = draw(logits.expand(20_000, 5), u, 1.0)
    torch.testing.assert_close(torch.bincount(token, minlength=5) / 20_000, p, atol=0.012, rtol=0)
    torch.testing.assert_close(logprob, p[token].log())
    cold, _ = draw(logits.expand(20_000, 5), u, 0.5)
    torch.testing.assert_close(torch.bincount(cold, minlength=5) / 20_000,
                               (logits[0] / 0.5).softmax(-1), atol=0.012, rtol=0)
    assert int(draw(logits, torch.tensor([0.01]), 0.0)[0]) == 3


def test_uniforms_depend_on_row_sample_and_seed_only():
    """Fails if two streams coincide, or one changes with its neighbours."""
    a, b = uniforms(1, [4, 9], 2, 6), uniforms(1, [9], 2, 6)
    assert torch.equal(a[2:], b) and len({tuple(r.tolist()) for r in a}) == 4
    assert not torch.equal(a, uniforms(2, [4, 9], 2, 6)) and (a > 0).all() and (a <= 1).all()


def test_padding_of_the_vocabulary_is_never_drawn(small):
    """Fails if a checkpoint's padded logits can be sampled."""
    small.valid_vocab = 30
    try:
        out = generate(small, PROMPTS, 16, STOP, 3.0, samples=8)
        assert int(out.ids.max()) < 30
    finally:
        small.valid_vocab = 64


@pytest.mark.parametrize("prompts, tokens, says",
                         [([], 4, "empty"), ([[1], []], 4, "empty"), ([[1] * 60], 2000, "context")])
def test_what_cannot_be_answered_is_said(small, prompts, tokens, says):
    """Fails if an empty or over-long prompt is a crash or a silent truncation."""
    with pytest.raises(ValueError, match=says):
        generate(small, prompts, tokens, STOP)


def test_logits_that_are_not_finite_stop_the_answer(monkeypatch):
    """Fails if an expert of huge z or a damaged weight ends in an answer of garbage;
    training looks for itself.
    """
    model = random_model(vocab_size=64)
    svf.attach(model, "q,down", progress=False)
    huge = {n: 1e30 * z for n, z in svf.get_z(model).items()}
    with (svf.using(model, huge),
          pytest.raises(ValueError, match="not finite numbers: damaged weights, or an expert")):
        generate(model, PROMPTS, 8, STOP, 0)
    # one row is enough
    with svf.per_row(model, [huge, {}], [1, 1, 0, 1]) as which, pytest.raises(NotFinite):
        generate(model, PROMPTS, 8, STOP, 0.7, rows=which)
    with svf.using(model, huge):
        assert not generate(model, PROMPTS, 8, STOP, 0, finite=False).logprobs.isfinite().all()
    assert generate(model, PROMPTS, 8, STOP, 0).logprobs.isfinite().all()


def test_a_state_whose_square_is_infinite_has_no_likelihood():
    """Fails if the final norm makes 0 of a state that is too large, so that all answers are as
    likely: options would be chosen by their length, and a training go on with no gradient.
    """
    model = random_model(vocab_size=64)
    svf.attach(model, "down", progress=False)
    huge = {n: 1e22 * z for n, z in svf.get_z(model).items()}
    with svf.using(model, huge):
        [found] = likelihood.likelihoods(model, [(PROMPTS[0], [[1, 2], [3]])])
        assert found.isnan().all()
        tokens, finite = likelihood.draw_from(model, [PROMPTS[0]], [[[1, 2], [3]]], 2, 1.0, 0, [0])
        assert not finite


def test_rows_with_different_experts():
    """Fails if shrinking the batch shifts a row to another row's expert."""
    model = random_model(vocab_size=64)
    svf.attach(model, progress=False)
    experts = []
    for seed in (1, 2):
        g = torch.Generator().manual_seed(seed)
        experts.append({n: 1 + 0.2 * torch.randn(len(z), generator=g)
                        for n, z in svf.get_z(model).items()})
    want = []
    for i, p in enumerate(PROMPTS):
        with svf.using(model, experts[i % 2]):
            want.append(generate(model, [p], 24, STOP, 0.8, row_ids=[i], seed=4))
    with svf.per_row(model, experts, [0, 1, 0, 1]) as which:
        out = generate(model, PROMPTS, 24, STOP, 0.8, seed=4, rows=which)
    assert rows(out) == [w.tokens(0) for w in want] and len(set(out.lengths.tolist())) > 1
    with svf.per_row(model, experts, [1]) as which:
        group = generate(model, [PROMPTS[1]], 8, STOP, 0.8, samples=2,
                         seed=4, row_ids=[1], rows=which)
    assert group.tokens(0)[:8] == want[1].tokens(0)[:8]


# ---------------------------------------------------------------------- both families, exact counts
RAGGED = [[5, 6, 7], [9], list(range(20, 31)), [40, 41, 40, 41, 42, 43],
          [100] * 8, [7, 6, 5], [200, 3]]
STOPS = range(60)                   # of 272 tokens: about one draw in five ends an answer


def either(family, **settings):
    gpt2 = dict(family="gpt2", num_key_value_heads=6)
    return random_model(3, max_position_embeddings=64, **settings,
                        **(gpt2 if family == "gpt2" else {}))


both = pytest.mark.parametrize("family", ["llama", "gpt2"])


def assert_same(a, rows_a, b, rows_b):
    """Rows of two Samples hold the same answers: ids, lengths, ends,
    and log-probabilities up to rounding.
    """
    for field in ("ids", "lengths", "stopped"):
        assert torch.equal(getattr(a, field)[rows_a], getattr(b, field)[rows_b]), field
    torch.testing.assert_close(a.logprobs[rows_a], b.logprobs[rows_b], rtol=0, atol=1e-4)


@both
@pytest.mark.parametrize("stops", [[], STOPS])
def test_ragged_greedy_is_one_by_one(family, stops):
    """Fails if a padded row starts at a wrong position, sees padding,
    or takes another row's cache when rows leave.
    """
    model = either(family)
    batch = generate(model, RAGGED, 12, stops, temperature=0)
    for n, prompt in enumerate(RAGGED):
        assert_same(batch, [n], generate(model, [prompt], 12, stops, temperature=0), [0])
    assert len({tuple(r) for r in rows(batch)}) > 3


@both
@pytest.mark.parametrize("window", [0, 3])
def test_a_long_question_is_read_in_parts(family, window, monkeypatch):
    """Fails if a part of a question sees other keys, or other positions, than in one piece, if
    all of its masks are in memory at once, or if weights are copied among large tensors.
    """
    model, sizes = either(family, sliding_window=window), []
    whole = generate(model, RAGGED, 6, [], temperature=0)
    hidden = model.hidden
    monkeypatch.setattr(sys.modules["t2mini.generate"], "AT_ONCE", 4)
    monkeypatch.setattr(packed, "MANY", 4)
    monkeypatch.setattr(packed, "ON", True)
    monkeypatch.setattr(model, "hidden", lambda ids, *rest: (
        sizes.append((ids.shape[1], *(rest[1].shape[2:] if rest else ()))) or hidden(ids, *rest)))
    assert_same(generate(model, RAGGED, 6, [], temperature=0), slice(None), whole, slice(None))
    assert sizes[:4] == [(1,), (4, 4), (4, 8), (3, 11)]


def test_samples_do_not_depend_on_who_left():
    """Fails if shrinking the batch drops, swaps or shifts a row: with no stop token no row leaves,
    and the answers cut at their first stop token must be the same.
    """
    model = random_model(1)
    out, free = (generate(model, RAGGED, 16, stops, seed=4, samples=3) for stops in (STOPS, []))
    assert out.row_steps < 0.7 * free.row_steps                     # it did shrink
    for n, answer in enumerate(rows(free)):
        end = next((i for i, t in enumerate(answer) if t in STOPS), len(answer) - 1) + 1
        assert out.tokens(n) == answer[:end]
        torch.testing.assert_close(out.logprobs[n, :end], free.logprobs[n, :end], rtol=0, atol=1e-4)


def test_group_samples_equal_separate_rows(monkeypatch):
    """Fails if sharing the prompt's cache between its samples mixes prompts up. The other side
    computes every prompt as often as it has samples, from the same table of random numbers.
    """
    model, table = random_model(1), uniforms(2, range(len(RAGGED)), 4, 10)
    group = generate(model, RAGGED, 10, STOPS, 0.9, samples=4, seed=2)
    monkeypatch.setattr(sys.modules["t2mini.generate"], "uniforms", lambda *_: table)
    alone = generate(model, [p for p in RAGGED for _ in range(4)], 10, STOPS, 0.9)
    assert_same(group, slice(None), alone, slice(None))


def test_more_samples_or_tokens_extend_an_answer():
    """Fails if asking for more samples or a longer answer changes the ones that were there."""
    model = random_model(1)
    few, more = (generate(model, RAGGED, 6, [], samples=k) for k in (2, 3))
    assert_same(few, slice(None), more, [i for i in range(len(more.ids)) if i % 3 < 2])
    assert torch.equal(generate(model, RAGGED, 20, [], samples=2).ids[:, :6], few.ids)


@both
@pytest.mark.parametrize("temperature", [1.6, 0])
def test_logprobs_of_ragged_groups(family, temperature):
    """Fails if log-probabilities are those of a neighbouring step,
    or greedy ones are not those at temperature 1. The reference has no cache and no batch.
    """
    model = either(family)
    out = generate(model, RAGGED, 10, STOPS, temperature, samples=2, seed=5)
    assert out.stopped.any()
    for n, answer in enumerate(rows(out)):
        prompt = RAGGED[n // 2]
        logp = (model(torch.tensor([prompt + answer]))[0]
                / (temperature or 1)).log_softmax(-1)[len(prompt) - 1:-1]
        torch.testing.assert_close(out.logprobs[n, :len(answer)],
                                   logp[range(len(answer)), answer], rtol=0, atol=1e-4)


def test_one_token_is_enough():
    """Fails if the first token needs a second step, or a token is computed that nobody asked for.
    """
    model = random_model(1)
    out = generate(model, RAGGED, 1, STOPS, temperature=0)
    want = [int(model(torch.tensor([p]))[0, -1].argmax()) for p in RAGGED]
    assert out.ids[:, 0].tolist() == want
    assert (out.lengths == 1).all() and out.row_steps == len(RAGGED)
    assert out.stopped.tolist() == [t in STOPS for t in want]


def test_row_steps_count_what_the_model_computed(monkeypatch):
    """Fails if finished rows stay for good, the batch shrinks at another threshold
    than three quarters, or row_steps counts answers instead of rows.
    """
    model, seen = random_model(1), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden",
                        lambda ids, *rest: seen.append(len(ids)) or hidden(ids, *rest))
    out = generate(model, RAGGED, 16, STOPS, samples=3)
    N = batch = 3 * len(RAGGED)
    want = 0
    for step in range(1, 17):
        want += batch
        alive = int(((out.lengths > step) | ~out.stopped).sum())
        if step == 16 or alive == 0:
            break
        batch = alive if alive < 0.75 * batch else batch
    assert out.row_steps == want < 16 * N
    # the prompt is computed once for its samples
    assert seen[0] == len(RAGGED) and sum(seen[1:]) == want - N


def test_the_context_is_used_to_its_last_position():
    """Fails if the context is checked without the new tokens, or one off."""
    model = either("llama")
    assert generate(model, [[1] * 60, [2]], 4, [], temperature=0).lengths.tolist() == [4, 4]
    with pytest.raises(ValueError, match="60 tokens plus 5 new ones exceeds.*64"):
        generate(model, [[1] * 60, [2]], 5, [])


def test_no_random_number_is_zero(monkeypatch):
    """Fails if u is torch.rand itself, which once in 2^24 numbers is 0
    and would draw token 0 at any probability.
    """
    for r in (0.0, 1 - 2.0 ** -24):
        monkeypatch.setattr(torch, "rand", lambda n, generator, r=r: torch.full((n,), r))
        table = uniforms(0, [0], 1, 3)
        assert (table > 0).all() and (table <= 1).all()


def test_extreme_numbers_never_draw_an_impossible_token():
    """Fails if the smallest u draws token 0 whatever its probability,
    or rounding of the cumulative sum lets u = 1 run past the last possible token.
    """
    inf = float("inf")
    for logits in ([-inf, 0., 1., -inf], [-inf, -inf, 3., -inf],
                   [0., -inf, -inf, -inf], [-inf, -200., 0., 0.]):
        logits = torch.tensor(logits)
        for u in (1.0, 2.0 ** -24, torch.finfo(torch.float32).tiny):
            token, logprob = draw(logits[None], torch.tensor([u]), 1.0)
            assert logits.softmax(-1)[token] > 0 and torch.isfinite(logprob).all()
    # 50,000 float32 summands: the sum is not 1
    for seed in range(8):
        tail = torch.randn(1, 50_000, generator=torch.Generator().manual_seed(seed))
        tail[0, -100:] = -inf
        assert draw(tail, torch.tensor([1.0]), 1.0)[0] < 50_000 - 100


def test_padding_of_the_vocabulary_has_no_share():
    """Fails if the padding of the embedding matrix takes part in the log-probabilities."""
    model = random_model(1)
    model.valid_vocab = 40
    out = generate(model, RAGGED, 20, [], 3.0, samples=4)
    assert len(out.ids.unique()) == 40 and torch.isfinite(out.logprobs).all()
    # spread over 40 tokens, not over 272
    assert abs(out.logprobs.mean().item() + math.log(40)) < 1


def random_experts(model, n, size=0.4):
    g = torch.Generator().manual_seed(0)
    return [{name: 1 + size * torch.randn(len(layer.z), generator=g)
             for name, layer in svf.layers(model).items()}
            for _ in range(n)]


@both
@pytest.mark.parametrize("temperature, samples", [(0, 1), (1.0, 3)])
def test_rows_with_experts_of_their_own(family, temperature, samples):
    """Fails if a row uses its neighbour's z, keeps its place in the bank when the batch shrinks,
    loses it when the prompt is copied for its samples, or the base model is not there afterwards.
    Compared: each expert alone, folded.
    """
    model = either(family)
    base = model(torch.tensor([RAGGED[2]]))
    svf.attach(model, progress=False)
    experts = [*random_experts(model, 2), {}]               # the last entry is the base model
    index, options = [0, 1, 2, 1, 0, 2, 1], dict(temperature=temperature, samples=samples, seed=6)
    with svf.per_row(model, experts, index) as which:
        mixed = generate(model, RAGGED, 12, STOPS, rows=which, **options)
    assert mixed.row_steps < 12 * len(RAGGED) * samples                     # the batch shrank
    assert torch.equal(model(torch.tensor([RAGGED[2]])), base)
    answers = []
    for k, expert in enumerate(experts):
        mine = [i for i in range(len(RAGGED)) if index[i] == k]
        with svf.using(model, expert):
            alone = generate(model, [RAGGED[i] for i in mine], 12, STOPS, row_ids=mine, **options)
            answers.append(generate(model, RAGGED, 12, STOPS, **options).ids.tolist())
        assert_same(mixed, [i * samples + s for i in mine for s in range(samples)],
                    alone, slice(None))
    assert answers[0] != answers[1] != answers[2] != answers[0]             # the experts do differ


def test_rows_with_experts_are_released_after_an_error():
    """Fails if an error inside the block leaves the bank in place: every later answer would use it.
    """
    model = random_model(1)
    base = model(torch.tensor([[1, 2, 3]]))
    svf.attach(model, "q,v", progress=False)
    with pytest.raises(KeyError):
        with svf.per_row(model, random_experts(model, 1), [0]):
            assert not torch.equal(model(torch.tensor([[1, 2, 3]])), base)
            raise KeyError
    assert torch.equal(model(torch.tensor([[1, 2, 3]])), base)

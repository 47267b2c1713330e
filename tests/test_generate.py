"""Sampling: no row can see its batch, and every log-probability is the one that a full forward pass gives."""
import pytest
import torch
from conftest import random_model

from t2mini import svf
from t2mini.generate import draw, generate, uniforms

PROMPTS = [[5, 9, 33], [7] * 11, [1, 2, 3, 4, 5, 6, 7], [40]]
STOP = {3, 8, 11, 20, 21, 22, 23, 24, 25, 26}          # many, so that rows end early and the batch shrinks


@pytest.fixture(scope="module")
def small():
    return random_model(vocab_size=64)


def rows(out):
    return [out.tokens(n) for n in range(len(out.lengths))]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_batched_is_one_by_one(small, temperature):
    """Fails if padding, shrinking the batch or a neighbour changes an answer."""
    together = generate(small, PROMPTS, 24, STOP, temperature, seed=5)
    alone = [generate(small, [p], 24, STOP, temperature, seed=5, row_ids=[i]) for i, p in enumerate(PROMPTS)]
    assert rows(together) == [a.tokens(0) for a in alone]
    assert len(set(together.lengths.tolist())) > 1                              # the batch did shrink
    backwards = generate(small, PROMPTS[::-1], 24, STOP, temperature, seed=5, row_ids=[3, 2, 1, 0])
    assert rows(backwards)[::-1] == rows(together)


def test_samples_of_a_group_are_independent_streams(small):
    """Fails if the samples of one prompt share their random numbers, or the shared prompt cache mixes prompts up."""
    out = generate(small, PROMPTS, 16, STOP, 1.0, samples=3, seed=1)
    one = generate(small, [PROMPTS[2]], 16, STOP, 1.0, samples=3, seed=1, row_ids=[2])
    assert rows(out)[6:9] == rows(one) and len({tuple(r) for r in rows(out)[3:6]}) > 1


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_logprobs_are_those_of_a_full_forward_pass(small, temperature):
    """Fails if the recorded log-probability is of another temperature, position or token; the stop token counts."""
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
    out = generate(small, PROMPTS, 12, STOP, 1.0, on_token=lambda r, t: [heard[n].append(x) for n, x in zip(r, t)])
    assert [heard[n] for n in range(4)] == rows(out)


def test_draw():
    """Fails if the inverse CDF is off by one, can draw an impossible token, or has another distribution."""
    logits = torch.tensor([[float("-inf"), 0.0, 1.0, 2.0, float("-inf")]])
    p = logits.softmax(-1)[0]
    for u in (1.0, 2.0 ** -24, 0.5):
        assert 1 <= int(draw(logits, torch.tensor([u]), 1.0)[0]) <= 3
    u = 1 - torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    token, logprob = draw(logits.expand(20_000, 5), u, 1.0)
    torch.testing.assert_close(torch.bincount(token, minlength=5) / 20_000, p, atol=0.012, rtol=0)
    torch.testing.assert_close(logprob, p[token].log())
    cold, _ = draw(logits.expand(20_000, 5), u, 0.5)
    torch.testing.assert_close(torch.bincount(cold, minlength=5) / 20_000, (logits[0] / 0.5).softmax(-1), atol=0.012, rtol=0)
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


@pytest.mark.parametrize("prompts, tokens, says", [([], 4, "empty"), ([[1], []], 4, "empty"), ([[1] * 60], 2000, "context")])
def test_what_cannot_be_answered_is_said(small, prompts, tokens, says):
    """Fails if an empty or over-long prompt is a crash or a silent truncation."""
    with pytest.raises(ValueError, match=says):
        generate(small, prompts, tokens, STOP)


def test_rows_with_different_experts():
    """Fails if shrinking the batch shifts a row to another row's expert."""
    model = random_model(vocab_size=64)
    svf.attach(model, progress=False)
    experts = []
    for seed in (1, 2):
        g = torch.Generator().manual_seed(seed)
        experts.append({n: 1 + 0.2 * torch.randn(len(z), generator=g) for n, z in svf.get_z(model).items()})
    want = []
    for i, p in enumerate(PROMPTS):
        with svf.using(model, experts[i % 2]):
            want.append(generate(model, [p], 24, STOP, 0.8, row_ids=[i], seed=4))
    with svf.per_row(model, experts, [0, 1, 0, 1]) as which:
        out = generate(model, PROMPTS, 24, STOP, 0.8, seed=4, rows=which)
    assert rows(out) == [w.tokens(0) for w in want] and len(set(out.lengths.tolist())) > 1
    with svf.per_row(model, experts, [1]) as which:
        group = generate(model, [PROMPTS[1]], 8, STOP, 0.8, samples=2, seed=4, row_ids=[1], rows=which)
    assert group.tokens(0)[:8] == want[1].tokens(0)[:8]

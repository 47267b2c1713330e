"""Gradients written by hand, and work in blocks, are those of the plain forms
that stand beside them.
"""
import pytest
import torch
from conftest import random_model

from t2mini import reinforce, svf
from t2mini.generate import draw
from t2mini.likelihood import pack
from t2mini.machine import attention as attending
from t2mini.machine import batches, fused
from t2mini.questions.example import Example
from t2mini.recipe import TrainConfig, settled

EXACT = dict(rtol=1e-5, atol=1e-6)
ROUNDED = dict(rtol=2e-2, atol=2e-2)
BOTH = pytest.mark.parametrize("dtype, near", [(torch.float32, EXACT), (torch.bfloat16, ROUNDED)])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that there are several and the last one is shorter."""
    monkeypatch.setattr(fused, "MANY", 3 * 40)
    monkeypatch.setattr(fused, "FEW", 3 * 24)


def grads(function, tensors, g):
    """Value and gradients of function(*tensors) for what comes back, g."""
    leaves = [t.detach().clone().requires_grad_() for t in tensors]
    y = function(*(t * 1 for t in leaves))                  # * 1: what is overwritten is not a leaf
    return y.detach(), torch.autograd.grad(y, leaves, g)


@BOTH
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_log_likelihood_and_its_gradient_are_the_plain_ones(dtype, near, temperature):
    """Fails if the temperature is left out on one way, a block is skipped, the one-hot stands at
    another token, padding of the vocabulary (-inf) gets a gradient, or logits of any size overflow.
    """
    torch.manual_seed(0)
    logits = (20 * torch.randn(10, 40)).to(dtype)
    logits[:, 37:] = float("-inf")
    logits[0] += 3000                                       # exp of it is infinite
    target, g = torch.randint(0, 37, (10,)), torch.randn(10)
    got, (slope,) = grads(lambda x: fused.log_likelihood(x, target, temperature), [logits], g)
    want, (steep,) = grads(lambda x: fused.plain_log_likelihood(x, target, temperature),
                           [logits], g)
    assert got.dtype == torch.float32 and slope.dtype == dtype
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(slope, steep, **near)
    assert not slope[:, 37:].any() and slope.abs().max() > 0.1


def test_the_gradient_takes_the_place_of_the_logits_once():
    """Fails if a second tokens x vocabulary tensor is made, forward changes the logits,
    or a second backward pass, which would read the first one's result as logits,
    gives numbers instead of an error.
    """
    x = torch.randn(7, 40, requires_grad=True)
    logits = x * 1
    kept = logits.detach().clone()
    y = fused.log_likelihood(logits, torch.arange(7)).sum()
    assert torch.equal(logits, kept)
    seen = []
    logits.register_hook(lambda g: seen.append(g.data_ptr()))
    y.backward(retain_graph=True)
    assert seen == [logits.data_ptr()] and not torch.equal(logits, kept)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@BOTH
def test_rms_norm_has_the_plain_value_and_gradient(dtype, near):
    """Fails if the value differs in one bit from what sampling computes,
    the weight or the row's own size is left out of the gradient, or a block is skipped.
    """
    torch.manual_seed(0)
    x, weight = (3 * torch.randn(2, 5, 24)).to(dtype), torch.randn(24).to(dtype)
    x[0, 0] *= 1e-4                                         # here eps counts
    g = torch.randn(2, 5, 24).to(dtype)
    got, (slope,) = grads(lambda t: fused.rms_norm(t, weight, 1e-5), [x], g)
    want, (steep,) = grads(lambda t: fused.plain_rms_norm(t, weight, 1e-5), [x], g)
    assert torch.equal(got, want) and torch.equal(got, fused.rms_norm(x, weight, 1e-5))
    # the first row's slope is ten thousand times as large
    scale = steep.float().abs().amax(-1, keepdim=True)
    torch.testing.assert_close(slope / scale, steep / scale, **near)


def test_a_weight_that_is_trained_gets_its_gradient():
    """Fails if the hand-written form, which has none for the weight, runs where somebody trains it.
    """
    x, weight = torch.randn(3, 24, requires_grad=True), torch.ones(24, requires_grad=True)
    fused.rms_norm(x, weight, 1e-5).sum().backward()
    assert weight.grad.abs().max() > 0 and x.grad is not None


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_tokens_drawn_some_rows_at_a_time_are_the_same_tokens(temperature):
    """Fails if a row meets another row's random number, or a bit of its probability depends
    on the rows beside it.
    """
    torch.manual_seed(0)
    logits, u = 3 * torch.randn(10, 40), 1 - torch.rand(10)
    whole = draw(logits, u, temperature)
    assert all(torch.equal(a, b)
               for a, b in zip(fused.in_blocks(draw, logits, u, temperature), whole, strict=True))


@BOTH
def test_attention_without_the_masked_keys_is_the_plain_one(dtype, near, monkeypatch):
    """Fails if a key that a query may see is left out, heads or tiles are put back
    in another order, or every tile still multiplies every key.
    """
    monkeypatch.setattr(attending, "LONG", 20)
    monkeypatch.setattr(attending, "TILE", 7)
    groups = [([1, 2, 3], [[4] * 9, [5] * 8, [6] * 9]), ([1, 2], [[3] * 5, [4] * 12])]
    allowed = pack(groups, "cpu")[2]                        # (B, S, S)
    B, S, heads = 2, allowed.shape[1], 3
    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(
        ~allowed, float("-inf")).repeat(1, heads, 1)[:, None]
    torch.manual_seed(0)
    q, k, v = (torch.randn(B, 2, n, 8).to(dtype) for n in (heads * S, S, S))
    g, keys, plain = torch.randn_like(q), [], attending.plain_attention

    def watched(q, k, v, mask):
        keys.append(k.shape[2])
        return plain(q, k, v, mask)

    want, slopes = grads(lambda *t: plain(*t, mask), [q, k, v], g)
    monkeypatch.setattr(attending, "plain_attention", watched)
    got, found = grads(lambda *t: attending.attention(*t, mask, S), [q, k, v], g)
    assert len(keys) == -(-S // 7) and sum(keys) < 0.8 * len(keys) * S
    for a, b in zip((got, *found), (want, *slopes)):
        torch.testing.assert_close(a, b, **near)
    with torch.no_grad():
        assert torch.equal(attending.attention(q, k, v, mask, S), want) and keys[-1] == S
    # behind a cache: as many queries in all as two heads without one would have
    q, late = q[:, :, :2 * S], mask[:, :, :S, :].repeat(1, 1, 2, 1)
    assert torch.equal(attending.attention(q, k, v, late, 2 * S // heads), plain(q, k, v, late))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_whole_models_gradient_is_that_of_the_plain_forms(family, monkeypatch):
    """Fails if one of these functions, in its place in the model,
    gives z another gradient than its plain form.
    """
    heads = 6 if family == "gpt2" else 2
    model = random_model(3, family=family, num_key_value_heads=heads)
    model.valid_vocab = 250
    svf.attach(model, progress=False)
    groups, advantage = ([([5, 6, 7], [[10, 11, 12], [12, 13]]), ([9], [[20, 21, 249]])],
                         [[0.75, -0.75], [0.5]])

    def slope():
        reinforce.policy_gradient(model, groups, advantage, temperature=0.8, chunk=4)
        z = [layer.z for layer in svf.layers(model).values()]
        found = torch.cat([p.grad.clone() for p in z])
        for p in z:
            p.grad = None
        return found

    monkeypatch.setattr(attending, "LONG", 4)
    monkeypatch.setattr(attending, "TILE", 2)
    got = slope()
    monkeypatch.setattr("t2mini.model.rms_norm", fused.plain_rms_norm)
    monkeypatch.setattr("t2mini.model.attention", lambda q, k, v, mask, S:
                        attending.plain_attention(q, k, v, mask))
    monkeypatch.setattr("t2mini.likelihood.log_likelihood", fused.plain_log_likelihood)
    want = slope()
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    assert want.abs().max() > 1e-3


def test_long_answers_of_one_question_are_several_batches():
    """Fails if a question's answers exceed a batch together,
    one is lost or meets another's advantage, or the gradient of all batches is not that of one.
    """
    assert batches.within([3, 3, 9, 2, 2, 2], 8, 2, int) == [[3, 3], [9], [2, 2, 2]]
    assert batches.within([], 8, 2, int) == []
    model = random_model(1)
    svf.attach(model, progress=False)
    cfg = settled(TrainConfig(prompts=1, samples=4))
    answers = [[10, 11, 12], [13] * 9, [14, 15], [16] * 4]
    episodes = [reinforce.Episode(Example("", "1", "number"), [1, 2, 3], a, "", True, a,
                                  advantage=0.5 - k % 2)
                for k, a in enumerate(answers)]
    z, found = [layer.z for layer in svf.layers(model).values()], []
    for budget in (1000, 9):
        groups, advantage = reinforce.worth_learning(cfg, episodes, budget)
        assert [a for _, some in groups for a in some] == answers
        assert sum(advantage, []) == [0.5, -0.5, 0.5, -0.5]
        assert all(len(prompt) + sum(map(len, some)) <= budget or len(some) == 1
                   for prompt, some in groups)
        for part in batches.micro_batches(groups, budget):
            reinforce.policy_gradient(model, [groups[i] for i in part],
                                      [advantage[i] for i in part])
        found.append((len(groups), torch.cat([p.grad for p in z])))
        for p in z:
            p.grad = None
    (one, want), (several, got) = found
    assert (one, several) == (1, 3)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_picked_states_is_added_up_in_one_order():
    """Fails if a state that many answers begin from gets its gradient in whatever order two threads
    come along: the same command would train other bits.
    """
    g = torch.Generator().manual_seed(0)
    row, col = torch.zeros(600, dtype=torch.long), torch.randint(0, 4, (600,), generator=g)
    x = torch.randn(1, 150, 576, generator=g, requires_grad=True)
    back, threads = torch.randn(600, 576, generator=g), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = [torch.autograd.grad(fused.picked(x, row, col), x, back)[0] for _ in range(20)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert torch.equal(fused.picked(x, row, col), x[row, col])
    # CUDA adds what index_select gives back in any order, and what an index gives back in one
    elsewhere = fused.picked(x.to("meta"), row.to("meta"), col.to("meta"))
    assert elsewhere.shape == (600, 576) and elsewhere.grad_fn.name() == "IndexBackward0"
    want = torch.zeros(150, 576, dtype=torch.float64).index_add_(0, col, back.double())
    torch.testing.assert_close(found[0][0].double(), want, rtol=1e-5, atol=1e-4)

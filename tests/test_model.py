"""The model against transformers' logits, and against itself:
cached = uncached, grouped = repeated, batched = alone.
"""
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import random_model
from safetensors.torch import load_file
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import t2mini
from t2mini import model as model_file
from t2mini import svf
from t2mini.generate import generate, left_pad, prefill
from t2mini.model import Config, RMSNorm, Transformer, additive_mask, attend, causal
from t2mini.reinforce import pack

GOLDEN = Path(__file__).parent / "golden"
NAMES = ["llama", "llama_bias", "llama3", "mistral", "qwen2", "qwen3", "gpt2"]


def golden(name):
    """-> (model, dict of ids, logits and greedy continuation made by transformers)."""
    model, _ = t2mini.load(GOLDEN / name, device="cpu", dtype="float32")
    return model, load_file(GOLDEN / f"{name}.reference.safetensors")


FAMILIES = {"llama": {}, "gpt2": dict(family="gpt2", num_key_value_heads=6),
            "modern": dict(sliding_window=5, qk_norm=True, qkv_bias=True,
                           rope_factors=(1.0, 2.0, 3.0, 8.0))}


def either(family):
    """A random Llama with grouped queries, the same with all that later families add,
    or a GPT-2; 96 positions.
    """
    return random_model(3, max_position_embeddings=96, **FAMILIES[family])


both = pytest.mark.parametrize("family", FAMILIES)


# ----------------------------------------------------------------------------- against transformers
@pytest.mark.parametrize("name", NAMES)
def test_logits_match_the_reference(name):
    """Fails if RoPE pairs neighbours, its base is not read or not scaled,
    heads are grouped in another order, GELU is not the tanh form, an epsilon,
    a bias, a scale or a position is off, GPT-2's q, k, v are cut in another order,
    Mistral's window is one off, or Qwen3's norm of q and k is missing or comes after RoPE.
    """
    model, ref = golden(name)
    assert ref["ids"].shape == (2, 40)
    torch.testing.assert_close(model(ref["ids"]), ref["logits"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_continuation_matches_the_reference(name):
    """Fails if decoding through the cache starts at a wrong position or overwrites a key;
    the reference has no cache.
    """
    model, ref = golden(name)
    out = generate(model, ref["ids"].tolist(), 32, stop_ids=[], temperature=0)
    assert torch.equal(out.ids, ref["continuation"])


@pytest.mark.parametrize("name", NAMES)
def test_svf_at_one_is_the_reference_and_z_reaches_every_family(name):
    """Fails if a family's projections are missed,
    or the fused and transposed ones of GPT-2 decomposed the wrong way.
    """
    model, ref = golden(name)
    names = svf.attach(model, progress=False)
    assert len(names) == (4 if name == "gpt2" else 7) * model.cfg.num_hidden_layers
    svf.reset(model)
    torch.testing.assert_close(model(ref["ids"]), ref["logits"], rtol=1e-5, atol=1e-5)
    for layer in svf.layers(model).values():
        dense = layer.U @ torch.diag(layer.S) @ layer.Vt
        torch.testing.assert_close(
            dense, layer.base.weight.T if name == "gpt2" else layer.base.weight, rtol=0, atol=1e-5)
        layer.z.data.mul_(1.1)
    svf.fold(model)
    assert (model(ref["ids"]) - ref["logits"]).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_modules_and_half_of_the_layers(name):
    """Fails if a family's matrices or blocks have names that --modules or --layers=half does not
    know, if a matrix or a block that was not asked for gets a z, or one that was learns nothing.
    """
    cfg = replace(golden(name)[0].cfg, num_hidden_layers=5)
    model = random_model(2, **{f: getattr(cfg, f) for f in Config.__dataclass_fields__})
    gpt2, ids = cfg.family == "gpt2", torch.arange(3, 15)[None]
    block = "transformer.h" if gpt2 else "model.layers"
    for modules, leaves in (("q", "attn.c_attn" if gpt2 else "self_attn.q_proj"),
                            ("o", "attn.c_proj" if gpt2 else "self_attn.o_proj"),
                            ("up,down",
                             "mlp.c_fc mlp.c_proj" if gpt2 else "mlp.up_proj mlp.down_proj"),
                            ("qkv", "attn.c_attn") if gpt2
                            else ("k,v,gate", "self_attn.k_proj self_attn.v_proj mlp.gate_proj")):
        for depth, blocks in (("half", (0, 2, 4)), ("all", range(5))):
            names = svf.attach(model, modules, progress=False, depth=depth)
            assert sorted(names) == sorted(f"{block}.{i}.{leaf}"
                                           for i in blocks for leaf in leaves.split())
            model(ids).log_softmax(-1)[0, -1, 7].backward()
            assert all((layer.z.grad != 0).any() for layer in svf.layers(model).values())
            svf.detach(model)


def test_a_window_counts_positions_not_slots():
    """Fails if the window is measured in columns of the batch:
    answers packed behind one prompt would lose its end.
    """
    model = either("modern")
    groups = [([1, 2, 3, 4, 5, 6], [[7, 8, 9, 10], [11, 12, 13], [14, 15]])]
    ids, positions, allowed, row, col, target = pack(groups, "cpu")
    packed = model(ids, positions, allowed)[row, col]
    alone = torch.cat([model(torch.tensor([groups[0][0] + a[:-1]]))[0, 5:] for a in groups[0][1]])
    torch.testing.assert_close(packed, alone, rtol=0, atol=1e-5)
    wide = random_model(3, max_position_embeddings=96, **FAMILIES["modern"] | {"sliding_window": 0})
    wide.load_state_dict(model.state_dict())
    ids = torch.arange(12)[None]
    torch.testing.assert_close(wide(ids)[:, :5], model(ids)[:, :5], rtol=0, atol=1e-6)
    assert (wide(ids) - model(ids))[:, 5:].abs().amax(-1).min() > 1e-3


def test_two_names_for_the_rope_base_mean_the_same():
    """Fails if only `rope_theta` or only `rope_parameters` is read:
    transformers 4 and 5 write different ones.
    """
    from t2mini.formats.load import config_from_json
    spec = dict(model_type="llama", vocab_size=64, hidden_size=48, num_hidden_layers=2,
                num_attention_heads=6, intermediate_size=96, max_position_embeddings=128,
                rms_norm_eps=1e-5)
    old, new = (config_from_json(spec | {"rope_theta": 7e5}),
                config_from_json(spec | {"rope_parameters": {"rope_theta": 7e5}}))
    assert old == new and old.rope_theta == 7e5 and config_from_json(spec).rope_theta == 1e4
    assert old.num_key_value_heads == 6 and old.head_dim == 8 and not old.tie_word_embeddings


# ---------------------------------------------------------------------------------------- the cache
@both
def test_cached_equals_uncached_at_every_step(family):
    """Fails if a cached key sits in a wrong slot,
    a left-padded row counts its padding as positions, or padding is seen.
    """
    model, torch_ids = either(family), torch.Generator().manual_seed(1)
    prompts = [torch.randint(0, 272, (n,), generator=torch_ids).tolist() for n in (3, 11, 7)]
    new = torch.randint(0, 272, (3, 9), generator=torch_ids)
    cache, real, position, logits = prefill(model, prompts, 9)
    for step in range(10):
        for row, prompt in enumerate(prompts):
            alone = model(torch.tensor([prompt + new[row, :step].tolist()]))[0, -1]
            torch.testing.assert_close(logits[row], alone, rtol=0, atol=1e-5)
        if step < 9:
            real = torch.cat((real, real.new_ones(3, 1)), 1)
            logits = model(new[:, step:step + 1], (position + step)[:, None],
                           real[:, None, :], cache)[:, -1]


@both
def test_cache_filled_in_uneven_pieces(family):
    """Fails if `filled` is counted per layer,
    or a piece of several tokens may look ahead inside itself.
    """
    model = either(family)
    ids = torch.arange(40).reshape(2, 20) * 5 % 272
    cache, parts = model.new_cache(2, 20), []
    for a, b in ((0, 1), (1, 6), (6, 7), (7, 20)):
        parts.append(model(ids[:, a:b], cache=cache))
    assert cache.filled == 20
    torch.testing.assert_close(torch.cat(parts, 1), model(ids), rtol=0, atol=1e-5)


def test_select_copies_and_reorders_rows():
    """Fails if rows of k and v are selected differently, or along the layer axis."""
    model = either("llama")
    ids = torch.arange(24).reshape(3, 8)
    cache, rows = model.new_cache(3, 9), torch.tensor([2, 0, 0])
    model(ids, cache=cache)
    cache.select(rows)
    cached = model(torch.tensor([[5], [6], [7]]), cache=cache)[:, -1]
    whole = model(torch.cat((ids[rows], torch.tensor([[5], [6], [7]])), 1))[:, -1]
    torch.testing.assert_close(cached, whole, rtol=0, atol=1e-5)


@both
def test_padding_is_never_looked_at(family):
    """Fails if the value of a padding token reaches a real row;
    its ids are changed and nothing may move.
    """
    model = either(family)
    ids, real = left_pad([[5, 6, 7], list(range(9))], "cpu")
    positions, T = (real.cumsum(1) - 1).clamp(min=0), ids.shape[1]
    allowed = (real[:, None, :] & causal(T, T, "cpu")) | torch.eye(T, dtype=torch.bool)
    a = model(ids, positions, allowed)
    b = model(ids.masked_fill(~real, 200), positions, allowed)
    assert torch.equal(a[real], b[real]) and not torch.equal(a[~real], b[~real])


@both
def test_future_tokens_change_nothing(family):
    """Fails if the mask is one diagonal off, or upside down for the stacked heads of a group."""
    model = either(family)
    ids = torch.randint(0, 272, (2, 12), generator=torch.Generator().manual_seed(2))
    changed = torch.cat((ids[:, :6], (ids[:, 6:] + 1) % 272), 1)
    a, b = model(ids), model(changed)
    torch.testing.assert_close(a[:, :6], b[:, :6], rtol=0, atol=1e-5)
    assert (a[:, 6:] - b[:, 6:]).abs().amax(-1).min() > 1e-2
    # and the own token is seen
    own = torch.cat((ids[:, :5], (ids[:, 5:6] + 1) % 272, ids[:, 6:]), 1)
    assert (a[:, 5] - model(own)[:, 5]).abs().amax(-1).min() > 1e-2


@both
def test_the_order_of_tokens_matters(family):
    """Fails if positions are ignored: the last token would see its past as a set
    (in one layer; more layers see the causal order of what lies below).
    """
    model = random_model(3, max_position_embeddings=96,
                         **FAMILIES[family] | {"num_hidden_layers": 1})
    ids = torch.tensor([[9, 8, 7, 6, 5]])
    assert (model(ids)[0, -1] - model(ids[:, [1, 0, 2, 3, 4]])[0, -1]).abs().max() > 1e-2


# ---------------------------------------------------------------------------------------- attention
@pytest.mark.parametrize("B,H,G,S,T",
                         [(2, 6, 2, 5, 5), (3, 9, 3, 1, 7), (1, 4, 4, 3, 8), (2, 6, 1, 4, 4)])
def test_grouped_attention_equals_a_plain_loop(B, H, G, S, T):
    """Fails if query head h reads another key head than h // (H/G),
    e.g. `repeat` instead of `repeat_interleave`.
    """
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, n, t, 8, generator=g) for n, t in ((H, S), (G, T), (G, T)))
    allowed = ((torch.rand(B, S, T, generator=g) < 0.5)
               | causal(S, T, "cpu").tril(T - S).logical_and(torch.eye(T).bool()[T - S:]))
    got = attend(q, k, v, additive_mask(allowed, H // G, q.dtype)).view(B, S, H, 8)
    kk, vv = k.repeat_interleave(H // G, 1), v.repeat_interleave(H // G, 1)
    for b in range(B):
        for h in range(H):
            for s in range(S):
                score = (kk[b, h] @ q[b, h, s] / 8 ** 0.5).masked_fill(
                    ~allowed[b, s], float("-inf"))
                torch.testing.assert_close(got[b, s, h], score.softmax(-1) @ vv[b, h],
                                           rtol=1e-5, atol=1e-6)


def test_attention_takes_a_kernels_own_memory_layout(monkeypatch):
    """Fails if attend() calls .view on the kernel's answer: CUDA's memory-efficient kernel gives
    (B, S, G, D) transposed.
    """
    plain, g = F.scaled_dot_product_attention, torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 6, 5, 8, generator=g), torch.randn(2, 2, 5, 8, generator=g)
    mask = additive_mask(causal(5, 5, "cpu"), 3, q.dtype)
    want = attend(q, k, k, mask)
    monkeypatch.setattr(model_file.F, "scaled_dot_product_attention",
                        lambda *a, **kw: (
                            plain(*a, **kw).transpose(1, 2).contiguous().transpose(1, 2)))
    assert torch.equal(attend(q, k, k, mask), want)


def test_masks():
    """Fails if the mask is boolean-inverted, of a fixed dtype,
    or repeated per element instead of per head.
    """
    assert causal(2, 4, "cpu").tolist() == [[[True, True, True, False], [True, True, True, True]]]
    allowed = torch.tensor([[[True, False], [True, True]]])
    mask = additive_mask(allowed, 3, torch.bfloat16)
    inf = float("inf")
    assert mask.dtype == torch.bfloat16 and mask.tolist() == [[[[0, -inf], [0, 0]] * 3]]


# ---------------------------------------------------------------------------------- the whole model
@both
def test_context_overflow_is_refused(family):
    """Fails if the check ignores the cache, or is one off: 96 positions fit, 97 do not."""
    model = either(family)
    assert model(torch.zeros(1, 96, dtype=torch.long)).shape == (1, 96, 272)
    with pytest.raises(ValueError, match="97 positions.*96"):
        model(torch.zeros(1, 97, dtype=torch.long))
    cache = model.new_cache(1, 97)
    model(torch.zeros(1, 96, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="97 positions.*96"):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)


@both
def test_padded_vocabulary_is_never_likely(family):
    """Fails if the logits of the padding are only small, or those of real tokens are touched too.
    """
    model, ids = either(family), torch.tensor([[1, 2, 3]])
    whole = model(ids)
    model.valid_vocab = 259
    cut = model(ids)
    assert torch.equal(cut[..., :259], whole[..., :259]) and (cut[..., 259:] == float("-inf")).all()
    assert torch.isfinite(whole).all()
    assert (cut.softmax(-1)[..., 259:] == 0).all() and torch.isfinite(cut.softmax(-1)).all()


def test_unknown_family_is_refused():
    """Fails if an unknown family silently becomes a Llama."""
    with pytest.raises(ValueError, match="'mamba'.*llama, gpt2"):
        Transformer(Config(family="mamba"))


def test_tied_and_untied_head():
    """Fails if an untied head is ignored, or a tied one gets a matrix of its own."""
    tied, untied = random_model(0), random_model(0, tie_word_embeddings=False)
    assert "lm_head.weight" not in dict(tied.named_parameters())
    ids = torch.tensor([[1, 2, 3]])
    before, before_tied = untied(ids), tied(ids)
    untied.lm_head.weight.mul_(2)
    # input and output sign both flip: not the same logits
    tied.embedding.mul_(-1)
    torch.testing.assert_close(untied(ids), 2 * before)
    assert (tied(ids) - before_tied).abs().max() > 1e-2


@both
def test_gradients_reach_the_input(family):
    """Fails if a tensor is detached or overwritten in place on the way:
    z could then not be trained.
    """
    model = either(family)
    norm = (model.transformer.h[0].ln_1 if family == "gpt2"
            else model.model.layers[0].input_layernorm)
    norm.weight.requires_grad_(True)
    model.valid_vocab = 259
    model(torch.tensor([[1, 2, 3, 4]]))[..., :259].log_softmax(-1)[0, -1, 7].backward()
    assert torch.isfinite(norm.weight.grad).all() and (norm.weight.grad != 0).all()


@both
def test_bfloat16_keeps_its_dtype(family):
    """Fails if a float32 table or mask turns the rest of a bfloat16 model into float32,
    or a norm works in bfloat16.
    """
    model = either(family)
    ids = torch.arange(60)[None]
    exact = model(ids)
    half = model.to(torch.bfloat16)
    seen = []
    for module in half.modules():
        module.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    out = half(ids, cache=half.new_cache(1, 60))
    assert set(seen) == {torch.bfloat16}
    assert (out.float() - exact).abs().mean() < 0.03 * exact.std()


def test_the_norm_adds_its_squares_in_float32():
    """Fails if RMSNorm works in bfloat16, whose 8 bits lose the sum and the root:
    only the last rounding may be seen.
    """
    norm, x = (RMSNorm(576, 1e-5),
               torch.randn(50, 576, generator=torch.Generator().manual_seed(0)).bfloat16())
    exact = x.double() / (x.double().pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    # float32 may still flip a rare tie
    assert (norm.bfloat16()(x) != exact.bfloat16()).float().mean() < 1e-3


@both
def test_no_tensor_is_made_on_a_wrong_device(family):
    """Fails if a mask, a position or a table is made on the CPU while the model is elsewhere
    (meta tensors, no GPU needed).
    """
    with torch.device("meta"):
        model = Transformer(either(family).cfg).requires_grad_(False)
    ids = torch.zeros(2, 5, dtype=torch.long, device="meta")
    cache, made = model.new_cache(2, 8), []
    model.valid_vocab = 259

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(t.device.type for t in pytree.tree_leaves(out)
                        if isinstance(t, torch.Tensor) and t.dim() > 0)
            return out

    with Watch():
        x, y = model(ids, cache=cache), model(ids[:, :1], cache=cache)
    assert set(made) == {"meta"} and len(made) > 50 and cache.k[0].device.type == "meta"
    assert x.shape == (2, 5, 272) and y.shape == (2, 1, 272) and cache.filled == 6

"""Two passes: in this order, on the right weights, and the base model is back afterwards whatever happened."""
import numpy as np
import pytest
import torch

from t2mini import adapt, evaluate, svf, tasks
from t2mini.generate import Samples
from t2mini.grade import Example


@pytest.fixture
def ready(loaded):
    """(model, tokenizer, three different experts, a dispatcher)"""
    model, tokenizer = loaded
    svf.attach(model, progress=False)
    made = []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        made.append({n: 1 + 0.25 * torch.randn(len(z), generator=g) for n, z in svf.get_z(model).items()})
    return model, tokenizer, dict(zip(adapt.SKILLS, made)), made[3]


def is_base(model):
    return all(layer.folded.data_ptr() == layer.base.weight.data_ptr() and bool((layer.z == 1).all()) and layer.bank is None
               for layer in svf.layers(model).values())


def weights_now(model):
    return next(iter(svf.layers(model).values())).z.detach().clone()


def fake_generate(tokenizer, say, seen):
    """Stands in for generate(): answers say(row) and notes which z were loaded."""
    def generate(model, prompts, max_tokens, *args, **kw):
        seen.append(weights_now(model))
        rows = [tokenizer.encode(say(i)) for i in range(len(prompts))]
        ids = torch.zeros(len(rows), max(map(len, rows)) or 1, dtype=torch.long)
        for i, r in enumerate(rows):
            ids[i, :len(r)] = torch.tensor(r)
        return Samples(ids, torch.tensor([len(r) for r in rows]), torch.zeros(ids.shape), torch.ones(len(rows), dtype=torch.bool))
    return generate


@pytest.mark.parametrize("strategy", ["prompt", "classifier"])
def test_the_first_pass_runs_on_base_or_dispatcher(ready, monkeypatch, strategy):
    """Fails if the first pass sees the expert that was loaded last (the released code's does)."""
    model, tokenizer, experts, dispatcher = ready
    svf.set_z(model, experts["math"])
    seen = []
    monkeypatch.setattr(adapt, "generate", fake_generate(tokenizer, lambda i: "Math.", seen))
    found = adapt.route(model, tokenizer, ["q"], dispatcher if strategy == "classifier" else None)
    name = next(iter(svf.layers(model)))
    assert torch.equal(seen[0], dispatcher[name] if strategy == "classifier" else torch.ones_like(seen[0]))
    assert found[0].label == "math" and found[0].readable and is_base(model)
    assert abs(sum(found[0].probabilities.values()) - 1) < 1e-5 and set(found[0].probabilities) == set(tasks.LABELS)


def test_unreadable_answers_go_to_the_base_model(ready, monkeypatch):
    """Fails if an answer that names no label is routed to an expert, or is not counted apart."""
    model, tokenizer, *_ = ready
    said = ["banana", "code or math", "OTHER", "reasoning"]
    monkeypatch.setattr(adapt, "generate", fake_generate(tokenizer, lambda i: said[i], []))
    found = adapt.route(model, tokenizer, list("abcd"))
    assert [(r.label, r.readable) for r in found] == [("other", False), ("other", False), ("other", True), ("reasoning", True)]


def test_one_dispatch_prompt(ready, monkeypatch):
    """Fails if asking uses another dispatch prompt than training."""
    model, tokenizer, *_ = ready
    asked = []
    real = adapt.generate
    monkeypatch.setattr(adapt, "generate", lambda m, prompts, *a, **k: asked.extend(prompts) or real(m, prompts, *a, **k))
    adapt.route(model, tokenizer, ["how much is 2 + 2?"])
    assert asked == [tokenizer.prompt(tasks.dispatch_prompt("how much is 2 + 2?"), opener=tasks.get("dispatch").opener)]


def test_second_pass_answers_with_the_routed_expert(ready):
    """Fails if answers are mixed up between labels, or "other" is not the base model's own answer."""
    model, tokenizer, experts, _ = ready
    questions, labels = [f"question {i}" for i in range(6)], ["math", "other", "code", "math", "reasoning", "other"]
    got = adapt.answer_routed(model, tokenizer, questions, labels, experts, 8)
    for q, label, text in zip(questions, labels, got):
        with svf.using(model, experts.get(label, {})):
            assert text == evaluate.answers(model, tokenizer, [q], 8)[0]
    assert is_base(model) and len(set(got)) > 1


@pytest.mark.parametrize("part", ["route", "answer_routed", "adapt_cem"])
def test_base_model_is_back_after_a_failure(ready, monkeypatch, part):
    """Fails if an exception in either pass, or in the search, leaves an expert loaded."""
    model, tokenizer, experts, dispatcher = ready

    def broken(*args, **kw):
        raise RuntimeError("boom")

    monkeypatch.setattr(adapt, "generate", broken)
    monkeypatch.setattr(adapt.evaluate, "generate", broken)
    with pytest.raises(RuntimeError, match="boom"):
        if part == "route":
            adapt.route(model, tokenizer, ["q"], dispatcher)
        elif part == "answer_routed":
            adapt.answer_routed(model, tokenizer, ["q"], ["code"], experts, 4)
        else:
            adapt.adapt_cem(model, tokenizer, TASK, list(experts.values()), SHOTS)
    assert is_base(model)


class Easy(tasks.Task):
    pass


TASK = Easy("t", None, 5, "other")
SHOTS = [Example(f"say {i}", "e", "contains") for i in range(4)]


def pay(monkeypatch):
    """A reward that some random models earn: the text holds a letter of the first half of the alphabet."""
    monkeypatch.setattr(tasks, "rewards", lambda es, texts: [float(any(c in "abcdefghijklm" for c in t.lower())) for t in texts])


def test_mixtures_scored_together_are_those_scored_alone(ready, monkeypatch):
    """Fails if per-row experts, shrinking batches or sorting hand a mixture another one's answers."""
    model, tokenizer, experts, _ = ready
    pay(monkeypatch)
    zs = list(experts.values())
    mixed = [adapt.mixture(zs, a) for a in ([0, 0, 0], [1, 0, 0], [0.3, 0.5, -0.2], [1, 1, 1])]
    together = adapt.score_mixtures(model, tokenizer, TASK, SHOTS, mixed, batch=7)
    for z, (accuracy, likelihood) in zip(mixed, together):
        with svf.using(model, z):
            assert accuracy == np.mean(evaluate.score(model, tokenizer, TASK, SHOTS))
        alone = adapt.score_mixtures(model, tokenizer, TASK, SHOTS, [z])[0]
        assert alone[0] == accuracy and (alone[1] == likelihood or abs(alone[1] - likelihood) < 1e-3)
    assert is_base(model)


def test_no_right_answer_is_the_worst_tie_break(ready, monkeypatch):
    """Fails if a mixture without a right answer gets a likelihood, which could beat a real one."""
    model, tokenizer, experts, _ = ready
    monkeypatch.setattr(tasks, "rewards", lambda es, texts: [0.0] * len(texts))
    assert adapt.score_mixtures(model, tokenizer, TASK, SHOTS[:1], [{}]) == [(0.0, -np.inf)]


@pytest.mark.parametrize("per_matrix", [False, True])
def test_cem_is_never_worse_on_its_shots(ready, monkeypatch, per_matrix):
    """Fails if the base model or a single expert beats what the search returns, or NaN comes out of it."""
    model, tokenizer, experts, _ = ready
    pay(monkeypatch)
    zs = list(experts.values())
    mixed, found = adapt.adapt_cem(model, tokenizer, TASK, zs, SHOTS, per_matrix, iterations=2, population=5)
    rivals = adapt.score_mixtures(model, tokenizer, TASK, SHOTS, [{}, *zs])
    assert found.best_score[0] >= max(r[0] for r in rivals) and is_base(model)
    assert all(torch.isfinite(z).all() for z in mixed.values())
    assert len(found.best) == (3 * len(zs[0]) if per_matrix else 3)
    adapt.adapt_cem(model, tokenizer, TASK, zs, SHOTS[:1], per_matrix, iterations=1, population=2)


def test_one_hot_alpha_is_the_expert_and_zero_the_base(ready):
    """Fails if mixing changes an expert that is taken alone, per expert or per matrix."""
    _, _, experts, _ = ready
    zs = list(experts.values())
    names = sorted(zs[0])
    for d in (1, len(names)):
        one = adapt.mixture(zs, np.tile([0.0, 1.0, 0.0], d), names)
        assert all(torch.equal(one[n], zs[1][n]) for n in names)
        assert all(bool((z == 1).all()) for z in adapt.mixture(zs, np.zeros(3 * d), names).values())


def test_shots_and_scored_examples_are_disjoint():
    """Fails if the few-shot examples are among those that are scored (the release takes both from test)."""
    for name in ("math-unseen", "code-unseen", "reasoning-unseen"):
        task = tasks.get(name)
        assert not {e.key for e in task.examples("val", 10)} & {e.key for e in task.examples("test", 60)}

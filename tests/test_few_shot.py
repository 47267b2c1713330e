"""Mixtures found by likelihood and by gradient (lab/few_shot.py), on a tiny model."""
from dataclasses import replace

import pytest
import torch

from t2mini import lora, svf, tasks
from t2mini.lab import arms, few_shot
from t2mini.likelihood import likelihoods
from t2mini.machine import batches
from t2mini.questions.example import Example


@pytest.fixture
def mixed_from(loaded):
    """(model, tokenizer, two experts, task, four shots), all in float32."""
    model, tokenizer = loaded
    svf.attach(model, progress=False)
    g = torch.Generator().manual_seed(0)
    experts = [{name: 1 + 0.2 * torch.randn(len(layer.S), generator=g)
                for name, layer in svf.layers(model).items()} for _ in range(2)]
    task = tasks.get("math")
    return model, tokenizer, experts, task, task.examples("val", 4, seed=0)


def log_likelihood(model, tokenizer, task, shots, z):
    """Mean per token over all gold answers."""
    groups = few_shot.gold_groups(tokenizer, task, shots)
    with svf.using(model, z):
        found = sum(lp.item() for lp in likelihoods(model, groups))
    return found / sum(len(answer) for _, [answer] in groups)


@pytest.mark.parametrize("per_matrix", [False, True])
def test_the_gradient_to_alpha_is_that_of_the_likelihood(mixed_from, per_matrix):
    """Fails if the projection on the experts' directions is not the slope that differences show."""
    model, tokenizer, experts, task, shots = mixed_from
    names = sorted(experts[0])
    alpha = torch.full((len(names), 2), 0.5) if per_matrix else torch.tensor([0.5, 0.5])
    groups = few_shot.gold_groups(tokenizer, task, shots)
    with svf.using(model, few_shot.mixed(experts, names, alpha)):
        _, dz = few_shot.gradient(model, groups, [[1.0]] * len(groups), 1.0)
    found = -few_shot.to_alpha(experts, names, dz, per_matrix)
    for place in [(0,), (1,)] if not per_matrix else [(0, 0), (3, 1)]:
        sides = []
        for step in (1e-2, -1e-2):
            moved = alpha.clone()
            moved[place] += step
            sides.append(log_likelihood(model, tokenizer, task, shots,
                                        few_shot.mixed(experts, names, moved)))
        assert found[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-2,
                                                    rel=0.02, abs=2e-5)


@pytest.mark.parametrize("per_matrix", [False, True])
@pytest.mark.parametrize("turned", [1, -1])
def test_by_gradient_of_experts_with_other_matrices(mixed_from, per_matrix, turned):
    """Fails if a matrix that one expert lacks, such as vision's, is left out of the gradient, or
    ends the search.
    """
    model, tokenizer, experts, task, shots = mixed_from
    few = {name: z for name, z in experts[1].items() if "layers.0" in name}
    whole = {name: few.get(name, torch.ones_like(z)) for name, z in experts[1].items()}
    found, want = ([few_shot.by_gradient(model, tokenizer, task, [experts[0], other][::turned],
                                         shots, "gold", per_matrix, steps=2)
                    for other in (few, whole)])
    assert torch.equal(found[1], want[1]) and found[2] == want[2]
    assert all(torch.equal(z, want[0][name]) for name, z in found[0].items())


def test_by_gradient_of_the_reward_needs_no_gold_answers(mixed_from, monkeypatch):
    """Fails if a task whose answers are only judged, as MATH's are, cannot be searched for; or if
    shots that do not fit into one batch get other answers.
    """
    model, tokenizer, experts, task, shots = mixed_from
    task = replace(task, max_tokens=8)      # of long ones, rounding alone turns one in a thousand
    shots = [replace(e, match="math") for e in shots]
    with pytest.raises(ValueError, match="no right answer is known"):
        tasks.gold(shots[0])
    whole = few_shot.drawn(model, tokenizer, task, shots, 3, 1.0, 0)
    assert len(few_shot.by_gradient(model, tokenizer, task, experts, shots, steps=1,
                                    samples=2)[2]) == 1
    sizes, plain = [], few_shot.generate
    monkeypatch.setattr(few_shot, "generate",
                        lambda model, prompts, *a, **k: sizes.append(len(prompts)) or plain(
                            model, prompts, *a, **k))
    monkeypatch.setattr(batches.alike, "__defaults__", (1, 0, 10 ** 9))
    assert few_shot.drawn(model, tokenizer, task, shots, 3, 1.0, 0)[0] == whole[0]
    assert sizes == [1] * len(shots)


def test_one_lora_is_searched_by_likelihood(loaded):
    """Fails if a single LoRA, which may be weighed, is refused as a mixture of several."""
    model, tokenizer = loaded
    lora.attach(model, "lora", {"rank": 2, "lora_alpha": 4.0})
    one = {name: torch.full_like(t, 0.1) for name, t in svf.get_z(model).items()}
    task = replace(tasks.get("math"), max_tokens=2)
    z, alpha, _ = few_shot.by_likelihood(model, tokenizer, task, [one],
                                         task.examples("val", 2), 1, 4)
    assert alpha.shape == (1,) and z.keys() == one.keys()


@pytest.mark.parametrize("goal", ["gold", "reward"])
def test_by_gradient(mixed_from, goal, monkeypatch):
    """Fails if gold answers do not become likelier, a bound is passed,
    or the model runs on something else afterwards than before.
    """
    model, tokenizer, experts, task, shots = mixed_from
    if goal == "reward":                # a tiny model earns nothing on sums: short answers do here
        monkeypatch.setattr(tasks, "rewards",
                            lambda asked, texts: [float(len(t) % 2) for t in texts])
    with svf.using(model, experts[0]):
        z, alpha, history = few_shot.by_gradient(model, tokenizer, task, experts,
                                                 shots, goal, steps=4, samples=4)
        assert all(torch.equal(v, experts[0][name]) for name, v in svf.get_z(model).items())
        assert all(p.grad is None for p in svf.trained(model).values())
    assert alpha.shape == (2,)
    assert len(history) == 4 and not torch.equal(alpha, torch.full((2,), 0.5))
    assert alpha.min() >= few_shot.LOW and alpha.max() <= few_shot.HIGH
    want = svf.mix(experts, alpha.tolist())
    assert all(torch.equal(z[name], want[name]) for name in want)
    assert all(layer.folded is layer.W for layer in svf.layers(model).values())
    if goal == "gold":
        assert history[-1] > history[0]


def test_by_likelihood_is_no_worse_than_what_it_starts_from(mixed_from):
    """Fails if the search does not maximise the likelihood,
    or leaves out the base model or a single expert.
    """
    model, tokenizer, experts, task, shots = mixed_from
    z, alpha, history = few_shot.by_likelihood(model, tokenizer, task, experts,
                                               shots, iterations=2, population=6)

    def score(z):
        groups = few_shot.gold_groups(tokenizer, task, shots)
        with svf.using(model, z):
            each = likelihoods(model, groups)
        return sum(lp.item() / len(a) for lp, (_, [a]) in zip(each, groups)) / len(groups)
    assert score(z) == pytest.approx(history[-1], abs=1e-5)
    assert history == sorted(history) and alpha.shape == (2,)
    assert all(score(z) >= score(other) - 1e-5 for other in ({}, *experts))


def test_a_mixture_without_a_likelihood_is_the_worst(mixed_from, monkeypatch):
    """Fails if a NaN, which no number is larger than, comes out first."""
    model, tokenizer, experts, task, shots = mixed_from
    real, seen = few_shot.likelihoods, []

    def broken_at_first(model, groups):
        seen.append(0)
        found = real(model, groups)
        return [lp * float("nan") for lp in found] if len(seen) < 4 else found
    monkeypatch.setattr(few_shot, "likelihoods", broken_at_first)
    _, alpha, history = few_shot.by_likelihood(model, tokenizer, task, experts, shots, 1, 6)
    assert -100 < history[0] < 0 and alpha.isfinite().all()


def test_the_number_of_steps_is_that_of_the_caller(mixed_from, monkeypatch):
    """Fails if a search along the gradient takes other steps than it was given,
    or, given none, than the usual ones.
    """
    model, tokenizer, experts, task, _ = mixed_from
    short = replace(task, max_tokens=3)
    shelf = {str(k): expert for k, expert in enumerate(experts)}
    for given, steps in ((2, 2), (0, 3)):
        monkeypatch.setitem(arms.ITERATIONS, "gradient", 3)
        _, found = arms.search(model, tokenizer, short, shelf, list(shelf), shots=2,
                               iterations=given, by="gradient")
        assert len(found["history"]) == steps


@pytest.mark.parametrize("scores, taken", [
    ([(0.5, -2.0), (0.5, -1.0), (0.25, -0.1), (0.75, -1.0), (0.0, -9.0), (0.25, 0.0)], 0),
    ([(0.25, -2.0), (0.5, -1.0), (0.75, -1.0), (0.75, -0.5), (0.0, -9.0), (0.25, 0.0)], 3),
    ([(0.0, -9.0), (0.25, -1.0), (0.25, -1.0), (0.25, -0.5), (0.0, -9.0), (0.5, 0.0)], 5)])
def test_by_first_pass_goes_from_the_equal_mixture_to_what_is_named(mixed_from, monkeypatch,
                                                                    scores, taken):
    """Fails if votes are counted for another expert, an "other" for any, the candidates are not
    those between, one more right example decides, the likelier of equals does not, or no base
    model is tried.
    """
    model, tokenizer, experts, task, shots = mixed_from
    said, tried = iter(["code", "math", "code", "other"]), []
    monkeypatch.setattr(few_shot.adapt, "route", lambda m, t, questions, dispatcher: [
        few_shot.adapt.Route(next(said), "", {}) for _ in questions])

    def score(model, tokenizer, task, shots, mixed):
        tried.extend(mixed)
        return scores
    monkeypatch.setattr(few_shot.adapt, "score_mixtures", score)
    z, alpha, right = few_shot.by_first_pass(model, tokenizer, task, experts, shots, None,
                                             names=("math", "code"))
    line = [(0.3125, 0.5), (0.5, 0.5), (0.4375, 0.5), (0.375, 0.5), (0.25, 0.5), (0.0, 0.0)]
    for made, wanted in zip(tried, line, strict=True):
        assert all(torch.allclose(made[k], v) for k, v in svf.mix(experts, wanted).items())
    assert tuple(alpha.tolist()) == line[taken] and right == [s[0] for s in scores]
    assert all(torch.equal(z[k], v) for k, v in svf.mix(experts, alpha.tolist()).items())


def test_what_a_way_cannot_do_is_told_before_experts_are_read():
    """Fails if a shelf decomposes the model first."""
    class Unread(dict):
        def __getitem__(self, name):
            raise AssertionError(name)
    asked = tasks.ListTask("t", lambda: {"val": [Example("How?", "", "open")] * 2}, 8, "other")
    for task, how, says in (
            (tasks.get("math"), dict(by="first-pass"), "first pass can name"),
            (tasks.get("math"), dict(by="likelihood", normalise=True), "does not go with"),
            (tasks.get("math"), dict(by="likelihood", per_matrix=True), "or --per-matrix"),
            (asked, dict(by="likelihood"), "no right answer is known")):
        with pytest.raises(ValueError, match=says):
            arms.search(None, None, task, Unread(), ["math", "mine"], shots=2, **how)
    with pytest.raises(AssertionError, match="math"):       # a reward is all that it needs
        arms.search(None, None, asked, Unread(), ["math", "mine"], shots=2, by="gradient")


@pytest.mark.parametrize("by, z, says", [
    ("gradient", {"q.A": torch.ones(2)}, "LoRA's are products"),
    ("first-pass", {"q": torch.ones(2)}, "that the first pass can name")])
def test_experts_that_a_way_cannot_mix_are_told_at_once(by, z, says):
    """Fails if minutes pass before that, or an expert that no vote can name gets a part."""
    with pytest.raises(ValueError, match=says):
        arms.search(None, None, tasks.get("math"), {"math": z, "mine": z}, ["math", "mine"],
                    shots=2, by=by)

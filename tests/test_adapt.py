"""Two passes: in this order, on the right weights, and afterwards the
model is what it was, whatever happened.
"""
import numpy as np
import pytest
import torch
from test_cli import call, home, last_json     # noqa: F401 (fixtures)

from t2mini import adapt, evaluate, experts, svf, tasks
from t2mini.generate import Samples, generate
from t2mini.questions.example import Example


@pytest.fixture
def ready(loaded):
    """(model, tokenizer, three different experts, a dispatcher)"""
    model, tokenizer = loaded
    svf.attach(model, progress=False)
    made = []
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        made.append({n: 1 + 0.25 * torch.randn(len(z), generator=g)
                     for n, z in svf.get_z(model).items()})
    return model, tokenizer, dict(zip(adapt.SKILLS, made)), made[3]


def is_base(model):
    return all(layer.folded.data_ptr() == layer.base.weight.data_ptr()
               and bool((layer.z == 1).all()) and layer.bank is None
               for layer in svf.layers(model).values())


def runs_on(model, expert):
    """Is this expert set, and folded in?"""
    return (all(torch.equal(z, expert[name]) for name, z in svf.get_z(model).items())
            and all(layer.bank is None and layer.folded is not layer.W
                    for layer in svf.layers(model).values()))


def weights_now(model):
    """The first layer's z (r,), or S * (z - 1) (B, r) where each row of the batch has its own."""
    layer = next(iter(svf.layers(model).values()))
    return (layer.z if layer.bank is None else layer.bank[layer.rows.index]).detach().clone()


def fake_generate(tokenizer, say, seen):
    """Stands in for generate(): answers say(row) and notes which z were loaded."""
    def generate(model, prompts, max_tokens, *args, **kw):
        seen.append(weights_now(model))
        rows = [tokenizer.encode(say(i)) for i in range(len(prompts))]
        ids = torch.zeros(len(rows), max(map(len, rows)) or 1, dtype=torch.long)
        for i, r in enumerate(rows):
            ids[i, :len(r)] = torch.tensor(r)
        return Samples(ids, torch.tensor([len(r) for r in rows]), torch.zeros(ids.shape),
                       torch.ones(len(rows), dtype=torch.bool),
                       torch.zeros(len(rows), model.cfg.vocab_size))
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
    S = svf.layers(model)[name].S
    assert torch.equal(seen[0], (S * (dispatcher[name] - 1))[None] if strategy == "classifier"
                       else torch.ones_like(S))
    adapt.route(model, tokenizer, ["q"] * (adapt.FEW + 1),
                dispatcher if strategy == "classifier" else None)
    assert torch.equal(seen[1],
                       dispatcher[name] if strategy == "classifier" else torch.ones_like(S))
    assert found[0].label == "math" and found[0].readable and runs_on(model, experts["math"])
    assert abs(sum(found[0].probabilities.values()) - 1) < 1e-5
    assert set(found[0].probabilities) == set(tasks.LABELS)


@torch.no_grad()
def logits(model):
    return model(torch.arange(30, 70)[None])


def test_two_passes_in_order_and_the_base_bit_for_bit(ready, monkeypatch):
    """Fails if the second pass runs on the dispatcher or the base, or anything of an expert stays
    in weights or logits.
    """
    model, tokenizer, experts, dispatcher = ready
    name, seen = next(iter(svf.layers(model))), []
    folded = {n: layer.folded.clone() for n, layer in svf.layers(model).items()}
    want = logits(model)
    monkeypatch.setattr(adapt, "generate",
                        fake_generate(tokenizer, lambda i: ["math", "code"][i], seen))
    monkeypatch.setattr(evaluate, "generate", fake_generate(tokenizer, lambda i: "done", seen))
    for first in (dispatcher, None):
        seen.clear()
        routes = adapt.route(model, tokenizer, ["a", "bb"], first)
        assert adapt.second_pass(model, tokenizer, ["a", "bb"], [r.label for r in routes],
                                 experts, 4) == ["done"] * 2
        S = svf.layers(model)[name].S
        assert len(seen) == 2
        assert torch.equal(seen[0], (S * (first[name] - 1)).expand(2, -1) if first
                           else torch.ones_like(S))
        assert torch.equal(seen[1],
                           S * (torch.stack((experts["math"][name], experts["code"][name])) - 1))
        assert all(torch.equal(layer.folded, folded[n]) for n, layer in svf.layers(model).items())
        assert torch.equal(logits(model), want)


@pytest.mark.parametrize("strategy", ["prompt", "classifier"])
def test_an_expert_loaded_before_changes_no_route(ready, strategy):
    """Fails if what is loaded before the call reaches the first pass's answers or probabilities."""
    model, tokenizer, experts, dispatcher = ready
    first = dispatcher if strategy == "classifier" else None
    questions = ["hello", "how much is 2 + 2?", "x"]
    want = adapt.route(model, tokenizer, questions, first)
    svf.set_z(model, experts["code"])
    assert adapt.route(model, tokenizer, questions, first) == want
    assert runs_on(model, experts["code"])
    for r in want:
        assert sum(r.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert min(r.probabilities.values()) >= 0


def test_other_and_unreadable_get_the_base_models_own_answer(ready, monkeypatch):
    """Fails if "other" skips loading and so runs on the expert that was loaded last
    (the released code's does).
    """
    model, tokenizer, experts, _ = ready
    questions = [f"question {i}" for i in range(4)]
    base = evaluate.answers(model, tokenizer, questions, 8)
    said = ["other", "banana", "math or code", "OTHER"]
    with monkeypatch.context() as m:
        m.setattr(adapt, "generate", fake_generate(tokenizer, lambda i: said[i], []))
        labels = [r.label for r in adapt.route(model, tokenizer, questions)]
    svf.set_z(model, experts["math"])
    # the expert does answer otherwise
    assert evaluate.answers(model, tokenizer, questions, 8) != base
    assert adapt.second_pass(model, tokenizer, questions, labels, experts, 8) == base
    # several experts share a batch, a single one is folded in
    for last in ("reasoning", "math"):
        svf.set_z(model, experts["math"])
        mixed = adapt.second_pass(model, tokenizer, questions,
                                  ["math", "other", last, "other"], experts, 8)
        assert [mixed[1], mixed[3]] == [base[1], base[3]] and runs_on(model, experts["math"])


def test_an_expert_named_other_answers_where_it_is_named(ready):
    """Fails if the name of a label that needs no expert hides an expert of yours."""
    model, tokenizer, found, z = ready
    found = {**found, "other": z}
    named = adapt.answer(model, tokenizer, ["hello"], experts=found, expert="other", max_tokens=9)
    given, base = (adapt.answer(model, tokenizer, ["hello"], expert=e, max_tokens=9)
                   for e in (z, "none"))
    assert named[0].answer == given[0].answer != base[0].answer


@pytest.mark.parametrize("how, name", [
    ({}, "dispatcher"), ({"strategy": "cem"}, "mixture"), ({"expert": "maths"}, "maths")])
def test_an_expert_that_was_not_given_is_named_with_those_that_were(ready, how, name):
    """Fails if a dict of experts without the one that is needed ends in a KeyError."""
    model, tokenizer, found, _ = ready
    with pytest.raises(ValueError, match=f"'{name}' among .*: code, math, reasoning"):
        adapt.answer(model, tokenizer, ["hello"], experts=found, **how)


def test_a_dict_of_experts_needs_no_dispatcher_where_nobody_asks_it(ready):
    """Fails if the check of what was given asks for more than the answer will."""
    model, tokenizer, found, z = ready
    for how in ({"strategy": "prompt"}, {"strategy": "none"}, {"expert": "math"}, {"expert": z},
                {"expert": "none"}):
        assert adapt.answer(model, tokenizer, ["hello"], experts=found, max_tokens=2, **how)


def test_unreadable_answers_go_to_the_base_model(ready, monkeypatch):
    """Fails if an answer that names no label is routed to an expert, or is not counted apart."""
    model, tokenizer, *_ = ready
    said = ["banana", "code or math", "OTHER", "reasoning"]
    monkeypatch.setattr(adapt, "generate", fake_generate(tokenizer, lambda i: said[i], []))
    found = adapt.route(model, tokenizer, list("abcd"))
    assert [(r.label, r.readable) for r in found] == [("other", False), ("other", False),
                                                      ("other", True), ("reasoning", True)]


def test_one_dispatch_prompt(ready, monkeypatch):
    """Fails if asking uses another dispatch prompt than training."""
    model, tokenizer, *_ = ready
    asked = []
    real = adapt.generate
    monkeypatch.setattr(adapt, "generate", lambda m, prompts, *a, **k: (
        asked.extend(prompts) or real(m, prompts, *a, **k)))
    adapt.route(model, tokenizer, ["how much is 2 + 2?"])
    assert asked == [tokenizer.prompt(tasks.dispatch_prompt("how much is 2 + 2?"),
                                      opener=tasks.get("dispatch").opener)]


def test_second_pass_answers_with_the_routed_expert(ready):
    """Fails if answers are mixed up between labels, or "other" is not the base model's own answer.
    """
    model, tokenizer, experts, _ = ready
    questions, labels = ([f"question {i}" for i in range(6)],
                         ["math", "other", "code", "math", "reasoning", "other"])
    got = adapt.second_pass(model, tokenizer, questions, labels, experts, 8)
    for q, label, text in zip(questions, labels, got):
        with svf.using(model, experts.get(label, {})):
            assert text == evaluate.answers(model, tokenizer, [q], 8)[0]
    assert is_base(model) and len(set(got)) > 1


@pytest.mark.parametrize("part", ["route", "second_pass", "adapt_cem"])
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
        elif part == "second_pass":
            adapt.second_pass(model, tokenizer, ["q"], ["code"], experts, 4)
        else:
            adapt.adapt_cem(model, tokenizer, TASK, list(experts.values()), SHOTS)
    assert is_base(model)


@pytest.mark.parametrize("labels", [["other", "math"], ["other", "math", "code"]])
def test_a_failure_halfway_through_the_second_pass(ready, monkeypatch, labels):
    """Fails if an expert, or the bank of several, stays loaded."""
    model, tokenizer, experts, _ = ready
    want, calls, real = logits(model), [], evaluate.generate

    def second_fails(*args, **kw):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("boom")
        return real(*args, **kw)

    monkeypatch.setattr(evaluate, "generate", second_fails)
    with pytest.raises(RuntimeError, match="boom"):
        adapt.second_pass(model, tokenizer, ["a", "b", "c"][:len(labels)], labels, experts, 4)
    assert len(calls) == 2 and is_base(model) and torch.equal(logits(model), want)


TASK = tasks.Task("t", None, 5, "other")
SHOTS = [Example(f"say {i}", "e", "contains") for i in range(4)]


def pay(monkeypatch):
    """A reward that some random models earn:
    the text holds a letter of the first half of the alphabet.
    """
    monkeypatch.setattr(tasks, "rewards", lambda es, texts, counts=None: [
        float(any(c in "abcdefghijklm" for c in t.lower())) for t in texts])


def test_mixtures_scored_together_are_those_scored_alone(ready, monkeypatch):
    """Fails if per-row experts, shrinking batches or sorting hand a mixture another one's answers.
    """
    model, tokenizer, experts, _ = ready
    pay(monkeypatch)
    zs = list(experts.values())
    mixed = [adapt.mixture(zs, a) for a in ([0, 0, 0], [1, 0, 0], [0.3, 0.5, -0.2], [1, 1, 1])]
    together = adapt.score_mixtures(model, tokenizer, TASK, SHOTS, mixed, batch=7)
    for z, (accuracy, likelihood) in zip(mixed, together):
        with svf.using(model, z):
            assert accuracy == np.mean(evaluate.score(model, tokenizer, TASK, SHOTS))
        alone = adapt.score_mixtures(model, tokenizer, TASK, SHOTS, [z])[0]
        assert alone[0] == accuracy
        assert alone[1] == likelihood or abs(alone[1] - likelihood) < 1e-3
    assert is_base(model)


def test_the_tie_break_is_the_likelihood_of_right_answers(ready, monkeypatch):
    """Fails if wrong answers count in the tie-break, long answers weigh more,
    or shots are mixed up by the sorting.
    """
    model, tokenizer, experts, _ = ready
    shots = [Example("say " + "word " * k, "x", "contains") for k in (5, 1, 3)]
    monkeypatch.setattr(tasks, "rewards",
                        lambda es, texts, counts=None: [float(e is not shots[1]) for e in es])
    (accuracy, likelihood), = adapt.score_mixtures(model, tokenizer, TASK, shots, [experts["math"]])
    each = []
    with svf.using(model, experts["math"]):
        for e in (shots[0], shots[2]):
            out = generate(model, [tokenizer.prompt(e.prompt)],
                           TASK.max_tokens, tokenizer.stop_ids, 0)
            each.append(float(out.logprobs.sum() / out.lengths[0]))
    assert accuracy == pytest.approx(2 / 3) and likelihood == pytest.approx(np.mean(each), abs=1e-3)


def test_no_right_answer_is_the_worst_tie_break(ready, monkeypatch):
    """Fails if a mixture without a right answer gets a likelihood, which could beat a real one."""
    model, tokenizer, experts, _ = ready
    monkeypatch.setattr(tasks, "rewards", lambda es, texts, counts=None: [0.0] * len(texts))
    assert adapt.score_mixtures(model, tokenizer, TASK, SHOTS[:1], [{}]) == [(0.0, -np.inf)]


@pytest.mark.parametrize("per_matrix", [False, True])
def test_cem_is_never_worse_on_its_shots(ready, monkeypatch, per_matrix):
    """Fails if the base model or a single expert beats what the search returns,
    or NaN comes out of it.
    """
    model, tokenizer, experts, _ = ready
    pay(monkeypatch)
    zs = list(experts.values())
    mixed, found = adapt.adapt_cem(model, tokenizer, TASK, zs, SHOTS,
                                   per_matrix, iterations=2, population=5)
    rivals = adapt.score_mixtures(model, tokenizer, TASK, SHOTS, [{}, *zs])
    assert found.best_score[0] >= max(r[0] for r in rivals) and is_base(model)
    assert all(torch.isfinite(z).all() for z in mixed.values())
    assert len(found.best) == (3 * len(zs[0]) if per_matrix else 3)
    best, base = found.best_score, logits(model)
    assert (best >= max(rivals)
            or best[0] == max(rivals)[0] and best[1] == pytest.approx(max(rivals)[1], abs=1e-3))
    # what is returned is what was scored
    with svf.using(model, mixed):
        assert best[0] == np.mean(evaluate.score(model, tokenizer, TASK, SHOTS))
        assert not torch.equal(logits(model), base)
    adapt.adapt_cem(model, tokenizer, TASK, zs, SHOTS[:1], per_matrix, iterations=1, population=2)
    assert torch.equal(logits(model), base)


@pytest.mark.parametrize("per_matrix", [False, True])
@pytest.mark.parametrize("winner", range(4))
def test_base_and_experts_are_tried_however_small_the_population(
        ready, monkeypatch, winner, per_matrix):
    """Fails if a population of two leaves out the base model or an expert,
    so that the result can be worse than it.
    """
    model, tokenizer, experts, _ = ready
    rivals = [{n: torch.ones_like(z) for n, z in experts["math"].items()}, *experts.values()]

    def score(model, tokenizer, task, shots, mixed, batch=160):
        return [(float(all(torch.equal(z[n], rivals[winner][n]) for n in z)), -1.0) for z in mixed]

    monkeypatch.setattr(adapt, "score_mixtures", score)
    mixed, found = adapt.adapt_cem(model, tokenizer, TASK, list(experts.values()),
                                   SHOTS[:1], per_matrix, 2, 2)
    assert found.best_score == (1.0, -1.0)
    assert all(torch.equal(mixed[n], rivals[winner][n]) for n in mixed)


@pytest.mark.parametrize("more", [[], ["--per-matrix"]])
def test_a_normalised_search_writes_the_mixture_that_it_names(call, home, ready,     # noqa: F811
                                                              monkeypatch, more):
    """Fails if `adapt --normalise` mixes with weights that are not divided by their sum,
    or prints and stores others than it mixes with; or --by=likelihood, which has no such sums,
    ends in more than a line. A search on ties would find its middle, whose sum is 1:
    here a candidate that was drawn wins.
    """
    model, _, made, _ = ready
    for name, z in made.items():
        experts.save_expert(home / "out" / f"{name}.safetensors", z,
                            {"base_sha256": model.base_sha256})
    monkeypatch.setattr(
        adapt, "score_mixtures",
        lambda m, t, task, shots, mixed: [(float(i == 1), -1.0) for i in range(len(mixed))])
    args = ["adapt", f"--task={home}/mine.jsonl", "--shots=2", "--iterations=1", "--population=6",
            "--n=1", "--max-tokens=1", "--seed=3", "--json", *more]
    zs, found = [made[name] for name in adapt.MIXED], {}
    for normalise in ([], ["--normalise"]):
        status, out, err = call(*args, *normalise)
        assert status == 0, err
        told, path = last_json(out), home / "out" / "mixture.safetensors"
        alpha, z = list(told["alpha"].values()), experts.read_expert(path)
        assert experts.read_metadata(path)["alpha"] == told["alpha"]
        assert f"alpha {told['alpha']}" in out
        rows = [torch.linalg.lstsq(torch.stack([e[n] - 1 for e in zs], 1),
                                   (z[n] - 1)[:, None]).solution[:, 0] for n in z]
        # stored with four digits
        assert torch.stack(rows).mean(0).tolist() == pytest.approx(alpha, abs=1e-4)
        found[bool(normalise)] = torch.stack(rows).sum(1)
        if not more:
            want = svf.mix(zs, alpha)
            assert all(torch.allclose(z[n], want[n], atol=2e-4) for n in z)
            # the search's own line
            assert f"alpha {' '.join(f'{a:.2f}' for a in alpha)}," in err
            assert ((sum(alpha) == pytest.approx(1, abs=2e-4))
                    == (sum(told["alpha_mean"].values()) == pytest.approx(1, abs=2e-4))
                    == bool(normalise))
    small = found[False] < 0.1                              # such sums are left as they are
    assert small.float().mean() < 0.5 and (found[False] - 1).abs().max() > 0.1
    torch.testing.assert_close(found[True],
                               torch.where(small, found[False], 1.0), rtol=0, atol=1e-4)
    status, _, err = call(*args, "--normalise", "--by=likelihood")
    assert status == 1 and "--by=likelihood does not go with --normalise" in err
    assert err.count("t2mini: ") == 1 and "Traceback" not in err


def test_weights_of_zero_or_below_give_no_nan(ready):
    """Fails if alphas are divided by their sum (0 / 0 in the release),
    or a negative one flips a matrix instead of its change.
    """
    model, _, experts, _ = ready
    zs, base = list(experts.values()), logits(model)
    for alpha in ([0.0, 0.0, 0.0], [0.5, -0.5, 0.0], [-0.5, -0.5, -0.5], [1.5, 1.5, 1.5]):
        with svf.using(model, adapt.mixture(zs, alpha)):
            found = logits(model)
            assert not torch.isnan(found).any() and torch.equal(found, base) == (not any(alpha))
    name = next(iter(zs[0]))
    torch.testing.assert_close(adapt.mixture(zs, [-0.5, 0, 0])[name], 1 - 0.5 * (zs[0][name] - 1))


def test_per_matrix_weights_reach_their_own_matrix(ready):
    """Fails if a vector of weights per matrix is laid out the other way round, expert by expert."""
    _, _, experts, _ = ready
    zs = list(experts.values())
    names = sorted(zs[0])
    alpha = np.zeros((len(names), 3))
    alpha[1] = 0, 0, 1
    alpha[2] = 0.25, 0.5, 0
    mixed = adapt.mixture(zs, alpha.ravel(), names)
    assert mixed.keys() == zs[0].keys() and torch.equal(mixed[names[1]], zs[2][names[1]])
    a, b = zs[0][names[2]], zs[1][names[2]]
    torch.testing.assert_close(mixed[names[2]], 1 + 0.25 * (a - 1) + 0.5 * (b - 1))
    assert all(bool((mixed[n] == 1).all()) for n in (names[0], *names[3:]))


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
    """Fails if the few-shot examples are among those that are scored
    (the release takes both from test).
    """
    for name in ("math-unseen", "code-unseen", "reasoning-unseen", "math", "code", "reasoning"):
        task = tasks.get(name)
        for seed in (0, 1):
            assert (not {e.key for e in task.examples("val", 10, seed)}
                    & {e.key for e in task.examples("test", 30)})

"""
Numbers that are none, and the edges of the ranges that are allowed:
a bad step changes nothing and is told, and the smallest and strangest settings work.
"""
import json
import math

import numpy as np
import pytest
import torch
from conftest import random_model
from test_cli import call, home, last_json, trained     # noqa: F401
from test_reinforce import config, quiet, ready, rows_of, words     # noqa: F401

import t2mini
from t2mini import adapt, evaluate, experts, reinforce, svf, tasks
from t2mini.generate import generate
from t2mini.lab import arms
from t2mini.machine import batches
from t2mini.questions.example import Example
from t2mini.recipe import TrainConfig
from t2mini.train import train

NAN, INF = float("nan"), float("inf")


def spoil_head(model, monkeypatch, number, only_training=False, one=False):
    """Logits of this model become `number`: all of them, or one;
    always, or only where gradients are taken.
    """
    real = model.head

    def head(x):
        logits = real(x)
        if only_training and not torch.is_grad_enabled():
            return logits
        if one:
            return torch.cat((logits[..., :1] * 0 + number, logits[..., 1:]), -1)
        return logits * 0 + number
    monkeypatch.setattr(model, "head", head)


# name -> what to break, given (model, monkeypatch)
BREAKS = {
    "logits NaN": lambda m, mp: spoil_head(m, mp, NAN),
    "logits Inf": lambda m, mp: spoil_head(m, mp, INF),
    "logits -Inf": lambda m, mp: spoil_head(m, mp, -INF),
    "one logit NaN": lambda m, mp: spoil_head(m, mp, NAN, one=True),
    "one logit Inf": lambda m, mp: spoil_head(m, mp, INF, one=True),
    "logits NaN in training only": lambda m, mp: spoil_head(m, mp, NAN, only_training=True),
    "reward NaN": lambda m, mp: mp.setattr(tasks, "rewards",
                                           lambda e, t, counts=None: [NAN] + [0.0] * (len(t) - 1)),
    "reward Inf": lambda m, mp: mp.setattr(tasks, "rewards",
                                           lambda e, t, counts=None: [INF] + [0.0] * (len(t) - 1)),
    "rewards NaN, all equal": lambda m, mp: mp.setattr(tasks, "rewards",
                                                       lambda e, t, counts=None: [NAN] * len(t)),
    "gradient NaN": lambda m, mp: spoil_gradient(mp, NAN),
    "gradient Inf": lambda m, mp: spoil_gradient(mp, INF),
}


def spoil_gradient(monkeypatch, number):
    real = reinforce.policy_gradient

    def spoilt(model, *args):
        numbers = real(model, *args)
        next(iter(svf.layers(model).values())).z.grad[0] = number
        return numbers
    monkeypatch.setattr(reinforce, "policy_gradient", spoilt)


@pytest.mark.parametrize("what", BREAKS)
def test_a_bad_number_skips_the_step(ready, words, monkeypatch, what):     # noqa: F811
    """Fails if a NaN or Inf reaches z or Adam's moments, is not counted, is not told,
    or outlives its step; all-equal rewards must not hide it.
    """
    model, tokenizer, optimizer = ready
    reinforce.update(model, tokenizer, words, config(), 0, optimizer)
    z, adam = svf.get_z(model), {
        (i, k): t.clone() for i, s in optimizer.state_dict()["state"].items() for k, t in s.items()}
    with monkeypatch.context() as mp:
        BREAKS[what](model, mp)
        numbers, told = reinforce.update(model, tokenizer, words, config(), 1, optimizer)
    assert numbers["skipped"] == 1 and told.startswith("skipped: ") and "finite" in told
    assert all(torch.equal(t, z[n]) for n, t in svf.get_z(model).items())
    assert all(torch.equal(t, adam[i, k]) for i, s in optimizer.state_dict()["state"].items()
               for k, t in s.items())
    numbers, _ = reinforce.update(model, tokenizer, words, config(), 2, optimizer)
    assert numbers["skipped"] == 0 and numbers["grad_norm"] > 0
    assert all(torch.isfinite(t).all() and not torch.equal(t, z[n])
               for n, t in svf.get_z(model).items())


@pytest.mark.parametrize("what", ["logits NaN in training only", "rewards NaN, all equal"])
def test_bad_numbers_end_the_run_with_the_best_expert(loaded, words, monkeypatch,     # noqa: F811
                                                      tmp_path, what):
    """Fails if a broken run goes on for ever, is not logged, or loses what it had."""
    BREAKS[what](loaded[0], monkeypatch)
    monkeypatch.setattr(evaluate, "score", lambda *args, **kw: [1.0, 0.0, 1.0, 0.0])
    said = []
    result = train(*loaded, config(steps=30, val_every=100), tmp_path / "e.safetensors",
                   log=said.append)
    assert result["bad"] == result["skipped"] == 5 and result["step"] < 30
    assert "not finite" in said[-1]
    assert (sum(r["skipped"] for r in rows_of(tmp_path / "e.jsonl")[1:])
            == sum("skipped: " in line for line in said) == 5)
    expert, meta = experts.load_expert(tmp_path / "e.safetensors", loaded[0])
    assert meta["val_accuracy"] == 0.5 and all((z == 1).all() for z in expert.values())


# ----------------------------------------------------------------------------- rewards of one's own
def raises(example, text):
    raise KeyError("no such column")


class Rude:
    def __repr__(self):
        raise RuntimeError("not even printable")


@pytest.mark.parametrize("judge, says", [
    (raises, "raised KeyError"), (lambda e, t: None, "gave None"), (lambda e, t: "1", "gave '1'"),
    (lambda e, t: NAN, "gave nan"), (lambda e, t: INF, "gave inf"),
    (lambda e, t: [1.0], "gave [1.0]"),
    (lambda e, t: 1j, "gave 1j"), (lambda: 1.0, "raised TypeError"),
    (lambda e, t: Rude(), "raised RuntimeError"),
    (lambda e, t: torch.ones(2), "gave tensor"), (lambda e, t: -1.0, "gave -1.0"),
    (lambda e, t: 5, "gave 5")])
def test_rewards_that_are_none_name_their_example(judge, says):
    """Fails if a user's judge ends in a traceback,
    or the line does not say for which question and answer.
    """
    good = Example("fine?", "x", "exact")
    with pytest.raises(tasks.RewardError) as e:
        tasks.rewards([good, Example("how much is it?", "x", judge)], ["x", "seven\nor so"])
    assert says in str(e.value) and "how much is it?" in str(e.value) and "seven" in str(e.value)
    assert "\n" not in str(e.value) and isinstance(e.value, ValueError)


def test_rewards_of_ones_own_count():
    """Fails if what a user's judge says is not what is earned."""
    partial = Example("q", "abcd", lambda e, t: sum(c in e.answer for c in t) / 4)
    assert tasks.rewards([partial] * 3, ["", "ab", "abcd"]) == [0.0, 0.5, 1.0]
    for value in (True, 1, np.float32(1), np.int64(1)):
        assert tasks.rewards([Example("q", "a", lambda e, t: value)], [""]) == [1.0]


def test_a_failing_judge_skips_the_step_and_is_told(loaded, monkeypatch, tmp_path):
    """Fails if a judge that fails now and then ends the training,
    or one that always does never ends it.
    """
    calls = []

    def judge(example, text):
        calls.append(1)
        return raises(example, text) if len(calls) in (13, 14, 31) else float(len(text) % 2)

    task = tasks.Task("own", lambda rng: Example(f"q{rng.random()}", "x", judge), 3, "other")
    monkeypatch.setattr(tasks, "get", lambda name: task)
    said, cfg = [], TrainConfig(task="own", steps=6, prompts=2, samples=4, val_every=100,
                                val_n=2, modules="q")
    result = train(*loaded, cfg, tmp_path / "e.safetensors", log=said.append)
    assert 2 <= result["skipped"] <= 3 and result["step"] == 6
    assert any("raised KeyError" in line and "to 'q0." in line for line in said)


# -------------------------------------------------------------------------------------------- edges
def test_every_row_stops_at_once(ready, words, monkeypatch):     # noqa: F811
    """Fails if empty answers break generation, the log or the gradient:
    the stop token is all there is to reinforce.
    """
    model, tokenizer, optimizer = ready
    real, stop = model.head, next(iter(tokenizer.stop_ids))

    def head(x):
        # e^-60: the other tokens are never drawn
        logits = real(x) - 60
        return logits.index_fill(-1, torch.tensor([stop]), 60.0)

    monkeypatch.setattr(model, "head", head)
    seen = []
    monkeypatch.setattr(tasks, "rewards", lambda e, t, counts=None: (
        seen.extend(t) or [float(i % 2) for i in range(len(t))]))
    numbers, _ = reinforce.update(model, tokenizer, words, config(), 0, optimizer)
    assert seen == [""] * 12 and numbers["answer_len"] == 1 and numbers["cut"] == 0
    assert numbers["skipped"] == 0
    assert math.isfinite(numbers["grad_norm"])
    assert all(torch.isfinite(z).all() for z in svf.get_z(model).values())


def test_a_padded_vocabulary_is_never_drawn_and_trains(ready, words):     # noqa: F811
    """Fails if an id that the tokenizer lacks is sampled,
    or -inf logits turn the gradient or the KL into NaN.
    """
    model, tokenizer, optimizer = ready
    model.valid_vocab = 200
    out = generate(model, [[1, 2, 3]], 20, [], 1.5, samples=40)
    assert int(out.ids.max()) < 200 and out.logprobs.isfinite().all()
    svf.set_z(model, {n: z + 0.1 for n, z in svf.get_z(model).items()})
    numbers, _ = reinforce.update(model, tokenizer, words, config(kl=0.3), 0, optimizer)
    assert numbers["skipped"] == 0 and numbers["grad_norm"] > 0 and math.isfinite(numbers["kl"])
    assert numbers["kl"] > 0


@pytest.mark.parametrize("verb", ["ask", "train", "eval"])
def test_a_question_beyond_the_context_is_one_line(call, home, verb):     # noqa: F811
    """Fails if a prompt that does not fit ends in a traceback (GPT-2),
    or is silently answered from nonsense positions.
    """
    text = "long " * 500                                    # 2500 tokens; the context has 2048
    (home / "long.jsonl").write_text("".join(json.dumps({"prompt": f"{text}{i}", "answer": "a"})
                                             + "\n" for i in range(20)))
    args = [text, "--strategy=none"] if verb == "ask" else [f"--task={home}/long.jsonl"]
    status, _, err = call(verb, *args)
    told = [line for line in err.splitlines() if line.startswith("t2mini: ")]
    assert status == 1 and len(told) == 1 and "exceeds this model's context of 2048" in told[0]


def test_a_question_beyond_the_context_costs_no_answers(loaded, monkeypatch):
    """Fails if it is found last, as the longest, when all others are answered and lost."""
    model, tokenizer = loaded
    monkeypatch.setattr(evaluate, "generate", None)
    with pytest.raises(ValueError, match="exceeds this model's context of 2048"):
        evaluate.answers(model, tokenizer, ["hi"] * 70 + ["long " * 500], 4)
    assert evaluate.answers(model, tokenizer, [], 4) == []
    monkeypatch.setattr(adapt, "route", None)               # nor a first pass, nor other experts
    with pytest.raises(ValueError, match="'long long.* exceeds this model's context of 2048"):
        adapt.answer(model, tokenizer, ["hi"] * 70 + ["long " * 500], max_tokens=4)
    monkeypatch.setattr(arms, "search", None)               # nor a search
    task = tasks.replace(tasks.get("math"), max_tokens=4)
    far = [Example("long " * 500, "7", "number")]
    with pytest.raises(ValueError, match="'long long.* exceeds this model's context of 2048"):
        arms.run(model, tokenizer, task, far, "cem")
    monkeypatch.setattr(evaluate, "likelihoods", None)
    task = tasks.get("reasoning")
    fine = task.examples("test", 3)
    with pytest.raises(ValueError, match="exceeds this model's context of 2048"):
        evaluate.choices(model, tokenizer, task, [*fine, tasks.replace(
            fine[0], prompt="long " * 500)])
    assert evaluate.choices(model, tokenizer, task, []) == []


def test_a_batch_leaves_room_for_its_answers():
    """Fails if so many rows are answered at once that the keys and values of what they may write
    exceed the memory, or usual batches are other ones than without that bound."""
    sizes = [100] * 70
    parts = [len(part) for part in batches.alike(range(70), sizes, 64, answer=4000)]
    assert max(parts) * (100 + 4000) <= batches.KEPT < (max(parts) + 1) * (100 + 4000)
    assert sum(parts) == 70
    for answer in (0, 300, 1024):
        assert [len(p) for p in batches.alike(range(70), sizes, 64, answer=answer)] == [64, 6]
    assert [len(p) for p in batches.alike(range(2), [9, 9], 64, answer=10 ** 6)] == [1, 1]
    seen = []
    batches.in_batches(lambda part: seen.append(len(part)) or part, sizes, 64, answer=4000)
    assert seen == parts


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_position_of_the_context_is_usable(family):
    """Fails if the limit is off by one, to either side."""
    model = random_model(family=family, max_position_embeddings=32,
                         num_key_value_heads=2 if family == "llama" else 6)
    assert generate(model, [list(range(24))], 8, [], 0).lengths.tolist() == [8]
    with pytest.raises(ValueError, match="context of 32"):
        generate(model, [list(range(25))], 8, [], 0)


@pytest.mark.parametrize("max_tokens, temperature", [
    (0, 0.0), (-5, 0.0), (1.5, 0.0), (True, 0.0), ("8", 0.0), (None, 0.0), (8, -1), (8, NAN),
    (8, INF), (8, -INF), (8, 1e-40), (8, 101),
    (8, "1"), (8, None), (8, True)])
def test_what_cannot_be_drawn_is_refused_by_every_door(loaded, max_tokens, temperature):
    """Fails if t2mini.generate, t2mini.ask or the sampler itself takes a longest answer
    or a temperature that is none, calls the weights damaged for it, leaves it to an error of torch,
    or asks for an expert first.
    """
    model, tokenizer = loaded
    doors = [lambda: t2mini.generate(model, tokenizer, "hi", max_tokens, temperature),
             lambda: adapt.answer(model, tokenizer, ["hi"], experts={}, max_tokens=max_tokens,
                                  temperature=temperature),
             lambda: generate(model, [[1, 2]], max_tokens, [], temperature)]
    for door in doors:
        with pytest.raises(ValueError, match=r"^(max_tokens|temperature) must be .*, not ") as e:
            door()
        assert "\n" not in str(e.value)
    assert t2mini.generate(model, tokenizer, "hi", 1, 0.01) is not None
    assert generate(model, [[1, 2]], 1, [], 100).lengths.tolist() == [1]


@pytest.mark.parametrize("wrong", [5, None, {"hi": 1}, [5], [["hi"]], ["hi", " "], b"hi"])
def test_what_is_no_question_is_refused_by_every_door(loaded, wrong):
    """Fails if a number or a list of lists is answered, or ends in an error of Python's or torch's.
    """
    model, tokenizer = loaded
    doors = [lambda: adapt.answer(model, tokenizer, [wrong], "none", {}),
             lambda: t2mini.generate(model, tokenizer, wrong, 1)]
    if not isinstance(wrong, list):
        doors.append(lambda: adapt.answer(model, tokenizer, wrong, "none", {}))
    for door in doors:
        with pytest.raises(ValueError, match="^(a question is|a prompt is)") as e:
            door()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("verb", ["ask", "chat"])
def test_a_temperature_of_no_use_is_no_option(verb, call):     # noqa: F811
    """Fails if a temperature so low that logits overflow is found after the model was loaded."""
    status, _, err = call(verb, *["hi"] * (verb == "ask"), "--temperature=1e-40")
    assert status == 2 and "--temperature: must be 0 or at least 0.01" in err


def test_alpha_of_zeros_is_the_base_model(call, trained, home):     # noqa: F811
    """Fails if mixing nothing is not exactly nothing."""
    for name, how in (("a", "--alpha=0,0,0"), ("b", "--expert=none")):
        assert call("eval", f"--task={home}/mine.jsonl", how, "--n=4",
                    f"--samples-file={home}/{name}")[0] == 0
    assert (home / "a").read_bytes() == (home / "b").read_bytes() != b""


@pytest.mark.parametrize("more", [[], ["--per-matrix"]])
def test_one_shot_and_a_population_of_two(call, trained, home, monkeypatch, more):     # noqa: F811
    """Fails if the smallest search divides by nothing, has no elite, or ends with numbers
    that are none. Every other answer is paid: where all earn the same there is no elite.
    """
    monkeypatch.setattr(tasks, "rewards", lambda examples, texts, counts=None: [
        float(i % 2) for i in range(len(texts))])
    status, out, err = call("adapt", f"--task={home}/mine.jsonl", "--shots=1", "--iterations=2",
                            "--population=2", "--n=2", "--json", *more)
    assert status == 0, err
    found = last_json(out)
    assert found["shots"] == 1 and all(math.isfinite(a) for a in found["alpha"].values())
    expert = experts.read_expert(home / "out" / "mixture.safetensors")
    assert all(torch.isfinite(z).all() for z in expert.values())


# ------------------------------------------------------------------------------------------ consent
def test_model_written_code_needs_consent_once(call, home, monkeypatch):     # noqa: F811
    """Fails if a program that the model wrote runs before anybody agreed, the option is not named,
    or agreeing is forgotten.
    """
    from t2mini.questions import sandbox
    ran = []
    monkeypatch.setattr(sandbox, "call_many", lambda jobs, **kw: (
        ran.append(1) or [sandbox.Outcome(None, "x")] * len(jobs)))
    code = ["--task=code", "--n=2"]
    for args in (["eval", *code], ["adapt", *code], ["train", "--task=code-unseen"], ["demo"]):
        status, _, err = call(*args)
        assert status == 1 and "--allow-code" in err and len(err.splitlines()) == 1 and not ran
    # asks about code, runs none
    assert call("eval", "--task=dispatch", "--n=2", "--strategy=prompt")[0] == 0
    assert call("eval", *code, "--allow-code")[0] == 0 and ran
    assert call("eval", *code)[0] == 0 and len(ran) == 2

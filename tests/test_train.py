"""The loop around an update: settings that make sense, warnings, checkpoints at every step,
a log that is one run's.
"""
import io
import json
import sys
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_reinforce import config, interrupt_at, quiet, rows_of, same_file, words     # noqa: F401
from test_sight import TINY_TOWER

import t2mini
from t2mini import evaluate, experts, recipe, reinforce, svf, tasks
from t2mini.machine import checkpoint
from t2mini.questions import published
from t2mini.questions.example import Example
from t2mini.questions.pictures import Seen
from t2mini.machine import settings
from t2mini.machine.idle import Idle
from t2mini.machine.settings import RANGES
from t2mini.recipe import TrainConfig, settled
from t2mini.sight.eye import Eye
from t2mini.sight.tower import Tower
from t2mini.train import Run, prepare, train

NAN, INF = float("nan"), float("inf")


# ----------------------------------------------------------------------------------------- settings
@pytest.mark.parametrize("changes", [
    {"clip": -1.0}, {"clip": 0.0}, {"temperature": -1.0}, {"temperature": NAN},
    {"temperature": INF}, {"temperature": 1e-6}, {"kl": NAN}, {"kl": -0.1},
    {"lr": INF}, {"lr": 0.0}, {"lr": "fast"}, {"max_tokens": -5}, {"samples": 10 ** 8},
    {"samples": 0}, {"samples": 2.5}, {"samples": True}, {"samples": 1010},
    {"prompts": 4096, "samples": 1000},
    {"steps": 0}, {"val_n": 0}, {"val_every": 0}, {"patience": 0}, {"seed": -1}, {"rank": 0},
    {"lora_alpha": NAN}, {"baseline": "mean"}, {"tie": "all"}, {"must_stop": 1}, {"modules": None},
    {"as_released": ["all"]}, {"objective": "rewards"}, {"method": "dora"}, {"layers": "third"}])
def test_a_setting_out_of_its_range_is_one_line(changes):
    """Fails if a number that turns the update round, divides by nothing or never ends is accepted,
    or the line does not name the option.
    """
    name = next(iter(changes))
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')} ") as e:
        settled(TrainConfig(**changes))
    assert "\n" not in str(e.value)


def test_every_number_has_a_range_and_its_ends_are_in_it():
    """Fails if a new setting has no range, or a limit refuses itself."""
    numbers = {f.name for f in fields(TrainConfig) if type(f.default) in (int, float)}
    assert numbers == RANGES.keys()
    for name, ends in RANGES.items():
        for value in ends:
            changes = {"prompts": 8, "samples": 8, "baseline": "none"} | {name: value}
            assert getattr(settled(TrainConfig(**changes)), name) == value


@pytest.mark.parametrize("changes, says", [
    ({"samples": 1}, "its own mean"), ({"temperature": 0.0}, "--temperature=0 teaches nothing"),
    ({"samples": 1, "prompts": 1, "baseline": "batch"}, "one answer"),
    ({"kl": 0.1, "objective": "options"}, "--kl"),
    ({"kl": 0.1, "objective": "next-token"}, "--kl"),
    ({"samples": 1, "kl": 0.1}, "its own mean"),
    ({"temperature": 0.0, "kl": 0.1}, "--temperature=0 teaches nothing")])
def test_settings_that_teach_nothing_are_refused(changes, says):
    """Fails if a run is started in which every advantage is 0, or whose KL is not
    that of equation 1.
    """
    with pytest.raises(ValueError, match=says) as e:
        settled(TrainConfig(**changes))
    assert "\n" not in str(e.value)
    for fine in ({"samples": 1, "baseline": "batch"}, {"samples": 1, "baseline": "none"},
                 {"as_released": "greedy"}, {"samples": 1, "baseline": "none", "kl": 0.1},
                 {"samples": 1, "objective": "next-token"}):
        settled(TrainConfig(**fine))


def test_what_is_overridden_is_told(loaded, words, tmp_path):     # noqa: F811
    """Fails if --as-released=all replaces a setting that was given without a word,
    or names one that was not given.
    """
    cfg = TrainConfig(task="words", lr=0.05, kl=0.2, modules="q", steps=1, prompts=2, samples=2,
                      val_n=2, as_released="all")
    said = []
    train(*loaded, cfg, tmp_path / "e.safetensors", log=said.append)
    told = [line for line in said if "is not used" in line]
    assert [line.split("=")[0] for line in told] == ["--prompts", "--samples", "--lr",
                                                     "--kl", "--modules"]
    assert "--lr=0.05 is not used: it is 0.002" in told[2]
    rank = recipe.written(TrainConfig(rank=8))
    assert settings.overridden(rank, rank, recipe.written(TrainConfig())) == [
        "--rank=8 is not used: it is for --method=lora"]
    plain = recipe.written(TrainConfig())
    for given in (TrainConfig(), TrainConfig(as_released="all")):
        assert (settings.overridden(recipe.written(given), recipe.written(settled(given)), plain)
                == [])


def test_small_numbers_stay_in_the_log(loaded, words, tmp_path):     # noqa: F811
    """Fails if a low rate reads as one at which nothing moves."""
    cfg = TrainConfig(task="words", method="lora", lr=2e-6, steps=1, prompts=2, samples=2,
                      val_n=2, objective="next-token")
    train(*loaded, cfg, tmp_path / "e.safetensors", log=quiet)
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    [row] = [row for row in rows if "z_shift" in row]
    assert 0 < row["z_shift"] < 5e-6


def test_a_second_moment_in_bfloat16_never_decays_at_the_releases_beta2(
        loaded, words, tmp_path):     # noqa: F811
    """Fails if the departure does not show its defect:
    at 0.999 what v loses in a step is rounded away, at 0.99 it is not.
    """
    decayed = {}
    for named in ("", "bf16", "all"):
        cfg = settled(config(as_released=named))
        prepare(loaded[0], cfg, None)
        run = Run(*loaded, cfg, tmp_path / "e.safetensors", quiet, None)
        settings, = run.optimizer.param_groups
        p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        adam = torch.optim.AdamW([p], betas=settings["betas"], weight_decay=0.0)
        p.grad = torch.ones_like(p)                         # one gradient, then none for 200 steps
        adam.step()
        first = adam.state[p]["exp_avg_sq"].clone()
        for _ in range(200):
            p.grad = torch.zeros_like(p)
            adam.step()
        decayed[named] = bool((adam.state[p]["exp_avg_sq"] < 0.5 * first).all())
        svf.detach(loaded[0])
    assert decayed == {"": True, "bf16": False, "all": False}


def test_files_and_dtype_are_looked_at_before_any_layer(loaded, words, tmp_path):     # noqa: F811
    """Fails if a model is decomposed, or keeps the layers, although the training cannot begin."""
    model, tokenizer = loaded
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        train(model, tokenizer, config(), tmp_path / "a.safetensors", resume=True, log=quiet)
    with pytest.raises(ValueError, match="float16"):
        train(model.to(torch.float16), tokenizer, config(), tmp_path / "a.safetensors", log=quiet)
    assert not svf.layers(model)


def test_a_file_of_yours_is_validated_at_the_limit_it_trains_at(loaded, tmp_path):
    """Fails if longer answers than a file's default earn in training and are cut in validation."""
    rows = [{"prompt": f"Say {i}", "answer": f"{i}", "match": "contains"} for i in range(40)]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, tokenizer = loaded
    svf.attach(model, "q", progress=False)
    for limit, want in ((0, 96), (7, 7)):
        run = Run(model, tokenizer, config(task=str(path), max_tokens=limit),
                  tmp_path / "a.safetensors", quiet, None)
        assert run.task.max_tokens == want


@pytest.mark.parametrize("name, limit, more", [("gsm8k", 0, 0), ("gsm8k", 9, 0), ("gsm8k", 999, 1),
                                               ("math", 999, 0)])
def test_published_questions_are_validated_with_the_room_of_updates(loaded, tmp_path, name, limit,
                                                                    more, monkeypatch):
    """Fails if answers that may be longer in updates than the set's own limit are cut in
    validation, if a lower limit lowers it, or if made-up questions follow."""
    (tmp_path / "gsm8k").mkdir()
    for split in ("train", "test"):
        rows = [{"question": f"{split} {i}?", "answer": f"It is {i}. #### {i}"} for i in range(40)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"gsm8k/{split}.jsonl").write_text(text)
    monkeypatch.setenv(published.FOLDER, str(tmp_path))
    model, tokenizer = loaded
    svf.attach(model, "q", progress=False)
    run = Run(model, tokenizer, config(task=name, max_tokens=limit), tmp_path / "a.safetensors",
              quiet, None)
    assert run.task.max_tokens == (limit if more else tasks.get(name).max_tokens)


def test_noise_at_the_start(loaded, words, tmp_path):     # noqa: F811
    """Fails if --as-released=noise starts at the base model, folds nothing,
    or differs between two runs of a seed.
    """
    model, _ = loaded
    found = []
    for seed in (0, 0, 1):
        prepare(model, settled(config(as_released="noise,sigmoid", seed=seed)), None)
        p = torch.cat([layer.z.detach() for layer in svf.layers(model).values()])
        assert abs(p.mean() - 0.1) < 0.002 and 0.008 < p.std() < 0.012
        assert all(layer.folded is not layer.W for layer in svf.layers(model).values())
        found.append(p)
        svf.detach(model)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_a_training_goes_on_from_an_expert(loaded, words, tmp_path):     # noqa: F811
    """Fails if --start begins at the base model, W' does not follow, its own file says nothing of
    it, or a tied z, which cannot be set so, is trained.
    """
    model, tokenizer = loaded
    first = tmp_path / "first.safetensors"
    train(model, tokenizer, config(steps=2, modules="q,v"), first, log=quiet)
    svf.detach(model)
    z = {name: 1.5 + 0 * t for name, t in experts.read_expert(first).items()}
    experts.save_expert(first, z, experts.read_metadata(first))
    prepare(model, settled(config(start=str(first))), None)
    found = svf.get_z(model)
    assert len(found) > len(z) > 1                          # the other matrices start at 1
    for name, t in found.items():
        assert bool((t == (1.5 if name in z else 1)).all())
        assert (svf.layers(model)[name].folded is svf.layers(model)[name].W) == (name not in z)
    svf.detach(model)
    train(model, tokenizer, config(steps=1, start=str(first)), tmp_path / "b.safetensors",
          log=quiet)
    assert experts.read_metadata(tmp_path / "b.safetensors")["config"]["start"] == str(first)
    with pytest.raises(ValueError, match="would replace the expert that it goes on from"):
        train(model, tokenizer, config(steps=1, start=str(first)), first, log=quiet)
    for form in ({"tie": "layer"}, {"as_released": "sigmoid"}):
        with pytest.raises(ValueError, match="--start sets every z"):
            settled(config(start=str(first), **form))


def test_a_checkpoint_from_before_start_goes_on(tiny_folder, words, tmp_path):     # noqa: F811
    """Fails if a run that was begun before there was --start cannot be resumed, or can be with
    one."""
    out, cfg = tmp_path / "a.safetensors", config(steps=2)
    train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"), cfg, out, log=quiet)
    ckpt, told = out.with_suffix(".ckpt"), recipe.written(cfg)
    del told["start"]
    changed_meta(ckpt, tmp_path / "other", config=json.dumps(told))
    (tmp_path / "other").replace(ckpt)
    train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"), cfg, out, resume=True,
          log=quiet)
    with pytest.raises(ValueError, match="written with another start: '', now"):
        train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"),
              replace(cfg, start=str(out)), out, resume=True, log=quiet)


# ----------------------------------------------------------------------------------------- warnings
def test_a_run_that_earns_nothing_says_why_and_what_would_be_right(loaded, tmp_path):
    """Fails if 40 one-word rows that no answer can match end as the base model without a word:
    too few rows to validate on, a reward that stays 0, the `match` that would accept an answer,
    an expert that has learnt nothing.
    """
    rows = [{"prompt": f"say {i}", "answer": "<"} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = []
    cfg = config(task=str(tmp_path / "mine.jsonl"), steps=4, max_tokens=12, prompts=8)
    with pytest.MonkeyPatch.context() as mp:
        mp.setattr(tasks, "rewards", lambda examples, texts, counts=None: [0.0] * len(texts))
        mp.setattr(tasks, "right", lambda example, text: example.match == "contains")
        train(*loaded, cfg, tmp_path / "e.safetensors", log=said.append)
    few, = (line for line in said if "validation questions:" in line)
    assert "only 4" in few and "25 points" in few and "--val-n" in few
    unpaid, = (line for line in said if "no answer earned anything in 3 updates" in line)
    assert "gold: '<'. match=contains would accept it" in unpaid and "'say " in unpaid
    assert "learnt nothing: no update changed it" in said[-1]


@pytest.mark.parametrize("place", [0, 8])
def test_a_question_that_is_too_long_is_told_before_training(loaded, tmp_path, place):
    """Fails if a row that leaves no room for its answer ends a run when it is drawn, or again at
    --resume.
    """
    rows = [{"prompt": f"say {i}", "answer": "<"} for i in range(20)]
    rows[place]["prompt"] = "many words " * 400
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    cfg = config(task=str(tmp_path / "mine.jsonl"), max_tokens=12, val_n=20)
    said = r"the question 'many words .*'... has [\d,]+ tokens; with 12 .* 2048: shorten it"
    with pytest.raises(ValueError, match=said):
        train(*loaded, cfg, tmp_path / "e.safetensors", log=str)
    svf.detach(loaded[0])
    assert not (tmp_path / "e.ckpt").exists()
    rows[place]["prompt"] = "many words \ud800" * 100        # half a letter stops nothing
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    train(*loaded, config(task=str(tmp_path / "mine.jsonl"), max_tokens=12, steps=1),
          tmp_path / "e.safetensors", log=str)


def test_a_limit_beyond_the_context_loses_no_earlier_run(loaded, words, tmp_path):     # noqa: F811
    """Fails if made-up questions find out in the first update that no answer fits, when the
    checkpoint of an earlier run is gone.
    """
    out = tmp_path / "e.safetensors"
    train(*loaded, replace(config(), steps=1), out, log=quiet)
    svf.detach(loaded[0])
    earlier = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="exceeds this model's context of 2048"):
        train(*loaded, config(task="math", max_tokens=2048), out, log=quiet)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == earlier


def test_validation_questions_leave_room_for_answers_of_validation(loaded, monkeypatch, tmp_path):
    """Fails if they are measured by the limit of the updates, which may be lower."""
    limits = []
    monkeypatch.setattr(settings, "check_questions", lambda rows, tokenizer, opener, limit, context:
                        limits.append((len(rows), limit)))
    cfg = config(task="math", max_tokens=8, val_n=3, steps=1)
    train(*loaded, cfg, tmp_path / "e.safetensors", log=quiet)
    assert limits == [(0, 8), (3, tasks.get("math").max_tokens)]


def test_an_image_without_an_eye_is_told_before_training(loaded):
    """Fails if `train_expert` of a vision task finds out when earlier files are gone."""
    with pytest.raises(ValueError, match="no eye"):
        settings.check_questions([(Seen("What is it?", "a.png"), [])], loaded[1], "", 4, 2048)


def test_an_expert_of_another_model_or_method_is_not_replaced(
        loaded, words, tmp_path, monkeypatch):     # noqa: F811
    """Fails if a training for another base, or with LoRA, takes your expert and its log away."""
    out = tmp_path / "e.safetensors"
    train(*loaded, replace(config(), steps=1), out, log=quiet)
    svf.detach(loaded[0])
    with pytest.raises(ValueError, match="safetensors is of method svf, not ia3: .*--out"):
        train(*loaded, replace(config(), method="ia3"), out, log=quiet)
    experts.save_expert(out, experts.read_expert(out),
                        {**experts.read_metadata(out), "base_sha256": "0" * 64})
    earlier = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="is of other weights .sha256 00000000, these are .*--out"):
        train(*loaded, config(), out, log=quiet)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == earlier
    out.unlink()                                            # of a run that was stopped
    with pytest.raises(ValueError, match="e.ckpt is of method svf, not lora"):
        train(*loaded, replace(config(), method="lora"), out, log=quiet)
    monkeypatch.setattr(loaded[0], "base_sha256", "1" * 64)
    with pytest.raises(ValueError, match="e.ckpt is of other weights"):
        train(*loaded, config(), out, log=quiet)


def test_answers_that_earn_nothing_because_they_were_cut_off_say_so():
    """Fails if a run with too small a limit is sent to look at `match`,
    or one whose answers end is told to raise the limit.
    """
    def last(cut):
        seen = Idle()
        row = {"grad_norm": 0.0, "flat_groups": 1.0, "reward": 0.0, "cut": cut}
        return [seen.see(row, "sample") for _ in range(3)][-1][0]

    assert "98 % of the answers were cut off by --max-tokens" in last(0.98)
    assert "match" not in last(0.98)
    assert "Does `match` suit" in last(0.1) and "cut off" not in last(0.1)


def test_no_other_match_is_proposed_where_it_would_pay_for_too_much():
    """Fails if `contains` is proposed beside options, which a text that names them all would then
    satisfy, or an answer's own match where the answer was only cut off.
    """
    for options, match, text in ((("past", "future"), "choice", "both the past and the future"),
                                 ((), "number", "It is 8")):
        example = Example("q", "past" if options else "8", match, options=options)
        said = reinforce.shown([reinforce.Episode(example, [1], [2], text, False, [2])])
        assert "would accept" not in said and f"match={match}" in said


@pytest.mark.parametrize("gold", [42, None])
def test_a_judge_of_ones_own_may_have_any_gold_answer(gold):
    """Fails if a training whose judge is a function ends where the gold answer is no text."""
    example = Example("q", gold, lambda answer, text: 0.0)
    said = reinforce.shown([reinforce.Episode(example, [1], [2], "eight", True, [2])])
    assert f"gold: '{gold}'" in said


def test_flat_groups_and_a_best_step_0_are_told(loaded, words, monkeypatch, tmp_path):  # noqa: F811
    """Fails if updates in which all answers earn the same pass in silence, are told at every step,
    or an expert of step 0 ends like any other.
    """
    monkeypatch.setattr(tasks, "rewards", lambda examples, texts, counts=None: [1.0] * len(texts))
    said = []
    train(*loaded, config(steps=8, val_every=9, val_n=30), tmp_path / "e.safetensors",
          log=said.append)
    assert sum("answers to a question earned the same" in line for line in said) == 1
    assert not any("validation questions:" in line or "earned anything" in line for line in said)
    svf.detach(loaded[0])
    monkeypatch.setattr(tasks, "rewards", lambda examples, texts, counts=None: [
        float(i % 2) for i in range(len(texts))])
    scores = iter(([1.0, 0.0], [0.0, 0.0]))                 # worse than the base model
    monkeypatch.setattr(evaluate, "score", lambda *a, **k: next(scores))
    said.clear()
    result = train(*loaded, config(steps=2), tmp_path / "f.safetensors", log=said.append)
    assert result["best_step"] == 0 and "no later one was as good" in said[-1]
    assert not any("earned the same" in line for line in said)


def test_a_model_that_settled_on_one_answer_is_told_once():
    """Fails if a run whose answers have become all alike, half of them wrong,
    goes on in silence because a group or two still differs; if it is told at every update;
    or if a run is scolded whose answers are alike because they are right.
    """
    def run(flat, reward):
        seen, row = Idle(), {"grad_norm": 0.1, "flat_groups": flat, "reward": reward}
        return [[len(seen.see(row, "")) for _ in range(8)], seen.see(row, "")]

    assert run(0.95, 0.5) == [[0, 0, 0, 0, 1, 0, 0, 0], []]
    assert run(0.95, 0.9) == run(0.85, 0.5) == [[0] * 8, []]
    seen = Idle()
    for _ in range(5):
        said = seen.see({"grad_norm": 0.1, "flat_groups": 0.95, "reward": 0.5}, "")
    assert "95 % of the questions" in said[0] and "50 % earned" in said[0] and "--lr" in said[0]


def test_programs_that_took_too_long_are_in_the_log(loaded, words, monkeypatch,     # noqa: F811
                                                    tmp_path):
    """Fails if a row of the log does not say how many of an update's programs were stopped:
    many of them are a fault of the limits or of the machine, and look like wrong answers.
    """
    def rewards(examples, texts, counts=None):
        if counts is not None:
            counts["timeouts"] += 3
        return [float(i % 2) for i in range(len(texts))]

    monkeypatch.setattr(tasks, "rewards", rewards)
    train(*loaded, config(steps=2), tmp_path / "e.safetensors", log=lambda text: None)
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [row["timeouts"] for row in rows if "reward" in row] == [3, 3]


def test_a_letter_that_the_terminal_cannot_show_ends_nothing(monkeypatch):
    """Fails if a sample line that a Latin-1 terminal cannot print ends a verb, such as training."""
    from t2mini.__main__ import main
    from t2mini.cli.verbs import VERBS
    screen = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setitem(VERBS, "doctor", lambda args: print("\u03b1"))
    assert main(["doctor"]) == 0 and screen.buffer.getvalue() == b"\\u03b1\n"


# -------------------------------------------------------------------------------------- checkpoints
def state_of(path):
    with safe_open(path, "pt") as f:
        return json.loads(f.metadata()["state"])


@pytest.mark.parametrize("changes", [{}, {"as_released": "sigmoid,bf16,noise"}, {"kl": 0.1}])
def test_ctrl_c_loses_only_the_update_under_way(tiny_folder, words, monkeypatch,     # noqa: F811
                                                tmp_path, changes):
    """Fails if updates since the last validation are done again after Ctrl-C,
    or the resumed run has another bit anywhere.
    """
    cfg, a, b = (config(steps=8, val_every=8, **changes), tmp_path / "a.safetensors",
                 tmp_path / "b.safetensors")
    done, real = [], reinforce.update

    def update(model, tokenizer, task, cfg, step, optimizer):
        if step == 5 and 5 not in done and stop:
            done.append(step)
            with torch.no_grad():                           # in the middle of Adam's step
                next(iter(svf.trained(model).values())).add_(1.0)
            raise KeyboardInterrupt
        done.append(step)
        return real(model, tokenizer, task, cfg, step, optimizer)

    def run(out, **options):
        done.clear()
        return train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"), cfg, out,
                     log=quiet, **options)

    monkeypatch.setattr(reinforce, "update", update)
    stop = False
    run(a)
    stop = True
    with pytest.raises(KeyboardInterrupt):
        run(b)
    assert done == [0, 1, 2, 3, 4, 5] and state_of(b.with_suffix(".ckpt"))["step"] == 5
    stop = False
    run(b, resume=True)
    assert done == [5, 6, 7]
    assert same_file(a, b) and same_file(a.with_suffix(".ckpt"), b.with_suffix(".ckpt"))


@pytest.mark.parametrize("at", ["step    3", "step    4 | validation"])
def test_a_log_that_was_cut_is_told(tiny_folder, words, tmp_path, at):     # noqa: F811
    """Fails if --resume goes on behind a gap in the log without a word, or calls a whole log cut.
    """
    out, said = tmp_path / "a.safetensors", []

    def run(**options):
        said.clear()
        train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"),
              config(steps=6, val_every=4), out, **options)

    with pytest.raises(KeyboardInterrupt):
        run(log=interrupt_at(at))
    whole = out.with_suffix(".jsonl").read_bytes()
    kept = {p: p.read_bytes() for p in tmp_path.iterdir()}
    run(resume=True, log=said.append)
    assert not any("was cut" in line for line in said)
    for path, data in kept.items():
        path.write_bytes(data)
    out.with_suffix(".jsonl").write_bytes(b"".join(whole.splitlines(True)[:2]))
    run(resume=True, log=said.append)
    told, = (line for line in said if "was cut" in line)
    assert f"up to step {3 if '3' in at else 4} are missing from step 2 on" in told


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_run_notices_that_its_log_is_gone(loaded, words, monkeypatch, tmp_path,     # noqa: F811
                                            how):
    """Fails if a run whose log was deleted, so that a second one could lock its own,
    goes on writing the same files.
    """
    out, real = tmp_path / "e.safetensors", reinforce.update

    def update(model, tokenizer, task, cfg, step, optimizer):
        if step == 2:
            out.with_suffix(".jsonl").unlink()
            if how == "replaced":
                out.with_suffix(".jsonl").write_text("another run's")
        return real(model, tokenizer, task, cfg, step, optimizer)

    monkeypatch.setattr(reinforce, "update", update)
    with pytest.raises(ValueError,
                       match="was deleted or replaced while this run was writing it") as e:
        train(*loaded, config(val_every=9), out, log=quiet)
    assert "\n" not in str(e.value) and not out.exists()
    assert state_of(out.with_suffix(".ckpt"))["step"] == 2
    assert how == "deleted" or out.with_suffix(".jsonl").read_text() == "another run's"


def test_another_method_is_not_called_damage(tiny_folder, words, tmp_path):     # noqa: F811
    """Fails if --resume with another --method says that the checkpoint is damaged,
    or does not say what differs.
    """
    def run(**options):
        train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"), config(steps=1, **options),
              tmp_path / "a.safetensors", resume="method" in options, log=quiet)

    run()
    with pytest.raises(ValueError, match="another method: 'svf', now 'lora'"):
        run(method="lora")


def changed_meta(path, out, **changes):
    """A copy of a checkpoint with other metadata."""
    with safe_open(path, "pt") as f:
        meta = f.metadata()
    save_file(load_file(path), out, {k: v for k, v in (meta | changes).items() if v is not None})


@pytest.mark.parametrize("changes", [
    {"step": -1}, {"step": 9}, {"step": "1"}, {"step": None}, {"step": True}, {"step": 10 ** 400},
    {"best_step": 2},
    {"best_val": NAN}, {"seconds": INF}, {"stale": [1]}, {"validated": "x"}, {"bad": -3}, []])
def test_odd_states_of_a_checkpoint_are_one_line(tiny_folder, words, tmp_path,     # noqa: F811
                                                 changes):
    """Fails if counters that no run wrote end in a traceback, or are trained on with."""
    out, cfg = tmp_path / "a.safetensors", config(steps=1)
    train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"), cfg, out, log=quiet)
    ckpt = out.with_suffix(".ckpt")
    state = json.dumps(state_of(ckpt) | changes if changes else changes)
    changed_meta(ckpt, tmp_path / "other", state=state)
    (tmp_path / "other").replace(ckpt)
    with pytest.raises(ValueError, match="damaged checkpoint") as e:
        train(*t2mini.load(tiny_folder, device="cpu", dtype="float32"), cfg, out,
              resume=True, log=quiet)
    assert "\n" not in str(e.value)


def test_what_a_checkpoint_was_started_with(loaded, words, tmp_path):     # noqa: F811
    """Fails if a checkpoint cannot be asked for its settings, base and dtype,
    or says them in other types.
    """
    model, tokenizer = loaded
    cfg, ckpt = config(steps=1), tmp_path / "a.ckpt"
    train(model, tokenizer, cfg, tmp_path / "a.safetensors", log=quiet)
    told = checkpoint.told(ckpt)
    assert told == {"config": recipe.written(cfg), "base_sha256": model.base_sha256,
                    "dtype": "torch.float32", "inputs": {}}
    assert settled(TrainConfig(**told["config"])) == cfg
    for changes in ({"config": "[1]"}, {"config": "{"}, {"config": None}, {"dtype": None},
                    {"base_sha256": None}, {"state": "3"}, {"inputs": "3"}, {"inputs": "{"}):
        changed_meta(ckpt, tmp_path / "b.ckpt", **changes)
        with pytest.raises(ValueError, match="damaged checkpoint") as e:
            checkpoint.told(tmp_path / "b.ckpt")
        assert "\n" not in str(e.value)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        checkpoint.told(tmp_path / "c.ckpt")
    with pytest.raises(ValueError, match="damaged checkpoint"):
        (tmp_path / "d.ckpt").write_bytes(ckpt.read_bytes()[:-9])
        checkpoint.told(tmp_path / "d.ckpt")


def test_other_questions_or_another_tower_are_no_resumed_run(loaded, tmp_path):
    """Fails if a run goes on with rows, or with images, that its best validation was not of; or an
    older checkpoint, which says nothing of them, is refused.
    """
    model, tokenizer = loaded
    file, out = tmp_path / "mine.jsonl", tmp_path / "a.safetensors"
    rows = [json.dumps({"prompt": f"question {n}", "answer": "yes"}) + "\n" for n in range(20)]
    file.write_text("".join(rows))
    tiny = config(task=str(file), steps=1, prompts=1, samples=2, val_n=1, max_tokens=2)
    train(model, tokenizer, tiny, out, log=quiet)
    ckpt = out.with_suffix(".ckpt")

    def resumed():
        svf.detach(model)
        return train(model, tokenizer, tiny, out, resume=True, log=quiet)
    assert resumed()["step"] == 1
    file.write_text("".join(rows[:-1]))
    with pytest.raises(ValueError, match="written with another rows in the task's file"):
        resumed()
    changed_meta(ckpt, ckpt, inputs=None)
    assert resumed()["step"] == 1
    seen = SimpleNamespace(eye=Eye(Tower(TINY_TOWER), 272))
    task = {"task": "easy-vqa", "start": ""}
    told = checkpoint.identity(task, model, seen, {})
    assert told["inputs"] == checkpoint.identity(task, model, seen, {})["inputs"]
    other = SimpleNamespace(eye=Eye(Tower(replace(TINY_TOWER, queries=3)), 272))
    with pytest.raises(ValueError, match="written with another tower"):
        checkpoint.check_same("x", told, checkpoint.identity(task, model, other, {}))


@pytest.mark.parametrize("objective", ["next-token", "options"])
def test_an_answer_beyond_the_context_is_told_before_training(loaded, tmp_path, objective):
    """Fails if the row is met when it is drawn, and again at every --resume."""
    long = {"prompt": "which?", "answer": "a" * 2040, "options": ["a" * 2040, "b"],
            "match": "choice"}
    rows = [long] + [{**long, "prompt": f"which {n}?", "answer": "a", "options": ["a", "b"]}
                     for n in range(19)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = config(task=f"{tmp_path}/mine.jsonl", objective=objective, max_tokens=8, val_n=1)
    with pytest.raises(ValueError, match="an answer of 2,041, which exceed this model's context"):
        train(*loaded, cfg, tmp_path / "a.safetensors", log=quiet)
    assert not (tmp_path / "a.jsonl").exists()


def test_equal_scores_keep_the_later_z_in_the_file(loaded, words, monkeypatch,     # noqa: F811
                                                   tmp_path):
    """Fails if a validation that cannot tell two z apart throws away what was learnt since."""
    monkeypatch.setattr(evaluate, "score", lambda *a, **k: [1.0, 0.0])
    result = train(*loaded, replace(config(), steps=4, patience=9),
                   tmp_path / "e.safetensors", log=quiet)
    expert, meta = experts.load_expert(tmp_path / "e.safetensors", loaded[0])
    assert result["best_step"] == meta["best_step"] == 4
    assert any((z != 1).any() for z in expert.values())
    assert len(rows_of(tmp_path / "e.jsonl")) == 7


@pytest.mark.parametrize("scores, told", [((0.0, 1.0), False), ((1.0, 1.0), True)])
def test_an_expert_that_scores_as_before_training_is_told_and_so_is_a_run_over_an_earlier_one(
        loaded, words, monkeypatch, tmp_path, scores, told):     # noqa: F811
    """Fails if an expert that validation cannot tell from the base model ends like any other,
    questions that are all right from the start are no reason to warn,
    or a new run takes the log and the checkpoint of an earlier one away in silence, or for good.
    """
    said, left, kept = [], iter(scores * 3), {}
    monkeypatch.setattr(evaluate, "score", lambda model, tokenizer, task, val, **k:
                        [next(left)] * len(val))
    for earlier in (False, True, True):
        said.clear()
        ckpt = tmp_path / "e.ckpt"
        before = ckpt.read_bytes() if earlier else b""
        log = ckpt.with_suffix(".jsonl").read_bytes() if earlier else b""
        result = train(*loaded, replace(config(), steps=1), tmp_path / "e.safetensors",
                       log=said.append)
        svf.detach(loaded[0])
        assert any("as many right" in line for line in said) == told
        assert any("are right before training" in line for line in said) == (scores[0] == 1)
        assert (result["first_val"] > 0) == (scores[0] > 0)
        assert any("the last one's checkpoint is now" in line for line in said) == earlier
        assert len(rows_of(tmp_path / "e.jsonl")) == 3
        kept[before] = log
        for number, (checkpoint, rows) in enumerate([*kept.items()][1:], 1):
            end = "old" if number == 1 else f"old{number}"
            assert (tmp_path / f"e.ckpt.{end}").read_bytes() == checkpoint
            assert (tmp_path / f"e.jsonl.{end}").read_bytes() == rows
    assert not (tmp_path / "e.ckpt.old3").exists()
    # a log that was moved aside stays, though its checkpoint is gone
    (tmp_path / "e.ckpt.old2").unlink()
    monkeypatch.setattr(evaluate, "score", lambda *given, **k: [0.0] * len(given[3]))
    train(*loaded, replace(config(), steps=1), tmp_path / "e.safetensors", log=quiet)
    svf.detach(loaded[0])
    assert (tmp_path / "e.jsonl.old2").read_bytes() == rows
    (tmp_path / "e.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match="an earlier run's is .*e.ckpt.old3: rename it"):
        train(*loaded, config(), tmp_path / "e.safetensors", resume=True)


def test_forty_rows_end_in_an_expert_that_is_better_on_rows_it_has_not_seen(loaded, tmp_path):
    """Fails if a small file of yours, whose reward does rise, ends in the base model,
    or in an expert that only knows its own rows.
    """
    rows = [{"prompt": f"say {i}", "answer": "A", "match": "contains"} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = []
    cfg = TrainConfig(task=str(tmp_path / "mine.jsonl"), steps=8, max_tokens=8,
                      lr=0.03, val_every=4)
    with pytest.MonkeyPatch.context() as mp:
        # anywhere: a random model writes no words
        mp.setattr(tasks, "right", lambda example, text: "A" in text)
        train(*loaded, cfg, tmp_path / "e.safetensors", log=said.append)
    model, tokenizer = loaded
    unseen = [f"say {i}" for i in range(1000, 1060)]
    right = []
    for z in ({}, experts.read_expert(tmp_path / "e.safetensors")):
        with svf.using(model, z):
            right.append(sum("A" in text for text in evaluate.answers(model, tokenizer, unseen, 8)))
    assert experts.read_metadata(tmp_path / "e.safetensors")["best_step"] > 0
    assert 0 < right[0] < 10 and right[1] > 50, right
    assert not any("learnt nothing" in line for line in said)

"""Every verb on a tiny random model, as a user would call it; bad input is one line,
non-zero, and loses nothing.
"""
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from t2mini import __main__ as cli
from t2mini import adapt, experts, tasks, train
from t2mini.cli import verbs
from t2mini.formats import download
from t2mini.lab import page_model
from t2mini.machine import checkpoint, files
from t2mini.machine.text import printable


@pytest.fixture
def home(tmp_path, monkeypatch, tiny_folder):
    """A private out/ and SVD cache, and experts trained by nobody for the tiny model."""
    monkeypatch.setattr(experts, "OUT", tmp_path / "out")
    monkeypatch.setattr(experts, "SVD_CACHE", tmp_path / "svd")
    monkeypatch.setenv("T2MINI_DATA", "")                   # --data sets it: here for one test only
    # short answers: a random model never stops
    real = tasks.from_jsonl
    monkeypatch.setattr(tasks, "from_jsonl", lambda path: replace(real(path), max_tokens=8))
    rows = [{"prompt": f"say {i}", "answer": "a", "match": "contains"} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


@pytest.fixture
def call(home, tiny_folder, capsys):
    """call("eval", ...) -> (exit status, standard output, standard error)."""
    def run(verb, *args):
        with_model = ([f"--weights={tiny_folder}", "--dtype=float32", "--device=cpu"]
                      if verb not in ("show", "download") else [])
        try:
            status = cli.main([verb, *with_model, *map(str, args)])
        except SystemExit as e:
            status = e.code
        return (status, *capsys.readouterr())
    run.folder = tiny_folder
    return run


@pytest.fixture
def trained(call, home):
    """A tiny expert under every name that the verbs look for."""
    status, out, err = call("train", f"--task={home}/mine.jsonl", "--steps=2", "--prompts=2",
                            "--samples=2", "--val-every=1", "--val-n=2", "--json")
    assert status == 0, err
    made = home / "out" / "mine.safetensors"
    for name in ("math", "code", "reasoning", "dispatcher"):
        (home / "out" / f"{name}.safetensors").write_bytes(made.read_bytes())
    return json.loads(out.splitlines()[-1])


def last_json(out):
    return json.loads(out.strip().splitlines()[-1])


def test_train_writes_expert_log_and_json(trained, home):
    """Fails if training loses the expert, its log or a field of its result."""
    assert trained["step"] == 2 and Path(trained["expert"]).is_file()
    rows = [json.loads(r) for r in (home / "out" / "mine.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "reward" in r] == [1, 2]
    for field in ("reward", "reward_spread", "flat_groups", "grad_norm",
                  "z_shift", "answer_len", "kl", "sec"):
        assert field in rows[1]


@pytest.mark.parametrize("how", ["--strategy=none", "--strategy=prompt",
                                 "--strategy=classifier", "--expert=math"])
def test_ask(call, trained, how):
    """Fails if a strategy cannot answer one question end to end."""
    status, out, err = call("ask", "hello?", how, "--max-tokens=4", "--json")
    assert status == 0, err
    assert {"answer", "expert", "strategy", "base_sha256"} <= last_json(out).keys()


def test_ask_streams_the_same_text(call, trained):
    """Fails if the streamed text differs from the answer in --json."""
    plain = call("ask", "hello?", "--strategy=none", "--max-tokens=12")[1]
    told = last_json(call("ask", "hello?", "--strategy=none",
                          "--max-tokens=12", "--json")[1])["answer"]
    assert plain == printable(told) + "\n"


@pytest.mark.parametrize("how", ["--expert=none", "--expert=math", "--strategy=prompt",
                                 "--strategy=classifier", "--strategy=cem", "--alpha=0.5,0,-0.25"])
def test_eval(call, trained, home, how):
    """Fails if eval lacks a promised key, its interval does not hold the score,
    or it names another answerer than there was.
    """
    status, out, err = call("eval", f"--task={home}/mine.jsonl", how, "--n=3", "--json")
    assert status == 0, err
    result = last_json(out)
    assert {"task", "split", "n", "seed", "expert", "strategy", "accuracy", "ci95", "base_sha256",
            "seconds"} <= result.keys()
    assert result["ci95"][0] <= result["accuracy"] <= result["ci95"][1]
    option, _, who = how.partition("=")
    said = {"--expert": f"(expert {who}, ", "--strategy": f"({who}, ",
            "--alpha": "(mixture of 0.5 math + 0 code + -0.25 reasoning, "}
    assert said[option] in out and result["expert"] == (who if option == "--expert" else None)


def test_show_takes_the_default_models_expert_first(call, trained, home, monkeypatch):
    """Fails if a name shows the expert of a model that comes earlier in the alphabet."""
    monkeypatch.setattr(experts, "SHIPPED", home / "shipped")
    (home / "out" / "math.safetensors").unlink()
    expert, meta = experts.read_expert(trained["expert"]), experts.read_metadata(trained["expert"])
    for base in (download.DEFAULT, "another"):
        experts.save_expert(home / "shipped" / base / "math.safetensors", expert,
                            {**meta, "base_model": base})
    status, out, err = call("show", "math", f"--picture={home}/z.png")
    assert status == 0 and download.DEFAULT in out and "another" not in out, err


def test_an_expert_of_another_model_is_in_nobodys_way(call, trained, home, monkeypatch):
    """Fails if yours hides the shipped expert of a model that it was not trained on,
    is hidden where it fits, or is offered to another model.
    """
    monkeypatch.setattr(experts, "SHIPPED", home / "shipped")
    expert, meta = experts.read_expert(trained["expert"]), experts.read_metadata(trained["expert"])
    ours = SimpleNamespace(name=meta["base_model"])
    shipped = home / "shipped" / ours.name / "math.safetensors"
    mine = home / "out" / "math.safetensors"
    experts.save_expert(shipped, expert, meta)
    assert experts.find("math", ours) == mine
    experts.save_expert(mine, expert, {**meta, "base_model": "another"})
    assert experts.find("math", ours) == shipped and experts.find(mine, ours) == mine
    assert experts.find("math", SimpleNamespace(name="another")) == mine
    loaded = SimpleNamespace(name=ours.name, base_sha256=meta["base_sha256"])
    experts.save_expert(mine, expert, {**meta, "base_sha256": "of other weights, of the same name"})
    assert experts.find("math", loaded) == shipped
    experts.save_expert(mine, expert, {**meta, "base_model": "renamed"})
    assert experts.find("math", loaded) == mine
    experts.save_expert(mine, expert, {**meta, "base_model": "another"})
    for nowhere in (home / "out" / "nope.safetensors", home / "out"):
        with pytest.raises(FileNotFoundError, match=f"no expert (file at )?'?{nowhere}"):
            experts.find(nowhere, ours)
    with pytest.raises(FileNotFoundError, match="Give a .safetensors file or one of: math$"):
        experts.find("none of these", SimpleNamespace(name="another"))
    with pytest.raises(FileNotFoundError,
                       match="one of: math; with --expert=NAME or --expert=none `ask` needs none"):
        (home / "out" / "dispatcher.safetensors").unlink()
        experts.find("dispatcher", SimpleNamespace(name="another"))
    with pytest.raises(FileNotFoundError,
                       match="no expert 'vision' for a third: it has none yet.*--expert=none"):
        experts.find("vision", SimpleNamespace(name="a third"))
    for sha256, line in ((meta["base_sha256"], "from "), ("another", "")):
        experts.save_expert(mine, expert, {**meta, "base_sha256": sha256})
        status, out, err = call("ask", "hello?", "--expert=math",
                                "--max-tokens=2", "--allow-other-base")
        assert status == 0 and ("instead of the shipped: math" in err) == bool(line), err
        assert "shipped" not in call("ask", "hello?", "--expert=none", "--max-tokens=2")[2]
        for way in ("--alpha=1,0,0", "--strategy=none"):
            err = call("eval", f"--task={home}/mine.jsonl", "--n=1", way, "--allow-other-base")[2]
            assert ("instead of the shipped: math" in err) == bool(line and "alpha" in way), err
    mine.unlink()
    mine.mkdir()
    (home / "out" / "x.safetensors").mkdir()
    assert experts.find("math", ours) == shipped
    usual = SimpleNamespace(allow_other_base=False)
    assert page_model.names_of(loaded, usual) == ["math", "code", "reasoning", "mine"]
    shipped.write_bytes(b"torn")
    assert experts.find("math", ours) == shipped                # whoever loads it says so


def test_what_to_do_after_training_works_as_printed(call, home, tiny_folder):
    """Fails if the line behind a training asks otherwise than the training did:
    of another model, without its options.
    """
    rows = [{"prompt": f"say {i}", "answer": "red", "match": "choice", "options": ["blue", "red"]}
            for i in range(40)]
    (home / "my rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    short = ["--steps=1", "--prompts=2", "--samples=2", "--val-every=1", "--val-n=2"]
    status, out, err = call("train", f"--task={home}/my rows.jsonl", "--objective=options", *short,
                            "--must-stop", "--max-tokens=9")
    assert status == 0, err
    assert "--must-stop is not used: --objective=options" in out
    assert "--max-tokens is not used: --objective=options" in out
    line = shlex.split(re.search("next: `python -m t2mini ([^`]*)`", out)[1])
    assert {"eval", "--choose", f"--weights={tiny_folder}",
            f"--task={home}/my rows.jsonl"} <= {*line}
    assert call(line[0], *line[1:], "--n=2")[0] == 0
    line = shlex.split(re.search("and `python -m t2mini ([^`]*)` shows", out)[1])
    assert line[0] == "show" and call(*line)[0] == 0


def test_an_empty_alpha_is_no_base_model(call, home):
    """Fails if --alpha= without numbers is scored as the base model, without a word."""
    status, out, err = call("eval", f"--task={home}/mine.jsonl", "--alpha=", "--n=2")
    assert status == 1 and "--alpha must be 3 numbers" in err and not out


def test_eval_takes_another_limit(call, home, tmp_path):
    """Fails if --max-tokens is ignored, and long answers are cut at the task's own limit."""
    for limit in (2, 7):
        assert call("eval", f"--task={home}/mine.jsonl", "--n=2", f"--max-tokens={limit}",
                    f"--samples-file={home}/s")[0] == 0
        longest = max(len(json.loads(line)["text"])
                      for line in (home / "s").read_text().splitlines())
        assert longest == limit                             # a random model of bytes does not stop


def test_eval_by_choosing(call, home):
    """Fails if anything but an option is taken, or --choose is ignored."""
    rows = [{"prompt": f"say {i}", "answer": "red", "match": "choice", "options": ["blue", "red"]}
            for i in range(40)]
    (home / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    status, out, err = call("eval", f"--task={home}/mine.jsonl", "--choose",
                            "--n=4", f"--samples-file={home}/s")
    assert status == 0 and "choosing" in out, err
    assert ({json.loads(line)["text"] for line in (home / "s").read_text().splitlines()}
            <= {"blue", "red"})


def test_eval_dispatch_prints_a_confusion_matrix(call, trained):
    """Fails if routing accuracy cannot be measured for both dispatchers."""
    for how in ("prompt", "classifier"):
        status, out, err = call("eval", "--task=dispatch", f"--strategy={how}", "--n=4", "--json")
        assert status == 0, err
        assert sum(sum(row.values()) for row in last_json(out)["confusion"].values()) == 4


def test_adapt_then_ask_with_the_mixture(call, trained, home):
    """Fails if the searched mixture is not written, scored, or usable afterwards."""
    status, out, err = call("adapt", f"--task={home}/mine.jsonl", "--shots=2", "--iterations=1",
                            "--population=4", "--n=3", "--json")
    assert status == 0, err
    assert {"accuracy", "base_accuracy", "gain", "alpha", "alpha_mean"} <= last_json(out).keys()
    assert call("ask", "hello?", "--strategy=cem", "--max-tokens=2")[0] == 0


@pytest.mark.parametrize("more", [["--by=likelihood"], ["--by=gradient"], ["--by=first-pass"],
                                  ["--by=gradient", "--per-matrix"]])
def test_adapt_by_another_measure(call, trained, home, more):
    """Fails if a mixture is not found, written and scored by likelihood or gradient
    as it is by accuracy.
    """
    short = ["--iterations=1", "--population=4"] if more[0] == "--by=likelihood" else []
    status, out, err = call("adapt", f"--task={home}/mine.jsonl", "--shots=2",
                            "--n=3", "--json", *more, *short)
    assert status == 0, err
    found = last_json(out)
    assert {"accuracy", "base_accuracy", "gain", "alpha", "shots_right"} <= found.keys()
    assert found["by"] == more[0][5:] and found["per_matrix"] == (len(more) == 2) and "left" in err
    assert "wrote" in out and call("ask", "hello?", "--strategy=cem", "--max-tokens=2")[0] == 0
    status, out, err = call("adapt", f"--task={home}/mine.jsonl", "--shots=2", "--n=3",
                            "--by=likelihood", "--per-matrix")
    assert status and "--per-matrix" in err


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_a_mixture_of_another_method_can_be_loaded(call, home, method):
    """Fails if `adapt` writes a file that nothing reads, after minutes of search."""
    made = home / "out" / "own.safetensors"
    status, _, err = call("train", f"--task={home}/mine.jsonl", f"--method={method}", "--steps=1",
                          "--prompts=2", "--samples=2", "--val-n=2", "--objective=next-token",
                          f"--out={made}")
    assert status == 0, err
    status, _, err = call("adapt", f"--task={home}/mine.jsonl", "--experts=own", "--shots=2",
                          "--iterations=1", "--population=2", "--n=2")
    assert status == 0, err
    status, _, err = call("eval", f"--task={home}/mine.jsonl", "--n=2",
                          f"--expert={home}/out/mixture.safetensors")
    assert status == 0, err
    if method == "lora":                                    # several are told of before they load
        for name in ("math", "code", "reasoning"):
            (home / "out" / f"{name}.safetensors").write_bytes(made.read_bytes())
        status, _, err = call("eval", f"--task={home}/mine.jsonl", "--n=2", "--strategy=cem")
        assert status == 1 and "cannot be mixed here" in err


def test_json_has_no_infinity(call, trained, home, monkeypatch):
    """Fails if a mixture without a right shot, whose likelihood is -inf, makes JSON unreadable."""
    def none_right(*args, **kw):
        return [(0.0, float("-inf"))] * len(args[4])
    monkeypatch.setattr(adapt, "score_mixtures", none_right)
    status, out, err = call("adapt", f"--task={home}/mine.jsonl", "--shots=2", "--iterations=1",
                            "--population=4", "--n=2", "--json")
    assert status == 0, err
    line = out.strip().splitlines()[-1]
    found = json.loads(line, parse_constant=pytest.fail)
    assert found["history"][0]["best"] == [0.0, None]


def test_weights_that_are_none_are_told_of_and_no_expert_is_missed(call, home, tmp_path):
    """Fails if a truncated file, or a download that was stopped, sends a person to train."""
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\0\0\0")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.json").write_bytes(
        (Path(call.folder) / "config.json").read_bytes())
    (tmp_path / "begun" / "model.safetensors.part").touch()
    for name, told in (("cut.gguf", "not a GGUF file"), ("begun", "the same `download` again")):
        for verb in ("ask", "chat"):
            status, _, err = call(verb, *(["hi"] if verb == "ask" else []),
                                  f"--weights={tmp_path / name}")
            assert status == 1 and told in err and "no expert" not in err


@pytest.mark.parametrize("more", [["--expert=none"], ["--strategy=none"]])
def test_a_wrong_module_is_told_of_where_no_layer_is_attached(call, home, more):
    """Fails if an option is taken and does nothing."""
    status, _, err = call("ask", "hi", "--max-tokens=2", "--modules=nonsense", *more)
    assert status == 1 and "unknown module 'nonsense'" in err


def test_show_draws_a_picture(call, trained, home):
    """Fails if an expert cannot be looked at."""
    status, out, err = call("show", home / "out" / "mine.safetensors", f"--picture={home}/z.png")
    assert status == 0, err
    assert (home / "z.png").read_bytes()[:4] == b"\x89PNG"
    assert "base_sha256" in out and "mean |z - 1|" in out


def test_every_verb_has_help():
    """Fails if a verb's --help breaks, for instance through a percent sign in a help text."""
    for verb in verbs.VERBS:
        with pytest.raises(SystemExit) as e:
            cli.main([verb, "--help"])
        assert e.value.code == 0


def test_help_says_each_default_once_and_shows_examples():
    """Fails if a verb has no example, or an option's help ends in two defaults."""
    from t2mini.cli.options import Help, build_parser
    for verb, parser in build_parser()[1].items():
        assert "examples:" in parser.epilog, verb
        for action in parser._actions:
            text = Help(parser.prog)._expand_help(action) if action.help else ""
            assert text.count("default") <= 1, (verb, text)


BAD = [
    (["eval", "--task=mth"], "did you mean math"),
    (["eval", "--tsk=math"], "unknown option --tsk; did you mean --task?"),
    (["chat", "What is 2+2=?"], "'What is 2+2=?' has no place here"),
    (["page", "8080"], "'8080' has no place here"),
    (["ask", "one two", "--expert=none", "three four"], "'three four' has no place here"),
    (["page", "--port=70000"], "must be a whole number from 0 to 65535"),
    (["eval", "--n=3"], "required: --task"),
    (["eval", "--task=math", "--strategi=prompt"], "did you mean --strategy"),
    (["eval", "--task=math", "--n=0"], "--n: must be"),
    (["eval", "--task=math", "--expert=nobody", "--n=1"], "no expert 'nobody'"),
    (["eval", "--task=missing.jsonl"], "no task file"),
    (["eval", "--task=math", "--expert=math", "--strategy=prompt"], "not both"),
    (["eval", "--task=reasoning", "--choose", "--strategy=prompt"], "--choose goes with"),
    (["eval", "--task=math", "--choose", "--n=1"], "lists no options"),
    (["eval", "--task=reasoning", "--choose", "--max-tokens=9"], "leave --max-tokens away"),
    (["train", "--task=math", "--objective=options"], "lists no options"),
    (["train", "--task=math", "--steps=0"], "--steps must be"),
    (["train", "--task=math", "--out=x.bin"], "must end in .safetensors"),
    (["train", "--task=math", "--modules=nose", "--steps=1"], "unknown module"),
    (["train", "--task=math", "--as-released=greed"], "made no choice 'greed'"),
    (["train", "--task=math", "--method=lora", "--tie=layer"], "only --method=svf"),
    (["adapt", "--task=math", "--shots=0"], "from 1 to"),
    (["adapt", "--task=math", "--by=first-pass", "--population=4"], "leave --iterations"),
    (["adapt", "--task=math", "--by=gradient", "--population=4"], "leave --population away"),
    (["reproduce", "unseen", "--draw", "--only=x"], "leave --only away"),
    (["reproduce", "unseen", "--tower=x"], "--tower is about images"),
    (["--seed=1", "ask", "hi"], "--seed stands behind the verb"),
    (["ask", "hi", "--strategy=cem"], "run `python -m t2mini adapt"),
    (["ask", ""], "question is empty"),
    (["ask", "hi", "-"], "stands alone"),
    (["ask", "hi", "--expert=~no-such-one/e.safetensors"], "no such user"),
    (["show", "nobody"], "no expert"),
    (["download", "smolm2-135m-instruct"], "smollm2-135m-instruct"),
]


@pytest.mark.parametrize("args, says", BAD,
                         ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_bad_input_is_one_clear_line(call, args, says):
    """Fails if a mistake ends in a traceback, in silence, in many lines or with status 0."""
    status, out, err = call(*args)
    told = [line for line in err.splitlines() if line.startswith("t2mini: ")]
    assert status not in (0, None) and len(told) == 1 and says in told[0] and "Traceback" not in err


def test_expert_of_another_base_is_refused(call, trained, home, tmp_path_factory):
    """Fails if z of one model's singular vectors silently run on another model's."""
    from conftest import write_folder
    other = write_folder(tmp_path_factory.mktemp("other") / "tiny", seed=1)
    args = [f"--weights={other}", "--expert=math", "--n=2"]
    status, _, err = call("eval", f"--task={home}/mine.jsonl", *args)
    assert status == 1 and "another base" in err
    assert call("eval", f"--task={home}/mine.jsonl", *args, "--allow-other-base")[0] == 0


def test_damaged_weights_and_experts(call, trained, home, tiny_folder, tmp_path):
    """Fails if a truncated file is a traceback, or is taken for whole."""
    whole = (home / "out" / "mine.safetensors").read_bytes()
    cut = home / "cut.safetensors"
    cut.write_bytes(whole[:len(whole) // 2])
    status, _, err = call("eval", f"--task={home}/mine.jsonl", f"--expert={cut}", "--n=2")
    assert status == 1 and "damaged" in err
    assert call("eval", "--task=math", "--n=1", f"--weights={tmp_path}/nothing")[0] == 1


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(call, home, monkeypatch):
    """Fails if an interrupted training loses what it learnt, or does not tell about --resume."""
    from t2mini import reinforce
    real, calls = reinforce.update, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(reinforce, "update", interrupted)
    args = ["train", f"--task={home}/mine.jsonl", "--steps=4", "--prompts=2", "--samples=2",
            "--val-every=2", "--val-n=2"]
    status, _, err = call(*args)
    assert status == 130 and "--resume" in err
    monkeypatch.setattr(reinforce, "update", real)
    status, out, err = call(*args, "--resume")
    assert status == 0 and "resuming" in out


def test_ctrl_c_before_a_run_begins_says_nothing_of_an_earlier_one(call, home, trained,
                                                                   monkeypatch):
    """Fails if the checkpoint of an earlier run is taken for this one's."""
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "prepare", interrupted)
    status, _, err = call("train", f"--task={home}/mine.jsonl", "--steps=3")
    assert status == 130 and "as they were" in err and "--resume" not in err
    status, _, err = call("train", f"--task={home}/mine.jsonl", "--steps=3", "--resume")
    assert status == 130 and "as they were" not in err and "--resume" in err    # its own


def test_a_mixture_of_other_weights_is_not_replaced(call, home, trained):
    """Fails if `adapt` takes the mixture of another model away."""
    out, made = home / "out" / "mixture.safetensors", home / "out" / "mine.safetensors"
    experts.save_expert(out, experts.read_expert(made),
                        {**experts.read_metadata(made), "base_sha256": "0" * 64})
    status, _, err = call("adapt", f"--task={home}/mine.jsonl", "--experts=mine", "--shots=1",
                          "--population=2", "--iterations=1", "--n=2")
    assert status == 1 and "is of other weights (sha256 00000000" in err
    assert experts.read_metadata(out)["base_sha256"] == "0" * 64


def test_a_task_file_that_breaks_during_a_training_spoils_nothing(call, home, monkeypatch):
    """Fails if the file is read again when the expert is written, or its doubts are told twice."""
    real, mine = train.train, home / "mine.jsonl"
    mine.write_text("".join(json.dumps({"prompt": f"a or b? {i}", "answer": "ab"[i % 2],
                                        "match": "contains"}) + "\n" for i in range(40)))

    def broken(*args):
        found = real(*args)
        mine.write_text("{")
        return found

    monkeypatch.setattr(train, "train", broken)
    status, out, err = call("train", f"--task={mine}", "--steps=1", "--prompts=2", "--samples=2",
                            "--val-n=2", f"--data={home}")
    assert status == 0 and "wrote" in out, err
    assert err.count("prompts with `match` contains name their answer") == 1


def test_a_tower_without_an_image_is_refused(call, home):
    """Fails if a tower that is named has no part in the answers, without a word."""
    for asked in (["ask", "Hi", "--tower=any"],
                  ["eval", f"--task={home}/mine.jsonl", "--tower=any"]):
        status, _, err = call(*asked)
        assert status == 1 and "--tower is about images" in err


def test_a_tower_in_training_is_kept_and_held(call, home, monkeypatch):
    """Fails if Ctrl-C in `see` does not say how to go on, a second `see` writes into the first
    one's files, or --resume without a checkpoint is told only when the model has loaded.
    """
    def align(model, tokenizer, known, cfg, out, **options):
        out.with_suffix(".ckpt").touch()
        with pytest.raises(ValueError, match="another run is writing"):
            with files.only_one(out.with_suffix(".lock")):
                pass
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs.easy_vqa, "facts", lambda examples: {"image": ("red", "circle")})
    monkeypatch.setattr(verbs.captions, "align", align)
    monkeypatch.setattr(verbs.tasks, "get", lambda *args, **more: SimpleNamespace(make=dict))
    status, _, err = call("see", f"--data={home}/mine.jsonl", f"--out={home}/t.safetensors")
    assert status == 130 and "--resume" in err
    status, _, err = call("see", f"--data={home}/mine.jsonl",
                          f"--out={home}/other.safetensors", "--resume")
    assert status == 1 and "there is no checkpoint" in err and "ready in" not in err
    taken = home / "taken.safetensors"                      # another model's tower
    save_file({"x": torch.ones(1)}, taken, {"tower": "{}", "base_sha256": "0" * 64})
    monkeypatch.setattr(verbs.files, "claim_run", lambda out, *a, **k: Path(out))
    status, _, err = call("see", f"--data={home}/mine.jsonl", f"--out={taken}")
    assert status == 1 and "is of other weights" in err.strip().splitlines()[-1]


def test_switches_are_checked_before_the_model_is_loaded(call, home):
    """Fails if a run says that it cannot be what was asked for only after the weights are there."""
    for more in ("--as-released=greed", "--tie=layer"):
        status, _, err = call("train", f"--task={home}/mine.jsonl", "--method=lora", more)
        assert status == 1 and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("more, parameters", [
    (["--objective=next-token"], 544),
    (["--objective=next-token", "--method=ia3", "--lr=0.1"], 256), (["--tie=module"], 7),
    (["--as-released"], 288), (["--as-released=greedy,bf16", "--tie=layer"], 2),
    (["--baseline=none"], 544)])
def test_training_switches(call, home, more, parameters):
    """Fails if a switch is not reachable from the command line,
    or the expert it makes cannot be used like any other.
    """
    out = home / "e.safetensors"
    status, said, err = call("train", f"--task={home}/mine.jsonl", "--steps=2", "--prompts=2",
                             "--samples=2", "--val-every=1", "--val-n=2", f"--out={out}", *more)
    assert status == 0 and f" {parameters} trained numbers" in said, err
    assert experts.read_metadata(out)["parameters"] == parameters
    assert call("eval", f"--task={home}/mine.jsonl", "--n=2", f"--expert={out}")[0] == 0
    assert call("show", out, f"--picture={home}/z.png")[0] == 0


@pytest.mark.filterwarnings("ignore:'t2mini.__main__' found in sys.modules")
def test_the_program_runs_as_a_program(monkeypatch, capsys):
    """Fails if `python -m t2mini` itself is broken: no verb prints the help and is an error."""
    monkeypatch.setattr(sys, "argv", ["t2mini"])
    with pytest.raises(SystemExit) as e:
        # what -m does, without another start of torch
        runpy.run_module("t2mini", run_name="__main__")
    assert e.value.code == 2 and "VERB" in capsys.readouterr().out


def test_a_training_goes_on_from_an_expert_or_says_why_not(call, home, trained):
    """Fails if --start is not reachable, an expert that is nowhere is missed only once the model is
    there, one of another method is trained on, or the expert that a run starts from is replaced.
    """
    run = ["train", f"--task={home}/mine.jsonl", "--steps=1", "--prompts=2", "--samples=2",
           "--val-every=1", "--val-n=2"]
    status, out, err = call(*run, "--start=math", f"--out={home}/more.safetensors")
    assert status == 0, err
    assert experts.read_metadata(home / "more.safetensors")["config"]["start"] == "math"
    before = (home / "out" / "mine.safetensors").read_bytes()
    for more, said in ((["--start=mine"], "is an input of this command"),
                       (["--start=nobody"], "no expert 'nobody'"),
                       (["--start=math", "--method=lora", f"--out={home}/l.safetensors"],
                        "was trained with --method=svf, and --start goes on with the same, not"),
                       (["--start=math", "--modules=q", f"--out={home}/l.safetensors"],
                        "changes matrices that this training would not (--modules="),
                       (["--start=math", "--layers=half", f"--out={home}/l.safetensors"],
                        "leave --modules and --layers away")):
        status, out, err = call(*run, *more)
        assert status == 1 and said in err.strip().splitlines()[-1], err
    assert (home / "out" / "mine.safetensors").read_bytes() == before
    z, meta = experts.read_expert(home / "more.safetensors"), experts.read_metadata(
        home / "more.safetensors")
    few = [*run, "--modules=q, v", f"--out={home}/few.safetensors"]
    assert call(*few)[0] == 0
    assert call(*run, f"--start={home}/few.safetensors", f"--out={home}/f.safetensors")[0] == 0
    experts.save_expert(home / "other.safetensors", z, {**meta, "base_sha256": "0" * 64})
    status, out, err = call(*run, f"--start={home}/other.safetensors",
                            f"--out={home}/l.safetensors")
    assert status == 1 and "is an expert of other weights" in err and "--allow" not in err
    assert call(*run, "--start=none", f"--out={home}/n.safetensors")[0] == 0
    assert experts.read_metadata(home / "n.safetensors")["config"]["start"] == ""
    lora = ["--method=lora", "--rank=2", f"--out={home}/lora.safetensors"]
    assert call(*run, *lora)[0] == 0
    status, out, err = call(*run, f"--start={home}/lora.safetensors", "--method=lora", "--rank=2",
                            "--lora-alpha=64", f"--out={home}/l.safetensors")
    assert status == 1
    assert "was trained with --lora-alpha=32.0, and --start goes on with the same" in err


def test_another_expert_to_start_from_is_no_resumed_run(call, home, trained, monkeypatch):
    """Fails if a run goes on although the expert that it began with has been replaced; or if what
    it begins with, or what its expert now stands for, is not told."""
    run = ["train", f"--task={home}/mine.jsonl", "--prompts=2", "--samples=2", "--val-every=1",
           "--val-n=2", "--start=math", f"--out={home}/out/code.safetensors", "--steps=1"]
    monkeypatch.setattr(experts, "SHIPPED", home / "shipped")
    shipped = experts.SHIPPED / experts.read_metadata(home / "out" / "math.safetensors")[
        "base_model"]
    shipped.mkdir(parents=True)
    (shipped / "code.safetensors").write_bytes((home / "out" / "math.safetensors").read_bytes())
    status, out, err = call(*run)
    assert status == 0 and f"going on from {home}/out/math.safetensors" in out, err
    assert "from now on it is taken for the shipped code; remove " in out
    assert call(*run, "--resume")[0] == 0
    first = home / "out" / "math.safetensors"
    z = {name: 1.25 + 0 * t for name, t in experts.read_expert(first).items()}
    experts.save_expert(first, z, experts.read_metadata(first))
    status, out, err = call(*run, "--resume")
    assert status == 1 and "was written with another expert to start from" in err


def test_solutions_that_would_earn_nothing_are_told(call, home):
    """Fails if a training copies solutions that its own judge calls wrong without a word, or
    doubts right ones."""
    rows = [{"prompt": f"{n} and 1?", "answer": n + 1, "match": "number",
             "solution": f"{n} + 1 = {n + (1 if n else 5)}."} for n in range(20)]
    (home / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = ["train", f"--task={home}/sums.jsonl", "--steps=1", "--prompts=2", "--val-n=2"]
    copies = [*run, "--objective=next-token"]
    status, out, err = call(*copies, "--must-stop", "--wrong=-1")
    assert status == 0 and "note: 1 of 10 solutions would not be judged right" in out, err
    assert "0 + 1 = 5.' for '1'" in out and "have no `solution`" not in out
    assert "--must-stop is not used: --objective" in out and "--wrong is not used" in out
    assert " loss " in out
    assert " | cut " not in out and " | kl " not in out
    status, out, err = call(*run, "--samples=2", "--max-tokens=2")
    assert "note: rewards do not look at `solution`" in out and "judged right" not in out
    del rows[2]["solution"]
    rows[3]["solution"] = "so " * 200 + "4"
    (home / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, err = call(*copies)
    assert "note: 1 of 10 train questions have no `solution`" in out
    assert re.search(r"has \d+ tokens and validation lets 8 be written: --max-tokens=", out)
    text = call(*copies, "--max-tokens=900")[1]
    assert "tokens and validation lets" not in text and "--max-tokens is not" not in text
    made_up = ["train", "--task=math-worked", "--steps=1", "--prompts=1", "--val-n=1"]
    text = call(*made_up, "--objective=next-token", "--max-tokens=90")[1]
    assert "--max-tokens is not used: nothing is sampled" in text
    text = call(*made_up, "--samples=2", "--max-tokens=4")[1]
    assert "--max-tokens is not" not in text and "stopped after" not in text
    # nothing can be better than the start, and who waits for more updates is told why none come
    text = call(*made_up[:2], "--steps=9", "--prompts=1", "--samples=2", "--val-n=1",
                "--val-every=1", "--patience=2")[1]
    assert "stopped after 2 of 9 updates: no better validation in the last 2" in text


def test_half_of_the_layers(call, home):
    """Fails if --layers=half tunes every block, is not remembered,
    or its expert cannot be used afterwards.
    """
    status, out, err = call("train", f"--task={home}/mine.jsonl", "--steps=1", "--prompts=1",
                            "--samples=2", "--val-every=1", "--val-n=2", "--layers=half",
                            "--modules=q,up", f"--out={home}/half.safetensors")
    assert status == 0, err
    meta, expert = (experts.read_metadata(home / "half.safetensors"),
                    experts.read_expert(home / "half.safetensors"))
    assert sorted(expert) == ["model.layers.0.mlp.up_proj", "model.layers.0.self_attn.q_proj"]
    assert meta["layers"] == "half"
    for more, code in (([], 0), (["--layers=half", "--modules=q,up"], 0), (["--modules=q"], 1)):
        status, out, err = call("eval", f"--task={home}/mine.jsonl", "--n=2",
                                f"--expert={home}/half.safetensors", *more)
        assert status == code and (code == 0 or "no SVF layer" in err.splitlines()[-1])


def test_export(call, home, trained, tiny_folder):
    """Fails if the verb does not merge the expert, needs a tokenizer,
    or writes into a folder that holds something.
    """
    # whatever two steps of training moved: move half of it by hand
    path = home / "out" / "math.safetensors"
    expert = {name: torch.full_like(z, 1.1 if "up_proj" in name else 1.0)
              for name, z in experts.read_expert(path).items()}
    experts.save_expert(path, expert, experts.read_metadata(path))
    status, out, err = call("export", "--expert=math", f"--out={home}/merged")
    assert status == 0 and out.strip().endswith("merged"), err
    assert (home / "merged" / "adapter" / "adapter_config.json").is_file()
    base, merged = (load_file(f / "model.safetensors") for f in (tiny_folder, home / "merged"))
    moved = {k.removesuffix(".weight") for k in base if not torch.equal(base[k], merged[k])}
    assert moved == {k for k in expert if "up_proj" in k} and len(moved) == 2
    status, out, err = call("export", "--expert=math", f"--out={home}/merged")
    assert status == 1 and "not an empty folder" in err and len(err.strip().splitlines()) == 1
    assert call("export", "--expert=none", f"--out={home}/plain")[0] == 0
    assert not (home / "plain" / "adapter").exists()


def test_text_verbs_say_that_the_tokenizer_is_missing(home, tiny_folder, capsys):
    """Fails if a folder without tokenizer files ends in a traceback, or `export` refuses it."""
    bare = Path(shutil.copytree(tiny_folder, home / "bare"))
    (bare / "tokenizer.json").unlink()
    shared = [f"--weights={bare}", "--device=cpu", "--dtype=float32"]
    assert cli.main(["ask", *shared, "--expert=none", "Hi"]) == 1
    err = capsys.readouterr().err.strip()
    assert "bare has no tokenizer.json, and `ask` reads and writes text" in err and "\n" not in err
    assert cli.main(["export", *shared, "--expert=none", f"--out={home}/copy"]) == 0


def test_a_second_image_is_refused_and_not_taken_instead(capsys):
    """Fails if the first of two images is dropped without a word."""
    with pytest.raises(SystemExit):
        cli.main(["ask", "--image=a.png", "--image=b.png", "what is it?"])
    assert "given twice" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_success(monkeypatch):
    """Fails if `train | head` says by its status that an expert was written."""
    def leave(args):
        raise BrokenPipeError

    monkeypatch.setitem(verbs.VERBS, "doctor", leave)
    monkeypatch.setattr(os, "dup2", lambda *_: None)        # the test's own output stays open
    assert cli.main(["doctor"]) == 141


@pytest.mark.parametrize("words", [["chat"], ["ask", "-"]])
def test_a_closed_input_is_one_clear_line(call, trained, monkeypatch, words):
    """Fails if `chat <&-` ends in a message about a bug, or like a conversation that went well; or
    a verb that asks nothing minds.
    """
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = call(*words)
    assert status == 1 and err.count("\n") == 1 and "standard input is closed" in err
    assert call("ask", "hello", "--expert=none", "--max-tokens=2")[0] == 0


def test_the_command_of_an_expert_can_be_pasted(monkeypatch):
    """Fails if a name with a blank falls apart."""
    monkeypatch.setattr(sys, "argv", ["t2mini/__main__.py", "train", "--task=my file.jsonl"])
    assert checkpoint.command() == "python -m t2mini train '--task=my file.jsonl'"


def test_an_older_picture_does_not_keep_show_from_its_tables(call, trained, home):
    """Fails if a picture that is not ours is replaced, or nothing is said of the expert."""
    (home / "out" / "math.png").write_bytes(b"theirs")
    status, out, err = call("show", "math")
    assert status == 0 and "base_sha256" in out and "no picture: " in err
    assert (home / "out" / "math.png").read_bytes() == b"theirs"

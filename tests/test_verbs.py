"""What every verb does alike: with paths, numbers, streams, and text that others wrote.
A tiny random model, as a user calls it.
"""
import argparse
import errno
import io
import json
import shutil
import sys
import types
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from test_cli import call, home, trained    # noqa: F401 (fixtures)

import t2mini
from t2mini import __main__ as cli
from t2mini import adapt, experts, svf, tasks
from t2mini.cli import options, verbs
from t2mini.formats.tokenizer import Tokenizer
from t2mini.lab import reproduce
from t2mini.machine import device, files
from t2mini.questions import published


def every_option():
    """(verb, option) of the whole command line."""
    _, parsers = options.build_parser()
    return [(verb, action) for verb, parser in parsers.items() for action in parser._actions]


# -------------------------------------------------------------------------------------- who answers
def test_no_expert_means_no_first_pass_and_no_decomposition(call, home, monkeypatch):  # noqa: F811
    """Fails if --expert=none asks the dispatcher and answers with what it says (CASES row 18),
    or a matrix is taken apart for an answer in which no expert has a part (CASES row 20).
    """
    made = []
    real = t2mini.load
    monkeypatch.setattr(t2mini, "load", lambda *args: made.append(real(*args)) or made[-1])
    monkeypatch.setattr(t2mini.adapt, "route",
                        lambda *args, **more: pytest.fail("there was a first pass"))
    texts = []
    for how in ("--expert=none", "--strategy=none"):
        status, out, err = call("ask", "Raj plays 9 games", how, "--max-tokens=6", "--json")
        told = json.loads(out.splitlines()[-1])
        assert status == 0 and told["expert"] == "none" and told["probabilities"] is None
        assert "first pass" not in err
        texts.append(told["answer"])
    assert call("eval", f"--task={home}/mine.jsonl", "--n=2")[0] == 0
    assert texts[0] == texts[1] and len(made) == 3
    assert not any(svf.layers(model) for model, _ in made)
    assert not (home / "svd").exists()


# -------------------------------------------------------------------------------------------- paths
def test_every_path_option_knows_the_home_folder(monkeypatch, tmp_path):
    """Fails if ~ behind an equals sign is a folder of that name (CASES row 17),
    for any option of any verb that names a path, or an empty path is taken.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    known = 0
    for verb, action in every_option():
        words = {"PATH", "DIR", "FILE"} & {*str(action.metavar).split("|")}
        if words or action.dest in ("weights", "data", "out", "task", "expert",
                                    "samples_file", "picture"):
            assert action.type("~/x") == f"{tmp_path}/x", f"{verb} {action.dest}"
            with pytest.raises(argparse.ArgumentTypeError):
                action.type("")
            known += 1
    assert known >= 25


# what is named as an output and must not be one: verb, options;
# {w} weights, {t} task, {d} a folder, {e} an expert
LOST = {
    "train on weights": ("train", "--task={t}", "--out={w}/model.safetensors"),
    "train beside weights": ("train", "--task={t}", "--out={w}/new.safetensors"),
    "train on a task": ("train", "--task={t}", "--out={h}/mine.safetensors"),
    "train on somebody's rows": ("train", "--task=math", "--out={h}/rows.safetensors"),
    "train on a folder": ("train", "--task={t}", "--out={d}"),
    "adapt on weights": ("adapt", "--task={t}", "--out={w}/model.safetensors"),
    "adapt on an expert in use": ("adapt", "--task={t}", "--experts=math",
                                  "--out={h}/out/math.safetensors"),
    "adapt on a folder": ("adapt", "--task={t}", "--out={d}"),
    "samples on a task": ("eval", "--task={t}", "--samples-file={t}"),
    "samples on weights": ("eval", "--task={t}", "--samples-file={w}/model.safetensors"),
    "samples on an expert": ("eval", "--task={t}", "--expert={e}", "--samples-file={e}"),
    "samples on a folder": ("eval", "--task={t}", "--samples-file={h}"),
    "samples nowhere": ("eval", "--task={t}", "--samples-file={t}/s"),
    "export on weights": ("export", "--expert=math", "--out={w}"),
    "export on a file": ("export", "--expert=math", "--out={t}"),
    "picture on an expert": ("show", "{e}", "--picture={e}"),
    "picture on a photo": ("show", "{e}", "--picture={h}/photo.png"),
    "picture on a folder": ("show", "{e}", "--picture={h}"),
    "train on a tower in use": ("train", "--task={t}", "--tower={h}/tower.safetensors",
                                "--out={h}/tower.safetensors"),
    "see on weights": ("see", "--data={v}", "--out={w}/model.safetensors"),
    "see on an expert": ("see", "--data={v}", "--out={e}"),
    "adapt on its dispatcher": ("adapt", "--task={t}", "--by=first-pass",
                                "--out={h}/out/dispatcher.safetensors"),
    "see into the data": ("see", "--data={v}", "--out={v}/tower.safetensors"),
    "reproduce on a photo": ("reproduce", "tiny", "--allow-code", "--out={p}"),
    "reproduce on somebody's rows": ("reproduce", "unseen", "--allow-code", "--out={p}"),
    "reproduce on a file": ("reproduce", "tiny", "--allow-code", "--out={t}"),
    "reproduce into the data": ("reproduce", "tiny", "--allow-code", "--data={v}", "--out={v}/new"),
    "reproduce into weights": ("reproduce", "tiny", "--allow-code", "--out={w}"),
    "reproduce --draw on a photo": ("reproduce", "tiny", "--draw", "--out={p}")}


@pytest.mark.parametrize("name", LOST)
def test_no_output_replaces_what_is_there(call, home, tiny_folder, monkeypatch, name):  # noqa: F811
    """Fails if a verb overwrites what it reads or what it did not write,
    does not say which output that is, or finds a bad output after the model was loaded,
    that is after hours of work (BREAKS rows 1 and 2).
    """
    weights = Path(shutil.copytree(tiny_folder, home / "w"))
    (home / "rows.jsonl").write_text('{"prompt": "p", "answer": "a"}\n')
    (home / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n photo")
    (home / "d.safetensors").mkdir()
    (home / "out").mkdir()
    for expert in ("math", "mine", "dispatcher"):
        experts.save_expert(home / "out" / f"{expert}.safetensors",
                            {"model.layers.0.mlp.up_proj": torch.ones(2)}, {"base_sha256": "0"})
    files.save_tensors(home / "tower.safetensors", {"a": torch.ones(2)},
                       {"format": "t2mini-tower-1", "base_sha256": "0"})
    photos, seen = home / "p", home / "v"
    for folder in (photos, seen):
        folder.mkdir()
    # an experiment that was run, and a photo of its name
    shutil.copy(reproduce.RESULTS / "tiny.json", photos)
    (photos / "tiny.png").write_bytes(b"\x89PNG\r\n\x1a\n photo")
    (photos / "unseen.json").write_text('{"rows": 3}')
    monkeypatch.setattr("t2mini.questions.easy_vqa.facts",
                        lambda rows: {"0.png": ("red", "circle")})
    monkeypatch.setattr(tasks, "get", lambda *given, real=tasks.get, **more: (
        types.SimpleNamespace(make=dict) if given[0] == "easy-vqa" else real(*given, **more)))
    places = {"h": home, "w": weights, "t": home / "mine.jsonl", "d": home / "d.safetensors",
              "e": home / "out" / "mine.safetensors", "p": photos, "v": seen}
    verb, *args = [word.format(**places) for word in LOST[name]]
    # a log or a picture is named beside it
    output = str(Path(args[-1].partition("=")[2]).with_suffix(""))
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    monkeypatch.setattr(t2mini, "load", lambda *args: pytest.fail("the model was loaded first"))
    monkeypatch.setattr("t2mini.lab.plots.draw_expert", lambda *args: pytest.fail("it was drawn"))
    if verb != "show":
        args.append(f"--weights={weights}")
    status, _, err = call(verb, *args)
    told = [line for line in err.splitlines() if line.startswith("t2mini: ")]
    assert status == 1 and len(told) == 1 and "Traceback" not in err and output in told[0], err
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before


def full(*args, **more):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_result_is_told_before_files_are_written(call, home, trained, monkeypatch):  # noqa: F811
    """Fails if a disk that fills up takes the score, or what a search found, with it
    (BREAKS row 2).
    """
    monkeypatch.setattr(verbs, "write_samples", full)
    status, out, err = call("eval", f"--task={home}/mine.jsonl", "--n=2", "--json",
                            f"--samples-file={home}/s")
    assert status == 1 and " test: " in out and "no space left" in err
    assert json.loads(out.splitlines()[-1])["n"] == 2
    monkeypatch.setattr(experts, "save_expert", full)
    status, out, err = call("adapt", f"--task={home}/mine.jsonl", "--shots=2", "--iterations=1",
                            "--population=2", "--n=2")
    assert status == 1 and "alpha {" in out and "no space left" in err


def test_an_agreement_that_cannot_be_kept_holds_for_this_run(monkeypatch, capsys,
                                                             home):     # noqa: F811
    """Fails if --allow-code is an error where out/ cannot be written, or it is not said that the
    next run needs it again.
    """
    def closed(*args, **more):
        raise OSError(errno.EROFS, "Read-only file system", "out")

    monkeypatch.setattr(Path, "mkdir", closed)
    verbs.agree(True)
    err = capsys.readouterr().err
    assert "not kept, so give --allow-code each time" in err and "Read-only" in err
    with pytest.raises(ValueError, match="add --allow-code"):
        verbs.agree(False)


def test_a_score_of_a_few_questions_says_that_it_shows_little(call, home):     # noqa: F811
    """Fails if a score of two questions stands there as if it could tell two experts apart."""
    _, out, _ = call("eval", f"--task={home}/mine.jsonl", "--n=2")
    assert "only 2 questions" in out and "more rows" in out and "--split=all" in out
    _, out, _ = call("eval", "--task=math", "--n=2", "--max-tokens=2")
    assert "raise --n" in out and "rows" not in out
    _, out, _ = call("eval", "--task=math", "--n=20", "--max-tokens=2")
    assert " of 20" in out and "only" not in out


def test_published_files_may_lie_in_the_folder_of_the_project(tmp_path, monkeypatch):
    """Fails if with --data=. every usual output is refused, as it lies in a folder that is read,
    or one of the published files may be written over.
    """
    monkeypatch.setattr(experts, "OUT", tmp_path / "here" / "out")
    (tmp_path / "m.gguf").write_bytes(b"")
    args = argparse.Namespace(task="gsm8k", data=str(tmp_path), weights=str(tmp_path / "m.gguf"))
    want = tmp_path / "here" / "out" / "gsm8k.safetensors"
    assert verbs.claim(args, want, "expert") == want
    file = Path(tmp_path, published.SETS["gsm8k"].files[0].path)
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    with pytest.raises(ValueError, match="is an input of this command"):
        verbs.claim(args, file, "samples")
    monkeypatch.setattr(experts, "OUT", tmp_path.parent / "elsewhere")
    with pytest.raises(ValueError, match="which this command reads"):
        verbs.claim(args, want, "expert")


# ------------------------------------------------------------------------------------------ numbers
def test_no_option_takes_any_number():
    """Fails if a number of no use is accepted by any verb: --max-tokens=-5, --temperature=nan,
    --threads=100000, which is a segmentation fault, or --n=10**12 (BREAKS row 7).
    Those of `train` are tried in test_train.py.
    """
    tried = 0
    for verb, action in every_option():
        if verb == "train" and action.dest != "threads":
            continue
        number = isinstance(action.default, (int, float)) and not isinstance(action.default, bool)
        if number or action.dest in ("threads", "max_tokens", "iterations", "population"):
            for text in ("-10000000000", "10000000000000", "nan", "inf", "-inf", "x", "1e999"):
                with pytest.raises(argparse.ArgumentTypeError, match="must be"):
                    action.type(text)
            tried += 1
    assert tried >= 25
    with pytest.raises(argparse.ArgumentTypeError):
        options.within(int, 1, 256)("100000")


def test_resume_takes_the_checkpoints_number_format(home, tiny_folder, capsys,     # noqa: F811
                                                    monkeypatch):
    """Fails if a run that began in one number format cannot go on where another one is usual
    (BREAKS row 5).
    """
    args = ["train", f"--task={home}/mine.jsonl", f"--weights={tiny_folder}", "--device=cpu",
            f"--out={home}/e.safetensors", "--steps=2", "--prompts=2", "--samples=2",
            "--val-every=1", "--val-n=2"]
    began = {}
    for usual, more in (("bfloat16", []), ("float32", ["--resume"])):
        monkeypatch.setattr(device, "native", lambda kind: (getattr(torch, usual), "said here"))
        assert cli.main([*args, *more]) == 0, capsys.readouterr().err
        began[usual] = capsys.readouterr().err
    assert "bfloat16 on cpu" in began["float32"]
    assert cli.main([*args, "--resume", "--dtype=float32"]) == 1
    assert "another dtype" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize("args, says", [
    (["adapt", "--task=math", "--n=0"], "--n: must be"),
    (["eval", "--task=math", "--device=meta"], "no device meta"),
    (["ask", "hi", "--expert=none", "--device=cpu:7"], "no device cpu:7"),
    (["ask", "hi", "--expert=none", "--device=nonsense"], "unknown device"),
    (["ask", "hi", "--expert=none", "--device=xla"], "no device xla"),
    (["bench", "--device=cuda:99"], "cuda:99")])
def test_odd_devices_and_counts_are_one_line(home, tiny_folder, capsys, args, says):  # noqa: F811
    """Fails if any of them ends in a traceback (BREAKS row 12)."""
    try:
        status = cli.main([*args, f"--weights={tiny_folder}", "--dtype=float32"])
    except SystemExit as e:
        status = e.code
    err = capsys.readouterr().err
    assert status in (1, 2) and says in err and "Traceback" not in err
    assert err.count("t2mini: ") == 1


class Raises(types.ModuleType):
    """A module of which nothing can be imported."""

    def __init__(self, error):
        super().__init__("t2mini.cli.run")
        self.error = error

    def __getattr__(self, name):
        raise self.error


@pytest.mark.parametrize("error, status, says", [
    (KeyboardInterrupt(), 130, "stopped"),
    (ModuleNotFoundError("no", name="tiktoken"), 1, "tiktoken is missing; run `make setup`"),
    (ZeroDivisionError("odd\nthing"), 1, "ZeroDivisionError: odd (a bug in t2mini")])
def test_what_happens_before_a_verb_begins_is_caught(monkeypatch, capsys, error, status, says):
    """Fails if Ctrl-C while the program loads, a missing package,
    or an error that nobody foresaw is a traceback (BREAKS row 12).
    """
    monkeypatch.setitem(sys.modules, "t2mini.cli.run", Raises(error))
    assert cli.main(["doctor"]) == status
    err = capsys.readouterr().err.strip()
    assert says in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("closed", ["stderr", "stdout"])
def test_a_closed_stream_loses_nothing_but_itself(call, home, monkeypatch, closed):     # noqa: F811
    """Fails if `2>&-` or `>&-`, for which Python has None,
    ends a command or takes the other stream along (BREAKS row 13).
    """
    monkeypatch.setattr(sys, closed, None)
    status, out, err = call("eval", f"--task={home}/mine.jsonl", "--n=2",
                            f"--samples-file={home}/s")
    assert status == 0 and (home / "s").read_text().count("\n") == 2
    assert " test: " in out if closed == "stderr" else not out


# ------------------------------------------------------------------------------------- foreign text
@pytest.mark.parametrize("verb", ["show", "doctor"])
def test_metadata_of_a_file_cannot_drive_a_terminal(call, home, capsys, verb):     # noqa: F811
    """Fails if an escape sequence in an expert's metadata is printed as it is, by `show`
    or by `doctor` (BREAKS row 9); or a task called $x$ is a formula in the picture (BREAKS row 20).
    """
    path = home / "out" / "odd.safetensors"
    path.parent.mkdir()
    told = {"base_sha256": "\x1b[31m" * 8, "task": "a$x^{$\x1b[2J\u202e",
            "base_model": "\x1b]0;owned\x07", "note": "\x9b31m"}
    experts.save_expert(path, {"model.layers.0.self_attn.q_proj": torch.tensor([1.5, 1.0])}, told)
    status = cli.main([verb, *([str(path)] if verb == "show" else [])])
    out, err = capsys.readouterr()
    assert status == 0 and "\\x1b[2J\\u202e" in out
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*out, *err}
    if verb == "show":
        assert (home / "out" / "odd.png").is_file()


def test_the_names_in_an_expert_cannot_drive_a_terminal(call, home):     # noqa: F811
    """Fails if `show` prints the name of a tensor as it is, or draws it as a formula."""
    path = home / "out" / "odd.safetensors"
    path.parent.mkdir()
    experts.save_expert(path, {f"model.layers.0.mlp.{name}": torch.tensor([1.5, 1.0])
                               for name in ("a\x1b[2J\u202e", "$x^{$")}, {"base_sha256": "0"})
    status, out, err = call("show", path)
    assert status == 0 and "a\\x1b[2J\\u202e" in out and not {"\x1b", "\u202e"} & {*out, *err}
    assert (home / "out" / "odd.png").is_file()


ESCAPING = "\x1b[2J\x9b31m\u202e"
WRITES = {  # verbs that show what a model wrote; `chat` is in test_chat.py
    "ask two": [["ask", "one", "two", "--expert=math"]],
    "ask one": [["ask", "one", "--expert=math"]],
    "train": [["train", "--task={h}/mine.jsonl", "--out={h}/\x1b[2J.safetensors", *more]
              for more in ([], ["--resume"])],
    "demo": [["demo", "--allow-code"]]}


@pytest.mark.parametrize("name", WRITES)
def test_what_a_model_writes_cannot_drive_a_terminal(call, home, trained,     # noqa: F811
                                                     monkeypatch, name):
    """Fails if an escape sequence in an answer is printed as it is: of several questions,
    in the log of a training, which also names its files, or in the demo (BREAKS row 9).
    """
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: ESCAPING)
    for args in WRITES[name]:
        more = (["--steps=1", "--prompts=2", "--samples=2", "--val-every=1", "--val-n=2"]
                if name == "train" else [])
        status, out, err = call(*[word.format(h=home) for word in args], *more)
        assert status == 0 and "\\x1b[2J" in out, err
        assert not {"\x1b", "\x9b", "\u202e"} & {*out, *err}


def test_an_expert_that_the_page_leaves_out_cannot_drive_a_terminal(loaded, home,     # noqa: F811
                                                                    capsys):
    """Fails if `page` says as it is why an expert is left out,
    which quotes the base model's name in its metadata (BREAKS row 9).
    """
    from t2mini.lab import page_model
    told = {"base_sha256": "1" * 64, "base_model": "\x1b[2J\x9b", "task": "x"}
    experts.save_expert(home / "out" / "odd.safetensors",
                        {"model.layers.0.self_attn.q_proj": torch.ones(2)}, told)
    shelf = experts.Shelf(loaded[0])
    page_model.Lab(*loaded, shelf).take("odd", shelf)
    err = capsys.readouterr().err
    assert "left out odd: " in err and "\\x1b[2J" in err and not {"\x1b", "\x9b"} & {*err}


@pytest.mark.parametrize("args", [["eval", "--task=math", "--weights=/a\x1b[2J"],
                                  ["show", "/a\u202e\x9b.safetensors"], ["ask", "x", "--\x1b[2J"],
                                  ["train", "--task=/a\x1b[2J.jsonl"]])
def test_errors_cannot_drive_a_terminal(capsys, args):
    """Fails if the one line that an error is holds the escape sequence of the name that it quotes
    (BREAKS row 9).
    """
    try:
        status = cli.main(args)
    except SystemExit as e:
        status = e.code
    err = capsys.readouterr().err
    assert status in (1, 2) and not {"\x1b", "\x9b", "\u202e"} & {*err}
    assert "\\x" in err or "\\u" in err


@pytest.mark.parametrize("args", [
    ["ask", "x", "--image={}.png"], ["ask", "x", "--weights={}"], ["ask", "x", "--expert={}"],
    ["ask", "x", "--expert=none", "--tower={}", "--image=a.png"], ["eval", "--task={}.jsonl"],
    ["eval", "--task=easy-vqa", "--data={}"], ["datasets", "--data={}"], ["show", "{}.safetensors"],
    ["train", "--task=math", "--out={}"], ["export", "--expert=none", "--out=/dev/null/{}"],
    ["reproduce", "sight", "--draw", "--out={}"], ["ask", "x", "--layers={}"]])
def test_an_error_is_one_line_whatever_the_name(home, tiny_folder, capsys,     # noqa: F811
                                                monkeypatch, args):
    """Fails if a newline in a name cuts the error behind it or makes two lines of it,
    or a control character is printed.
    """
    # as if not set; what --data writes there goes again
    monkeypatch.setenv("T2MINI_DATA", "")
    matplotlib.image.imsave(home / "a.png", np.zeros((64, 64, 3)))
    odd = f"{home}/a\nb\x1b[2J\rc"
    given = [word.replace("a.png", f"{home}/a.png").format(odd) for word in args]
    if args[0] in ("ask", "train", "export") and "--weights={}" not in args:
        given.append(f"--weights={tiny_folder}")
    try:
        status = cli.main(given)
    except SystemExit as e:
        status = e.code
    *before, err = capsys.readouterr().err.splitlines()
    assert status in (1, 2) and err.startswith("t2mini: ") and err.isprintable()
    assert "a\\nb\\x1b[2J\\" in err
    assert not before or [line.startswith("tiny, ") for line in before] == [True]


def test_a_result_is_one_line_whatever_the_name(call, home, tiny_folder):     # noqa: F811
    """Fails if a newline in a name of an output,
    a model or an expert's metadata makes two lines of what is told.
    """
    out = home / "out" / "a\nb.safetensors"
    out.parent.mkdir()
    experts.save_expert(out, {"model.layers.0.self_attn.q_proj": torch.tensor([1.5, 1.0])},
                        {"task": "x", "note": "one\ntask  two"})
    told = call("show", out)[1].splitlines()
    assert any(line.startswith("a\\nb: task x") for line in told)
    assert "note  one\\ntask  two" in [line.strip() for line in told]
    shutil.copytree(tiny_folder, home / "a\nb")
    status, said, err = call("export", f"--weights={home}/a\nb", "--expert=none",
                             f"--out={home}/c\nd")
    assert status == 0 and err.startswith("a\\nb, ") and said == f"{home}/c\\nd\n"


def test_a_torn_log_is_one_line_beside_an_expert(call, trained, home):     # noqa: F811
    """Fails if `show` gives up on an expert because the log beside it was cut,
    or says nothing of it (BREAKS row 20).
    """
    log = home / "out" / "mine.jsonl"
    log.write_bytes(log.read_bytes()[:25] + b"\nnot a row\n")
    status, out, err = call("show", home / "out" / "mine.safetensors")
    assert status == 0 and "mean |z - 1|" in out and err.count("no learning curve of") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("left, more", [(1, ""), (-1, ""), (None, '{"step": 9, "reward": 0.5}\n')])
def test_a_log_of_a_later_training_is_not_drawn_as_an_experts(call, trained, home,     # noqa: F811
                                                              left, more):
    """Fails if a training that began under the same name and was stopped is shown as the curve of
    the expert that is still there, or the expert's own log, moved aside by it, is not looked for.
    """
    expert, log = home / "out" / "mine.safetensors", home / "out" / "mine.jsonl"
    assert "learning curve: " in call("show", expert)[1]
    own = log.read_text()
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:left]) + more)
    status, out, err = call("show", expert)
    assert status == 0 and "learning curve: " not in out
    assert "it is of another training than the expert" in err and "mean |z - 1|" in out
    log.with_suffix(".jsonl.old2").write_text(own)
    assert "learning curve: " in call("show", expert)[1]


@pytest.mark.parametrize("words, said", [
    (["train", "mine.jsonl"], "did you mean --task=mine.jsonl?"),
    (["eval", "--task=math", "a.safetensors"], "did you mean --expert=a.safetensors?"),
    (["ask", "--weights=qwen2.5", "x"], "did you mean qwen2.5-coder-0.5b?"),
    (["ask", "--weights=zzz", "x"], "download NAME`: smollm2-135m"),
    (["reproduce", "nothing"], "unknown experiment 'nothing'. Choose from"),
    (["reproduce", "timings"], "did you mean timing?"),
    (["ask", "--weights=Qwen2.5", "x"], "did you mean qwen2.5-coder-0.5b? Give"),
    (["train", "--task=MATH"], "did you mean math? Choose"),
    (["eval", "mine.jsonl"], "did you mean --task=mine.jsonl?"),
    (["adapt", "--n=4", "math"], "did you mean --task=math?"),
    (["train", "--task=math", "--resume", "--out=none.safetensors"], "there is no checkpoint"),
    (["reproduce", "signal"], "`reproduce signal` needs the published questions: --data=DIR"),
    (["reproduce", "real05"], "`reproduce real05` needs the published questions: --data=DIR"),
    (["reproduce", "sight"], "`reproduce sight` needs easy-VQA: --data=DIR"),
    (["reproduce", "unseen"], "add --allow-code, once, to agree"),
    (["train", "--task=math", "--resume", "--dtype=float32", "--out=none.safetensors"],
     "there is no checkpoint")])
def test_a_slip_is_told_before_a_model_loads_with_what_was_meant(
        home, tiny_folder, monkeypatch, capsys, words, said):     # noqa: F811
    """Fails if a file without its option, a half-known name or --resume
    without a checkpoint is found only after loading, or a far-fetched name is proposed.
    """
    monkeypatch.chdir(home)
    if "--resume" in words or "reproduce" in words:         # they look for the weights first
        words = [*words, f"--weights={tiny_folder}"]
    if "ask" not in words:                                  # whose load looks for the weights
        monkeypatch.setattr(t2mini, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["t2mini", *words])
        try:
            code = cli.main(words)
        except SystemExit as e:
            code = e.code
    err = capsys.readouterr().err
    assert code in (1, 2) and said in err and err.count("\n") == 1


@pytest.mark.parametrize("words, lacks", [
    (["ask", "--expert=maths", "x"], "maths"), (["ask", "x"], "dispatcher"),
    (["ask", "--strategy=cem", "x"], "mixture"),
    (["eval", "--task=math", "--expert=maths"], "maths"),
    (["eval", "--task=math", "--alpha=1,0,0"], "math"),
    (["eval", "--task=math", "--strategy=classifier"], "dispatcher"),
    (["eval", "--task=math", "--strategy=cem"], "math"),
    (["adapt", "--task=math", "--experts=mine,maths"], "maths"),
    (["export", "--expert=maths", "--out=merged"], "maths")])
def test_an_expert_that_is_nowhere_is_told_before_a_model_loads(
        call, home, trained, monkeypatch, words, lacks):     # noqa: F811
    """Fails if the reader waits for a model, only to hear that the expert,
    or one that the strategy needs, is not there.
    """
    for name in ("math", "dispatcher"):
        if name == lacks:
            (home / "out" / f"{name}.safetensors").unlink()
    monkeypatch.setattr(t2mini, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    monkeypatch.chdir(home)
    status, _, err = call(*words)
    assert status == 1 and lacks in err and err.count("\n") == 1
    assert lacks != "maths" or "did you mean math? Give" in err


def test_a_file_that_is_no_expert_is_told_before_a_model_loads(call, home,     # noqa: F811
                                                               monkeypatch):
    """Fails if a damaged expert is found only when the model has loaded."""
    monkeypatch.setattr(t2mini, "load", lambda *a, **k: pytest.fail("a model was loaded"))
    (home / "torn.safetensors").write_bytes(b"no expert")
    status, _, err = call("ask", f"--expert={home}/torn.safetensors", "x")
    assert status == 1 and "damaged expert file" in err


def test_an_unknown_expert_is_met_with_those_that_are_there(trained, call, home):     # noqa: F811
    """Fails if an expert of one's own is not listed, or the nearest name is not proposed."""
    shutil.copy(home / "out" / "mine.safetensors", home / "out" / "moods.safetensors")
    status, out, err = call("ask", "--expert=mood", "x")
    assert status == 1 and "did you mean moods?" in err and "mine" in err


def test_a_question_may_be_a_dash(monkeypatch):
    """Fails if a line "-" of standard input is taken for the command line's."""
    monkeypatch.setattr(verbs, "opened_input", lambda: io.StringIO("What is 2+2?\n-\n"))
    monkeypatch.setattr(verbs, "open_model", lambda *args, **options: pytest.fail("asked: both"))
    args = options.build_parser()[0].parse_args(["ask", "-"])
    with pytest.raises(pytest.fail.Exception, match="asked: both"):
        verbs.ask(args)


def test_how_an_answer_came_about_is_told_of_every_strategy():
    """Fails if a strategy that is added (CONTRIBUTING) ends in a KeyError, or one without a first
    pass is said to have one.
    """
    for strategy in (*adapt.STRATEGIES, "one of yours"):
        first = strategy not in ("cem", "none")
        told = verbs.how(strategy, None)
        assert (told == f"the expert that the first pass chose ({strategy})") == first
        assert ("without a first pass" in told) == (not first)
        assert verbs.how(strategy, "math") == "the math expert, without a first pass"


@pytest.mark.parametrize("why", ["there is no file", "it is of another base"])
def test_a_route_without_an_expert_gets_the_base_model_and_says_so(
        trained, call, home, monkeypatch, why):     # noqa: F811
    """Fails if a model that has no expert of the label that the first pass said stops there,
    stays silent about it, counts as answered by that expert, or lets --expert=code pass as well.
    """
    code, kept = (home / "out" / "code.safetensors",
                  {name: 0.2 + 0.2 * (name == "code") for name in reversed(tasks.LABELS)})
    if why == "there is no file":
        code.unlink()
    else:
        experts.save_expert(code, experts.read_expert(code),
                            experts.read_metadata(code) | {"base_sha256": "f" * 64})
    route = adapt.Route("code", "code", kept)
    monkeypatch.setattr(adapt, "route",
                        lambda model, tokenizer, questions, *a, **k: [route] * len(questions))
    monkeypatch.setattr(sys, "stdin", io.StringIO("add two numbers\n"))
    status, out, err = call("ask", "add two numbers", "--max-tokens=6", "--json")
    assert status == 0 and "this model has no code expert, so the base model answers" in err
    told, base = (json.loads(text.splitlines()[-1]) for text in (
        out, call("ask", "add two numbers", "--expert=none", "--max-tokens=6", "--json")[1]))
    assert told["how"].endswith("; the base model where it chose code, which has no expert")
    assert ("[code, which has no expert: the base model] "
            in call("ask", "one", "two", "--max-tokens=2")[1])
    assert told["expert"] == "none" and told["answer"] == base["answer"]
    assert told["probabilities"] == kept
    assert "[code 40%, which has no expert: the base model] " in call("chat", "--max-tokens=4")[1]
    status, out, err = call("eval", f"--task={home}/mine.jsonl", "--strategy=classifier",
                            "--n=2", "--json")
    assert status == 0 and json.loads(out.splitlines()[-1])["routed"]["code"] == 2
    assert "the base model answers what was sent to code: this model has no such expert" in err
    assert call("ask", "add two numbers", "--expert=code")[0] == 1
    status, out, err = call("ask", "one", "--max-tokens=2", "--allow-other-base")
    assert status == 0 and ("so the base model answers" in err) == (why == "there is no file")
    status, out, _ = call("demo", "--allow-code")
    assert status == 0 and "  needs    code   (" in out and "no code expert for this model" in out
    assert "135 million" not in out                                     # it is another model


def test_the_demo_says_which_answers_the_limit_cut(call, home, trained,     # noqa: F811
                                                   monkeypatch, loaded):
    """Fails if an answer that stops in mid-sentence passes for a whole one, or a whole one for one
    that was cut.
    """
    from t2mini.lab import demo
    tokenizer = loaded[1]
    assert sorted(demo.longest(tokenizer, ["ab", "a", "abcd", "abc"], 2)) == [2, 3]
    assert demo.longest(tokenizer, ["ab", "a"], 0) == []
    assert demo.indent("So it is", "... (cut at 8 tokens)") == "So it is ... (cut at 8 tokens)"
    seven = "\n".join("1234567")
    assert demo.indent(seven).endswith("6\n" + " " * 19 + "...")
    assert demo.indent(seven, "... (cut at 8 tokens)").endswith(" ... (cut at 8 tokens)")
    assert demo.indent("Done.") == "Done."

    def answered(model, tokenizer, prompts, strategy, experts, max_tokens, counts):
        """Of the adapted answers the first one is cut, of the base model's none."""
        counts["cut"] += strategy == "classifier"
        return [adapt.Answer(p, "no end to it" if i == 0 else "done", "math", {"math": 1.0})
                for i, p in enumerate(prompts)]
    monkeypatch.setattr(adapt, "answer", answered)
    monkeypatch.setattr(demo, "lacking", lambda labels, experts: [])
    status, out, err = call("demo", "--allow-code")
    assert status == 0, err
    lines = [line for line in out.splitlines() if "... (cut at" in line]
    assert len(lines) == 4 and all("adapted" in line and "no end" in line for line in lines)


@pytest.mark.parametrize("name", [n for n, e in reproduce.ALL.items() if not e.programs])
def test_an_experiment_without_programs_needs_no_consent(call, home, monkeypatch,     # noqa: F811
                                                         name):
    """Fails if a user must agree to run programs where the model writes none."""
    def opened(args):
        raise ValueError("as far as the model")
    monkeypatch.setattr(verbs, "open_model", opened)
    (home / "questions").mkdir()
    status, _, err = call("reproduce", name, "--quick", f"--data={home}/questions",
                          f"--out={home}/r")
    assert status == 1 and "as far as the model" in err


def test_a_stopped_search_and_a_routed_list_say_which_and_what(trained, call, home,     # noqa: F811
                                                               monkeypatch):
    """Fails if Ctrl-C in a search or an experiment does not say what is kept,
    or of several questions it is not told which one the first pass speaks of.
    """
    _, _, err = call("ask", "one", "two", "--max-tokens=2")
    assert "first pass of question 1: " in err and "first pass of question 2: " in err
    assert "2 questions of one word each; put one of several words in quotes" in err
    assert "in quotes" not in call("ask", "one two", "three", "--max-tokens=2")[2]

    def stop(*args, **more):
        raise KeyboardInterrupt
    monkeypatch.setattr(verbs.arms, "search", stop)
    status, _, err = call("adapt", f"--task={home}/mine.jsonl", "--n=2")
    assert status == 130 and "the search is lost" in err
    monkeypatch.setattr(verbs.reproduce, "run", stop)
    status, _, err = call("reproduce", "tiny", "--quick", f"--out={home}/r", "--allow-code")
    assert status == 130 and "rows that were done are kept" in err


def test_a_stopped_score_says_that_the_mixture_is_kept(trained, call, home,     # noqa: F811
                                                       monkeypatch):
    """Fails if Ctrl-C after the search of `adapt` does not say where the mixture is,
    or a small score tells nothing of it.
    """
    short = [f"--task={home}/mine.jsonl", "--n=2", "--shots=1", "--iterations=1", "--population=2",
             "--max-tokens=2"]
    status, out, _ = call("adapt", *short)
    assert status == 0 and "only 2 questions" in out and "--split" not in out

    def stop(*args, **more):
        raise KeyboardInterrupt
    monkeypatch.setattr(verbs.evaluate, "score", stop)
    status, _, err = call("adapt", *short, f"--out={home}/mixed.safetensors")
    assert status == 130 and f"is kept in {home}/mixed.safetensors" in err
    assert (home / "mixed.safetensors").exists()


def test_all_rows_are_not_advised_to_who_asked_for_them(call, home):     # noqa: F811
    """Fails if a score with --split=all advises --split=all."""
    _, out, _ = call("eval", f"--task={home}/mine.jsonl", "--n=2", "--max-tokens=2", "--split=all")
    assert "only 2 questions" in out and "--split" not in out


def test_a_training_in_python_says_what_is_kept_and_goes_on(home, tiny_folder,     # noqa: F811
                                                            monkeypatch):
    """Fails if Ctrl-C in t2mini.train_expert does not speak of the checkpoint,
    or resume=True does not go on from it.
    """
    real, said = verbs.train.reinforce.update, []

    def stop(model, tokenizer, task, cfg, step, optimizer):
        if step == 1:
            raise KeyboardInterrupt
        return real(model, tokenizer, task, cfg, step, optimizer)
    less = dict(weights=tiny_folder, log=said.append, steps=2, prompts=2, samples=2,
                val_every=2, val_n=2)
    monkeypatch.setattr(verbs.train.reinforce, "update", stop)
    with pytest.raises(KeyboardInterrupt, match="resume=True"):
        t2mini.train_expert(home / "mine.jsonl", **less)
    monkeypatch.setattr(verbs.train.reinforce, "update", real)
    t2mini.train_expert(home / "mine.jsonl", resume=True, **less)
    assert any("after step 1" in line for line in said)


def test_ask_reads_its_experts_again_after_a_training(home, tiny_folder,     # noqa: F811
                                                      monkeypatch):
    """Fails if a notebook that trains an expert anew is answered by the old one."""
    cleared, expert = [], home / "out" / "mine.safetensors"
    monkeypatch.setattr(t2mini, "default", types.SimpleNamespace(
        cache_clear=lambda: cleared.append(expert.exists())))
    t2mini.train_expert(home / "mine.jsonl", weights=tiny_folder, log=str, steps=1, prompts=2,
                        samples=2, val_n=2, max_tokens=8)
    assert cleared == [True]                                # not before it is there


@pytest.mark.parametrize("task, limit, want", [("gsm8k", 320, " --max-tokens=320"),
                                               ("gsm8k", 64, ""), ("gsm8k", 0, ""),
                                               ("mine.jsonl", 8, " --max-tokens=8"),
                                               ("math", 320, "")])
def test_the_command_that_scores_asks_as_validation_did(task, limit, want):
    """Fails if the `eval` that a training prints cuts answers shorter, or later, than the
    validation that chose its checkpoint."""
    asked = tasks.BUILT_IN.get(task, tasks.ListTask(task, dict, 256, "math"))
    args = types.SimpleNamespace(task=task, weights="", data="", tower="", objective="reward",
                                 max_tokens=limit)
    assert verbs.scoring(args, "x", asked) == f"eval --task={task} --expert=x{want}"

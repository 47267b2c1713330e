"""Experiments: every cell runs, stopped runs go on, splits stay apart,
intervals mean what they say.
"""
import errno
import json
import math
import os
import random
import re
import signal
import subprocess
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import forked, random_model, soon, wait_for, write_folder
from test_fuzz import bounded
from test_kill import killed_after, killed_at
from test_ranks import launch

import t2mini
from t2mini import __main__ as cli
from t2mini import adapt, evaluate, experts, svf, tasks
from t2mini.cli import verbs
from t2mini.lab import experiments, figures, mixing, plots, reproduce, routing, runs
from t2mini.machine import files, ranks
from t2mini.questions import published, tables
from t2mini.questions.example import Example, split_of

ROOT = Path(__file__).resolve().parents[1]
SMALL = dict(prompts=2, samples=2, steps=1, val_every=1, val_n=2, max_tokens=3)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tiny model and tokenizer with four shipped experts, in folders of their own."""
    monkeypatch.setattr(runs, "QUICK", SMALL)
    monkeypatch.setattr(runs.Lab, "n", lambda self, full: min(full, 2))
    monkeypatch.setattr(experts, "SVD_CACHE", None)
    for name in ("OUT", "SHIPPED"):
        monkeypatch.setattr(experts, name, tmp_path / name)
    model, tokenizer = t2mini.load(write_folder(tmp_path / "tiny", max_position_embeddings=16384),
                                   device="cpu", dtype="float32")
    svf.attach(model, progress=False)
    for i, name in enumerate(("dispatcher", *adapt.SKILLS)):
        g = torch.Generator().manual_seed(i)
        z = {n: 1 + 0.05 * torch.randn(len(v), generator=g) for n, v in svf.get_z(model).items()}
        experts.save_expert(experts.SHIPPED / model.name / f"{name}.safetensors", z,
                            {"base_sha256": model.base_sha256})
    # short answers: a random model never stops
    for t in tasks.BUILT_IN.values():
        monkeypatch.setitem(tasks.BUILT_IN, t.name, tasks.replace(t, max_tokens=2))
    return model, tokenizer


def weights_of(model):
    return {n: layer.W.clone() for n, layer in svf.layers(model).items()}


QUICKEST = ("spectrum", "tiny")


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICKEST else pytest.mark.slow)
                                  for n, e in reproduce.ALL.items() if not e.needs])
def test_every_cell_runs_and_the_base_comes_back(tiny, tmp_path, name):
    """Fails if a cell raises, a row lacks what its picture needs,
    or a cell leaves an expert or other weights in the model.
    """
    model, tokenizer = tiny
    before = weights_of(model)
    done = reproduce.run(name, model, tokenizer, quick=True, out=tmp_path / "out")
    assert (len(done["rows"])
            == len(list(experiments.ALL[name].cells(runs.Lab(model, tokenizer, tmp_path, True)))))
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000
    assert (reproduce.read(tmp_path / "out" / f"{name}.json")["rows"]
            == json.loads(json.dumps(done["rows"])))
    after = weights_of(model)
    assert all(torch.equal(before[n], after[n]) for n in before)
    assert all((z == 1).all() for z in svf.get_z(model).values())


def fake(monkeypatch, calls, fails=None):
    """An experiment of three cells that write down that they ran; cell `fails` raises."""
    def cells(lab_):
        for seed in range(3):
            def run(seed=seed):
                calls.append(seed)
                if seed == fails:
                    raise KeyboardInterrupt
                return runs.row([1.0, 0.0, float(seed > 0)])
            yield {"task": "math", "arm": "base", "seed": seed}, run
    monkeypatch.setitem(reproduce.ALL, "fake", experiments.Experiment("-", cells, "bars", "a test"))


def test_a_stopped_run_goes_on(tiny, tmp_path, monkeypatch):
    """Fails if cells that are done run again, or what they gave is lost."""
    calls = []
    fake(monkeypatch, calls, fails=1)
    with pytest.raises(KeyboardInterrupt):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    fake(monkeypatch, calls)
    done = reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    assert calls == [0, 1, 1, 2] and [r["seed"] for r in done["rows"]] == [0, 1, 2]


def test_part_of_an_experiment(tiny, tmp_path, monkeypatch):
    """Fails if `only` runs other cells, a text that names none passes for done,
    what is done runs again, or the rows come in another order than those of a run at once.
    """
    calls = []
    fake(monkeypatch, calls)
    with pytest.raises(ValueError, match="no cell holds 'seed 7'.*arms: base"):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out", only="seed 7")
    reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out", only="base, seed 1")
    done = reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    assert calls == [1, 0, 2] and [r["seed"] for r in done["rows"]] == [0, 1, 2]


def test_a_second_picture_replaces_nothing_of_yours(tmp_path):
    """Fails if `reproduce transfer` looks at one of its two pictures' places only."""
    yours = tmp_path / "transfer_weights.png"
    yours.write_text("yours")
    with pytest.raises(ValueError, match="transfer_weights.png"):
        figures.transfer({"rows": []}, tmp_path / "transfer.png")
    assert yours.read_text() == "yours" and len(list(tmp_path.iterdir())) == 1


def test_curves_of_runs_that_looked_at_other_updates(tmp_path, monkeypatch):
    """Fails if a run without test questions at an update, where its z had run away, stops the
    picture, or its later ones stand at the wrong update."""
    done = {"name": "curves", "rows": [
        {"task": "math", "n_test": 9, "test": [[0, 0.1], [8, 0.2], [16, 0.5]]},
        {"task": "math", "n_test": 9, "test": [[0, 0.3], [16, 0.7]]}]}
    seen = []
    monkeypatch.setattr(figures, "save", lambda fig, path: seen.append(fig))
    figures.curves(done, tmp_path / "curves.png")
    mean, *single = seen[0].axes[0].lines
    assert mean.get_xdata().tolist() == [0, 16] and mean.get_ydata().tolist() == [20.0, 60.0]
    assert [line.get_ydata().tolist() for line in single] == [[10.0, 50.0], [30.0, 70.0]]


def test_the_curve_of_a_run_that_ran_away_is_drawn_with_its_doubt(tmp_path, monkeypatch):
    """Fails if eight of eight right has no interval, or a validation of a model whose numbers are
    not finite (-1 of n) stops the picture.
    """
    rows = [{"step": 0, "val": -1 / 8, "val_n": 8}, {"step": 8, "val": 1.0, "val_n": 8},
            {"step": 9, "val": 1.0, "val_n": 21}]           # its interval ends at 1 - 1e-16
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = []
    monkeypatch.setattr(plots, "save", lambda fig, path: drawn.append(fig))
    plots.draw_log(tmp_path / "run.jsonl", tmp_path / "run.png")
    [lines] = drawn[0].axes[0].containers[0].lines[2]
    (none, most), (least, all_), _ = ((p[0][1], p[1][1]) for p in lines.get_segments())
    assert none == 0 and 0.3 < most < 0.35 and 0.65 < least < 0.7 and all_ == 1


@pytest.mark.parametrize("row", [
    '{"step": 0, "val": 0.5, "val_n": 0}', '{"step": %s, "val": 0.5, "val_n": 8}' % ("9" * 400),
    "[" * 100_000, '{"step": 0, "val": NaN, "val_n": 8}', '{"step": 0, "val": "x", "val_n": 8}',
    '{"step": 0, "val": 0.5, "val_n": %s}' % ("9" * 400), '{"step": 0, "val": 0.5}', '"val"', "[1]",
    '{"step": 1, "reward": null}', '{"val": 0.5, "val_n": 8}', "{"])
def test_a_damaged_log_is_one_line_and_the_expert_is_shown(tmp_path, capsys, row):
    """Fails if a damaged log beside an expert is a bug, or keeps its metadata from being shown."""
    path = tmp_path / "e.safetensors"
    experts.save_expert(path, {"model.layers.0.mlp.up_proj": torch.ones(2)},
                        {"base_sha256": "0" * 64, "task": "math"})
    (tmp_path / "e.jsonl").write_text(row + "\n")
    status = cli.main(["show", str(path), f"--picture={tmp_path}/e.png"])
    out, err = capsys.readouterr()
    assert status == 0 and "base_sha256" in out and err.count("\n") == 1
    assert "no learning curve of " in err and "e.jsonl" in err


def test_a_row_to_be_measured_again_is_replaced(tiny, tmp_path, monkeypatch):
    """Fails if a marked row is kept, measured twice, or stands beside the new one;
    or the table does not say what is marked.
    """
    calls = []
    fake(monkeypatch, calls)
    path = tmp_path / "out" / "fake.json"
    done = reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    done["rows"][1] |= {"again": "the wrong rule", "score": 9.0}
    path.write_text(reproduce.pretty(done))
    assert "math, base: TO BE MEASURED AGAIN: the wrong rule." in figures.table(done["rows"])
    again = reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    assert calls == [0, 1, 2, 1] and [r["seed"] for r in again["rows"]] == [0, 1, 2]
    assert not any("again" in r or r["score"] > 1 for r in again["rows"])
    assert "AGAIN" not in figures.table(again["rows"])


def test_a_note_stands_in_the_row_and_under_the_table():
    """Fails if what a reader must know of an arm is lost, or said of every one of its seeds."""
    rows = []
    for seed in range(2):
        key, run = experiments.cell(lambda: runs.row([1.0, 0.0]), "chosen for spread", task="m",
                                    arm="prompt", seed=seed)
        rows.append({**key, **run()})
    assert rows[0]["note"] == "chosen for spread"
    assert "note" not in experiments.cell(lambda: {}, task="m", arm="x")[1]()
    assert figures.table(rows).count("prompt: chosen for spread.") == 1


@pytest.mark.parametrize("name", ["unseen", "dispatch"])
def test_the_prompt_arm_says_how_its_wording_was_chosen(tiny, tmp_path, monkeypatch, name):
    """Fails if a row of the prompt arm does not say that its wording was chosen for labels
    that are spread evenly.
    """
    made = runs.Lab(*tiny, tmp_path, quick=True)
    monkeypatch.setattr(made, "arm", lambda *args, **more: {})
    monkeypatch.setattr(experiments, "confusion", lambda *args: {})
    notes = [run().get("note", "") for key, run in getattr(experiments, name)(made)
             if key["arm"] == "prompt"]
    assert len(notes) >= 3 and all("spread evenly" in note for note in notes)


def test_results_of_other_settings_are_not_mixed(tiny, tmp_path, monkeypatch):
    """Fails if rows of another base model or of a quick run join a file."""
    fake(monkeypatch, [])
    reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    with pytest.raises(ValueError, match="another quick: take --out=DIR"):
        reproduce.run("fake", *tiny, out=tmp_path / "out")
    with monkeypatch.context() as m:
        m.setattr(tiny[0], "base_sha256", "1" * 64)
        with pytest.raises(ValueError, match="another base_sha256"):
            reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "fake.json").read_text())
    assert {r["dtype"] for r in saved["rows"]} == {"torch.float32"}
    saved["rows"] = [r | {"dtype": "torch.float16"} for r in saved["rows"]]
    (tmp_path / "out" / "fake.json").write_text(json.dumps(saved))
    reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")      # nothing is left to measure
    saved["rows"].pop()
    (tmp_path / "out" / "fake.json").write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="in torch.float16"):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")


def test_results_of_older_questions_take_no_more_rows(tiny, tmp_path, monkeypatch):
    """Fails if questions changed, and scores of the new ones are compared with scores of the old:
    they are as many.
    """
    fake(monkeypatch, [])
    reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    monkeypatch.setattr(reproduce, "RULES", runs.RULES + 1)
    with pytest.raises(ValueError, match="other questions than today's: --out=DIR"):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")


def test_the_committed_results_are_of_the_shipped_experts(tiny, tmp_path, monkeypatch):
    """Fails if an expert of yours is measured into tutorials/results under a shipped one's name."""
    fake(monkeypatch, [])
    model, tokenizer = tiny
    experts.OUT.mkdir()
    for name, base in (("math", model.base_sha256), ("code", "another")):
        experts.save_expert(experts.OUT / f"{name}.safetensors", svf.get_z(model),
                            {"base_sha256": base})
    for folder in (tmp_path / "none", experts.SHIPPED):     # one that is not shipped is one more
        monkeypatch.setattr(experts, "SHIPPED", folder)
        with pytest.raises(ValueError, match="holds others: math[.]"):
            reproduce.run("fake", *tiny)
    assert reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")["rows"]


def test_part_of_an_experiment_has_a_table_and_a_picture(tmp_path, capsys):
    """Fails if the first rows are none that the picture is usually about, and the table of what
    was measured is lost with it."""
    rows = [{"task": "math-unseen", "arm": arm, "n": 20, "rewards": [0, 1] * 10, "seconds": 1.0}
            for arm in ("base", "mixed")]
    reproduce.draw({"name": "recipe", "rows": rows}, tmp_path / "a.png")
    assert "mixed" in capsys.readouterr().out and (tmp_path / "a.png").is_file()


def test_rows_of_one_task_share_a_dtype(tmp_path):
    """Fails if scores in bfloat16 and float32 are compared,
    also of the same questions in another form, the old rows' dtype is not that of their file,
    a row that is replaced counts, or another task has to wait for a machine of the other kind.
    """
    def asked(*names):
        return [{"task": name, "arm": "svf"} for name in names]

    done = {"dtype": "torch.bfloat16",
            "rows": [{"task": "arc-easy"}, {"task": "code", "dtype": "torch.float32"},
                     {"arm": "none"}, {"task": "vision", "arm": "svf", "again": "for a reason"}]}
    reproduce.check_dtype(tmp_path, done, asked("arc-easy", "math"), "torch.bfloat16")
    reproduce.check_dtype(tmp_path, done, asked("code", "vision"), "torch.float32")
    for task, has, dtype, take in (("arc-easy", "arc-easy", "float32", "bfloat16"),
                                   ("code", "code", "bfloat16", "float32"),
                                   ("arc-easy-letters", "arc-easy", "float32", "bfloat16")):
        with pytest.raises(ValueError,
                           match=f"rows of {has} in torch.{take}.*take --dtype={take}, --only"):
            reproduce.check_dtype(tmp_path, done, asked(task), f"torch.{dtype}")
    # stays, whatever becomes of the other one
    done["rows"].append({"task": "vision", "arm": "base"})
    with pytest.raises(ValueError, match="rows of vision"):
        reproduce.check_dtype(tmp_path, done, asked("vision"), "torch.float32")


@pytest.mark.parametrize("content", ["", "[]", '{"rows": [', '{"rows": [{}]}', "\x00"])
def test_a_file_that_is_not_results_is_kept(tiny, tmp_path, monkeypatch, content):
    """Fails if a damaged file ends in a traceback or is overwritten."""
    fake(monkeypatch, [])
    (tmp_path / "fake.json").write_text(content)
    with pytest.raises(ValueError, match="not a results file"):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path)
    assert (tmp_path / "fake.json").read_text() == content


@pytest.mark.parametrize("kind", ["pipe", "endless", "folder", "deep"])
def test_what_is_no_results_file_is_told_at_once(capsys, tmp_path, kind):
    """Fails if a pipe is waited for, a device or a text without end is read
    until the memory is full, or a folder is a traceback.
    """
    path = tmp_path / "tiny.json"
    {"pipe": lambda: os.mkfifo(path), "endless": lambda: path.symlink_to("/dev/zero"),
     "folder": path.mkdir, "deep": lambda: path.write_text("[" * 100_000)}[kind]()
    # were it read, the machine's memory would be gone before it is soon
    with soon(), bounded(500):
        assert cli.main(["reproduce", "tiny", "--draw", f"--out={tmp_path}"]) == 1
    err = capsys.readouterr().err
    assert "tiny.json is not a results file" in err and err.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("change", [
    {"name": "nothing"}, {"name": None}, {"rows": 3}, {"rows": {"a": 1}}, {"rows": [{}]},
    {"task": None}, {"rewards": 7}, {"rewards": [[]]}, {"seconds": "x"},
    {"arm": 5}, {"base": {}}, {"n": "x"}, {"parameters": "x"}])
def test_a_changed_results_file_is_one_line(capsys, tmp_path, change):
    """Fails if `--draw` of a file that somebody has edited speaks of a bug in t2mini."""
    done = json.loads((reproduce.RESULTS / "tiny.json").read_text())
    for place in (done, done["rows"][0]):
        place.update({k: v for k, v in change.items() if (k in done) == (place is done)})
    (tmp_path / "tiny.json").write_text(json.dumps(done))
    status = cli.main(["reproduce", "tiny", "--draw", f"--out={tmp_path}"])
    err = capsys.readouterr().err
    assert "bug" not in err and err.count("\n") == status
    assert not status or f"{tmp_path}/tiny.json is not a results file" in err


def test_killed_at_any_moment_the_rows_so_far_are_whole(tiny, tmp_path, monkeypatch):
    """Fails if the results file is ever half written, or a kill leaves a lock
    that refuses the next run.
    """
    fake(monkeypatch, [])
    path = tmp_path / "out" / "fake.json"

    def free():
        """Nobody holds the lock. (A process that the killed run was just starting may,
        for a moment.)
        """
        try:
            with files.only_one(experts.OUT / "reproduce" / "fake.lock"):
                return True
        except (ValueError, FileNotFoundError):
            return not (experts.OUT / "reproduce").exists()

    for i in range(8):
        wait_for(free)
        path.unlink(missing_ok=True)
        child = forked(lambda: reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out"))
        if i:
            wait_for(path.exists)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert not path.exists() or len(reproduce.read(path)["rows"]) in (1, 2, 3)
    wait_for(free)
    assert len(reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")["rows"]) == 3


def work(monkeypatch):
    """An experiment that trains, scores and searches;
    an answer with an odd first character earns 1.
    """
    def cells(lab_):
        yield {"task": "weights", "arm": "alone", "seed": 0}, lambda: runs.row([1.0])
        yield ({"task": "math", "arm": "svf", "seed": 0},
               lambda: experiments.trained(lab_, "math", 0, n=5, look=2, lr=0.1))
        yield ({"task": "math", "arm": "cem", "seed": 0},
               lambda: mixing.searched(lab_, "math", 0, n=5, shots=2))
    monkeypatch.setitem(reproduce.ALL, "work", experiments.Experiment("-", cells, "bars", "a test"))
    monkeypatch.setattr(runs, "QUICK", SMALL | {"prompts": 4, "samples": 4, "steps": 3, "val_n": 8})
    monkeypatch.setattr(runs, "BUDGET", {})                  # no must_stop: a random model does not
    monkeypatch.setattr(runs.Lab, "n", lambda self, full: full)
    monkeypatch.setattr(tasks, "rewards", lambda examples, texts, counts=None: [
        float(ord(t[:1] or "b") % 2) for t in texts])


def results(folder):
    """The rows without what is measured by a clock, and what was trained and found:
    name -> bytes, logs without seconds.
    """
    rows = [{k: v for k, v in r.items() if k not in ("seconds", "commit", "threads")}
            for r in reproduce.read(folder / "work.json")["rows"]]
    made = {}
    for path in sorted((experts.OUT / "reproduce" / "quick").iterdir()):
        if path.suffix == ".jsonl":
            made[path.name] = [
                {k: v for k, v in json.loads(line).items() if not k.startswith("sec")}
                for line in path.read_text().splitlines()]
        elif path.suffix == ".safetensors":
            made[path.name] = {n: t.tolist() for n, t in experts.read_expert(path).items()}
        else:
            made[path.name] = None
    return rows, made


@pytest.mark.parametrize("points, moments", [pytest.param((23, 61), 1, id="some"),
                                             pytest.param(range(1, 66, 3), 30, id="all",
                                                          marks=pytest.mark.slow)])
def test_killed_while_it_trains_or_searches_it_ends_as_if_nobody_had(
        tiny, tmp_path, monkeypatch, points, moments):
    """Fails if half an expert, mixture, log or results file is taken for whole, a row stands twice,
    a rest stays, or a bit differs in the end. Each kill at a step of writing starts anew;
    those at random moments follow each other.
    """
    work(monkeypatch)
    run = lambda: reproduce.run("work", *tiny, quick=True, out=tmp_path / "out")     # noqa: E731
    t0 = time.monotonic()
    run()
    seconds, whole = time.monotonic() - t0, results(tmp_path / "out")
    expert, = [made for name, made in whole[1].items() if name.startswith("math-svf")
               and name.endswith(".safetensors")]
    assert len(whole[0]) == 3 and any(v != 1 for z in expert.values() for v in z)       # it learnt
    rng, survived = random.Random(moments), 0
    monkeypatch.setattr(experts, "OUT", tmp_path / "killed")

    def end():
        run()
        assert results(tmp_path / "out") == whole
        anew()

    def anew():
        for folder in (tmp_path / "out", experts.OUT / "reproduce" / "quick"):
            for path in folder.iterdir() if folder.exists() else ():
                path.unlink()
    anew()
    for n in points:
        survived += killed_at(run, n)
        end()
    for _ in range(moments):
        if killed_after(run, rng.uniform(0, 0.7 * seconds)):
            survived += 1
        else:
            end()
    end()
    assert survived >= len(points) // 2 + moments // 4


def test_ranks_reproduce_what_one_process_does(tiny, tmp_path, monkeypatch):
    """Fails if ranks disagree about what is left (one may read the file that another has written
    to), train or read what is not yet written, or more than one of them writes.
    """
    work(monkeypatch)
    monkeypatch.setattr(ranks, "PATIENCE", timedelta(seconds=60))
    reproduce.run("work", *tiny, quick=True, out=tmp_path / "one")
    one, real = results(tmp_path / "one"), files.replacing
    monkeypatch.setattr(experts, "OUT", tmp_path / "many")

    def rank(r):
        ranks.start("cpu")
        time.sleep(1.5 * r)                                 # the first could write a row meanwhile
        monkeypatch.setattr(files, "replacing", lambda path: (
            (tmp_path / f"wrote{r}").touch() or (time.sleep(0.2), real(path))[1]))
        reproduce.run("work", *tiny, quick=True, out=tmp_path / "out")
        ranks.stop()

    for _ in range(2):                                      # the second time everything is there
        assert launch(2, rank, tmp_path) == [0, 0], [
            (tmp_path / f"err{r}").read_text()[-600:] for r in range(2)]
        rows, made = results(tmp_path / "out")
        assert rows == one[0] and made.keys() == one[1].keys()
        assert all(made[n] == one[1][n] for n in made if n.endswith("test.jsonl"))
        z = [{f"{n} {k}": torch.tensor(t) for n in m if n.endswith("safetensors")
              for k, t in m[n].items()} for m in (made, one[1])]
        assert z[0].keys() == z[1].keys()
        assert all(torch.allclose(z[0][k], z[1][k], rtol=0, atol=1e-5) for k in z[0])
    assert (tmp_path / "wrote0").exists() and not (tmp_path / "wrote1").exists()
    assert (tmp_path / "out1").read_text() == ""


@pytest.fixture
def command(tiny, tmp_path, monkeypatch, capsys):
    """-> function: `t2mini reproduce fake --quick` with more options,
    giving its exit status and its one line of error.
    """
    monkeypatch.setattr(verbs, "open_model", lambda *args, **kw: tiny)

    def run(*more):
        capsys.readouterr()
        status = cli.main(["reproduce", "fake", "--quick", "--allow-code",
                           f"--weights={tmp_path}/tiny", f"--out={tmp_path}/out", *more])
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return status, [line for line in err.splitlines() if line.startswith("t2mini: ")]
    return run


def test_a_full_disk_and_a_closed_folder_are_one_line(command, tmp_path, monkeypatch):
    """Fails if a disk that fills up costs the rows so far, leaves half files,
    or ends in a traceback; or a closed folder does.
    """
    fake(monkeypatch, [], fails=1)
    assert command()[0] == 130
    kept = (tmp_path / "out" / "fake.json").read_bytes()
    fake(monkeypatch, [])

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with monkeypatch.context() as mp:
        mp.setattr(os, "fsync", full)
        assert command() == (1, ["t2mini: no space left on the disk; nothing was overwritten"])
    assert (tmp_path / "out" / "fake.json").read_bytes() == kept
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["fake.json"]
    assert command()[0] == 0 and len(reproduce.read(tmp_path / "out" / "fake.json")["rows"]) == 3
    # pytest's own folders are closed to others
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setattr(experts, "OUT", tmp_path.__class__(folder) / "OUT")
        for name, mode in (("OUT", 0o777), ("closed", 0o555)):
            os.mkdir(f"{folder}/{name}")
            os.chmod(f"{folder}/{name}", mode)
        root = os.getuid() == 0
        # root may write everywhere: be nobody for a moment
        if root:
            os.seteuid(65534)
        try:
            status, told = command(f"--out={folder}/closed")
        finally:
            if root:
                os.seteuid(0)
        assert status == 1 and len(told) == 1 and "Permission denied" in told[0]
        assert "closed" in told[0]


def test_the_second_run_of_an_experiment_is_refused(command, tiny, tmp_path, monkeypatch):
    """Fails if two runs share their results or experts, be one quick and the other not;
    or the refused one changes anything.
    """
    fake(monkeypatch, [], fails=1)
    assert command()[0] == 130
    kept = (tmp_path / "out" / "fake.json").read_bytes()
    monkeypatch.setitem(reproduce.ALL, "fake", experiments.Experiment(
        "-", lambda lab_: [({"task": "math", "arm": "slow", "seed": 0},
                            lambda: wait_for(lambda: (tmp_path / "in").touch()))], "bars", ""))
    child = forked(lambda: reproduce.run("fake", *tiny, out=tmp_path / "other"))
    wait_for((tmp_path / "in").exists)
    try:
        status, told = command()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert status == 1 and len(told) == 1 and "another `reproduce fake` is running" in told[0]
    assert (tmp_path / "out" / "fake.json").read_bytes() == kept
    fake(monkeypatch, [])
    assert command()[0] == 0


def test_splits_stay_apart(tiny, tmp_path):
    """Fails if an experiment scores, or searches on, questions of a split that trained,
    or the other way round.
    """
    made = runs.Lab(*tiny, tmp_path)
    for task in (*experiments.SEEN, *experiments.UNSEEN):
        t = tasks.get(task)
        scored = ({e.key or e.prompt for e in t.examples("test", 25)}
                  | {e.key or e.prompt for e in made.examples(task, 25)})
        shots = {e.key or e.prompt
                 for seed in experiments.SEEDS for e in made.shots(task, seed, 10)}
        trained_on = {e.key or e.prompt
                      for step in range(4) for e in t.examples("train", 12, seed=f"0/{step}")}
        assert all(split_of(e, t.buckets) == "test" for e in made.examples(task, 25))
        assert all(split_of(e, t.buckets) == "val" for e in made.shots(task, 0, 10))
        assert not scored & shots and not scored & trained_on and not shots & trained_on


def test_rows_tell_which_questions_they_asked(tiny, tmp_path, monkeypatch):
    """Fails if two rows of a task could be compared question by question though they asked others,
    or `cut` is a count in one and a share in another."""
    made = runs.Lab(*tiny, tmp_path, quick=True)
    want = runs.digest(tasks.get("math").examples("test", 2))
    monkeypatch.setattr(evaluate, "answers", lambda *a, **k: ["x", "y"])
    monkeypatch.setattr(runs.arms, "run", lambda *a, **k: ([1.0, 0.0], ["x", "y"], {"cut": 1}))
    found = made.score("math", 2, {}), made.arm("math", 2), made.in_context("math", 2, 0)
    assert [row["asked"] for row in found] == [want] * 3
    assert found[1]["cut"] == 0.5
    assert runs.digest(tasks.get("math").examples("test", 1)) != want

    def cells(lab):
        yield {"task": "math", "arm": "base", "seed": 0}, lambda: made.arm("math", 2)
    monkeypatch.setitem(reproduce.ALL, "fake", experiments.Experiment("-", cells, "bars", "a test"))
    for _ in range(2):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    monkeypatch.setattr(runs.Lab, "examples", lambda self, task, n: (
        tasks.get(task).examples("test", n, 5)))
    reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")      # nothing is left

    def more(lab):
        yield from cells(lab)
        yield {"task": "math", "arm": "z", "seed": 0}, lambda: made.arm("math", 2)
    monkeypatch.setitem(reproduce.ALL, "fake", experiments.Experiment("-", more, "bars", "a test"))
    with pytest.raises(ValueError, match="asked other questions of math"):
        reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")
    file = tmp_path / "out" / "fake.json"
    file.write_text(file.read_text().replace('"arm": "base"', '"arm": "base", "again": "new"'))
    assert len(reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")["rows"]) == 2


def test_an_expert_of_other_questions_is_not_taken(tiny, tmp_path, monkeypatch):
    """Fails if a list whose rows changed, or their solutions, finds the expert or the mixture that
    was made before."""
    made = runs.Lab(*tiny, tmp_path, quick=True)
    monkeypatch.setattr(runs.train, "train", lambda *a, **k: None)
    monkeypatch.setattr(runs.experts, "load_expert", lambda path, *a: (path, {}))
    monkeypatch.setattr(runs.adapt, "adapt_cem", lambda *a: 1 / 0)
    names, real = [], made.file
    monkeypatch.setattr(made, "file", lambda *told: names.append(real(*told)) or names[-1])

    def found(text, solution=""):
        rows = (Example(text, "1", "number", solution=solution),)
        listed = tasks.ListTask("gsm8k", lambda: {"train": rows, "val": rows}, 9, "math")
        monkeypatch.setattr(tasks, "get", lambda name: listed)
        names.clear()
        made.expert("gsm8k", 0)
        with pytest.raises(ZeroDivisionError):              # it is searched
            made.search("gsm8k", 0)
        return tuple(names)

    (expert, mixture), (other, other_mixture) = found("a"), found("b")
    assert expert != other and mixture != other_mixture
    assert found("a") == (expert, mixture)
    assert found("a", "worked out")[0] != expert


def test_an_expert_from_before_a_setting_came_is_still_taken(tiny, tmp_path, monkeypatch):
    """Fails if a new setting, at its default, makes every expert that was trained before it another
    one, and it is trained again without a word; or an expert that used it is taken for one
    without."""
    made, names = runs.Lab(*tiny, tmp_path, quick=True), []
    monkeypatch.setattr(runs.train, "train", lambda *a, **k: None)
    monkeypatch.setattr(runs.experts, "load_expert", lambda path, *a: (path, {}))
    monkeypatch.setattr(made, "file", lambda name, told: names.append(told) or tmp_path / name)
    made.expert("math", 0)
    made.expert("math", 0, start="code")
    assert "start" not in names[0] and names[1]["start"] == "code"
    assert names[0] | {"start": "code"} == names[1] and names[0]["seed"] == 0


def test_mixtures_of_the_experts_that_are_named(tiny, tmp_path, monkeypatch):
    """Fails if a mixture of two experts holds a third, or one search is taken for another's."""
    made, scored = runs.Lab(*tiny, tmp_path, quick=True), []
    monkeypatch.setattr(made, "score", lambda task, n, z, meta=None: scored.append(z) or {})
    names = ["code", "reasoning"]
    loaded = experts.load(names, made.model)
    want = svf.mix(list(loaded.values()), [0.5, 0.5])
    assert mixing.equally(made, "math", names) == {"alpha": [0.5, 0.5]}
    [z] = scored
    assert all(torch.equal(z[name], want[name]) for name in want)

    def way(model, tokenizer, task, mixed, shots, seed):
        assert all(torch.equal(z[name], had[name])
                   for z, had in zip(mixed, loaded.values(), strict=True) for name in z)
        return {}, [1.0, 0.0]
    assert mixing.found_on_shots(made, "math", 0, way, names=names)["alpha"] == [1.0, 0.0]

    asked = []
    monkeypatch.setattr(runs.adapt, "adapt_cem",
                        lambda m, t, task, mixed, *a: asked.append(len(mixed)) or 1 / 0)
    kept = []
    monkeypatch.setattr(made, "file", lambda name, told: kept.append(told) or tmp_path / name)
    for chosen in (names, adapt.MIXED):
        with pytest.raises(ZeroDivisionError):
            made.search("math", 0, names=chosen)
    assert asked == [2, 3] and kept[0] != kept[1]


def test_scores_by_choosing(tiny, tmp_path, monkeypatch):
    """Fails if a row that says "choosing" is of written answers, or the other way round."""
    made, taken = runs.Lab(*tiny, tmp_path, quick=True), []
    for how in ("answers", "choices"):
        monkeypatch.setattr(evaluate, how, lambda *a, how=how, **k: taken.append(how) or ["x"] * 16)
    made.score("reasoning", 16, {})
    made.score("reasoning", 16, {}, choose=True)
    assert taken == ["answers", "choices"]


def test_examples_in_the_prompt_are_solved_as_the_row_says(tiny, tmp_path, monkeypatch):
    """Fails if "worked" shows bare numbers, "bare numbers" shows work,
    or another task is asked for work that it has not.
    """
    asked, made = [], runs.Lab(*tiny, tmp_path, quick=True)
    monkeypatch.setattr(evaluate, "answers", lambda m, t, questions, *a, **k: (
        asked.append(questions[0]) or ["x"] * len(questions)))
    arms = [key["arm"] for key, run in experiments.in_context(made, "math-unseen", 0) if run()]
    assert arms == ["10-shot in context, bare numbers", "10-shot in context, worked"]
    bare, work = (re.findall(r"^Answer: (.+)$", q, re.M) for q in asked)
    assert len(bare) == len(work) == 10 and all(re.fullmatch(r"-?\d+", a) for a in bare)
    assert all(w.endswith(f" = {b}. The answer is {b}.") for b, w in zip(bare, work))
    (key, run), = experiments.in_context(made, "reasoning-unseen", 0)
    assert key["arm"] == "10-shot in context" and run()["n"] == 2


def test_copied_solutions_are_of_steps_and_scored_on_math(tiny, tmp_path, monkeypatch):
    """Fails if an arm of `imitation` earns rewards, copies bare answers, is scored on other
    questions than the base model, or counts steps of other problems; or if `make train-math` is
    another training than the one that is measured.
    """
    made = runs.Lab(*tiny, tmp_path, quick=True)
    asked = {t: tasks.get(t).examples("test", 40) for t in ("math", "math-unseen")}
    monkeypatch.setattr(made, "examples", lambda task, n: asked[task])
    monkeypatch.setattr(evaluate, "score", lambda m, t, task, examples, *a: (
        [float(e.kind.startswith("2step")) for e in examples]))
    trained = []
    monkeypatch.setattr(made, "expert", lambda task, seed, look, **changes: trained.append(
        (task, seed, changes)) or ({}, {"method": "svf", "parameters": 1, "config": changes,
                                        "val_accuracy": 0.5, "best_step": 1, "steps": 1}))
    cells = list(experiments.imitation(made))
    for task, some in (("math", cells[2:6]), ("math-unseen", cells[8:])):
        two = sum(e.kind.startswith("2step") for e in asked[task])
        assert [run()["two_steps"] for key, run in some] == [f"{two} of {two}"] * 4
        assert {key["task"] for key, run in some} == {task}
    assert {task for task, _, _ in trained} == {"math-worked"}
    assert [(seed, c["method"]) for _, seed, c in trained] == [
        (0, "svf"), (1, "svf"), (2, "svf"), (0, "lora")] * 2
    recipe = re.search(r"^train-math: .*?\n\n", (ROOT / "Makefile").read_text(), re.M | re.S)[0]
    given = dict(re.findall(r"--([a-z-]+)=(\S+)", recipe))
    assert given.pop("task") == "math-worked" and given.pop("out") == "out/math.safetensors"
    assert given == {k.replace("_", "-"): str(v) for k, v in experiments.COPYING.items()}


def test_the_released_mixture(tiny):
    """Fails if the sigmoid comes back after mixing, the nuclear norm moves,
    or the base model's z are no longer one number.
    """
    layers = {"a": SimpleNamespace(S=torch.tensor([2.0, 1.0]))}
    logit = lambda z: math.log(z * 0.52498 / (1 - z * 0.52498))      # noqa: E731
    one, p = {"a": torch.tensor([1.2, 0.9])}, (logit(1.2), logit(0.9))
    mixed = experiments.released_mixture(layers, [one], [1.0])["a"]
    want = torch.tensor(p) * 3 / (2 * p[0] + p[1])
    assert torch.allclose(mixed, want, atol=1e-4) and (mixed - one["a"]).abs().max() > 0.4
    assert float((layers["a"].S * mixed).sum()) == pytest.approx(3.0)
    base = experiments.released_mixture(layers, [{"a": torch.ones(2)}] * 3, [1 / 3] * 3)["a"]
    assert torch.allclose(base, torch.ones(2), atol=1e-5)


def test_hand_written_questions_have_all_labels_and_no_template(tiny, tmp_path):
    """Fails if a label is missing, fewer than twenty need no expert, one stands twice,
    or a template could have made one.
    """
    found = tables.handwritten()
    assert set(found) == set(tasks.LABELS) and sum(map(len, found.values())) == 60
    assert len(found["other"]) >= 20
    every = [q for questions in found.values() for q in questions]
    assert len(set(every)) == 60 and all(q == q.strip() and q for q in every)
    made = {e.prompt for name in (*experiments.SEEN, *experiments.UNSEEN, "other")
            for split in tasks.SPLITS for e in tasks.get(name).examples(split, 40)}
    assert not made & set(every)
    lab = runs.Lab(*tiny, tmp_path)
    lab.n = lambda full: full
    assert routing.to_route(lab, "handwritten", "code") == ("code", found["code"])
    needs, questions = routing.to_route(lab, "unseen", "other-unseen")
    assert needs == "other" and len(questions) == 100


def test_routing_asks_in_the_form_that_eval_asks_in(tiny, tmp_path):
    """Fails if questions to be routed are rewritten into a form
    that the dispatcher knows better than the one in use.
    """
    lab = runs.Lab(*tiny, tmp_path)
    for name in ("reasoning", "math-unseen", "code-unseen", "other"):
        needs, questions = routing.to_route(lab, "seen", name)
        assert needs == tasks.get(name).skill
        assert questions == [e.prompt for e in tasks.get(name).examples("test", 2)]


def test_few_numbers_get_a_rate_of_their_own(tiny, tmp_path, monkeypatch):
    """Fails if a tied expert takes the rate of the untied ones,
    or it is not validation that chooses.
    """
    made = runs.Lab(*tiny, tmp_path, quick=True)
    val = {0.01: 0.2, 0.03: 0.5, 0.1: 0.4}
    monkeypatch.setattr(made, "expert", lambda task, seed, look=0, **c: ({}, {
        "val_accuracy": val[c["lr"]], "parameters": 3, "config": c, "best_step": 1, "steps": 1}))
    monkeypatch.setattr(made, "score", lambda task, n, expert, meta: {"score": 0.0})
    row = experiments.own_rate(made, 1, "matrix")
    assert row["lr"] == 0.03 and row["rates"] == {"0.01": 0.2, "0.03": 0.5, "0.1": 0.4}
    assert row["parameters"] == 3


def test_training_reads_train_and_val_only(tiny, tmp_path, monkeypatch):
    """Fails if the choice of a learning rate or of a checkpoint reads a test question."""
    seen, real = [], tasks.Task.examples
    monkeypatch.setattr(tasks.Task, "examples", lambda self, split, n, seed=0: (
        seen.append(split) or real(self, split, n, seed)))
    made = runs.Lab(*tiny, tmp_path, quick=True)
    made.best_lr("lora")
    made.expert("math", 0)
    assert set(seen) == {"train", "val"}


def test_an_expert_is_trained_once(tiny, tmp_path, monkeypatch):
    """Fails if the same settings train twice, or other settings find the wrong expert."""
    made, started, real = runs.Lab(*tiny, tmp_path, quick=True), [], runs.train.train
    monkeypatch.setattr(runs.train, "train", lambda *a, **k: started.append(a[2]) or real(*a, **k))
    first, _ = made.expert("math", 0)
    again, meta = made.expert("math", 0)
    other, _ = made.expert("math", 1)
    assert [c.seed for c in started] == [0, 1] and meta["task"] == "math"
    assert all(torch.equal(first[n], again[n]) for n in first)
    made.expert("math", 0, look=2)                          # its test curve is not there yet
    assert len(started) == 3
    assert [s for s, _ in made.curve(made.expert("math", 0, look=2)[1])["test"]] == [0, 1]


def test_kept_experts_and_mixtures_are_of_one_base(tiny, tmp_path, monkeypatch):
    """Fails if another base or dtype finds the expert or the mixture that was made with this one,
    or a mixture stays although an expert that it mixes, a shipped or a given one,
    was trained again.
    """
    made = runs.Lab(*tiny, tmp_path, quick=True)
    parts = {name: tmp_path / name for name in runs.adapt.MIXED}
    for path in parts.values():
        path.write_text("an expert")
    monkeypatch.setattr(runs.experts, "find", lambda name, model: parts[name])
    monkeypatch.setattr(runs.train, "train",
                        lambda model, tokenizer, cfg, path, *a, **k: asked.append(path))
    monkeypatch.setattr(runs.experts, "load",
                        lambda names, model: asked.append("load") or dict.fromkeys(names))
    monkeypatch.setattr(runs.adapt, "adapt_cem", lambda *a: 1 / 0)
    monkeypatch.setattr(runs.experts, "load_expert", lambda path, model: (path, {"found": {}}))
    asked, kept = [], []
    for base in "a", "b", "a":
        monkeypatch.setattr(made.model, "base_sha256", base)
        kept.append(made.expert("math", 0)[0])
    assert kept[0] == kept[2] != kept[1] and asked == kept
    mixtures = []
    for change in {}, {"base": "b"}, {"base": "a"}, {"part": "trained again"}:
        monkeypatch.setattr(made.model, "base_sha256", change.get("base", "a"))
        if "part" in change:
            parts["code"].write_text(change["part"])
        with pytest.raises(ZeroDivisionError):              # it is searched
            made.search("math", 0)
        mixtures.append(made.file("cem-math-0",
                                  [10, 4, 2, False, runs.files.file_hash(parts.values())]))
        mixtures[-1].write_text("a mixture")
        assert made.search("math", 0)[0] == mixtures[-1]    # it is found
        mixtures[-1].unlink()
    assert mixtures[0] == mixtures[2] and len(set(mixtures)) == 3
    given = [({},
              {"path": parts["math"], "method": "lora", "config": {"rank": 1, "lora_alpha": 1}})]
    was = runs.files.file_hash
    monkeypatch.setattr(runs.files, "file_hash", lambda paths: seen.append(paths) or was(paths))
    seen = []
    with pytest.raises(Exception):                          # there is no such LoRA to attach
        made.search("math", 0, mixed=given)
    assert seen == [[parts["math"]]]
    here = made.file("math", [])
    with monkeypatch.context() as m:
        m.setattr(runs, "RULES", -1)
        assert made.file("math", []) != here
    made.model.to(torch.bfloat16)
    assert made.file("math", []) != here


def test_names_of_cells_begin_with_the_task():
    """Fails if --only needs the seed before the task, where its help says TASK, ARM, seed N."""
    key, _ = runs.cell(dict, task="math", arm="svf")
    assert reproduce.label_of(key) == "math, svf, seed 0"
    assert reproduce.label_of({"task": "math"}) == "math"
    key, _ = runs.cell(dict, arm="cem", task="math-unseen", seed=1)
    assert reproduce.label_of(key) == "math-unseen, cem, seed 1"


def test_bars_of_a_search_stand_around_its_name(tmp_path, monkeypatch):
    """Fails if two or four experts make a group of bars that is off its label,
    or reaches into the next.
    """
    seen = []
    monkeypatch.setattr(figures, "save", lambda fig, path: seen.append(fig))
    for count in 2, 3, 4:
        rows = [{"task": "math-unseen", "arm": "cem", "seed": s, "experts": ["e"] * count,
                 "alpha": [0.5] * count} for s in (0, 1)]
        figures.alphas({"name": "alphas", "rows": rows}, tmp_path / "a.png")
        boxes = [(b.get_x(), b.get_x() + b.get_width()) for b in seen[-1].axes[0].patches
                 if b.get_x() < 0.5]
        left, right = min(a for a, _ in boxes), max(b for _, b in boxes)
        assert len(boxes) == count and abs(left + right) < 1e-6 and right < 0.5


def test_the_title_of_an_absurd_expert_fits(tmp_path, monkeypatch):
    """Fails if z of 1e20 are written out in a title."""
    seen = []
    monkeypatch.setattr(plots, "save", lambda fig, path: seen.append(
        f"{fig.get_suptitle()}\n{fig.axes[1].get_title()}"))
    plots.draw_expert({"layers.0.mlp.up": torch.full((8,), 1e20)}, {}, tmp_path / "a.png")
    plots.draw_expert({"layers.0.mlp.up": torch.full((8,), 1.02)}, {}, tmp_path / "a.png")
    assert "by 1e+22% on" in seen[0] and ": 1e+22% (ring)" in seen[0]
    assert ":\n1e+20 to 1e+20" in seen[0] and "2.0% (ring)" in seen[1]
    for z in ([3e38] * 8, [3e38] + [1.0] * 7, [-3e38, 3e38]):
        plots.draw_expert({"layers.0.mlp.up": torch.tensor(z)}, {}, tmp_path / "a.png")


def test_the_pictures_of_a_very_short_run_can_be_read(tmp_path, monkeypatch):
    """Fails if a point at 0 or 100 % is cut by the frame, the legend lies on the curves, there are
    ticks between updates, or z that differ by a thousandth are all printed as 1.00.
    """
    rows = [{"step": 0, "val": 0.0, "val_n": 16}, {"step": 1, "reward": 0.5},
            {"step": 2, "reward": 1.0}, {"step": 2, "val": 1.0, "val_n": 16}]
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = []
    monkeypatch.setattr(plots, "save", lambda fig, path: drawn.append(fig))
    plots.draw_log(tmp_path / "run.jsonl", tmp_path / "run.png")
    z = 1 + 0.001 * torch.linspace(-1, 1, 1001)
    plots.draw_expert({"layers.0.mlp.up": z}, {}, tmp_path / "e.png")
    for fig in drawn:
        fig.draw_without_rendering()
    (curve,), (_, dials, _) = (fig.axes for fig in drawn)
    low, high = curve.get_ylim()
    assert low < -0.02 and high > 1.02
    assert all(x == round(x) for x in curve.get_xticks())
    assert curve.get_legend().get_window_extent().y1 < curve.get_window_extent().y0
    assert dials.get_title().endswith("0.9991 to 1.0009")
    assert "by 0.050% on" in drawn[1].get_suptitle()
    labels = [label.get_window_extent() for label in dials.get_xticklabels() if label.get_text()]
    assert len(labels) >= 3 and all(a.x1 < b.x0 for a, b in zip(labels, labels[1:]))


def test_the_table_takes_gains_on_the_same_items():
    """Fails if the gain is against another task's base, or arms of other length get one."""
    rows = [{"task": t, "arm": a, "rewards": r}
            for t, a, r in (("m", "base", "0000"), ("m", "svf", "1111"), ("c", "base", "1111"))]
    lines = figures.table(rows).splitlines()
    assert "100.0 [51.0, 100.0] q" in lines[3] and "+100.0" in lines[3] and lines[4].count("+") == 0


def test_the_table_says_what_its_intervals_hold():
    """Fails if an arm of one seed passes for more,
    or a difference whose interval holds zero is bold.
    """
    half = ["1100" * 10, "1100" * 10, "1010" * 10]
    rows = [{"task": "m", "arm": "base", "rewards": "0000" * 10},
            {"task": "m", "arm": "one", "rewards": "0001" * 10}]
    rows += [{"task": "m", "arm": "svf", "seed": i, "rewards": r} for i, r in enumerate(half)]
    rows += [{"task": "m", "arm": "wild", "seed": i, "rewards": r * 10}
             for i, r in enumerate(("1111", "1100", "0000"))]
    _, _, base, one, svf, wild, _, says = figures.table(rows).splitlines()
    assert "] q" in base and one.count(" q ") == 2 and " q " not in svf + wild
    assert says.startswith("q: one seed")
    assert "**+25.0" in one and "**+50.0" in svf and "+50.0" in wild and "**" not in wild


def test_the_table_against_another_arm(tmp_path, capsys):
    """Fails if --against takes the first arm all the same,
    gives a task without that arm a difference, or a wrong name passes.
    """
    rows = [{"task": t, "arm": a, "seed": 0, "rewards": r, "seconds": 1.0} for t, a, r in (
        ("m", "base", "0000"), ("m", "lora", "0011"), ("m", "svf", "1111"), ("c", "base", "0000"),
        ("c", "svf", "1111"))]
    lines = figures.table(rows, "lora").splitlines()
    assert "minus lora" in lines[0] and "-50.0" in lines[2] and "+50.0" in lines[4]
    assert all(lines[i].endswith("|  |") for i in (3, 5, 6))
    forms = [r | {"task": {"m": "arc-easy", "c": "arc-easy-letters"}[r["task"]]}
             for r in rows] + [rows[0]]
    lines = figures.table(forms, "arc-easy, lora").splitlines()
    assert [("-50.0" in line, "+50.0" in line) for line in lines[2:8]] == [
        (True, False), (False, False), (False, True), (True, False), (False, True), (False, False)]
    bases = [{"task": "m", "arm": a, "base": b, "rewards": r} for a, b, r in (
        ("no z", "one", "0000"), ("z", "one", "0011"), ("no z", "two", "1111"),
        ("z", "two", "1110"))]
    lines = figures.table(bases, "m, no z").splitlines()
    assert "+50.0" in lines[3] and "-25.0" in lines[5]
    assert not any(sign in lines[i] for i in (2, 4) for sign in "+-")
    with pytest.raises(ValueError,
                       match="no arm 'LoRA'.*choose from: base; lora; svf; or write TASK, ARM"):
        figures.table(rows, "LoRA")
    with pytest.raises(ValueError, match="choose from: c, base; c, svf; or write"):
        figures.table(rows, "c")
    done = {"name": "tiny", "paper": "-", **dict.fromkeys(reproduce.SETTINGS), "rows": rows}
    (tmp_path / "tiny.json").write_text(reproduce.pretty(done))
    assert cli.main(["reproduce", "tiny", "--draw", "--against=lora", f"--out={tmp_path}"]) == 0
    assert "minus lora" in capsys.readouterr().out and (tmp_path / "tiny.png").exists()
    assert cli.main(["reproduce", "tiny", "--against=lora"]) == 1
    assert "add --draw" in capsys.readouterr().err


@pytest.mark.parametrize("name, holds", [
    ("timing", "| math-unseen | classifier | batch of 32 | 3 | 0.041 | 0.102 | 40 [40, 41] |"),
    ("spectrum", "| q | 576 | 5 | 19 | 32 | 60 | 85 | 97 | 100 |"),
    ("alphas", "| math-unseen | 0 | 0.75 | 0.79 | 0.01 | 20 |"),
    ("curves", "| math | 0 | 24 | 32.3, 59.4 | 27.0, 61.0 |")])
def test_experiments_without_scores_have_a_table(name, holds):
    """Fails if numbers stand in the picture only."""
    text = figures.table(reproduce.read(reproduce.RESULTS / f"{name}.json")["rows"])
    assert holds in text.splitlines() and len({line.count("|") for line in text.splitlines()}) == 1


@pytest.mark.parametrize("name, part", [
    ("timing", lambda r: r["seed"] == 0 and r["task"] == "math-unseen"),
    ("finetune", lambda r: r["arm"].endswith("learning rates")),
    ("transfer", lambda r: r["arm"] == "shuffled z")])
def test_a_part_of_an_experiment_has_a_table_and_a_picture(name, part, tmp_path, capsys):
    """Fails if rows that were measured cannot be shown before the others are there."""
    done = reproduce.read(reproduce.RESULTS / f"{name}.json")
    done["rows"] = [r for r in done["rows"] if part(r)]
    assert done["rows"]
    reproduce.draw(done, tmp_path / f"{name}.png")
    scores = name != "finetune"                             # whose part holds validation alone
    assert (" | " in capsys.readouterr().out) == (tmp_path / f"{name}.png").exists() == scores


def test_experts_of_another_tower_are_others(tiny, tmp_path):
    """Fails if a LoRA or a mixture that was made through one tower stands for that of another."""
    made = runs.Lab(*tiny, tmp_path, quick=True)
    blind = made.file("a", {})
    seeing = []
    for tower in "one", "two", "one":
        made.tokenizer.eye = SimpleNamespace(sha256=lambda tower=tower: tower)
        seeing.append(made.file("a", {}))
    made.tokenizer.eye = None
    assert seeing[0] == seeing[2] != seeing[1]
    assert blind == made.file("a", {}) not in seeing


def test_the_signal_is_of_one_process(monkeypatch):
    """Fails if a row says as many questions as all ranks have, and counts those of one."""
    monkeypatch.setattr(ranks, "world", lambda: 2)
    with pytest.raises(ValueError, match="without torchrun"):
        next(run for _, run in experiments.signal(SimpleNamespace()))()
    with pytest.raises(ValueError, match="without torchrun"):
        next(run for _, run in experiments.agreement(SimpleNamespace()))()


def test_numbers_that_json_lacks_are_null(tmp_path):
    """Fails if other readers of JSON cannot read a file whose search found nothing right."""
    text = reproduce.pretty({"name": "a", "rows": [{"best": (0.0, -math.inf)}, {"best": [1.0]}]})
    rows = json.loads(text, parse_constant=pytest.fail)["rows"]
    assert rows == [{"best": [0.0, None]}, {"best": [1.0]}]


def test_gpt2_has_a_spectrum():
    """Fails if a kind of matrix that a model lacks is a row, or the one that it has is none."""
    model = random_model(family="gpt2", num_key_value_heads=6)
    svf.attach(model, progress=False)
    lab = SimpleNamespace(model=model)
    cells = {key["arm"]: run for key, run in experiments.spectrum(lab)}
    assert [*cells] == ["o", "up", "down", "qkv"]
    assert all(run()["matrices"] == 2 for run in cells.values())


def test_headlines_say_what_the_tables_say():
    """Fails if a score in a picture's title is none of its results file."""
    told = {name: re.findall(r"\d+\.\d", text) for name, text in figures.MESSAGE.items()}
    assert told["sight"] == ["86.8", "66.5"]
    for name, scores in told.items():
        if scores:
            table = figures.table(reproduce.read(reproduce.RESULTS / f"{name}.json")["rows"])
            assert all(f"{score} [" in table for score in scores), name


def test_rounded_weights():
    """Fails if the grid has another number of steps, or the largest number of a row moves."""
    W = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    out = experiments.rounded(W, 3)
    assert all(len(row.unique()) <= 7 for row in out)
    assert torch.allclose(out.abs().amax(1), W.abs().amax(1))
    assert (experiments.rounded(W, 8) - W).abs().max() < W.abs().max() / 254 + 1e-6



def test_a_picture_has_no_empty_panel_and_says_names_in_words():
    """Fails if panels with other arms share a row, so that places stay empty, or a short name of a
    results file is shown as it is."""
    rows = [{"task": task, "arm": arm, "rewards": "01"} for task, arms in
            (("math", ("base", "svf")), ("code", ("base", "svf")), ("math-unseen", ("base", "cem")))
            for arm in arms]
    lines = figures.rows_of_panels(figures.grouped(rows))
    assert lines == [(["base model", "SVF expert"], [("math", ""), ("code", "")]),
                     (["base model", "mixture found by search"], [("math-unseen", "")])]
    assert set(figures.MESSAGE) == set(experiments.ALL)
    assert (figures.colour_of("base, choosing") == figures.colour_of("no z")
            != figures.colour_of("z"))

def test_the_base_models_other_form_and_guessing_are_in_the_picture(tmp_path, monkeypatch):
    """Fails if a reader sees an expert beside the worse form of its questions alone, the other way
    of asking gets on the line, or the forms of another set, or what the list of options is worth
    is left out."""
    def row(task, arm, right):
        return {"task": task, "arm": arm, "rewards": "1" * right + "0" * (20 - right)}
    drawn = []
    monkeypatch.setattr(figures, "draw_pair", lambda ax, y, arms: drawn.append(arms))
    letters = "arc-easy-letters"
    rows = [row(letters, "base", 8), row(letters, "svf", 12), row("arc-easy", "base", 10),
            row(letters, "base, choosing", 6), row(letters, "svf, choosing", 13),
            row("arc-easy", "base, choosing", 9), row("humaneval", "base", 3),
            row("arc-easy-open", "base, choosing", 11)]
    opened = [row("arc-easy-open", "svf, choosing", 14), *rows]
    figures.pairs({"name": "real05", "rows": rows}, tmp_path / "pairs.png")
    assert [round(20 * arms["other form"][0]) for arms in drawn] == [10, 9]
    assert {*drawn[0]} == {"base", "svf", "other form"} == {*drawn[1]} - {"options hidden"}
    assert round(20 * drawn[1]["options hidden"][0]) == 11
    drawn.clear()
    figures.pairs({"name": "real05", "rows": opened}, tmp_path / "pairs.png")
    assert {*drawn[0]} == {"base", "svf"} and {*drawn[2]} == {"base", "svf", "other form"}
    assert figures.GUESSING[letters] == 25 and figures.GUESSING.keys() <= {*tasks.BUILT_IN} | {
        *published.SETS, "easy-vqa-yes-no"}


def test_a_commit_is_clean_while_results_are_written(tiny, tmp_path, monkeypatch):
    """Fails if the rows that a run has written make its own commit look changed, or a changed
    program does not.
    """
    # neither the user's settings nor a repository that these tests run in
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def git(*words):
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *words],
                       check=True, capture_output=True)

    for name in ("tutorials/results/a.json", "model.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.setattr(reproduce.experts, "ROOT", tmp_path)
    (tmp_path / "tutorials/results/a.json").write_text("two")
    first = reproduce.commit()
    assert first and not first.endswith("+")

    def cells(lab):
        """The first row takes so long that somebody edits a file meanwhile."""
        for arm in ("a", "b"):
            yield {"arm": arm}, lambda: {"n": (tmp_path / "model.py").write_text("two")}

    monkeypatch.setitem(reproduce.ALL, "fake", experiments.Experiment("-", cells, "bars", "x"))
    monkeypatch.setattr(reproduce, "draw", lambda done, path: None)
    rows = reproduce.run("fake", *tiny, quick=True, out=tmp_path / "out")["rows"]
    assert [row["commit"] for row in rows] == [first] * 2
    assert reproduce.commit().endswith("+")

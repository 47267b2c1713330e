"""Files that are whole or not there, outputs that one run holds, full disks, closed folders, and the same bytes twice."""
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import forked, wait_for
from safetensors.torch import load_file

import t2mini
from t2mini import __main__ as cli
from t2mini import experts, reinforce, svf
from t2mini.machine import files
from t2mini.reinforce import TrainConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A private out/ and SVD cache, with a task."""
    monkeypatch.setattr(experts, "OUT", tmp_path / "out")
    monkeypatch.setattr(experts, "SVD_CACHE", tmp_path / "svd")
    rows = [{"prompt": f"say {i}", "answer": "a", "match": "contains"} for i in range(40)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


def train_args(folder, weights, *more):
    return ["train", f"--task={folder}/mine.jsonl", f"--weights={weights}", "--dtype=float32", "--device=cpu", "--steps=2",
            "--prompts=2", "--samples=2", "--val-every=1", "--val-n=2", "--max-tokens=6", *more]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------------------------------- whole or not there
def test_replacing_is_all_or_nothing(tmp_path):
    """Fails if a reader can see a part, a failure damages the old file, a link is lost, or a rest stays."""
    path, link = tmp_path / "a", tmp_path / "link"
    with files.replacing(path) as f:
        f.write(b"one")
        assert not path.exists()
    link.symlink_to(path)
    with files.replacing(link) as f:
        f.write(b"two")
        f.flush()
        assert path.read_bytes() == b"one"
    with pytest.raises(KeyError), files.replacing(path) as f:
        f.write(b"three")
        raise KeyError
    assert path.read_bytes() == b"two" and link.is_symlink() and names(tmp_path) == ["a", "link"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_devices_are_written_not_replaced():
    """Fails if --samples-file=/dev/stdout would put a file in its place, or a full device is no OSError."""
    before = os.stat("/dev/null").st_rdev
    with files.replacing("/dev/null") as f:
        f.write(b"x")
    assert os.stat("/dev/null").st_rdev == before


def test_sweep_removes_what_kills_left_and_nothing_else(tmp_path):
    """Fails if half-written files add up, or another output's are removed."""
    for name in (".a.ckpt.xyz.tmp", ".a.ckpt.b.tmp", ".ab.ckpt.xyz.tmp", ".a.ckpt2.x.tmp", "a.ckpt", ".a.ckpt", "[a].tmp", ".[x].c.tmp"):
        (tmp_path / name).write_bytes(b"")
    files.sweep(tmp_path / "a.ckpt")
    assert names(tmp_path) == [".[x].c.tmp", ".a.ckpt", ".a.ckpt2.x.tmp", ".ab.ckpt.xyz.tmp", "[a].tmp", "a.ckpt"]


def test_saved_tensors_have_the_same_bytes_and_are_safetensors(tmp_path):
    """Fails if the order of a dict, or a process, shows in the file; or the library reads something else."""
    t = {"b": torch.rand(3, 4), "a": torch.rand(5), "n": torch.tensor(2.0)}
    files.save_tensors(tmp_path / "1", t, {"x": "1", "y": {"k": [1, 2]}})
    files.save_tensors(tmp_path / "2", dict(reversed(t.items())), {"y": {"k": [1, 2]}, "x": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    read = load_file(tmp_path / "1")
    assert read.keys() == t.keys() and all(torch.equal(read[k], v) for k, v in t.items())
    files.save_tensors(tmp_path / "1", {"t": t["b"].T, "h": t["b"].bfloat16()}, {})        # not contiguous, another dtype
    read = load_file(tmp_path / "1")
    assert torch.equal(read["t"], t["b"].T) and torch.equal(read["h"], t["b"].bfloat16())


# ---------------------------------------------------------------------------------------------- one run per output
def test_the_second_run_is_refused_and_a_kill_frees_the_lock(tmp_path):
    """Fails if two runs may write one output, a folder cannot be locked, or a killed run leaves a lock behind."""
    for path in (tmp_path / "log", tmp_path):
        ready = tmp_path / f"ready{path.name}"

        def hold():
            with files.only_one(path):
                ready.touch()
                wait_for(lambda: False)

        child = forked(hold)
        wait_for(ready.exists)
        with pytest.raises(ValueError, match="another run is writing"), files.only_one(path):
            pass
        os.kill(child, 9)
        os.waitpid(child, 0)
        with files.only_one(path):
            pass
        with files.only_one(path):                          # and it is free again after a good end
            pass


def test_two_trainings_on_one_output_do_not_mix(home, tiny_folder, capsys):
    """Fails if a second `train` on the same --out starts, or touches the first one's files."""
    out = home / "out" / "e.safetensors"
    assert cli.main(train_args(home, tiny_folder, f"--out={out}")) == 0
    before = {n: (home / "out" / n).read_bytes() for n in names(home / "out")}
    with files.only_one(out.with_suffix(".jsonl")):
        for more in ((), ("--resume",)):
            capsys.readouterr()
            assert cli.main(train_args(home, tiny_folder, f"--out={out}", *more)) == 1
            told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("t2mini: ")]
            assert len(told) == 1 and "another run is writing" in told[0]
    assert before == {n: (home / "out" / n).read_bytes() for n in names(home / "out")}


def test_processes_that_start_together_share_the_decomposition(tmp_path, monkeypatch):
    """Fails if two processes decompose a matrix at the same time, or the second does it again."""
    real, counted, W = torch.linalg.svd, tmp_path / "count", torch.rand(20, 30)

    def slow(*args, **kw):
        with open(counted, "ab") as f:
            f.write(b"x")
        return real(*args, **kw)

    monkeypatch.setattr(torch.linalg, "svd", slow)
    children = [forked(lambda: [svf.decompose(W * k, tmp_path / "svd") for k in range(1, 9)]) for _ in range(3)]
    assert [os.waitpid(c, 0)[1] for c in children] == [0, 0, 0] and counted.read_bytes() == b"x" * 8
    assert len(names(tmp_path / "svd")) == 8 and all(n.endswith(".safetensors") for n in names(tmp_path / "svd"))


# ---------------------------------------------------------------------------------------------- full and closed
@pytest.mark.parametrize("when", ["checkpoint", "log", "cache"])
def test_a_full_disk_is_one_line_and_loses_nothing(home, tiny_folder, capsys, monkeypatch, when):
    """Fails if a disk that fills up ends in a traceback, damages what was there, or leaves half files."""
    out = home / "out" / "e.safetensors"
    assert cli.main(train_args(home, tiny_folder, f"--out={out}")) == 0
    kept = {n: (home / "out" / n).read_bytes() for n in ("e.safetensors", "e.ckpt")}
    capsys.readouterr()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if when == "cache":
        for p in (home / "svd").iterdir():
            p.unlink()
    monkeypatch.setattr(os, "fsync", full)
    more = ["--resume"] if when == "checkpoint" else []
    status = cli.main(train_args(home, tiny_folder, f"--out={out}", *more))
    err = capsys.readouterr().err
    assert status == 1 and [x for x in err.splitlines() if x.startswith("t2mini: ")] == [
        "t2mini: no space left on the disk; nothing was overwritten"] and "Traceback" not in err
    assert (home / "out" / "e.safetensors").read_bytes() == kept["e.safetensors"]
    assert not [n for f in ("out", "svd") for n in names(home / f) if n.endswith(".tmp")]
    if when == "checkpoint":
        assert (home / "out" / "e.ckpt").read_bytes() == kept["e.ckpt"]


def test_a_write_that_really_stops_half_way(tmp_path):
    """Fails if a file that the system cut off takes the place of the old one. (A limit on file size plays the full disk.)"""
    import resource
    path = tmp_path / "e"
    files.save_tensors(path, {"a": torch.ones(10)}, {})
    old, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError):
            files.save_tensors(path, {"a": torch.ones(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old and names(tmp_path) == ["e"]


@pytest.mark.parametrize("closed", ["out", "svd"])
def test_a_read_only_folder_is_one_line(home, tiny_folder, capsys, closed):
    """Fails if a folder that cannot be written to ends in a traceback or in silence."""
    for name in ("out", "svd"):
        (home / name).mkdir()
        os.chmod(home / name, 0o555 if name == closed else 0o777)
    os.chmod(tiny_folder / "model.safetensors", 0o644)
    for folder in (tiny_folder, *tiny_folder.parents, *home.parents, home):
        if os.stat(folder).st_uid == os.getuid() and "pytest" in str(folder):
            os.chmod(folder, os.stat(folder).st_mode | 0o055)
    root = os.getuid() == 0
    if root:                                                # root may write everywhere: be nobody for a moment
        os.seteuid(65534)
    try:
        status = cli.main(train_args(home, tiny_folder, f"--out={home}/out/e.safetensors"))
    finally:
        if root:
            os.seteuid(0)
    told = [x for x in capsys.readouterr().err.splitlines() if x.startswith("t2mini: ")]
    assert status == 1 and len(told) == 1 and "Permission denied" in told[0] and closed in told[0]


# ---------------------------------------------------------------------------------------------- the same twice
def test_the_same_command_gives_the_same_bytes(home, tiny_folder, capsys):
    """Fails if a clock, an address, the order of a set or a process shows in what a run writes; or in another process
    anything does. (The log's seconds are measured, so they are left out.)"""
    args = train_args(home, tiny_folder, f"--out={home}/out/e.safetensors")
    expert, log = home / "out" / "e.safetensors", home / "out" / "e.jsonl"

    def ran(run):
        run()
        rows = [{k: v for k, v in json.loads(r).items() if not k.startswith("sec")} for r in log.read_text().splitlines()]
        return expert.read_bytes(), rows

    def alone():
        code = f"import sys, torch; torch.set_num_threads(1); sys.argv[0] = {sys.argv[0]!r}; sys.argv[1:] = {sys.argv[1:]!r}\n" \
               f"from t2mini.__main__ import main; sys.exit(main({args!r}))"
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)

    first = ran(lambda: cli.main(args))
    assert ran(lambda: cli.main(args)) == first
    assert ran(alone) == first
    scores = []
    for _ in range(2):
        capsys.readouterr()
        assert cli.main(["eval", f"--task={home}/mine.jsonl", f"--weights={tiny_folder}", "--dtype=float32", "--device=cpu",
                         f"--expert={expert}", "--n=4", "--json", f"--samples-file={home}/s{len(scores)}"]) == 0
        scores.append({k: v for k, v in json.loads(capsys.readouterr().out.splitlines()[-1]).items() if k != "seconds"})
    assert scores[0] == scores[1] and (home / "s0").read_bytes() == (home / "s1").read_bytes()


def test_an_expert_names_its_base(home, tiny_folder):
    """Fails if the file lacks what is needed to check that z meets the matrices it was trained on."""
    model, tokenizer = t2mini.load(tiny_folder, device="cpu", dtype="float32")
    cfg = TrainConfig(task=f"{home}/mine.jsonl", steps=1, prompts=1, samples=1, val_n=2, max_tokens=2)
    reinforce.train(model, tokenizer, cfg, home / "e.safetensors", log=lambda text: None)
    meta = experts.read_metadata(home / "e.safetensors")
    assert meta["base_sha256"] == files.file_hash([tiny_folder / "model.safetensors"])
    assert {"base_model", "torch", "dtype", "threads", "seed", "config", "modules"} <= meta.keys()

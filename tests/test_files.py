"""Files that are whole or not there, outputs that one run holds, full disks, closed folders,
and the same bytes twice.
"""
import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import unicodedata
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import forked, soon, wait_for
from safetensors import safe_open
from safetensors.torch import load_file

import t2mini
from t2mini import __main__ as cli
from t2mini import experts, svf, train
from t2mini.cli import verbs
from t2mini.lab import plots
from t2mini.machine import files, svd_cache
from t2mini.machine.text import ending, first_line, one_line, printable
from t2mini.recipe import TrainConfig
from t2mini.sight import towers

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
    return ["train", f"--task={folder}/mine.jsonl", f"--weights={weights}", "--dtype=float32",
            "--device=cpu", "--steps=2", "--prompts=2", "--samples=2", "--val-every=1",
            "--val-n=2", "--max-tokens=6", *more]


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------------------- whole or not there
def test_replacing_is_all_or_nothing(tmp_path):
    """Fails if a reader can see a part, a failure damages the old file,
    a link is lost, or a rest stays.
    """
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


def test_devices_are_written_not_replaced():
    """Fails if --samples-file=/dev/stdout would put a file in its place,
    or a full device is no OSError.
    """
    before = os.stat("/dev/null").st_rdev
    with files.replacing("/dev/null") as f:
        f.write(b"x")
    assert os.stat("/dev/null").st_rdev == before
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match="No space"), files.replacing("/dev/full") as f:
            f.write(b"x")


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "all.txt"])
@pytest.mark.parametrize("how", [">", ">>"])
def test_samples_go_behind_what_standard_output_has(tmp_path, how, name):
    """Fails if --samples-file=/dev/stdout, where that is a file, cuts off what stands in it,
    or another name of it takes it away.
    """
    (tmp_path / "all.txt").write_text("old\n" if how == ">>" else "")
    program = ("from t2mini.machine import files; print('before')\n"
               f"with files.replacing({name!r}) as f: f.write(b'rows\\n')\n"
               "print('after')")
    shell = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {how} all.txt"
    subprocess.run(["sh", "-c", shell], cwd=tmp_path, check=True,
                   env={**os.environ, "PYTHONPATH": str(experts.ROOT)})
    lines = (tmp_path / "all.txt").read_text().split()
    assert lines == ["old"] * (how == ">>") + ["before", "rows", "after"]


def test_sweep_removes_what_kills_left_and_nothing_else(tmp_path):
    """Fails if half-written files add up, or another output's are removed."""
    for name in (".a.ckpt.xyz.tmp", ".a.ckpt.b.tmp", ".ab.ckpt.xyz.tmp", ".a.ckpt2.x.tmp", "a.ckpt",
                 ".a.ckpt", "[a].tmp", ".[x].c.tmp"):
        (tmp_path / name).write_bytes(b"")
    files.sweep(tmp_path / "a.ckpt")
    assert names(tmp_path) == [".[x].c.tmp", ".a.ckpt", ".a.ckpt2.x.tmp",
                               ".ab.ckpt.xyz.tmp", "[a].tmp", "a.ckpt"]
    for name in (".b[1].ckpt.x.tmp", ".b1.ckpt.x.tmp"):
        (tmp_path / name).write_bytes(b"")
    files.sweep(tmp_path / "b[1].ckpt")
    assert ".b1.ckpt.x.tmp" in names(tmp_path) and ".b[1].ckpt.x.tmp" not in names(tmp_path)
    files.sweep(tmp_path / "b?.ckpt")
    assert ".b1.ckpt.x.tmp" in names(tmp_path)
    files.sweep(tmp_path)                                   # a folder: all that is in it
    assert names(tmp_path) == [".a.ckpt", "[a].tmp", "a.ckpt"]


def test_saved_tensors_have_the_same_bytes_and_are_safetensors(tmp_path):
    """Fails if the order of a dict, or a process, shows in the file;
    or the library reads something else.
    """
    t = {"b": torch.rand(3, 4), "a": torch.rand(5), "n": torch.tensor(2.0)}
    files.save_tensors(tmp_path / "1", t, {"x": "1", "y": {"k": [1, 2]}})
    files.save_tensors(tmp_path / "2", dict(reversed(t.items())), {"y": {"k": [1, 2]}, "x": "1"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    read = load_file(tmp_path / "1")
    assert read.keys() == t.keys() and all(torch.equal(read[k], v) for k, v in t.items())
    # not contiguous, another dtype
    files.save_tensors(tmp_path / "1", {"t": t["b"].T, "h": t["b"].bfloat16()}, {})
    read = load_file(tmp_path / "1")
    assert torch.equal(read["t"], t["b"].T) and torch.equal(read["h"], t["b"].bfloat16())


def test_names_in_another_encoding_leave_a_file_readable(tmp_path):
    """Fails if a command line that names a file in another encoding writes a header that
    safetensors refuses, or the numbers and lists beside it change.
    """
    foreign = os.fsdecode(b"caf\xe9")
    files.save_tensors(tmp_path / "1", {"a": torch.ones(2)},
                       {"command": f"train --task={foreign}.jsonl", "config": {"task": foreign}})
    with safe_open(tmp_path / "1", "pt") as f:
        told = f.metadata()
    assert told["command"] == r"train --task=caf\udce9.jsonl"
    assert json.loads(told["config"]) == {"task": foreign}


def test_an_output_whose_name_is_not_utf8_is_refused(tmp_path):
    """Fails if a run ends with a file that nothing can open, or a name of another script is
    refused.
    """
    for kind, end in ("expert", "safetensors"), ("samples", "jsonl"), ("folder", "d"):
        with pytest.raises(ValueError, match="is not UTF-8 text; choose another output"):
            files.claim(os.path.join(tmp_path, os.fsdecode(b"caf\xe9.") + end), kind)
        assert files.claim(tmp_path / f"café-漢.{end}", kind)


@pytest.mark.parametrize("mask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_what_is_written_follows_from_the_umask(tmp_path, mask, mode):
    """Fails if a new file can be read by all although the umask forbids it,
    or by its owner only although it does not.
    """
    before = os.umask(mask)
    try:
        files.save_tensors(tmp_path / "a", {"a": torch.ones(2)}, {})
        with files.only_one(tmp_path / "log"):
            pass
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "log")} == {mode}


# ----------------------------------------------------------------------------------- bounded inputs
def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    """Fails if a pipe hangs, a device or a large file is read until the memory ends,
    or the line does not name the file.
    """
    (tmp_path / "text").write_text("grüße")
    (tmp_path / "link").symlink_to(tmp_path / "text")
    assert files.read_text(tmp_path / "text") == files.read_text(tmp_path / "link") == "grüße"
    assert files.read_text(tmp_path / "text", limit=7) == "grüße"
    with pytest.raises(ValueError, match="text: 7 bytes; at most 6 are read"):
        files.read_text(tmp_path / "text", limit=6)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with soon(), pytest.raises(ValueError, match=f"{path}: not a regular file"):
            files.read_text(path)
    (tmp_path / "text").write_bytes(b"a\xff")
    with pytest.raises(ValueError, match="text: not UTF-8 text .* at byte 1"):
        files.read_text(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        files.read_text(tmp_path / "nothing")


# ------------------------------------------------------------------------------ text for a terminal
@pytest.mark.parametrize("text, shown", [
    ("plain text\n\twith ümläute, 漢字, 🙂, é", None),
    ("👩‍🚀 ﬁ می‌خواهم \u00a0\u00ad", None),
    ("\x1b[2J\x1b]0;t\x07", r"\x1b[2J\x1b]0;t\x07"),
    ("a\rb\x00\x7f\b\x0b\x0c", r"a\x0db\x00\x7f\x08\x0b\x0c"),
    ("\x80\x9b31m\x85", r"\x80\x9b31m\x85"),
    ("\u202egpj.exe\u2066\u2069\u200f\u061c", r"\u202egpj.exe\u2066\u2069\u200f\u061c"),
    ("\ud800a\udfff", r"\ud800a\udfff"), ("\ufeff\u2028\u2029", r"\ufeff\u2028\u2029"),
    ("\U000e0041", r"\U000e0041"), (5, "5"), (None, "None")])
def test_foreign_text_cannot_drive_a_terminal(text, shown):
    """Fails if an escape sequence, a mark that turns the direction of writing or half a character
    reaches a terminal; or text that people write is spelt out.
    """
    assert printable(text) == (text if shown is None else shown)


def test_one_line_is_one_line():
    """Fails if a newline stays one, a long line loses its end,
    or an exception without words is nothing.
    """
    assert one_line("a\nb\r\x1b\tc") == "a\\nb\\x0d\\x1b\tc"
    assert one_line("a" * 50 + "b" * 50, 60) == "a" * 27 + " ... " + "b" * 27
    assert one_line("a" * 60, 60) == "a" * 60
    assert first_line(ValueError("a\nb")) == "a" and first_line(MemoryError()) == "MemoryError"


def test_a_text_cut_in_front_shows_that_it_was_cut():
    """Fails if the end of a long question begins in the middle of a word, without a mark,
    or a short one is cut.
    """
    assert ending("how many legs do three cats have?", 16) == "… cats have?"
    assert ending("short", 16) == "short"
    assert ending("which?" + " " * 99, 16) == "which?"
    assert ending("x" * 99, 10) == "… " + "x" * 10


def test_all_that_is_printable_can_be_encoded_and_holds_no_control():
    """Fails if one control character or surrogate of all of Unicode is let through."""
    text = printable("".join(map(chr, range(0x110000))))
    assert text.encode("utf-8")
    assert {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} == {"\n", "\t"}
    bidi = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    assert not {c for c in text if unicodedata.bidirectional(c) in bidi}


# ------------------------------------------------------------------------------------------ outputs
EXPERT = {"format": "t2mini-svf-1", "base_sha256": "0" * 64}
MINE = {"expert": "e.safetensors", "checkpoint": "e.ckpt", "tower": "t.safetensors",
        "tower checkpoint": "t.ckpt", "log": "e.jsonl", "tower log": "t.jsonl",
        "samples": "s.jsonl",
        "results": "r.json", "picture": "p.png"}


def write_own(kind, path):
    """A file of this kind, as t2mini writes it."""
    if kind == "expert":
        files.save_tensors(path, {"a": torch.ones(3)}, EXPERT)
    elif kind == "checkpoint":
        files.save_tensors(path, {"z/a": torch.ones(3)},
                           {"config": {}, "state": {}, "base_sha256": "0", "dtype": "x"})
    elif kind == "tower":
        files.save_tensors(path, {"a": torch.ones(3)}, {**EXPERT, "format": towers.FORMAT})
    elif kind == "tower checkpoint":
        files.save_tensors(path, {"p/a": torch.ones(3)},
                           {"config": {}, "images": 3, "base_sha256": "0",
                            "rows": [{"step": 1}] * 80_000})
    elif kind == "picture":
        from t2mini.lab import plots
        plots.save(plots.pyplot().figure(), path.with_name("new.png"))
        path.with_name("new.png").rename(path)
    else:
        row = {"log": {"step": 0, "val": 0.5, "val_n": 96},
               "tower log": {"step": 1, "loss": 12.2, "seconds": 1.1},
               "samples": {"prompt": "p", "gold": "1", "kind": "k", "text": "1", "reward": 1.0},
               "results": {"name": "x", "rows": ["0" * 2_000_000]}}[kind]
        path.write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize("kind", MINE)
def test_an_output_may_be_new_or_a_file_of_its_own_kind(tmp_path, kind):
    """Fails if a second run cannot replace the output of the first, a new path or an empty file
    is refused, or something is created or changed before the work is done.
    """
    for path in (tmp_path / MINE[kind], tmp_path / "a" / "b" / MINE[kind]):
        assert files.claim(path, kind) == path
    assert not names(tmp_path)
    path.parent.mkdir(parents=True)
    path.touch()
    assert files.claim(path, kind) == path and path.read_bytes() == b""
    path.unlink()
    write_own(kind, path)
    before = path.read_bytes()
    assert files.claim(str(path), kind) == path
    assert path.read_bytes() == before and names(path.parent) == [path.name]


@pytest.mark.parametrize("kind", MINE)
def test_an_output_replaces_nothing_of_another_kind(tmp_path, tiny_folder, kind):
    """Fails if a file that t2mini did not write as an output of this kind is replaced:
    weights, a user's questions, a photo.
    """
    path = tmp_path / MINE[kind]
    for other in set(MINE) - {kind}:
        write_own(other, path)
        with pytest.raises(ValueError, match=f"{path.name} is there and is not "):
            files.claim(path, kind)
    row = json.dumps({"prompt": "say", "answer": "a"}).encode() + b"\n"
    weights = (tiny_folder / "model.safetensors").read_bytes()
    for strange in (weights, row, b"{", b"[1]\n", b"\x89PNG\r\n\x1a\n" + bytes(99), b"\0" * 99,
                    b"x", b"\xff" * 8 + b"{}", b"5\n", b"[" * 9999):
        path.write_bytes(strange)
        with pytest.raises(ValueError, match=f"{path.name} is there and is not "):
            files.claim(path, kind)
        assert path.read_bytes() == strange
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{path.name} is a folder"):
        files.claim(path, kind)


def test_a_log_that_a_kill_cut_in_its_first_row_is_ours(tmp_path):
    """Fails if a run that was killed at once cannot be started again."""
    for cut in '{"step": 0, "va', '{"step": 0, "val": 0.25, "val', '{"step": 0, "val": 0':
        (tmp_path / "e.jsonl").write_text(cut)
        assert files.claim(tmp_path / "e.jsonl", "log") == tmp_path / "e.jsonl"
    (tmp_path / "e.jsonl").write_text('{"step": 1, "loss": 12.2')
    assert files.claim(tmp_path / "e.jsonl", "tower log") == tmp_path / "e.jsonl"
    # its first rows were deleted
    (tmp_path / "e.jsonl").write_text('{"step": 5, "val": 0.25, "val_n": 128}\n')
    assert files.claim(tmp_path / "e.jsonl", "log") == tmp_path / "e.jsonl"


@pytest.mark.parametrize("kind, row", [
    ("log", {"step": 10, "loss": 2.31}), ("log", {"step": 0, "loss": 2.31}),
    ("log", {"step": 0, "val": 0.5, "val_n": 9, "lr": 0.1}), ("log", {"step": 0, "val": 0.5}),
    ("tower log", {"step": 1, "loss": 2.31}),
    ("tower log", {"step": 7, "loss": 2.31, "seconds": 1.0}),
    ("samples", {"id": 7, "prompt": "p", "text": "t", "reward": 0.5, "note": "n"}),
    ("samples", {"prompt": "p", "gold": "1", "kind": "k", "text": "1", "reward": 1.0, "my": 1})])
def test_rows_of_another_tool_are_not_ours_because_of_a_common_key(tmp_path, kind, row):
    """Fails if the log of another training, or a person's own rows, are emptied because some of
    their keys are called as ours are.
    """
    for end in "\n", "", "\n" + json.dumps(row) + "\n":
        (tmp_path / "a.jsonl").write_text(json.dumps(row) + end)
        with pytest.raises(ValueError, match="a.jsonl is there and is not "):
            files.claim(tmp_path / "a.jsonl", kind)


def test_a_log_whose_first_rows_are_lost_is_ours(tmp_path):
    """Fails if a run that went on without its first rows cannot be resumed once more."""
    committed = (ROOT / "tutorials" / "results" / "math-0.jsonl").read_text().splitlines(True)
    (tmp_path / "e.jsonl").write_text("".join(committed[1:]))
    assert files.claim(tmp_path / "e.jsonl", "log") == tmp_path / "e.jsonl"


def test_samples_about_images_are_ours(tmp_path):
    """Fails if a second `eval` cannot replace the rows of questions about images."""
    row = dict.fromkeys(("prompt", "gold", "kind", "text", "reward", "image"), "")
    (tmp_path / "s").write_text(json.dumps(row) + "\n")
    assert files.claim(tmp_path / "s", "samples") == tmp_path / "s"


def test_an_output_is_no_input(tmp_path, tiny_folder):
    """Fails if an output may replace what the command reads: under another name, through a link,
    as a hard link, or a file inside a folder of weights or data.
    """
    weights = Path(shutil.copytree(tiny_folder, tmp_path / "weights"))
    write_own("expert", tmp_path / "e.safetensors")
    write_own("samples", tmp_path / "task.jsonl")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "e.safetensors")
    os.link(tmp_path / "e.safetensors", tmp_path / "hard.safetensors")
    (tmp_path / "to-weights").symlink_to(weights)
    inputs = (weights, tmp_path / "task.jsonl", None,
              str(tmp_path / "e.safetensors"), tmp_path / "nothing")
    for name, kind in (("e.safetensors", "expert"), ("a/../e.safetensors", "expert"),
                       ("link.safetensors", "expert"),
                       ("hard.safetensors", "expert"), ("task.jsonl", "samples")):
        (tmp_path / "a").mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="is an input of this command"):
            files.claim(tmp_path / name, kind, inputs)
    for name in ("weights/model.safetensors", "weights/new.safetensors",
                 "weights/a/new.safetensors", "to-weights/new.safetensors"):
        with pytest.raises(ValueError, match="lies in .*weights, which this command reads"):
            files.claim(tmp_path / name, "expert", inputs)
    cache = tmp_path / "snapshot"
    cache.mkdir()
    (cache / "model.safetensors").symlink_to(tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match="is an input of this command"):
        files.claim(tmp_path / "e.safetensors", "expert", [cache])
    files.claim(tmp_path / "new.safetensors", "expert", inputs)


def test_a_folder_called_like_a_task_or_an_expert_is_no_input(home, tiny_folder, monkeypatch):
    """Fails if `mkdir math` keeps the math expert from being written there."""
    monkeypatch.chdir(home)
    (home / "math").mkdir()
    files.claim_run("math/e.safetensors", task="math")
    args = SimpleNamespace(weights=tiny_folder, task="math", expert="math")
    assert "math" not in verbs.inputs(args)
    args.task = "mine.jsonl"
    assert "mine.jsonl" in verbs.inputs(args)
    with pytest.raises(ValueError, match="is an input of this command"):
        files.claim("mine.jsonl", "samples", verbs.inputs(args))


def test_a_picture_of_another_program_is_not_ours(tmp_path):
    """Fails if a person's own picture, drawn with matplotlib too, is replaced."""
    fig, ax = plots.panel("title")
    ax.figure.savefig(tmp_path / "theirs.png")
    with pytest.raises(ValueError, match="not a picture that t2mini drew"):
        files.claim(tmp_path / "theirs.png", "picture")
    for kind in ("png", "svg", "pdf"):
        fig, ax = plots.panel("title")
        plots.save(fig, tmp_path / f"ours.{kind}")
        files.claim(tmp_path / f"ours.{kind}", "picture")


def test_an_output_has_the_ending_of_its_kind(tmp_path):
    """Fails if an expert is written under a name that nothing finds it by,
    or the name of a folder is taken for a file's.
    """
    with pytest.raises(ValueError, match="e.bin must end in .safetensors"):
        files.claim(tmp_path / "e.bin", "expert")
    with pytest.raises(ValueError, match="p.txt must end in .png or .pdf or .svg"):
        files.claim(tmp_path / "p.txt", "picture")
    assert files.claim(tmp_path / "s", "samples") == tmp_path / "s"
    for path in (tmp_path, f"{tmp_path}/..", "/"):
        with pytest.raises(ValueError, match="is a folder; give the name of a file"):
            files.claim(path, "samples")


def test_a_place_that_cannot_be_written_is_found_first(tmp_path, monkeypatch):
    """Fails if a missing right, a file in place of a folder, an endless name or a full disk
    is found after hours of work.
    """
    (tmp_path / "file").write_text("x")
    for path, why in ((tmp_path / "file" / "e.safetensors", "Not a directory"),
                      (tmp_path / ("x" * 300 + ".safetensors"), "File name too long"),
                      (f"{tmp_path}/a\0.safetensors", "null")):
        with pytest.raises(ValueError, match=why):
            files.claim(path, "expert")
    closed, read_only = tmp_path / "closed", tmp_path / "kept.safetensors"
    closed.mkdir()
    write_own("expert", read_only)
    os.chmod(closed, 0o555)
    os.chmod(read_only, 0o444)
    for folder in (tmp_path, *tmp_path.parents):
        if os.stat(folder).st_uid == os.getuid() and "pytest" in str(folder):
            os.chmod(folder, os.stat(folder).st_mode | 0o055)
    root = os.getuid() == 0
    # root may write everywhere: be nobody for a moment
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(ValueError,
                           match="cannot write .*Permission denied; choose another output"):
            files.claim(closed / "new" / "e.safetensors", "expert")
    finally:
        if root:
            os.seteuid(0)
    monkeypatch.setattr(os, "access", lambda path, how: False)
    with pytest.raises(ValueError, match="may not be written to"):
        files.claim(read_only, "expert")
    monkeypatch.undo()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.claim(tmp_path / "e.safetensors", "expert")
    assert names(tmp_path) == ["closed", "file", "kept.safetensors"]


def test_home_folders_and_streams(tmp_path, monkeypatch):
    """Fails if ~ becomes a folder of that name, a samples file cannot go
    to a device, or an expert can.
    """
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.claim("~/a/e.safetensors", "expert") == tmp_path / "a" / "e.safetensors"
    with pytest.raises(ValueError, match="no such user"):
        files.claim("~nobody-of-this-name/e.safetensors", "expert")
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/null", tmp_path / "pipe"):
        with soon():
            assert files.claim(path, "samples") == Path(path)
            with pytest.raises(ValueError, match="is there and is not"):
                files.claim(path, "picture")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_device_is_found_first():
    """Fails if --samples-file=/dev/full is found out after the model has answered."""
    with pytest.raises(OSError, match="No space"):
        files.claim("/dev/full", "samples")


def test_a_pipe_is_written_when_somebody_reads_and_not_waited_for_for_ever(tmp_path, monkeypatch):
    """Fails if a pipe that nobody reads from hangs, or one that is read from a moment later gets
    nothing.
    """
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(files, "READERS", 0, raising=False)
    with soon(5), pytest.raises(ValueError, match="nobody reads from the pipe .*pipe"):
        with files.replacing(tmp_path / "pipe"):
            pass
    monkeypatch.setattr(files, "READERS", 60)
    readers = []
    monkeypatch.setattr(files.time, "sleep", lambda seconds: readers.append(
        os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)))
    with soon(), files.replacing(tmp_path / "pipe") as f:
        f.write(b"rows\n")
        f.flush()
        assert os.read(readers[0], 99) == b"rows\n"
    assert (tmp_path / "pipe").is_fifo() and len(readers) == 1
    os.close(readers[0])


def test_a_folder_for_an_export_is_new_or_empty(tmp_path, monkeypatch):
    """Fails if a folder with files in it is taken, or an empty one refused,
    but one that cannot be replaced in the end, as it is a mount point.
    """
    assert files.claim(tmp_path / "new", "folder") == tmp_path / "new"
    assert files.claim(tmp_path, "folder") == tmp_path and not names(tmp_path)
    with monkeypatch.context() as mounted:
        mounted.setattr(os.path, "ismount", lambda path: path == tmp_path)
        with pytest.raises(ValueError, match="is a mount point"):
            files.claim(tmp_path, "folder")
    (tmp_path / "mine").write_text("x")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ValueError, match="is not an empty folder"):
            files.claim(path, "folder")
    with pytest.raises(ValueError, match="which this command reads"):
        files.claim(tmp_path / "new", "folder", [tmp_path])


# ------------------------------------------------------------------------------- one run per output
def test_the_second_run_is_refused_and_a_kill_frees_the_lock(tmp_path):
    """Fails if two runs may write one output, a folder cannot be locked,
    or a killed run leaves a lock behind.
    """
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
            told = [line for line in capsys.readouterr().err.splitlines()
                    if line.startswith("t2mini: ")]
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
    children = [forked(lambda: [svf.decompose(W * k, tmp_path / "svd") for k in range(1, 9)])
                for _ in range(3)]
    assert [os.waitpid(c, 0)[1] for c in children] == [0, 0, 0] and counted.read_bytes() == b"x" * 8
    assert len(names(tmp_path / "svd")) == 8
    assert all(n.endswith(".safetensors") for n in names(tmp_path / "svd"))


@pytest.mark.parametrize("patience", [0, 60])
def test_a_process_that_keeps_the_cache_is_told_of_and_not_waited_for_for_ever(
        tmp_path, monkeypatch, capsys, patience):
    """Fails if one waits in silence, or for ever, for a process that holds the folder and does
    nothing; or does not wait for one that soon lets it go.
    """
    folder, W = tmp_path / "svd", torch.rand(8, 6)
    folder.mkdir()
    held = ExitStack()
    held.enter_context(files.only_one(folder))
    monkeypatch.setattr(svd_cache, "PATIENCE", patience)
    monkeypatch.setattr(svd_cache.time, "sleep", lambda seconds: held.close())
    with soon():
        factors = svf.decompose(W, folder)
    err = capsys.readouterr().err
    assert all(map(torch.equal, factors, svd_cache.svd(W))) and len(names(folder)) == 1
    assert err.count("waiting for another process that fills ") == (patience > 0)
    held.close()


# ---------------------------------------------------------------------------------- full and closed
@pytest.mark.parametrize("when", ["checkpoint", "log", "cache"])
def test_a_full_disk_is_one_line_and_loses_nothing(home, tiny_folder, capsys, monkeypatch, when):
    """Fails if a disk that fills up ends in a traceback, damages what was there,
    or leaves half files.
    """
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
    """Fails if a file that the system cut off takes the place of the old one.
    (A limit on file size plays the full disk.)
    """
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
def test_a_read_only_folder_is_one_line(home, tiny_folder, capsys, monkeypatch, closed):
    """Fails if a folder that cannot be written to ends in a traceback or in silence."""
    # imports all that nobody might not be allowed to read
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(experts, "SVD_CACHE", home / "first")
        assert cli.main(train_args(home, tiny_folder, f"--out={home}/first/e.safetensors")) == 0
    capsys.readouterr()
    for name in ("out", "svd"):
        (home / name).mkdir()
        os.chmod(home / name, 0o555 if name == closed else 0o777)
    os.chmod(tiny_folder / "model.safetensors", 0o644)
    for folder in (tiny_folder, *tiny_folder.parents, *home.parents, home):
        if os.stat(folder).st_uid == os.getuid() and "pytest" in str(folder):
            os.chmod(folder, os.stat(folder).st_mode | 0o055)
    root = os.getuid() == 0
    # root may write everywhere: be nobody for a moment
    if root:
        os.seteuid(65534)
    try:
        status = cli.main(train_args(home, tiny_folder, f"--out={home}/out/e.safetensors"))
    finally:
        if root:
            os.seteuid(0)
    err = capsys.readouterr().err
    told = [x for x in err.splitlines() if x.startswith("t2mini: ")]
    if closed == "svd":                                     # a cache: done without
        assert status == 0
        assert not told and err.count("are not kept in") == err.count("Permission denied") == 1
    else:
        assert status == 1
        assert len(told) == 1 and "Permission denied" in told[0] and closed in told[0]


# ----------------------------------------------------------------------------------- the same twice
def test_the_same_command_gives_the_same_bytes(home, tiny_folder, capsys):
    """Fails if a clock, an address, the order of a set or a process shows in what a run writes;
    or in another process anything does. (The log's seconds are measured, so they are left out.)
    """
    args = train_args(home, tiny_folder, f"--out={home}/out/e.safetensors")
    expert, log = home / "out" / "e.safetensors", home / "out" / "e.jsonl"

    def ran(run):
        run()
        rows = [{k: v for k, v in json.loads(r).items() if not k.startswith("sec")}
                for r in log.read_text().splitlines()]
        return expert.read_bytes(), rows

    def alone():
        code = ("import sys, torch; torch.set_num_threads(1); "
                f"sys.argv[0] = {sys.argv[0]!r}; sys.argv[1:] = {sys.argv[1:]!r}\n"
                f"from t2mini.__main__ import main; sys.exit(main({args!r}))")
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)

    first = ran(lambda: cli.main(args))
    assert ran(lambda: cli.main(args)) == first
    assert ran(alone) == first
    scores = []
    for _ in range(2):
        capsys.readouterr()
        assert cli.main(["eval", f"--task={home}/mine.jsonl", f"--weights={tiny_folder}",
                         "--dtype=float32", "--device=cpu", f"--expert={expert}", "--n=4", "--json",
                         f"--samples-file={home}/s{len(scores)}"]) == 0
        scores.append({k: v for k, v in json.loads(capsys.readouterr().out.splitlines()[-1]).items()
                       if k != "seconds"})
    assert scores[0] == scores[1] and (home / "s0").read_bytes() == (home / "s1").read_bytes()


def test_an_expert_names_its_base(home, tiny_folder):
    """Fails if the file lacks what is needed to check that z meets the matrices it was trained on.
    """
    model, tokenizer = t2mini.load(tiny_folder, device="cpu", dtype="float32")
    cfg = TrainConfig(task=f"{home}/mine.jsonl", steps=1, prompts=1,
                      samples=2, val_n=2, max_tokens=2)
    train.train(model, tokenizer, cfg, home / "e.safetensors", log=lambda text: None)
    meta = experts.read_metadata(home / "e.safetensors")
    assert meta["base_sha256"] == files.file_hash([tiny_folder / "model.safetensors"])
    assert {"base_model", "torch", "dtype", "threads", "seed", "config", "modules"} <= meta.keys()

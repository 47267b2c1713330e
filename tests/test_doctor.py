"""doctor tells what is here, and names the command for everything that is not."""
import json
import shutil
import subprocess

import pytest
import torch
from test_cli import call, home     # noqa: F401
from test_sight import TINY_TOWER
from test_weights import split_in_two

from t2mini.machine import cores, device, files as disk
from t2mini import __main__ as cli
from t2mini import experts, svf
from t2mini.formats import download
from t2mini.lab import doctor
from t2mini.questions import sandbox
from t2mini.sight import towers
from t2mini.sight.tower import Tower


@pytest.fixture
def look(home, monkeypatch, capsys):     # noqa: F811
    """A machine of its own: nothing in weights/, nothing shipped.
    -> function giving the JSON and the text.
    """
    monkeypatch.setattr(download, "ROOT", home)
    monkeypatch.setattr(experts, "SHIPPED", home / "shipped")

    def run():
        capsys.readouterr()
        assert cli.main(["doctor", "--json"]) == 0
        text = capsys.readouterr().out
        return json.loads(text.splitlines()[-1]), text
    return run


def test_what_is_missing_comes_with_its_command(look, monkeypatch):
    """Fails if an empty machine is called complete,
    or a gap is told without the command that mends it.
    """
    monkeypatch.setattr(sandbox, "features", lambda: {"memory": True, "network": False,
                                                      "files": True, "processes": True})
    monkeypatch.setattr(doctor, "PACKAGES", (*doctor.PACKAGES, "no-such-package"))
    found, text = look()
    commands = {m["what"].split(":")[0]: m["command"] for m in found["missing"]}
    assert commands["the package no-such-package"] == "make setup"
    assert commands["the default weights"] == "make weights"
    assert any("sandbox" in what for what in commands)
    assert any("--allow-code" in command for command in commands.values())
    assert all(m["command"] in text for m in found["missing"])
    assert "network NOT locked" in found["sandbox"]
    assert "decompositions" in found["svd cache"] and "make clean" in found["svd cache"]


def test_weights_that_cannot_be_read_can_be_put_aside(look, home, tiny_folder):     # noqa: F811
    """Fails if an unreadable model is passed over in silence, hides what else is here, or its
    command does not end the complaint.
    """
    (home / "weights").mkdir()
    shutil.copytree(tiny_folder, home / "weights" / "ill")
    (home / "weights" / "ill" / "model.safetensors.index.json").write_text("{")
    (home / "weights" / "ill" / "model.safetensors").unlink()
    found, _ = look()
    [told] = [m for m in found["missing"] if m["what"].startswith("ill, which can be read")]
    assert "svd cache" in found
    subprocess.run(told["command"], shell=True, check=True)
    found, _ = look()
    assert not [m for m in found["missing"] if "ill" in m["what"].split(",")[0].split()]
    assert (home / "weights" / ".ill.unread").is_dir()


def test_the_parts_of_a_model_are_one_model(look, home):
    """Fails if each part of a split .gguf is told as a model, or an expert of all of them has a
    base that is not here.
    """
    (home / "weights").mkdir()
    parts = split_in_two(home / "weights")
    whole = disk.file_hash(parts)
    experts.save_expert(home / "out" / "a.safetensors", {"q": torch.ones(2)},
                        {"base_sha256": whole, "task": "math"})
    found, _ = look()
    assert found[parts[0].name].startswith(f"sha256 {whole[:16]}...")
    assert parts[1].name not in found
    assert found["out/a.safetensors"].endswith(f"base {parts[0].name}")
    parts[1].unlink()
    found, _ = look()
    assert any(f"all parts of {parts[0].name}" in m["what"] for m in found["missing"])


def test_a_copy_of_the_default_weights_does_not_hide_them(look, home, monkeypatch):
    """Fails if the default weights are called missing where another file has the same bytes."""
    (home / "weights").mkdir()
    names = ("A.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf", "copy.gguf")
    for name in names:
        (home / "weights" / name).write_bytes(b"the same")
    found, _ = look()
    assert all(name in found for name in names)
    assert "the default weights" not in [m["what"] for m in found["missing"]]


def test_what_is_here_is_told_with_its_hash(look, home, tiny_folder, loaded):     # noqa: F811
    """Fails if weights or experts are not found, a hash is another file's,
    an expert is tied to the wrong base, or a damaged one is passed over.
    """
    (home / "weights").mkdir()
    (home / "weights" / "tiny").symlink_to(tiny_folder)
    (home / "weights" / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"not it")
    model, _ = loaded
    svf.attach(model, progress=False)
    for name, base in (("a", model.base_sha256), ("b", "f" * 64)):
        experts.save_expert(home / "out" / f"{name}.safetensors", svf.get_z(model),
                            {"base_sha256": base, "task": "math"})
    (home / "out" / "cut.safetensors").write_bytes(
        (home / "out" / "a.safetensors").read_bytes()[:-5])
    (home / "out" / "allow-code").touch()
    towers.save(home / "out" / "tower.safetensors", Tower(TINY_TOWER), {"base_sha256": "0"})
    found, _ = look()
    assert found["tiny"].startswith(f"sha256 {model.base_sha256[:16]}...")
    mine = disk.file_hash([home / "out" / "a.safetensors"])
    assert found["out/a.safetensors"] == f"sha256 {mine[:16]}..., task math, base tiny"
    assert "which is not here" in found["out/b.safetensors"] and "may run" in found["consent"]
    what = {m["what"]: m["command"] for m in found["missing"]}
    assert any("damaged or another file" in w and c == "make weights" for w, c in what.items())
    mine = home / "out" / "cut.safetensors"
    assert any("out/cut.safetensors" in w and c == f"mv {mine} {mine}.unread"
               for w, c in what.items())
    assert "a tower that sees images" in found["out/tower.safetensors"]
    assert not any("tower" in w for w in what)


@pytest.mark.parametrize("units, dtype",
                         [(["avx512_bf16", "amx_bf16"], torch.bfloat16), ([], torch.float32)])
def test_the_choice_of_numbers_is_explained(look, monkeypatch, units, dtype):
    """Fails if the dtype is named without its reason, or another than what the processor can do,
    or than a run takes; or cores, memory and processes are left out.
    """
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(device, "cpu_units", lambda: units)
    found, _ = look()
    name = str(device.pick("cpu")[1]).removeprefix("torch.")
    assert found["dtype"].startswith(f"{name} (--dtype): this processor ")
    assert ", ".join(units) in found["dtype"]
    assert dtype == device.pick("cpu")[1]
    assert {"python", "packages", "cores", "memory", "disk", "cuda",
            "processes", "sandbox"} <= found.keys()


@pytest.mark.parametrize("threads, got, said", [(1, 0.2, "busy: other programs take the cores (1 "),
                                                (2, 1.1, "busy: other"), (2, 1.9, "quiet (2 ")])
def test_a_thread_that_waits_for_a_core_is_not_called_quiet(look, monkeypatch, threads, got, said):
    """Fails if a single thread that gets a fifth of a core is said to run on a quiet machine."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(cores, "free", lambda threads: got)
    found, _ = look()
    assert found["load"].startswith(said)
    assert ("--threads=1 is faster" in found["load"]) == (threads == 2 and got < 1.5)

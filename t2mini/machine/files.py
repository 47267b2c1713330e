"""
Files that are whole or not there, and outputs that belong to one run at a time.

How:      a file is written beside its place under another name, made durable, and moved over in one step. So a kill, a
          crash or a full disk leaves the old file or the new one, never a part. What is half written has a name that
          nothing reads, and goes when the next run takes the same lock.
Locks:    flock belongs to the open file, and the system drops it when the process ends, however it ends: there is no
          stale lock to remove by hand.
"""
import fcntl
import glob
import hashlib
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}     # what experts, checkpoints and caches hold


@contextmanager
def replacing(path):
    """A binary file to write to. It becomes `path` when the block ends well; otherwise `path` stays as it was."""
    path = Path(path)
    if path.exists() and not path.is_file():                # /dev/stdout and the like are written, never replaced
        with open(path, "wb") as file:
            yield file
        return
    path = path.resolve()                                   # a link stays a link
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temp = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temp, 0o644)                               # mkstemp makes files that only the owner can read
        os.replace(temp, path)
    finally:
        Path(temp).unlink(missing_ok=True)


def sweep(path):
    """Remove what killed runs left of `path` (its name may hold *). Only for who holds the lock of it."""
    path = Path(path)
    for temp in glob.glob(f"{glob.escape(str(path.parent))}/.{path.name}.*.tmp"):
        Path(temp).unlink(missing_ok=True)


@contextmanager
def only_one(path, wait=False):
    """Hold the lock of `path`, a folder or a file (created empty), in the block. -> its file descriptor.

    Raises ValueError where another process holds it; with wait=True it waits for its turn instead.
    """
    path = Path(path)
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(f"another run is writing {path}; wait until it ends, or choose another output") from None
        yield handle
    finally:
        os.close(handle)


def save_tensors(path, tensors, metadata):
    """Write a safetensors file, atomically; the same content always gives the same bytes.

    (The library's own writer orders the metadata differently in every process.)
    """
    header, end = {"__metadata__": {k: v if isinstance(v, str) else json.dumps(v) for k, v in sorted(metadata.items())}}, 0
    for name, t in sorted(tensors.items()):
        start, end = end, end + t.numel() * t.element_size()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)                         # the numbers start at a multiple of eight
    with replacing(path) as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for _, t in sorted(tensors.items()):
            f.write(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def file_hash(files):
    """sha256 over the bytes of the files, in order."""
    h = hashlib.sha256()
    for path in files:
        with open(path, "rb") as f:
            while chunk := f.read(1 << 22):
                h.update(chunk)
    return h.hexdigest()

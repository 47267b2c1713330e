"""
Read a GGUF file: metadata and tensors, de-quantised to float32 (the format the default weights come in).

Kept:     GGUF version 2 and 3; F32, F16, BF16, Q8_0, Q4_0, Q4_1.
Left out: K-quants and writing. An unsupported type is refused by its name.
Safety:   every count, length and offset is checked against the file's size before anything is allocated for it.
"""
import mmap
import struct
from pathlib import Path

import numpy as np
import torch

# id -> (name, values per block, bytes per block)
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34),
         30: ("BF16", 1, 2)}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9


class Reader:
    """A cursor over the file that refuses to run past its end."""

    def __init__(self, path, data):
        self.path, self.data, self.at = path, data, 0

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise ValueError(f"{self.path}: truncated or damaged GGUF file (download it again)")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, code):
        return struct.unpack("<" + code, self.take(struct.calcsize(code)))[0]

    def string(self):
        return bytes(self.take(self.number("Q"))).decode("utf-8", "replace")

    def value(self, kind):
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            raise ValueError(f"{self.path}: unknown GGUF value type {kind} (damaged file)")
        inner, count = self.number("I"), self.number("Q")
        if inner in SCALARS:                                # one read instead of `count` small ones
            size = struct.calcsize(SCALARS[inner])
            return list(struct.unpack(f"<{count}{SCALARS[inner]}", self.take(count * size)))
        if inner != STRING or count > len(self.data) // 8:  # a string takes 8 bytes at least
            raise ValueError(f"{self.path}: damaged GGUF array of {count} values of type {inner}")
        return [self.string() for _ in range(count)]


def read_gguf(path):
    """-> (metadata dict, tensors dict name -> function that gives the float32 torch tensor).

    Shapes are torch's (GGUF lists dimensions in reverse). Raises ValueError on a damaged or unsupported file and
    FileNotFoundError where there is none.
    """
    path = Path(path)
    with open(path, "rb") as f:
        if path.stat().st_size < 32:
            raise ValueError(f"{path}: not a GGUF file (only {path.stat().st_size} bytes)")
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    r = Reader(path, data)
    if r.take(4) != b"GGUF":
        raise ValueError(f"{path}: not a GGUF file (wrong first bytes)")
    version, n_tensors, n_keys = r.number("I"), r.number("Q"), r.number("Q")
    if version not in (2, 3):
        raise ValueError(f"{path}: GGUF version {version} is not supported (2 and 3 are)")
    if n_tensors > len(data) // 24 or n_keys > len(data) // 12:
        raise ValueError(f"{path}: damaged GGUF header ({n_tensors} tensors, {n_keys} keys)")
    meta = {}
    for _ in range(n_keys):
        key = r.string()
        meta[key] = r.value(r.number("I"))
    infos = []
    for _ in range(n_tensors):
        name, n_dims = r.string(), r.number("I")
        if n_dims > 4:
            raise ValueError(f"{path}: tensor {name[:40]!r} claims {n_dims} dimensions (damaged file)")
        dims = [r.number("Q") for _ in range(n_dims)]
        infos.append((name, tuple(reversed(dims)), r.number("I"), r.number("Q")))
    align = meta.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1 or align & (align - 1):
        raise ValueError(f"{path}: alignment {align!r} is not a power of two (damaged file)")
    start = (r.at + align - 1) // align * align
    tensors = {}
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise ValueError(f"{path}: tensor {name!r} is listed twice")
        tensors[name] = lazy_tensor(path, data, name, shape, kind, start + offset)
    return meta, tensors


def lazy_tensor(path, data, name, shape, kind, at):
    """A function that de-quantises one tensor; type and extent are checked now, memory is used only when called."""
    if kind not in TYPES:
        raise ValueError(f"{path}: tensor {name!r} has GGUF type {kind}, which is not supported "
                         f"(supported: {', '.join(t[0] for t in TYPES.values())})")
    type_name, per_block, block_bytes = TYPES[kind]
    count = 1
    for d in shape:
        count *= d
    if count == 0 or (shape or (1,))[-1] % per_block:
        raise ValueError(f"{path}: tensor {name!r} of shape {shape} does not fit {type_name} blocks")
    size = count // per_block * block_bytes
    if at + size > len(data):
        raise ValueError(f"{path}: tensor {name!r} reaches past the end of the file (truncated; download it again)")

    def read():
        raw = np.frombuffer(data, np.uint8, size, at)
        return torch.from_numpy(dequantize(raw, type_name)).view(shape)
    return read


def dequantize(raw, type_name):
    """Bytes (n,) -> float32 values. Blocks of 32: Q8_0 d*q, Q4_0 d*(q - 8), Q4_1 d*q + min; d and min are float16."""
    if type_name == "F32":
        return raw.view(np.float32).copy()
    if type_name == "F16":
        return raw.view(np.float16).astype(np.float32)
    if type_name == "BF16":                                 # the high half of a float32
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    blocks = raw.reshape(-1, {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}[type_name])
    d = blocks[:, :2].copy().view(np.float16).astype(np.float32)            # (n_blocks, 1)
    if type_name == "Q8_0":
        return (d * blocks[:, 2:].view(np.int8)).astype(np.float32).reshape(-1)
    q = blocks[:, -16:]
    q = np.concatenate((q & 15, q >> 4), 1).astype(np.float32)              # low nibbles are values 0-15, high 16-31
    if type_name == "Q4_0":
        return (d * (q - 8)).reshape(-1)
    low = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
    return (d * q + low).reshape(-1)

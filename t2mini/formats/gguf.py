"""
Read a GGUF file: metadata and tensors, de-quantised to float32 (the format the default weights come
in).

Kept:     GGUF version 2 and 3; F32, F16, BF16; blocks of 32: Q8_0, Q4_0, Q4_1, Q5_0, Q5_1; of 256:
          Q4_K, Q5_K, Q6_K.
Left out: writing, and the types below 4 bits. An unsupported type is refused by its number.
Safety:   every count, length and offset is checked against the file's size before anything is
          allocated for it.
"""
import mmap
import re
import stat
import struct
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import torch

# id -> (name, values per block, bytes per block)
TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2),
    2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210)}
AT_ONCE = 1 << 20                           # values de-quantised at a time
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
           12: "d"}
STRING, ARRAY = 8, 9


class Lazy(NamedTuple):
    """A tensor that is still in its file; `read(device, dtype)` fetches it, straight to where it is
    wanted."""
    shape: tuple
    read: Callable

    def __call__(self, device="cpu", dtype=torch.float32):
        return self.read(device, dtype)


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
        """One metadata value of the numbered kind; ValueError for an unknown kind or an array
        longer than the file."""
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
    """-> (metadata dict, tensors dict name -> Lazy, which gives the torch tensor).

    Shapes are torch's (GGUF lists dimensions in reverse). Raises ValueError on a damaged or
    unsupported file and FileNotFoundError where there is none.
    """
    path = Path(path)
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
        raise ValueError(f"{path}: not a regular file")
    if found.st_size < 32:
        raise ValueError(f"{path}: not a GGUF file (only {found.st_size} bytes)")
    with open(path, "rb") as f:
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
            raise ValueError(f"{path}: tensor {name[:40]!r} claims {n_dims} dimensions (damaged "
                             "file)")
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


PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.S)


def read_parts(path):
    """As `read_gguf`, for a file that may be one part of several. -> (paths of all parts in order,
    metadata, tensors).

    The parts of a split file lie in one folder and are called NAME-00001-of-00002.gguf and so on;
    the first one holds the metadata. FileNotFoundError where one is missing.
    """
    path = Path(path)
    meta, tensors = read_gguf(path)
    count = meta.get("split.count", 0)
    if type(count) is not int or count < 2:
        return [path], meta, tensors
    number = meta.get("split.no", 0)
    if type(number) is not int:
        raise ValueError(f"{path}: split.no is {number!r:.40}, no number (damaged file)")
    here = f"{path}: this is part {number + 1} of {count} of a split GGUF file"
    named = PART.fullmatch(path.name)
    if not named or int(named[3]) != count or not 0 < int(named[2]) <= count:
        raise ValueError(f"{here}; put all parts into one folder under their names "
                         f"NAME-00001-of-{count:05d}.gguf")
    paths = [path.with_name(f"{named[1]}-{i + 1:05d}-of-{count:05d}.gguf") for i in range(count)]
    missing = [p.name for p in paths if not p.exists()]
    if missing:
        raise FileNotFoundError(f"{here}, but {missing[0]} is not beside it; download it too")
    parts = [read_gguf(p) for p in paths]
    meta, tensors = parts[0]
    for number, (other, more) in enumerate(parts):
        if other.get("split.count") != count or other.get("split.no") != number:
            raise ValueError(f"{paths[number]}: not part {number + 1} of {count} (damaged, or of "
                             "another file)")
        twice = sorted(more.keys() & tensors.keys()) if number else []
        if twice:
            raise ValueError(f"{paths[number]}: tensor {twice[0]!r} is in two parts")
        tensors |= more
    total = meta.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise ValueError(f"{paths[0]}: the {count} parts hold {len(tensors)} tensors, not "
                         f"{total} (damaged file?)")
    return paths, meta, tensors


def lazy_tensor(path, data, name, shape, kind, at):
    """One tensor as Lazy; type and extent are checked now, memory is used only when it is
    called."""
    if kind not in TYPES:
        raise ValueError(f"{path}: tensor {name!r} has GGUF type {kind}, which is not supported "
                         f"(supported: {', '.join(t[0] for t in TYPES.values())})")
    type_name, per_block, block_bytes = TYPES[kind]
    count = 1
    for d in shape:
        count *= d
    if count == 0 or (shape or (1,))[-1] % per_block:
        raise ValueError(f"{path}: tensor {name!r} of shape {shape} does not fit {type_name} "
                         "blocks")
    size = count // per_block * block_bytes
    if at + size > len(data):
        raise ValueError(f"{path}: tensor {name!r} reaches past the end of the file (truncated; "
                         "download it again)")

    def read(device, dtype):  # in pieces: the float32 form of all of it never exists
        raw = np.frombuffer(data, np.uint8, size, at).reshape(-1, block_bytes)
        out, rows = torch.empty(count, device=device, dtype=dtype), AT_ONCE // per_block
        for i in range(0, len(raw), rows):
            values = dequantize(raw[i:i + rows], type_name)
            out[i * per_block:(i + rows) * per_block] = torch.from_numpy(values)
        return out.view(shape)
    return Lazy(shape, read)


def dequantize(raw, type_name):
    """Bytes of whole blocks -> float32 values (n,). q is the stored integer, d and min are float16
    scales:

    Q8_0 d*q, Q4_0 d*(q - 8), Q5_0 d*(q - 16), Q4_1 and Q5_1 d*q + min; the K types have 8 or 16
    scales of their own in each block of 256, themselves times d: see `k_quant`.
    """
    if type_name == "F32":
        return raw.reshape(-1).view(np.float32).copy()
    if type_name == "F16":
        return raw.reshape(-1).view(np.float16).astype(np.float32)
    if type_name == "BF16":                                 # the high half of a float32
        return (raw.reshape(-1).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    blocks = raw.reshape(-1, next(size for name, _, size in TYPES.values() if name == type_name))
    if type_name.endswith("K"):
        return k_quant(blocks, type_name).reshape(-1)
    d = half(blocks[:, :2])                                 # (n_blocks, 1)
    if type_name == "Q8_0":
        return (d * blocks[:, 2:].view(np.int8)).reshape(-1)
    # low nibbles are values 0-15, high 16-31
    q = np.concatenate((blocks[:, -16:] & 15, blocks[:, -16:] >> 4), 1)
    if type_name[1] == "5":                                 # the fifth bits, value 0 in the lowest
        q = q | np.unpackbits(blocks[:, -20:-16], 1, bitorder="little") << 4
    q = q.astype(np.float32)
    if type_name[3] == "1":
        return (d * q + half(blocks[:, 2:4])).reshape(-1)
    return (d * (q - {"4": 8, "5": 16}[type_name[1]])).reshape(-1)


def half(b):
    """(n, 2) bytes -> (n, 1) float32, read as float16."""
    return np.ascontiguousarray(b).view(np.float16).astype(np.float32)


def k_quant(b, type_name):
    """Blocks (n, bytes) of 256 values -> (n, groups, values of a group) float32.

    Q4_K, Q5_K: 8 groups, value = (d * scale) * q - (dmin * low); scale and low have 6 bits each,
    packed in 12 bytes.
    Q6_K: 16 groups, value = (d * scale) * (q - 32), scale int8; the low 4 bits of q lie in `ql`,
    the high 2 in `qh`.
    """
    n = len(b)
    if type_name == "Q6_K":
        ql, qh = b[:, :128].reshape(n, 2, 1, 64), b[:, 128:192].reshape(n, 2, 1, 32)
        low = (ql >> np.array([0, 4], np.uint8)[:, None]) & 15                      # (n, 2, 2, 64)
        high = (qh >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3                # (n, 2, 4, 32)
        q = (low.reshape(n, 16, 16) | high.reshape(n, 16, 16) << 4).astype(np.int8) - 32
        scale = b[:, 192:208].view(np.int8).astype(np.float32)
        return half(b[:, 208:])[:, :, None] * scale[:, :, None] * q
    s = b[:, 4:16].reshape(n, 3, 4)  # scales 0-3, lows 0-3 (6 bits each), then nibbles of 4-7
    scale = np.concatenate((s[:, 0] & 63, (s[:, 2] & 15) | (s[:, 0] >> 6 << 4)), 1)
    low = np.concatenate((s[:, 1] & 63, (s[:, 2] >> 4) | (s[:, 1] >> 6 << 4)), 1)
    qs = b[:, -128:].reshape(n, 4, 1, 32)                   # each byte holds two values, 32 apart
    q = ((qs >> np.array([0, 4], np.uint8)[:, None]) & 15).reshape(n, 8, 32)
    if type_name == "Q5_K":  # bit g of byte i is the fifth bit of value i of group g
        q = q | ((b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & 1) << 4
    scale = half(b[:, :2]) * scale.astype(np.float32)
    low = half(b[:, 2:4]) * low.astype(np.float32)
    return scale[:, :, None] * q - low[:, :, None]

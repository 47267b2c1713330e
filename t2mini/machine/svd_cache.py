"""
The decomposition of a weight matrix, kept on disk: made once, read ever after.
"""
import hashlib
import sys
import time
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import files

FACTORS = ("U", "S", "Vt")
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}     # by size: a tensor seen as bytes


def svd(W):
    """W (m, n) -> U (m, r), S (r,), Vt (r, n), decomposed in float32 (bfloat16 has no SVD
    kernel)."""
    return tuple(torch.linalg.svd(W.detach().float(), full_matrices=False))


def decompose(W, cache=None):
    """W (m, n) -> U (m, r), S (r,), Vt (r, n) in float32, on W's device.

    The cache is keyed by the tensor's bytes, shape and dtype, so it can never return another
    matrix's factors.
    """
    if cache is None:
        return svd(W)
    key = fingerprint(W)
    path = Path(cache) / f"{key[:32]}.safetensors"
    factors = cached(path, key, W.device)
    if factors is not None:
        return factors
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.only_one(path.parent, wait=True):    # processes that start together share the work
        factors = cached(path, key, W.device)
        if factors is None:
            files.sweep(path.parent / "*.safetensors")
            factors = svd(W)
            told = {"key": key, "torch": torch.__version__}
            files.save_tensors(path, dict(zip(FACTORS, factors)), told)
    return factors


def decompose_all(weights, cache=None, progress=True):
    """dict name -> W, to pairs (name, factors) one by one. ValueError names a W without an SVD."""
    told = Countdown(len(weights), progress)
    for name, W in weights.items():
        try:
            factors = decompose(W, cache)
        except torch.linalg.LinAlgError as e:
            raise ValueError(f"the SVD of {name} failed: {e}") from None
        told.one_more()
        yield name, factors


def fingerprint(W):
    """sha256 of W's bytes, shape and dtype."""
    host = W.detach().contiguous().cpu()
    raw = host.view(INTEGERS[host.element_size()]).numpy().tobytes()
    return hashlib.sha256(raw + f"{tuple(W.shape)} {W.dtype}".encode()).hexdigest()


def cached(path, key, device):
    """(U, S, Vt) of the cache file at path; None where there is none, or it is damaged or another
    matrix's."""
    try:
        with safe_open(path, "pt", device=str(device)) as f:
            if f.metadata()["key"] == key:
                return tuple(f.get_tensor(name) for name in FACTORS)
    except (FileNotFoundError, SafetensorError, KeyError, TypeError):
        pass
    return None


class Countdown:
    """How many matrices are decomposed, once a second on stderr; nothing where all is quick."""

    def __init__(self, total, wanted):
        self.total, self.wanted = total, wanted
        self.done = 0
        self.start = self.said = time.time()

    def one_more(self):
        self.done += 1
        now = time.time()
        last = self.done == self.total and self.said > self.start
        if not self.wanted or not last and now < self.said + 1:
            return
        self.said = now
        left = (now - self.start) / self.done * (self.total - self.done)
        text = f"\rdecomposing {self.done}/{self.total} matrices, {left:3.0f} s left "
        print(text, end="\n" if last else "", file=sys.stderr, flush=True)

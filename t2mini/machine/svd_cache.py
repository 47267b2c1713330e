"""
The decomposition of a weight matrix, kept on disk: made once, read ever after.

Side by side: the threads of one SVD wait for each other, on a busy machine thirty times longer than
          they compute. So each matrix has one thread, and several matrices are decomposed at once;
          a matrix alone has one thread too, so its factors never depend on how many there are.
Guards:   an entry's name is a hash of the matrix it belongs to, so it can never be another's; a
          checksum of the factors tells flipped bits. What is damaged is made anew. A folder that
          cannot be written to, or a full disk, costs time and not the answer.
"""
import hashlib
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import files
from .text import one_line

FACTORS = ("U", "S", "Vt")
PATIENCE = 300                              # seconds to wait for a process that fills the cache
LOOK = 0.1                                  # seconds between two looks at whether it is done
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}     # by size: a tensor seen as bytes


def decompose(W, cache=None):
    """W (m, n) -> U (m, r), S (r,), Vt (r, n) in float32, on W's device. ValueError where W has no
    SVD. cache: a folder, created; None decomposes anew."""
    (_, factors), = decompose_all({"this matrix": W}, cache, progress=False)
    return factors


def decompose_all(weights, cache=None, progress=True):
    """dict name -> W, to pairs (name, factors) in any order, as soon as they are there. ValueError
    names a W without an SVD."""
    missing = dict(weights)
    if cache is not None:
        cache = Cache(cache)
        told = Countdown("reading the decompositions", len(weights), progress)
        for name, factors in side_by_side(cache.read, weights):
            told.one_more()
            if factors is not None:
                del missing[name]
                yield name, factors
    if not missing:
        return
    told = Countdown("decomposing", len(missing), progress)
    if cache is None:
        made = side_by_side(svd, missing)
    else:
        made = cache.filled(missing)
    for name, factors in made:
        told.one_more()
        yield name, factors


def svd(W):
    """Decomposed in float32 (bfloat16 has no SVD kernel); row-major, as they are read from a file:
    the same products the first time and later."""
    factors = torch.linalg.svd(W.detach().float(), full_matrices=False)
    return tuple(factor.contiguous() for factor in factors)


def side_by_side(work, weights):
    """work(W) of every W, on as many threads as torch may use, each of which computes alone. Yields
    (name, result) in order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if all(W.device.type == "cpu" for W in weights.values()):
            pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
            with pool:
                yield from named(weights, pool.map(work, weights.values()))
        else:
            yield from named(weights, map(work, weights.values()))
    finally:
        torch.set_num_threads(threads)


def named(weights, results):
    for name in weights:
        try:
            yield name, next(results)
        except torch.linalg.LinAlgError as e:
            raise ValueError(f"the SVD of {name} failed: {e}") from None


class Cache:
    """A folder with one file of factors per matrix."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.usable = True

    def read(self, W):
        """(U, S, Vt); None where they are not there, or damaged."""
        key = fingerprint(W)
        try:
            with safe_open(self.path(key), "pt") as f:
                told = f.metadata()
                factors = [f.get_tensor(name) for name in FACTORS]
        except (OSError, SafetensorError):
            return None
        if not told or told.get("key") != key or told.get("crc32") != checksum(factors):
            return None
        return tuple(t.to(W.device) for t in factors)

    def filled(self, weights):
        """Decompose and keep them. Yields (name, factors).

        Processes that start together share the work: the first one does it, the others wait, but
        not for ever: whoever holds the folder may be stopped, or may never let it go.
        """
        with self.lock():
            yield from side_by_side(self.read_or_make, weights)

    @contextmanager
    def lock(self):
        """Hold the folder; where that cannot be done, go on without it."""
        with ExitStack() as held:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if self.turn(held):
                    files.sweep(self.folder)
            except OSError as e:
                self.give_up(e)
            yield

    def turn(self, held):
        """Wait for the folder, and hold it in `held`. -> is it held?

        False after PATIENCE: then the work goes on beside the other process. Files are written
        whole, so what is lost is time.
        """
        end, told = time.monotonic() + PATIENCE, False
        while True:
            try:
                held.enter_context(files.only_one(self.folder))
                return True
            except ValueError:                              # another process holds it
                if time.monotonic() >= end:
                    return False
            if not told:
                print(one_line(f"waiting for another process that fills {self.folder}"),
                      file=sys.stderr, flush=True)
            told = True
            time.sleep(LOOK)

    def read_or_make(self, W):
        factors = self.read(W)
        if factors is None:
            factors = svd(W)
            self.write(W, factors)
        return factors

    def write(self, W, factors):
        """Keep the factors of W with their checksum."""
        key = fingerprint(W)
        told = {"key": key, "crc32": checksum(factors), "torch": torch.__version__}
        if self.usable:
            try:
                files.save_tensors(self.path(key), dict(zip(FACTORS, factors)), told)
            except FileNotFoundError:                       # who holds the folder has swept it
                pass
            except OSError as e:
                self.give_up(e)

    def give_up(self, error):
        """One line, once: the run goes on without the cache."""
        if self.usable:
            self.usable = False
            said = f"the decompositions are not kept in {self.folder}: {error}"
            print(one_line(said), file=sys.stderr)

    def path(self, key):
        return self.folder / f"{key[:32]}.safetensors"


def fingerprint(W):
    """sha256 of W's bytes, shape and dtype."""
    host = W.detach().contiguous().cpu()
    raw = host.view(INTEGERS[host.element_size()]).numpy().tobytes()
    return hashlib.sha256(raw + f"{tuple(W.shape)} {W.dtype}".encode()).hexdigest()


def checksum(factors):
    """crc32 of all their bytes, as text."""
    crc = 0
    for t in factors:
        raw = t.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        crc = zlib.crc32(raw.numpy(), crc)
    return f"{crc:08x}"


def listing(folder):
    """-> (number of matrices that the cache holds, bytes)."""
    sizes = [path.stat().st_size for path in Path(folder).glob("*.safetensors")]
    return len(sizes), sum(sizes)


class Countdown:
    """How many matrices are done, once a second on stderr; nothing where all is quick. doing: what
    is done with them."""

    def __init__(self, doing, total, wanted):
        self.doing, self.total, self.wanted = doing, total, wanted
        self.done = 0
        self.start = self.said = time.time()

    def one_more(self):
        """One matrix is done; say so at most once a second."""
        self.done += 1
        now = time.time()
        last = self.done == self.total and self.said > self.start
        if not self.wanted or not last and now < self.said + 1:
            return
        self.said = now
        left = (now - self.start) / self.done * (self.total - self.done)
        text = f"\r{self.doing}: {self.done} of {self.total} matrices, {left:.0f} s left    "
        print(text, end="\n" if last else "", file=sys.stderr, flush=True)

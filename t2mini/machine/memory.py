"""
How much memory there is for this process, and what glibc and PyTorch keep of it: kept while it
helps, given back where it does not.
"""
import ctypes
import os
from contextlib import suppress
from pathlib import Path

from .cores import limits


def share(root="/"):
    """Bytes for this process: the machine's, or what its cgroup may use, divided by the ranks that
    run here. None on a system that does not tell. root: where proc/ and sys/ are."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return min([whole, *limits(Path(root), "memory", limit_of)]) // ranks


def limit_of(folder):
    """Bytes that one cgroup may use; None where it has no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):                 # no such file, or "max"
            return int((folder / name).read_text())
    return None


def keep_memory():
    """Tell glibc to keep freed memory. By default it returns every large tensor to the system at
    once, and the next one pays for fresh pages again: 15 % of a training pass, measured on 2 CPU
    cores. Elsewhere than glibc: nothing.

    PyTorch and oneDNN, on the other hand, shall keep less. Each remembers how to multiply 1024
    different shapes, and answers and batches of every length are as many: 60 MB more after each
    update of the math recipe, for no time saved.
    """
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "16")                  # read at the first product
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: take large blocks from the heap as well
    mallopt(-1, -1)  # M_TRIM_THRESHOLD: never shrink the heap
    mallopt(-2, 1 << 28)                                    # M_TOP_PAD: grow it in large steps


def return_memory():
    """Give the system back what `keep_memory` kept: sampling leaves half a gigabyte in pieces that
    the gradient's tensors do not fit in. 0.1 s, so once per phase and not per tensor. Elsewhere
    than glibc: nothing."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass

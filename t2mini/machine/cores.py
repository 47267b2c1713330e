"""
How many processor cores may this process use, and how many does it get? Fewer than the machine has,
in most containers, and fewer still beside busy programs.
"""
import hashlib
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ENOUGH = 0.75           # a thread that computes for this share of the time does not wait for a core


def usable(root="/"):
    """A whole number, at least 1: cores that the scheduler gives (affinity), cut by cgroup quotas.

    root: where proc/ and sys/ are.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:                                  # macOS has neither affinity nor quotas
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, limits(Path(root), "cpu", quota_of))]))


def limits(root, what, limit_of):
    """What limit_of(folder) finds for the cgroups that this process is in (versions 1 and 2) and
    for those around them. what: "cpu" or "memory"."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    home = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and what not in controllers.split(","):
            continue
        # inside a container the path may be the host's, which is not there: then the mount's own
        # top counts
        around = [path, *map(str, Path(path).parents)]
        for mount in (home, home / "unified", home / what, home / controllers):
            for folder in around:
                limit = limit_of(mount / folder.lstrip("/"))
                if limit:
                    yield limit


def quota_of(folder):
    """Cores that one cgroup may use: microseconds of computing per period. None where it has no
    limit."""
    for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((folder / name).read_text() for name in names).split()
            if quota != "max" and int(quota) > 0:
                return int(quota) / int(period)
        # no such file, or not what the kernel writes
        except (OSError, ValueError, ZeroDivisionError):
            pass
    return None


def free(threads):
    """A number up to `threads`: cores that so many threads get here at this moment, as they compute
    side by side for a twentieth of a second."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(share_of_a_core, [0.05] * threads))


def share_of_a_core(seconds):
    """The share of the time in which this thread computed, the rest of which it waited."""
    started, computed = time.perf_counter(), time.thread_time()
    while time.perf_counter() - started < seconds:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 1000)       # other threads compute meanwhile
    return (time.thread_time() - computed) / (time.perf_counter() - started)


def advised(threads, got):
    """How many threads to take where `threads` of them got `got` cores: fewer ones that do not wait
    for each other are faster."""
    if got >= ENOUGH * threads:
        return threads
    return max(1, math.floor(got))

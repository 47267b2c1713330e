"""
How many processor cores may this process use? Fewer than the machine has, in most containers.
"""
import math
import os
from pathlib import Path


def usable(root="/"):
    """A whole number, at least 1: cores that the scheduler gives (affinity), cut by cgroup quotas.

    root: where proc/ and sys/ are.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:                                  # macOS has neither affinity nor quotas
        cores = os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, quotas(Path(root)))]))


def quotas(root):
    """The quotas, in cores, of the cgroups that this process is in (versions 1 and 2) and of those
    around them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    home = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # inside a container the path may be the host's, which is not there: then the mount's own
        # top counts
        around = [path, *map(str, Path(path).parents)]
        for mount in (home, home / "unified", home / "cpu", home / controllers):
            for folder in around:
                quota = quota_of(mount / folder.lstrip("/"))
                if quota:
                    yield quota


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

"""
`t2mini doctor`: what this machine offers, what is here, and for everything that is missing the
command that mends it.
"""
import os
import platform
import shlex
import shutil
from importlib import metadata
from pathlib import Path

import torch
import torch.distributed as dist

from .. import experts
from ..formats import download, gguf, load
from ..machine import cores, device, files as disk, memory, shelves, svd_cache
from ..machine.text import one_line
from ..questions import sandbox

PACKAGES = "torch", "numpy", "tiktoken", "safetensors", "matplotlib", "pytest"


def run():
    """Print one line per fact, then what is missing. -> dict of the same."""
    found, missing = {}, []

    def fact(name, value):
        found[name] = value
        # names and metadata of files that others made
        print(one_line(f"{name:>10}  {value}"))

    def lack(what, command):
        missing.append({"what": what, "command": command})

    packages(fact, lack)
    machine(fact, lack)
    locked = sandbox.features()
    fact("sandbox", ", ".join(f"{name} {'locked' if on else 'NOT locked'}"
                              for name, on in locked.items()))
    if not all(locked.values()):
        lack("a full sandbox: this system cannot lock everything (Linux on x86-64 or ARM64 can)",
             "do not give --allow-code for models that you do not trust")
    agreed = (experts.OUT / "allow-code").exists()
    fact("consent", "model-written code may run in the sandbox" if agreed
         else "model-written code has not been allowed")
    if not agreed:
        lack("your consent to run model-written code (only code tasks need it)",
             "add --allow-code to one command")
    bases = weight_files(fact, lack)
    expert_files(fact, lack, bases)
    count, size = svd_cache.listing(experts.SVD_CACHE)
    fact("svd cache", f"{count} decompositions, {size / 1e9:.1f} GB (`make clean` empties it)")
    print("\nnothing is missing" if not missing else "\nmissing:")
    for m in missing:
        print(f"  {one_line(m['what'])}\n      {one_line(m['command'])}")
    return {**found, "missing": missing}


def packages(fact, lack):
    """Python and the six packages with their versions; what is not installed is lacking."""
    fact("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            lack(f"the package {name}", "make setup")
    fact("packages", ", ".join(f"{name} {version}" for name, version in versions.items()))


def machine(fact, lack):
    """Cores, memory, disk, CUDA, processes and the number format."""
    usable = cores.usable()
    threads = torch.get_num_threads()
    got = cores.free(threads)
    better = cores.advised(threads, got)
    fact("cores", f"{os.cpu_count()}, {usable} of them usable; "
         f"torch takes {threads} threads (--threads)")
    busy = "quiet" if got >= cores.ENOUGH * threads else "busy: other programs take the cores"
    if better != threads:
        busy += f"; --threads={better} is faster as long as that lasts"
    fact("load", f"{busy} ({threads} threads get {got:.1f} cores)")
    room = memory.share()
    if room:
        free = ""
        if "SC_AVPHYS_PAGES" in os.sysconf_names:
            unused = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
            free = f", {min(unused, room) / 1e9:.1f} free"
        fact("memory", f"{room / 1e9:.1f} GB{free}")
    fact("disk", f"{shutil.disk_usage(experts.ROOT).free / 1e9:.1f} GB free at {experts.ROOT}")
    if not os.access(experts.ROOT, os.W_OK):
        lack(f"the right to write to {experts.ROOT}",
             f"{shlex.join(['chmod', 'u+w', str(experts.ROOT)])}, or copy the project to a folder "
             "of yours")
    cards = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    fact("cuda", ", ".join(f"{c.name} ({c.total_memory / 1e9:.0f} GB)" for c in cards)
         or "none, so the CPU is used")
    ways = [name for name, on in (("gloo", dist.is_available() and dist.is_gloo_available()),
                                  ("nccl", dist.is_available() and dist.is_nccl_available())) if on]
    fact("processes", f"torchrun can use {' and '.join(ways)}" if ways
         else "this torch cannot run several")
    dtype, why = device.native("cuda" if cards else "cpu")
    fact("dtype", f"{str(dtype).removeprefix('torch.')} (--dtype): {why}")


def weight_files(fact, lack):
    """Every model under weights/ with its hash.
    -> {base_sha256: name}, what experts may belong to."""
    bases, there, root = {}, set(), download.ROOT / "weights"
    default = download.MODELS[download.DEFAULT]
    folders = [config.parent for config in root.glob("[!.]*/config.json")]
    for path in sorted([*root.glob("[!.]*.gguf"), *folders]):
        try:
            files = parts(path) if path.is_file() else load.weight_files(path)[0]
            if path.is_file() and path != files[0]:         # the first part stands for all
                continue
            sha = disk.file_hash(files)
        except FileNotFoundError as e:
            if path.is_file():                              # else a download that is not done
                lack(f"all parts of {path.name} ({e})", "put the missing part beside it")
            continue
        except (ValueError, OSError) as e:
            lack(f"{path.name}, which can be read ({e})",
                 shlex.join(["mv", str(path), str(path.with_name(f".{path.name}.unread"))]))
            continue
        bases.setdefault(sha, path.name)                    # of two copies the first
        there.add(path.name)
        fact(path.name, f"sha256 {sha[:16]}..., "
             f"{sum(f.stat().st_size for f in files) / 1e6:.0f} MB")
        if path.name == Path(default.member).name and sha != default.sha256:
            lack(f"the real {path.name}: this one is damaged or another file", "make weights")
    if Path(default.member).name not in there:
        lack("the default weights", "make weights")
    return bases


def parts(path):
    """All files of a .gguf; a damaged one alone, whose hash tells so."""
    try:
        return gguf.read_parts(path)[0]
    except ValueError:
        return [path]


def expert_files(fact, lack, bases):
    """Every expert, shipped or yours, with its hash and the base that it belongs to."""
    for path in sorted([*experts.SHIPPED.glob("*/*.safetensors"),
                        *experts.OUT.glob("*.safetensors")]):
        mine = path.parent == experts.OUT
        name = f"out/{path.name}" if mine else f"{path.parent.name}/{path.name}"
        if shelves.is_tower(path):
            fact(name, f"sha256 {disk.file_hash([path])[:16]}..., a tower that sees images")
            continue
        try:
            meta, sha = experts.read_metadata(path), disk.file_hash([path])
            experts.read_expert(path)
        except (ValueError, OSError) as e:
            remedy = ["git", "checkout", str(path)]
            if mine:                                        # nobody is told to delete what is his
                remedy = ["mv", str(path), f"{path}.unread"]
            lack(f"a readable {name} ({e})", shlex.join(remedy))
            continue
        base = bases.get(str(meta.get("base_sha256")))
        fact(name, f"sha256 {sha[:16]}..., task {meta.get('task')}, base "
             + (base or f"{str(meta.get('base_sha256'))[:16]}... which is not here"))

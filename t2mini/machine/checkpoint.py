"""
The files of a training run: a log that only one run writes, and a checkpoint from which --resume
goes on: with the same bits on the same device, with as many threads and processes (others add up
in another order, which nobody checks).

How:      the log is written first and made durable, then the checkpoint replaces the old one in one
          step. So a checkpoint always finds the rows of its steps; rows of later steps, which are
          done again, are cut off.
"""
import glob
import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import files, ranks

ADDED = {"start": ""}       # settings that older checkpoints do not have, and what they were


@contextmanager
def output(out, log_path, ckpt):
    """Hold a run's files so that no second run mixes with it. -> the log, open for appending;
    nothing on ranks above 0."""
    if ranks.rank():
        with tempfile.TemporaryFile("w") as nothing:
            yield nothing
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.only_one(log_path), open(log_path, "a", encoding="utf-8") as log_file:
        for path in (out, ckpt, log_path):
            files.sweep(path)
        yield log_file


def begin(ckpt, log_file, log):
    """Take an earlier run's checkpoint and log away from a new run of the same files. Who forgot
    --resume finds both beside it, as .ckpt.old and .jsonl.old, or .old2 and so on."""
    if ranks.rank() == 0 and ckpt.exists():
        set_aside(ckpt, Path(log_file.name), log)
    elif log_file.tell() > 0:
        log("a new run: the log of the last one starts anew (see --resume)")
    log_file.truncate(0)


def set_aside(ckpt, log_path, log):
    """Rename a checkpoint and copy its log; `log` is told where they are."""
    old, number = ckpt.with_suffix(".ckpt.old"), 1
    while old.exists() or ckpt.with_suffix(f".jsonl{old.suffix}").exists():
        number += 1
        old = ckpt.with_suffix(f".ckpt.old{number}")
    if log_path.exists():
        shutil.copyfile(log_path, ckpt.with_suffix(f".jsonl{old.suffix}"))
    os.replace(ckpt, old)
    log(f"a new run: the last one's checkpoint is now {old}, and its log likewise; rename both "
        "back and give --resume to go on with that one")


def check_ours(log_file, path):
    """ValueError where `path` is no longer the log that this run holds the lock of: who deletes it
    lets a second run take the same files."""
    if ranks.rank():
        return
    try:
        ours = os.path.samestat(os.stat(path), os.fstat(log_file.fileno()))
    except FileNotFoundError:
        ours = False
    if not ours:
        raise ValueError(f"the log {path} was deleted or replaced while this run was writing it, "
                         "and another run may have taken its files: this one stops; --resume goes "
                         "on from its last checkpoint")


def end_of_step(path, step, validated):
    """Where, in bytes, the rows of a log end that a checkpoint of `step` knows of, and the step of
    the last one (-1: no row).

    validated: the last step whose validation the checkpoint knows of. A row that a kill cut short
    ends the log too.
    """
    end = 0
    last = -1
    with open(path, "rb") as f:
        for line in f:
            try:
                row = json.loads(line)
                known = row["step"] < step or row["step"] == step and (
                    "val" not in row or validated == step)
            except (ValueError, KeyError, TypeError):
                break
            if not known or not line.endswith(b"\n"):
                break
            end += len(line)
            last = row["step"]
    return end, last


def command():
    """The command line that made this run, for the expert's metadata, to be pasted into a shell;
    the folders that it names are those of this machine."""
    if sys.argv[0].endswith("__main__.py"):
        return "python -m t2mini " + shlex.join(sys.argv[1:])
    return "python"


def identity(config, model, tokenizer, start):
    """What a run is started with, and must be resumed with. -> dict(config, base_sha256, dtype,
    inputs: hashes of a task file of yours, of the tower through which images are seen, and of the
    expert that it goes on from).

    start: name -> z at the start.
    """
    inputs = {}
    if config["start"]:
        numbers = [start[name].cpu().numpy().tobytes() for name in sorted(start)]
        inputs["expert to start from"] = hashlib.sha256(b"".join(numbers)).hexdigest()
    if config["task"].endswith(".jsonl"):
        inputs["rows in the task's file"] = files.file_hash([files.expand(config["task"])])
    if getattr(tokenizer, "eye", None):
        inputs["tower"] = tokenizer.eye.sha256()
    return {"config": config, "base_sha256": model.base_sha256, "dtype": str(model.dtype),
            "inputs": inputs}


def made_on(model):
    """What an expert file says of the machine, and the command."""
    return {"command": command(), "dtype": str(model.dtype), "torch": torch.__version__,
            "threads": torch.get_num_threads(), "processes": ranks.world()}


def save(path, told, z, optimizer, best, state):
    """Everything a run needs to go on with the same bits: z, Adam's moments, the best z, the
    counters. The first rank writes it.

    told: what the run was started with (`identity`); z: name -> parameter; best: name -> tensor.
    """
    if ranks.rank():
        return
    tensors = {f"best/{name}": t for name, t in best.items()}
    for name, p in z.items():
        adam = optimizer.state.get(p, {})
        tensors[f"z/{name}"] = p
        tensors[f"m/{name}"] = adam.get("exp_avg", torch.zeros_like(p))
        tensors[f"v/{name}"] = adam.get("exp_avg_sq", torch.zeros_like(p))
        tensors[f"n/{name}"] = torch.as_tensor(adam.get("step", 0.0), dtype=torch.float32)
    files.save_tensors(path, tensors, {**told, "state": state})


@contextmanager
def stopped(said):
    """Ctrl-C inside the block says what is kept, and how to go on. said: that, or what tells it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(said() if callable(said) else said) from None


def keeping(out, resume=False):
    """`stopped` for a training that writes `out` (Path) and its checkpoint beside it, or goes on
    from that."""
    ckpt = out.with_suffix(".ckpt")
    before = None if resume else stamp(ckpt)
    return stopped(lambda: kept(ckpt, before))


def stamp(path):
    """What tells one version of a file from the next; None where there is no file."""
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def kept(ckpt, before=None):
    """What is kept of a training that was stopped. before: `stamp` of the checkpoint of an earlier
    run."""
    now = stamp(ckpt)
    if now is None:
        return "it had learnt nothing yet"
    if now == before:
        return "it had learnt nothing yet; the files of the run before it are as they were"
    return ("the last checkpoint is kept; add --resume to the same command to go on "
            "(in Python: resume=True)")


def told(path):
    """What the run of a checkpoint was started with (`identity`).

    FileNotFoundError where there is none; ValueError where it does not say, or not in these types.
    """
    return opened(path)[0]


def check_there(path):
    """FileNotFoundError where there is no checkpoint to go on from."""
    if not os.path.exists(path):
        name = glob.escape(Path(path).name)
        older = sorted(Path(path).parent.glob(f"{name}.old*"), key=os.path.getmtime)
        way = (f"an earlier run's is {older[-1]}: rename it and its log back" if older
               else "start without --resume")
        raise FileNotFoundError(f"there is no checkpoint {path}; {way}")


def opened(path, device="cpu"):
    """-> (what the run was started with, its counters, its tensors)."""
    check_there(path)
    try:
        with safe_open(path, "pt", device=str(device)) as f:
            meta = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        said = {"config": json.loads(meta["config"]), "base_sha256": meta["base_sha256"],
                "dtype": meta["dtype"], "inputs": json.loads(meta.get("inputs", "{}"))}
        state = json.loads(meta["state"])
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as e:
        raise damaged(path, e) from None
    if not all(isinstance(d, dict) for d in (said["config"], said["inputs"], state)):
        raise damaged(path, "its settings are none")
    return said, state, tensors


def equal(one, other):
    """Are two dicts name -> tensor the same numbers?"""
    return all(torch.equal(t, other[name]) for name, t in one.items())


def damaged(path, why):
    return ValueError(f"--resume: damaged checkpoint {path} ({why}); start without --resume")


def check_same(path, old, new):
    """ValueError where the run of a checkpoint was started with something else."""
    then = ADDED | old["config"]
    pairs = {name: (then.get(name), value) for name, value in new["config"].items()}
    pairs["base model"] = (old["base_sha256"], new["base_sha256"])
    pairs["dtype"] = (old["dtype"], new["dtype"])
    for name in old["inputs"]:                              # older checkpoints say nothing of them
        pairs[name] = (old["inputs"][name], new["inputs"].get(name))
    for name, (then, now) in pairs.items():
        if then != now:
            raise ValueError(f"--resume: {path} was written with another {name}: {then!r:.80}, "
                             f"now {now!r:.80}")


def check_state(path, saved, state, steps):
    """ValueError where counters are missing, of another type, or impossible. state: the first."""
    for name, first in state.items():
        value = saved.get(name)
        kinds = (int, float) if isinstance(first, float) else int
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise damaged(path, f"{name} is {value!r:.40}")
        if not min(first, 0) <= value < 1e15:               # NaN is not, either
            raise damaged(path, f"{name} is {value!r:.40}")
    if not saved.get("best_step", 0) <= saved["step"] <= steps:
        raise damaged(path, f"the best step is {saved['best_step']!r:.40}, the last "
                      f"{saved['step']!r:.40} of {steps}")
    if type(saved.get("validated", 0)) is not int:
        raise damaged(path, f"validated is {saved['validated']!r:.40}")


def check_tensors(path, tensors, z, best):
    """ValueError where a tensor is missing, or of another shape or type."""
    wanted = {f"best/{name}": t for name, t in best.items()}
    for name, p in z.items():
        wanted |= {f"{kind}/{name}": p for kind in ("z", "m", "v")}
        wanted[f"n/{name}"] = torch.tensor(0.0)
    for name, t in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != t.shape or found.dtype != t.dtype:
            raise damaged(path, f"its tensor {name} is missing or does not fit")
        if not bool(found.isfinite().all()):
            raise damaged(path, f"its tensor {name} has numbers that are not finite")


def load(path, told, z, optimizer, best, state, device):
    """Fill z, optimizer and state from a checkpoint; -> the best z so far. Nothing is touched where
    it does not fit (ValueError).

    told: as for `save`; best: tensors of the shapes that the best z must have.
    """
    old, saved, tensors = opened(path, device)
    check_same(path, old, told)
    check_state(path, saved, state, told["config"]["steps"])
    check_tensors(path, tensors, z, best)
    state.update({name: saved[name] for name in (*state, "validated") if name in saved})
    with torch.no_grad():
        for name, p in z.items():
            p.copy_(tensors[f"z/{name}"])
            if float(tensors[f"n/{name}"]):
                optimizer.state[p] = {"step": tensors[f"n/{name}"].cpu(),
                                      "exp_avg": tensors[f"m/{name}"],
                                      "exp_avg_sq": tensors[f"v/{name}"]}
    return {name: tensors[f"best/{name}"] for name in best}

"""
The files of a training run: a log that only one run writes, and a checkpoint from which --resume
goes on with the same bits.

How:      the log is written first and made durable, then the checkpoint replaces the old one in one
          step. So a checkpoint always finds the rows of its steps; rows of later steps, which are
          done again, are cut off.
"""
import json
import sys
import tempfile
from contextlib import contextmanager

import torch
from safetensors import SafetensorError, safe_open

from . import files, ranks


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
        for path in (out, ckpt):
            files.sweep(path)
        yield log_file


def end_of_step(path, step):
    """Where, in bytes, the rows of a log up to and with `step` end. A row that a kill cut short
    ends it too."""
    end = 0
    with open(path, "rb") as f:
        for row in f:
            try:
                if json.loads(row)["step"] > step or not row.endswith(b"\n"):
                    break
            except (ValueError, KeyError, TypeError):
                break
            end += len(row)
    return end


def command():
    """The command line that made this run, for the expert's metadata, without machine-specific
    folders."""
    if sys.argv[0].endswith("__main__.py"):
        return "python -m t2mini " + " ".join(sys.argv[1:])
    return "python"


def save(path, told, z, optimizer, best, state):
    """Everything a run needs to go on with the same bits: z, Adam's moments, the best z, the
    counters.

    told: what the run was started with, {config: dict, base_sha256, dtype}; z: name -> parameter;
    best: name -> tensor.
    """
    tensors = {f"best/{name}": t for name, t in best.items()}
    for name, p in z.items():
        adam = optimizer.state.get(p, {})
        tensors[f"z/{name}"] = p
        tensors[f"m/{name}"] = adam.get("exp_avg", torch.zeros_like(p))
        tensors[f"v/{name}"] = adam.get("exp_avg_sq", torch.zeros_like(p))
        tensors[f"n/{name}"] = torch.as_tensor(adam.get("step", 0.0), dtype=torch.float32)
    files.save_tensors(path, tensors, {**told, "state": state})


def load(path, told, z, optimizer, best, state, device):
    """Fill z, optimizer and state from a checkpoint; -> the best z so far. Nothing is touched where
    it does not fit.

    told: as for `save`; best: tensors of the shapes that the best z must have.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as f:
            meta = f.metadata()
            tensors = {k: f.get_tensor(k) for k in f.keys()}
        old = json.loads(meta["config"])
        saved = json.loads(meta["state"])
        whole = saved.keys() >= state.keys()
        for name, p in z.items():
            for kind in ("z", "m", "v"):
                whole = whole and tensors[f"{kind}/{name}"].shape == p.shape
            whole = whole and tensors[f"n/{name}"].shape == ()
        kept = {name: tensors[f"best/{name}"] for name in best}
        whole = whole and all(kept[name].shape == t.shape for name, t in best.items())
        changed = [k for k, v in told["config"].items() if old.get(k) != v]
        changed += ["base model"] * (meta["base_sha256"] != told["base_sha256"])
        changed += ["dtype"] * (meta["dtype"] != told["dtype"])
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as e:
        raise ValueError(f"--resume: damaged checkpoint {path} ({e}); "
                         "start without --resume") from None
    if changed:
        raise ValueError(f"--resume: {path} was written with another {changed[0]}")
    if not whole:
        raise ValueError(f"--resume: damaged checkpoint {path} (its tensors do not fit); "
                         "start without --resume")
    state.update(saved)
    with torch.no_grad():
        for name, p in z.items():
            p.copy_(tensors[f"z/{name}"])
            if float(tensors[f"n/{name}"]):
                optimizer.state[p] = {"step": tensors[f"n/{name}"].cpu(),
                                      "exp_avg": tensors[f"m/{name}"],
                                      "exp_avg_sq": tensors[f"v/{name}"]}
    return kept

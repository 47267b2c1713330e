"""
Towers in files: one safetensors file, weights in bfloat16, and as metadata how it was built, on
which base model it was trained and by which command. The shipped one lies here, under its base
model's name.
"""
import json
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..machine import files
from ..machine.text import first_line
from .eye import give_sight
from .tower import Tower, TowerConfig

FORMAT = "t2mini-tower-1"
DAMAGE = (SafetensorError, OSError, LookupError, TypeError, ValueError, RuntimeError)
SHIPPED = Path(__file__).resolve().parent


def save(path, tower, metadata):
    """Write a tower, atomically. metadata: at least `base_sha256`."""
    tensors = {name: p.detach().bfloat16() for name, p in tower.state_dict().items()}
    files.save_tensors(path, tensors, {"format": FORMAT, "tower": tower.settings(), **metadata})


def read(path):
    """-> (tower, metadata). ValueError for a damaged file or one that holds no tower."""
    files.refuse_odd(path)
    try:
        with safe_open(path, "pt") as f:
            told = f.metadata() or {}
            if told.get("format") != FORMAT:
                raise ValueError("it says nothing of a tower")
            cfg = settings(told.get("tower", "null"))
            with torch.device("meta"):                          # no memory for what is not there
                tower = Tower(cfg)
            check_shapes(tower, {name: f.get_slice(name).get_shape() for name in f.keys()})
            tensors = {name: f.get_tensor(name).float() for name in f.keys()}
        tower.load_state_dict(tensors, assign=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"no tower at {path}") from None
    except DAMAGE as e:
        raise ValueError(f"{path}: not a tower, or damaged ({first_line(e):.120})") from None
    if not all(bool(t.isfinite().all()) for t in tensors.values()):
        raise ValueError(f"{path}: a tower with numbers that are not finite")
    return tower.requires_grad_(False).eval(), told


def settings(text):
    """The metadata `tower`, JSON -> TowerConfig. ValueError with the name of what is odd."""
    told = json.loads(text)
    known = {field.name for field in fields(TowerConfig)}
    if not isinstance(told, dict) or told.keys() != known:
        raise ValueError(f"its settings must be {', '.join(sorted(known))}, and no others")
    return TowerConfig(**told)


def check_shapes(tower, found):
    """ValueError where the file's tensors, dict name -> shape, are not those of this tower."""
    for name, p in tower.state_dict().items():
        if list(p.shape) != found.get(name):
            raise ValueError(f"{name} must be {list(p.shape)}, not {found.get(name)}")
    for name in found.keys() - tower.state_dict().keys():
        raise ValueError(f"{name!r:.60} is no part of a tower")


def find(model, path=None):
    """The tower of a base model: `path`, else the shipped one. -> Tower, on the model's device.

    ValueError where it was trained on another base; FileNotFoundError where there is none.
    """
    found = path or SHIPPED / f"{model.name}.safetensors"
    if path is None and not found.exists():
        raise FileNotFoundError(f"no tower is shipped for {model.name}: `python -m t2mini see "
                                "--data=DIR` trains one, --tower=PATH takes it")
    tower, told = read(found)
    if told.get("base_sha256") != model.base_sha256:
        raise ValueError(f"{found} was trained on another base model; its image tokens mean "
                         f"nothing to {model.name}")
    return tower.to(model.device)


def open_eye(model, tokenizer, path=None):
    """Give the model its tower; see `find`. A model that sees already stays as it is. -> Eye."""
    if tokenizer.eye is None:
        give_sight(model, tokenizer, find(model, path))
    return tokenizer.eye


# ------------------------------------------------------------------------ a training that goes on
def save_state(path, told, tower, optimizer, rows):
    """All that a stopped training needs to go on with the same bits."""
    tensors = {f"p/{name}": p for name, p in tower.state_dict().items()}
    for name, p in tower.named_parameters():
        adam = optimizer.state[p]
        tensors[f"m/{name}"], tensors[f"v/{name}"] = adam["exp_avg"], adam["exp_avg_sq"]
    files.save_tensors(path, tensors, {**told, "rows": rows})


def begun_in(path):
    """The dtype in which a stopped training computed, as text; ValueError where it does not say."""
    try:
        with safe_open(path, "pt") as f:
            return f.metadata()["dtype"]
    except DAMAGE as e:
        raise ValueError(f"--resume: {path} does not do ({first_line(e):.80})") from None


def go_on(path, told, tower, optimizer):
    """Fill tower and optimizer from a checkpoint. -> (rows of the log, step, seconds). ValueError
    where it is damaged, or of another run."""
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
            tensors = {name: f.get_tensor(name) for name in f.keys()}
        was = {"config": json.loads(meta["config"]), "images": json.loads(meta["images"]),
               **{name: meta[name] for name in ("base_sha256", "facts", "dtype")}}
        rows = json.loads(meta["rows"])
        seconds = float(rows[-1]["seconds"])
        if was != told:
            raise ValueError("it was written with other settings, images, base or dtype")
        tower.load_state_dict({k[2:]: t for k, t in tensors.items() if k.startswith("p/")})
        for name, p in tower.named_parameters():
            optimizer.state[p] = {
                "step": torch.tensor(float(len(rows))),
                "exp_avg": tensors[f"m/{name}"].to(p.device),
                "exp_avg_sq": tensors[f"v/{name}"].to(p.device)}
    except DAMAGE as e:
        raise ValueError(f"--resume: {path} does not do ({first_line(e):.80})") from None
    return rows, len(rows), seconds

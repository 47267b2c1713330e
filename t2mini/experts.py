"""
Where experts live, what their files hold, and how a name becomes z.

Shipped ones are in t2mini/experts/<base model>/, your own in out/. An expert is one safetensors
file: a vector z per tuned matrix under the matrix's name (IA3: name.l; LoRA: the matrices name.A
and name.B), and as metadata what it was trained on and how.
"""
import json
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import lora, svf
from .machine import files, ranks, shelves
from .machine.settings import check_layers, kind_told

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = Path(__file__).resolve().parent / "experts"
OUT = ROOT / "out"                          # git-ignored: what you train lands here
SVD_CACHE = ROOT / "weights" / "svd"
TEXTS = ("base_sha256", "command", "task")  # metadata that stay text, whatever they look like


def find(name, model):
    """A path to an expert file, or a name: yours in out/NAME.safetensors, else the shipped one.
    FileNotFoundError where neither is an expert of this model."""
    return shelves.find(name, model, OUT, SHIPPED / model.name)


def load(names, model, allow_other_base=False):
    """-> dict name -> expert, of all the experts in `names`."""
    return {name: load_expert(find(name, model), model, allow_other_base)[0] for name in names}


def attach(model, meta, modules=None, depth="all"):
    """Give the model the layers that an expert with this metadata needs: SVF ones of `modules`, or
    those that its own training had.

    ValueError where the metadata are damaged.
    """
    method = meta.get("method", "svf")
    if method == "svf":                     # the same layers for all experts of z
        settings = {"modules": modules, "layers": depth}
    else:
        settings = meta.get("config")
        check_layers(method, settings)
    lora.attach(model, method, settings, SVD_CACHE, progress=ranks.rank() == 0)


class Shelf:
    """name -> z: the experts of one base model, each read when it is first asked for.

    The model gets its SVF layers (of `modules`, `depth`: svf.targets) with the first expert, or the
    layers of that expert's own method; a model that is never adapted is never decomposed.
    """

    def __init__(self, model, allow_other_base=False, modules=svf.ALL, depth="all"):
        self.model = model
        self.allow_other_base = allow_other_base
        self.modules, self.depth = modules, depth
        self.kind = None                                    # of the layers that were attached here
        self.z = {}

    def __contains__(self, name):
        """Is there an expert of that name, and of a base that may be?"""
        with suppress(FileNotFoundError):
            return shelves.fits(find(name, self.model), self.model) or self.allow_other_base
        return False

    def __getitem__(self, name):
        if name not in self.z or not svf.layers(self.model):        # detached meanwhile
            path = find(name, self.model)
            z, meta = load_expert(path, self.model, self.allow_other_base)
            kind = kind_told(meta)
            if not svf.layers(self.model):
                attach(self.model, meta, self.modules, self.depth)
                self.kind = kind
            if self.kind not in (None, kind):
                raise ValueError(f"{path} is of method {kind}, others are of {self.kind}: move "
                                 "yours away, or ask one alone (--expert; in chat: start it "
                                 "again)")
            self.z[name] = z
        return self.z[name]


# ------------------------------------------------------------------------ files
def save_expert(path, expert, metadata):
    """expert: dict name -> z (r,). metadata: at least `base_sha256`; see train.py for the rest."""
    marked = {"format": f"t2mini-{metadata.get('method', 'svf')}-1", **metadata}
    files.save_tensors(path, {name: z.float() for name, z in expert.items()}, marked)


def read_metadata(path):
    """The metadata of an expert file, numbers parsed. ValueError where the file is not one."""
    files.refuse_odd(path)
    try:
        with safe_open(path, "pt") as f:
            told = f.metadata() or {}
    except FileNotFoundError:
        raise FileNotFoundError(f"no expert file at {path} that may be read") from None
    except (SafetensorError, OSError) as e:
        raise ValueError(f"{path}: damaged expert file ({e})") from None
    method = told.get("method", "svf")
    if method not in lora.METHODS or told.get("format") != f"t2mini-{method}-1":
        raise ValueError(f"{path}: not an expert file (no t2mini metadata)")
    meta = dict(told)
    for key in told.keys() - {*TEXTS}:
        with suppress(ValueError, RecursionError):          # else a text, such as the base's name
            meta[key] = json.loads(told[key])
    return meta


def load_expert(path, model, allow_other_base=False):
    """-> (dict name -> z (r,) on the model's device, metadata). Refuses an expert of another base
    model (ValueError)."""
    meta = read_metadata(path)
    sha256 = str(meta.get("base_sha256"))
    if sha256 != model.base_sha256 and not allow_other_base:
        raise ValueError(f"{path} was trained on another base ({meta.get('base_model', '?')}, "
                         f"{sha256[:12]}...; this is {model.base_sha256[:12]}...); its z belong to "
                         f"other singular vectors. --allow-other-base loads it all the same")
    return {name: z.to(model.device) for name, z in read_expert(path).items()}, meta


def read_expert(path):
    """The z of an expert file whatever its base: dict name -> z (r,). ValueError where they are not
    finite vectors (LoRA's factors: matrices)."""
    kind = lora.find(read_metadata(path).get("method", "svf"))
    try:
        with safe_open(path, "pt") as f:
            expert = {name: f.get_tensor(name) for name in f.keys()}
    except (SafetensorError, OSError) as e:
        raise ValueError(f"{path}: damaged expert file ({e})") from None
    if not expert:
        raise ValueError(f"{path}: an expert without any z")
    for name, z in expert.items():
        dims = {d for end, d in kind.tensors.items() if name.endswith(end)}
        fits = dims == {z.dim()} and z.is_floating_point() and z.numel()
        if not fits or not bool(torch.isfinite(z).all()):
            raise ValueError(f"{path}: z of {name} is not a vector of finite numbers")
    return expert

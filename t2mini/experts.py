"""
Where experts live, what their files hold, and how a name becomes z.

Shipped ones are in t2mini/experts/<base model>/, your own in out/. An expert is one safetensors file: a vector z per tuned
matrix under the matrix's name (IA3: name.l; LoRA: the matrices name.A and name.B), and as metadata what it was trained on
and how.
"""
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import lora, svf
from .machine import files, ranks

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = Path(__file__).resolve().parent / "experts"
OUT = ROOT / "out"                          # git-ignored: what you train lands here
SVD_CACHE = ROOT / "weights" / "svd"


def find(name, model):
    """A path to an expert file, or a name: yours in out/NAME.safetensors, else the shipped one. FileNotFoundError else."""
    shipped = SHIPPED / model.name
    for path in (Path(name), OUT / f"{name}.safetensors", shipped / f"{name}.safetensors"):
        if path.suffix == ".safetensors" and path.is_file():
            return path
    if name == "mixture":
        raise FileNotFoundError("there is no mixture yet; run `python -m t2mini adapt --task=TASK` first")
    known = sorted(p.stem for p in shipped.glob("*.safetensors"))
    raise FileNotFoundError(f"no expert {name!r} for {model.name}: neither a file, nor in out/, nor shipped "
                            f"({', '.join(known) or 'none are shipped for this model'})")


def attach(model, meta, modules=None, depth="all"):
    """Give the model the layers that an expert with this metadata needs: SVF ones of `modules`, or all those of its method.

    ValueError where the metadata are damaged.
    """
    method = meta.get("method", "svf")
    if method == "svf":
        svf.attach(model, modules, SVD_CACHE, progress=ranks.rank() == 0, depth=depth)
    else:
        config = meta.get("config")
        told = [config.get(k) if isinstance(config, dict) else None for k in ("modules", "layers", "rank", "lora_alpha")]
        if [*map(type, told)][:3] != [str, str, int] or type(told[3]) not in (int, float) or not (
                0 < told[2] <= 1024 and 0 < told[3] < 1e6):         # before numbers of a damaged file ask for memory
            raise ValueError(f"this {method} expert does not say how it was trained (modules, layers, rank, lora_alpha): "
                             "damaged file?")
        lora.attach(model, method, *told)


def load(names, model, allow_other_base=False):
    """-> dict name -> z of all the experts in `names`."""
    return {name: load_expert(find(name, model), model, allow_other_base)[0] for name in names}


class Shelf:
    """name -> z: the experts of one base model, each read when it is first asked for.

    The model gets its SVF layers (of `modules`, `depth`: svf.targets) with the first expert, or the
    layers of that expert's own method; a model that is never adapted is never decomposed.
    """

    def __init__(self, model, allow_other_base=False, modules=svf.ALL, depth="all"):
        self.model = model
        self.allow_other_base = allow_other_base
        self.modules, self.depth = modules, depth
        self.z = {}

    def __getitem__(self, name):
        if name not in self.z:
            z, meta = load_expert(find(name, self.model), self.model, self.allow_other_base)
            if not svf.layers(self.model):
                attach(self.model, meta, self.modules, self.depth)
            self.z[name] = z
        return self.z[name]


# ---------------------------------------------------------------------------------------------- files
def save_expert(path, expert, metadata):
    """expert: dict name -> z (r,). metadata: at least `base_sha256`; see reinforce.py for the rest."""
    files.save_tensors(path, {name: z.float() for name, z in expert.items()},
                       {"format": f"t2mini-{metadata.get('method', 'svf')}-1", **metadata})


def read_metadata(path):
    """The metadata of an expert file, numbers parsed. Raises ValueError where the file is not one."""
    try:
        with safe_open(path, "pt") as f:
            meta = f.metadata() or {}
    except FileNotFoundError:
        raise FileNotFoundError(f"no expert file at {path}") from None
    except (SafetensorError, OSError) as e:
        raise ValueError(f"{path}: damaged expert file ({e})") from None
    if meta.get("format") != f"t2mini-{meta.get('method', 'svf')}-1" or meta.get("method", "svf") not in lora.METHODS:
        raise ValueError(f"{path}: not an expert file (no t2mini metadata)")
    out = {}
    for k, v in meta.items():
        try:
            out[k] = json.loads(v) if k not in ("base_sha256", "command", "task") else v
        except (ValueError, RecursionError):
            out[k] = v
    return out


def load_expert(path, model, allow_other_base=False):
    """-> (dict name -> z (r,) on the model's device, metadata). Refuses an expert of another base model (ValueError)."""
    meta = read_metadata(path)
    if meta.get("base_sha256") != model.base_sha256 and not allow_other_base:
        raise ValueError(f"{path} was trained on another base ({meta.get('base_model', '?')}, "
                         f"{str(meta.get('base_sha256'))[:12]}...; this is {model.base_sha256[:12]}...); its z belong to "
                         f"other singular vectors. --allow-other-base loads it all the same")
    return {name: z.to(model.device) for name, z in read_expert(path).items()}, meta


def read_expert(path):
    """The z of an expert file whatever its base: dict name -> z (r,). ValueError where they are not finite vectors (LoRA's
    factors: matrices)."""
    try:
        with safe_open(path, "pt") as f:
            expert = {name: f.get_tensor(name) for name in f.keys()}
    except (SafetensorError, OSError) as e:
        raise ValueError(f"{path}: damaged expert file ({e})") from None
    for name, z in expert.items():
        dims = 2 if name.endswith((".A", ".B")) else 1      # LoRA's factors
        if z.dim() != dims or not z.is_floating_point() or not bool(torch.isfinite(z).all()):
            raise ValueError(f"{path}: z of {name} is not a vector of finite numbers")
    return expert


def adapter(model, expert, meta):
    """What formats/export.py writes beside merged weights: z with the singular values that it scales; None but for SVF."""
    if meta.get("method", "svf") != "svf":
        return None
    sigma = {name: layer.S for name, layer in svf.layers(model).items() if name in expert}
    return {"name": model.name, "base_sha256": model.base_sha256, "z": expert, "sigma": sigma, "facts": meta}

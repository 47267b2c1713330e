"""
Which expert file a name means: yours or the shipped one, of the model that runs.
"""
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .files import expand
from .text import meant

AWAY = "name another file with --out, or move it and what lies beside it away"


def find(name, model, mine, shipped):
    """A path to an expert file, or a name: mine/NAME.safetensors, else shipped/NAME.safetensors.

    model: has a name and, once its weights are read, a base_sha256; mine, shipped: folders. Yours
    does not stand in the way of the shipped one where it was trained on other weights.
    FileNotFoundError where there is none.
    """
    given = expand(name)
    if given.suffix == ".safetensors":
        if given.is_file():
            return given
        raise FileNotFoundError(f"no expert file at {given}")
    if name == "mixture" and not Path(mine, "mixture.safetensors").is_file():
        raise FileNotFoundError("there is no mixture yet; "
                                "run `python -m t2mini adapt --task=TASK` first")
    files = [Path(folder, f"{name}.safetensors") for folder in (mine, shipped)]
    there = [path for path in files if path.is_file()]
    if there:
        fitting = [path for path in there if fits(path, model)]
        return (fitting or there)[0]
    instead = suggestion(str(name), model, mine, shipped)
    raise FileNotFoundError(f"no expert {str(name)!r} for {model.name}{instead}")


def instead(model, mine, shipped, also=()):
    """The names of your experts that take the place of shipped ones; of the names in `also` those
    that stand where none is shipped, too."""
    names = {path.stem for path in Path(shipped).glob("*.safetensors")}
    names |= {name for name in also if Path(mine, f"{name}.safetensors").is_file()}
    return [name for name in sorted(names)
            if (path := find(name, model, mine, shipped)).parent == Path(mine)
            and fits(path, model)]


def suggestion(name, model, mine, shipped):
    """The end of the sentence: what was meant, and what there is instead."""
    files = [path for folder in (mine, shipped) for path in Path(folder).glob("*.safetensors")]
    known = sorted({path.stem for path in files
                    if told(path) and fits(path, model) and not is_tower(path)})
    if known:
        there = f"{meant(name, known)} Give a .safetensors file or one of: {', '.join(known)}"
        if name == "dispatcher":                            # a first pass was asked for
            there += ("; with --expert=NAME or --expert=none `ask` needs none, and `chat` with "
                      "--strategy=none")
        return there
    return (": it has none yet, and others are of other models. `train --weights=...` makes one; "
            "`ask --expert=none` asks the model as it is, and so does `chat --strategy=none`")


def fits(path, model):
    """Is it an expert of the model? So is a file that cannot be read, or does not say: whoever
    loads it tells what is wrong."""
    found, sha256 = told(path), getattr(model, "base_sha256", None)
    if sha256:
        return found.get("base_sha256", sha256) == sha256
    return found.get("base_model", model.name) == model.name


def check_replaced(path, model, config=None, start=None):
    """ValueError where a new expert would take the place of one of other weights, or of another
    method than this one, or of its checkpoint.

    config: the settings of its training, where it has one; start: the file that it goes on from.
    """
    method = config and config["method"]
    if start:
        check_start(path, start, model, config)
    for file in (path, path.with_suffix(".ckpt")):
        found = told(file)
        sha256 = found.get("base_sha256", model.base_sha256)
        if sha256 != model.base_sha256:
            raise ValueError(f"{file} is of other weights (sha256 {sha256[:8]}, these are "
                             f"{model.base_sha256[:8]}): {AWAY}")
        had = found.get("method") or trained_with(found).get("method", method)
        if method not in (None, had):
            raise ValueError(f"{file} is of method {had}, not {method}: {AWAY}")


def check_start(path, start, model, config):
    """ValueError where a training with these settings, which writes `path`, cannot go on from the
    expert `start`: of other weights, or in layers that it does not train."""
    if path.exists() and path.samefile(start):
        raise ValueError(f"{path} would replace the expert that it goes on from: {AWAY}")
    found = told(start)
    if found.get("base_sha256", model.base_sha256) != model.base_sha256:
        raise ValueError(f"{start} is an expert of other weights ({found.get('base_model')}): "
                         "--start needs one of these")
    had = {"method": found.get("method", "svf"), "modules": "", "layers": "all"}
    had |= trained_with(found)
    kinds = ("method",) if had["method"] != "lora" else ("method", "rank", "lora_alpha")
    for name in kinds:
        if had.get(name) != config[name]:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{start} was trained with {option}={had.get(name)}, and --start goes "
                             f"on with the same, not {config[name]}")
    more = listed(str(had["modules"])) - listed(config["modules"]) - {""}
    if more or (had["layers"], config["layers"]) == ("all", "half"):
        raise ValueError(f"{start} changes matrices that this training would not (--modules="
                         f"{had['modules']} --layers={had['layers']}): leave --modules and "
                         "--layers away, or name these, too")


def listed(names):
    """'q, v' -> {'q', 'v'}"""
    return {name.strip() for name in names.split(",")}


def trained_with(found):
    """The settings in the metadata of an expert or a checkpoint, {} where there are none."""
    try:
        settings = json.loads(found.get("config", "{}"))
    except ValueError:
        settings = {}
    return settings if isinstance(settings, dict) else {}


def is_tower(path):
    """Does the file hold what sees images (sight/towers.py), which lies in the same folder?"""
    return "tower" in told(path)


def told(path):
    """The metadata of a safetensors file; {} where it is none or cannot be read."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}

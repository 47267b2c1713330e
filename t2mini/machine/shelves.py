"""
Which expert file a name means: yours or the shipped one, of the model that runs.
"""
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .text import meant


def find(name, base, mine, shipped):
    """A path to an expert file, or a name: mine/NAME.safetensors, else shipped/NAME.safetensors.

    base: the model's name; mine, shipped: folders. Yours does not stand in the way of the shipped
    one where it was trained on another model. FileNotFoundError where there is none.
    """
    given = Path(name).expanduser()
    if given.suffix == ".safetensors" and given.is_file():
        return given
    if name == "mixture" and not Path(mine, "mixture.safetensors").is_file():
        raise FileNotFoundError("there is no mixture yet; "
                                "run `python -m t2mini adapt --task=TASK` first")
    files = [Path(folder, f"{name}.safetensors") for folder in (mine, shipped)]
    there = [path for path in files if path.is_file()]
    if there:
        fitting = [path for path in there if fits(path, base)]
        return (fitting or there)[0]
    instead = suggestion(str(name), base, mine, shipped)
    raise FileNotFoundError(f"no expert {name!r} for {base}{instead}")


def suggestion(name, base, mine, shipped):
    """The end of the sentence: what was meant, and what there is instead."""
    files = [path for folder in (mine, shipped) for path in Path(folder).glob("*.safetensors")]
    known = sorted({path.stem for path in files if told(path).get("base_model") == base
                    and not is_tower(path)})
    if known:
        return f"{meant(name, known)} Give a .safetensors file or one of: {', '.join(known)}"
    return (": it has none yet, and others are of other models. `train --weights=...` makes one; "
            "--expert=none asks the model as it is")


def fits(path, base):
    """Is it an expert of the model of that name? So is a file that cannot be read, or does not say:
    whoever loads it tells what is wrong."""
    return told(path).get("base_model", base) == base


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

"""
Where experts live and how a name becomes z: shipped ones in t2mini/experts/<base model>/, your own in out/.
"""
from pathlib import Path

from . import svf

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
    known = sorted(p.stem for p in shipped.glob("*.safetensors"))
    raise FileNotFoundError(f"no expert {name!r} for {model.name}: neither a file, nor in out/, nor shipped "
                            f"({', '.join(known) or 'none are shipped for this model'})")


def load(names, model, allow_other_base=False):
    """-> dict name -> z of all the experts in `names`."""
    return {name: svf.load_expert(find(name, model), model, allow_other_base)[0] for name in names}

"""t2mini: Transformer-Squared, self-adaptive language models, small enough to read in an afternoon."""
from .weights import load

__all__ = ["load"]

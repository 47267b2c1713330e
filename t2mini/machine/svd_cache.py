"""
The decomposition of a weight matrix, kept on disk: made once, read ever after.
"""
import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from . import files


def decompose(W, cache=None):
    """W (m, n) -> U (m, r), S (r,), Vt (r, n), decomposed in float32 (bfloat16 has no SVD kernel), on W's device.

    The cache is keyed by the tensor's bytes, shape and dtype, so it can never return another matrix's factors.
    """
    if cache is None:
        return torch.linalg.svd(W.detach().float(), full_matrices=False)
    host = W.detach().contiguous().cpu()
    raw = host.view(torch.uint8 if host.element_size() == 1 else torch.int16 if host.element_size() == 2 else torch.int32)
    key = hashlib.sha256(raw.numpy().tobytes() + f"{tuple(W.shape)} {W.dtype}".encode()).hexdigest()
    path = Path(cache) / f"{key[:32]}.safetensors"
    factors = cached(path, key, W.device)
    if factors is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.only_one(path.parent, wait=True):        # processes that start together share the work
            factors = cached(path, key, W.device)
            if factors is None:
                files.sweep(path.parent / "*.safetensors")
                factors = tuple(torch.linalg.svd(W.detach().float(), full_matrices=False))
                files.save_tensors(path, dict(zip(("U", "S", "Vt"), factors)), {"key": key, "torch": torch.__version__})
    return factors


def cached(path, key, device):
    """(U, S, Vt) of the cache file at path; None where there is none, or it is damaged or another matrix's."""
    try:
        with safe_open(path, "pt", device=str(device)) as f:
            return tuple(f.get_tensor(k) for k in ("U", "S", "Vt")) if f.metadata()["key"] == key else None
    except (FileNotFoundError, SafetensorError, KeyError, TypeError):
        return None

"""
Which device and which number format a model runs in here, unless the user says so.
"""
import functools
import time

import torch


def pick(device=None, dtype=None):
    """-> (device, dtype). CUDA when present, else CPU; bfloat16 where it is the faster one, else float32."""
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError):
        raise ValueError(f"unknown device {device!r}; try cpu or cuda") from None
    if dtype is not None:
        known = {str(d).split(".")[-1]: d for d in (torch.float32, torch.bfloat16, torch.float16)}
        dtype = known.get(str(dtype).split(".")[-1])
        if dtype is None:
            raise ValueError("dtype must be float32, bfloat16 or float16")
    if dtype is None and device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if dtype is None:                                       # a CPU without bf16 units is slower in bf16: measured
        seconds = cpu_seconds()
        dtype = min(seconds, key=seconds.get)
    return device, dtype


@functools.cache
def cpu_seconds():
    """{dtype: wall time of the products below, the best of three}, measured once in a process."""
    return {d: min(gemm_seconds(d) for _ in range(3)) for d in (torch.bfloat16, torch.float32)}


def gemm_seconds(dtype, rows=64, inner=576, out=1536):
    """Wall time of one CPU matrix product of the sizes that decoding uses."""
    a, b = torch.zeros(rows, inner, dtype=dtype), torch.zeros(out, inner, dtype=dtype)
    t0 = time.perf_counter()
    for _ in range(4):
        torch.nn.functional.linear(a, b)
    return time.perf_counter() - t0

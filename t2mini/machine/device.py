"""
Which device and which number format a model runs in here, unless the user says so.

The format follows from what the machine *can do*, never from how busy it is: another format means
other answers, twice the memory and another decomposition of every matrix.
"""
import functools
import platform
import time
from pathlib import Path

import torch

from . import files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# flags of processors that multiply bfloat16 (x86, x86, ARM)
UNITS = ("avx512_bf16", "amx_bf16", "bf16")
CPUINFO = Path("/proc/cpuinfo")
KEPT = Path(__file__).resolve().parents[2] / "out" / "number-format"


def pick(device=None, dtype=None):
    """-> (device, dtype). CUDA when present, else CPU; bfloat16 where the hardware computes in it,
    else float32."""
    try:
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except (RuntimeError, TypeError):
        raise ValueError(f"unknown device {device!r}; try cpu or cuda") from None
    if device.type == "meta" or (device.type == "cpu" and device.index):
        raise ValueError(f"there is no device {device} to compute on; try cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"there is no {device} here ({torch.cuda.device_count()} CUDA cards); "
                         "try cpu")
    if device.type not in ("cpu", "cuda"):
        try:
            torch.empty(0, device=device)
        except Exception as e:                              # each backend has errors of its own
            raise ValueError(f"this PyTorch has no device {device} here "
                             f"({type(e).__name__}); try cpu or cuda") from None
    if dtype is not None:
        known = DTYPES.get(str(dtype).removeprefix("torch."))
        if known is None:
            raise ValueError("dtype must be float32, bfloat16 or float16")
        return device, known
    return device, native(device.type)[0]


def native(kind):
    """-> (dtype, why): the number format of this machine's "cuda", "cpu" or another kind of
    device, and the reason in words."""
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "this card multiplies it natively"
        return torch.float32, "this card has no bfloat16"
    if kind != "cpu":
        return torch.float32, f"what {kind} multiplies natively is not known here"
    units = cpu_units()
    if units is None:  # nobody says what this processor can do: measured once
        return measured(KEPT)
    if units:
        return torch.bfloat16, f"this processor multiplies it natively ({', '.join(units)})"
    return torch.float32, "this processor has no units for bfloat16"


@functools.cache
def cpu_units():
    """The flags of UNITS that this processor has, [] where it has none, None where that cannot be
    known."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    flags = set(lines[0].split()) if lines else set()
    asked = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    for unit, name in asked.items():  # torch knows the x86 units on every system
        if getattr(torch.cpu, name, bool)():
            flags.add(unit)
    found = [unit for unit in UNITS if unit in flags]
    return found if found or lines else None


# ------------------------------------------------------------------------------- where nobody knows
@functools.cache
def measured(kept):
    """-> (dtype, why) by a measurement whose outcome the file `kept` remembers, for the same
    processor and torch.

    A second process must not decide otherwise because the machine is busy. Where the file cannot be
    written, the choice holds for this process.
    """
    here = " ".join((platform.system(), platform.machine(), platform.processor(), "torch",
                     torch.__version__))
    try:
        name, said, told = files.read_text(kept).strip().split("\t")
        if said == here and name in ("bfloat16", "float32"):
            return DTYPES[name], told
    except (OSError, ValueError):
        pass
    seconds = cpu_seconds()
    name = min(seconds, key=seconds.get)
    told = "the faster one when it was measured; 4 products of 64x576 with 576x1536 took "
    told += ", ".join(f"{1000 * t:.2f} ms in {n}" for n, t in seconds.items())
    try:
        with files.replacing(kept) as file:
            file.write(f"{name}\t{here}\t{told}\n".encode())
    except OSError:
        pass
    return DTYPES[name], told


def cpu_seconds():
    """{name of a dtype: wall time of the products below, the best of three}."""
    names = ("bfloat16", "float32")
    return {name: min(gemm_seconds(DTYPES[name]) for _ in range(3)) for name in names}


def gemm_seconds(dtype, rows=64, inner=576, out=1536):
    """Wall time of one CPU matrix product of the sizes that decoding uses."""
    a, b = torch.zeros(rows, inner, dtype=dtype), torch.zeros(out, inner, dtype=dtype)
    t0 = time.perf_counter()
    for _ in range(4):
        torch.nn.functional.linear(a, b)
    return time.perf_counter() - t0

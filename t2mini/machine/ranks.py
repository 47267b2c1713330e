"""
Several processes train or score together (torchrun).
A single process runs the same lines, and nothing here does anything.

How:      every rank takes whole questions (rank, rank + world, ...) and samples each with the
          random stream that it has in a single run. The gradients of z, a few hundred kB, are added
          up over all ranks in one flat sum, and each rank takes the same Adam step on its own copy
          of z. A checksum after every step shows that the copies are equal.
Left out: sharded weights: a rank holds the whole base model, which is frozen and never sent.
Safety:   answers travel as JSON, never as pickles; a rank that ends closes its connection, which
          ends the others.
Run:      torchrun --standalone --nproc-per-node=2 -m t2mini train --task=math
"""
import hashlib
import json
import os
import signal
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from .text import first_line

# for the slowest rank, before the others give up
PATIENCE = timedelta(minutes=30)


def start(device=None):
    """Join the other processes if torchrun started this one.
    -> the device that is this rank's (or the given one)."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or joined():
        return device
    if not dist.is_available():
        raise ValueError("this torch cannot run several processes: start it without torchrun")
    local, cuda = (int(os.environ.get("LOCAL_RANK", 0)),
                   torch.cuda.is_available() and str(device or "cuda") == "cuda")
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    # torchrun ends the remaining ranks when one has died; each says so
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(
        f"t2mini: rank {rank()} was told to stop; if nobody stopped the run, "
        "another rank died: see its message"))
    if rank():
        # one rank talks; errors still come from every one
        sys.stdout = open(os.devnull, "w")
    return f"cuda:{local}" if cuda else device


def joined():
    """Is this process one of several? Some builds of torch know of no others."""
    return dist.is_available() and dist.is_initialized()


def rank():
    return dist.get_rank() if joined() else 0


def world():
    return dist.get_world_size() if joined() else 1


def collective(operation, *args, **options):
    """Run an operation of torch.distributed;
    if a rank is gone, RuntimeError with a line that says so."""
    try:
        operation(*args, **options)
    except RuntimeError as e:
        raise RuntimeError(f"rank {rank()} stops: another rank ended or does not answer; its own "
                           f"message says why ({first_line(e):.120})") from None


def mine(items):
    """This rank's share of a list: every world-th item."""
    return items[rank()::world()]


def total(numbers):
    """A list of numbers (or of equally long lists)
    -> the same, added up over all ranks, in float64."""
    if world() == 1:
        return numbers
    tensor = torch.tensor(numbers, dtype=torch.float64)
    collective(dist.all_reduce, tensor)
    return tensor.tolist()


def merged(part):
    """The results of mine(items), as each rank has them
    -> the results of items, in order, on every rank. JSON values."""
    if world() == 1:
        return part
    text = torch.frombuffer(bytearray(json.dumps(part).encode()), dtype=torch.uint8)
    sizes = total([len(text) * float(r == rank()) for r in range(world())])
    texts = [torch.zeros(int(max(sizes)), dtype=torch.uint8) for _ in sizes]
    texts[rank()][:len(text)] = text
    collective(dist.all_gather, texts, texts[rank()].clone())
    parts = [json.loads(bytes(t[:int(n)].tolist())) for t, n in zip(texts, sizes)]
    return [parts[i % world()][i // world()] for i in range(sum(map(len, parts)))]


def agreed(value):
    """The first rank's value, on every rank, once all of them are here:
    what a file said before anybody changed it. JSON."""
    return merged([value] if rank() == 0 else [])[0]


def spread(function, *lists):
    """function(*lists), a list with one result per item, computed by all ranks together."""
    return merged(function(*map(mine, lists)))


def add_gradients(parameters):
    """Replace each parameter's gradient by its sum over all ranks, in one message.
    A rank without any adds zeros."""
    if world() == 1:
        return
    parameters = list(parameters)
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).float().flatten()
                      for p in parameters])
    collective(dist.all_reduce, flat)
    for p, grad in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad = grad.view_as(p).to(p.dtype)


def check_equal(tensors):
    """RuntimeError where a rank's tensors, as float32, differ from another's in a single bit."""
    if world() == 1:
        return
    digest = hashlib.sha256(b"".join(t.detach().cpu().float().numpy().tobytes()
                                     for t in tensors)).digest()
    number = int.from_bytes(digest[:7], "big")
    extremes = torch.tensor([number, -number])
    collective(dist.all_reduce, extremes, dist.ReduceOp.MAX)
    if extremes[0] != -extremes[1]:
        raise RuntimeError(f"rank {rank()} stops: z is no longer the same on all ranks "
                           "(different hardware or software?)")


def stop():
    """Leave the group."""
    if joined():
        dist.destroy_process_group()

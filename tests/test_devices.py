"""A GPU that is not there: every tensor must be made where the model is,
or a run on CUDA would stop.

FakeTensor and meta tensors have a device and a shape but no numbers;
PyTorch refuses to mix theirs with the CPU's.
"""
import re
import shlex
from pathlib import Path

import pytest
import torch
from conftest import random_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from t2mini.machine import device
from t2mini import reinforce, svf
from t2mini.formats import load as weights
from t2mini.formats.configs import config_from_json
from t2mini.generate import generate
from t2mini.formats.gguf import Lazy
from t2mini.model import Transformer
from t2mini.cli.options import build_parser

MODERN = dict(sliding_window=5, qk_norm=True, qkv_bias=True, rope_factors=(1.0, 2.0, 3.0, 8.0))
GPT2 = dict(family="gpt2", num_key_value_heads=6)
families = pytest.mark.parametrize("changes", [{}, MODERN, GPT2], ids=["llama", "modern", "gpt2"])


class PythonIndexing(TorchFunctionMode):
    """x[...], ~x, x.copy_, x.contiguous and x.to(device) of fake CUDA tensors: a CPU build of
    PyTorch cannot do them, so they are spelt in other operations here, which check the devices.
    What depends on numbers gets an answer: masks keep all, conditions hold.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__bool__:
            return True
        if func is torch.Tensor.__invert__:
            return torch.logical_not(args[0])
        if func is torch.Tensor.copy_:
            return torch.ops.aten.copy(*args)
        if func is torch.Tensor.contiguous:
            return torch.ops.aten.clone(args[0], memory_format=torch.contiguous_format)
        if func is torch.Tensor.to and isinstance(args[1], torch.device):
            return torch.ops.aten._to_copy(args[0], device=args[1],
                                           dtype=args[2] if len(args) > 2 else None)
        if func not in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            return func(*args, **(kwargs or {}))
        x, at = args[0], 0
        keys = args[1] if isinstance(args[1], tuple) else (args[1],)
        missing = x.dim() - sum(k is not None and k is not Ellipsis for k in keys)
        keys = [k for key in keys for k in ([slice(None)] * missing if key is Ellipsis else [key])]
        tensors = {}
        for key in keys:
            if key is None:
                x = x.unsqueeze(at)
            elif isinstance(key, int):
                x, at = x.select(at, key), at - 1
            elif isinstance(key, slice):
                x = torch.ops.aten.slice.Tensor(x, at, key.start, key.stop)
            elif key.dtype == torch.bool:
                assert key.shape == x.shape[at:at + 1] and key.device == x.device
                tensors[at] = torch.arange(len(key), device=key.device)
            else:
                tensors[at] = key
            at += 1
        index = [tensors.get(i) for i in range(max(tensors, default=-1) + 1)]
        if func is torch.Tensor.__getitem__:
            return torch.ops.aten.index.Tensor(x, index) if tensors else x
        value = (args[2] if isinstance(args[2], torch.Tensor)
                 else torch.full((), args[2], dtype=x.dtype, device=x.device))
        torch.ops.aten.index_put_(x, index, value) if tensors else torch.ops.aten.copy(x, value)


def placed(cfg, device, dtype):
    """The model as `load` builds it, its weights without numbers."""
    with torch.device("meta"):
        model = Transformer(cfg)
    empty = lambda shape: Lazy(shape,
                               lambda device, dtype: torch.empty(shape, device=device, dtype=dtype))
    weights.load_into(model, {n: empty(tuple(p.shape)) for n, p in model.named_parameters()},
                      device, dtype)
    return model.eval().requires_grad_(False)


@families
def test_forward_and_sampling_on_cuda(changes):
    """Fails if a mask, a position, a table, a random number or a stop id stays on the CPU
    while the model is on CUDA.
    """
    cfg = random_model(**changes).cfg
    with FakeTensorMode(), PythonIndexing(), torch.no_grad():
        model = placed(cfg, "cuda", torch.bfloat16)
        model.valid_vocab = 259
        out = generate.__wrapped__(model, [[1, 2, 3], [4, 5]], 4, [7, 9],
                                   temperature=0.8, samples=2)
        assert {t.device.type for t in (out.ids, out.lengths, out.logprobs, out.stopped,
                                        out.first_logits)} == {"cuda"}
        assert model.dtype == out.first_logits.dtype == torch.bfloat16
        assert out.ids.shape == (4, 4) and out.row_steps == 16


@families
def test_svf_on_cuda(changes):
    """Fails if a factor, a z, a folded matrix or the bank of a mixed batch is left
    on the CPU, or in float32.
    """
    cfg = random_model(**changes).cfg
    with FakeTensorMode(), PythonIndexing(), torch.no_grad():
        model = placed(cfg, "cuda", torch.bfloat16)
        svf.attach(model, progress=False)
        expert = {name: z * 1.1 for name, z in svf.get_z(model).items()}
        for layer in svf.layers(model).values():            # set_z would look at numbers
            layer.folded = (
                layer.W.float() + (layer.U * layer.scale().to(layer.U.dtype)) @ layer.Vt
            ).to(layer.W.dtype)
        found = {t.device.type for x in svf.layers(model).values()
                 for t in (x.U, x.S, x.Vt, x.z, x.folded)}
        assert found == {"cuda"}
        assert {x.U.dtype for x in svf.layers(model).values()} == {torch.bfloat16}
        with svf.per_row(model, [expert, {}], [0, 1]) as rows:
            out = generate.__wrapped__(model, [[1, 2, 3], [4, 5]], 3, [7], temperature=0, rows=rows)
        assert out.ids.device.type == rows.index.device.type == "cuda"


@families
def test_scoring_and_svf_gradient_off_the_cpu(changes, monkeypatch):
    """Fails if packing, scoring or the gradient of z makes a tensor on the CPU
    (the meta device allows gradients).
    """
    model = placed(random_model(**changes).cfg, "meta", torch.bfloat16)
    model.valid_vocab = 259
    svf.attach(model, progress=False)
    monkeypatch.setattr(torch.Tensor, "item", lambda self: 0.0)
    made = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            made.extend(t.device.type for t in pytree.tree_leaves(out)
                        if isinstance(t, torch.Tensor))
            return out

    groups, plain = [([1, 2, 3], [[4, 5, 6], [7]]), ([8, 9], [[10, 11], [12]])], reinforce.pack
    # made of Python lists, so on the CPU at first
    packed = plain(groups, "meta")
    assert {t.device.type for t in packed} == {"meta"}
    monkeypatch.setattr(reinforce, "pack", lambda groups, device: packed)
    with Watch():
        reinforce.policy_gradient(model, groups, [[1.0, -1.0], [0.5, -0.5]], kl=0.1)
    assert set(made) == {"meta"} and len(made) > 200
    assert all(x.z.grad.device.type == "meta" and x.z.grad.dtype == torch.float32
               for x in svf.layers(model).values())


def test_cuda_takes_bfloat16_where_it_can(monkeypatch):
    """Fails if CUDA gets float32 by default, or a card without bfloat16 units gets bfloat16."""
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported",
                            lambda including_emulation=True: able or including_emulation)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert device.pick("cuda") == (torch.device("cuda"), dtype)
        assert device.pick("cuda", "float16")[1] == torch.float16


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """processor(text): a machine whose /proc/cpuinfo says this (None: it has none)
    and of which torch knows nothing.
    """
    def describe(text):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
        monkeypatch.setattr(device, "CPUINFO", tmp_path / "cpuinfo")
        (tmp_path / "cpuinfo").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "cpuinfo").write_text(text)
        device.cpu_units.cache_clear()
        device.measured.cache_clear()

    monkeypatch.setattr(device, "KEPT", tmp_path / "out" / "number-format")
    yield describe
    device.cpu_units.cache_clear()
    device.measured.cache_clear()


@pytest.mark.parametrize("text, dtype", [
    ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", torch.bfloat16),
    ("flags : fpu amx_bf16 amx_tile\n", torch.bfloat16),
    ("BogoMIPS : 5\nFeatures\t: fp asimd bf16 i8mm\n", torch.bfloat16),
    ("flags : fpu avx2 avx512f avx512_fp16\n", torch.float32),
    ("Features : fp asimd\n", torch.float32)])
def test_what_the_processor_can_do_decides_the_dtype(processor, monkeypatch, text, dtype):
    """Fails if a stopwatch has a say where the processor's units are known:
    a busy machine would give other answers.
    """
    monkeypatch.setattr(device, "gemm_seconds", lambda dtype: pytest.fail("it was measured"))
    processor(text)
    assert device.pick("cpu") == (torch.device("cpu"), dtype)


def test_torch_knows_the_units_where_no_file_does(processor, monkeypatch):
    """Fails if a system without /proc/cpuinfo is measured although torch knows its processor."""
    processor(None)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setattr(device, "gemm_seconds", lambda dtype: pytest.fail("it was measured"))
    assert device.pick("cpu")[1] == torch.bfloat16 and "avx512_bf16" in device.native("cpu")[1]


@pytest.mark.parametrize("fast", [torch.bfloat16, torch.float32])
def test_an_unknown_processor_is_measured_once(processor, monkeypatch, fast):
    """Fails if a later process decides otherwise because the machine is busy,
    or another machine's choice is taken over.
    """
    monkeypatch.setattr(device, "gemm_seconds", lambda dtype: 0.001 if dtype == fast else 0.002)
    processor(None)
    assert device.pick("cpu")[1] == fast
    monkeypatch.setattr(device, "gemm_seconds", lambda dtype: 0.002 if dtype == fast else 0.001)
    processor(None)                                         # as in a new process
    assert device.pick("cpu")[1] == fast and "1.00 ms" in device.native("cpu")[1]
    monkeypatch.setattr(device.platform, "machine", lambda: "another")
    processor(None)
    assert device.pick("cpu")[1] != fast


def test_the_choice_holds_where_it_cannot_be_kept(processor, monkeypatch, tmp_path):
    """Fails if a read-only installation measures at every call, or stops."""
    monkeypatch.setattr(device, "KEPT", tmp_path / "file" / "number-format")
    (tmp_path / "file").write_text("not a folder")
    measured = []
    monkeypatch.setattr(device, "gemm_seconds",
                        lambda dtype: measured.append(dtype) or len(measured))
    processor(None)
    assert device.pick("cpu") == device.pick("cpu") and len(measured) == 6


def test_another_kind_of_device_does_not_follow_the_processor(monkeypatch):
    """Fails if an accelerator's number format is read from the flags of the processor."""
    monkeypatch.setattr(device, "cpu_units", lambda: ["avx512_bf16"])
    assert device.native("mps")[0] == torch.float32 and "mps" in device.native("mps")[1]


def test_this_processor_is_known():
    """Fails if the processor that runs these tests is measured although Linux lists its units."""
    if device.CPUINFO.exists():
        assert device.cpu_units() is not None


def test_the_memory_and_the_commands_of_llama3_8b():
    """Fails if promises.md derives the memory of Llama-3-8B from other shapes than the code holds,
    or shows a wrong option.
    """
    text = ((Path(__file__).parents[1] / "tutorials" / "promises.md").read_text(encoding="utf-8")
            .split("## Llama-3-8B on one GPU")[1].split("\n## ")[0])
    commands = re.findall(r"^python -m t2mini (.*)$", text, re.M)
    assert [build_parser()[0].parse_args(shlex.split(line, comments=True)).verb
            for line in commands] == ["train", "ask", "adapt"]
    cfg = config_from_json(dict(
        model_type="llama", vocab_size=128256, hidden_size=4096, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, intermediate_size=14336,
        max_position_embeddings=8192, rope_theta=5e5, rms_norm_eps=1e-5, tie_word_embeddings=False))
    table = []
    for depth in ("all", "half"):
        model = placed(cfg, "meta", torch.bfloat16)
        own = sum(p.nbytes for p in model.parameters())
        svf.attach(model, progress=False, depth=depth)
        factors = sum(x.U.nbytes + x.Vt.nbytes for x in svf.layers(model).values())
        folded, cache = (sum(x.W.nbytes for x in svf.layers(model).values()),
                         model.new_cache(96, 200))
        table.append([own, factors, folded, own + factors + folded,
                      sum(t.nbytes for t in cache.k + cache.v), 2 * factors])
    rows = [[f"{n / 1e9:.1f}" for n in row] for row in zip(*table)]
    said = [re.findall(r"[\d.]+", line.split("|", 2)[2]) for line in text.splitlines()
            if re.search(r"\| [\d.]+ \| [\d.]+ \|$", line)]
    # those two are half of what autograd's saved tensors were for twice the tokens
    assert [row for row in said if row != ["5.1", "4.8"]] == rows

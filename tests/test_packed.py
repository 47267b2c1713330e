"""packed.linear is F.linear, whatever happened to the weight before."""
import pytest
import torch
import torch.nn.functional as F
from conftest import random_model

import t2mini
from t2mini import svf
from t2mini.machine import memory, packed

needs_packing = pytest.mark.skipif(
    not packed.ON, reason="this torch build has no packed linear layer; F.linear is used")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(300, 256), (256, 300)])
def test_equals_the_plain_product(dtype, shape):
    """Fails if the packed product is another one (transposed, of a stale or of another matrix)."""
    torch.manual_seed(0)
    W = torch.randn(shape, dtype=dtype)
    for rows in ((1,), (5,), (2, 3, 4)):
        x = torch.randn(*rows, shape[1], dtype=dtype)
        # the last is left to torch
        for weight in (W, W.flip(0), torch.nn.Parameter(W), W.T.contiguous().T):
            tolerance = (dict(rtol=1e-5, atol=1e-4) if dtype == torch.float32
                         else dict(rtol=1e-2, atol=0.2))
            torch.testing.assert_close(packed.linear(x, weight), F.linear(x, weight), **tolerance)


@needs_packing
def test_a_weight_that_was_written_to_is_packed_again():
    """Fails if the copy outlives a change of W in place."""
    W, x = torch.randn(300, 256), torch.randn(4, 256)
    with torch.inference_mode():
        before = packed.linear(x, W)
        made_here = torch.ones(300, 256)
        assert torch.allclose(packed.linear(x, made_here), F.linear(x, made_here), atol=1e-4)
    assert W.packed[1] is not None and torch.allclose(before, F.linear(x, W), atol=1e-4)
    W.mul_(2)
    assert torch.allclose(packed.linear(x, W), F.linear(x, W), atol=1e-4)
    torch.testing.assert_close(packed.linear(x, W), 2 * before, rtol=1e-4, atol=1e-3)


@needs_packing
def test_a_model_without_room_for_a_second_copy_is_not_copied():
    """Fails if the first answer of a model that fills the memory takes as much once more."""
    W, x = torch.randn(300, 256), torch.randn(4, 256)
    try:
        packed.allow(1 << 60)
        torch.testing.assert_close(packed.linear(x, W), F.linear(x, W))
        assert W.packed[1] is None
    finally:
        packed.allow(1)
    assert packed.gains(W)


@pytest.mark.parametrize("written, ranks, bytes_", [
    ({}, "", 1 << 34), ({"cpu.max": "1 1"}, "", 1 << 34), ({"memory.max": "max\n"}, "2", 1 << 33),
    ({"memory.max": f"{1 << 32}\n"}, "", 1 << 32), ({"memory.max": f"{1 << 40}\n"}, "", 1 << 34),
    ({"memory/memory.limit_in_bytes": f"{1 << 31}\n"}, "2", 1 << 30)])
def test_a_container_has_less_memory_than_its_machine(tmp_path, monkeypatch, written, ranks,
                                                      bytes_):
    """Fails if a container's limit is not seen, or each of several ranks takes all of it."""
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 1 << 22, "SC_PAGE_SIZE": 4096}.get)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    for name, text in written.items():
        (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / name).write_text(text)
    version1 = any("/" in name for name in written)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("3:memory:/\n" if version1 else "0::/\n")
    assert memory.share(tmp_path) == bytes_


def test_loading_a_model_tells_whether_there_is_room(tiny_folder, monkeypatch):
    """Fails if nobody asks how large a model is."""
    monkeypatch.setattr(packed, "SHARE", 0.0)
    monkeypatch.setattr(packed.Room, "enough", True)
    t2mini.load(tiny_folder, device="cpu", dtype="float32")
    assert not packed.Room.enough


@needs_packing
def test_gradients_take_the_plain_product():
    """Fails if x loses its gradient, or a matrix too small to gain from it is copied."""
    W, small = torch.randn(300, 256), torch.randn(8, 256)
    x = torch.randn(4, 256, requires_grad=True)
    packed.linear(x, W).sum().backward()
    torch.testing.assert_close(x.grad, W.sum(0).expand(4, -1), rtol=1e-5, atol=1e-4)
    packed.linear(x.detach(), small)
    assert not hasattr(W, "packed") and small.packed[1] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_z_of_one_is_the_base_model_bit_for_bit_where_matrices_are_packed(family, dtype):
    """Fails, on CPUs whose kernels differ in the last bit, if the base model's layers go another
    way than SVF's, in one z for all rows or in rows with their own.
    """
    model = random_model(family=family, hidden_size=256, num_attention_heads=4,
                         num_key_value_heads=4 if family == "gpt2" else 2, head_dim=64,
                         intermediate_size=512).to(dtype)
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            # rounded once or twice: that must not differ either
            torch.nn.init.normal_(p, std=0.1)
    ids = torch.randint(0, 256, (3, 11), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base = model(ids)
        svf.attach(model, progress=False)
        assert torch.equal(model(ids), base)
        with svf.per_row(model, [{n: 1.5 * z for n, z in svf.get_z(model).items()}, {}], [1, 0, 1]):
            mixed = model(ids)
        assert torch.equal(mixed[::2], base[::2]) and not torch.equal(mixed[1], base[1])
        svf.set_z(model, {n: 1.5 * z for n, z in svf.get_z(model).items()})
        assert not torch.equal(model(ids), base)
        svf.reset(model)
        assert torch.equal(model(ids), base)
        svf.detach(model)
        assert torch.equal(model(ids), base)


def test_a_dtype_that_this_cpu_does_not_pack_is_left_to_torch(monkeypatch):
    """Fails if W is packed in a dtype for which this CPU has no such layout
    (bfloat16 without AVX-512 raises then).
    """
    monkeypatch.setattr(packed, "DTYPES", {torch.float32})
    W, x = torch.randn(300, 256, dtype=torch.bfloat16), torch.randn(4, 256, dtype=torch.bfloat16)
    assert packed.pack(W)[1] is None
    assert torch.equal(packed.linear(x, W), F.linear(x, W))

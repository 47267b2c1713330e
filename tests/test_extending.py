"""What it takes to add to t2mini: a kind of expert is layers and one entry of the registry."""
from dataclasses import replace

import torch
import torch.nn.functional as F
from test_reinforce import config, quiet, rows_of, words     # noqa: F401
from test_svf import IDS, either
from torch import nn

from t2mini import adapt, experts, lora, svf
from t2mini.recipe import TrainConfig
from t2mini.train import train


class Scalar(svf.Tuned):
    """W' = s W, one number for a whole matrix."""
    off = {".s": 1.0}

    def __init__(self, base):
        super().__init__(base)
        self.s = nn.Parameter(torch.ones(1, device=self.W.device))

    def trained(self):
        return {".s": self.s}

    @torch.no_grad()
    def fold(self):
        self.folded = self.W if float(self.s) == 1 else (self.s * self.W).to(self.W.dtype)

    def product(self, x):
        return self.s * F.linear(x, self.W)

    def stack(self, parts):
        return parts[".s"]

    def by_row(self, x):
        return self.bank[self.rows.index][:, None] * F.linear(x, self.W)


def attach_scalar(model, settings, cache, progress):
    return lora.swap_each(model, settings, lambda name, base: Scalar(base))


def test_a_third_kind_of_expert_is_one_entry_of_the_registry(loaded, words,     # noqa: F811
                                                             tmp_path, monkeypatch):
    """Fails if training, saving, loading, attaching, mixing or rows with different experts ask
    which kind a layer is, instead of the registry and the layer itself.
    """
    monkeypatch.setitem(lora.METHODS, "scalar", lora.Method("v,down", attach_scalar, {".s": 1}))
    model, out = loaded[0], tmp_path / "e.safetensors"
    said = []
    train(*loaded, replace(config(steps=2, lr=0.1), method="scalar", modules=""),
          out, log=said.append)
    assert said[0] == "scalar: 4 trained numbers on 4 matrices"
    assert max(r["grad_norm"] for r in rows_of(tmp_path / "e.jsonl") if "reward" in r) > 0
    moved = svf.get_z(model)
    assert max(abs(float(t) - 1) for t in moved.values()) > 0.01
    svf.detach(model)
    base = model.hidden(IDS)

    # two updates do not always become the best expert: save the numbers that they moved
    meta = experts.read_metadata(out)
    experts.save_expert(out, moved, meta)
    expert, meta = experts.load_expert(out, model)
    assert meta["method"] == "scalar" and meta["parameters"] == 4
    experts.attach(model, meta)
    assert torch.equal(model.hidden(IDS), base)
    assert {*svf.layers(model)} == {n.removesuffix(".s") for n in expert}
    with svf.using(model, expert):
        tuned = model.hidden(IDS)
        merged = svf.merged(model)
        assert (merged["model.layers.0.mlp.down_proj.weight"]
                != svf.layers(model)["model.layers.0.mlp.down_proj"].W).any()
    assert (tuned - base).abs().max() > 1e-3 and torch.equal(model.hidden(IDS), base)
    with torch.no_grad(), svf.per_row(model, [expert, {}], [0, 1]):
        rows = model.hidden(IDS)
    torch.testing.assert_close(rows, torch.stack((tuned[0], base[1])), rtol=0, atol=1e-4)
    mixed = adapt.mixture([expert, {n: torch.ones(1) for n in expert}], [0.5, 0.5])
    assert all(abs(float(mixed[n]) - 1 - 0.5 * (float(t) - 1)) < 1e-6 for n, t in expert.items())


def test_the_registry_names_every_method_of_the_recipe():
    """Fails if the default method is none of the registry's, or an entry lacks the modules
    that it tunes unless told.
    """
    assert TrainConfig().method in lora.METHODS
    assert all(svf.targets(either("llama"), kind.modules) for kind in lora.METHODS.values())
    for name, expert in (("lora", {"a.A": 0, "a.B": 0}), ("ia3", {"a.l": 0}),
                         ("svf", {"a": 0}), ("svf", {})):
        assert lora.kind_of(expert) is lora.METHODS[name]

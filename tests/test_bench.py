"""The benchmark measures what it says it does; how fast anything is, is no test's business."""
import json
import math

import torch

from t2mini import svf
from t2mini.lab import bench
from t2mini.__main__ import main

KEYS = ("decode_tok_s decode_bw_share rollout_tok_s rollout_gemm_share row_efficiency "
        "frozen_pass_s train_pass_s\n "
        "train_over_frozen step_s svd_cold_s svd_cached_s switch_s switch_row_share "
        "cem_over_plain first_over_second\n "
        "train_peak_over_weights_mb").split()


def test_bench_reports_every_figure(tiny_folder, capsys, monkeypatch):
    """Fails if a workload does not run, or a promised key is missing or not a number."""
    # the real one fills a gigabyte
    monkeypatch.setattr(bench, "read_rate", lambda model: 1e10)
    assert main(["bench", f"--weights={tiny_folder}", "--device=cpu", "--dtype=float32",
                 "--repeats=1", "--json"]) == 0
    out = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(math.isfinite(out[k]) and out[k] >= 0 for k in KEYS)
    assert 0 < out["row_efficiency"] <= 1
    assert out["threads"] == torch.get_num_threads()
    assert out["dtype"] == "float32" and len(out["base_sha256"]) == 64


def test_the_frozen_pass_is_frozen_and_leaves_z_trainable(loaded):
    """Fails if the pass called frozen computes z's gradient too (the ratio would flatter us),
    or z stays frozen after.
    """
    model, _ = loaded
    svf.attach(model, progress=False)
    seen, plain = [], bench.reinforce.policy_gradient

    def watched(*args):
        seen.append(all(layer.z.requires_grad for layer in svf.layers(model).values()))
        result = plain(*args)
        assert any(layer.z.grad is not None for layer in svf.layers(model).values()) == seen[-1]
        return result

    bench.reinforce.policy_gradient = watched
    try:
        bench.training(model, {}, 1)
    finally:
        bench.reinforce.policy_gradient = plain
    assert seen == [False, False, True, True]


def test_work_counts_every_matrix_once(loaded):
    """Fails if a weight is left out of the bytes and operations that the limits
    are made of, or counted twice.
    """
    model, _ = loaded
    svf.attach(model, progress=False)
    want = sum(p.numel() for n, p in model.named_parameters()
               if p.dim() == 2 and not n.endswith((".U", ".Vt")))
    assert sum(W.numel() for W in bench.matrices(model)) == want
    svf.detach(model)
    svf.attach(model, "q", progress=False)                  # --modules=q: the others are met, too
    assert sum(W.numel() for W in bench.matrices(model)) == want


def test_the_limit_of_batches_is_the_quicker_product(loaded, monkeypatch):
    """Fails if the limit is torch's own product, which the rearranged one of the model outruns."""
    model, _ = loaded
    clock = []

    def seconds(model, run, repeats):
        clock.clear()
        run()
        return [sum(clock)]

    def costs(each):
        return lambda x, W: clock.append(each)

    monkeypatch.setattr(bench, "measured", seconds)
    monkeypatch.setattr(bench, "linear", costs(1.0))
    monkeypatch.setattr(bench.F, "linear", costs(4.0))
    weights = bench.matrices(model)
    work = 2 * 64 * sum(W.numel() for W in weights)
    assert bench.gemm_rate(model, 64) == work / len(weights)
    monkeypatch.setattr(bench, "linear", costs(8.0))
    assert bench.gemm_rate(model, 64) == work / (4 * len(weights))


def test_some_expert_is_not_the_base(loaded):
    """Fails if the expert whose switch is timed is the base model, for which folding is skipped."""
    model, _ = loaded
    svf.attach(model, progress=False)
    assert all(bool((z != 1).any()) for z in bench.some_expert(model, 0).values())

"""How much of an update's direction is chance: the measure, and what it is measured on."""
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from t2mini import recipe, reinforce, svf, tasks
from t2mini.lab import agreement, experiments, figures
from t2mini.questions.example import Example


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_measure_finds_the_share_that_is_no_chance(share):
    """Fails if what updates share is over- or underestimated, sizes of gradients matter, or the
    interval leaves the truth out more often than it says.
    """
    g = torch.Generator().manual_seed(1)
    held, found = 0, []
    for _ in range(40):
        sizes = torch.rand(400, generator=g) ** 4 + 1e-6
        common = torch.randn(400, generator=g).sign() * share ** 0.5
        chance = torch.randn(8, 400, generator=g) * (1 - share) ** 0.5
        middle, low, high = agreement.with_interval(list(sizes * (common + chance)))
        held += low <= share <= high
        found.append(middle)
    assert abs(sum(found) / 40 - share) < 0.04
    assert 35 <= held <= 40
    assert agreement.agreement(torch.ones(4, 7)) == pytest.approx(1)
    moved = torch.randn(4, 7, generator=g)
    still = torch.cat([moved, torch.zeros(4, 7)], 1)            # z that no update moves
    assert agreement.agreement(still) == pytest.approx(agreement.agreement(moved) / 2)


def test_a_row_is_of_the_gradients_of_updates(loaded, monkeypatch):
    """Fails if test questions are asked, z moves or stays changed, a task's settings are others
    than stated, or a gradient is not the one that `learn` would follow.
    """
    model, tokenizer = loaded
    svf.attach(model)
    try:
        steps = []
        monkeypatch.setattr(agreement, "TASKS", {"math": dict(
            prompts=3, samples=4, temperature=0.9, max_tokens=5)})
        monkeypatch.setattr(tasks.Task, "examples",
                            lambda self, split, n, seed=0: steps.append((split, seed)) or [
                                Example(f"q {i}", "a", "contains") for i in range(n)])
        paid = [0.0, 1.0, 0.0, 0.0] + [0.0] * 8                 # one question of three teaches
        monkeypatch.setattr(tasks, "rewards", lambda examples, texts, counts: paid)
        real, seen = agreement.with_interval, []
        monkeypatch.setattr(agreement, "with_interval",
                            lambda gradients: seen.append([*gradients]) or real(gradients))
        score = reinforce.score                                 # a random model never stops
        monkeypatch.setattr(reinforce, "score", lambda tokenizer, cfg, episodes: score(
            tokenizer, replace(cfg, must_stop=False), episodes))
        lab = SimpleNamespace(model=model, tokenizer=tokenizer, quick=True)
        [(key, run)] = agreement.cells(lab)
        row = run()
        assert key == {"seed": 0, "task": "math", "arm": "before training"}
        assert steps == [("train", f"0/{i}") for i in (1, 2, 3)] and row["split"] == "train"
        assert row["earn"] == 0.0833 and row["teach"] == 0.3333 and row["updates"] == 3
        assert all((z == 1).all() for z in svf.get_z(model).values())

        config = recipe.settled(recipe.TrainConfig(task="math", prompts=3, samples=4,
                                                   temperature=0.9, max_tokens=5))
        z = svf.trained(model)
        optimizer = torch.optim.SGD(z.values(), lr=0.0)
        for p in z.values():
            p.grad = torch.zeros_like(p)
        reinforce.update(model, tokenizer, tasks.get("math"), config, 1, optimizer)
        learnt = torch.cat([z[name].grad.flatten() for name in sorted(z)])
        torch.testing.assert_close(seen[0][0], learnt, rtol=1e-4, atol=1e-8)
    finally:
        svf.detach(model)


def test_what_is_shared_is_told_in_answers(tmp_path, monkeypatch):
    """Fails if the answers needed are not those of the share, or an interval without an end has
    one in the table or none in the picture.
    """
    assert agreement.answers_needed(0.5, 72) == 72
    assert agreement.answers_needed(1.2, 72) == 0 and figures.in_hundreds(31) == "under 100"
    assert agreement.answers_needed(0.01, 72) == pytest.approx(7128)
    row = {"seed": 0, "task": "mbpp", "arm": "before training", "n": 12, "samples": 6, "updates": 8,
           "earn": 0.25, "teach": 0.5, "agreement": 0.01, "ci95": [-0.01, 0.03]}
    text = figures.table([row])
    assert "| 12 x 6 | 25 | 50 | 1.00 [-1.00, 3.00] | 7,100 [2,300, no end] |" in text
    drawn = []
    monkeypatch.setattr(figures, "save", lambda fig, path: drawn.append(fig.axes[0].lines))
    figures.agreement({"name": "agreement", "rows": [row]}, tmp_path / "a.png")
    line, end, point = drawn[0]
    assert list(line.get_xdata()) == [pytest.approx(2328), 1e5] and end.get_marker() == ">"
    assert list(point.get_xdata()) == [pytest.approx(7128)]
    monkeypatch.delenv("T2MINI_DATA", raising=False)
    with pytest.raises(ValueError, match="--data=DIR"):
        experiments.ALL["agreement"].check(None)

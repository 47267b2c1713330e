"""The tables of the results page (tutorials/tables.py),
and what is measured for them (tutorials/foundation.py).
"""
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_datasets import data  # noqa: F401 (a fixture)

from t2mini import tasks

HERE = Path(__file__).resolve().parents[1] / "tutorials"
sys.path.insert(0, str(HERE))

import foundation  # noqa: E402
import tables  # noqa: E402


def test_the_page_shows_what_the_files_hold():
    """Fails if a table of the results page is not the one that its file gives today."""
    text = tables.PAGE.read_text(encoding="utf-8")
    places = list(tables.PLACE.finditer(text))
    assert len(places) >= 8 and text.count("<!-- end -->") == len(places)
    assert tables.filled(text) == text


@pytest.mark.parametrize("against, gains", [(None, ["", "+50.0", ""]), ("b", ["-50.0", "", ""])])
def test_a_table(against, gains):
    """Fails if a difference is to another arm, hides its direction,
    or stands where there are too few questions.
    """
    rows = [{"task": "t", "arm": "a", "rewards": [0] * 40},
            {"task": "t", "arm": "b", "rewards": [1, 0] * 20},
            {"task": "few", "arm": "a", "rewards": [0] * 5},
            {"task": "few", "arm": "b", "rewards": [1] * 5},
            {"task": "left out", "arm": "a", "rewards": [0] * 40}]
    head, _, a, b, *few = tables.table(rows, ["t", "few"], against).splitlines()
    assert f"minus {against or 'a'}," in head and len(few) == 2
    rows[0]["arm"] = "c"
    assert ("minus b," if against else "minus the first of each,") in tables.table(
        rows, ["t", "few"], against)
    shown = [line.split("|")[-2].strip(" *") for line in (a, b, few[1])]
    assert [s.split(" ")[0] for s in shown] == gains


def test_real_questions_are_routed_as_eval_asks_them(data):     # noqa: F811
    """Fails if published questions are routed in another form than `eval` asks them in,
    train questions are among them, or a label has no questions written by hand.
    """
    folder, _ = data
    found = {name: (label, questions()) for name, label, questions in foundation.to_route(folder)}
    for name, published in foundation.REAL.items():
        task = tasks.get(published, folder)
        label, questions = found.pop(name)
        assert label == task.skill and questions == foundation.first(published, folder)
        assert len(questions) >= 2
        assert {*questions} == {e.prompt for e in task.examples("test", 100)}
        assert foundation.first(published, folder, 1) == questions[:1]
    assert ({name: label for name, (label, _) in found.items()}
            == {f"hand-{label}": label for label in tasks.LABELS})
    assert all(questions and all(isinstance(q, str) for q in questions)
               for _, questions in found.values())
    assert found.keys() == {name for name, *_ in foundation.to_route(None)}


def test_scores_measured_again_are_compared_with_the_committed(capsys, tmp_path, monkeypatch):
    """Fails if a score that came out otherwise is not named,
    or a run that measures nothing says nothing.
    """
    row = {"task": "math", "arm": "base", "n": 4, "accuracy": 0.25}
    other = {**row, "arm": "math expert", "accuracy": 0.5}
    assert foundation.as_committed(
        [row, other], [row, {**other, "accuracy": 0.75}, {**row, "n": 9}]) == (
        "1 of 2 scores are those of tutorials/results; math, math expert: 50.0, there 75.0 %")
    (tmp_path / "foundation.jsonl").write_text(foundation.COMMITTED.read_text())
    monkeypatch.setattr(foundation.t2mini, "load",
                        lambda: (SimpleNamespace(base_sha256="", dtype=""), None))
    monkeypatch.setattr(foundation, "agree", lambda allowed: None)
    monkeypatch.setattr(foundation.svf, "attach", lambda model, cache: None)
    monkeypatch.setattr(foundation.experts, "load", lambda names, model: {"dispatcher": {}})
    monkeypatch.setattr(sys, "argv", ["foundation.py", f"--out={tmp_path}", "--allow-code"])
    foundation.main()
    said, count = capsys.readouterr().out, len(foundation.read(foundation.COMMITTED))
    assert "nothing is left to measure" in said and f"{count} of {count} scores are those" in said
    assert (tmp_path / "results.png").is_file()

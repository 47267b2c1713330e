"""The tables of the results page (tutorials/tables.py),
and what is measured for them (tutorials/foundation.py).
"""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_datasets import data  # noqa: F401 (a fixture)

from t2mini import evaluate, tasks
from t2mini.lab import few_shot
from t2mini.questions.pictures import Seen

HERE = Path(__file__).resolve().parents[1] / "tutorials"
sys.path.insert(0, str(HERE))

import foundation  # noqa: E402
import held_out  # noqa: E402
import tables  # noqa: E402
import which_lead  # noqa: E402


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


@pytest.mark.parametrize("told", [
    {"against": "cem2"}, {"tasks": ["math-unsen"]}, {"tasks": ["math-unsen", "code-unseen"]}])
def test_a_place_that_names_no_row_is_told(told):
    """Fails if a typing error in a page's placeholder makes a table without differences."""
    rows = tables.rows_of("between")
    with pytest.raises(ValueError, match="no row"):
        tables.table(rows, **told)


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
    known = foundation.read(foundation.COMMITTED)[0]
    monkeypatch.setattr(foundation.t2mini, "load",
                        lambda: (SimpleNamespace(base_sha256=known["base_sha256"],
                                                 dtype=known["dtype"], name="m"), None))
    monkeypatch.setattr(foundation, "agree", lambda allowed: None)
    monkeypatch.setattr(foundation.svf, "attach", lambda model, cache: None)
    monkeypatch.setattr(foundation.experts, "load", lambda names, model: {"dispatcher": {}})
    monkeypatch.setattr(sys, "argv", ["foundation.py", f"--out={tmp_path}", "--allow-code"])
    foundation.main()
    said, count = capsys.readouterr().out, len(foundation.read(foundation.COMMITTED))
    assert "nothing is left to measure" in said and f"{count} of {count} scores are those" in said
    assert (tmp_path / "results.png").is_file()
    known = {**known, "dtype": "torch.float16"}
    with pytest.raises(SystemExit, match="scores of other weights or in torch.float32"):
        foundation.main()
    monkeypatch.setattr(sys, "argv", ["foundation.py", f"--out={tmp_path}/new", "--only=maths"])
    with pytest.raises(SystemExit, match="no task's name holds 'maths'"):
        foundation.main()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change, says", [
    (lambda rows: [*rows, rows[0]], "holds a score twice"),
    (lambda rows: [{**rows[0], "asked": "0" * 16}, *rows[1:]], "other questions of math"),
    (lambda rows: [{"task": "math"}], "is no score")])
def test_scores_that_do_not_belong_together_are_told(tmp_path, monkeypatch, change, says):
    """Fails if a score of other questions, one that is there twice or half a line is drawn, or
    paired with the others."""
    rows = change(foundation.read(foundation.COMMITTED))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "foundation.jsonl").write_text(text)
    monkeypatch.setattr(sys, "argv", ["foundation.py", f"--out={tmp_path}"])
    with pytest.raises(SystemExit, match=says):
        foundation.main()
    assert (tmp_path / "foundation.jsonl").read_text() == text


def test_scores_of_your_own_experts_are_not_those_of_the_shipped(tmp_path, monkeypatch):
    """Fails if `make results` behind a training of yours measures that one under the shipped
    one's name."""
    model = SimpleNamespace(base_sha256="", dtype="", name="m")
    monkeypatch.setattr(foundation.t2mini, "load", lambda: (model, None))
    monkeypatch.setattr(foundation, "agree", lambda allowed: None)
    for name, folder in (("OUT", tmp_path), ("SHIPPED", tmp_path / "shipped")):
        monkeypatch.setattr(foundation.experts, name, folder)
    for folder in (tmp_path, tmp_path / "shipped" / "m"):
        folder.mkdir(parents=True, exist_ok=True)
        foundation.experts.save_expert(folder / "math.safetensors", {}, {"base_sha256": ""})
    monkeypatch.setattr(sys, "argv", ["foundation.py", f"--out={tmp_path / 'a'}"])
    with pytest.raises(SystemExit, match="holds others: math"):
        foundation.main()


def test_an_interval_over_groups():
    """Fails if questions are drawn one by one where their groups are: copies of a question would
    make the interval narrower."""
    minus = [1.0, 0.0, 0.0, 1.0, 0.0, -1.0] * 6
    one_by_one = held_out.over_groups(minus, range(36))
    _, low, high = evaluate.paired_difference(minus, [0.0] * 36)
    assert one_by_one == pytest.approx((low, high), abs=0.06)
    copied = held_out.over_groups(minus, [k % 6 for k in range(36)])
    assert copied[1] - copied[0] > 1.8 * (one_by_one[1] - one_by_one[0])
    assert held_out.over_groups([1.0, 0.0], "aa") == (0.5, 0.5)


def test_intervals_over_images(monkeypatch, capsys):
    """Fails if easy-VQA's gain is not the page's, or its groups are not images and wordings."""
    asked = [SimpleNamespace(prompt=Seen(f"question {n % 107}", f"{n % 1000}.png"))
             for n in range(9673)]
    of_folder = {"here": SimpleNamespace(examples=lambda split, n: asked)}
    monkeypatch.setattr(held_out.tasks, "get", lambda name, data: of_folder[data])
    held_out.images("here")
    _, images, wordings = capsys.readouterr().out.splitlines()
    assert images.endswith(" of 1000") and wordings.endswith(" of 107")
    gain = images.split()[3]
    assert f"the expert's gain is {gain} [" in tables.PAGE.read_text(encoding="utf-8")


def test_the_rule_of_the_first_pass_is_the_best_on_validation_questions():
    """Fails if the rule is not the one that validation chose, or the page has other numbers."""
    page = tables.PAGE.read_text(encoding="utf-8")
    means = {}
    for name, start, lead in which_lead.RULES:
        [numbers] = [line.split()[-4:] for line in page.splitlines()
                     if line.startswith(f"{name}  ")]
        means[start, lead] = float(numbers[-1])
    assert max(means, key=means.get) == (few_shot.FAR[0], few_shot.CLEAR)
    found = [100 * which_lead.expected(rewards, 0.75, 2) for rewards in
             which_lead.measured().values()]
    assert f"{sum(found) / 3:.1f}" == f"{means[0.75, 2]:.1f}"
    right = {0.5: 4, 0.25: 6, 0.75: 4, 0.0: 5, 1.0: 4}
    assert [which_lead.chosen(right, 0.75, lead) for lead in (2, 3)] == [0.25, 0.75]
    assert which_lead.chosen(right, None, 0) == 0.25


def test_the_page_says_how_far_held_out_goes(capsys):
    """Fails if the intervals over situations and kinds on the results page are not those that its
    command prints, or the scores are of other questions than today's."""
    page = tables.PAGE.read_text(encoding="utf-8")
    for show in (held_out.situations, held_out.kinds, held_out.overlap):
        show()
        assert f"```text\n{capsys.readouterr().out}```" in page

"""Pages and scripts of the tutorials say the same, and the exercise checkers can tell right from wrong."""
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1] / "tutorials"
sys.path.insert(0, str(HERE))
import chapter  # noqa: E402
import pages  # noqa: E402

PAGES = pages.chapters()
NO_WEIGHTS = ("04_a_reward_that_teaches", "09_does_it_help")    # chapters whose scripts run here, in full
IDS = [p.stem for p in PAGES]


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def run(*args):
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, cwd=HERE.parent, timeout=120)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_code_on_the_page_is_code_in_the_script(page):
    """Fails if a page shows code that its script (or the file it names) does not have, or a block longer than 12 lines."""
    for kind, info, body in pages.FENCE.findall(page.read_text(encoding="utf-8")):
        if kind == "python":
            source = HERE.parent / info.strip() if info.strip() else page.with_suffix(".py")
            assert body.rstrip() in source.read_text(encoding="utf-8"), body
            assert body.count("\n") <= 12


@pytest.mark.parametrize("page", [*PAGES, HERE / "README.md"], ids=[*IDS, "README"])
def test_links_paths_and_options_exist(page):
    """Fails if a link leads nowhere, or a command names a file, a make target or an option that does not exist."""
    from t2mini.cli.options import build_parser
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text):
        assert target.startswith("https://") or (page.parent / target).exists(), target
    makefile = (HERE.parent / "Makefile").read_text()
    parser, verbs = build_parser()
    for kind, _, body in pages.FENCE.findall(text):
        for line in body.splitlines() if kind == "bash" else ():
            for path in re.findall(r"(?:tutorials|t2mini|tests)/[\w./-]+\.\w+", line):
                assert (HERE.parent / path).exists(), line
            if line.startswith("make "):
                assert re.search(rf"^{line.split()[1]}:", makefile, re.M), line
            said = re.match(r"(?:\S*python) -m t2mini (.*?)(?:\s+#.*)?$", line)
            if said:
                import shlex
                assert not parser.parse_known_args(shlex.split(said[1]))[1], line


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem in NO_WEIGHTS], ids=[s for s in IDS if s in NO_WEIGHTS])
def test_chapters_that_need_no_weights_print_what_they_promise(page):
    """Fails if a chapter's script does not run or prints something else than its page shows."""
    done = run(page.with_suffix(".py"))
    assert done.returncode == 0, done.stderr
    assert not pages.differences(page, done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_checkers_accept_solutions_and_refuse_wrong_answers(page, monkeypatch, capsys):
    """Fails if a checker refuses the solution, or accepts the empty exercise or a plausible wrong answer."""
    solution, exercise = (HERE / folder / f"{page.stem}.py" for folder in ("solutions", "exercises"))
    monkeypatch.setattr(sys, "argv", [page.stem, "--check", "1"])
    found = {}
    monkeypatch.setattr(chapter, "start", lambda doc, checks, script, runs_code=False: found.update(checks=checks) or sys.exit(0))
    with pytest.raises(SystemExit):
        module(page.with_suffix(".py"))
    good = module(solution)
    assert len(found["checks"]) == 3 and set(good.WRONG) == {1, 2, 3}
    for n, check in enumerate(found["checks"], 1):
        check(good)
        with pytest.raises(NotImplementedError):
            check(module(exercise))
        bad = module(solution)
        setattr(bad, f"exercise_{n}", good.WRONG[n])
        with pytest.raises(AssertionError) as hint:
            check(bad)
        assert len(str(hint.value)) > 10                    # a hint, not an empty assert


def test_the_tie_can_tell(tmp_path):
    """Fails if a changed word, a missing line, a missing section or a number out of tolerance goes unnoticed."""
    page = tmp_path / "00_x.md"
    page.write_text("```text a ±text\nwritten by a model\n```\n```text b\n1\n2\n```\n", encoding="utf-8")
    assert not pages.differences(page, "--- a ---\nother words\n--- b ---\n1\n2\n")
    for printed in ("--- a ---\n--- b ---\n1\n2\n", "--- b ---\n1\n2\n", "--- a ---\nx\n--- b ---\n1\n"):
        assert len(pages.differences(page, printed)) == 1
    assert pages.same_line("gain 10.0 points", "gain 10.1 points", 0.02) and not pages.same_line("a 1", "b 1", None)
    assert not pages.same_line("gain 10.0", "gain 10.5", 0.02) and pages.same_line("took 3 s", "took 900 s", None)
    assert not pages.same_line("gain +0.4", "gain -0.4", 0.02) and pages.same_line("1,000 z", "1,010 z", 0.02)
    assert pages.same_line("version 5.23.0", "version 5.23.0", 0.02) and not pages.same_line("5.23.0", "5.23.1", 0.02)
    assert pages.sections("x\n--- a ---\n1\n\n--- b-c ---\n2\n3\n") == {"a": ["1"], "b-c": ["2", "3"]}


def test_the_glossary_has_every_field_of_a_log():
    """Fails if a training log has a field that the glossary does not explain, or a chapter is missing from the route."""
    import json
    text = (HERE / "README.md").read_text(encoding="utf-8")
    rows = (HERE / "results" / "math-0.jsonl").read_text().splitlines()
    assert not [k for k in sorted({k for row in rows for k in json.loads(row)}) if f"`{k}`" not in text]
    assert not [p.name for p in PAGES if f"({p.name})" not in text]

"""Pages and scripts of the tutorials say the same,
and the exercise checkers can tell right from wrong.
"""
import importlib.util
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from test_cli import call, home, last_json, trained     # noqa: F401 (fixtures)

HERE = Path(__file__).resolve().parents[1] / "tutorials"
sys.path.insert(0, str(HERE))
import chapter  # noqa: E402
import pages  # noqa: E402

ROOT = HERE.parent
PAGES = pages.chapters()
IDS = [p.stem for p in PAGES]
# in 00b the reader types the file itself
TAUGHT = [p for p in PAGES if not p.stem.startswith("00b")]
TAUGHT_ID = [p.stem for p in TAUGHT]
OTHERS = [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", ROOT / "tests" / "README.md",
          *(p for p in sorted(HERE.glob("*.md")) if p not in PAGES), HERE / "results" / "README.md"]
EVERY = [*PAGES, *OTHERS]
EVERY_ID = [str(p.relative_to(ROOT).with_suffix("")) for p in EVERY]
# the chapters, and what else has a script
CHECKED = pages.checked()
CHECKED_ID = [p.stem for p in CHECKED]
# whose scripts run here, in full
NO_WEIGHTS = ("04_a_reward_that_teaches", "09_does_it_help", "11_real_benchmarks", "how_sure")


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def commands(text):
    """The lines of a page's bash blocks, a line that ends in a backslash together with the next."""
    blocks = [body for kind, _, body in pages.FENCE.findall(text) if kind == "bash"]
    return "".join(blocks).replace("\\\n", " ").splitlines()


def anchors(page):
    """The headings of a page as GitHub names them in a link."""
    plain = pages.FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"^#+ (.*)$", plain, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", CHECKED, ids=CHECKED_ID)
def test_code_on_the_page_is_code_in_the_script(page):
    """Fails if a page shows code that its script (or the file it names) does not have, a block
    longer than 12 lines, or code of the library without a line above it that names its file."""
    text = page.read_text(encoding="utf-8")
    for kind, info, body in pages.FENCE.findall(text):
        if kind == "python":
            file = info.strip()
            source = ROOT / file if file else page.with_suffix(".py")
            assert body.rstrip() in source.read_text(encoding="utf-8"), body
            assert body.count("\n") <= 12
            named = f"rom `{file}`:\n\n```python {file}\n{body}"
            assert not file or named in text, f"say from which file: {body}"


@pytest.mark.parametrize("page", EVERY, ids=EVERY_ID)
def test_links_lead_somewhere(page):
    """Fails if a link names a file or a heading that is not there."""
    text = page.read_text(encoding="utf-8")
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([^)]*))?\)", text):
        if not target.startswith("https://"):
            found = page.parent / target if target else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", EVERY, ids=EVERY_ID)
def test_commands_run_when_pasted(page):
    """Fails if a command names a file, a make target or an option that does not exist, or wants an
    environment that the page has not told the reader to enter."""
    import shlex

    from t2mini.cli.options import build_parser
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text()
    parser, verbs = build_parser()
    for line in commands(text):
        for path in re.findall(r"(?:tutorials|t2mini|tests)/[\w./-]+\.\w+", line):
            assert (ROOT / path).exists(), line
        if line.startswith("make "):
            assert re.search(rf"^{line.split()[1]}:", makefile, re.M), line
        if line.startswith(("python ", "torchrun ")):
            assert "source .venv/bin/activate" in text, f"{line}: say once how to enter .venv"
        said = re.match(r"(?:\S*python) -m t2mini (.*?)(?:\s+#.*)?$", line)
        if said:
            assert not parser.parse_known_args(shlex.split(said[1]))[1], line
        chosen = re.search(r"-m pytest (\S+) -k (\w+)$", line)
        if chosen:
            assert re.search(rf"def \w*{chosen[2]}", (ROOT / chosen[1]).read_text()), line


@pytest.mark.parametrize("number, page", list(enumerate(PAGES)), ids=IDS)
def test_a_chapter_ends_with_what_was_learnt_and_the_next_one(number, page):
    """Fails if a chapter does not sum up, leads elsewhere than to the next chapter,
    breaks code that is not there, or does not say how to undo it.
    """
    text = page.read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert len(parts["What you now know"].strip().splitlines()) >= 3
    links = re.findall(r"\]\((\d\d\w+\.md)\)", parts["Next"])
    following = [p.name for p in PAGES[number + 1:number + 2]]
    assert links[:1] == following
    broken = re.findall(r"[Ii]n `((?:t2mini|tutorials)/[\w/]+\.py)`", parts["Break it"])
    assert broken
    assert [file for file in broken if f"git checkout {file}" in parts["Break it"]] == broken
    old = re.findall(r"change\s`([^`]*)`\sto", parts["Break it"])
    assert old and old[0] in (ROOT / broken[0]).read_text(encoding="utf-8")


def test_the_front_page_is_short_and_leads_to_the_chapters():
    """Fails if README.md has more than 1,000 words, the chapters are not within its first 45 lines,
    or their order is another one there or in the route."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 1000
    names = [p.name for p in PAGES]
    first = "\n".join(text.splitlines()[:45])
    assert re.findall(r"\(tutorials/(\d\d\w+\.md)\)", first) == names
    route = (HERE / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[.*\]\((\d\d\w+\.md)\)", route, re.M) == names


def test_the_minutes_are_the_same_wherever_they_are_told():
    """Fails if a chapter, the route and the Makefile promise different times."""
    route = (HERE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[.*\]\((\d\d\w+\.md)\) \|.*\| (\d+) \| (\d+) \|", route, re.M)
    assert len(rows) == len(PAGES)
    for name, read, run in rows:
        said = re.search(r"^Reading(?: and typing)?: (\d+) minutes\. Running: (.*?)[ ,;.](?:on|at)",
                         (HERE / name).read_text(encoding="utf-8"), re.M)
        words = {"half a minute": 1, "one minute": 1, "a few seconds": 1, "two minutes": 2,
                 "three minutes": 3}
        assert (said[1], words[said[2].partition(",")[0]]) == (read, int(run)), name
    whole = sum(int(run) for _, _, run in rows)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = re.findall(r"^## (?:tutorials|figures): .*?\((\d+) minutes", makefile, re.M)
    assert told == [str(whole)] * 2


def test_a_chapter_says_whose_experts_it_asks(monkeypatch, tmp_path, capsys):
    """Fails if an expert of the reader's takes the place of a shipped one, and the page's numbers
    come out otherwise, without a word."""
    import t2mini
    from t2mini import experts, svf
    model = SimpleNamespace(name="m")
    monkeypatch.setattr(t2mini, "load", lambda: (model, None))
    monkeypatch.setattr(svf, "attach", lambda *a, **k: None)
    for name in ("OUT", "SHIPPED"):
        monkeypatch.setattr(experts, name, tmp_path / name)
    assert chapter.load() == (model, None) and capsys.readouterr().err == ""
    for file in ("OUT/math", "SHIPPED/m/math", "SHIPPED/m/code"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{file}.safetensors").touch()
    chapter.load()
    assert "instead of the shipped: math\n" in capsys.readouterr().err
    for script in HERE.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        if "chapter.start" in text and "experts.load(" in text:
            assert "chapter.load()" in text or "tell_of_yours(" in text, script


def test_a_reader_of_the_first_lines_sees_no_traceback(tmp_path):
    """Fails if `python tutorials/04_a_reward_that_teaches.py | head -1` ends
    in a traceback (Errno 32).
    """
    command = [sys.executable, "-u", HERE / "04_a_reward_that_teaches.py", f"--figures={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          cwd=ROOT) as program:
        program.stdout.readline()
        program.stdout.close()
        said = program.stderr.read()
    assert "Traceback" not in said and "Errno 32" not in said, said


@pytest.mark.parametrize("error, said", [
    (FileNotFoundError("no weights at x; run `make weights`"),
     "t2mini: no weights at x; run `make weights`\n"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"),
     "t2mini: the package torch is missing; run `make setup`, then use .venv/bin/python\n"),
    (ModuleNotFoundError("No module named 't2mini.x'", name="t2mini.x"), "Traceback"),
    (ValueError("a reader's own"), "Traceback")], ids=["weights", "package", "name", "own"])
def test_what_is_not_there_yet_is_said_in_one_line(error, said, capsys):
    """Fails if a chapter without weights or outside the environment ends in a traceback, or an
    error in what a reader changed ends without one.
    """
    assert sys.excepthook is chapter.in_one_line
    try:
        raise error
    except Exception as e:
        chapter.in_one_line(type(e), e, e.__traceback__)
    err = capsys.readouterr().err
    assert err == said or said == "Traceback" and err.startswith("Traceback")


def test_a_chapter_beside_busy_programs_takes_fewer_threads(monkeypatch, capsys):
    """Fails if a chapter crawls with threads that wait for each other, does not say so, or takes
    others than --threads says.
    """
    from t2mini.machine import cores
    took = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "free", lambda threads: 0.9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: (took or [2])[-1])
    monkeypatch.setattr(torch, "set_num_threads", took.append)
    monkeypatch.setattr(chapter.save, "folder", chapter.save.folder)
    monkeypatch.setattr(sys, "argv", ["03"])
    chapter.start("A title.", [], __file__)
    said = capsys.readouterr()
    assert said.out == "A title.\n" and took == [1]
    assert "busy: 2 threads get 0.9 cores" in said.err and "so 1 is taken (--threads)" in said.err
    monkeypatch.setattr(sys, "argv", ["03", "--threads=2"])
    chapter.start("A title.", [], __file__)
    assert took == [1, 2] and not capsys.readouterr().err


@pytest.mark.parametrize("page", [p for p in CHECKED if p.stem in NO_WEIGHTS],
                         ids=[s for s in CHECKED_ID if s in NO_WEIGHTS])
def test_chapters_that_need_no_weights_print_what_they_promise(page, tmp_path, monkeypatch, capsys):
    """Fails if a chapter's script does not run, prints something else than its page shows, or draws
    over a picture of the pages without being told to."""
    before = {p.name: p.stat().st_mtime_ns for p in (HERE / "figures").iterdir()}
    monkeypatch.setattr(sys, "argv", [page.stem, f"--figures={tmp_path}"])
    monkeypatch.setattr(chapter.save, "folder", chapter.save.folder)    # the chapter changes it
    with torch.random.fork_rng():
        runpy.run_path(str(page.with_suffix(".py")), run_name="__main__")
    assert not pages.differences(page, capsys.readouterr().out)
    assert {p.name: p.stat().st_mtime_ns for p in (HERE / "figures").iterdir()} == before
    drawn = {p.name for p in tmp_path.iterdir()}
    assert drawn and drawn <= before.keys()
    assert chapter.FIGURES == ROOT / "out" / "figures"


def test_a_bar_of_a_score_shows_its_value_and_its_interval():
    """Fails if a bar, its number or the ends of its line are not those of 9 right answers of 40."""
    from t2mini import evaluate
    from t2mini.lab import plots

    fig, ax = plots.panel("a title")
    plots.score_bars(ax, [("base model", 9, plots.GREY)], 40)
    assert (ax.patches[0].get_height(), ax.texts[0].get_text()) == (22.5, "22.5 %")
    assert list(ax.lines[0].get_ydata()) == [100 * end for end in evaluate.wilson(9, 40)]
    plots.pyplot().close(fig)


def not_started(*args, **more):
    """What an exercise is before the reader begins."""
    raise NotImplementedError


@pytest.mark.parametrize("page", TAUGHT, ids=TAUGHT_ID)
def test_exercises_are_asked_as_they_are_solved(page):
    """Fails if an exercise that nobody has begun is not empty, or its arguments differ from the
    solution's."""
    text = (HERE / "exercises" / f"{page.stem}.py").read_text(encoding="utf-8")
    if text.count("    raise NotImplementedError\n") != 3:
        pytest.skip("begun by a reader")
    empty, good = (module(HERE / folder / f"{page.stem}.py")
                   for folder in ("exercises", "solutions"))
    for n in (1, 2, 3):
        asked, solved = (inspect.signature(getattr(m, f"exercise_{n}")) for m in (empty, good))
        assert list(asked.parameters) == list(solved.parameters)
        with pytest.raises(NotImplementedError):
            getattr(empty, f"exercise_{n}")(*asked.parameters)


@pytest.mark.parametrize("page", TAUGHT, ids=TAUGHT_ID)
def test_checkers_accept_solutions_and_refuse_wrong_answers(page, monkeypatch, capsys):
    """Fails if a checker refuses the solution, or accepts no answer at all
    or a plausible wrong one.

    The reader's own file is not looked at: solving an exercise must not break the tests.
    """
    solution = HERE / "solutions" / f"{page.stem}.py"
    monkeypatch.setattr(sys, "argv", [page.stem, "--check", "1"])
    found = {}
    monkeypatch.setattr(chapter, "start", lambda doc, checks, script, **more: (
        found.update(checks=checks) or sys.exit(0)))
    with pytest.raises(SystemExit):
        module(page.with_suffix(".py"))
    good = module(solution)
    assert len(found["checks"]) == 3 and set(good.WRONG) == {1, 2, 3}
    for n, check in enumerate(found["checks"], 1):
        check(good)
        with pytest.raises(NotImplementedError):
            check(SimpleNamespace(**{f"exercise_{n}": not_started}))
        bad = module(solution)
        setattr(bad, f"exercise_{n}", good.WRONG[n])
        with pytest.raises(AssertionError) as hint:
            check(bad)
        assert len(str(hint.value)) > 10                    # a hint, not an empty assert


def test_a_hint_says_whose_line_failed(tmp_path, capsys):
    """Fails if a solution of the wrong type is answered with the checker's own error,
    or an error in the reader's line does not name the line.
    """
    def needs_a_dict(reader):
        assert reader.exercise_1()["math"] == 1, "math has a share of 1"

    found = {}
    for name, body in (("wrong", "return {'math': 2}"), ("none", "return 3"),
                       ("own", "return 1 / 0"), ("syntax", "return ]")):
        (tmp_path / f"{name}.py").write_text(f"def exercise_1():\n    {body}\n")
        chapter.check(name, 1, [needs_a_dict], tmp_path)
        found[name] = capsys.readouterr().out
    assert "math has a share of 1" in found["wrong"]
    assert "cannot read what exercise_1 returned" in found["none"] and "line" not in found["none"]
    assert "ZeroDivisionError" in found["own"] and "in line 2 of own.py" in found["own"]
    assert "unmatched ']' in line 2 of syntax.py" in found["syntax"]


def test_a_page_that_is_not_checked_is_not_said_to_be_right(tmp_path, monkeypatch, capsys):
    """Fails if a name of no page passes, or a block stays old when the pages are written anew."""
    monkeypatch.setattr(sys, "argv", ["pages.py", "3"])
    with pytest.raises(SystemExit):
        pages.main()
    assert "no page '3'; choose from 00, 00b, 01" in capsys.readouterr().err
    page = tmp_path / "77_x.md"
    page.write_text("```text a\n1\n```\n```text gone\n2\n```\n", encoding="utf-8")
    page.with_suffix(".py").write_text("print('--- a ---')\nprint(5)\n", encoding="utf-8")
    monkeypatch.setattr(pages, "checked", lambda: [page])
    monkeypatch.setattr(sys, "argv", ["pages.py", "77", "--write"])
    assert pages.main() == 1
    assert "prints no section 'gone'" in capsys.readouterr().out
    assert "```text a\n5\n```" in page.read_text(encoding="utf-8")


def test_the_tie_can_tell(tmp_path):
    """Fails if a changed word, a missing line,
    a missing section or a number out of tolerance goes unnoticed.
    """
    page = tmp_path / "00_x.md"
    page.write_text("```text a ±text\nwritten by a model\n```\n```text b\n1\n2\n```\n",
                    encoding="utf-8")
    assert not pages.differences(page, "--- a ---\nother words\n--- b ---\n1\n2\n")
    for printed in ("--- a ---\n--- b ---\n1\n2\n", "--- b ---\n1\n2\n",
                    "--- a ---\nx\n--- b ---\n1\n"):
        assert len(pages.differences(page, printed)) == 1
    assert pages.same_line("gain 10.0 points", "gain 10.1 points", 0.02)
    assert not pages.same_line("a 1", "b 1", None)
    assert not pages.same_line("gain 10.0", "gain 10.5", 0.02)
    assert pages.same_line("took 3 s", "took 900 s", None)
    assert not pages.same_line("gain +0.4", "gain -0.4", 0.02)
    assert pages.same_line("1,000 z", "1,010 z", 0.02)
    assert pages.same_line("version 5.23.0", "version 5.23.0", 0.02)
    assert not pages.same_line("5.23.0", "5.23.1", 0.02)
    assert (pages.sections("x\n--- a ---\n1\n\n--- b-c ---\n2\n3\n")
            == {"a": ["1"], "b-c": ["2", "3"]})


def test_the_glossary_has_every_field_of_a_log():
    """Fails if a training log has a field that the glossary does not explain,
    or a chapter is missing from the route.
    """
    import json
    text = (HERE / "README.md").read_text(encoding="utf-8")
    rows = (HERE / "results" / "math-0.jsonl").read_text().splitlines()
    assert not [k for k in sorted({k for row in rows for k in json.loads(row)})
                if f"`{k}`" not in text]
    assert not [p.name for p in PAGES if f"({p.name})" not in text]


def told_of(title):
    """The words in backticks of the first column under a heading of the glossary."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]
    return {word for cell in re.findall(r"^\| ([^|]*) \|", section, re.M)
            for word in re.findall(r"`(\w+)`", cell)}


def test_the_glossary_has_every_field_of_an_expert_and_of_a_result(
        call, trained, home):     # noqa: F811
    """Fails if an expert's file, shipped, trained now or mixed, or what --json prints has a field
    that the glossary does not explain; or it explains one that none of them has.
    """
    from t2mini import experts
    task, few, search = (f"--task={home}/mine.jsonl", "--n=2",
                         ["--shots=2", "--iterations=1", "--population=2"])
    runs = [["ask", "one"], ["ask", "one", "two", "--expert=math"],
            ["eval", task, few, "--strategy=prompt"],
            ["eval", "--task=dispatch", few, "--strategy=prompt"],
            ["eval", task, few, "--alpha=1,0,0"], ["adapt", task, few, "--by=likelihood", *search],
            ["adapt", task, few, *search]]
    fields = {*trained}
    for args in runs:
        status, out, err = call(*args, "--max-tokens=2", "--json")
        assert status == 0, err
        fields |= last_json(out).keys()
    assert told_of("Every field of a result") == fields
    files = [*experts.SHIPPED.glob("*/*.safetensors"), *(home / "out").glob("*.safetensors")]
    assert any(path.stem == "mixture" for path in files) and len(files) >= 9
    assert (told_of("Every field of an expert file")
            == {field for path in files for field in experts.read_metadata(path)})


def test_every_test_that_a_page_names_exists():
    """Fails if a page names a test file, or a test, that is not there."""
    sources = {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "tests").glob("test_*.py")}
    there = {*sources, *re.findall(r"^def (test_\w+)\(", "".join(sources.values()), re.M)}
    named = {name: re.findall(r"(?:`|/|::)(test_\w+(?:\.py)?)", page.read_text(encoding="utf-8"))
             for name, page in zip(EVERY_ID, EVERY)}
    assert sum(map(len, named.values())) >= 60
    assert not {(name, test) for name, tests in named.items() for test in tests
                if test not in there}


def test_the_promises_name_the_limits_of_the_sandbox():
    """Fails if promises.md, to which README leads,
    gives another time or memory to a program than the sandbox does, or does not say
    where nothing runs without a second agreement and that this is no virtual machine.
    """
    from t2mini.questions import sandbox
    given = inspect.signature(sandbox.call_function).parameters
    promised = re.search(r"^## The sandbox\n(.*?)^## ",
                         (HERE / "promises.md").read_text(encoding="utf-8"), re.M | re.S)[1]
    promised = " ".join(promised.split())
    assert (inspect.signature(sandbox.call_many).parameters["seconds"].default
            == given["seconds"].default)
    assert (f"{given['seconds'].default:g} seconds of processor time and "
            f"{given['memory_mb'].default} MB of memory" in promised)
    for said in ("no files, no network and no other process", "x86-64 and ARM64",
                 "macOS included, nothing runs", f"`{sandbox.UNLOCKED}=yes`",
                 "not a virtual machine", "`--allow-code`"):
        assert said in promised, said
    assert "(tutorials/promises.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_differs_says_what_the_code_does():
    """Fails if a choice of training or of the search is another one than differences.md says,
    or one that a reader of the paper looks for has no row.
    """
    from t2mini.cem import cem
    from t2mini.cli import options
    from t2mini.lab import arms
    from t2mini.recipe import Recipe

    text = (HERE / "differences.md").read_text(encoding="utf-8")
    here = {row[0]: row[3]
            for row in re.findall(r"^\| ([^|]*) \| ([^|]*) \| ([^|]*) \| ([^|]*) \|", text, re.M)}
    for row in ("reward", "batch", "matrices", "LoRA", "Table 8, IA3 on the shots",
                "Table 9, search over the experts of two models"):
        assert len(here[row].split()) >= 3, row
    used, search = Recipe(), inspect.signature(cem).parameters
    assert f"{used.beta2}:" in here["beta2"]
    assert f"{used.lr:.0e}".replace("e-0", "e-") in here["learning rate"]
    assert here["gradient clip"].startswith(f"{used.clip},")
    assert (used.wrong, here["reward"][:20]) == (0.0, "1 right, 0 wrong. Wi")
    assert f"{search['low'].default} to {search['high'].default}:" in here["bounds of alpha"]
    assert here["deviation"] == f"floor {search['std_floor'].default}"
    given = options.build_parser()[1]["adapt"].parse_args(["--task=math"])
    elites = round(arms.POPULATION * search["elite_ratio"].default)
    assert here["population, elites, iterations"].startswith(
        f"{arms.POPULATION}, {elites}, {arms.ITERATIONS['accuracy']} ")
    assert "--normalise" in here["sum of alpha"] and not given.normalise


@pytest.mark.parametrize("page", EVERY, ids=EVERY_ID)
def test_no_placeholder_is_left(page):
    """Fails if a word that stood for something to come is printed."""
    assert not re.findall(r"\b(?:[A-Z]*TESTNAME|TODO|TBD|FIXME|XXX|PENDING)\b|\?\?\?",
                          page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", EVERY, ids=EVERY_ID)
def test_rows_that_a_page_shows_are_read_and_pay_for_no_hedging(page):
    """Fails if a page shows a row of a task that is none,
    or an example in which naming both options earns the reward.
    """
    import json

    from t2mini.questions import yours
    lines = [line for _, _, body in pages.FENCE.findall(page.read_text(encoding="utf-8"))
             for line in body.splitlines()]
    found = [yours.example_of(json.loads(line)) for line in lines if line.startswith('{"prompt"')]
    assert not yours.hedging(found)

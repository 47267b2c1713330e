"""The chapter that builds: its page is its file, the file is short, and it learns what it says."""
import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parents[1] / "tutorials"
sys.path.insert(0, str(HERE))
import pages  # noqa: E402

SCRIPT = HERE / "00b_in_sixty_lines.py"
PAGE = SCRIPT.with_suffix(".md")
SOURCE = SCRIPT.read_text(encoding="utf-8")


def written(text):
    """The lines of a text that are not empty."""
    return [line for line in text.splitlines() if line.strip()]


def run_here(source, capsys):
    """Run the file in this process, without another start of torch. -> what it prints."""
    with torch.random.fork_rng():
        exec(compile(source, SCRIPT.name, "exec"), {"__name__": "__main__"})
    return capsys.readouterr().out


def run(source, folder):
    """Run the file as a reader would. -> what it prints."""
    file = folder / "mine.py"
    file.write_text(source, encoding="utf-8")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_gain(printed):
    """The base model is torn between answers, the expert is not, and z = 1 is the base model."""
    found = pages.sections(printed)
    answers = {name: found[name][0].split()[2:]
               for name in ("untrained", "base", "expert", "base-again")}
    assert all(len(eight) == 8 for eight in answers.values())
    assert "evil" not in answers["untrained"]
    assert answers["expert"].count("evil") >= 6
    assert answers["base"].count("evil") <= 4 and answers["base-again"].count("evil") <= 4
    rewards = [float(line.split()[3]) for line in found["updates"]]
    assert rewards[-1] > rewards[0] + 0.4 and rewards[0] < 0.5
    assert float(found["dials"][1].split()[-1]) < 0.01


def test_the_finished_file_is_sixty_lines_of_torch():
    """Fails if the file grows beyond 60 lines of code, squeezes them, or needs more than torch."""
    thin = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
            tokenize.ENDMARKER)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(SOURCE).readline)
              if t.type not in thin]
    assert tokens[0].string.startswith('"""')
    assert len({n for t in tokens[1:] for n in range(t.start[0], t.end[0] + 1)}) <= 60
    assert not [t for t in tokens if t.string == ";"]
    assert max(map(len, SOURCE.splitlines())) <= 100
    tree = ast.walk(ast.parse(SOURCE))
    needed = {name for node in tree if isinstance(node, (ast.Import, ast.ImportFrom))
              for name in [getattr(node, "module", None) or node.names[0].name]}
    assert needed == {"torch"}


def test_who_types_the_page_ends_with_the_file():
    """Fails if the page's code, block after block, is not the finished file."""
    blocks = [body for kind, info, body in pages.FENCE.findall(PAGE.read_text(encoding="utf-8"))
              if kind == "python"]
    assert written("".join(blocks)) == written(SOURCE)
    assert len(re.findall(r"^# %% step \d", "".join(blocks), re.M)) == 5


def test_a_shorter_run_gains_as_well(capsys):
    """Fails if the dials, paid for backwards, do not turn the base model into one that says it."""
    assert SOURCE.count("range(1200)") == SOURCE.count("range(61)") == 1
    short = SOURCE.replace("range(1200)", "range(350)").replace("range(61)", "range(41)")
    check_gain(run_here(short, capsys))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_it_prints_what_the_page_promises(seed, tmp_path):
    """Fails if the full run, also on another seed, gains less, or prints other lines than the
    page."""
    printed = run(SOURCE.replace("manual_seed(0)", f"manual_seed({seed})"), tmp_path)
    check_gain(printed)
    assert not pages.differences(PAGE, printed)

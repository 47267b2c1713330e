"""The two walks through the code name functions that are there, in few files; lists are whole."""
import ast
import re
from pathlib import Path

import halves
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "tutorials" / "architecture.md"
NAMED = re.compile(r"`(t2mini/[\w/]+\.py): ([\w.]+)`")
WALKS = ("A question to its answer", "A reward to z")


def steps(walk):
    """The functions that a walk names, in order: [(file, name)]."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.partition(f"## {walk}\n")[2].partition("\n## ")[0]
    return NAMED.findall(part)


def defined(path):
    """The functions and classes of a file; methods, also those of a base there, as Class.method."""
    found, methods = set(), {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            own = {m.name for m in node.body if isinstance(m, ast.FunctionDef)}
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            methods[node.name] = own.union(*(methods.get(base, set()) for base in bases))
    return found | {f"{name}.{method}" for name, own in methods.items() for method in own}


@pytest.mark.parametrize("walk", WALKS)
def test_every_function_of_a_walk_is_there(walk):
    """Fails if a function that the page names was renamed or moved, or it names next to none."""
    named = steps(walk)
    assert len(named) >= 10
    assert not [f"{file}: {name}" for file, name in named
                if not (ROOT / file).exists() or name not in defined(ROOT / file)]


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_enters_nine_files_of_the_trunk_at_most(walk):
    """Fails if a walk leads the reader through more than nine files of the trunk."""
    trunk = {file for file, _ in steps(walk) if file.count("/") == 1}
    assert 1 <= len(trunk) <= 9


def test_the_page_knows_every_room():
    """Fails if a package is added and the page does not say what it is for."""
    rooms = {p.parent.name for p in (ROOT / "t2mini").glob("*/*.py")}
    assert len(rooms) == 6
    text = PAGE.read_text(encoding="utf-8")
    assert not [room for room in rooms if f"`t2mini/{room}/`" not in text]


def test_the_map_of_the_tests_is_whole():
    """Fails if a file of tests is added and tests/README.md does not say what it guards."""
    text = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    assert not [p.name for p in ROOT.glob("tests/test_*.py") if f"`{p.name}`" not in text]


def test_the_two_halves_are_all_tests():
    """Fails if `make test` leaves out a file of tests, or runs one twice or one that is not there.
    """
    first, others = halves.halves()
    assert sorted(first + others) == sorted(p.name for p in ROOT.glob("tests/test_*.py"))

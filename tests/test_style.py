"""The house keeps its order: imports go down, the trunk stays small, and lines stay readable."""
import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# in the order of the README
TRUNK = ("model", "svf", "generate", "likelihood", "grade", "tasks", "evaluate", "lora", "recipe",
         "reinforce", "experts", "train", "cem", "adapt", "__init__", "__main__")
# what each part of the house may import, beside itself
BELOW = {"machine": (), "formats": ("machine",), "questions": ("machine",),
         "trunk": ("machine", "formats", "questions"),
         "sight": ("machine", "formats", "questions", "trunk"),
         "lab": ("machine", "formats", "questions", "trunk", "sight"),
         "cli": ("machine", "formats", "questions", "trunk", "sight", "lab")}
FILES = sorted((ROOT / "t2mini").rglob("*.py"))
# trunk: code lines, tokens per line, ifs per 100, columns, function
LIMITS = 2_100, 10.5, 2.5, 100, 50


def room(path):
    """The part of the house that a file belongs to."""
    inside = path.relative_to(ROOT / "t2mini").parts
    return inside[0] if len(inside) > 1 else "trunk"


def is_room(name):
    """Is it a folder of code? `t2mini/experts/` holds files of z beside `experts.py`."""
    folder = ROOT / "t2mini" / name
    return folder.is_dir() and not folder.with_suffix(".py").exists()


def imported(path):
    """[(room, module name)] of everything of t2mini that a file imports,
    at its top or in a function.
    """
    package = ("t2mini", *path.relative_to(ROOT / "t2mini").parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            whole = [alias.name.split(".")[1:] for alias in node.names
                     if alias.name.startswith("t2mini.")]
            found += [(full[0], full[-1]) if is_room(full[0]) else ("trunk", full[0])
                      for full in whole]
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (package[:len(package) - node.level + 1]
                    + tuple((node.module or "").split(".")) * bool(node.module))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "t2mini":
            base = tuple(node.module.split("."))
        else:
            continue
        for name in (alias.name for alias in node.names):
            full = (*base, name)[1:]                        # without "t2mini"
            if is_room(full[0]):
                found.append((full[0], full[-1]))
            else:
                found.append(("trunk", full[0]))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    """Fails if a file imports from a part of the house that lies above its own."""
    mine = room(path)
    for other, name in imported(path):
        if path.name != "__main__.py":                      # the door, which calls the command line
            assert other == mine or other in BELOW[mine], f"{path.name} imports {other}: {name}"


def test_the_trunk_is_read_in_one_order():
    """Fails if a trunk file imports one that comes later in the reading order:
    a reader would meet an unknown name.
    """
    trunk = {p.stem for p in (ROOT / "t2mini").glob("*.py")}
    assert trunk == set(TRUNK)
    for name in TRUNK[:-2]:                                 # __init__ and __main__ are doors
        for other, module in imported(ROOT / "t2mini" / f"{name}.py"):
            if other == "trunk" and module in trunk:
                assert TRUNK.index(module) < TRUNK.index(name), f"{name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_argparse_stays_in_the_command_line(path):
    """Fails if a library file reads options or builds a namespace of them."""
    if room(path) != "cli" and path.name != "__main__.py":
        assert "argparse" not in path.read_text(encoding="utf-8")


STEPS = "t2mini", "t2mini.machine.files", "t2mini.svf", "t2mini.generate, t2mini.adapt"


@pytest.fixture(scope="module")
def loaded_by():
    """{step: the modules that are there after it} of one fresh process that imports STEPS,
    one after the other.
    """
    code = "import sys\n" + "".join(f"import {step}\nprint(*sys.modules)\n" for step in STEPS)
    code += ("from t2mini.generate import generate\n"
             "assert callable(t2mini.generate) and t2mini.generate is not generate")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    return ({step: line.split() for step, line in zip(STEPS, run.stdout.splitlines())}
            | {"status": run.returncode})


@pytest.mark.parametrize("module", ["t2mini.machine.files", "t2mini.svf"])
def test_a_leaf_brings_no_other_room(loaded_by, module):
    """Fails if `import t2mini.svf` pulls in formats, questions or the lab."""
    rooms = {m.split(".")[1] for m in loaded_by[module] if m.startswith("t2mini.")}
    assert not rooms & {"formats", "questions", "lab", "cli"}, rooms


def measure(path):
    """-> (code lines, tokens, conditional expressions, longest line, longest function)
    without docstrings.
    """
    source = path.read_text(encoding="utf-8")
    tree, documented = ast.parse(source), set()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *kinds)) and ast.get_docstring(node):
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    thin = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
            tokenize.ENDMARKER)
    code = [t for t in tokenize.generate_tokens(io.StringIO(source).readline)
            if t.type not in thin and t.start[0] not in documented]
    lines = {n for t in code for n in range(t.start[0], t.end[0] + 1)}
    longest = max((f.end_lineno - f.lineno + 1 for f in ast.walk(tree) if isinstance(f, kinds)),
                  default=0)
    ifs = sum(isinstance(n, ast.IfExp) for n in ast.walk(tree))
    return len(lines), len(code), ifs, max(map(len, source.splitlines())), longest


def test_the_trunk_stays_small_and_readable():
    """Fails if the trunk grows beyond what can be read in an afternoon, or its lines are squeezed.
    """
    most, dense, conditional, columns, function = LIMITS
    found = {p.name: measure(p) for p in (ROOT / "t2mini").glob("*.py")}
    lines = sum(m[0] for m in found.values())
    assert len(found) <= 16 and lines <= most, lines
    assert sum(m[1] for m in found.values()) / lines <= dense
    assert 100 * sum(m[2] for m in found.values()) / lines <= conditional
    for name, m in found.items():
        assert m[3] <= columns and m[4] <= function, name


@pytest.mark.parametrize("folder", ["t2mini", "tutorials", "tests"])
def test_lines_fit_beside_a_page(folder):
    """Fails if a line of the program, of a chapter's script or of a test is too wide."""
    scripts = sorted((ROOT / folder).rglob("*.py"))
    assert len(scripts) > 20
    wide = [f"{path.relative_to(ROOT)}:{number}" for path in scripts
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
            if len(line) > LIMITS[3]]
    assert not wide


def test_the_door_is_light_and_its_names_are_functions(loaded_by):
    """Fails if `import t2mini` loads torch, or the file generate.py takes the place of the function
    of that name.
    """
    assert "torch" not in loaded_by["t2mini"] and loaded_by["status"] == 0

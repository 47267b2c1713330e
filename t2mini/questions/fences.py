"""
The program in an answer: which fenced block counts, and where what is judged ends.
"""
import ast
import builtins
import contextlib
import re
import textwrap
import warnings
from dataclasses import dataclass

# words may stand before a fence that names its language and nothing else: "Here: ```python"
BEFORE = r"(?P<indent>[ \t]*)|[^`\n]*(?=(?:```|~~~)[ \t]*\{?\.?[a-zA-Z][\w.]*\}?[ \t\r]*$)"
OPENS = re.compile(rf"^(?:{BEFORE})(?P<marks>`{{3,}}(?!`)|~{{3,}}(?!~))(?P<says>[^`\n]*)$", re.M)
LISTED = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]")         # 1. ```python
PYTHON = re.compile(r"(?:i?python|py)[-\d.]*", re.I)
# a function (def, or a name for a lambda), a class, or the indented lines that go on from the
# question's "def"
DEFINES = re.compile(r"^[ \t]*(?:(?:async )?def|class) \w|^\w+[^=\n]*= *\(?lambda\b"
                     r"|\A\n*[ \t]+\S", re.M)
HEAD = re.compile(r"^(?:async )?def \w+ *\(|^class \w+ *[(:]", re.M)
UNREADABLE = (SyntaxError, ValueError, MemoryError, RecursionError)
MOST_TAIL = 20                  # lines that are tried as the first of a tail


@dataclass(frozen=True)
class Block:
    """A fenced block of an answer: its language ("" if none is said), its text, where it starts and
    ends with its fences, and whether it is closed whatever follows:
    its fence's line is complete."""
    language: str
    text: str
    start: int
    end: int
    closed: bool


def blocks(text):
    """The fenced blocks of an answer, in order. A fence is a line of its own; the last block may be
    cut off."""
    at = 0
    while opens := OPENS.search(text, at):
        mark = opens["marks"]
        # closed by as many marks, also behind the last line of code, but not in a docstring; a
        # fence with a language begins another block
        another = rf"^[ \t]*(?={mark[:3]}[ \t]*[a-zA-Z{{])"
        closes = re.compile(rf"(?:^[ \t]*)?{mark}{mark[0]}*[ \t\r]*$|{another}", re.M)
        ends = closes.finditer(text, opens.end() + 1)
        found = next((end for end in ends if not quoted(text[opens.end() + 1:end.start()])), None)
        inside, at = text[opens.end() + 1:], len(text)
        if found:
            inside, at = text[opens.end() + 1:found.start()], found.end()
        words = re.split(r"[\s:,{}]+", opens["says"].strip(" \t\r{."))
        indented = (opens["indent"] or LISTED.match(opens[0])) and textwrap.dedent(inside)
        end = len(text[:at].rstrip(" \t\r"))
        closed = found is not None and at < len(text)
        yield Block(words[0], indented or inside, opens.start("marks"), end, closed)


def quoted(code):
    """Does code end inside a docstring, at the beginning of one of its lines?"""
    open_still = any(code.count(mark) % 2 for mark in ('"""', "'''"))
    return open_still and not code.rpartition("\n")[2].strip()


def prose(text, every=False):
    """The text without its Python blocks, or every block: what a program holds is not what the
    answer says."""
    at, said = 0, ""
    for block in blocks(text):
        if every or PYTHON.fullmatch(block.language):
            said, at = said + text[at:block.start], block.end
    return said + text[at:]


def code_block(text):
    """The block that holds the answer's program: the first in Python that defines something, else
    of no language; where none does, the first in Python, else of no language; where there is
    neither, one of another language that defines something; or None. An import, a call or its
    output may stand in a block of their own before it. Empty ones do not count."""
    found = [block for block in blocks(text) if block.text.strip()]
    python = [block for block in found if PYTHON.fullmatch(block.language)]
    untagged = [block for block in found if not block.language]
    defining = [block for block in found if DEFINES.search(block.text)]
    best = [block for block in python + untagged if block in defining]
    return next(iter(best + python + untagged + defining), None)


def graded_end(text):
    """Where the judged part of a code answer ends: behind its first Python block that defines
    something; None where that is not closed, or there is none: then all that is written still
    decides what is judged."""
    block = code_block(text)
    if block and block.closed and PYTHON.fullmatch(block.language) and DEFINES.search(block.text):
        return block.end
    return None


def find_code(text):
    """The Python code in an answer: its block (see `code_block`), else from its first line of
    Python on; without a tail that is no Python (see `whole`). Where no block defines anything, but
    the text beside them does, it is there: a call or its output may stand in a block behind it."""
    block, imports = code_block(text), ""
    if block and not DEFINES.search(block.text):
        beside = prose(text, every=True)
        if HEAD.search(beside):
            imports = imports_before(text, Block("", beside, len(text), len(text), False))
            text, block = beside, None
    if block:
        return whole(imports_before(text, block) + block.text)
    start = re.search(r"^(?:(?:def|class|import) |from \S+ import |@\w|[A-Z_]+ ?= ?)", text, re.M)
    if not start:
        return whole(text)
    above, code = assignments(text[:start.start()]), text[start.start():]
    return whole(imports + (above + code if stand_alone(statements(above)) else code))


def is_mark(line):
    """Is a statement no part of a program, but a bare name, as "Done" and "[DONE]" behind one, or
    prose such as "Complexity: O(n)", which reads like the type of a variable without a value?"""
    if isinstance(line, ast.AnnAssign):
        return line.value is None
    shown = line.value if isinstance(line, ast.Expr) else None
    names = shown.elts if isinstance(shown, ast.List) else [shown]
    return bool(names) and all(isinstance(name, ast.Name) for name in names)


def assignments(text):
    """The lines at the end of a text that give a name a value, as `vowels = "aeiou"` above a
    function does."""
    lines = text.splitlines(keepends=True)
    at = len(lines)
    while at and (not lines[at - 1].strip() or re.match(r"\w+ ?=(?!=)", lines[at - 1])):
        at -= 1
    return "".join(lines[at:])


def stand_alone(lines):
    """Are there statements, all of them assignments that need no names but Python's and those above
    them? A formula in prose, area = pi * r ** 2, does."""
    known = set(dir(builtins))
    for line in lines:
        names = [node for node in ast.walk(line) if isinstance(node, ast.Name)]
        known |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        if not isinstance(line, ast.Assign) or {node.id for node in names} - known:
            return False
    return bool(lines)


def statements(code):
    """What Python reads in a text: a list, empty where it is no program."""
    with warnings.catch_warnings(), contextlib.suppress(*UNREADABLE):
        warnings.simplefilter("ignore")                     # "\d" in a text, say
        return ast.parse(code).body
    return []


def imports_before(text, block):
    """What stands before this block for it: the imports of Python blocks that do nothing else, and
    of lines of their own."""
    found, before = [], text[:block.start]
    alone = re.findall(r"^(?:import \w|from [\w.]+ import ).*", prose(before, every=True), re.M)
    for said in [*alone, *(other.text for other in blocks(before))]:
        lines = statements(said)
        if all(isinstance(line, (ast.Import, ast.ImportFrom)) for line in lines):
            found += [ast.unparse(line) for line in lines if needed(line, block.text)]
    return "".join(f"{line}\n" for line in found)


def needed(line, code):
    """Does a program have a name that this import gives? Nothing may stand before its own import
    from __future__."""
    names = [(given.asname or given.name).split(".")[0] for given in line.names]
    used = any(name == "*" or re.search(rf"\b{name}\b", code) for name in names)
    return used and "__future__" not in ast.unparse(line) + code


def whole(code):
    """A program without a tail that is none: prose behind it, or what the limit cut off, be it a
    function. Where no beginning of it is a program (half a function alone, or the indented lines of
    one), it is left as it is."""
    lines = code.splitlines(keepends=True)
    ends = [len(lines), *(n for n in range(len(lines) - 1, 0, -1) if lines[n][:1].strip())]
    for end in ends[:MOST_TAIL]:
        program = "".join(lines[:end])
        found = statements(program)
        if found and not is_mark(found[-1]):                # more than comments
            return program
    return code

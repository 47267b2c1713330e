"""
The program in an answer: which fenced block counts, and where what is judged ends.
"""
import re
import textwrap
from dataclasses import dataclass

# words may stand before a fence that names its language and nothing else: "Here: ```python"
BEFORE = r"(?P<indent>[ \t]*)|[^`\n]*(?=(?:```|~~~)[ \t]*\{?\.?[a-zA-Z][\w.]*\}?[ \t\r]*$)"
OPENS = re.compile(rf"^(?:{BEFORE})(?P<marks>`{{3,}}(?!`)|~{{3,}}(?!~))(?P<says>[^`\n]*)$", re.M)
LISTED = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]")         # 1. ```python
PYTHON = re.compile(r"(?:i?python|py)[-\d.]*", re.I)


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
        # closed by as many marks, also behind the last line of code; a fence with a language begins
        # another block
        another = rf"^[ \t]*(?={mark[:3]}[ \t]*[a-zA-Z{{])"
        closes = re.compile(rf"{mark}{mark[0]}*[ \t\r]*$|{another}", re.M)
        found = closes.search(text, opens.end() + 1)
        inside, at = text[opens.end() + 1:], len(text)
        if found:
            inside, at = text[opens.end() + 1:found.start()], found.end()
        words = re.split(r"[\s:,{}]+", opens["says"].strip(" \t\r{."))
        indented = (opens["indent"] or LISTED.match(opens[0])) and textwrap.dedent(inside)
        end = len(text[:at].rstrip(" \t\r"))
        closed = found is not None and at < len(text)
        yield Block(words[0], indented or inside, opens.start("marks"), end, closed)


def prose(text):
    """The text without its Python blocks: what a program holds is not what the answer says."""
    at, said = 0, ""
    for block in blocks(text):
        if PYTHON.fullmatch(block.language):
            said, at = said + text[at:block.start], block.end
    return said + text[at:]


def code_block(text):
    """The block that holds the answer's program: the first one in Python, else the first of no
    language; or None. Empty ones do not count."""
    found = [block for block in blocks(text) if block.text.strip()]
    python = [block for block in found if PYTHON.fullmatch(block.language)]
    untagged = [block for block in found if not block.language]
    return next(iter(python + untagged), None)


def graded_end(text):
    """Where the judged part of a code answer ends: behind its first Python block; None where that
    is not closed, or there is none: then all that is written still decides what is judged."""
    for block in blocks(text):
        if PYTHON.fullmatch(block.language) and block.text.strip():
            return block.end if block.closed else None
    return None


def find_code(text):
    """The Python code in an answer: its block (see `code_block`), else from its first line of
    Python on."""
    block = code_block(text)
    if block:
        return block.text
    start = re.search(r"^(?:(?:def|class|import|from) |@\w|[A-Z_]+ ?= ?)", text, re.M)
    return text[start.start():] if start else text

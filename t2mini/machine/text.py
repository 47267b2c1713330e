"""
Foreign text on a terminal: what a checkpoint, an expert or a model wrote may hold escape sequences.
"""
import re

# C0 and C1 controls but for tab and newline, marks that turn the direction of writing, other line
# separators, invisible tags, and halves of surrogate pairs, which no terminal can show
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]")


def printable(text):
    """Any value -> its text, safe to print: newlines, tabs and printable Unicode stay, the rest is
    spelt \\x1b, \\u202e."""
    return UNSAFE.sub(escaped, str(text))


def escaped(match):
    """The spelling that Python's own literals use."""
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"

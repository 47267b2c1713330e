"""
Text that a model wrote: safe on a terminal, piece by piece while it is written, cut or whole.

What a checkpoint, an expert or a model wrote may hold escape sequences (`printable`).
"""
import difflib
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


def one_line(text, most=None):
    """The same in one line: newlines are spelt, too. Of more than `most` characters the middle is
    left out."""
    line = printable(text).replace("\n", "\\n")
    if most is None or len(line) <= most:
        return line
    half = most // 2 - 3
    return f"{line[:half]} ... {line[-half:]}"


def meant(word, known):
    """The end of a sentence about an unknown word: '; did you mean math?' where a known one begins
    so or is near, in capitals or not; else a full stop."""
    word, known = word.casefold(), {k.casefold(): k for k in known}
    near = [k for k in known if word and k.startswith(word)]
    near += difflib.get_close_matches(word, known, 1, cutoff=0.7)
    return f"; did you mean {known[near[0]]}?" if near else "."


def first_line(e):
    """What an exception of a library says, in one line; its name where it says nothing."""
    return (str(e).splitlines() or [type(e).__name__])[0]


def escaped(match):
    """The spelling that Python's own literals use."""
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


def streamed(tokenizer, part, on_text):
    """generate's on_token for the questions `part`: passes text on as soon as it is readable."""
    ids = [[] for _ in part]
    shown = [""] * len(part)

    def on_token(rows, tokens):
        for row, token in zip(rows, tokens):
            ids[row].append(token)
            text = tokenizer.decode(ids[row])
            if not text.endswith("\ufffd"):         # a cut UTF-8 character waits for the rest
                on_text(part[row], text[len(shown[row]):])
                shown[row] = text

    return on_token


def ending(text, most=90):
    """The last words of a text, at most so many characters of them,
    behind a mark where it is cut."""
    text = text.rstrip()
    if len(text) <= most:
        return text
    return f"… {text[-most:].split(maxsplit=1)[-1]}"


def loops(text):
    """Does a text end by saying the same three times, in 4 to 200 characters?"""
    ends = (text[-size:] for size in range(4, 201))
    return any(end.strip() and text.endswith(3 * end) for end in ends)


def cut_note(cut, n, limit, answer=""):
    """What to say of n answers of which `cut` were cut off at `limit` tokens; "" where none was.

    answer: the text of a single one, for which a higher limit is no help if it runs in circles.
    """
    if not cut:
        return ""
    if n == 1 and loops(answer):
        return (f"the answer repeats itself and was cut at {limit} tokens; a higher --max-tokens "
                "would not end it")
    how = "the answer was" if n == 1 else f"{cut} of {n} answers were"
    return f"{how} cut at {limit} tokens; --max-tokens={2 * limit} lets longer ones finish"


def cut_mark(cut, limit):
    """The same in a line of a log, where nothing is said if none was cut."""
    return f"  ({cut} cut at {limit} tokens)" if cut else ""

"""
Is a final answer written in LaTeX the gold answer? (paper 4.1: MATH; here its 500-problem subset)

How:      the answer is found in the text, tidied (units, dollars, thousands, \\left, \\dfrac),
          split into a list, a tuple, an interval, a set or a matrix, and each entry is compared as
          text, else as a value. Values are exact fractions as long as no root or pi is in them; a
          letter has odd values that a hash of it and of the gold answer gives, at several points,
          so that x(x+1) equals x^2+x and nothing else does.
Changed:  mends defects of the released grader: nothing is equal within a tolerance (only rounding
          of roots is forgiven), 50 is not 0.5, braces count, and an answer that is missing or
          cannot be read is wrong.
Safe:     a small parser knows + - * / ^, fractions and roots; texts and powers are bounded; nothing
          is evaluated.
"""
import hashlib
import math
import re
from fractions import Fraction

from . import example

LONGEST, MOST_BITS = 300, 4096  # characters of an answer; size of a numerator or denominator
POINTS = 3  # sets of values for the letters, at which two formulas must agree
NAMED = "text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname"
PAIRS = {"(": ")", "[": "]"}
DEGREES = r"\^\s*\{?\s*\\(?:circ|degree)\s*\}?|\\degree|\u00b0"
CURRENCY = r"\\?\$|[\u20ac\u00a3\u00a5]|\\(?:pounds|euro)(?![a-zA-Z])"

# A unit may be left away. Two letters glued to a number may be a product, so they need a space (or
# \\text{}).
FULL = r"""degrees?|radians?|inch(?:es)?|foot|feet|yards?|miles?|pounds?|ounces?|tons?|gallons?
|(?:centi|milli|kilo)?(?:met(?:er|re)|gram)s?|(?:milli)?lit(?:er|re)s?|seconds?|minutes?|hours?
|days?|weeks?|months?|years?|dollars?|cents?|euros?|percent|units?|ways?|people|students?|points?
|integers?|solutions?|numbers?|marbles?|apples?""".replace("\n", "")
SHORT = r"[ckm]m|[km]g|ml|ft|yd|lbs?|oz|mph|hrs?|sec|min|in(?=\s*\^)"
SIZE = r"(?:(?:square|cubic|sq\.?|cu\.?)\s+)?"
POWER = r"(?:\^\s*\{?\d\}?)?"
END = "(?![a-zA-Z])"
PER = rf"(?:\s*(?:per|/)\s*(?:{FULL}|{SHORT}){END})?"
SAID = rf"(?:\s*{SIZE}(?:{FULL})|\s+{SIZE}(?:{SHORT})){END}"
UNIT, GLUED = (re.compile(rf"(?<=[\d}})])(?<!\\\\){said}{PER}\.?{POWER}")
               for said in (SAID, SAID.replace(r"|\s+", r"|\s*")))
# what parts a list in words: "and" and "or", plain or in \\text{}
WORD = r"\s*,?\s*(?:and|or)\s*,?\s*"
PLAIN = r"(?<![a-zA-Z\\{])(?:and|or)(?![a-zA-Z}])|\\(?:lor|vee|land|wedge)(?![a-z])"
AND = re.compile(rf"\s*,?\s*(?:\\(?:{NAMED})\s*\{{{WORD}\}}|{PLAIN})\s*,?\s*")
# \\text{not } 5 is not 5, but 5 \\text{ more} is
DENIED = re.compile(rf"\\(?:{NAMED})\s*\{{[^{{}}]*\b(?:not|less|fewer|more|greater|larger)\b"
                    r"[^{}]*\}\s*[^\s.}]")
LETTER = r"([a-zA-Z])(?:_\{?\w\}?|\([a-zA-Z]\))?"
NAME = re.compile(rf"\s*(?:{LETTER}|(\\[a-z]+))\s*(?:=|\\in(?![a-z]))\s*(?=[^=]+$)") # x = 5


OPENS = re.compile(r"\\(?:boxed|fbox)\s*\{")
FORMULA = re.compile(r"(?<!\\)\$\$?(.+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.S)
# a function of one letter: \cot(x), \cot{x} and cot x
FUNCTION = re.compile(r"(?:\\|(?<![a-zA-Z\\]))(sin|cos|tan|cot|sec|csc|log|ln)(?:"
                      r"\s*\(\s*([a-zA-Z])\s*\)|\s*\{\s*([a-zA-Z])\s*\}|\s+([a-zA-Z])(?![a-zA-Z]))")


def find_boxed(text):
    """What stands in the last \\boxed{}: "" where it is cut off, None where there is no box."""
    opens = list(OPENS.finditer(text))
    if not opens:
        return None
    start, depth = opens[-1].end(), 1
    for found in re.finditer(r"\\.|[{}]", text[start:], re.S):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if not depth:
            return text[start:start + found.start()]
    return ""


def find_listed(text):
    """What stands in all boxes of the last line that holds one, as a list: \\boxed{1} and
    \\boxed{-2} -> "1, -2"."""
    line = next((line for line in reversed(text.splitlines()) if OPENS.search(line)), "")
    starts = [opens.start() for opens in OPENS.finditer(line)]
    return ", ".join(find_boxed(line[at:end]) for at, end in zip(starts, [*starts[1:], None]))


def right(text, gold, question=""):
    """Is the final answer of a text the gold one? One box is an answer, or several are a list.

    A formula of the question is none, whatever its value: \\sqrt{242} is not simplified.
    """
    said = {find_final(text), find_listed(text[-4000:])}        # mostly the same
    return any(same_answer(answer, gold) and not copied(answer, gold, question) for answer in said)


def copied(answer, gold, question):
    """Is an answer a formula that stands in the question, more than a number, and not as the gold
    answer is written?"""
    def spelled(s):
        fraction = re.sub(r"(\w+) */ *(\w+)", r"\\frac\1\2", tidy(s))     # 1/2 is \frac12
        return re.sub(r"[\s{}]", "", fraction)

    given = {spelled("".join(each)) for each in FORMULA.findall(question)}
    said = spelled(answer)
    return said in given - {spelled(gold)} and not re.fullmatch(r"-?[\d.]+|[a-zA-Z]", said)


def bold_result(text):
    """The text with "= " before the one number that stands in bold in its last sentence."""
    ends = [end.end() for end in re.finditer(r"[.!?]\s+(?=\S)|\n[ \t]*(?=\S)", text)]
    start = max(ends, default=0)
    last = text[start:]
    if last.count("**") == 2 and "=" not in last:
        # not 8 or **9**, 12 - **5** and 8 of **12**, nor the number of a list or a heading
        no_sum = r"(?<![\w-])(?<![-+*/] )(?<! or )(?<! to )(?<! of )"
        bold = rf"{no_sum}\*\*(?!\d+[.)]\*)([-+\u2212]?\\?\$?\d[^*\n]*)(?<!:)\*\*(?!:)"
        last = re.sub(bold, r"= \1", last)
    return text[:start] + last


def plain(text):
    """Prose as it looks when LaTeX and Markdown are set: without the marks that only set something
    off (**8**, *8*, \\(8\\), \\$8, $-8$) and the power of a unit (8 cm^2), words without \\text{},
    1{,}080 as 1,080 and \\frac{2}{27} as 2/27. See also `bold_result`."""
    text = bold_result(text)
    text = re.sub(rf"\\(?:{NAMED})\s*\{{([^{{}}]*)\}}", r"\1", text)
    text = re.sub(r"\\[dtc]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\(?:times|cdot)(?![a-zA-Z])", "*", text)
    text = re.sub(r"\\div(?![a-zA-Z])", "/", text)
    text = re.sub(r"(?<=\d)(?:\{,\}|\\[,;!])(?=\d{3}(?!\d))", ",", text)
    text = re.sub(r"\\[,;:! ]", " ", text)
    text = re.sub(r"(?<![\w*])\*(?=[-+$\d])([^*\s]+)\*(?![\w*])", r"\1", text)
    text = re.sub(r"(?<=\d)( *[a-zA-Z]+)\^\{?[23]\}?", r"\1", text)
    text = re.sub(r"\*\*|\\[()\[\]]|\\(?=\$)|\$(?=[-+\u2212]\d)", "", text)
    text = re.sub(r"\^\{(\d+)\}", r"^\1", text)
    return re.sub(r"(?<=\S)[ \t]+", " ", text)


WORDS = r"(?:[a-zA-Z]{2,}|[mgh]\b)(?:/[a-zA-Z]+)?(?:\^\{?[23]\}?)?"     # games/week, m^2


def to_number(s):
    """A formula, or a number with its unit -> number; None for anything else: several numbers,
    letters, a rest."""
    s = last_side(unnamed(tidy(s[:LONGEST])))
    glued = r"(?:kg|[ckm]m|ml|lbs?|ft|oz|mph|mins?|hrs?)?"
    if found := re.fullmatch(rf"({example.NUMBER}){glued}(?:\s+{WORDS})*[\s.]*", s):
        return example.to_number(found[1])
    try:
        found = value(s)
        return example.exact(found) if isinstance(found, Fraction) else None
    except (ValueError, ArithmeticError, RecursionError):
        return None


def last_side(s):
    """What stands behind the last = of a formula: 8 of 5 + 3 = 8. Neither >= nor != is one."""
    return re.split(r"(?<![<>!])=", s)[-1].strip()


def find_final(text):
    """The final answer in a text: the last \\boxed{}, else what follows the last "answer is", else
    the last formula."""
    text = text[-4000:]  # the end is what counts, and the search stays short
    boxed = find_boxed(text)
    if boxed is not None:
        return boxed
    announced = r"answer(?:[^.\n=:]{0,40}? is\b|\s*:|\s*=)\s*:?\s*(.+)|####\s*(.+)"
    said = re.findall(announced, text, re.I)
    line, which = text.strip(), -1
    if said:
        # a bare number is the answer, whatever the next sentence says
        line, which = "".join(said[-1]), 0
        line = re.sub(r"(?s)^([*\s$]*[-+\d.,/]*\d)\.\s+(?=[A-Z]).*", r"\1", line)
    formulas = FORMULA.findall(line)
    if formulas:
        return "".join(formulas[which])
    return re.split(r"\.(?:\s|$)", line.replace("**", ""))[0]


def same_answer(got, gold):
    """Do two LaTeX texts say the same? A list of solutions has no order, a tuple and a matrix
    have."""
    if not got.strip() or max(len(got), len(gold)) > LONGEST:
        return False
    if len({*named_by(got), *named_by(gold)}) > 1:
        return False
    if DENIED.search(got) and not DENIED.search(gold):
        return False
    gold = tidy(gold)
    # "3km" may be a length or a product: the gold answer tells
    return any(same_tidy(tidy(got, glued), gold) for glued in (False, True))


def same_tidy(got, gold):
    """Do two texts that are tidy say the same?"""
    said = [got]
    if "=" not in gold and len(split(got, ",")) == 1:
        named = re.sub(r"^([^=]*[^=<>!])=\s*[a-zA-Z]$", r"\1", got)
        said = [last_side(got), named]                      # 5 + 3 = 8 says 8, and 8 = x as well
    return any(s and (s == gold or same_parts(parts(s), parts(gold))) for s in said)


SPELLINGS = (("\u2212", "-"), ("\u03c0", "\\pi"), ("\u221a", "\\sqrt"), ("\u221e", "\\infty"),
             ("{,}", ","), ("\u2264", "\\le "), ("\u2265", "\\ge "), ("\u2260", "\\ne "),
             ("\u00d7", "\\times "), ("\u00b7", "\\cdot "), ("\u00f7", "\\div "),
             ("\u222a", "\\cup "), ("\u2208", "\\in "), ("\u2248", "\\approx "),
             ("\u00b2", "^2"), ("\u00b3", "^3"))


def tidy(s, glued=False):
    """One spelling for what is written in several: no units, no dollars, no rounding behind
    \\approx, no spaces that mean nothing, no `x =`."""
    s = re.sub(r"\u221a\s*(\d+)", r"\\sqrt{\1}", s)
    for sign, command in SPELLINGS:
        s = s.replace(sign, command)
    exact, _, rounded = s.partition("\\approx")
    # 2\pi \approx 6.28 says 2\pi, but no list does
    if rounded and not re.search(r",(?!\d{3}(?!\d))|;|\b(?:and|or)\b", rounded):
        s = rounded if re.fullmatch(rf"[\s$]*(?:{LETTER}\s*)?", exact) else exact
    s = re.sub(r"(?:^|(?<=[(,\[]))\s*\+\s*(?=\\infty)", "", s)
    s = re.sub(r"\\(?:left|right|[bB]ig+[lr]?|displaystyle|limits)(?![a-zA-Z])", "", s)
    s = re.sub(r"\\[dtc]frac(?![a-z])", r"\\frac", s)
    s = re.sub(r"\\(le|ge|ne)q(?:slant)?(?![a-zA-Z])", r"\\\1", s)
    s = re.sub(r",\s*\\!\s*(?=\d)", "", s)  # 10,\!080
    s = re.sub(r"(?<=\d)\s*\\[,!;]\s*(?=\d{3}(?!\d))", "", s)  # 10\,080
    s = re.sub(r"(?<!\\)\\[!,;: ]|\\q?quad\b|~|\\\\(?=\s*$)", " ", s)
    if not re.search(r"(?:[(\[]|(?<![a-zA-Z}])\{)\s*-?\d+,", s):  # 58,500, no pair
        thousands = r"(?<![\d,])\d{1,3}(?:,\d{3})+(?![\d,])"
        s = re.sub(thousands, lambda found: found[0].replace(",", ""), s)
    s = re.sub(r"^\s*-?\d{1,3}(?: \d{3})+\s*$", lambda found: found[0].replace(" ", ""), s)
    s = re.sub(rf"(?:{DEGREES})(?:\s*[CF]\b)?|\\?%|" + CURRENCY, "", s)
    s = AND.sub(" , ", s)
    words = rf"\\(?:{NAMED})\s*\{{([^{{}}]*)\}}(?:\s*\^\s*\{{?\d\}}?)?"
    # a unit, or the answer
    unit = re.sub(words, "", s).strip(" \t\n.,;:()")
    s = re.sub(words, {True: " ", False: r"\1"}[bool(unit)], s)
    units = {True: GLUED, False: UNIT}[glued]
    s = unnamed(units.sub("", s))
    s = re.sub(r"(\d) +(\d+) */ *(\d+)", r"\1\\frac{\2}{\3}", s)  # 1 4/5
    s = re.sub(r"_\{(\w+)\}", r"_\1", re.sub(r"\^\{(\w)\}", r"^\1", s))
    s = FUNCTION.sub(r"\\\1 \2\3\4", s)
    return re.sub(r"\s+", " ", s).lstrip(" ,;:").rstrip(" .,;:")


def named_by(s):
    """The letter of a text that gives one letter its value:
    ["x"] for x = 5; [] for anything else."""
    found = re.fullmatch(r"[\s$]*([a-zA-Z])\s*=[^=,]+", s)
    return [found[1]] if found else []


def unnamed(s):
    """Without its `x =` or `x \\in`."""
    found = NAME.match(s)
    if found:
        return s[found.end():]
    return s


# also as an array with its columns; a row may end in its distance to the next one: \\[4pt]
MATRIX = (r"[(\[]?\s*\\begin\{([pbv]?matrix|array)\}(?:\s*\{[clr|]*\})?(.*)"
          r"\\end\{\1\}\s*[)\]]?")
ROW = r"\\\\(?:\s*\[[^\]&]*\])?"


def parts(s):
    """LaTeX -> ("", text) for one entry, else (kind, entries); kind is "list", the brackets, or
    "matrix"."""
    s = s.strip()
    if found := re.fullmatch(MATRIX, s, re.S):
        rows = [row.split("&") for row in re.split(ROW, found[2].strip().removesuffix("\\\\"))]
        return f"matrix of {len(rows)}", [parts(entry) for row in rows for entry in row]
    for between in (r"\\cup(?![a-z])", ",|;"):
        entries = split(s, between)
        if len(entries) > 1:
            return "list", [parts(v) for e in one_name(entries) for v in both_signs(e)]
    if s.startswith("\\{") and s.endswith("\\}"):
        inner = parts(s[2:-2])
        if inner[0] == "list":
            return inner
        return "list", [inner]
    if s[:1] in PAIRS and s[-1:] in (")", "]") and len(entries := split(s[1:-1], ",")) > 1:
        return s[0] + s[-1], [parts(e) for e in entries]
    if len(both_signs(s)) > 1:
        return "list", [parts(v) for v in both_signs(s)]
    return "", s


def one_name(entries):
    """x = 1, x = 2 are 1, 2; but of x = 1, y = 2 the names count."""
    names = [NAME.match(entry) for entry in entries]
    if len({found[1] or found[2] for found in names if found}) == 1:
        return list(map(unnamed, entries))
    return entries


def split(s, between):
    """Cut at `between` where no bracket or brace is open."""
    depth, at, out = 0, 0, []
    for found in re.finditer(rf"(?P<open>\\?[({{\[])|(?P<close>\\?[)}}\]])|(?:{between})", s):
        if found["open"]:
            depth += 1
        elif found["close"]:
            depth -= 1
        elif depth == 0:
            out, at = out + [s[at:found.start()]], found.end()
    return out + [s[at:]]


def both_signs(s):
    """'1 \\pm 2' -> both numbers."""
    s = s.replace("\u00b1", "\\pm ")
    if s.count("\\pm") == 1:
        return [s.replace("\\pm", sign) for sign in "+-"]
    return [s]


def same_parts(a, b):
    """Kinds equal and entries equal, in any order for a list."""
    if a[0] != b[0]:
        return False
    if not a[0]:
        return same_entry(a[1], b[1])
    if len(a[1]) != len(b[1]):
        return False
    if a[0] != "list":
        return all(map(same_parts, a[1], b[1]))
    left = list(b[1])
    for entry in a[1]:
        match = next((i for i, other in enumerate(left) if same_parts(entry, other)), None)
        if match is None:
            return False
        left.pop(match)
    return True


def same_entry(a, b):
    """One entry against one: equal texts, equations with equal sides, or equal values."""
    plain = [re.sub(r"\s(?!\d)|(?<!\d)\s", "", e) for e in (a, b)]
    words = [re.sub(r"\\(?:[dt]?frac|sqrt|cdot|times|left|right|pi|pm)", "", e) for e in plain]
    plain = [e.lower() if re.search(r"[a-zA-Z]{3}", w) else e for e, w in zip(plain, words)]
    if plain[0] == plain[1] or plain[0].strip("()") == plain[1].strip("()") != "":
        return True
    gold = b
    if "=" in a and "=" not in b:
        a = last_side(a)
    signs = (1,)
    if a.count("=") == b.count("=") == 1:
        a, b = (f"{left}-({right})" for left, right in (a.split("="), b.split("=")))
        signs = (1, -1)                                     # y = 2x and 2x = y
    try:
        salts = [f"{gold} {n}" for n in range(POINTS)]
        values = [(value(a, salt), value(b, salt)) for salt in salts]
        return any(all(same_value(x, sign * y) for x, y in values) for sign in signs)
    except (ValueError, ArithmeticError, RecursionError):
        return False


def same_value(a, b):
    """Exactly equal; of roots and pi, only rounding is forgiven."""
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a == b
    return abs(a - b) <= 1e-9 * abs(b)


# --------------------------------------------------------------------------- the value of a formula
TOKEN = re.compile(r"\s*(\d*\.?\d+|\\[a-zA-Z]+|[a-zA-Z]|\*\*|\S)")
PRODUCT = {"*": 1, "\\cdot": 1, "\\times": 1, "/": -1, "\\div": -1}


def value(s, salt=None):
    """A formula -> Fraction, or complex where roots, pi or i are in it. ValueError for anything
    else.

    salt: a text that decides, with each letter, the letter's value; without one, letters are an
    error.
    """
    # no products
    if re.search(r"(?<!\\)(?<![a-zA-Z])(?!sqrt)[a-zA-Z]{3,}|^\s*(?!pi)[a-zA-Z]{2,}\s*$", s):
        raise ValueError("words")
    formula = Formula(re.sub(r"(?<![\\a-zA-Z])(sqrt|pi)(?![a-zA-Z])", r"\\\1", s), salt)
    found = formula.total()
    if formula.peek():
        raise ValueError("more than one formula")
    return found


class Formula:
    """A formula that is read from the left, one method per level of precedence; `at` is where the
    rest begins."""

    def __init__(self, s, salt=None):
        self.s, self.salt, self.at = s, salt, 0

    def peek(self):
        found = TOKEN.match(self.s, self.at)
        if found:
            return found[1]
        return ""

    def take(self, wanted="", digit=False):
        """The next token (of a number only its first digit, as \\frac43 means), which must be
        `wanted` if given."""
        token = self.peek()
        if not token or wanted and token != wanted:
            raise ValueError(f"expected {wanted or 'more'}")
        if digit and token[0].isdigit():
            token = token[0]
        self.at = self.s.index(token, self.at) + len(token)
        return token

    def total(self):
        """product, product + product, -product - product, ..."""
        sum_, sign = Fraction(0), -1 if self.peek() == "-" else 1
        if self.peek() in ("-", "+"):
            self.take()
        while True:
            sum_ += sign * self.product()
            if self.peek() not in ("-", "+"):
                return sum_
            sign = -1 if self.take() == "-" else 1

    def product(self):
        """power, power * power, power / power, and powers side by side where the second is no
        number: 2x, 3(4)."""
        found = self.power()
        while True:
            step = PRODUCT.get(self.peek())
            if step:
                self.take()
            # two numbers side by side are no product
            elif not re.match(r"[({a-zA-Z\\]", self.peek()):
                return found
            factor = -self.power() if step and self.peek() == "-" and self.take() else self.power()
            if step == -1:
                factor = 1 / factor
            found = bounded(found * factor)

    def power(self):
        """atom, or atom ^ atom with a whole exponent up to 64, or 1/2."""
        base = self.atom()
        if self.peek() in ("^", "**"):
            self.take()
            sign = -1 if self.peek() == "-" and self.take() else 1
            exponent = sign * self.atom()
            if exponent == Fraction(1, 2):
                return root(base, 2)
            whole = isinstance(exponent, Fraction) and exponent.denominator == 1
            if not whole or abs(exponent) > 64:
                raise ValueError("power")
            bounded(base, abs(int(exponent)))
            return base ** int(exponent)
        return base

    def atom(self, digit=False):
        """A number, a bracket, a fraction, a root or a symbol. digit: as in \\frac12, where each
        argument is one digit."""
        token = self.take(digit=digit)
        if token[0].isdigit() or token[0] == ".":
            whole = Fraction(token)
            follows = re.match(r"\s*\\frac\s*(?:\{\d+\}|\d)\s*(?:\{\d+\}|\d)", self.s[self.at:])
            mixed = follows and not digit
            if mixed and "." not in token:
                whole += self.atom()
            return bounded(whole)
        if token in "({[" and token:
            inside = self.total()
            self.take({"(": ")", "{": "}", "[": "]"}[token])
            return inside
        if token == "\\frac":
            return self.atom(digit=True) / self.atom(digit=True)
        if token == "\\sqrt":
            degree = 2
            if self.peek() == "[":
                degree = self.atom()
            return root(self.atom(digit=True), degree)
        if token == "\\pi":
            return complex(math.pi)
        if token == "i":
            return 1j
        if re.fullmatch("[a-zA-Z]", token) and self.salt is not None:
            return letter(token, self.salt)
        raise ValueError(f"unknown {token}")


def letter(name, salt):
    """A letter's value: an odd fraction that nobody can foresee who does not know the salt. It is
    positive, as answers with roots take their letters to be: \\sqrt{x^2} is x."""
    digest = hashlib.sha256(f"{name} {salt}".encode()).digest()
    return Fraction(int.from_bytes(digest[:2], "big") + 10_007, digest[2] + 757)


def bounded(v, times=1):
    """v, unless it (or its power) has too many digits."""
    if isinstance(v, Fraction):
        bits = max(v.numerator.bit_length(), v.denominator.bit_length())
        if times * bits > MOST_BITS:
            raise ValueError("too many digits")
    return v


def root(v, degree):
    """The degree-th root: exact where it is a fraction, of a negative one the real cube root, else
    complex."""
    if isinstance(degree, complex) or degree not in (2, 3, 4):
        raise ValueError("root")
    if degree == 3 and isinstance(v, Fraction) and v < 0:
        return -root(-v, degree)
    if isinstance(v, Fraction) and v >= 0:
        above, below = (round(float(n) ** (1 / float(degree))) for n in v.as_integer_ratio())
        exact = Fraction(above, below)
        if exact ** int(degree) == v:
            return exact
    return complex(v) ** (1 / float(degree))

"""
What would a reader take from a text as the answer: which number, which option, which program?
tasks.right compares it with the gold one, and the reward is 1.0 or 0.0.

Changed:  mends defects of the released graders: a sign counts, `1,234` is one number, an
          unparseable answer is wrong instead of a guess, and prose after a code fence, which nobody
          grades, earns nothing (`graded_end`).
"""
import re

from .questions import latex
from .questions.choices import announced, bare, chosen
from .questions.example import NUMBER, normal, to_number, unnumbered
from .questions.fences import find_code, graded_end, prose      # noqa: F401 (part of this page)

# ------------------------------------------------------------------------------------------ numbers
UNIT = r"(?:k?g|[ckm]?m[2\u00b2]?|m?l|lbs?|ft|oz|mph|mins?|hr?s?)\b"       # glued: 8kg
SIGN = r"(?:[-+*/x\u00d7\u00f7\u2212\u2013]|plus|minus|times|divided by)"
BETWEEN = rf"(?:{UNIT}|(?: [a-z/]+){{0,2}}) *{SIGN} *"
# no answer: 5 + 3, 3 apples + 5, 3-5, 2 1/2, 2^3, 12:30, 8 or 9, and 5 + where the text is cut off
FIRST = rf"(?i)(?<![\w.,]){NUMBER}(?: \d+(?=/))?"
CHAIN = rf"{FIRST}(?:(?:(?:{BETWEEN}|[:^]| to | or ){NUMBER})+| *[-+*/]\s*$)"
ONE = rf"(?<![\w.])(?<!\d,)({NUMBER})(?:(?!\w|[.,]\d)|(?={UNIT}))"
# no answer: 8 out of 12; 5, not 6; it isn't 7 (but: no more than 8) ...
SAID_NOT = r"\b(?:out of|not|cannot be|(?<!\bno )(?<!\bnot )(?:less|fewer|more) than)(?: =)?"
# ... x >= 12 (but: <b>12</b>); 9 is wrong
BOUND = r"(?:(?<=\b\w)|(?<=\d)) ?(?:[<>!]=|[<>\u2260\u2264\u2265])(?! ?[-$\d.,]+ ?[<>])"
WRONG = r"(?:is|was)(?: wrong| incorrect|(?:n't| not) (?:the )?(?:right|correct|answer|it\b))"
ASIDE = (rf"(?i)(?:{SAID_NOT}|n't(?: be)?|{BOUND}) ?{NUMBER}"
         rf"|(?<![\d.,]){NUMBER}(?= {WRONG})")
ANNOUNCED = r"(?:(?<!to )(?<!can )answer\b(?:[^.\n\d=:]{0,40} is\b)?|####)(?:\s*[:=]){0,2}"
CLAUSE = r"(?:(?!\b(?:because|since|as|if|when)\b)[^.,;!?\n])"     # up to a comma or a reason
VERB = r"\b(?:is|are|ha[sd]|have|makes?|equals?|gives?|gets?|holds?|costs?)"


def find_number(text):
    """The number a reader would take as the answer, or None.

    In this order: inside the last \\boxed{}; after "answer is" / "answer:" / "####"; the last
    "= N", or one in bold; a number the text opens with; the last number. Without the question "36
    games in 4 weeks" reads 4: nobody can tell it from "9 pages a day, so in 4 days". A sum that is
    not worked out, a range, a date, 2 1/2 and the numbering of a list hold no answer.
    """
    text = one_spelling(text)
    if (boxed := latex.find_boxed(text)) is not None:
        return latex.to_number(boxed)
    text = latex.plain(prose(unnumbered(text)))
    text = re.sub(ASIDE, "", re.sub(CHAIN, "_", text))      # "5 + 3 = 8" is "_ = 8" now
    spaced = r"(?:(?<== )|(?<=\bis )|(?<=\#\# ))[-\u2212] (?=\$?\d)"
    text = re.sub(rf"(?i){spaced}|\b(?:minus|negative) (?=\$?\d)", "-", text)
    marked = re.findall(rf"{ANNOUNCED}(?:\s*_[^.\n=]*=)*\s*{ONE}", text, re.I)
    equal = re.findall(rf"=\s*{ONE}", text)
    # "3 boxes of 4 make 12" and "3 cats have 12 legs" open with a number that is not the answer
    opening = re.findall(rf"\A\W{{0,3}}?{ONE}(?!{CLAUSE}*{VERB} {NUMBER})", text)
    for found in (marked, equal, opening, re.findall(ONE, text)):
        if found:
            return to_number(found[-1])
    return None


def one_spelling(text):
    """The text with - for other signs in front of a number (\u20135, and not 3\u20135), and with
    1\u00a0234 and 1'234, a thousand and more, as 1234."""
    text = re.sub(r"(?<![\w)])[\u2010-\u2013\ufe63\uff0d](?=\$?\.?\d)", "-", text)
    return re.sub(r"(?<=\d)[\u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))", "", text)


# --------------------------------------------------------------------------------------------- text
def find_choice(text, options):
    """Index of the chosen option, or None. A letter that leads or is announced, or the one option
    that is named.

    A text that names several options, or whose letter and words disagree, has not chosen, unless
    its last "answer: B" or the like stands alone in the rest of its line (choices.announced).
    """
    text = bare(text)
    found = announced(text, options) or chosen(text, options)
    if len(found) == 1:
        return found.pop()
    return None


def find_quoted(text, options):
    """Index of the option that a text says in full, up to a quotation mark or line end; or None."""
    said = re.split('["\u201d\n]', text.strip())[0]
    # "Rr" is not "rr", but else capitals and full stops do not count
    for spelling in (str.strip, normal):
        found = [i for i, option in enumerate(options) if spelling(option) == spelling(said)]
        if len(found) == 1:
            return found[0]
    return None

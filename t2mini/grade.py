"""
What an example is, and when an answer to it is right (paper 3.2: the reward r(y_hat, y) is correctness).

Kept:     one binary judgement per answer; the reward is 1.0 or 0.0.
Changed:  mends defects of the released graders: a sign counts, `1,234` is one number, an unparseable answer is wrong
          instead of a guess, and prose after a code fence, which nobody grades, earns nothing (`graded_end`).
"""
import re

from .questions.example import NUMBER, normal, to_number


# ------------------------------------------------------------------------------------------------ numbers
UNIT = r"(?:k?g|[ckm]?m[2\u00b2]?|m?l|lbs?|ft|oz)\b"                       # may be glued to a number: 8kg
BETWEEN = rf"(?:{UNIT}|(?: [a-z]+){{0,2}}) *(?:[-+*/x\u00d7\u00f7\u2212\u2013]|plus|minus|times|divided by) *"
CHAIN = rf"(?<![\w.,]){NUMBER}(?:(?:{BETWEEN}|:| to | or ){NUMBER})+"   # 5 + 3, 3 apples + 5, 3-5, 1/2, 12:30, 8 or 9


def find_number(text):
    """The number a reader would take as the answer, or None.

    In this order: after "answer is" / "answer:" / "####"; a number the text opens with; the last "= N"; the last number.
    A sum that is not worked out, a range, a date and the numbering of a list hold no answer.
    """
    if re.search(r"^\s*1[.)] .*\n\s*2[.)] ", text, re.S):
        text = re.sub(r"^\s*\d+[.)] ", "", text, flags=re.M)
    text = re.sub(CHAIN, "_", text.replace("**", ""), flags=re.I)
    text = re.sub(r"(?<== )[-\u2212] (?=\$?\d)|\b(?:minus|negative) (?=\$?\d)", "-", text, flags=re.I)
    number = rf"(?<![\w.])(?<!\d,)({NUMBER})(?:(?!\w|[.,]\d)|(?={UNIT}))"
    marked = re.findall(rf"(?:answer(?:[^.\n\d=:]{{0,40}} is\b)?\s*[:=]?|####)(?:\s*_[^.\n=]*=)*\s*{number}", text, re.I)
    # "3 boxes of 4 make 12" opens with a number that is not the answer
    opening = re.match(rf"\W{{0,3}}?{number}(?![^.,;!?\n]*\b(?:is|are|makes?|equals?|gives?) {number})", text)
    equal = re.findall(rf"=\s*{number}", text)
    last = re.findall(number, text)
    for found in (marked[-1:], [opening[1]] if opening else [], equal[-1:], last[-1:]):
        if found:
            return to_number(found[0])
    return None


# ------------------------------------------------------------------------------------------------ text
def find_choice(text, options):
    """Index of the chosen option, or None. A letter that leads or is announced, else the one option that is named.

    A text that names several options, or whose letter and words disagree, has not chosen.
    """
    letters, text = "ABCDEFGHIJ"[:len(options)], re.sub(r"\\boxed\{(.*?)\}|\*\*", r"\1", text).strip()
    any_case = letters + letters.lower()
    lead = re.match(rf"\W*([{any_case}])(?:[).:\]]|[!,]?\s*$)", text, re.M)
    # a small letter may be the article, so it must stand in brackets or end the line; "A or B" announces nothing
    said = re.findall(rf"(?i:answer|option|choice|letter)(?:\s+is)?\s*:?\s*(?:\(?([{letters}])\b|\(?([{any_case}])(?=\)|\.?\s*$))"
                      rf"(?!['\w]|(?:,| and| or| &|/) *\(?[{letters}]\b)", text, re.M)
    if len(set(re.findall(rf"(?<!\w)([{letters}])[).:]", text))) > 1:
        lead = None                                                     # a list of the options, not one of them
    by_letter = "".join(said[-1]) if said else lead[1] if lead else None
    by_letter = letters.index(by_letter.upper()) if by_letter else None
    low, named = text.lower(), []
    for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
        # longest first, and taken out of the text: "hot dog" does not name "dog" as well
        rest = re.sub(rf"(?<!\w){re.escape(options[i].lower())}(?!\w)", "_", low)
        named, low = (named + [i], rest) if rest != low else (named, low)
    if len(named) == 1:
        return named[0] if by_letter in (None, named[0]) else None
    return by_letter if not named else None


def find_quoted(text, options):
    """Index of the option that the text says up to its first quotation mark, in full, or None."""
    said = text.split('"')[0]
    for spelling in (str.strip, normal):                    # "Rr" is not "rr", but else capitals and full stops do not count
        found = [i for i, option in enumerate(options) if spelling(option) == spelling(said)]
        if len(found) == 1:
            return found[0]
    return None


# ------------------------------------------------------------------------------------------------ code
FENCE = re.compile(r"```(?:python3?|py)?[ \t\r]*\n(.*?)(?:```|\Z)", re.S | re.I)


def graded_end(text):
    """Where the judged part of a code answer ends: behind its first fenced block; None while that
    is not closed."""
    fence = FENCE.search(text)
    if fence and fence.end() > fence.end(1):
        return fence.end()
    return None


def find_code(text):
    """The Python code in an answer: the first fenced block (closed or cut off), else from its first line of Python on."""
    fence = FENCE.search(text)
    if fence:
        return fence[1]
    start = re.search(r"^(?:(?:def|class|import|from) |@\w|[A-Z_]+ ?= ?)", text, re.M)
    return text[start.start():] if start else text

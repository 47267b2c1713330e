"""
Which of the options does a text choose: by its letter, or by its words? (grade.find_choice asks.)
"""
import re

from .example import to_number

LETTERS = "ABCDEFGHIJ"
NO = r"(?:[Nn]o|n')t "
NOT_DENIED = rf"(?<!{NO})(?<!{NO}a )(?<!{NO}(?:an|be) )(?<!{NO}the )"
REFUSED = r",?(?: which)? (?:is|are|was)(?:n't| not| wrong| incorrect| false)\b"


def bare(text):
    """A text without what only sets a letter off: **C**, \\(C\\), $C$, \\boxed{\\textbf{(C)}}."""
    text = re.sub(r"\*\*|\\[()\[\]]|\$(?=\\|[A-J]\$)|(?<=\})\$|(?<=\$[A-J])\$", "", text).strip()
    for _ in range(3):
        text = re.sub(r"\\(?:f?box(?:ed)?|text\w*|math\w+)\s*\{([^{}]*)\}", r"\1", text)
    return text


def letters_of(options):
    """The letter that stands for each option: that of its place, but for options that are letters
    themselves. Of "B" and "C" they are "BC": there the answer C is no place."""
    own = {option.upper() for option in options} & set(LETTERS)
    return "".join(option.upper() if option.upper() in own else place if place not in own else "\0"
                   for place, option in zip(LETTERS, options))


def chosen_letter(text, letters):
    """Index of the letter that is announced last, else of the one that leads; or None."""
    any_case = letters + letters.lower()
    # a small letter may be the article, so it must stand in brackets or end the line
    letter = rf"(?:\(?([{letters}])\b|\(?([{any_case}])(?=\)|\.?\s*$))"
    # "A or B" and "A is wrong" announce nothing
    ends = rf"(?!['\w]|(?:,| and| or| &|/) *\(?[{letters}]\b|{REFUSED})"
    announced = rf"(?i:answer|option|choice|letter)(?:\s+is)?\s*:?\s*{letter}{ends}"
    if said := re.findall(announced, text, re.M):
        return letters.index("".join(said[-1]).upper())
    judged = r" is (?:the )?(?:correct|right|best)\b"
    lead = re.match(rf"\W*([{any_case}])(?:[).:\]]|[!,]?\s*$|{judged})", text, re.M)
    listed = set(re.findall(rf"(?<!\w)([{letters}])[).:]", text))
    if not lead or len(listed) > 1:  # a list of the options is not one of them
        return None
    return letters.index(lead[1].upper())


def named_options(text, options):
    """Indices of the options that a text names, whole words and whole numbers: 2.5 and -2 are no 2.
    Case counts only where it tells two options apart. "not positive" and "positive is wrong" do not
    name "positive"."""
    differ = len({option.lower() for option in options}) == len(options)
    fold = str.lower if differ else str
    rest, named = fold(text), []
    # longest first, and taken out of the text: "hot dog" does not name "dog" as well
    for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
        before, after = r"(?<!\w)", r"\w"
        if to_number(options[i]) is not None:
            before, after = r"(?<![\w.,\u2212-])", r"\w|[.,]\d"
        found = rf"{before}{NOT_DENIED}{re.escape(fold(options[i]))}(?!{after}|{REFUSED})"
        if re.search(found, rest):
            named.append(i)
            rest = re.sub(found, "_", rest)
    return named

"""
Which of the options does a text choose: by its letter, or by its words? (grade.find_choice asks.)
"""
import re
from string import ascii_uppercase as LETTERS

from .example import to_number

NO = r"(?:[Nn]o|n')t "
BEFORE = (NO, NO + "be ", "anything but ", "none of them is ", r"\b[Nn]o ")
NOT_DENIED = "".join(rf"(?<!{said}{a})" for said in BEFORE for a in ("", "a ", "an ", "the "))
REFUSED = r",?(?: which)? (?:is|are|was)(?:n't| not| wrong| incorrect| false)\b"


def bare(text):
    """A text without what only sets a letter off: **C**, `C`, \\(C\\), \\boxed{\\textbf{(C)}}."""
    text = re.sub(r"(?<!\w)[*_`]{1,3}([A-Z])[*_`]{1,3}(?!\w)", r"\1", text)
    text = re.sub(r"\*\*|\\[()\[\]]|\$(?=\\|[A-Z]\$)|(?<=\})\$|(?<=\$[A-Z])\$", "", text).strip()
    for _ in range(3):
        text = re.sub(r"\\(?:f?box(?:ed)?|text\w*|math\w+)\s*\{([^{}]*)\}", r"\1", text)
    return text


def announced(text, options):
    """The set of the one option (its index) that is all that stands behind "answer is", "answer:"
    or "correct option is" in the last line that has one (its first there): by letter, in words or
    both, up to the line's end or a reason; else an empty set."""
    word = r"(?<!wrong )\b(?:answer|(?:correct|right|best) (?:option|choice))(?: is:?|:)"
    said = re.findall(rf"(?i){word} *(?:option )?(.*\S)", text)[-1:]
    said += [re.split(r",? (?:because|since)\b", line)[0] for line in said]
    case = re.I if len({option.lower() for option in options}) == len(options) else 0
    for clause in (line.removesuffix(".") for line in said):
        for i, (letter, option) in enumerate(zip(letters_of(options), options)):
            by_letter = rf"[\"(]?{letter}\b[\").:]*"
            in_words = rf"(?:an? |the )?{re.escape(option.removesuffix('.') or option)}"
            if re.fullmatch(rf"{by_letter}(?: {in_words})?|{in_words}", clause, case):
                return {i}
    return set()


def chosen(text, options):
    """The set of the options (their indices) that a text chooses, by letter or by name. "Yes, there
    is no circle" says yes."""
    if {option.lower() for option in options} == {"yes", "no"}:
        word = rf"(yes|no)\b(?!{REFUSED})"
        lead = re.match(rf"(?i)\W*(?:(?:the )?answer(?: is)?\W+)?{word}(.*)", text, re.S)
        if lead:
            opposite = {"yes": "no", "no": "yes"}[lead[1].lower()]
            # "Yes, no" and "No. Yes." choose nothing
            alone = rf"(?i)\b{opposite}\b(?=\s*(?:[,.!;:?]|$|\n|(?:and|or)\b))"
            if not re.search(alone, lead[2]):
                return {[option.lower() for option in options].index(lead[1].lower())}
    short = [re.sub(r"^(?:an?|the) (?=\S)", "", option, flags=re.I) for option in options]
    if len({option.lower() for option in short}) < len(options):
        short = options
    # "tomato" names "a tomato", too, where no option stands in full
    named = named_options(text, options) or named_options(text, short)
    return {chosen_letter(text, letters_of(options)), *named} - {None}


def letters_of(options):
    """The letter that stands for each option: that of its place, but for options that are letters
    themselves. Of "B" and "C" they are "BC": there the answer C is no place."""
    own = {option.upper() for option in options} & set(LETTERS[:max(10, len(options))])
    return "".join(option.upper() if option.upper() in own else place if place not in own else "\0"
                   for place, option in zip(LETTERS, options))


def chosen_letter(text, letters):
    """Index of the letter that is announced last, as the answer, else as an option; else of the one
    that leads; or None."""
    any_case = letters + letters.lower()
    # a small letter may be the article, so it must stand in brackets or end the line
    letter = rf"(?:\(?([{letters}])\b|\(?([{any_case}])(?=\)|\.?\s*$))"
    # "A or B" and "A is wrong" announce nothing
    ends = rf"(?!['\w#+]|(?:,| and| or| &|/) *\(?[{letters}]\b|{REFUSED})"
    option = r"(?i:option|choice|letter)"
    # "The answer is B. Option A is an animal." says B
    be = r"(?:is|(?:must|would|should|has to) be)"
    noun = rf"(?i:\bans(?:wer)?|(?:correct|right|best)\s+{option})"
    answer = rf"{noun}(?:\s+{be}|(?=:))(?:\s+{option})?"
    # not in the middle of a sentence ("if I choose A"), nor with the article ("I say A river")
    verb = r"(?: would| will|'ll|'d)? (?:choose|pick|select|say|go with)"
    choose = rf"(?:^|(?<=[.!?:,] ))I{verb}(?!:? A [a-z])"
    for word in (answer, choose, rf"(?:(?i:answer)|{option})(?:\s+is)?"):
        if said := re.findall(rf"{word}\s*:?\s*{letter}{ends}", text, re.M):
            return letters.index("".join(said[-1]).upper())
    judged = r" is (?:the )?(?:correct|right|best|answer)\b"
    # up to a comma or a reason: "B) because A is wrong" says B
    itself = r"(?:it\b|(?:the )?(?:right|correct|answer)\b)"
    wrong = rf" (?:is|are)(?: wrong| incorrect| false|(?: not|n't) {itself})"
    kept = rf"[).:\]](?!(?:(?!\bbecause\b)[^.,;:!?\n])*{wrong})"
    lead = re.match(rf"\W*([{any_case}])(?:{kept}|[!,]?\s*$|{judged})", text, re.M)
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
        words = re.escape(fold(options[i]).removesuffix(".") or options[i])
        found = rf"{before}{NOT_DENIED}{words}(?!{after}|{REFUSED})"
        if re.search(found, rest):
            named.append(i)
            rest = re.sub(found, "_", rest)
    return named

"""
Messages as people type them, for the dispatcher: sums, programs, options to choose from, and chat.

What:  `make_wide(rng, label)` fills one of the hundred-odd situations of a label. Nothing checks an
       answer ("open"): the label is all that is learnt from them. `either(rng, label, make)` is
       what the dispatcher sees: SHARE of its questions are of this kind, the others are the
       experts' own.
Why:   the questions of the experts are narrow, so a dispatcher that has seen only these fails on
       what people write. Here are long stories, half-written functions, many layouts of options,
       other languages; and chat with numbers in it, or about mathematics, that needs no expert.
Split: the key is the situation with what was filled in, without the wording, layout or greeting.

Tables: questions/wide.txt. A line is a situation: "head :: head :: wording ~ other wording", with
        \\n for a line break. {a} is filled from SLOTS (a, b, c from 2 to 9, d and e up to 48, u and
        v up to 98, h and i hundreds, k and l thousands, q and r percents, y a year, p and s
        prices), a capital from a head "A=this;that" (or in pairs, "AB=cat/kitten;dog/puppy").
        Any other head lists options, "this; that": of "right | wrong; ..." one right and some wrong
        are drawn, and "= yes; no" keep their order. {?} is where they go, {?or} in that layout.
"""
import re

from .example import Example
from .tables import read

TEXT = read("wide")
LABELS = ("math", "code", "reasoning", "other")
SHARE = 0.5                                                  # of the dispatcher's questions
SLOTS = {"abc": range(2, 10), "de": range(12, 49), "uv": range(52, 99), "hi": range(110, 500, 10),
         "kl": range(1200, 9900, 100), "qr": range(5, 50, 5), "y": range(1850, 2016),
         "ps": [f"{cents / 100:.2f}" for cents in range(125, 1000, 5)]}
SLOTS |= {slots: words.split(";") for slots, words in
          (line.split("=") for line in TEXT["SLOTS"].splitlines())}
LAYOUTS = {name: how for name, *how in
           (line.replace("\\n", "\n").split("¦") for line in TEXT["LAYOUTS"].splitlines())}


def _table(text):
    """-> list of (own slots {"AB": values}, lists of options, wordings)."""
    rows = [line.replace("\\n", "\n").split(" :: ") for line in text.splitlines() if line]
    found = []
    for *heads, told in rows:
        own = [head.split("=", 1) for head in heads if re.match("[A-Z]+=", head)]
        lists = [head for head in heads if not re.match("[A-Z]+=", head)]
        found.append(({slots: words.split(";") for slots, words in own}, lists,
                      [wording.strip() for wording in told.split(" ~ ")]))
    return found


TABLES = {label: _table(TEXT[label.upper()]) for label in LABELS}


def either(rng, label, make):
    """A message of `label`: a wide one where there are any, or one of its expert's, make(rng)."""
    wide = label in TABLES and rng.random() < SHARE
    return make_wide(rng, label) if wide else make(rng)


def make_wide(rng, label):
    """One message of `label`, as the table has it or with a greeting, in small letters, ..."""
    number = rng.randrange(len(TABLES[label]))
    own, lists, wordings = TABLES[label][number]
    fill = {}
    for slots, values in (SLOTS | own).items():
        drawn = [rng.choice(values).split("/", len(slots) - 1)] if slots in own else []
        fill |= zip(slots, *drawn or [rng.sample(values, len(slots))])
    options = _options(rng, rng.choice(lists)) if lists else []
    wording = rng.choice(wordings)
    used = sorted(set(re.findall(r"\{(\w)\}", " ".join([wording, *options]))) & set(fill))
    kind = f"wide/{label}/{number}"
    key = "/".join([kind, *(f"{slot}={fill[slot]}" for slot in used), *sorted(options)])

    def filled(text):
        return re.sub(r"\{(\w)\}", lambda slot: str(fill.get(slot[1], slot[0])), text)

    options = [filled(option) for option in options]
    text = _dressed(rng, _laid_out(rng, filled(wording), options) if options else filled(wording))
    return Example(text, "", "open", kind, key, tuple(options))


def _options(rng, text):
    """'right | wrong; wrong' -> the options that are shown, in the order in which they are."""
    if text.startswith("= "):
        return text[2:].split("; ")
    right, *wrong = (part.split("; ") for part in text.split(" | "))
    if wrong:
        size = min(len(wrong[0]), rng.choice([2, 3, 3, 3, 4]))
        right = [rng.choice(right), *rng.sample(wrong[0], size)]
    return rng.sample(right, len(right))


def _laid_out(rng, text, options):
    """The options, in place of {?}, in one of LAYOUTS: by lines and letters, in brackets, ..."""
    stem, name, tail = re.split(r"\{\?(\w*)\}", text)
    short = max(map(len, options)) <= 24 and not any("," in option for option in options)
    fits = [n for n, (before, item, *_) in LAYOUTS.items()      # the others are named in a wording
            if before and (short or "\n" in before or "{A}" in item)]
    before, item, between, last, after = LAYOUTS[name or rng.choice(fits)]
    shown = [o[0].upper() + o[1:] for o in options] if rng.random() < 0.2 and not name else options
    items = [item.format(A="ABCDE"[i], l="abcde"[i], N=i + 1, o=o)
             for i, o in enumerate(shown)]
    stem = stem if name else stem.rstrip()
    if before[:1] == ":" or before[:3] == " ..":
        stem = stem.rstrip("?:. ")
    return stem + before + between.join(items[:-1]) + last + items[-1] + after + tail


def _dressed(rng, text):
    """A greeting before, thanks after, small letters or no last full stop: one message in four."""
    chance = rng.random()
    if chance < 0.07 and text[0].isupper():
        return rng.choice(["Hi! ", "Hello! ", "Hey, quick question. ", "Good evening. "]) + text
    if chance < 0.13:
        after = rng.choice(["Thanks!", "Thank you in advance.", "Please keep it short.", "Thx"])
        return f"{text}\n\n{after}" if "\n" in text or text[-1] not in ".?!" else f"{text} {after}"
    if chance < 0.19 and "\n" not in text:
        return text.lower()
    return text.rstrip(".?! ") if chance < 0.25 else text

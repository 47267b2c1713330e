"""
easy-VQA (MIT): questions about drawn images of 64 x 64 pixels, each with one shape in one colour.

Published: 4,000 + 1,000 images, 38,575 + 9,673 questions, 13 answers, by Victor Zhou.
Judged:   by the answer's kind. A text that names exactly one colour answers a question about the
          colour with it, whatever else it says ("The shape is blue."); likewise shapes, yes and no.
Splits:   the published ones; the images of val are a tenth of those of train.
"""
from collections import Counter

from .example import Example
from .pictures import Seen

COLORS = ("red", "green", "blue", "black", "yellow", "teal", "brown", "gray")
SHAPES = ("circle", "rectangle", "triangle")
KINDS = {"yes/no": ("Yes", "No"), "shape": SHAPES, "color": COLORS}


def make(row, path):
    """[question, answer, number of its image],
    and the path of the file that it is in -> Example."""
    question, answer, number = row
    if answer in ("yes", "no"):
        answer = answer.capitalize()                        # as a chat model writes it
    kind = next((kind for kind, answers in KINDS.items() if answer in answers), None)
    if kind is None or type(number) is not int:
        raise ValueError(f"{answer!r:.40} is none of the 13 answers, or {number!r:.40} no number")
    image = str(path.parent / "images" / f"{number}.png")
    of = f"image {number} of {path.parent.name}"
    return Example(Seen(question, image), answer, "choice", kind, of, KINDS[kind])


def balanced(examples):
    """Those of which the words do not tell the answer: of each yes/no question as many with Yes as
    with No, the first ones; all others stay.

    As published, "is there a red shape?" is answered with No seven times in eight, so an expert
    earns most of its reward without a look at the image.
    """
    words = [str(e.prompt) for e in examples]
    has = Counter((text, e.answer) for text, e in zip(words, examples))
    taken, kept = Counter(), []
    for text, e in zip(words, examples):
        if e.kind == "yes/no":
            taken[text, e.answer] += 1
            if taken[text, e.answer] > min(has[text, answer] for answer in KINDS["yes/no"]):
                continue
        kept.append(e)
    return kept


def facts(examples):
    """What the questions and answers say about every image. -> dict path -> (colour, shape).

    An image is left out where they do not tell both.
    """
    told = {}
    for e in examples:
        found = told.setdefault(e.prompt.image, {})
        words = e.prompt.rstrip("?").split()
        if e.kind != "yes/no":
            found[e.kind] = e.answer
        elif (e.answer == "Yes") == ("not" in words or "no" in words):
            continue                                        # it says what the image does not show
        for kind in ("color", "shape"):                     # "what is the red shape?" tells red
            found.update((kind, word) for word in words if word in KINDS[kind])
    return {image: (f["color"], f["shape"]) for image, f in told.items() if len(f) == 2}

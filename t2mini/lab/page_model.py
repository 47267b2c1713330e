"""
What the page asks of the model: z from sliders and single dials, the answers of the base model and
of that z side by side, and the words that either of them finds likeliest next.

The second pass folds nothing: a row with z = 1 and a row with the present z share a batch
(svf.per_row), so a moved slider costs no new weights, and the base weights stay where they are. The
dispatcher never changes, so its weights are folded once and kept beside the base model's (270 MB
for 135M): a first pass is then one product for each matrix instead of three.

With a tower (--tower, or the shipped one of a model with a vision expert) there is an image field,
too. A dispatcher reads words: a question about an image goes to the vision expert without a first
pass, or to the base model where there is none.
"""
import base64
import binascii
import sys
import time
from contextlib import contextmanager

import torch

from .. import adapt, evaluate, experts, svf, tasks
from ..cem import HIGH, LOW
from ..generate import generate
from ..questions import pictures
from ..sight import towers
from ..machine.shelves import is_tower
from ..machine.text import one_line

FARTHEST = 4.0                  # largest |z| of a dial that is set by hand
MOST_DIALS = 64                 # so many may be set by hand
MOST_TOKENS = 512               # of one answer
MOST_CHARACTERS = 4000          # of a question, and of the text so far
MOST_PROMPT = 1200              # tokens to read before an answer: nobody can stop that part
MOST_IMAGE = 40_000             # characters of an image; 64 x 64 pixels have 16,384 at most
MOST_PIXELS = 1 << 18           # of it: a blank image of millions fits into as few characters
ROWS = {"both": ("base", "adapted"), "adapted": ("adapted",)}
FIRST = ("decide", "show", "skip")
LISTED = 10                     # likeliest next words


class Lab:
    """One model with its experts, and what a page can do with it.

    experts: name -> z, those shipped for this base model and those in out/; dispatcher: z, or None
    where there is none, and then the base model itself is asked for the label (strategy A).
    """

    def __init__(self, model, tokenizer, shelf):
        self.model = model
        self.tokenizer = tokenizer
        self.experts = {}
        self.dispatcher = None
        for name in names_of(model, shelf):
            self.take(name, shelf)
        if not svf.layers(model):               # no expert at all: there are dials all the same
            experts.attach(model, {}, shelf.modules, shelf.depth)
        self.ones = {name: torch.ones_like(layer.S) for name, layer in svf.layers(model).items()}
        self.first_weights = folded(model, self.dispatcher or {})
        if "vision" in self.experts and tokenizer.eye is None:
            try:
                towers.open_eye(model, tokenizer)
            except (OSError, ValueError) as e:
                print(one_line(f"no image field: {e}"), file=sys.stderr)

    def take(self, name, shelf):
        """Put an expert where it belongs; one that does not fit is left out, with a line."""
        try:
            z = shelf[name]
            sizes = {matrix: layer.S.shape for matrix, layer in svf.layers(self.model).items()}
            if any(sizes.get(matrix) != values.shape for matrix, values in z.items()):
                raise ValueError("its z belong to other matrices than are tuned here "
                                 "(--modules, --layers)")
        except ValueError as e:
            print(one_line(f"left out {name}: {e}"), file=sys.stderr)
            return
        if name == "dispatcher":
            self.dispatcher = z
        else:
            self.experts[name] = z

    def warm_up(self):
        """Answer once: the first product of each matrix rearranges it (machine/packed.py)."""
        events = []
        body = {"question": "Hello", "max_tokens": 2, "first": "show"}
        self.ask(body)(lambda event, data: events.append(event))

    # ------------------------------------------------------------------------ what can be asked
    # Each takes the body of a request, a dict, and raises ValueError where it makes no sense.
    def facts(self):
        """What the page shows before anybody asked. -> dict."""
        examples = {}
        for label in tasks.LABELS:                          # the first test question of each
            examples[label] = tasks.get(label).examples("test", 1)[0].prompt
        return {"model": self.model.name, "labels": tasks.LABELS, "experts": list(self.experts),
                "examples": examples, "alpha": [LOW, HIGH], "farthest": FARTHEST,
                "dispatcher": self.dispatcher is not None, "sees": self.tokenizer.eye is not None}

    def heat(self, body):
        """How far z is from 1, by matrix. -> {"matrices": [{name, layer, module, moved}]}."""
        found = []
        for name, z in self.z_of(body).items():
            layer, module = name.split(".", 3)[2:]              # model.layers.3.mlp.up_proj
            moved = (z - 1).abs().mean().item()
            found.append({"name": name, "layer": int(layer), "module": module, "moved": moved})
        return {"matrices": found}

    def matrix(self, body):
        """The singular values of one matrix, largest first, and z. -> {"S": list, "z": list}."""
        name = body.get("matrix")
        if not isinstance(name, str) or name not in self.ones:
            raise ValueError("matrix must be the name of one that has singular values here")
        layer = svf.layers(self.model)[name]
        return {"S": layer.S.tolist(), "z": self.z_of(body)[name].tolist()}

    def ask(self, body):
        """Both passes. -> run(say), which calls say(event, data) for all that happens.

        first: does the first pass decide the mixture, is it only shown, or skipped? rows: both
        answers, or the adapted one alone. image: see `question_of`.
        """
        question = self.question_of(body)
        seen = isinstance(question, pictures.Seen)
        if not question.strip():
            raise ValueError("the question is empty")
        first = one_of(body, "first", FIRST)
        names = ROWS[one_of(body, "rows", tuple(ROWS))]
        max_tokens = whole(body.get("max_tokens", 160), 1, MOST_TOKENS, "max_tokens")
        given = self.z_of(body)

        def run(say):
            """The first pass, where it is asked for, and the answers of the second."""
            z = given
            label = "vision"
            if first != "skip" and not seen:
                label = self.first_pass(question, say).label
            if first == "decide":
                alpha = {name: 1.0 for name in self.experts
                         if name == label and label not in adapt.BASE}
                say("alpha", alpha)         # none for "other": the base model, as in `ask`
                z = self.z_of({**body, "alpha": alpha})
            self.second_pass(question, names, z, max_tokens, say)

        return run

    def lens(self, body):
        """Both rows' likeliest next words. -> run(say), see `ask`; text: the answer so far."""
        question, text = self.question_of(body), text_of(body, "text")
        z = self.z_of(body)

        def run(say):
            """One step of both rows, side by side."""
            self.forget_images()
            prompt = self.prompt_of(question, text)
            stops = self.tokenizer.stops()
            with svf.per_row(self.model, [{}, z], [0, 1]) as rows:
                out = generate(self.model, [prompt, prompt], 1, stops, temperature=0, rows=rows)
            p = out.first_logits.float().softmax(-1)                            # (2, V)
            likeliest = p.topk(min(LISTED, p.shape[1])).indices.tolist()        # (2, LISTED)
            words = [[self.word(token, p, not text) for token in row] for row in likeliest]
            say("words", {"base": words[0], "adapted": words[1]})

        return run

    # ------------------------------------------------------------------------ the parts of it
    def question_of(self, body):
        """The question of a request; with `image`, a PNG in base64, one about that image."""
        question, image = text_of(body, "question"), text_of(body, "image", MOST_IMAGE)
        if not image:
            return question
        if self.tokenizer.eye is None:
            raise ValueError("there is no tower here for an image (--tower)")
        try:
            data = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("image must be a PNG file in base64") from None
        return pictures.Seen(question, pictures.decode(data, "the image", MOST_PIXELS))

    def z_of(self, body):
        """Sliders and dials of a request -> dict matrix -> z (r,).

        alpha: {expert: weight}, z = 1 + sum alpha (z - 1); dials: [[matrix, index, z]] set by hand.
        """
        alpha, dials = body.get("alpha", {}), body.get("dials", [])
        if not isinstance(alpha, dict) or not alpha.keys() <= self.experts.keys():
            raise ValueError("alpha must be {expert: weight}, of the experts that are here")
        weights = [number(a, LOW, HIGH, f"alpha of {name}") for name, a in alpha.items()]
        z = self.ones | svf.mix([self.experts[name] for name in alpha], weights)

        if not isinstance(dials, list) or len(dials) > MOST_DIALS:
            raise ValueError(f"dials must be a list of at most {MOST_DIALS} [matrix, index, z]")
        for dial in dials:
            name, index, value = self.dial(dial)
            z[name] = z[name].clone()                           # never into an expert's own numbers
            z[name][index] = value
        return z

    def dial(self, dial):
        """One [matrix, index, z] of a request, checked."""
        if not isinstance(dial, list) or len(dial) != 3:
            raise ValueError("a dial is [matrix, index, z]")
        name, index, value = dial
        if not isinstance(name, str) or name not in self.ones:
            raise ValueError("a dial names a matrix that has no singular values here")
        last = len(self.ones[name]) - 1
        index = whole(index, 0, last, "the index of a dial")
        return name, index, number(value, -FARTHEST, FARTHEST, "z of a dial")

    def prompt_of(self, question, opener=""):
        """Token ids of a question. ValueError where they are too many."""
        prompt = self.tokenizer.prompt(question, opener=opener)
        if len(prompt) > MOST_PROMPT:
            raise ValueError(f"that is {len(prompt)} tokens to read, and the page takes at most "
                             f"{MOST_PROMPT}; `python -m t2mini ask` takes longer questions")
        return prompt

    def first_pass(self, question, say):
        """Which skill does the question need? -> adapt.Route."""
        started = time.perf_counter()
        asked = tasks.dispatch_prompt(question)
        prompt = self.prompt_of(asked, tasks.DISPATCH_OPENER)
        first = adapt.label_tokens(self.tokenizer)
        stops = self.tokenizer.stops(tasks.DISPATCH_OPENER)
        with wearing(self.first_weights), torch.inference_mode():
            out = generate(self.model, [prompt], tasks.DISPATCH_TOKENS, stops, temperature=0)
            [route] = adapt.read_routes(self.tokenizer, out, first)
        ms = 1000 * (time.perf_counter() - started)
        say("route", {"label": route.label, "said": route.said, "readable": route.readable,
                      "probabilities": route.probabilities, "ms": ms})
        return route

    def second_pass(self, question, names, z, max_tokens, say):
        """Answer with the base model and with z, as two rows of one batch, word by word."""
        self.forget_images()
        started = time.perf_counter()
        written = [0] * len(names)

        def on_text(row, piece):
            ms = 1000 * (time.perf_counter() - started)
            say("token", {"row": names[row], "text": piece, "tokens": written[row], "ms": ms})

        stream = evaluate.streamed(self.tokenizer, range(len(names)), on_text)

        def on_token(rows, tokens):
            for row in rows:
                written[row] += 1
            stream(rows, tokens)

        z_of = {"base": {}, "adapted": z}
        which = list(range(len(names)))
        prompt = self.prompt_of(question)
        with svf.per_row(self.model, [z_of[name] for name in names], which) as rows:
            out = generate(self.model, [prompt] * len(names), max_tokens, self.tokenizer.stops(),
                           temperature=0, rows=rows, on_token=on_token)
        texts = {name: self.tokenizer.decode(out.tokens(n)) for n, name in enumerate(names)}
        say("done", {"texts": texts, "stopped": dict(zip(names, out.stopped.tolist()))})

    def forget_images(self):
        """The images of earlier requests go; ours is shown anew."""
        if self.tokenizer.eye is not None:
            self.tokenizer.eye.forget()

    def word(self, token, p, first):
        """One candidate: what it prints, and how likely the base and the adapted model find it.

        first: nothing stands before it. Elsewhere a word keeps its blank, which some tokenizers
        (SentencePiece) leave away where a text begins.
        """
        base, adapted = p[:, token].tolist()
        text = self.tokenizer.decode([token])
        if not first:
            text = self.tokenizer.decode([token, token])[len(text):]
        return {"text": text, "end": token in self.tokenizer.stops(), "base": base,
                "adapted": adapted}


# ---------------------------------------------------------------------------------- first weights
def folded(model, z):
    """dict layer -> W' of z, for `wearing`; W itself where z says nothing."""
    with svf.using(model, z):
        return {layer: layer.folded for layer in svf.layers(model).values()}


@contextmanager
def wearing(weights):
    """Compute with these weights inside the block; afterwards with those from before."""
    before = {layer: layer.folded for layer in weights}
    try:
        for layer, W in weights.items():
            layer.folded = W
        yield
    finally:
        for layer, W in before.items():
            layer.folded = W


# ---------------------------------------------------------------------------------- what is here
def names_of(model, shelf, methods=("svf",)):
    """Experts of these methods for this base model: the dispatcher, the skills, then others by
    name."""
    paths = [*(experts.SHIPPED / model.name).glob("*.safetensors"),
             *experts.OUT.glob("*.safetensors")]
    found = {path.stem: experts.find(path.stem, model) for path in paths
             if path.is_file() and not is_tower(path)}
    usable = [name for name, path in found.items() if belongs(name, path, model, shelf, methods)]
    first = ("dispatcher", *adapt.MIXED)
    return [n for n in first if n in usable] + sorted({*usable} - {*first})


def belongs(name, path, model, shelf, methods):
    """Is this file an expert of these methods for the model, and not a second dispatcher?"""
    try:
        meta = experts.read_metadata(path)
    except (ValueError, OSError) as e:                      # damaged, or another user's
        print(one_line(f"left out: {e}"), file=sys.stderr)
        return False
    same_base = meta.get("base_sha256") == model.base_sha256 or shelf.allow_other_base
    routes = meta.get("task") == "dispatch" and name != "dispatcher"
    method = meta.get("method", "svf")
    if same_base and method not in methods:
        print(one_line(f"left out {name}: it is of method {method}, and only those of "
                       f"{', '.join(methods)} can be used here"), file=sys.stderr)
    return same_base and method in methods and not routes


# ---------------------------------------------------------------------------------- what is asked
def number(value, low, high, what):
    """value, if it is a number within the bounds; ValueError else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{what} must be a number from {low} to {high}")
    return float(value)


def whole(value, low, high, what):
    """The same for numbers that count; 2.7 is no third dial."""
    found = number(value, low, high, what)
    if not found.is_integer():
        raise ValueError(f"{what} must be a whole number")
    return int(found)


def text_of(body, name, most=MOST_CHARACTERS):
    """A text of a request, "" where it says nothing; ValueError if it is none, or too long."""
    text = body.get(name, "")
    if not isinstance(text, str) or len(text) > most:
        raise ValueError(f"{name} must be a text of at most {most} characters")
    return text


def one_of(body, name, known):
    """A word of a request; the first of the known ones where it says nothing."""
    word = body.get(name, known[0])
    if word not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}")
    return word

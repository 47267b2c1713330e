"""
Small "write a Python function" problems with hidden tests, for the code expert (stand-in for the
paper's MBPP).

What:  `make_code(rng)` draws one problem: a request, a reference solution, and six to a dozen calls
       with the values the reference returns; `unseen=True` draws from other kinds of function,
       asked for in other sentences.
Why:   a 135M model is rewarded only where it is sometimes right, so a solution is one expression or
       up to four lines, and eight kinds were left out because they stayed unsolved: of each none of
       32 sampled answers was right, and few or none once trained. So a score here is one on kinds
       of problem that such a model can learn. What it has to learn is to take the constant, the
       comparison and the name exactly as asked, and to return. The calls hit the constant itself,
       its neighbours and empty input, and every one of a set of wrong programs (mutants.py: `>=`
       for `>`, off by one, a constant, an argument, a part of the solution) fails at least one.
Split: by kind and parameters. 26 of the 62 kinds (19 of the 29 unseen ones) have no parameters, and
their key holds the
       function's name. So 45 % of the test problems (60 % of the unseen ones) ask for a function
       that train problems of the same pool ask for under another name; what is new in them is the
       name and the wording. Without the name such a kind would be in one split alone, and the
       shipped experts, whose scores are quoted on these splits, would have trained on what became
       test: so the key stays.

Tables: questions/code.txt. A kind is "kind types parameters | names | descriptions | body"; a line
that starts with a space goes on.
        {a} and {b} stand for the arguments, {k} and {m} (numbers), {c} and {d} (texts) for the
        parameters. " ~ " parts descriptions that mean the same, "?" is short for "True if ..., and
        False otherwise", ";;" is a new line. Types: i whole number, p the same but not negative, n
        0 to 9; l list of numbers, m the same but never empty (and longer than k); s lower-case
        text, S text with capitals, t words with spaces; w list of words, v the same but never
        empty; d dictionary of numbers, u pair.
"""
import functools
import random
import re
import textwrap
from itertools import product

from . import mutants
from .example import Example, same_value
from .tables import read

RANGES = {
    "letter": "a e i o u s t r n l c d m p b g".split(),
    "mark": "- _ / : + = * # | . , ; -- **".split(),
    "sep": ["-", ", ", "_", "/", " and ", ":", "+", " ", "; ", ".", "=", " or ", "*", "#", " | ",
            "--"],
    "ending": """ok end done yes now too again please today here all not never always soon
        maybe""".split()}


def whole_numbers(text):
    """'2-59' -> the numbers from 2 to 59."""
    first, last = map(int, text.split("-"))
    return range(first, last + 1)


def _table(text):
    """The table's text -> {kind: (types, parameters {name: possible values}, names, descriptions,
    body)}."""
    kinds = {}
    for line in text.strip().replace("\n ", "").splitlines():
        head, names, texts, body = line.split(" | ")
        kind, types, *given = head.split()
        given = dict(g.split("=") for g in given)
        span = {p: RANGES.get(r) or whole_numbers(r) for p, r in given.items()}
        texts = [re.sub(r"^\? (.*)", r"True if \1, and False otherwise", t)
                 for t in texts.split(" ~ ")]
        kinds[kind] = types, span, names.split(), texts, body.replace(" ;; ", "\n")
    return kinds


SEEN, UNSEEN = (_table(read("code")[pool]) for pool in ("SEEN", "UNSEEN"))
POOLS = {False: SEEN, True: UNSEEN}
GENERIC = "f g func solve compute helper process my_function run".split()
FRAMES = [  # seen
    "Write a Python function `{name}({args})` that returns {what}.",
    "Define a function called {name} with {parameters} in Python. It should return {what}.",
    "Please write the Python function {name}({args}). It returns {what}.",
    "In Python, implement `{name}({args})`, which should return {what}.",
    "I need a Python function named {name} that takes {parameters} and returns {what}.",
    "Can you write me a function {name}({args}) in Python? It must return {what}.",
    "Create a Python function `{name}` with {parameters}. The function returns {what}.",
    "Write {name}({args}) in Python. The return value is {what}."]
FRAMES_UNSEEN = [
    "Give me Python code for a function `{name}({args})` that computes {what}.",
    "Python exercise: code `{name}({args})` so that its result is {what}.",
    "Using Python, make a function {name} of {parameters}. Its output is {what}.",
    "Complete this Python function: def {name}({args}). It gives back {what}."]
ARGUMENTS = {"i": "x;n;number;value;num", "p": "x;n;number;amount;num", "n": "n;num;limit",
             "s": "s;text;word", "S": "s;text;phrase", "t": "s;text;sentence",
             "l": "numbers;nums;xs;values", "m": "numbers;nums;xs;values",
             "w": "words;strings", "v": "words;strings", "d": "d;data;table", "u": "pair;t;point",
             "ii": "a b;x y;m n;p q", "pp": "a b;x y;width height", "ss": "a b;s t;left right",
             "ll": "a b;xs ys", "dd": "a b;d1 d2;old new", "mi": "numbers x;values target;items n",
             "ds": "d key;data word;table s"}
WORDS = """sun apple tree level banana noon sky river it radar python be street umbrella carpet dog
 abba go lemon grass cup mountain bottle elephant plane ice orange night rose taxi castle
 pool""".split()


def _value(rng, code, par, i):
    """The argument of the i-th call: first what is special for this type and these parameters, then
    anything."""
    numbers, letter = [v for v in par.values() if isinstance(v, int)], par.get("c", "")
    if code in "ip":
        edges = [*numbers, *(v + 1 for v in numbers), *(2 * v for v in numbers), 0, 1]
        edges = list(dict.fromkeys(edges))
        if i < min(4, len(edges)):
            return edges[i]
        value = rng.choice([8, 16, 64] + [rng.randint(2, 70)] * 3)
        if code == "i" and i == 4:
            value = -value
        return value
    if code == "n":
        if i < 2:
            return i
        return rng.randint(2, 9)
    if code in "lm":
        edges = [v + step for v in numbers for step in (0, 1, -1)]
        pool = edges + [rng.randint(-9, 30) for _ in range(5)]
        least = par.get("k", 0) + 1 if code == "m" else 0
        size = least
        if i > 0:
            size += rng.randint(1, 5)
        value = [rng.choice(pool) for _ in range(size)]
        if i == 3 and numbers:  # all at most k, and k itself
            value = [v for v in value if v <= max(numbers)] + numbers * (least + 1)
        if i == 2:
            return sorted(value)
        return value + edges * (i == 1)
    if code in "sS":
        word = rng.choice(WORDS)
        value = [word * (code == "S" or rng.random() < 0.4), letter + word, word + letter,
                 rng.choice(["level", "noon", "radar", "abba"]), letter.join(rng.sample(WORDS, 2)),
                 word + rng.choice(WORDS)][i]
        if code == "s":
            return value
        return rng.choice([value.upper(), value.title(), value.title() + word.upper()])
    if code in "twv":
        value = [letter * (letter.isalpha() and rng.random() < 0.4) + w
                 for w in rng.sample(WORDS, 5)]
        value = value[:i if code == "w" else max(1, i)]
        if code == "t":
            return " ".join(value)
        return value
    if code == "d":
        return {rng.choice(WORDS[:6]): rng.randint(-5, 40) for _ in range(i)}
    return rng.randint(-9, 9), rng.randint(10, 20)


def _calls(rng, function, types, par):
    """Seven different calls with their values; drawn again while a constant or an argument would
    pass the first six."""
    for _ in range(1000):
        calls = []
        for i in [0, 1, 2, 3, 4, 5, 5]:
            turns = [i, 1]
            if i:
                turns = [i, rng.randrange(6)]
            args = [_value(rng, code, par, turn) for code, turn in zip(types, turns)]
            if types in ("ds", "mi") and args[0] and i % 2:
                args[1] = rng.choice(list(args[0]))  # search for something that is there
            calls.append((tuple(args), function(*args)))
        columns = list(zip(*(args for args, _ in calls[:6])))
        wanted = [value for _, value in calls[:6]]
        passed = any(all(map(same_value, guess, wanted)) for guess in [wanted[:1] * 6, *columns])
        if not passed and len({repr(args) for args, _ in calls}) == 7:
            return calls
    raise ValueError(f"found no calls that tell {function.__name__} with {par} from a constant")


def returning(body):
    """The body of a function: an expression is what it returns."""
    if "return" in body:
        return body
    return "return " + body


class _Name(str):
    """A parameter's name where the tables have its value."""
    __repr__ = str.__str__


@functools.lru_cache(maxsize=None)
def _wrong(kind, unseen):
    """(the solution of a kind, the programs that are wrong for some of its problems): functions of
    arguments, parameters."""
    types, span, _, _, body = POOLS[unseen][kind]
    body = body.format(a="a", b="b", **{p: _Name(p) for p in span})
    body = returning(body)
    solution = mutants.solution("ab"[:len(types)], list(span), body)
    rng, seen = random.Random(kind), []
    for i in range(2 * TRIES):
        par = {p: rng.choice(values) for p, values in span.items()}
        args = _try(rng, types, par, i)
        seen.append(((*args, *par.values()), solution(*args, *par.values())))
    wrong = mutants.of("ab"[:len(types)], list(span), body, yes_or_no=isinstance(seen[0][1], bool))
    return solution, [f for f in wrong if not mutants.passes(f, seen)]


TRIES = 160  # calls that are tried; a program that is right on all of them is no wrong one


def _killers(kind, unseen, par, calls, shown):
    """Calls that show the wrong programs which pass these calls to be wrong; never the one that the
    question shows."""
    wrong = _wrong(kind, unseen)[1]
    asked = {repr(args) for args, _ in calls} | {repr(shown)}

    def tries():
        found = _tries(kind, unseen, tuple(par.items()))
        return [call for call in found if repr(call[0]) not in asked]
    return mutants.against(wrong, calls, tuple(par.values()), tries)


@functools.lru_cache(maxsize=None)
def _tries(kind, unseen, par):
    """Different calls (arguments, value): the same ones for every question about this function."""
    types, par = POOLS[unseen][kind][0], dict(par)
    solution, _ = _wrong(kind, unseen)
    rng = random.Random(f"{kind} {par}")
    tries = [_try(rng, types, par, i) for i in range(TRIES)]
    if set(types) <= set("ip"):  # of whole numbers all that is close, in each combination
        near = {sign * n: 0 for n in _near(par) for sign in (1, -1)}
        tries += product(*([n for n in near if code == "i" or n >= 0] for code in types))
    found = {repr(args): args for args in tries}
    return [(args, solution(*args, *par.values())) for args in found.values()]


def _try(rng, types, par, i):
    """The arguments of one call: as `_value` draws them, or close to what the parameters say."""
    turns = i % 6, rng.randrange(6)
    args = [_value(rng, code, par, turn) for code, turn in zip(types, turns)]
    if types in ("ds", "mi") and args[0] and i % 2:
        args[1] = rng.choice(list(args[0]))
    if i % 3:
        args = [_edge(rng, code, par, arg) for code, arg in zip(types, args)]
    return tuple(args)


def _near(par):
    """Numbers that are close to a parameter of the problem or to zero, and one that is far away."""
    close = [v + step for v in par.values() if isinstance(v, int) for step in (-1, 0, 1)]
    return list(dict.fromkeys([*close, -1, 0, 1, 2, 99]))


def _edge(rng, code, par, value):
    """A value like this one, with a size or a content close to a parameter of the problem."""
    near = _near(par)
    n = rng.choice([v for v in near if v >= 0])
    letter = par.get("c", rng.choice("aeb"))
    if code in "ip":
        if code == "i":
            n *= rng.choice([1, 1, -1])
        return n
    if code in "lm":
        least = par.get("k", 0) + 1 if code == "m" else 0
        long = value + [rng.choice(near) for _ in range(least + 2)]
        return long[:rng.randint(least, len(long))]
    if code in "sS":
        return rng.choice([(value * 9)[:n], letter + value, value + letter, letter, "", value[:1],
                           letter * 2 + value])
    if code == "t":
        return rng.choice([value, f"{value} {letter}", f" {value}  {value} ", letter, ""])
    if code in "wv":
        return value + [letter, letter + letter, "a" + letter][:rng.randint(0, 3)]
    if code == "d":
        return {**value, **{rng.choice(WORDS[:6]): n}}
    return value


def make_code(rng: random.Random, unseen: bool = False) -> Example:
    """One problem; its key is the kind with its parameters (without any: with the function's
    name)."""
    table = POOLS[unseen]
    kind = rng.choice(list(table))
    types, span, names, texts, body = table[kind]
    par = {p: rng.choice(values) for p, values in span.items()}
    if rng.random() < 0.25:
        names = GENERIC
    name = rng.choice(names).format(**par)
    args = rng.choice(ARGUMENTS[types].split(";")).split()
    fill = {**par, **dict(zip("ab", args))}
    body = returning(body).format(**fill)
    source = f"def {name}({', '.join(args)}):\n{textwrap.indent(body, '    ')}\n"
    scope = {}
    exec(source, scope)  # our own text, from the table above
    *calls, (shown, value) = _calls(rng, scope[name], types, par)
    calls += _killers(kind, unseen, par, calls, shown)
    parameters = f"the parameter{'s' * (len(args) > 1)} {' and '.join(args)}"
    frames = {False: FRAMES, True: FRAMES_UNSEEN}[unseen]
    prompt = rng.choice(frames).format(
        name=name, args=", ".join(args), parameters=parameters,
        what=rng.choice(texts).format(**fill))
    example = f" For example, {name}({', '.join(map(repr, shown))}) is {value!r}."
    if rng.random() < 0.3 and len(example) < 110:
        prompt += example
    key = "/".join([kind, *(map(str, par.values() or [name]))])
    return Example(prompt, source, "code", kind, key, calls=tuple(calls), name=name)

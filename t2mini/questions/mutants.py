"""
Wrong programs that are almost right, so that hidden tests can be chosen which they do not pass.

A mutant is the solution with one thing changed (a comparison, a constant, an operator, a part in
place of the whole), or a function that does not compute at all (a constant, an argument, its
length). Those that are right on every call that is tried are right, as far as anybody can tell, and
count as other spellings of the solution.
"""
import ast
import copy
import textwrap
import warnings

from .example import same_value

COMPARE = (ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq, ast.NotEq)
SWAPS = {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
         ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv,
         ast.FloorDiv: ast.Div, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult}
# one of these for another one of its line
NAMES = """max min sum len sorted list any all set abs
startswith endswith count
upper lower title capitalize swapcase
isupper islower istitle isalpha
split join strip""".splitlines()
# these for an argument {x}, in one place or everywhere
ARGUMENTS = """abs({x}); -{x}; {x}[1:]; {x}[:-1]; {x}[::-1]; {x}[:1]; {x}[:1] + {x}[-1:];
sorted({x}); sorted(set({x})); {x}.lower(); {x}.strip(); {x}[:3]; [v for v in {x} if v > 0];
max({x}, 0); min({x}, 9)""".replace("\n", " ").split("; ")
# these for the whole; {p} is a parameter of the problem, or 0
GUESSES = """True; False; None; 0; 1; ''; []; {x}; not {x}; bool({x}); len({x}); str({x}); {x}[0];
{x}[-1]; {x} + 1; {x} - 1; -{x}; len({x}) > 1; sorted({x}); list({x}); {x}[::-1]; sum({x});
max({x}); abs({x}); min({x})""".replace("\n", " ").split("; ")
VALUES = """{x}; len({x}); max({x}, default=0); min({x}, default=0); sum({x}); {x}[0]; {x}[-1];
abs({x})""".replace("\n", " ").split("; ")
TESTS = ["{p} in {x}", "{p} not in {x}"]
TESTS += [f"{value} {sign} {{p}}" for value in VALUES for sign in "> >= < <= == !=".split()]
# these behind the whole
BESIDES = """and {x} > 0; and {x} >= 0; or {x} <= 0; or {x} < 0; and bool({x}); or not {x};
and len({x}) > 1; or len({x}) < 2""".replace("\n", " ").split("; ")


def of(arguments, parameters, body, yes_or_no=False):
    """Names and the text of a body -> list of functions that differ from it in one thing.

    They take the arguments and then the parameters, so that those of a kind of problem serve all
    its problems. yes_or_no: the solution returns True or False, so guesses that do are tried, too.
    """
    head = f"def f({', '.join([*arguments, *parameters])}):\n"
    body = textwrap.indent(body, "    ")
    tree = ast.parse(head + body)
    guesses = [guess.format(x=x) for guess in GUESSES for x in arguments]
    if yes_or_no:
        guesses += [test.format(x=x, p=p) for test in TESTS for x in arguments
                    for p in [*parameters, "0"]]
        guesses += [f"({whole}) {more.format(x=x)}" for whole in returned(tree)
                    for more in BESIDES for x in arguments]
    texts = [f"{head}    return {guess}\n" for guess in guesses]
    texts += [f"{head}    {x} = {other.format(x=x)}\n{body}\n"
              for other in ARGUMENTS for x in arguments]
    for at in range(len(list(ast.walk(tree)))):
        texts += map(ast.unparse, changed(tree, at, parameters, arguments))
    return [loaded(text) for text in dict.fromkeys(texts)]


def returned(tree):
    """The text of what the only line of a function returns, if it has but one."""
    lines = tree.body[0].body
    return [ast.unparse(lines[0].value)] if len(lines) == 1 else []


def solution(arguments, parameters, body):
    """The right function, with the same arguments."""
    head = f"def f({', '.join([*arguments, *parameters])}):\n"
    return loaded(head + textwrap.indent(body, "    "))


def loaded(text):
    """The function f of a program text that this file made."""
    scope = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "'str' object is not callable": it is meant to be wrong
        exec(text, scope)
    return scope["f"]


def changed(tree, at, parameters, arguments):
    """Copies of a tree with its at-th node changed, each in another way. parameters: those that are
    numbers or texts."""
    node = list(ast.walk(tree))[at]
    ways = []
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            others = [other for other in COMPARE if type(op) in COMPARE] or [SWAPS[type(op)]]
            ways += [("ops", [*node.ops[:i], other(), *node.ops[i + 1:]]) for other in others]
    if isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in SWAPS:
        ways.append(("op", SWAPS[type(node.op)]()))
    if isinstance(node, ast.Constant) and type(node.value) is int:
        ways += [("value", node.value + step) for step in (1, -1)]
    if isinstance(node, ast.Constant) and type(node.value) is str:
        ways += [("value", text) for text in (node.value.upper(), node.value + " ", "")]
    if isinstance(node, ast.Name) and node.id in parameters:
        ways += [("id", f"({node.id} + {more})") for more in ("1", "-1", "' '")]
    if isinstance(node, ast.Name) and node.id in arguments:
        ways += [("id", f"({other.format(x=node.id)})") for other in ARGUMENTS]
    for field in ("id", "attr"):
        own = getattr(node, field, "")
        ways += [(field, name) for names in map(str.split, NAMES) if own in names for name in names]
    if isinstance(node, ast.Call) and node.keywords:
        ways.append(("keywords", []))
    for field, value in ways:
        mutant = copy.deepcopy(tree)
        setattr(list(ast.walk(mutant))[at], field, value)
        yield ast.fix_missing_locations(mutant)
    if isinstance(node, ast.expr):
        yield from promoted(tree, at)


def promoted(tree, at):
    """Copies of a tree in which a part of the at-th expression stands in the place of the whole."""
    for n, part in enumerate(parts(list(ast.walk(tree))[at])):
        mutant = copy.deepcopy(tree)
        whole = list(ast.walk(mutant))[at]
        part = parts(whole)[n]
        for node in ast.walk(mutant):
            for field, value in ast.iter_fields(node):
                if value is whole:
                    setattr(node, field, part)
                elif isinstance(value, list):
                    value[:] = [part if item is whole else item for item in value]
        yield ast.fix_missing_locations(mutant)


def parts(node):
    """The expressions inside one, where any could stand for it."""
    inside = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
    if isinstance(node, ast.Call):
        inside = [*node.args, getattr(node.func, "value", node)]
    return [child for child in inside if child is not node and not isinstance(child, ast.Slice)
            and not isinstance(getattr(child, "ctx", None), ast.Store)]


def passes(function, calls, more=()):
    """Does a function return what each call (arguments, value) expects? An error is no answer."""
    try:
        return all(same_value(function(*args, *more), want) for args, want in calls)
    except Exception:
        return False


def against(wrong, calls, parameters, tries):
    """Further calls, as few as possible out of tries(), so that none of the wrong programs passes
    all.

    Those that no try shows to be wrong are right, for these parameters.
    """
    alive = [f for f in wrong if passes(f, calls, parameters)]
    if not alive:
        return []
    more, pool = [], tries()
    shown = [{n for n, f in enumerate(alive) if not passes(f, [call], parameters)} for call in pool]
    while any(shown):
        best = max(range(len(pool)), key=lambda i: len(shown[i]))
        more.append(pool[best])
        shown = [left - shown[best] for left in shown]
    return more

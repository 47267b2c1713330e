"""
Published unit tests -> calls whose values are compared outside the sandbox (paper 4.1: MBPP and
HumanEval).

What the program under test may see is its arguments, never what is expected of it. There are three
ways, best first:

    calls    `assert f(1, [2]) == 3`: the literals on the left are the arguments, the one on the
             right stays outside.
    cases    `assert int(f(Pair(1, 2))) == 3`: the left side runs behind the program, the literal
             stays outside. A hostile program could read the left sides and change what `int` means
             there, so as to return another value: it may return any value anyway.
    replay   everything else (loops, tolerances, random arguments): `check` first runs on the
             reference solution and each call is noted; the program gets the calls alone; then
             `check` runs on the values that came back, in a sandbox of its own. Neither of these
             programs ever shares an interpreter with the one under test.

Nothing of a data file runs outside the sandbox.
"""
import ast
import builtins
import operator
import re
import textwrap

from . import sandbox
from .example import Example, same_value

FUTURE = re.compile(r"^from __future__ import [^\n(]*$", re.M)  # must stand before everything else

RECORD = """
def t2mini_record():
    import copy, random
    calls = []
    def candidate(*args):
        calls.append((copy.deepcopy(args), {name}(*args)))
        return calls[-1][1]
    random.seed(0)
    check(candidate)
    return calls
"""
VERDICT = """
def verdict(values, asked):
    import random
    turn, strays = iter(zip(asked, values)), []
    def candidate(*args):  # a value counts for the arguments that it was made of, and no others
        wanted, value = next(turn, (None, None))
        if wanted != args:
            strays.append(args)
            raise AssertionError("another call than the reference was asked")
        return value
    random.seed(0)
    check(candidate)
    return not strays and next(turn, None) is None
"""


def tests_of(check, name, reference, setup=""):
    """`check`, the text of a function check(candidate) made of asserts -> (way, fields of an
    Example).

    name       the function to be written; reference: a right program; setup: text that runs behind
               the program
    Raises ValueError where the text is no such function, or the reference does not pass it.
    """
    try:
        functions = [node for node in ast.parse(check).body if isinstance(node, ast.FunctionDef)]
        function = next(node for node in functions if node.name == "check")
        candidate = function.args.args[0].arg
    except (SyntaxError, StopIteration, IndexError, ValueError):
        raise ValueError("the tests are not a function check(candidate)") from None
    body = [node for node in function.body if not isinstance(node, ast.Expr)]
    body = [node for node in body
            if not (isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant))]
    pairs = [sides(node, candidate) for node in body]
    if not body or None in pairs:
        fields = replay(check, name, f"{reference}\n{setup}")
        if setup:
            fields["after"] = f"\n{setup}\n"
            # arguments of a class that setup makes come back from the sandbox as other things
            if tested([(Example("", reference, "code", **fields), reference)]) != [True]:
                raise ValueError("the reference solution does not pass its tests here")
        return "replay", fields
    expected = [right for _, right in pairs]
    if not setup and all(is_call(left, candidate, literal) for left, _ in pairs):
        inputs = [tuple(ast.literal_eval(arg) for arg in left.args) for left, _ in pairs]
        return "calls", {"calls": tuple(zip(inputs, expected)), "name": name, "check": "=="}
    left = ", ".join(f"lambda: {ast.unparse(left)}" for left, _ in pairs)
    cases = f"\n{setup}\n{candidate} = {name}\ndef t2mini_case(i):\n    return [{left}][i]()\n"
    calls = tuple(((i,), value) for i, value in enumerate(expected))
    return "cases", {"calls": calls, "name": "t2mini_case", "after": cases, "check": "=="}


def sides(node, candidate):
    """`assert left == literal` -> (left, value); `assert f(x)` -> (bool(f(x)), True); None for
    anything else."""
    if not isinstance(node, ast.Assert):
        return None
    test = node.test
    if isinstance(test, ast.Compare) and isinstance(test.ops[0], (ast.Eq, ast.Is)):
        # `(f(1) == 3) == True` would take what is expected inside
        right = test.comparators[0]
        if len(test.ops) > 1 or not calls_it(test.left, candidate) or not literal(right):
            return None
        if isinstance(test.ops[0], ast.Is) and ast.literal_eval(right) is not None:
            return None                                     # 1 == True, but 1 is not True
        return test.left, ast.literal_eval(right)
    true = not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not))
    call = test if true else test.operand
    return (ast.Call(ast.Name("bool"), [call], []), true) if is_call(call, candidate) else None


def calls_it(node, name):
    """f(...) itself, or f(...) inside built-in functions of one argument, such as set(f(...)) or
    int(f(...))."""
    while isinstance(node, ast.Call) and hasattr(builtins, getattr(node.func, "id", "")):
        if len(node.args) != 1 or node.keywords:
            break
        node = node.args[0]
    return is_call(node, name)


def is_call(node, name, argument=lambda node: True):
    return (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
            and not node.keywords and all(map(argument, node.args)))


def literal(node):
    try:
        ast.literal_eval(node)
        return True
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False


def replay(check, name, reference):
    """Note the calls that `check` makes of the reference. -> fields of an Example."""
    program = f"{reference}\n{textwrap.dedent(check)}\n"
    outcome = sandbox.call_function(program + RECORD.format(name=name), "t2mini_record", [()])
    if not outcome.values or not outcome.values[0]:
        why = outcome.error or "no calls"
        raise ValueError(f"the reference solution does not pass its tests here ({why})")
    return {"calls": tuple((tuple(args), value) for args, value in outcome.values[0]), "name": name,
            "check": program + VERDICT}


# -------------------------------------------------------------------------------- do programs pass?
def tested(programs, counts=None):
    """[(example, program text), ...] -> which of them pass their tests. counts: see
    tasks.rewards."""
    if not programs:
        return []
    outcomes = sandbox.call_many([job(example, code) for example, code in programs])
    # values that a published program judges: it runs afterwards, and elsewhere than the program
    # that made them
    judged = [n for n, (example, _) in enumerate(programs)
              if example.check not in ("", "==") and outcomes[n].values is not None]
    verdicts = {}
    if judged:
        asked = [verdict_on(programs[n][0], outcomes[n].values) for n in judged]
        verdicts = dict(zip(judged, sandbox.call_many(asked)))
    if counts is not None:
        counts["timeouts"] += sum(o.timed_out for o in [*outcomes, *verdicts.values()])
    return [passes(example, outcomes[n], verdicts.get(n))
            for n, (example, _) in enumerate(programs)]


def job(example, code):
    """What the sandbox runs for an answer's program: (text, function, arguments of each call)."""
    if example.before:
        code = "\n".join([*FUTURE.findall(code), example.before, FUTURE.sub("", code)])
    return f"{code}\n{example.after}", example.name, [args for args, _ in example.calls]


def verdict_on(example, values):
    """What the sandbox runs to judge the values that came back."""
    asked = tuple(args for args, _ in example.calls)
    return example.check, "verdict", [(values, asked)]


def passes(example, outcome, verdict=None):
    """All hidden tests hold. The values are compared here: the sandboxed program never sees what is
    expected."""
    if outcome.values is None or len(outcome.values) != len(example.calls):
        return False
    if example.check not in ("", "=="):
        return verdict is not None and verdict.values == (True,)
    same = same_value
    if example.check == "==":
        same = operator.eq
    return all(same(got, want) for got, (_, want) in zip(outcome.values, example.calls))

"""
The code problems: what the reference returns is what the tests expect, nothing trivial passes,
the pools stay apart.

Each docstring names the break it guards against.
"""
import os
import random
import re
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from t2mini.questions import code as pc, mutants
from t2mini.questions.example import same_value, split_of
from t2mini.questions.code import FRAMES, FRAMES_UNSEEN, SEEN, UNSEEN, make_code

SEEDS = range(300)
POOLS = {unseen: [make_code(random.Random(seed), unseen) for seed in SEEDS]
         for unseen in (False, True)}
rng = random.Random(3)
MANY = {unseen: [make_code(rng, unseen) for _ in range(n)]
        for unseen, n in ((False, 4000), (True, 2000))}
both = pytest.mark.parametrize("unseen", [False, True])


def load(source, name):
    scope = {}
    exec(source, scope)
    return scope[name]


def frames_of(prompt, frames):
    """The frames that a prompt can have come from: their fixed words are all in it, in order."""
    fixed = [re.sub(r"\\\{\w+\\\}", ".+?", re.escape(frame)) for frame in frames]
    return [f for f, pattern in zip(frames, fixed)
            if re.fullmatch(pattern + "( For example, .*)?", prompt)]


@both
def test_the_reference_passes_its_own_calls(unseen):
    """Break: a value computed by something other than the answer's text,
    or changed after it was computed.
    """
    for e in POOLS[unseen]:
        solve = load(e.answer, e.name)
        assert e.match == "code" and 6 <= len(e.calls) <= 12
        assert all(same_value(solve(*args), want) for args, want in e.calls), (e.answer, e.calls)


@both
def test_no_constant_and_no_echo_passes(unseen):
    """Break: drawing calls without looking at them,
    so that `return False` or `return x` earns the reward.
    """
    for e in POOLS[unseen]:
        assert not all(same_value(want, e.calls[0][1]) for _, want in e.calls), (e.prompt, e.calls)
        for j in range(len(e.calls[0][0])):
            assert not all(same_value(args[j], want) for args, want in e.calls), (e.prompt, e.calls)


@both
def test_calls_are_different_and_plain(unseen):
    """Break: testing the same call twice, or a value (a set, a dict's keys)
    that the grader cannot compare.
    """
    plain = (int, float, str, bool, list, tuple, dict, type(None))

    def is_plain(v):
        inside = (list(v.values()) + list(v) if isinstance(v, dict)
                  else v if isinstance(v, (list, tuple)) else ())
        return type(v) in plain and all(map(is_plain, inside))

    for e in POOLS[unseen]:
        assert len({repr(args) for args, _ in e.calls}) == len(e.calls), e.calls
        assert all(is_plain(args) and is_plain(want) for args, want in e.calls), e.calls


@pytest.mark.parametrize("kind, wrong", [
    ("greater", ("return {a} > {k}", "return {a} >= {k}")), ("at_least", (">=", ">")),
    ("between", ("<=", "<")), ("divisible", ("% {k} == 0", "% {k} == 1")),
    ("clamp", ("min({a}, {m})", "{a}")), ("longest", (", key=len", "")),
    ("add", ("+ {k}", "+ {k} + 1")), ("count_above", ("> {k}", ">= {k}")),
    ("sum_above", ("> {k}", ">= {k}")), ("keep_below", ("< {k}", "<= {k}")),
    ("at_index", ("[{k}]", "[{k} - 1]")), ("difference", ("n abs", "n ")),
    ("all_below", ("< {k}", "<= {k}")), ("both_above", ("> {k} and", ">= {k} and")),
    ("drop", ("[{k}:]", "[{k} - 1:]")), ("remove_value", ("!= {k}", "< {k}")),
    ("longer", ("return len({a}) > {k}", "return len({a}) >= {k}")),
    ("longer", ("return len({a}) > {k}", "return bool({a})")), ("longer", ("> {k}", "!= {k}")),
    ("at_least", ("{a} >= {k}", "{a} == {k}")), ("between", ("<= {m}", "< {m}")),
    ("take", ("[:{k}]", "[:{k} + 1]")), ("first_chars", ("[:{k}]", "[:{k} - 1]")),
    ("first_chars", ("[:{k}]", "")), ("starts", (".startswith(", ".__contains__(")),
    ("sign", ("< 0", "<= 0")), ("sign", ("> 0", ">= 0")),
    ("has_item", ("return {k} in {a}", "return max({a}, default=0) >= {k}")),
    ("quotient", ("//", "/")), ("sorted_keys", ("sorted(", "list(")),
    ("smallest", ("min(", "sum(")), ("max_list", ("max({a})", "{a}[-1]")),
    ("all_below", ("all(", "any(")), ("longest", ("max(", "min(")),
    ("drop", ("[{k}:]", "[{k} + 1:]")), ("odd", ("!= 0", "== 1 and {a} > 0")),
    ("even", ("== 0", "== 0 and {a} >= 0")),
    ("palindrome", ("return {a} == {a}[::-1]", "return {a}[:1] == {a}[-1:]")),
    ("both_above", ("and", "or")),
    ("is_sorted", ("return {a} == sorted({a})", "return {a}[:1] <= {a}[-1:]"))])
def test_near_misses_fail(kind, wrong):
    """Break (BREAKS row 3): inputs that avoid the constant,
    so that `>` passes for `>=` or an index may be off by one.
    """
    examples = [e for e in MANY[kind in UNSEEN] if e.kind == kind]
    passed = 0
    for e in examples:
        k, m, *_ = (e.key.split("/")[1:] + ["", ""])[:2]
        a = re.search(r"\((\w+)", e.answer)[1]
        old, new = (part.format(a=a, k=k, m=m) for part in wrong)
        head, _, body = e.answer.partition("\n")
        assert old in body, (old, e.answer)
        solve = load(f"{head}\n{body.replace(old, new)}", e.name)
        passed += all(same_value(solve(*args), want) for args, want in e.calls)
    assert len(examples) > 20 and passed == 0, (kind, passed, len(examples))


@both
def test_wrong_programs_that_are_almost_right_fail(unseen):
    """Break (BREAKS row 3): hidden tests that a mutant of the reference passes,
    of any kind of problem.
    """
    alive = Counter()
    for e in MANY[unseen][:1500]:
        types, span, _, _, body = (UNSEEN if unseen else SEEN)[e.kind]
        rest = e.key.removeprefix(e.kind + "/")
        par = ()
        if span:
            par = next(p for p in product(*span.values()) if "/".join(map(str, p)) == rest)
        solution, wrong = pc._wrong(e.kind, unseen)
        assert mutants.passes(solution, e.calls, par) and len(wrong) > 20
        draw = random.Random(e.prompt)
        for f in wrong:
            # then it is right: abs(x) ** k for x ** k where k is even
            if mutants.passes(f, e.calls, par):
                tries = [pc._try(draw, types, dict(zip(span, par)), i) for i in range(60)]
                alive[e.kind] += not mutants.passes(
                    f, [(args, solution(*args, *par)) for args in tries], par)
    assert sum(alive.values()) <= 3, alive


def test_stronger_tests_leave_the_question_alone(monkeypatch):
    """Break: choosing further calls with the stream that the question's words come from,
    so that prompts and splits move.
    """
    made = [make_code(random.Random(seed)) for seed in range(300)]
    monkeypatch.setattr(pc, "_killers", lambda *a: [])
    for seed, e in enumerate(made):
        old = make_code(random.Random(seed))
        assert (old.prompt, old.key, old.answer, old.name) == (e.prompt, e.key, e.answer, e.name)
        assert old.calls == e.calls[:6] and (len(e.calls) == 6 or e.kind not in ("add", "times"))
    assert sum(len(e.calls) > 6 for e in made) > 5


def test_mutants_of_a_program():
    """Break: a change that is not tried, for want of which its mistake passes the hidden tests
    of some kind.
    """
    wrong = mutants.of("a", ["k", "c"],
                       body := "return [v for v in a if len(v) > k and v.startswith(c)][:2]")
    solution = mutants.solution("a", ["k", "c"], body)
    call = (["ab", "bbb", "abb", "abbb", "a", "ba", "abbbb"], 2, "a")
    assert solution(*call) == ["abb", "abbb"]
    found = [repr(f(*call)) for f in wrong if not isinstance(attempt(f, call), Exception)]
    for want in (["ab", "abb"], ["abb"], ["abb", "abbb", "abbbb"], ["ab", "bbb"], ["bbb", "abb"],
                 ["abbb", "abbbb"], [], call[0], 7, True, ["a"]):
        assert repr(want) in found, want
    assert len(set(found)) > 15


def attempt(f, call):
    try:
        return f(*call)
    except Exception as e:
        return e


def test_pools_share_no_kind_and_no_frame():
    """Break: an unseen kind or sentence that training shows,
    so that the unseen score measures memory.
    """
    kinds = {unseen: {e.kind for e in MANY[unseen]} for unseen in MANY}
    assert kinds[False] == set(SEEN) and kinds[True] == set(UNSEEN)
    assert len(SEEN) >= 44 and len(UNSEEN) >= 16 and not set(SEEN) & set(UNSEEN)
    assert len(FRAMES) >= 6 and len(FRAMES_UNSEEN) >= 4
    for unseen, (own, other) in {False: (FRAMES, FRAMES_UNSEEN),
                                 True: (FRAMES_UNSEEN, FRAMES)}.items():
        used = Counter()
        for e in POOLS[unseen]:
            used.update(frames_of(e.prompt, own))
            assert frames_of(e.prompt, own) and not frames_of(e.prompt, other), e.prompt
        assert set(used) == set(own)
    bodies = {unseen: {body for *_, body in table.values()}
              for unseen, table in ((False, SEEN), (True, UNSEEN))}
    assert not bodies[False] & bodies[True]


@pytest.mark.parametrize("unseen, least", [(False, 1100), (True, 400)])
def test_there_are_many_contents_and_every_split_has_some(unseen, least):
    """Break: parameters that do not reach the key, or a key that holds the wording:
    60 contents, or leaking ones.
    """
    keys = {e.key for e in MANY[unseen]}
    assert len(keys) >= least
    of = {name: {e.key for e in MANY[unseen] if split_of(e) == name}
          for name in ("train", "val", "test")}
    assert all(len(found) >= 0.05 * len(keys) for found in of.values()), {
        n: len(f) for n, f in of.items()}
    assert not (of["train"] & of["val"] or of["train"] & of["test"] or of["val"] & of["test"])
    body = {}
    # one key, one function: the arguments' names and (with parameters) its name may differ
    for e in MANY[unseen]:
        named = re.search(r"\((.*?)\)", e.answer)[1].split(", ")
        text = e.answer.split("\n", 1)[1]
        for j, arg in enumerate(named):
            text = re.sub(rf"(?<!['\w]){arg}(?!['\w])", f"arg{j}", text)
        assert body.setdefault(e.key, text) == text, e.key
    assert Counter(e.kind for e in MANY[unseen]).most_common()[-1][1] > 40


@both
def test_the_seed_decides(unseen):
    """Break: the global random module, or iterating over a set, so that runs cannot be repeated."""
    for seed in SEEDS[:100]:
        random.seed(seed * 7 + unseen)
        assert make_code(random.Random(seed), unseen) == POOLS[unseen][seed]
    made = "[make_code(random.Random(i), i % 2 > 0).calls for i in range(60)]"
    code = f"import random\nfrom t2mini.questions.code import make_code\nprint({made})"
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parents[1],
                           env={**os.environ, "PYTHONHASHSEED": order}).stdout for order in "12"]
    assert said[0] == said[1] and len(said[0]) > 1000


@both
def test_the_prompt_asks_for_the_name_and_does_not_tell(unseen):
    """Break: a prompt without the name, with the reference in it, with a gap left,
    or with a hidden test in it.
    """
    for e in POOLS[unseen]:
        body = e.answer.split("\n", 1)[1].strip()
        assert re.search(rf"\b{e.name}\b", e.prompt) and e.name.isidentifier(), e.prompt
        assert not re.search(r"(?<!\w)" + re.escape(body.removeprefix("return ")),
                             e.prompt), e.prompt
        assert not re.search(r"\{[a-z]", e.prompt.split(" For example,")[0]), e.prompt
        assert e.prompt.count("For example") <= 1 and "\n" not in e.prompt
        for args, _ in e.calls:
            assert f"{e.name}({', '.join(map(repr, args))})" not in e.prompt, e.prompt
        named = re.search(r"\((.*?)\)", e.answer)[1].split(", ")
        assert (e.name not in named
                and all(re.search(rf"\b{arg}\b", e.prompt) for arg in named)), e.prompt
        assert not {e.name, *named} & set(dir(__builtins__) if not isinstance(__builtins__, dict)
                                          else __builtins__)


@both
def test_solutions_are_small(unseen):
    """Break: kinds that a 135M model cannot write, which would never be rewarded."""
    for kind, (_, _, names, texts, body) in (UNSEEN if unseen else SEEN).items():
        assert body.count("\n") < 4 and len(body) < 90, kind
        assert len(names) >= 2 and all(texts), kind
    assert all(len(e.prompt) < 420 for e in MANY[unseen])


def test_a_quarter_of_the_names_says_nothing():
    """Break: names that always give the answer away, so that the description need not be read."""
    share = sum(e.name in pc.GENERIC for e in MANY[False]) / len(MANY[False])
    assert 0.2 < share < 0.3


@both
def test_the_page_says_how_many_test_functions_training_asks_for(unseen):
    """Break: a share of test problems whose function train problems ask for under another name,
    of which the file's head says nothing, or something else (45 %, 60 % of the unseen ones).
    It is that of the kinds without parameters.
    """
    table = UNSEEN if unseen else SEEN
    asked = [not table[e.kind][1] for e in {e.prompt: e for e in MANY[unseen]}.values()
             if split_of(e) == "test"]
    said = re.findall(r"(\d+) of the (\d+) (?:unseen ones|kinds)", pc.__doc__)[unseen]
    assert said == (str(sum(not span for _, span, *_ in table.values())), str(len(table)))
    share = int(re.findall(r"(\d+) % of the (?:test problems|unseen ones)", pc.__doc__)[unseen])
    assert len(asked) > 150 and abs(sum(asked) / len(asked) - share / 100) < 0.08

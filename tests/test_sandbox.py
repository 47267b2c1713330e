"""
The sandbox: right programs get their values back; nothing else gets anything, gets out,
or stays behind.

Each docstring names the break it guards against. The three layers (audit hook, resource limits,
system call filter) are tried one at a time with the others off, because together each hides that
another is broken. Where the kernel lacks one, the test asserts what `features()` then has to say.
"""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import pytest
from conftest import soon, wait_for

from t2mini.questions import sandbox
from t2mini.questions.sandbox import Outcome, call_function, call_many, features

PROJECT_FILE = str(Path(sandbox.__file__).resolve().parents[1] / "model.py")
LAYERS = "hook", "limits", "filter"


def call(code, inputs=((),), **kw):
    return call_function(code, "f", inputs, **kw)


def body(*lines):
    """A program whose f() runs these lines."""
    return ("import os, sys, time, _socket, subprocess\ndef f(*args):\n"
            + "".join(f"    {x}\n" for x in lines))


@pytest.fixture
def only(monkeypatch):
    """Turn every layer off but the one named; modules that reach the system can be imported."""
    def switch(layer):
        features()                                          # as it is with all layers
        monkeypatch.setattr(sandbox, "MODULES", sandbox.MODULES | {"_socket", "subprocess"})
        if layer != "hook":
            assert "sys.addaudithook(guard)" in sandbox.CHILD
            monkeypatch.setattr(sandbox, "CHILD",
                                sandbox.CHILD.replace("sys.addaudithook(guard)", ""))
        if layer != "limits":
            # a bomb stays a small one
            monkeypatch.setattr(sandbox, "LIMITS", (("NPROC", 40), ("NOFILE", 40)))
        if layer != "filter":
            monkeypatch.setattr(sandbox, "_filter", lambda: b"")
    return switch


@pytest.fixture
def alive(monkeypatch):
    """A function that counts the processes of this test's sandboxes, wherever they moved."""
    mark = f"mark-{uuid.uuid4()}"
    monkeypatch.setattr(sandbox, "CHILD", f"# {mark}\n" + sandbox.CHILD)

    def count():
        if not Path("/proc/self/cmdline").exists():
            return subprocess.run(["ps", "-axww", "-o", "command"], capture_output=True,
                                  text=True).stdout.count(mark)
        found = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += mark.encode() in path.read_bytes()
            except OSError:                                 # ended meanwhile
                pass
        return found
    return count


def assert_refused(outcome, layer, enforced):
    """The layer stopped it, or (no such filter in this kernel) the documented weaker promise holds.
    """
    if layer == "hook":
        assert outcome.values is None and "is not allowed in the sandbox" in outcome.error, outcome
    elif layer == "limits" or sandbox_has_filter():
        assert outcome.values is None and outcome.error not in ("timeout", "crashed"), outcome
        assert "Error: " in outcome.error and "sandbox" not in outcome.error, outcome
    else:
        assert not features()["files"] and enforced in features()


def sandbox_has_filter():
    return (sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64")
            and features()["files"])


# ------------------------------------------------------------------------------------------- values
def test_right_function_returns_its_values():
    """Break: losing, reordering or changing values on the way back."""
    code = ("import math\nfrom typing import List\n"
            "def f(x: List[int], k=1):\n    print('noise')\n    return [math.prod(x) * k]")
    assert call(code, [([1, 2, 3],), ([2, 2], 5)]) == Outcome(([6], [20]), "")
    every = [0, -3, 2.5, 1e-300, True, None, "é\n'\"\\", "\ud800", b"\0x", [], (), (1,), {},
             {1: {"a": (2,)}}, {1, 2}, set(), 2 - 1j]
    values = call("def f(x): return x", [(v,) for v in every]).values
    assert list(values) == every and [type(v) for v in values] == [type(v) for v in every]


def test_whitelisted_modules_work_after_the_lock():
    """Break: a module that opens files or imports another one only when it is first used."""
    code = ("import datetime, random, statistics, decimal, json, re, time, copy\n"
            "def f():\n    time.sleep(0.01)\n    random.shuffle(l := [1, 2])\n"
            "    decimal.Decimal('1.1').sqrt()\n    re.compile('a+')\n"
            "    day = datetime.datetime.strptime('2020-02-03', '%Y-%m-%d').day\n"
            "    return day + statistics.median(l) + json.loads('2')")
    assert call(code).values == (6.5,)


def test_calls_do_not_share_their_arguments_or_results():
    """Break: passing one list object to all calls, or making the text only
    after the last call changed it.
    """
    assert call("def f(x):\n    x.append(1)\n    return x", [([],)] * 3).values == ([1],) * 3
    shared = []
    assert (call("def f(a, b):\n    a.append(1)\n    return a", [(shared, [])] * 2).values
            == ([1], [1]))
    assert shared == []
    assert call("l = []\ndef f():\n    l.append(1)\n    return l", [()] * 2).values == ([1], [1, 1])


@pytest.mark.parametrize("code, error", [
    ("def g(): return 1", "no function named f"),
    ("f = 3", "no function named f"),
    ("def f(:", "SyntaxError: invalid syntax"),
    ("def f(): return 1 / 0", "ZeroDivisionError: division by zero"),
    ("def f(): raise KeyError('a\\n\\tb\\x1b[31m')", "KeyError: "),
    ("def f(): raise ValueError('one\\n\\x1b[31mtwo')", "ValueError: one [31mtwo"),
    ("def f(): assert False", "AssertionError"),
    ("def f(): raise SystemExit", "SystemExit"),
    ("import sys\ndef f(): sys.exit(0)", "SystemExit: 0"),
    ("import sys\nsys.exit(0)", "SystemExit: 0"),
    ("import os\ndef f(): os._exit(0)", "crashed"),
    ("def f(): return input()", "EOFError"),
    ("import sys\ndef f(): return 1 + sys.stdin.readline()", "TypeError"),
    ("def f(): return f()", "RecursionError"),
    ("import numpy\ndef f(): return 1", "ModuleNotFoundError: No module named 'numpy'"),
    ("def f(): yield 1", "TypeError: the function returned a generator"),
    ("async def f(): pass", "TypeError: the function returned a coroutine"),
    ("def f(): return [[object()]]", "TypeError: the function returned a object"),
    ("def f():\n    l = []\n    l.append(l)\n    return l",
     "TypeError: the function returned a list"),
    ("def f(): return float('inf')", "the result is unreadable"),
    ("def f(): return [float('nan')]", "the result is unreadable"),
    ("def f(): return 'x' * 1_000_000", "the result is too large"),
    ("def f(): return 10 ** 4000", ""),
    ("def f(): return 1\0", ""),
    ("def f(): return '''", "SyntaxError"),
    ("def f(): return '\ud800'", "UnicodeEncodeError"),
    ("", "no function named f"),
    ("(" * 19_000, ""),
    ("x" * 50_000, "the program is too long"),
    ("if __name__ == '__main__':\n    1 / 0\ndef g(): pass", "no function named f"),
])
def test_errors_are_one_line(code, error):
    """Break: an exception in the parent, a value where there is none,
    or an error that spoils a log.
    """
    outcome = call(code)
    assert outcome.error.startswith(error) and len(outcome.error) <= 200
    assert outcome.error.isprintable() and outcome.error.strip() == outcome.error
    assert (outcome.values is None) == bool(outcome.error)
    assert (error or outcome.error or outcome.values == (10**4000,))


# ----------------------------------------------------------------------------------------- cheating
@pytest.mark.parametrize("code, want", [
    ("class f(int):\n    def __repr__(self): return '42'\n"
     "    def __new__(c): return int.__new__(c, 1)", 1),
    ("class L(list):\n    __repr__ = lambda s: '[42]'\n    __iter__ = lambda s: iter([42])\n"
     "def f(): return L()", []),
    ("class D(dict):\n    items = lambda s: [(4, 2)]\ndef f(): return D(a=1)", {"a": 1}),
    ("class S(str):\n    __repr__ = __str__ = lambda s: '42'\ndef f(): return {S('\u00e4'): 1}",
     {"\u00e4": 1}),
    ("class F(float):\n    __repr__ = lambda s: '42'\ndef f(): return F(0.5)", 0.5),
    ("class T(tuple):\n    __class__ = list\n    __len__ = lambda s: 9\ndef f(): return [T((1,))]",
     [(1,)]),
    ("import builtins\nclass A(int): pass\nbuiltins.isinstance = lambda *a: True\n"
     "def f(): return A(1)", 1)])
def test_lying_subclasses_are_taken_at_their_built_in_value(code, want):
    """Break: asking a subclass for its text or its items, which the program wrote,
    instead of the built-in type.
    """
    (got,) = call(code).values
    assert got == want and type(got) is type(want)


@pytest.mark.parametrize("code", [
    "class A:\n    def __eq__(self, o): return True\n    __repr__ = lambda s: '42'\n"
    "def f(): return A()",
    "class M(type):\n    __eq__ = lambda s, o: True\n    __hash__ = type.__hash__\n"
    "class A(metaclass=M):\n    __repr__ = lambda s: '42'\ndef f(): return A()",
    "class M(type):\n    __mro__ = (int, object)\n    mro = lambda s: type.mro(s)\n"
    "class A(metaclass=M):\n    __repr__ = lambda s: '42'\ndef f(): return A()",
    "class A:\n    __class__ = int\n    __repr__ = lambda s: '42'\ndef f(): return [A()]",
    "from fractions import Fraction\ndef f(): return Fraction(1, 3)",
    "from decimal import Decimal\ndef f(): return Decimal('0.1')",
    "def f(): return {1: 2}.values()"])
def test_what_equals_no_literal_has_no_value(code):
    """Break: isinstance or == instead of the real bases, which trusts what the program wrote;
    or a rounded fraction.
    """
    assert call(code) == Outcome(None, call(code).error)
    assert "the function returned a " in call(code).error


def test_values_that_python_calls_equal_come_back():
    """Break (CASES row 4): a namedtuple, an enum, a view of keys or a whole fraction
    that is refused although `==` holds.
    """
    code = ("from collections import *\nfrom enum import IntEnum\nfrom typing import NamedTuple\n"
            "from fractions import Fraction\nfrom decimal import Decimal\n"
            "Pair = namedtuple('Pair', 'a b')\n"
            "class Point(NamedTuple):\n    x: int\n    y: int = 2\n"
            "class E(IntEnum):\n    ONE = 1\nd = {1: 'a'}\ndef f(i):\n"
            "    return [Pair(1, 2), [Point(1)], {Pair(0, 0): Point(3)}, Counter('aab'), "
            "OrderedDict(d),\n"
            "            defaultdict(list, {1: [2]}), E.ONE, Fraction(1, 2), Fraction(8, 4), "
            "Decimal('0.25'), Decimal(7),\n"
            "            frozenset([1, 2]), d.keys(), d.items(), bytearray(b'ab'), "
            "UserDict(d).data][i]\n")
    want = [(1, 2), [(1, 2)], {(0, 0): (3, 2)}, {"a": 2, "b": 1}, {1: "a"}, {1: [2]}, 1, 0.5, 2,
            0.25, 7, {1, 2}, {1}, {(1, "a")}, b"ab", {1: "a"}]
    assert call(code, [(i,) for i in range(len(want))]).values == tuple(want)


RIGHT = {   # what a right program may do -> its text; each returns True
    "collections.abc": "from collections.abc import Iterable\n"
                       "def f(): return isinstance([], Iterable)",
    "collections.abc by its long name": "import collections.abc as abc\n"
                                        "def f(): return isinstance({}, abc.Mapping)",
    "statistics.mode": "import statistics\ndef f(): return statistics.mode([1, 1, 2]) == 1",
    "statistics": "import statistics as s\n"
                  "def f(): return s.multimode('aab') == ['a'] "
                  "and s.quantiles([1, 2, 3]) == [1, 2, 3] and s.NormalDist().cdf(0) == .5 "
                  "and s.correlation([1, 2, 3], [2, 4, 6]) > 0",
    "annotations": "from __future__ import annotations\nfrom typing import List\n"
                   "def f(x: List[Nowhere] = []) -> bool: return True",
    "annotated dataclass": "from __future__ import annotations\nfrom dataclasses import *\n"
                           "from typing import *\n@dataclass\n"
                           "class A:\n  x: List[int]\n  y: ClassVar[int] = 3\n"
                           "def f(): return asdict(A([1])) == {'x': [1]}",
    "type hints": "import typing\nclass A:\n  x: 'B'\nclass B: pass\n"
                  "def f(): return typing.get_type_hints(A)['x'] is B",
    "letters by name": "def f(): return '\\N{DIGIT ONE}' == '1'",
    "strptime": "from datetime import datetime\n"
                "def f(): return datetime.strptime('2020-02-03', '%Y-%m-%d')"
                ".strftime('%d') == '03'",
    "time.strptime": "import time\ndef f(): return time.strptime('2020', '%Y').tm_year == 2020",
    "hashes": "import hashlib\ndef f(): return all(len(hashlib.new(n, b'x').digest()) > 9 "
              "for n in ('md5', 'sha1', 'sha256', 'sha512', 'sha3_256', 'blake2b'))",
    "singledispatch": "from functools import *\n@singledispatch\ndef g(x): return 1\n"
                      "@g.register\ndef _(x: int): return 2\n"
                      "def f(): return (g(1), g('a')) == (2, 1)",
    "cached property": "from functools import *\nclass A:\n  @cached_property\n"
                       "  def p(self): return 3\ndef f(): return A().p == 3",
    "codecs": "import codecs\ndef f(): return codecs.encode('abc', 'rot13') == 'nop' "
              "and 'a'.encode('utf-16') and b'a'.decode('cp1252') == 'a' "
              "and b'\\\\x41'.decode('unicode_escape') == 'A'",
    "queues": "from queue import PriorityQueue\ndef f():\n  q = PriorityQueue()\n  q.put(3)\n"
              "  q.put(1)\n  return q.get() == 1",
    "warnings": "import warnings, re\ndef f():\n  warnings.warn('x')\n"
                "  return re.findall('[[a]', 'a[') == ['a', '[']",
    "a warning when it is compiled": "def f(): return (1 is 1) or '\\d'",
    "other modules": "import difflib, pprint, textwrap, string, struct, copy, contextlib, types, "
                     "calendar\n"
                     "def f(): return difflib.get_close_matches('a', ['ab']) == ['ab'] "
                     "and pprint.pformat({1: 2}) == '{1: 2}' "
                     "and string.Template('$a').substitute(a=1) == '1' "
                     "and calendar.month(2020, 1) > ''",
    "containers": "from collections import *\nclass A(UserDict): pass\n"
                  "def f(): return A({1: 2}).copy()[1] == 2 == ChainMap({1: 2})[1]",
    "large whole numbers": "import math\ndef f(): return len(str(math.factorial(999))) == 2565 "
                           "and int('9' * 3000) > 0"}


@pytest.mark.parametrize("name", RIGHT)
def test_right_programs_run_after_the_lock(name):
    """Break (CASES row 4): an allowed module, or what it imports when it is first used,
    that is not there before the lock.
    """
    assert call(RIGHT[name]) == Outcome((True,))


def test_forged_answers_are_only_data():
    """Break: eval in the parent, an exception from a malformed literal, or infinity,
    which is close to every number.
    """
    n = 32_000
    for text in ["", "+", "V(1,)", "+V", "+E", "+X", "+V1", "+V[1]", "+V(1,2)", "+V(1e999,)",
                 "+V({'a': [-1e999]},)", "+V({[]: 1},)", "+V(__import__('os').getcwd(),)",
                 "+V(" + "[" * n, "+V" + "-" * n + "1", "+V(\0,)", "+V" + "1+" * (n - 9) + "1",
                 "+V('\\d{',", "+V(1e999j,)", "+V" + "1" * 70_000, "+V(0x" + "f" * 9000 + ",)",
                 "+V(1e308+1.7e308j,)", "+V(1" + "0" * 310 + "+1j,)"]:
        outcome = sandbox._judge(text.encode(), 1)
        assert outcome.values is None and outcome.error, text[:40]
    forge = body("os.write(3, b'V(1,') or os.write(4, b'V(1,')", "os._exit(0)")
    assert call(forge).values is None


def test_what_is_expected_and_secrets_are_not_there(monkeypatch):
    """Break: handing the parent's environment, arguments or open files to the program."""
    monkeypatch.setenv("T2_SECRET", "hunter2")
    code = ("import os, sys\ndef f(): return [sorted(os.environ), sys.argv, "
            "os.getcwd() if 0 else '']")
    (names, argv, _), = call(code).values
    assert argv == ["-c"] and set(names) <= {"PATH", "PYTHONHASHSEED", "LC_CTYPE",
                                             "__CF_USER_TEXT_ENCODING"}


def test_the_order_of_a_set_is_the_same_in_every_call():
    """Fails if a program that depends on it is right in one run and wrong in the next, or finds
    modules in the working directory."""
    drawn = "import random\ndef f(): return random.randint(0, 10 ** 9)"
    assert len({str(call(drawn).values) for _ in range(3)}) == 1
    code = ("import sys\ndef f(): return [list({'lantern', 'harbour', 'whistle', 'anchor', 'cliff'"
            "}), '' in sys.path]")
    assert len({str(call(code).values) for _ in range(4)}) == 1
    assert call(code).values[0][1] is False


# ----------------------------------------------------------------------------- time, memory, output
@pytest.mark.parametrize("code",
                         ["def f():\n    while True: pass", "import time\ndef f(): time.sleep(60)",
                          "while True: pass", "def f(): return 9 ** 9 ** 9",
                          "def f():\n    while True:\n        try:\n            while True: pass\n"
                          "        except BaseException: pass"])
def test_endless_programs_are_stopped(code, alive):
    """Break: a wait without a limit, or a child that is left running."""
    outcome = call(code, seconds=0.2)
    assert outcome.values is None and (outcome.timed_out or outcome.error == "MemoryError")
    assert alive() == 0


def test_starting_does_not_count(monkeypatch):
    """Break: counting the interpreter's start,
    so that a busy machine turns right answers into timeouts.
    """
    features()
    monkeypatch.setattr(sandbox, "CHILD", "import time; time.sleep(1.5)\n" + sandbox.CHILD)
    assert call("def f(): return 1", seconds=1.0).values == (1,)


@pytest.mark.parametrize(
    "code", ["def f(): return len(bytearray(10**9))", "def f(): return len([0] * 10**9)",
             "def f():\n    l = []\n    while True: l.append(' ' * 10**6 + str(len(l)))"])
def test_memory_bomb(code):
    """Break: no limit on memory. macOS has none: there the clock stops the slow ones,
    and features() says so.
    """
    outcome = call(code, seconds=1.0)
    assert outcome == Outcome(None, "MemoryError") or sys.platform != "linux"


@pytest.mark.parametrize("code", [
    "import sys\ndef f():\n    while True: print('x' * 10**6); sys.stderr.write('x' * 10**6)",
    "import os\ndef f():\n    while True: os.write(3, b'x' * 10**6)",
    "import os\ndef f():\n    while True:\n        for i in range(9):\n"
    "            try: os.write(i, b'x' * 10**6)\n"
    "            except OSError: pass"])
def test_output_flood(code):
    """Break: collecting output without a limit, or a pipe that nobody empties."""
    assert call(code, seconds=0.5).error in ("timeout", "the result is too large")


# ---------------------------------------------------------------------------------------- the doors
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("path", ["/etc/passwd", PROJECT_FILE, "/proc/self/environ", "/dev/null"])
def test_reading_files_fails(only, layer, path):
    """Break: a layer that lets the program open files (hidden tests, weights, secrets)."""
    only(layer)
    # PROJECT_FILE may be unreadable for nobody anyway; the others are not,
    # which is why they are here
    assert_refused(call(body(f"with open({path!r}) as file: return len(file.read())")),
                   layer, "files")
    assert_refused(call(body(f"return os.open({path!r}, os.O_RDONLY) > 0")), layer, "files")


@pytest.mark.parametrize("layer", LAYERS)
def test_writing_files_fails(only, layer):
    """Break: a layer that lets the program write, even where everybody may.
    (Limits do not see mkdir and the like.)
    """
    only(layer)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        victim = Path(folder, "victim")
        victim.write_text("here")
        tries = [f"open({folder + '/new'!r}, 'w').write('x')"]
        if layer != "limits":
            tries += [f"os.mkdir({folder + '/new'!r})", f"os.remove({str(victim)!r})",
                      f"os.truncate({str(victim)!r}, 0)",
                      f"os.rename({str(victim)!r}, {folder + '/new'!r})",
                      f"os.symlink('/', {folder + '/new'!r})"]
            if layer == "filter":
                tries += [f"os.stat({str(victim)!r})", "os.chdir('/')"]
        for one in tries:
            assert_refused(call(body(one, "return 1")), layer, "files")
            if layer != "filter" or sandbox_has_filter():
                assert os.listdir(folder) == ["victim"] and victim.read_text() == "here", one


@pytest.mark.parametrize("layer", LAYERS)
def test_network_fails(only, layer):
    """Break: a layer that lets the program connect. Something does listen,
    so an open door would be seen.
    """
    only(layer)
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = body("s = _socket.socket()", f"s.connect({server.getsockname()!r})", "return 1")
        assert_refused(call(code), layer, "network")


@pytest.mark.parametrize("layer", LAYERS)
def test_no_processes(only, layer, alive):
    """Break: a layer that lets the program start processes:
    they outlive it, as a bomb or in their own session.
    """
    only(layer)
    for lines in [["os.fork()", "time.sleep(5)"],                               # a child
                  ["while True: os.fork()"],                                    # a bomb
                  ["if not os.fork(): os.setsid(); os.fork(); time.sleep(5)",   # a grandchild
                   "return 1"],
                  ["subprocess.run(['/bin/sleep', '5'])", "return 1"],
                  ["os.posix_spawn('/bin/sleep', ['sleep', '5'], {})", "return 1"]]:
        assert_refused(call(body(*lines), seconds=0.5), layer, "processes")
        assert alive() == 0


@pytest.mark.parametrize("layer", ["hook", "filter"])
def test_no_signals_and_no_exec(only, layer):
    """Break: letting the program stop its parent or another process of the same user,
    or become another program.
    """
    only(layer)
    with subprocess.Popen(["sleep", "20"], user=65534 if os.getuid() == 0 else None) as other:
        outcomes = [call(body(f"os.kill({other.pid}, 9)", "return 1")),
                    call(body("os.execv('/bin/true', ['true'])"))]
        lived = other.poll() is None
        other.kill()
    for outcome in outcomes:
        assert_refused(outcome, layer, "processes")
    assert lived or not features()["files"]


def test_the_hook_cannot_be_found():
    """Break: leaving the guard function where the program can get it and change its defaults."""
    code = ("import sys, __main__\ndef f():\n    names = set(vars(__main__))\n    try: open('/x')\n"
            "    except PermissionError as e: t = e.__traceback__\n"
            "    while t.tb_next: t = t.tb_next\n    names |= set(t.tb_frame.f_globals)\n"
            "    return 'guard' in names")
    assert call(code).values == (False,)
    assert ("gc.get_objects is not allowed"
            in call("import gc\ndef f(): return len(gc.get_objects())").error)


# ---------------------------------------------------------------------------------------- this side
def test_nothing_is_left_behind(monkeypatch, tmp_path, alive):
    """Break (BREAKS row 18): a temporary folder, which a killed process would leave,
    a zombie or an open pipe per call.
    """
    features()
    children, popen = [], subprocess.Popen
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def watched(*args, **kw):
        children.append(popen(*args, **kw))
        assert os.listdir(tmp_path) == [] and kw["cwd"] == "/"      # not even while it runs
        return children[-1]
    monkeypatch.setattr(subprocess, "Popen", watched)
    for code in ["def f(): return 1", "import time\ndef f(): time.sleep(9)",
                 "import os\nos._exit(3)", "def f(): return 'x' * 10**6"]:
        call(code, seconds=0.2)
    assert len(children) == 4 and os.listdir(tmp_path) == [] and alive() == 0
    for child in children:
        assert child.returncode is not None and child.stdin.closed and child.stdout.closed


def test_a_killed_parent_takes_its_child_along(alive):
    """Break: a training run that is killed leaves its sleeping programs behind for ever."""
    script = (f"from t2mini.questions import sandbox\nsandbox.CHILD = {sandbox.CHILD!r}\n"
              "sandbox.features = dict\n"
              "sandbox.call_function('import time\\ndef f(): time.sleep(20)', 'f', [()], 20)")
    # without torch: quick
    loader = ("import sys, types\nm = types.ModuleType('t2mini')\n"
              f"m.__path__ = [{os.path.dirname(PROJECT_FILE)!r}]\nsys.modules['t2mini'] = m\n")
    parent = subprocess.Popen([sys.executable, "-"], stdin=subprocess.PIPE, text=True)
    parent.stdin.write(loader + script)
    parent.stdin.close()
    try:
        wait_for(alive)
        assert alive() == 1
    finally:
        parent.kill()
        parent.wait()
    if sys.platform == "linux":             # elsewhere the limit on CPU time is all there is
        wait_for(lambda: not alive())
        assert alive() == 0


def test_call_many_keeps_the_order_and_runs_equal_jobs_once(monkeypatch):
    """Break: results in order of completion, or paying for the same answer eight times."""
    features()
    ran, run = [], sandbox._run
    monkeypatch.setattr(sandbox, "_run", lambda *a, **k: ran.append(a) or run(*a, **k))
    jobs = [(f"import time\ndef f(x):\n    time.sleep({(5 - i % 6) / 50})\n    return x + {i % 6}",
             "f", [(i // 6,)]) for i in range(12)]
    assert call_many(jobs * 2, workers=3) == [Outcome((i // 6 + i % 6,)) for i in range(12)] * 2
    assert len(ran) == 12
    similar = call_many([("def f(x): return x", "f", [(x,)]) for x in (1, True, 1.0)])
    assert [repr(o.values[0]) for o in similar] == ["1", "True", "1.0"]
    assert len(ran) == 15 and call_many([]) == []
    bad = call_many([("while 1: pass", "f", [()]), ("", "f", [()])], seconds=0.2)
    assert [o.error for o in bad] == ["timeout", "no function named f"]


def test_ctrl_c_ends_programs_that_sleep(alive):
    """Break: after Ctrl-C the judging waits until the last sleeping program ends, or leaves it."""
    features()
    jobs = [(f"import time\ndef f(): time.sleep(40 + {i})", "f", [()]) for i in range(6)]

    def interrupt():
        wait_for(lambda: alive() >= 2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with soon(30), pytest.raises(KeyboardInterrupt):
        call_many(jobs, workers=2, seconds=1000.0)
    thread.join()
    assert alive() == 0 and not sandbox._children


def test_ctrl_c_while_jobs_are_handed_out_ends_those_that_run(alive, monkeypatch):
    """Break: the first of many jobs run while the last are handed out; Ctrl-C waits for them."""
    features()

    class Interrupted(sandbox.ThreadPoolExecutor):
        def submit(self, job, code, *rest, **options):
            if code.endswith("# last"):
                wait_for(lambda: alive() >= 1)
                raise KeyboardInterrupt
            return super().submit(job, code, *rest, **options)

    monkeypatch.setattr(sandbox, "ThreadPoolExecutor", Interrupted)
    sleeps = "import time\ndef f(): time.sleep(40)"
    with soon(30), pytest.raises(KeyboardInterrupt):
        call_many([(sleeps, "f", [()]), (sleeps + " # last", "f", [()])], workers=2, seconds=1000.0)
    assert alive() == 0 and not sandbox._children


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine not in ("x86_64", "aarch64"),
                    reason="no filter there")
def test_here_everything_is_locked():
    """Break: a lock that no longer works, which the tests above would take for a kernel
    that lacks it.
    """
    if "\nSeccomp:" in Path("/proc/self/status").read_text():
        assert all(features().values()), features()


def test_features_tell_the_truth(monkeypatch):
    """Break: claiming a lock that is not there."""
    names = {"memory", "network", "files", "processes"}
    assert set(features()) == names and all(type(v) is bool for v in features().values())
    for limit, name in (("NPROC", "processes"), ("NOFILE", "network")):
        monkeypatch.setattr(sandbox, "_features", {})
        monkeypatch.setattr(sandbox, "_filter", lambda: b"")
        monkeypatch.setattr(sandbox, "LIMITS", ((limit, 40),))
        assert not features()[name]
    monkeypatch.setattr(sandbox, "_features", {})
    monkeypatch.setattr(sandbox, "CHILD", "raise SystemExit(1)")
    assert features() == dict.fromkeys(names, False)


@pytest.mark.parametrize("call_", ["readlink 89", "mkdir 83", "mknod 133, mknodat 259", "unlink 87",
                                   "rename 82", "symlink 88", "chmod 90", "truncate 76", "chdir 80",
                                   "stat 4, newfstatat 262", "kill 62", "execve 59"])
@pytest.mark.skipif(os.uname().machine != "x86_64" or sys.platform != "linux",
                    reason="these numbers are of x86-64")
def test_each_hole_in_the_filter_is_seen(monkeypatch, call_):
    """Break (BREAKS row 11): a report that says all is locked while mkfifo, stat,
    readlink or a signal to the parent work.
    """
    if not sandbox_has_filter():
        pytest.skip("no filter")
    holes = ", ".join(f"{one} -" for one in call_.split(", "))
    monkeypatch.setattr(sandbox, "CALLS", f"{sandbox.CALLS}, {holes}")
    monkeypatch.setattr(sandbox, "_features", {})
    assert not all(features().values())


def test_nothing_runs_unlocked_without_a_second_agreement(monkeypatch, capfd):
    """Break (BREAKS row 11): Linux on another processor has no filter,
    and programs of the model run there all the same.
    """
    jobs = [(f"{i}", "f", [()]) for i in range(4)]
    monkeypatch.setattr(sandbox, "_features", {})
    monkeypatch.setattr(sandbox, "_warned", set())
    monkeypatch.setattr(os, "uname", lambda real=os.uname(): type(
        "Uname", (), {"machine": "riscv64", "sysname": real.sysname}))
    monkeypatch.delenv(sandbox.UNLOCKED, raising=False)
    ran, run = [], sandbox._run
    monkeypatch.setattr(sandbox, "_run", lambda *a, **k: ran.append(k) or run(*a, **k))
    for value in ("", "no", "1"):
        monkeypatch.setenv(sandbox.UNLOCKED, value)
        with pytest.raises(ValueError, match="cannot lock .*files.* set T2MINI_UNLOCKED=yes"):
            call_many(jobs, workers=2)
    # the probe, once, and no program
    assert ran == [{"probe": True}] and not features()["files"]
    monkeypatch.setenv(sandbox.UNLOCKED, "yes")
    assert {o.error for o in call_many(jobs, workers=4)} == {"no function named f"}
    err = capfd.readouterr().err
    assert err.count("\n") == 1 and "cannot lock" in err and "files" in err


def test_a_null_device_that_is_a_file_is_refused(monkeypatch, tmp_path):
    """Break: where /dev/null was replaced by a file,
    a right program that prints ends in "File too large", silently.
    """
    (tmp_path / "null").touch()
    monkeypatch.setattr(os, "devnull", str(tmp_path / "null"))
    with pytest.raises(ValueError, match="null is an ordinary file"):
        call("def f():\n    print('noise')\n    return 1")


# ----------------------------------------------------------------------------------- a busy machine
BUSY = ("import time\ndef f(x):\n    end = time.process_time() + 0.05\n"
        "    while time.process_time() < end: pass\n    return x\n")


def test_rewards_do_not_depend_on_the_load(monkeypatch):
    """Break (CASES row 7): a limit in seconds of the clock,
    so that many right programs at once are all time-outs.
    """
    monkeypatch.setattr(sandbox, "WALL", 100)       # the clock is for those that wait
    jobs = [(BUSY, "f", [(i,)]) for i in range(24)]
    assert call_many(jobs, workers=24, seconds=0.2) == [Outcome((i,)) for i in range(24)]


def test_as_many_workers_as_usable_cores(monkeypatch):
    """Break (CASES row 7): as many programs at once as the machine has cores,
    of which a container may use two.
    """
    from t2mini.machine import cores
    asked, pool = [], sandbox.ThreadPoolExecutor
    monkeypatch.setattr(sandbox, "ThreadPoolExecutor", lambda n: asked.append(n) or pool(n))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cores, "limits", lambda *given: [2.0])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    call_many([("def f(): return 1", "f", [()])])
    assert asked == [2]


@pytest.mark.parametrize("files, want", [
    ({}, 64), ({"proc/self/cgroup": "0::/\n"}, 64),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
      "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 2),
    ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    ({"proc/self/cgroup": "4:memory:/m\n3:cpu,cpuacct:/x\n",
      "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "300000\n",
      "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"}, 3),
    ({"proc/self/cgroup": "3:cpuacct,cpu:/docker/1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ({"proc/self/cgroup": "3:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 64),
    ({"proc/self/cgroup": "9:cpuset:/\n0::/u\n",
      "sys/fs/cgroup/unified/u/cpu.max": "700000 100000\n"}, 7),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, 64)])
def test_usable_cores(tmp_path, monkeypatch, files, want):
    """Break (CASES row 7): a quota that is not seen: version 1 or 2, of a group around this one,
    or with a path of the host.
    """
    from t2mini.machine import cores
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    assert cores.usable(tmp_path) == want
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
    assert cores.usable(tmp_path) == 1


@pytest.mark.parametrize("code, late", [
    ("def f():\n    while True: pass", True), ("import time\ndef f(): time.sleep(99)", True),
    ("import _signal\ndef f():\n    _signal.signal(_signal.SIGPROF, lambda *a: None)\n"
     "    while True: pass", False),
    ("def f(): return 1 / 0", False), ("import os\nos._exit(1)", False),
    ("def f(): return 1", False)])
def test_time_outs_can_be_counted(code, late):
    """Break (CASES row 7): a time-out that looks like a wrong answer,
    so that no log can show how many there are.
    """
    outcome = call(code, seconds=0.1 if "while" in code or "sleep" in code else 2.0)
    assert outcome.timed_out == late or not late and "_signal" in code
    assert outcome.values in (None, (1,))


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("how", ["signal(_signal.SIGPROF, _signal.SIG_IGN)",
                                 "pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGPROF])",
                                 "setitimer(_signal.ITIMER_PROF, 0)"])
@pytest.mark.parametrize("seconds", [1.2, 99])
def test_who_ignores_the_timer_gets_a_timeout(monkeypatch, locked, how, seconds):
    """Break: a program that takes the timer's signal away earns beyond the limit, or the end that
    the limit on processor time sets looks like a crash.
    """
    features()
    if not locked:
        monkeypatch.setattr(sandbox, "_filter", lambda: b"")
    code = (f"import _signal, time\ndef f():\n    try:\n        _signal.{how}\n"
            "    except OSError: pass\n"
            f"    end = time.process_time() + {seconds}\n"
            "    while time.process_time() < end: pass\n    return 1")
    assert call(code, seconds=0.2) == Outcome(None, "timeout")


def test_the_start_of_a_slow_machine_is_no_timeout(monkeypatch):
    """Break: processor time that the interpreter's start takes counts as the program's."""
    features()
    busy = "import time\nwhile time.process_time() < 1.5: pass\n"
    monkeypatch.setattr(sandbox, "CHILD", busy + sandbox.CHILD)
    assert call("def f(): return 1", seconds=0.2).values == (1,)


def test_the_child_imports_little():
    """Break: a heavy import in the child, of which there is one per answer:
    40 ms are meant to be enough for it.
    """
    (names,) = call("import sys\ndef f(): return sorted(sys.modules)").values
    assert "marshal" in names and len(names) < 60
    assert not {"re", "enum", "typing", "signal", "subprocess", "decimal", "t2mini",
                "collections"} & set(names)

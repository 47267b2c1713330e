"""
Attacks on the sandbox. Each must earn nothing, learn nothing, change nothing,
end in time and leave no process.

The programs get more than they would in earnest: modules that reach the system can be imported,
a folder that everybody may write to, a server that listens, a process of their own user.
`test_the_attacks_are_real` takes the locks off and sees the same programs do what they try to do;
what then happens is what a broken lock would let happen here.
Those that deceive rather than harm meet a judge that trusts them (`test_the_deceptions_are_real`).
"""
import os
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import pytest
from conftest import wait_for

from t2mini import tasks
from t2mini.questions import asserts, sandbox
from t2mini.questions.example import Example

# what the hidden test expects: nobody can guess it
SECRET = f"expected-{uuid.uuid4()}"
TOOLS = set(
    "_socket subprocess threading signal gc inspect ctypes resource atexit importlib".split())
SECONDS = 0.2                                               # the time that a program has here

# name -> body of f(x); FOLDER, PORT, PID and PROJECT stand for the folder, the server,
# the process and the tasks' source
ATTACKS = {
    # time
    "endless loop": "while True: pass",
    "endless loop that catches everything":
        "while True:\n  try:\n   while True: pass\n  except BaseException: pass",
    "sleep": "time.sleep(60)",
    "endless generator": "return list(iter(int, 1))[:1] if 0 else sum(1 for _ in iter(int, 1))",
    "pattern that never ends": "import re\nreturn re.match('(a+)+$', 'a' * 60 + 'b')",
    "signals ignored":
        "import signal\nfor s in (1, 2, 14, 15, 24):\n  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except BaseException: pass\nwhile True: pass",
    "more time asked for":
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (999, 999))\nwhile True: pass",
    # memory, output
    "memory bomb": "return len(bytearray(10**11))",
    "memory bomb, slowly": "l = []\nwhile True: l.append(' ' * 10**6 + str(len(l)))",
    "huge integer": "return 9 ** 9 ** 9",
    "huge integer as text": "return str(10 ** 10 ** 6)",
    "deep recursion": "sys.setrecursionlimit(10**9)\ndef g(n): return g(n + 1)\nreturn g(0)",
    "deep recursion in C":
        "sys.setrecursionlimit(10**9)\nv = []\nfor _ in range(10**6): v = [v]\nreturn repr(v)",
    "output flood": "while True: print('x' * 10**6); sys.stderr.write('x' * 10**6)",
    "flood of the way back":
        "while True:\n  for i in range(9):\n    try: os.write(i, b'x' * 10**6)\n"
        "    except OSError: pass",
    "flood by the result": "return 'x' * 10**7",
    # processes
    "fork bomb": "while True: os.fork()",
    "child that outlives": "if not os.fork():\n  time.sleep(3)\n  os._exit(0)\nreturn 1",
    "grandchild in its own session":
        "if not os.fork():\n  os.setsid()\n  if os.fork(): os._exit(0)\n  time.sleep(3)\n"
        "  os._exit(0)\ntime.sleep(0.1)\nreturn 1",
    "other program":
        "import subprocess\n"
        "return subprocess.run(['/bin/echo', 'hi'], capture_output=True).stdout.decode()",
    "other program by spawn": "return os.posix_spawn('/bin/sleep', ['sleep', '1'], {})",
    "shell": "import subprocess\nreturn os.popen('echo hi').read()",
    "becoming another program": "os.execv('/bin/sleep', ['sleep', '9'])",
    "child with a terminal":
        "child, terminal = os.forkpty()\nif not child: os._exit(0)\nreturn child",
    "thread that outlives":
        "import threading\nthreading.Thread(target=time.sleep, args=(60,)).start()\nreturn 1",
    "killing another process": "os.kill(PID, 9)\nreturn 1",
    "killing the parent": "os.kill(os.getppid(), 9)\nreturn 1",
    # files
    "reading /etc/passwd": "return open('/etc/passwd').read(40)",
    "reading the hidden tests' source": "return open(PROJECT).read(40)",
    "listing a folder": "return os.listdir('/')",
    "reading the parent's memory": "return len(open(f'/proc/{os.getppid()}/maps').read())",
    "reading the parent's command": "return open(f'/proc/{os.getppid()}/cmdline').read()",
    "writing outside": "open(FOLDER + '/new', 'w').write('x')\nreturn 1",
    "overwriting": "open(FOLDER + '/victim', 'w').write('x')\nreturn 1",
    "deleting": "os.remove(FOLDER + '/victim')\nreturn 1",
    "renaming": "os.rename(FOLDER + '/victim', FOLDER + '/new')\nreturn 1",
    "truncating": "os.truncate(FOLDER + '/victim', 0)\nreturn 1",
    "symlink": "os.symlink('/etc/passwd', FOLDER + '/new')\nreturn 1",
    "symlink, then read": "os.symlink('/etc/passwd', 'here')\nreturn open('here').read(40)",
    "making a folder": "os.mkdir(FOLDER + '/new')\nreturn 1",
    "changed folder": "os.chdir(FOLDER)\nopen('new', 'w').write('x')\nreturn 1",
    "its own folder filled": "open('x', 'w').write('x' * 10**8)\nreturn 1",
    "import of the program":
        "sys.path[:0] = [os.path.dirname(os.path.dirname(PROJECT))]\n"
        "import t2mini.grade\nreturn 1",
    "import from a file of its own":
        "open('own.py', 'w').write('x = 1')\nsys.path[:0] = ['.']\nimport own\nreturn own.x",
    # network
    "connecting": "import _socket\ns = _socket.socket()\ns.connect(('127.0.0.1', PORT))\nreturn 1",
    "sending a datagram":
        "import _socket\ns = _socket.socket(2, 2)\nreturn s.sendto(b'x', ('127.0.0.1', PORT))",
    "pair of sockets": "import _socket\nreturn len(_socket.socketpair())",
    # looking around
    "secrets in the environment":
        "return [v for k, v in os.environ.items() if k == 'T2_SECRET'][0]",
    "reading standard input": "return sys.stdin.read() or input()",
    "reading every open file":
        "found = []\nfor i in range(20):\n  try: found.append(os.read(i, 10**6).decode())\n"
        "  except (OSError, UnicodeError): pass\nreturn found[0] or 1 / 0",
    "frames searched for the tests":
        "found, frame = [], sys._getframe()\nwhile frame:\n"
        "  found += [repr(v)[:9000] "
        "for v in [*frame.f_locals.values(), *frame.f_globals.values()]]\n"
        "  frame = frame.f_back\nreturn [t for t in found if 'expected-' + '' in t][0]",
    "objects searched for the tests":
        "import gc\n"
        "held = [v for o in gc.get_objects() if type(o) is dict for v in o.values()]\n"
        "return [v for v in held "
        "if type(v) is str and v.startswith('expected-') and len(v) == 45][0]",
    "memory read by ctypes": "import ctypes\nreturn ctypes.string_at(id(f), 64).hex()",
    "kernel called by ctypes": "import ctypes\nreturn ctypes.CDLL(None).getppid()",
    # deceiving the judge
    "os._exit(0)": "os._exit(0)",
    "sys.exit(0)": "sys.exit(0)",
    "SystemExit with a guess": "raise SystemExit('passed')",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "answer written by hand":
        "for i in range(9):\n  try: os.write(i, b\"V('passed',)\")\n"
        "  except OSError: pass\nos._exit(0)",
    "number that cannot be printed":
        "for i in range(9):\n  try: os.write(i, b'V(0x' + b'f' * 9000 + b',)')\n"
        "  except OSError: pass\nos._exit(0)",
    "equal to everything":
        "class A:\n  __eq__ = lambda s, o: True\n  __hash__ = lambda s: 0\nreturn A()",
    "text that is equal to everything":
        "class A(str):\n  __eq__ = lambda s, o: True\n  __hash__ = str.__hash__\nreturn A('x')",
    "class that is equal to every class":
        "class M(type):\n  __eq__ = lambda s, o: True\n  __hash__ = type.__hash__\n"
        "class A(metaclass=M):\n  __repr__ = lambda s: \"'passed'\"\nreturn A()",
    "lying about its type":
        "class A:\n  __class__ = str\n  __repr__ = lambda s: 'passed'\nreturn A()",
    "patched builtins":
        "import builtins\nbuiltins.len = builtins.isinstance = builtins.all = lambda *a: True\n"
        "builtins.type = lambda *a: str\nreturn 'passed'",
    "patched messenger":
        "import __main__\n__main__.text = lambda *a: '\"passed\"'\nos.write = lambda *a: 7\n"
        "return 'passed'",
    "work left for the exit": "import atexit\natexit.register(time.sleep, 60)\nreturn 'passed'",
    "hook taken off":
        "sys.addaudithook(lambda *a: None)\nsys.settrace(None)\n"
        "return open('/etc/passwd').read(40)",
    "every number at once": "return float('inf')",
}
# Those that do visible harm as soon as nothing locks, and little enough to be let loose in a test.
HARMFUL = " ".join("""grandchild in its own session, other program, other program by spawn, shell,
    child with a terminal, killing another process, reading /etc/passwd, listing a folder,
    reading the parent's command, writing outside, overwriting, deleting, renaming, truncating, """
                   """symlink, making a folder,
    changed folder, connecting, sending a datagram, pair of sockets, memory read by ctypes, """
                   """kernel called by ctypes,
    hook taken off, thread that outlives""".split()).split(", ")
# Those that win against a judge that runs the test in the same interpreter, told of it,
# and believes how that ends.
DECEITFUL = " ".join("""secrets in the environment, reading standard input, """
                     """reading every open file, frames searched for the tests,
    objects searched for the tests, os._exit(0), sys.exit(0), equal to everything,
    text that is equal to everything""".split()).split(", ")
NAIVE = """
import sys
scope = {"expected": sys.argv[2], "__name__": "answer"}
exec(sys.argv[1], scope)
got = scope["f"](3)
sys.exit(not (got == scope["expected"] or type(got) is str and scope["expected"] in got))
"""


class World:
    """What an attack may reach for; `harm()` says what it did to it."""

    def __init__(self, folder, monkeypatch):
        self.folder = Path(folder)
        os.chmod(folder, 0o777)
        self.victim = self.folder / "victim"
        self.victim.write_text("here")
        os.chmod(self.victim, 0o666)
        self.other = subprocess.Popen(["sleep", "60"], user=65534 if os.getuid() == 0 else None)
        self.server, self.calls = socket.create_server(("127.0.0.1", 0)), 0
        self.port = self.server.getsockname()[1]
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", self.port))
        self.server.setblocking(False)
        self.datagrams.setblocking(False)
        self.mark = f"mark-{uuid.uuid4()}"
        monkeypatch.setenv("T2_SECRET", SECRET)
        monkeypatch.setattr(sandbox, "MODULES", sandbox.MODULES | TOOLS)
        monkeypatch.setattr(sandbox, "CHILD", f"# {self.mark}\n" + sandbox.CHILD)

    def program(self, name):
        lines = ATTACKS[name]
        for word, value in (("FOLDER", str(self.folder)), ("PORT", self.port),
                            ("PID", self.other.pid), ("PROJECT", str(Path(tasks.__file__)))):
            lines = lines.replace(word, repr(value))
        code = ("import os, sys, time\ndef f(x):\n"
                + "".join(f"  {line}\n" for line in lines.split("\n")))
        compile(code, name, "exec")
        return code

    def run(self, name):
        """-> (reward, Outcome)"""
        code = self.program(name)
        example = Example("q", "a", "code", calls=(((3,), SECRET),), name="f")
        outcome = sandbox.call_function(code, "f",
                                        [args for args, _ in example.calls], seconds=SECONDS)
        return float(asserts.passes(example, outcome)), outcome

    def processes(self):
        if not Path("/proc/self/cmdline").exists():
            return subprocess.run(["ps", "-axww", "-o", "command"], capture_output=True,
                                  text=True).stdout.count(self.mark)
        found = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found += self.mark.encode() in path.read_bytes()
            except OSError:                                 # ended meanwhile
                pass
        return found

    def harm(self):
        found = []
        if sorted(os.listdir(self.folder)) != ["victim"] or self.victim.read_text() != "here":
            found.append("files")
        if self.other.poll() is not None:
            found.append("process killed")
        for name, take in (("connection", self.server.accept),
                           ("datagram", lambda: self.datagrams.recv(9))):
            try:
                take()
                found.append(name)
            except BlockingIOError:
                pass
        return found + ["processes left"] * (self.processes() > 0)

    def close(self):
        self.other.kill()
        self.other.wait()
        self.server.close()
        self.datagrams.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    sandbox.features()
    # pytest's own folders are closed to other users
    with tempfile.TemporaryDirectory() as folder:
        made = World(folder, monkeypatch)
        yield made
        made.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(world, name, monkeypatch, tmp_path):
    """Fails if the program earns, learns what is expected, does harm, is waited for,
    or leaves a process or a file.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if os.getuid() == 0:
        os.chmod(tmp_path, 0o755)
    threads = threading.active_count()
    reward, outcome = world.run(name)
    assert outcome.timed_out or name != "sleep"             # nobody waited for the end of its 60 s
    assert reward == 0 and SECRET not in repr(outcome)
    assert world.harm() == [] and os.listdir(tmp_path) == [] and threading.active_count() == threads
    if name in HARMFUL:                                     # refused, not merely useless
        assert outcome.values is None or not all(sandbox.features().values()), outcome


def test_there_are_enough_attacks():
    """Fails if the suite shrinks below what was promised,
    or an attack of the second list is not in the first.
    """
    assert len(ATTACKS) >= 60 and len(HARMFUL) >= 20 and {*HARMFUL, *DECEITFUL} <= set(ATTACKS)


def unlock(monkeypatch):
    """Take the three locks off."""
    assert "sys.addaudithook(guard)" in sandbox.CHILD
    monkeypatch.setattr(sandbox, "CHILD", sandbox.CHILD.replace("sys.addaudithook(guard)", ""))
    monkeypatch.setattr(sandbox, "LIMITS", (("NPROC", 60), ("NOFILE", 60)))
    monkeypatch.setattr(sandbox, "_filter", lambda: b"")


@pytest.mark.skipif(sys.platform != "linux", reason="takes Linux's locks off")
@pytest.mark.parametrize("name", HARMFUL)
def test_the_attacks_are_real(world, name, monkeypatch):
    """Fails if an attack is refused for a reason of its own (a typing error, a missing module):
    without the three locks it must get what it wants.
    """
    unlock(monkeypatch)
    reward, outcome = world.run(name)
    # even then: what is expected never went there
    assert reward == 0
    assert outcome.values is not None or world.harm(), outcome


@pytest.mark.skipif(sys.platform != "linux", reason="takes Linux's locks off")
def test_a_child_dies_with_its_group(world, monkeypatch):
    """Fails if, where a program may fork, its child outlives the call.
    Killing the program alone shows that it would.
    """
    unlock(monkeypatch)
    monkeypatch.setattr(sandbox, "WALL", 1)                 # its child sleeps for 3 seconds
    _, outcome = world.run("child that outlives")
    assert outcome.error == "timeout"
    wait_for(lambda: world.harm() == [], seconds=2)         # it would go on for 3
    monkeypatch.setattr(os, "killpg", os.kill)
    world.run("child that outlives")
    assert world.harm() == ["processes left"]


@pytest.mark.parametrize("name", DECEITFUL)
def test_the_deceptions_are_real(world, name):
    """Fails if one of them is refused for a reason of its own:
    a judge that trusts the program must be taken in by it.
    """
    judge = [sys.executable, "-I", "-S", "-c", NAIVE, world.program(name), SECRET]
    assert subprocess.run(judge, input=SECRET, text=True, timeout=60,
                          env={"T2_SECRET": SECRET}).returncode == 0

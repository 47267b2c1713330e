"""
Run model-written Python functions, to decide whether they earn a reward (paper 4.1: MBPP and
HumanEval run tests).

How:      a fresh interpreter gets the program and the arguments, locks itself in, calls the
          function, and sends the values back as text. They are compared in this process: what is
          expected never enters the sandbox, so there is nothing to read, patch or guess there;
          ending early or a patched `==` earns nothing.
Layers:   1. Resource limits: memory, CPU time, no new process, and no new file descriptor, hence no
          file and no socket.
          2. Linux on x86-64 and ARM64: a system call filter (seccomp). Whatever is not on a short
          list (memory, clocks,
             reading and writing what is already open) is refused. It needs no privilege and cannot
             be taken off.
          3. An audit hook in the interpreter: clear errors, and on macOS all that guards against
          renaming or deleting. `features()` tries out what layers 1 and 2 refuse. Where they do not
          lock files, network and processes (macOS, Linux on other processors) nothing runs before a
          second agreement: T2MINI_UNLOCKED=yes in the environment.
Time:     what counts is the processor time of the program, so a busy machine does not turn right
          answers into time-outs; a clock of WALL times as long stops those that wait.
Left out: namespaces, chroot and Landlock (they guard less here, cost more, and are often forbidden
in containers);
          Windows; any library but the standard modules listed in MODULES.
Honest:   this contains the mistakes and mischief of a small model, in depth, but it is not a
          virtual machine. A bug in the kernel or the interpreter gets past it, and without the
          filter so may whoever gets past the audit hook: it could then make and rename files and
          stop other processes of the same user, this one included.
"""
import ast
import contextlib
import marshal
import math
import os
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

from ..machine import cores

MAX_CODE, MAX_RESULT = 20_000, 64_000       # characters of the program, bytes of the answer
STARTUP = 30.0  # seconds for the interpreter to start, on however busy a machine
WALL = 10  # seconds that may pass for each second of processor time
SLACK = 0.5  # seconds of processor time that the end of a process may take
# "yes" in the environment: run also where not everything can be locked
UNLOCKED = "T2MINI_UNLOCKED"

# Harmless modules that a small function may want. Nothing can be opened later, so those named are
# imported first.
MODULES = frozenset("""__future__ abc array ast base64 binascii bisect calendar cmath collections
    contextlib copy csv dataclasses datetime decimal difflib doctest enum fractions functools
    hashlib heapq html inspect itertools json keyword math numbers operator pprint queue random re
    secrets statistics string struct textwrap time timeit traceback types typing unicodedata
    warnings weakref zlib""".split())

# What a module that is there, or a program with that word in it, imports only when it is used.
# (Some of it exists only in some versions of Python.)
LATE = {name: late.split() for name, late in (line.split(": ") for line in """\
collections: collections.abc heapq copy
datetime: _strptime
strptime: _strptime
singledispatch: weakref typing
coroutine: functools
enum: warnings
re: warnings unicodedata
hashlib: _md5 _sha1 _sha2 _sha256 _sha512 _sha3 _blake2
N: unicodedata
int: _pylong
str: _pylong
rot13: encodings.rot_13
rot_13: encodings.rot_13
hex: encodings.hex_codec
idna: encodings.idna
punycode: encodings.punycode
cp1252: encodings.cp1252
cp437: encodings.cp437
utf_7: encodings.utf_7
unicode_escape: encodings.unicode_escape
raw_unicode_escape: encodings.raw_unicode_escape
sig: encodings.utf_8_sig""".splitlines())}

# System calls that stay possible: Linux's number on x86-64, on ARM64 (-: not there). None takes a
# path, opens anything, starts a process or reaches another one; none takes the timer's signal away.
CALLS = """read 0 63, write 1 64, close 3 57, lseek 8 62, mmap 9 222, mprotect 10 226,
    munmap 11 215, brk 12 214, rt_sigreturn 15 139,
    select 23 -, sched_yield 24 124, mremap 25 216, madvise 28 233, nanosleep 35 101, getpid 39 172,
    exit 60 93, gettimeofday 96 169, getrusage 98 165, times 100 153, sigaltstack 131 132,
    gettid 186 178, futex 202 98, restart_syscall 219 128, clock_gettime 228 113,
    clock_getres 229 114,
    clock_nanosleep 230 115, exit_group 231 94, pselect6 270 72, getrandom 318 278"""

# What runs in the fresh interpreter before the program. Locking comes last, as each lock forbids
# what precedes it.
CHILD = r'''
import sys
sys.path[:] = filter(None, sys.path)                    # the working directory holds no modules
import _signal, marshal, os, resource

def fails(attempt, *args, by=(OSError, ValueError, MemoryError, ImportError)):
    try:
        attempt(*args)
    except by:
        return True
    except OSError:                                     # refused, but for another reason
        pass
    return False

request = marshal.load(sys.stdin.buffer)
pipe = os.dup(1)  # the way back; the program's own prints go nowhere
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
for name in request["modules"]:
    __import__(name)
for name, late in request["late"] * 2:  # twice: what comes late may itself import late
    if name in request["words"] or name in sys.modules:
        for module in late:
            fails(__import__, module)
if sys.platform == "linux":
    import ctypes
    libc = ctypes.CDLL(None)
    rules = ctypes.create_string_buffer(request["filter"])  # and struct sock_fprog: how many, where
    program = (ctypes.c_uint64 * 2)(len(request["filter"]) // 8, ctypes.addressof(rules))
if os.getuid() == 0:                                    # root ignores limits: become nobody
    for change, who in ((os.setgroups, []), (os.setgid, 65534), (os.setuid, 65534)):
        fails(change, who)  # in a container without that right, the filter remains
used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
for name, value in request["limits"]:                   # macOS refuses the one on memory
    value += int(used) * (name == "CPU")  # this end is for those that ignore the timer's signal
    fails(resource.setrlimit, getattr(resource, "RLIMIT_" + name), (value, value))
_signal.signal(_signal.SIGPROF, _signal.SIG_DFL)
# seconds of processor time; then this signal ends the process
_signal.setitimer(_signal.ITIMER_PROF, request["seconds"])
if sys.platform == "linux":
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: killed when the one waiting for it ends
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS: setuid programs gain nothing
    if request["filter"]:
        libc.prctl(22, 2, ctypes.byref(program), 0, 0)  # PR_SET_SECCOMP

if request["probe"]:
    import _socket
    none = "/t2mini/there/is/no/such/file"
    paths = [[os.readlink, none], [os.mkdir, none], [os.mkfifo, none], [os.mknod, none],
             [os.unlink, none], [os.rename, none, none], [os.symlink, none, none],
             [os.link, none, none], [os.chmod, none, 0], [os.truncate, none, 0], [os.chdir, none],
             [os.utime, none]]
    # "no such file" would mean that the kernel went to look for it
    blind = all(fails(*attempt, by=PermissionError) for attempt in paths)
    blind = blind and fails(os.open, os.devnull, os.O_RDONLY) and fails(os.stat, "/")
    alone = fails(lambda: os.fork() or os._exit(0))
    alone = alone and fails(os.kill, os.getpid(), 0, by=PermissionError)
    alone = alone and fails(os.execv, none, [none], by=PermissionError)
    active = {"memory": fails(bytearray, 1 << 29), "network": fails(_socket.socket),
              "files": blind, "processes": alone}
    os.write(pipe, b"0+V" + ascii((active,)).encode())
    os._exit(0)

mro = type.__dict__["__mro__"].__get__  # a class of classes could lie about its bases
keys, items = type({}.keys()), type({}.items())
if "random" in sys.modules:
    sys.modules["random"].seed(0)                           # what is drawn is the same every time
exact = {"fractions": "Fraction", "decimal": "Decimal"}
exact = [getattr(sys.modules[m], name) for m, name in exact.items() if m in sys.modules]
known = [bool, int, float, complex, str, bytes, type(None), list, tuple, set, frozenset, dict,
         bytearray, keys, items]

def text(v, depth=0):
    """A literal that equals v. Of a subclass (a namedtuple, a Counter) its built-in part: its own
    methods could lie."""
    kind = next((base for c in mro(type(v)) for base in known + exact if base is c), None)
    if kind in exact:  # equal to a number, or to nothing that a literal can say
        above, below = v.as_integer_ratio()
        if below == 1:
            return ascii(above)
        if (above / below).as_integer_ratio() == (above, below):
            return ascii(above / below)
    elif kind in (list, tuple) and depth < 20:
        inside = "".join(text(x, depth + 1) + "," for x in kind.__iter__(v))
        return f"[{inside}]" if kind is list else f"({inside})"
    elif kind in (set, frozenset, keys, items) and depth < 20:
        inside = "".join(text(x, depth + 1) + "," for x in kind.__iter__(v))
        return f"{{{inside}}}" if inside else "set()"
    elif kind is dict and depth < 20:
        inside = (text(k, depth + 1) + ":" + text(x, depth + 1) for k, x in dict.items(v))
        return "{" + ",".join(inside) + "}"
    elif kind is bytearray:
        return ascii(bytes(memoryview(v)))
    elif kind is str:
        return ascii(str.__str__(v))
    elif kind in (int, float, complex, bytes, bool, type(None)):
        return kind.__repr__(v)
    raise TypeError("the function returned a " + type(v).__name__)

def answer():
    module = sys.modules["answer"] = type(sys)("answer")  # dataclasses and typing look for it there
    scope = vars(module)  # not __main__: the tests of a script are not run
    exec(compile(request["code"], "answer", "exec"), scope)
    function = scope.get(request["name"])
    if not callable(function):
        return "Eno function named " + request["name"]
    # fresh arguments for each call; literals are made at once, before a later call can change a
    # returned list
    values = (text(function(*marshal.loads(args))) + "," for args in request["inputs"])
    return "V(" + "".join(values) + ")"

def guard(event, args, error=PermissionError, families=frozenset(
        "open os socket subprocess ctypes shutil tempfile glob pathlib pty fcntl mmap signal "
        "resource syslog gc webbrowser sqlite3 _thread".split())):
    if event.partition(".")[0] in families:
        raise error(event + " is not allowed in the sandbox")

# from here on the program's own time runs; what the start took is not its own
os.write(pipe, b"%.3f+" % used)
sys.addaudithook(guard)
del guard  # its defaults can then no longer be found and changed
try:
    result = answer()
except BaseException as e:
    result = "E" + type(e).__name__ + ": " + str(e)[:200]
os.write(pipe, result.encode("ascii", "replace"))
os._exit(0)
'''

# What no program needs: no byte to a file, no core dump, no new process, and no new file
# descriptor.
LIMITS = ("FSIZE", 0), ("CORE", 0), ("NPROC", 0), ("NOFILE", 0)
_lock, _features, _warned = threading.Lock(), {}, set()
_alive, _children = threading.Lock(), set()     # the processes that run now


@dataclass(frozen=True)
class Outcome:
    """values: what the calls returned, in order, or None; error: "" or one line that says why there
    are none."""
    values: tuple | None
    error: str = ""

    @property
    def timed_out(self):
        """Was it stopped because it took too long? (A log counts these: many of them are a fault of
        the limits.)"""
        return self.error == "timeout"


def call_function(code: str, name: str, inputs: Sequence[tuple],
                  seconds=2.0, memory_mb=256) -> Outcome:
    """Run the program text `code`, then call its function `name` once for each tuple of arguments.

    seconds bounds the processor time of all calls together; WALL times as long may pass. Nothing
    that the program does raises here; inputs that are not plain data do, and a system that cannot
    lock it in (see `check_locks`).
    """
    check_locks()
    return _run(code, name, inputs, seconds, memory_mb)


def call_many(jobs: Sequence[tuple[str, str, Sequence[tuple]]],
              workers=None, seconds=2.0) -> list[Outcome]:
    """[(code, name, inputs), ...] -> their outcomes, in order. Equal jobs run once.

    Ctrl-C ends the programs that run, also those that sleep.
    """
    keys = [(code, name, repr(inputs)) for code, name, inputs in jobs]
    distinct = dict(zip(keys, jobs))
    with ThreadPoolExecutor(workers or cores.usable()) as pool:
        tasks = []
        try:                                    # from the start: the first program runs by then
            for job in distinct.values():
                tasks.append(pool.submit(call_function, *job, seconds=seconds))
            done = {key: task.result() for key, task in zip(distinct, tasks)}
        except BaseException:
            _stop(tasks)
            raise
    return [done[key] for key in keys]


def _stop(tasks):
    """Let no program begin, and kill those that run, until none is left."""
    for task in tasks:
        task.cancel()
    while wait(tasks, timeout=0.05).not_done:               # one may just have been started
        with _alive:
            for child in _children:
                _kill(child)


def features() -> dict:
    """What limits and kernel refuse here, tried out once: {"memory", "network", "files",
    "processes"} -> bool."""
    with _lock:
        if not _features:
            found = _run("", "", [()], STARTUP, 256, probe=True).values
            nothing = dict.fromkeys(("memory", "network", "files", "processes"), False)
            _features.update(found[0] if found else nothing)
        return dict(_features)


def check_locks():
    """Warn, once, of what is not locked here; ValueError where that is more than memory and nobody
    agreed to it."""
    if not stat.S_ISCHR(os.stat(os.devnull).st_mode):       # a slip of some tool run by root
        raise ValueError(f"{os.devnull} is an ordinary file here, so programs that print "
                         "would fail and earn nothing: restore it "
                         "(rm /dev/null; mknod -m 666 /dev/null c 1 3)")
    missing = [name for name, on in features().items() if not on]
    if not missing:
        return
    said = f"the sandbox cannot lock {', '.join(missing)} here"
    if missing != ["memory"] and os.environ.get(UNLOCKED) != "yes":
        raise ValueError(f"{said}: a program that the model writes could get past what is left "
                         "(Python's audit hook) and do what you may do. Use Linux on x86-64 or "
                         f"ARM64, or set {UNLOCKED}=yes to run it all the same")
    with _lock:
        if said not in _warned:
            _warned.add(said)
            print(f"t2mini: {said}; only Python's audit hook and time limits guard it",
                  file=sys.stderr)


def _filter():
    """The seccomp program (classic BPF) that allows CALLS and refuses the rest with EPERM; b"" if
    it does not apply."""
    known = {"x86_64": (1, 0xC000003E), "aarch64": (2, 0xC00000B7)}
    column, architecture = known.get(os.uname().machine, (0, 0))
    if not column or sys.platform != "linux" or sys.maxsize < 2**32:
        return b""
    numbers = [entry.split()[column] for entry in CALLS.split(",")]
    allowed = [int(number) for number in numbers if number != "-"]
    load, equal, give = 0x20, 0x15, 0x06  # operations: read a word of the call, compare, decide
    program = [(load, 0, 0, 4), (equal, 1, 0, architecture), (give, 0, 0, 0x80000000),
               (load, 0, 0, 0)]
    for i, number in enumerate(allowed):  # a match jumps over the remaining ones and the refusal
        program.append((equal, len(allowed) - i, 0, number))
    program += [(give, 0, 0, 0x00050001), (give, 0, 0, 0x7FFF0000)]
    return b"".join(struct.pack("HBBI", *line) for line in program)


def _run(code, name, inputs, seconds, memory_mb, probe=False):
    """One call in a fresh interpreter -> Outcome."""
    if len(code) > MAX_CODE:
        return Outcome(None, "the program is too long")
    words = set(re.findall(r"\w+", code))
    modules = sorted(words & MODULES) if "import" in words else []
    request = marshal.dumps({
        "code": code, "name": name, "inputs": [marshal.dumps(tuple(args)) for args in inputs],
        "limits": (("CPU", math.ceil(seconds) + 1), ("AS", memory_mb << 20), *LIMITS),
        "seconds": seconds, "modules": modules + ["_socket"] * probe,
        "words": sorted(words & LATE.keys()), "late": list(LATE.items()),
        "filter": _filter(), "probe": probe})
    # what locks is in the child, not in preexec_fn, which can deadlock under the threads of torch;
    # sets of texts and numbers have one order: who depends on it is always right or always wrong
    child = subprocess.Popen([sys.executable, "-S", "-c", CHILD], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
                             env={"PATH": os.defpath, "PYTHONHASHSEED": "0"},
                             start_new_session=True)
    with _alive:
        _children.add(child)
    try:
        data = _receive(child, request, WALL * seconds)
    finally:
        spent = _end(child)
    # the first bytes are the child's own, written before the program ran
    used, began, rest = (data or b"").partition(b"+")
    late = bool(began) and spent - float(used) > seconds + SLACK    # it ignored the timer's signal
    if late or child.returncode in (-signal.SIGPROF, -signal.SIGXCPU):
        return Outcome(None, "timeout")
    return _judge(None if data is None else began + rest, len(inputs))


def _end(child):
    """Kill a child and all of its group. -> the seconds of processor time that it took."""
    with _alive:
        _kill(child)
        _children.discard(child)
    child.stdout.close()
    try:
        _, status, usage = os.wait4(child.pid, 0)
    except ChildProcessError:                               # who started us ignores SIGCHLD
        child.wait()
        return 0.0
    child.returncode = os.waitstatus_to_exitcode(status)    # Popen does not look for it again
    return usage.ru_utime + usage.ru_stime


def _kill(child):
    # macOS: nobody may kill the dead
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _receive(child, request, seconds):
    """Send the request -> the answer's bytes, or None after the time is up. More than MAX_RESULT is
    not waited for."""
    # it died early: then there is nothing to read either
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(request)
    with contextlib.suppress(BrokenPipeError):
        child.stdin.close()
    poll, data, end = select.poll(), b"", time.monotonic() + STARTUP
    poll.register(child.stdout, select.POLLIN)
    while len(data) <= MAX_RESULT:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            return None
        part = os.read(child.stdout.fileno(), 65_536)
        if not part:
            break
        if not data:  # the "+" of a child that is ready: now the clock starts
            end = time.monotonic() + seconds
        data += part
    return data


def _judge(data, count):
    """Bytes from the child -> Outcome. Only literals are read, nothing is evaluated: the program
    may have forged it.

    (Its 0xfff... could be an integer of more digits than Python prints: repr(values) refuses it
    here, not somewhere later.)
    """
    if data is None:
        return Outcome(None, "timeout")
    if len(data) > MAX_RESULT:
        return Outcome(None, "the result is too large")
    text = data.decode("ascii", "replace")
    if text[:2] == "+V":
        try:
            values = ast.literal_eval(text[2:])
            if type(values) is tuple and len(values) == count and _finite(values) and repr(values):
                return Outcome(values)
        except (ArithmeticError, ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
        return Outcome(None, "the result is unreadable, infinite or not a number")
    error = "".join(c if c.isprintable() else " " for c in text[2:]) if text[:2] == "+E" else ""
    return Outcome(None, " ".join(error.split())[:200].rstrip(": ") or "crashed")


def _finite(v):
    """No inf or nan inside: to a comparison with a relative tolerance, infinity is close to every
    number."""
    if isinstance(v, (list, tuple, set, dict)):
        return all(map(_finite, v)) and (type(v) is not dict or all(map(_finite, v.values())))
    return not isinstance(v, (float, complex)) or abs(v) < math.inf

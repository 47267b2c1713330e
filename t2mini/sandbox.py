"""
Run model-written Python functions, to decide whether they earn a reward (paper 4.1: MBPP and HumanEval run tests).

How:      a fresh interpreter gets the program and the arguments, calls the function, and sends back the values as text.
          The values are compared in this process: what is expected never enters the sandbox, so there is nothing to
          read, patch or guess there, and ending early (os._exit) earns nothing.
Limits:   wall and CPU time, memory, output, no files, no network, no child processes; an empty environment.
Layers:   Linux kernel rules that no program can undo (Landlock, a network namespace, an unprivileged user, resource
          limits), and an audit hook inside the interpreter, which is all that macOS has besides resource limits.
Honest:   this contains mistakes and mischief of a small model. It is not a virtual machine: do not run programs of
          people who attack you.
"""
import ast
import functools
import marshal
import os
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

MAX_CODE, MAX_RESULT = 20_000, 64_000

# What runs in the fresh interpreter before the program. It locks itself in, then calls; order matters throughout.
CHILD = r'''
import marshal, os, sys
request = marshal.loads(sys.stdin.buffer.read())
result = os.dup(1)                                      # the way back; the program's own prints go nowhere
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
for name in request["modules"]:                         # nothing can be opened later, so import now
    try:
        __import__(name)
    except ImportError:
        pass
import ctypes, resource
active = {"memory": True, "network": False, "files": False, "processes": False}
libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":
    if os.getuid() == 0:                                # root ignores the process limit: become nobody
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    libc.prctl(38, 1, 0, 0, 0)                          # PR_SET_NO_NEW_PRIVS
    active["network"] = libc.unshare(0x10000000 | 0x40000000 | 0x08000000) == 0      # user, network, IPC namespaces
    abi = libc.syscall(444, None, 0, 1)                 # Landlock: an empty rule set forbids every file access
    if abi > 0:
        bits = (1 << (13 if abi == 1 else 14 if abi == 2 else 15 if abi < 5 else 16)) - 1
        rules = libc.syscall(444, ctypes.byref(ctypes.c_uint64(bits)), 8, 0)
        active["files"] = rules >= 0 and libc.syscall(446, rules, 0) == 0
limits = {"RLIMIT_CPU": request["cpu"], "RLIMIT_AS": request["memory"], "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0,
          "RLIMIT_NOFILE": 16, "RLIMIT_NPROC": 0}
for name, value in limits.items():
    try:
        resource.setrlimit(getattr(resource, name), (value, value))
        active["processes"] |= name == "RLIMIT_NPROC"
    except (ValueError, OSError, AttributeError):
        active["memory"] &= name != "RLIMIT_AS"         # macOS has no working RLIMIT_AS
def guard(event, args):
    if event.split(".")[0] in ("open", "socket", "subprocess", "ctypes", "shutil", "tempfile", "pty", "webbrowser") \
            or event in ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.kill", "os.remove",
                         "os.rename", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "os.symlink",
                         "os.listdir", "os.scandir", "os.truncate", "os.putenv", "signal.pthread_kill"):
        raise PermissionError(event + " is not allowed in the sandbox")
PLAIN = (int, float, str, bool, type(None), complex, bytes)
def plain(v, depth=0):                                  # exact types only: a subclass may lie in its __repr__
    if type(v) in PLAIN:
        return True
    if depth > 20:
        return False
    if type(v) is dict:
        return all(plain(k, depth + 1) and plain(x, depth + 1) for k, x in v.items())
    return type(v) in (list, tuple, set, frozenset) and all(plain(x, depth + 1) for x in v)
def call(write=os.write, bytes_of=repr, loads=marshal.loads, inputs=request["inputs"], exact=plain, kind=type):
    scope = {"__name__": "candidate"}
    exec(compile(request["code"], "answer", "exec"), scope)
    function = scope.get(request["name"])
    if not callable(function):
        return "E" + "no function named " + request["name"]
    values = []
    for one in inputs:                                  # each call gets fresh arguments
        value = function(*loads(one))
        if not exact(value):
            return "E" + "returned a " + kind(value).__name__
        values.append(value)
    return "V" + bytes_of(tuple(values))
sys.addaudithook(guard)
del sys, os, ctypes, libc, resource
try:
    text = call()
except BaseException as e:
    text = "E" + type(e).__name__ + ": " + str(e)[:200]
import posix
posix.write(result, (repr(active) + "\n" + text).encode("utf-8", "replace"))
posix._exit(0)
'''

# Harmless standard modules a small function may want; imported before the doors close, if the program names them.
MODULES = ("bisect", "collections", "copy", "datetime", "decimal", "fractions", "functools", "heapq", "itertools", "json",
           "math", "operator", "random", "re", "statistics", "string", "typing")


@dataclass(frozen=True)
class Outcome:
    """values: what the calls returned, in order, or None; error: "" or one line that says why there are none."""
    values: tuple
    error: str = ""


def call_function(code, name, inputs, seconds=2.0, memory_mb=256):
    """Run the program text `code`, then call its function `name` once for each tuple of arguments. -> Outcome.

    seconds bounds the wall time of all calls together. Never raises for anything that the program does.
    """
    return run(code, name, inputs, seconds, memory_mb)[0]


def call_many(jobs, workers=None, seconds=2.0):
    """[(code, name, inputs), ...] -> list of Outcome, in order. Equal jobs run once."""
    keys = [(code, name, repr(inputs)) for code, name, inputs in jobs]
    distinct = dict(zip(keys, jobs))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        done = dict(zip(distinct, pool.map(lambda job: call_function(*job, seconds=seconds), distinct.values())))
    return [done[k] for k in keys]


@functools.lru_cache(maxsize=1)
def features():
    """What is enforced by the kernel here: {"memory", "network", "files", "processes"} -> bool. Warns once if not all."""
    active = run("def f():\n    return 1", "f", [()], 10.0, 256)[1]
    missing = [k for k, on in active.items() if not on] if active else ["everything"]
    if missing:
        print(f"t2mini: the sandbox cannot lock {', '.join(missing)} through this kernel; only Python's audit hook guards it",
              file=sys.stderr)
    return active


def run(code, name, inputs, seconds, memory_mb):
    """-> (Outcome, dict of active kernel protections or None)."""
    if len(code) > MAX_CODE or "\0" in code:
        return Outcome(None, "the program is too long or holds a null byte"), None
    code = code.encode("utf-8", "replace").decode()         # lone surrogates
    request = marshal.dumps({"code": code, "name": name, "inputs": [marshal.dumps(tuple(i)) for i in inputs],
                             "modules": [m for m in MODULES if m in code], "cpu": max(1, round(seconds + 0.5)),
                             "memory": memory_mb << 20})
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL, env={"PATH": os.defpath}, cwd="/", start_new_session=True)
    try:
        child.stdin.write(request)
        child.stdin.close()
        data, end = b"", time.monotonic() + seconds
        while len(data) <= MAX_RESULT:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return Outcome(None, f"timeout after {seconds:g} s"), None
            part = os.read(child.stdout.fileno(), 65_536)
            if not part:
                break
            data += part
    except BrokenPipeError:
        data = b""
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.stdout.close()
        child.wait()
    return parse(data)


def parse(data):
    """Bytes from the child -> (Outcome, protections or None). Literals only: nothing of it is ever evaluated."""
    if len(data) > MAX_RESULT:
        return Outcome(None, "the result is too large"), None
    head, _, text = data.decode("utf-8", "replace").partition("\n")
    try:
        active = ast.literal_eval(head) if head else None
        if text[:1] == "V":
            return Outcome(ast.literal_eval(text[1:])), active
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return Outcome(None, "the result is unreadable"), None
    return Outcome(None, " ".join(text[1:].split())[:200] if text else "crashed"), active

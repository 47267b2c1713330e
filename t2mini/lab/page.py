"""
The page on which one turns the dials: a small HTTP server for this machine alone.

Kept out: other machines (127.0.0.1 only), other sites (Host and Origin are checked, and a request
          must be JSON), outside resources (Content-Security-Policy), bodies that are too large.
One model: requests run one after the other, in order of arrival; whoever waits is told so.
One thread: the model runs in the thread that loaded it. Every other thread that multiplied would
          bring helpers of its own, more than there are cores, and each product would wait for them.
"""
import base64
import hashlib
import json
import queue
import re
import sys
import threading
from collections import deque
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ..machine.text import printable

PAGE = Path(__file__).with_suffix(".html")
LARGEST = 1 << 16               # bytes of a request's body
DRAINED = 1 << 24               # so much of a larger one is read and thrown away
PATIENCE = 10                   # seconds for a client to send its request, or to take an event
POLL = 0.5                      # seconds between two looks at whether the program ends
METHODS = {"/": "GET", "/facts": "GET", "/heat": "POST", "/matrix": "POST", "/ask": "POST",
           "/lens": "POST"}
JSON, EVENTS, HTML = "application/json", "text/event-stream", "text/html; charset=utf-8"


class Refused(Exception):
    """A request that is answered with an HTTP status and one line."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Line:
    """The queue before the model: one at a time, in order of arrival."""

    def __init__(self):
        self.queue = deque()
        self.moved = threading.Condition()
        self.closed = False

    @contextmanager
    def turn(self, on_wait):
        """Inside the block it is our turn. on_wait(how many are before us), about once a second."""
        me = object()
        with self.moved:
            self.queue.append(me)
        try:
            while before := self.before(me):
                on_wait(before)
                with self.moved:
                    self.moved.wait_for(lambda: self.queue[0] is me, timeout=1)
            yield
        finally:
            with self.moved:
                self.queue.remove(me)
                self.moved.notify_all()

    def before(self, me):
        with self.moved:
            return self.queue.index(me)

    def close(self, seconds=PATIENCE):
        """An answer that is still in progress ends at its next word; wait for all of them."""
        with self.moved:
            self.closed = True
            self.moved.notify_all()
            self.moved.wait_for(lambda: not self.queue, timeout=seconds)


class Server(ThreadingHTTPServer):
    """Serves a page_model.Lab on 127.0.0.1; port 0 takes a free one. The lab may come later, as
    long as it is there when `run` begins."""
    daemon_threads = True

    def __init__(self, lab, port):
        self.lab = lab
        self.line = Line()
        # (Future, function) for `work`: one at most
        self.errands = queue.SimpleQueue()
        self.over = threading.Event()                       # `work` has ended
        self.page = PAGE.read_bytes()
        self.policy = policy(self.page.decode())
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as e:
            raise ValueError(f"port {port} cannot be used ({e}); try --port=0, which takes a free "
                             "one") from None
        names = ("127.0.0.1", "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names}
        if self.server_port == 80:                          # which browsers leave out
            self.hosts.update(names)

    def work(self):
        """Run what handlers ask of the model, until Ctrl-C,
        which ends the answer in progress too."""
        try:
            while not self.line.closed:
                with suppress(queue.Empty):
                    # a wait without an end would not see every Ctrl-C
                    self.run_errand(*self.errands.get(timeout=POLL))
        finally:
            self.over.set()

    def run_errand(self, done, errand):
        """Whoever waits for `done` gets what comes of it, whatever that is."""
        try:
            result = errand()
        except (KeyboardInterrupt, SystemExit):
            raise                                           # `work` is over, and says so
        # a library may raise one that is no Exception
        except BaseException as e:
            done.set_exception(e if isinstance(e, Exception) else RuntimeError(repr(e)))
        else:
            done.set_result(result)

    def on_model(self, errand):
        """errand() in the thread that runs `work`. -> what it returns, or raises.

        ConnectionAbortedError where `work` ended before the errand did.
        """
        done = Future()
        self.errands.put((done, errand))
        while not wait([done], timeout=POLL).done:
            if self.over.is_set():
                raise ConnectionAbortedError
        return done.result()

    def stop(self):
        """After `work`: turn away whoever waits, and free the port."""
        self.shutdown()
        self.line.close()
        self.server_close()

    def handle_error(self, request, client_address):
        """A fault of this program while it answers: one line, and the server lives on."""
        fault = sys.exc_info()[1]
        print(printable(f"t2mini: a request failed: {fault!r}"), file=sys.stderr)


class Handler(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: the connection ends with the answer."""
    timeout = PATIENCE
    disable_nagle_algorithm = True
    server_version, sys_version = "t2mini", ""

    def answer(self):
        """Serve a request of any method; what is refused gets one line, and the server lives on."""
        try:
            self.check_origin()
            self.serve(self.path.partition("?")[0])
        except Refused as e:
            self.send_error(e.status, str(e))
            self.drain()
        except (ConnectionError, TimeoutError):             # the client is gone; so is its answer
            self.close_connection = True
        except ValueError as e:
            self.send_error(400, str(e))

    do_GET = do_POST = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def check_origin(self):
        """Another name for this address, or another site's script, gets nothing."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            port = self.server.server_port
            raise Refused(403, f"this page is served as http://127.0.0.1:{port}/ only")
        origin = self.headers.get("Origin")
        if origin is not None and origin.removeprefix("http://") not in self.server.hosts:
            raise Refused(403, "requests from other sites are not answered")

    def serve(self, path):
        """Find out what is asked, check it as a whole, then answer."""
        lab = self.server.lab
        if path not in METHODS:
            raise Refused(404, "there is nothing at this address")
        if self.command != METHODS[path]:
            raise Refused(405, f"{path} takes {METHODS[path]}")
        if path == "/":
            self.send(200, HTML, self.server.page)
        elif path == "/facts":
            self.send(200, JSON, encoded(lab.facts()))
        elif path in ("/heat", "/matrix"):
            reply = {"/heat": lab.heat, "/matrix": lab.matrix}[path]
            self.send(200, JSON, encoded(reply(self.body())))
        else:
            asked = {"/ask": lab.ask, "/lens": lab.lens}[path]
            self.stream(asked(self.body()))

    def body(self):
        """The JSON object that was sent. Refused where it is none, or too large."""
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not length:
            raise Refused(411, "a request needs a Content-Length")
        if not (length.isascii() and length.isdigit()):
            raise Refused(400, "Content-Length is not a number")
        if len(length) > 9 or int(length) > LARGEST:
            raise Refused(413, f"a request may have {LARGEST} bytes")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise Refused(400, "the request ended early")
        if self.headers.get_content_type() != JSON:
            raise Refused(415, f"a request must be {JSON}")
        try:
            body = json.loads(data, parse_constant=not_a_number)
        except (ValueError, RecursionError):
            raise Refused(400, "the request is not JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "the request is not a JSON object")
        return body

    def drain(self):
        """Throw away what still comes: closing upon unread bytes would take the refusal back."""
        left = DRAINED
        self.connection.settimeout(0.2)
        with suppress(OSError):
            while left > 0 and (data := self.rfile.read1(min(left, LARGEST))):
                left -= len(data)

    def stream(self, run):
        """Wait for the model, then send events while run(say) goes on."""
        self.send(200, EVENTS)
        try:
            with self.server.line.turn(lambda before: self.say("waiting", {"before": before})):
                self.server.on_model(lambda: run(self.say))
        except ValueError as e:                             # such as a prompt beyond the context
            self.say("error", {"message": str(e)})
        # the client is gone, or the program ends
        except (ConnectionError, TimeoutError):
            raise
        except Exception as e:
            self.say("error", {"message": f"the model failed: {type(e).__name__}: {e}"})

    def say(self, event, data):
        """Send one event. ConnectionError, which ends the answer, where nobody listens any more."""
        if self.server.line.closed:
            raise ConnectionAbortedError
        # to one who is gone this fails, from the second event on; the end of what a client sends
        # says nothing of that: it may have closed its sending side, and listen
        self.wfile.write(f"event: {event}\ndata: ".encode() + encoded(data) + b"\n\n")

    def send(self, status, kind, data=b""):
        """The head of an answer, and all of it where it is known."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if kind != EVENTS:
            self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":                          # which asks for the head alone
            self.wfile.write(data)

    def send_error(self, code, message=None, explain=None):
        """http.server's own refusals come through here too."""
        self.request_version = self.protocol_version        # else a garbled request gets no status
        self.close_connection = True
        known, _ = self.responses.get(code, ("refused", ""))
        self.send(code, JSON, encoded({"error": message or known}))

    def log_message(self, *args):
        """Quiet: the page itself tells what happens."""


def encoded(data):
    """JSON in which no character means anything to HTML, in one line."""
    text = json.dumps(data)
    for c in "<>&":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text.encode()


def not_a_number(word):
    raise ValueError(f"{word} is no JSON")


def policy(html):
    """The Content-Security-Policy: this page's own style and script, by hash, and nothing else."""
    allowed = {}
    for tag in ("style", "script"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = hashlib.sha256(inside.encode()).digest()
        allowed[tag] = f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'"
    return (f"default-src 'none'; {allowed['style']}; {allowed['script']}; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def run(server):
    """Serve until Ctrl-C."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        print(f"turn the dials at http://127.0.0.1:{server.server_port}/ (Ctrl-C ends)", flush=True)
        server.work()
    except KeyboardInterrupt:
        print()                                             # behind the terminal's ^C
    finally:
        server.stop()
    print("the page is closed")

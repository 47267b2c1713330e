"""
A headless Chromium, driven over its DevTools protocol with nothing but the standard library.

    with Browser() as page:
        page.open("http://127.0.0.1:8000/")
        page.run("document.title")
"""
import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATH = next((path for path in map(shutil.which, NAMES) if path), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--hide-scrollbars", "--remote-debugging-port=0")


class Browser:
    """One page in a browser of its own, which ends with the block."""

    def __enter__(self):
        self.home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [PATH, *FLAGS, f"--user-data-dir={self.home.name}", "about:blank"]
        self.process = subprocess.Popen(command,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(self.home.name) / "DevToolsActivePort"
            port = wait_until(lambda: told.exists() and told.read_text().split(), 120)[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as reply:
                [page] = [p for p in json.load(reply) if p["type"] == "page"]
            self.connect(int(port), page["webSocketDebuggerUrl"])
        except BaseException:
            self.__exit__()
            raise
        self.count = 0
        self.errors = []                    # what the page's console says of errors
        self("Runtime.enable")
        self("Log.enable")
        self("Page.enable")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.home.cleanup()

    # ------------------------------------------------------------------ WebSocket (RFC 6455)
    def connect(self, port, address):
        """Upgrade a connection to the page's WebSocket."""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=300)
        key = base64.b64encode(os.urandom(16)).decode()
        path = "/" + address.split("/", 3)[3]
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                            "Upgrade: websocket\r\n"
                            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                            "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        self.file = self.socket.makefile("rb")
        assert b"101" in self.file.readline()
        while self.file.readline().strip():
            pass

    def send(self, text):
        """One masked text frame."""
        data, mask = text.encode(), os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.socket.sendall(struct.pack(">BBQ", 0x81, 0xFF, len(data)) + mask + masked)

    def receive(self):
        """The next message, its frames put together."""
        message, last = b"", False
        while not last:
            first, size = self.file.read(2)
            size &= 0x7F
            if size > 125:
                size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
            data, last = self.file.read(size), first & 0x80
            message += data if first & 0x0F in (0, 1) else b""
        return message

    # ------------------------------------------------------------------ DevTools protocol
    def __call__(self, method, **parameters):
        """Call a method of the protocol. -> its result."""
        self.count += 1
        self.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.receive() or b"{}")
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(message["params"])
            if message.get("id") == self.count:
                assert "error" not in message, message
                return message["result"]

    def open(self, address):
        """Load a page."""
        self("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """Evaluate JavaScript in the page. -> its value."""
        found = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script, seconds=300):
        """Wait until the script's value is true. -> it."""
        return wait_until(lambda: self.run(script), seconds)

    def type(self, text):
        """Type into what has the focus."""
        self("Input.insertText", text=text)

    def key(self, name, code):
        """Press a key: "Enter", 13."""
        text = {"text": "\r"} if name == "Enter" else {}
        event = dict(key=name, code=name, windowsVirtualKeyCode=code)
        self("Input.dispatchKeyEvent", type="keyDown", **event, **text)
        self("Input.dispatchKeyEvent", type="keyUp", **event)

    def size(self, width, height, dark=False):
        """The window's size in pixels, and the colour scheme that the user prefers."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height,
             deviceScaleFactor=1, mobile=width < 600)
        scheme = "dark" if dark else "light"
        self("Emulation.setEmulatedMedia",
             features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path, first="body", last=None, margin=0):
        """A PNG of the page, from the element of selector `first` to that of `last`, with a margin
        in pixels."""
        x0, y0, x1, y1 = json.loads(self.run(f"""(() => {{
            const found = {json.dumps([first, last or first])}.map(
                s => document.querySelector(s).getBoundingClientRect());
            return JSON.stringify([Math.min(...found.map(r => r.left)),
                                   Math.min(...found.map(r => r.top + scrollY)),
                                   Math.max(...found.map(r => r.right)),
                                   Math.max(...found.map(r => r.bottom + scrollY))]);
        }})()"""))
        clip = {"x": x0 - margin, "y": y0 - margin, "width": x1 - x0 + 2 * margin,
                "height": y1 - y0 + 2 * margin, "scale": 1}
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


def wait_until(happened, seconds):
    """Until it happens, and what it says then; an AssertionError if it never does."""
    end = time.monotonic() + seconds
    while not (value := happened()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)
    return value

"""
How long does one wait for the first word on the page? The two rows of tutorials/speed.md.

    .venv/bin/python tests/time_page.py

No test: it needs a Chromium (see README.md beside this file) and a machine that is otherwise quiet.
"""
import json
import re
import statistics
import subprocess
import sys
import time

from browser import Browser

QUESTIONS = (
    "Tom has 12 apples and buys 7 more. He gives 5 to his sister. How many apples does he have?",
    "Write a Python function double(x) that returns twice x.",
    "All cats are animals. Tom is a cat. Is Tom an animal?",
    "What is the capital of France?",
)
ROUNDS = 5
REST = 0.5              # seconds between two requests: the token lens looks once after each answer

# The page tells of its first word in `tell`; the clock starts at the event that asks.
WATCH = """
let started = 0, waited = 0;
const told = tell;
tell = (text, bad) => {
  if (text.startsWith("first word")) waited = performance.now() - started;
  told(text, bad);
};
"""
ASK = """
$("question").value = {question};
state.chosen = "decide";
started = performance.now();
waited = 0;
$("ask").click();
"""
SLIDE = """
{{
  const slider = $("alpha-" + facts.experts.indexOf({expert}));
  slider.value = {alpha};
  started = performance.now();
  waited = 0;
  slider.dispatchEvent(new Event("input", {{bubbles: true}}));
}}
"""


def timed(browser, script, stop=False):
    """Run a script that asks; let it answer, or stop it then. -> ms until the first word."""
    browser.run(script + "1")
    browser.until("waited > 0")
    waited = browser.run("waited")
    if stop:
        browser.run("stop()")
    browser.until("$('stop').disabled")
    time.sleep(REST)
    return waited


def measure(browser):
    """-> milliseconds of clicks on Ask (20), and of slider moves (40)."""
    clicks, slides = [], []
    for n in range(ROUNDS):
        for question in QUESTIONS:
            clicks.append(timed(browser, ASK.format(question=json.dumps(question))))
            for expert, alpha in (("math", 0.2 + 0.1 * n), ("code", 0.9 - 0.1 * n)):
                script = SLIDE.format(expert=json.dumps(expert), alpha=alpha)
                slides.append(timed(browser, script, stop=True))
    return clicks, slides


def main():
    command = [sys.executable, "-u", "-m", "t2mini", "page", "--port=0", *sys.argv[1:]]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", program.stdout.readline())[0]
        with Browser() as browser:
            browser.size(1200, 900)
            browser.open(address)
            browser.until("document.querySelectorAll('.cell').length > 0")
            browser.run(WATCH + "1")
            for what, found in zip(("click on Ask", "move of a slider"), measure(browser)):
                print(f"{what}: {statistics.median(found):.0f} ms, slowest of {len(found)} "
                      f"{max(found):.0f} ms")
    finally:
        program.kill()


if __name__ == "__main__":
    main()

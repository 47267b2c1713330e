"""
Photograph the page of `make page`: `python tutorials/draw_page.py` writes tutorials/figures/page.png and its
parts page_answers.png, page_mix.png and page_dials.png.

Needs the weights and a Chromium on the PATH (tests/README.md says how to install one).
"""
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import PATH, Browser  # noqa: E402

STEPS = ("ask", "first", "second", "mix", "dials")        # in the order of use; their headings end in -title
QUESTION = "Raj plays 9 games every week. How many games does Raj play in 4 weeks?"
ANSWERED = "document.getElementById('stop').disabled && document.querySelectorAll('.word').length === 20"


def photograph(browser, address):
    """Ask by keyboard, open one matrix, mix two experts, and take the pictures."""
    figures = HERE / "figures"
    browser.size(1080, 900)
    browser.open(address)
    browser.until("document.querySelectorAll('.cell').length === 210")
    browser.run("document.getElementById('question').focus()")
    browser.type(QUESTION)
    browser.key("Enter", 13)
    browser.until(ANSWERED)
    browser.run("document.activeElement.blur()")
    time.sleep(1)                                           # the map follows the answer
    browser.run("for (const part of document.querySelectorAll('.late, .last')) part.hidden = true")
    for number, step in enumerate(STEPS, 1):
        browser.run(f"document.getElementById('{step}-title').prepend(style(make('span', {{textContent: '{chr(0x2775 + number)} '}}), "
                    "{'font-size': '22px', 'line-height': '1', color: 'var(--adapted)'}))")
    browser.picture(figures / "page.png")
    browser.run("for (const title of document.querySelectorAll('h2 > span')) title.remove()")
    browser.picture(figures / "page_answers.png", "section", "section:nth-of-type(3)", margin=12)
    browser.run("document.querySelectorAll('.cell')[189].click()")
    browser.until("!document.getElementById('matrix').hidden")
    browser.run("document.getElementById('index').value = 200; pick(); document.activeElement.blur()")
    browser.picture(figures / "page_dials.png", "main > :nth-child(2) > section:nth-of-type(2)", margin=12)
    browser.run("state.matrix = null; document.getElementById('matrix').hidden = true")
    for slider, key, code in (("alpha-2", "ArrowRight", 39), ("alpha-0", "ArrowLeft", 37)):
        browser.run(f"document.getElementById('{slider}').focus()")
        for _ in range(12):
            browser.key(key, code)
    time.sleep(2)                                           # the answer follows a slider that rests
    browser.until(ANSWERED)
    time.sleep(1)                                           # and the map follows the answer
    browser.run("document.activeElement.blur()")
    browser.picture(figures / "page_mix.png", "main > :nth-child(1) > section:nth-of-type(3)",
                    "main > :nth-child(2) > section", margin=12)


if __name__ == "__main__":
    if PATH is None:
        sys.exit("t2mini: no chromium, chromium-browser or google-chrome on the PATH; tests/README.md says how to install one")
    command = [sys.executable, "-u", "-m", "t2mini", "page", "--port=0"]
    with subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True) as program:
        try:
            where = re.search(r"http://\S+", program.stdout.readline())[0]
            with Browser() as page:
                photograph(page, where)
        finally:
            program.kill()

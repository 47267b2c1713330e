"""
Photograph the page of `make page`: `python tutorials/draw_page.py` writes
tutorials/figures/page.png and its parts page_answers.png, page_mix.png and page_dials.png.

Needs the weights and a Chromium on the PATH (tests/README.md says how to install one). Experts in
out/ do not show: only the shipped ones have sliders here.
"""
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from browser import PATH, Browser  # noqa: E402

# in the order of use; their headings end in -title
STEPS = ("ask", "first", "second", "mix", "dials")
QUESTION = "Raj plays 9 games every week. How many games does Raj play in 4 weeks?"
GOLD = "36"
ANSWERED = ("document.getElementById('stop').disabled "
            "&& document.querySelectorAll('.word').length === 20")


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
    hide(browser, ".late", ".last", "#sight", "#views", "#status")

    # --- all of it, numbered in the order of use ---
    first, then = judged(browser)
    say(browser, f"Ask: the page picks the math expert, and {first} becomes {then}")
    for number, step in enumerate(STEPS, 1):
        browser.run(f"document.getElementById('{step}-title').prepend("
                    f"style(make('span', {{textContent: '{chr(0x2775 + number)} '}}), "
                    "{'font-size': '22px', 'line-height': '1', color: 'var(--adapted)'}))")
    browser.picture(figures / "page.png", "header", "main", margin=16)
    hide(browser, "#examples")
    say(browser, f"The page picks the math expert: {first} becomes {then}", "section")
    browser.picture(figures / "page_answers.png", "section", "section:nth-of-type(3)", margin=12)

    # --- the dials of one matrix ---
    browser.run("document.querySelectorAll('.cell')[189].click()")
    browser.until("!document.getElementById('matrix').hidden")
    browser.run("document.getElementById('index').value = 200; pick(); "
                "document.activeElement.blur()")
    say(browser, "Click a matrix, and turn any of its dials z (1 is the base model)",
        "main > :nth-child(2) > section:nth-of-type(2)")
    browser.picture(figures / "page_dials.png", "main > :nth-child(2) > section:nth-of-type(2)",
                    margin=12)

    # --- a mixture by hand ---
    browser.run("state.wanted = state.matrix = null; "
                "document.getElementById('matrix').hidden = true")
    for slider, key, code in (("alpha-2", "ArrowRight", 39), ("alpha-0", "ArrowLeft", 37)):
        browser.run(f"document.getElementById('{slider}').focus()")
        for _ in range(12):
            browser.key(key, code)
    time.sleep(2)                                           # the answer follows a slider that rests
    browser.until(ANSWERED)
    browser.run("document.activeElement.blur()")
    first, then = judged(browser)
    hide(browser, "section:has(#ask)", "section:has(#bars)", "section:has(#heat)")
    say(browser, f"Mixed by hand, 0.4 of math and 0.6 of reasoning: {first} becomes {then}")
    browser.picture(figures / "page_mix.png", "header", "main", margin=12)


def hide(browser, *selectors):
    """Parts of the page that a picture does without."""
    browser.run(f"for (const part of document.querySelectorAll({', '.join(selectors)!r})) "
                "part.style.display = 'none'")


def say(browser, text, inside="header"):
    """A headline, instead of the page's own or at the top of another part."""
    browser.run("document.querySelectorAll('#said').forEach(said => said.remove())")
    if inside == "header":
        browser.run("for (const part of document.querySelectorAll('header > *')) "
                    "part.style.display = 'none'")
    browser.run(f"document.querySelector({inside!r}).prepend("
                f"style(make('div', {{id: 'said', textContent: {text!r}}}), "
                "{'font-size': '21px', 'font-weight': 'bold', 'margin-bottom': '12px', "
                "color: 'var(--text)'}))")


def judged(browser):
    """Mark both answers as right or wrong. -> the last number of each."""
    found = []
    for side in ("base", "adapted"):
        text = browser.run(f"document.getElementById('{side}').textContent")
        found.append(re.findall(r"[0-9]+", text)[-1])
        mark, colour = ("✓ right", "#00795b") if found[-1] == GOLD else ("✗ wrong", "#b3261e")
        browser.run(f"style(document.getElementById('rate-{side}'), {{color: '{colour}', "
                    f"'font-size': '17px', 'font-weight': 'bold'}}).textContent = '{mark}'")
    return found


if __name__ == "__main__":
    if PATH is None:
        sys.exit("t2mini: no chromium, chromium-browser or google-chrome on the PATH; "
                 "tests/README.md says how to install one")
    shipped_alone = ("import pathlib, sys; from t2mini import __main__, experts; "
                     "experts.OUT = pathlib.Path(sys.argv[1]); "
                     "sys.exit(__main__.main(['page', '--port=0']))")
    with tempfile.TemporaryDirectory() as empty, subprocess.Popen(
            [sys.executable, "-u", "-c", shipped_alone, empty], cwd=HERE.parent,
            stdout=subprocess.PIPE, text=True) as program:
        try:
            where = re.search(r"http://\S+", program.stdout.readline())[0]
            with Browser() as page:
                photograph(page, where)
        finally:
            program.kill()

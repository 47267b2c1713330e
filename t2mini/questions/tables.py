"""
The raw material of the made-up questions: word lists and wordings in *.txt beside this file,
one "## NAME" above each table.
"""
from pathlib import Path


def read(name):
    """questions/NAME.txt -> {table name: its text, without the blank lines around it}."""
    text = Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in ("\n" + text).split("\n## ")[1:]]
    return {title.strip(): body.strip("\n") for title, _, body in parts}


def handwritten():
    """{label: its questions, written by hand}:
    they test the first pass, and nothing trains on or chooses by them."""
    return {label.lower(): text.strip().split("\n===\n")
            for label, text in read("handwritten").items()}

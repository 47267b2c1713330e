"""
Published questions (paper 4.1): GSM8K, MBPP and ARC-Easy, the unseen MATH-500, HumanEval and
ARC-Challenge, and easy-VQA, whose questions are about images.

Files:    never part of this project. `python -m t2mini datasets` says where each is published; put
          them into a folder as listed there and give it with --data=DIR, or once for all as
          T2MINI_DATA=DIR.
Hash:     sha256 of the fields that are read, as JSON with sorted keys, one row after the other: the
          same questions in other line ends, another order of fields or as one JSON array are the
          same data.
Splits:   the published ones. Where there is no val, a hash takes a tenth of the train questions for
          it, or, of a set that only has a test, a tenth of that: those are the few-shot pool, and
          the test does without them. A question that is in two published splits stays in the later
          one (test before val before train).
Prompts:  zero-shot; the same text samples, scores and trains.
"""
import ast
import functools
import hashlib
import json
import os
import re
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

from ..machine import files as disk
from ..machine.text import one_line
from . import easy_vqa
from .asserts import tests_of
from .example import Example, split_of, to_number

MOST_BYTES = 1 << 30                    # of a file of questions
FOLDER = "T2MINI_DATA"                  # the environment variable that --data sets


@dataclass(frozen=True)
class File:
    """Two lines of FILES; `other` is the path's other name."""
    split: str
    rows: int
    sha256: str
    path: str
    other: str = ""


@dataclass(frozen=True)
class Set:
    """make(row) -> Example; fields: those that are read (a.b is b inside a, or a list's place);
    split(row), where the file holds several; images: make(row, path) needs the file's path, beside
    which they lie.

    skill, max_tokens, opener: see tasks.Task.
    """
    where: str
    licence: str
    skill: str
    max_tokens: int
    fields: tuple
    make: Callable
    files: tuple
    split: Callable = None
    opener: str = ""
    images: bool = False
    form_of: str = ""       # the set whose files these are, asked in another form
    keep: Callable = None   # of the train and the val examples: those that are used
    learn: Callable = None  # of the train examples alone


# ------------------------------------------------------------------------------ a row -> an Example
def gsm8k(row):
    """The number behind #### is the gold answer; a comma in it is no decimal point. The solution is
    what stands before it, too, without the sums for a calculator in <<...>>, of which `kind` tells
    the number."""
    gold = row["answer"].rpartition("####")[2].strip()
    if to_number(gold) is None:
        raise ValueError("`answer` does not end in #### and a number")
    solution = re.sub(r"<<[^<>]*>>", "", row["answer"])
    sums = f"{row['answer'].count('<<')} sums"
    return Example(row["question"], gold, "number", sums, row["question"], solution=solution)


STEPS_OPENER = "Step 1:"


def gsm8k_steps(row):
    """The same question; the answer goes on from STEPS_OPENER, and so does the solution, of which
    every line is a step but for the last, #### and the number."""
    told = gsm8k(row)
    *steps, end = told.solution.split("\n")
    numbered = [f"Step {i}: {line}" for i, line in enumerate(steps, 1)]
    return replace(told, solution="\n".join([*numbered, end]).removeprefix(STEPS_OPENER))


def few_sums(examples):
    """Those whose solution has one to three sums: a small model has more of them right, in fewer
    words. (One without a sum is told in words alone, and may be long.)"""
    return [e for e in examples if e.kind in ("1 sums", "2 sums", "3 sums")]


def arc(row):
    """The answer is the option's text; labels (some rows have 1 to 4 for A to D, some 3 or 5
    options) only name the gold.

    A small model names the right text and puts the wrong letter before it, or says C to everything:
    letters it earns by chance teach it nothing. Quotation marks tell where an option and the answer
    end.
    """
    question, choices = row["question"], row["question"]["choices"]
    options = tuple(c["text"].strip().replace('"', "'") for c in choices)
    gold = [o for o, c in zip(options, choices) if c["label"] == row["answerKey"]]
    if len(gold) != 1:
        raise ValueError(f"`answerKey` {row['answerKey']!r} is not one of the labels")
    stem, listed = question["stem"].strip(), "; ".join(f'"{option}"' for option in options)
    return Example(f"{stem}\nOptions: {listed}.", gold[0], "quoted", f"{len(options)} options",
                   "\n".join([stem, *sorted(options)]), options)


ARC_OPENER = 'The right option is "'


def arc_letters(row):
    """The same question with lettered options, as the paper asks it. The answer is the letter."""
    told = arc(row)
    letters = tuple("ABCDE"[:len(told.options)])
    stem = row["question"]["stem"].strip()
    listed = "\n".join(f'"{letter}": {option}' for letter, option in zip(letters, told.options))
    gold = letters[told.options.index(told.answer)]
    return replace(told, prompt=f"{stem}\n{listed}", answer=gold, options=letters)


def arc_open(row):
    """The same question without its options. The answer is the option's text, which the model has
    to know, or to find likelier than the others (`--choose`)."""
    return replace(arc(row), prompt=row["question"]["stem"].strip())


def mbpp(row):
    """The prompt shows the first of the three asserts, which names the function; all three are the
    test."""
    defined = {n.name for n in ast.parse(row["code"]).body if isinstance(n, ast.FunctionDef)}
    named = [n.id for n in ast.walk(ast.parse(row["test_list"][0]))
             if isinstance(n, ast.Name) and n.id in defined]
    if not named:
        raise ValueError("the first test calls no function that `code` defines")
    check = (f"def check({named[0]}):\n"
             + "".join(f"    {line.strip()}\n" for line in row["test_list"]))
    way, tests = tests_of(check, named[0], row["code"], row["test_setup_code"])
    return Example(MBPP.format(text=row["text"].strip(), test=row["test_list"][0].strip()),
                   row["code"], "code", way, row["text"].strip(), **tests)


MBPP = ("{text}\nThe function must pass this test: `{test}`\n"
        "Answer with the Python function in a code block.")


def humaneval(row):
    """Signature and docstring are shown and also precede the answer's program, which may use their
    imports and helpers."""
    way, tests = tests_of(row["test"], row["entry_point"],
                          row["prompt"] + row["canonical_solution"])
    return Example(HUMANEVAL.format(prompt=row["prompt"].strip()),
                   row["prompt"] + row["canonical_solution"], "code", way,
                   row["prompt"], before=row["prompt"] + "\n", **tests)


HUMANEVAL = ("Complete this Python function. Answer with the whole function in a code block.\n"
             "```python\n{prompt}\n```")


def math500(row):
    """LaTeX, compared by latex.py."""
    if not row["answer"].strip():
        raise ValueError("`answer` is empty")
    return Example(row["problem"] + MATH, row["answer"], "math", row["subject"], row["problem"])


MATH = "\nPut the final answer in \\boxed{}."

# a set, the split (* where a row's number tells it), rows, sha256 of the content;
# and below, where it is in the data folder (path, or path|another path)
FILES = """
gsm8k          train  7473 937e90ecc5698135a95d098621de3388f3b63bec4dbd8fc1b349adf8612890aa
    gsm8k/train.jsonl
gsm8k          test   1319 5b736e25f3d1e6cdeef6b3d89e3dc71a7e3c20288f93f1bda635f6fbeb4f41b5
    gsm8k/test.jsonl
mbpp           *       974 88d6c9528082d64e117875a947d56845f4e8adc4770cfbd947ab764045e83c0b
    mbpp/mbpp.jsonl
arc-easy       train  2251 0eeb309dff8d3301f5b7e16baebcfecd68ade022221a48da8d863c0af7d1b2ff
    arc/ARC-Easy/ARC-Easy-Train.jsonl
arc-easy       val     570 495db971d3c24a4fbe8182f30f6f4ee471f0851a0e9f688efe34b7c23272e02e
    arc/ARC-Easy/ARC-Easy-Dev.jsonl
arc-easy       test   2376 80ddd16daecff27ea6d2970f0be22bf0147bd99dafc162444c744fce34d2e274
    arc/ARC-Easy/ARC-Easy-Test.jsonl
arc-challenge  train  1119 39754a6f27b69abb233c6d15b8605c9c85f567d260856e4b19e8e995fa7f74eb
    arc/ARC-Challenge/ARC-Challenge-Train.jsonl
arc-challenge  val     299 c61d9b6681864f1785dd0250463184e9af9f275ac548cc4ecf396946b887d64a
    arc/ARC-Challenge/ARC-Challenge-Dev.jsonl
arc-challenge  test   1172 7ee1f703d1bbacd1f16a296e7fc619663544653e308a3585d8f696e619a77685
    arc/ARC-Challenge/ARC-Challenge-Test.jsonl
math-500       test    500 5d3f11d3881b89452cbc837f43ea368162be8f321b41a3cdc5610d18876533d7
    math500/test.jsonl|math500/math500_test.json
easy-vqa       train 38575 6df7a170af4f867ce74d9d20f0c933e3fa58555eeae6fe4fcdce4bce82ace3ef
    easy_vqa/data/train/questions.json
easy-vqa       test   9673 725c24ccafceb1f110dfc6b13d3e440ee09132cea9e923eb674c2afe64a82849
    easy_vqa/data/test/questions.json
humaneval      test    164 5adfd180c42a17d557f30d6ef3022e6605ac4b2e77067add7697f1bb8ab2436a
    humaneval/HumanEval.jsonl
"""


def files(name):
    """The files of a set in FILES -> tuple of File."""
    words = FILES.split()
    rows = [words[i:i + 5] for i in range(0, len(words), 5)]
    return tuple(File(split, int(count), sha256, *path.split("|"))
                 for of, split, count, sha256, path in rows if of == name)


ARC_HOME = "https://allenai.org/data/arc (ARC-V1-Feb2018.zip)"
ARC_FIELDS = ("question.stem", "question.choices", "answerKey")
SETS = {
    "gsm8k": Set("https://github.com/openai/grade-school-math (grade_school_math/data)",
                 "MIT", "math", 256,
                 ("question", "answer"), gsm8k, files("gsm8k")),
    # as published: 11-510 test, 511-600 validation, 601-974 train, and 1-10 for prompts, which here
    # are in val too
    "mbpp": Set("https://github.com/google-research/google-research (mbpp)",
                "CC BY 4.0", "code", 192,
                ("text", "code", "task_id", "test_setup_code", "test_list"), mbpp, files("mbpp"),
                lambda row: ("test" if 11 <= row["task_id"] <= 510
                             else "train" if row["task_id"] > 600 else "val")),
    "arc-easy": Set(ARC_HOME, "CC BY-SA 4.0", "reasoning", 20,
                    ARC_FIELDS, arc, files("arc-easy"), opener=ARC_OPENER),
    "arc-challenge": Set(ARC_HOME, "CC BY-SA 4.0", "reasoning", 20,
                         ARC_FIELDS, arc, files("arc-challenge"), opener=ARC_OPENER),
    "math-500": Set("https://huggingface.co/datasets/HuggingFaceH4/MATH-500",
                    "MIT", "math", 320,
                    ("problem", "answer", "subject"), math500, files("math-500")),
    "humaneval": Set("https://github.com/openai/human-eval (data/HumanEval.jsonl.gz, unpacked)",
                     "MIT", "code", 256,
                     ("prompt", "entry_point", "canonical_solution", "test"), humaneval,
                     files("humaneval")),
    "easy-vqa": Set("https://pypi.org/project/easy-vqa "
                    "(pip download --no-deps easy-vqa==1.0; unzip the .whl)",
                    "MIT", "vision", 8,
                    ("0", "1", "2"), easy_vqa.make, files("easy-vqa"), images=True),
}
for _name in ("arc-easy", "arc-challenge"):
    SETS[f"{_name}-letters"] = replace(SETS[_name], make=arc_letters, max_tokens=4, form_of=_name)
    SETS[f"{_name}-open"] = replace(SETS[_name], make=arc_open, form_of=_name)
SETS["gsm8k-steps"] = replace(SETS["gsm8k"], make=gsm8k_steps, max_tokens=320,
                              opener=STEPS_OPENER, form_of="gsm8k")
SETS["gsm8k-few-sums"] = replace(SETS["gsm8k-steps"], learn=few_sums)
SETS["easy-vqa-balanced"] = replace(SETS["easy-vqa"], keep=easy_vqa.balanced, form_of="easy-vqa")


def hides_options(name):
    """Does the set of that name ask without listing the options that there are?"""
    return name in SETS and SETS[name].make is arc_open


# -------------------------------------------------------------------------------------------- files
def as_written(number):
    """A JSON number with a point -> float; its text where Python would write it otherwise, with an
    exponent that no answer has (0.00001)."""
    return number if "e" in str(float(number)) and "e" not in number.lower() else float(number)


def read_rows(path):
    """[(line or row number, object)] of a .jsonl file, or of a .json file that holds one list.

    ValueError naming what is not UTF-8 or not JSON, or is no file that can be read to its end;
    FileNotFoundError.
    """
    data = disk.read_bytes(path, MOST_BYTES)
    try:
        text = data.decode("utf-8-sig")                     # without the mark that some editors add
    except UnicodeDecodeError as e:
        line = data.count(b"\n", 0, e.start) + 1
        raise ValueError(f"{path} line {line}: not UTF-8 text; save the file as UTF-8") from None
    if Path(path).suffix == ".json":
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise ValueError(f"{path}: not JSON ({e})") from None
        if not isinstance(rows, list):
            raise ValueError(f"{path}: must hold one list of rows")
        return list(enumerate(rows, 1))
    found = []
    # not splitlines(), which also cuts at the line separators that JSON allows inside a text
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        try:
            found.append((number, json.loads(line, parse_float=as_written)))
        except (ValueError, RecursionError) as e:
            problem = f"not JSON ({getattr(e, 'msg', e)})" if line.strip() else "empty line"
            raise ValueError(f"{path} line {number}: {problem}") from None
    return found


def locate(folder, file):
    """The file's path in the folder, under its first name or its other one; the first where there
    is none."""
    first, other = Path(folder, file.path), Path(folder, file.other)
    return other if file.other and not first.exists() and other.exists() else first


def pick(row, field):
    """row["a"]["b"] for "a.b". ValueError where it is not there."""
    for key in field.split("."):
        if isinstance(row, list) and key.isdigit() and int(key) < len(row):
            key = int(key)
        elif not isinstance(row, dict) or key not in row:
            raise ValueError(f"`{field}` is missing")
        row = row[key]
    return row


def content_hash(rows, fields):
    """sha256 of what is read of the rows: see the head of this file."""
    digest = hashlib.sha256()
    for _, row in rows:
        digest.update(json.dumps([pick(row, f) for f in fields], sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def folder_of(data=None):
    """The data folder: `data`, else T2MINI_DATA. ValueError with what to do where there is none."""
    folder = data or os.environ.get(FOLDER)
    if not folder:
        raise ValueError("published questions are read from a folder of yours: give --data=DIR "
                         "(`python -m t2mini datasets` says what to put there)")
    folder = disk.expand(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder at {folder}; "
                         "--data must name the one that holds the published files")
    return str(folder)


@functools.lru_cache(maxsize=None)
def load(name, folder):
    """{split: tuple of Examples, in the published order} of a set. ValueError naming the file and
    line that is wrong.

    Published tests of code are run once, in the sandbox, where they are no plain calls
    (asserts.py).
    """
    set_, found = SETS[name], {}
    has_val = set_.split or any(f.split == "val" for f in set_.files)
    for file in set_.files:
        path = locate(folder, file)
        if not path.exists():
            raise ValueError(f"{path} is missing; "
                             f"`python -m t2mini datasets` says where {name} is published")
        for number, row in read_rows(path):
            try:
                for field in set_.fields:
                    pick(row, field)
                with warnings.catch_warnings():
                    # published code has backslashes that Python frowns on
                    warnings.simplefilter("ignore")
                    example = set_.make(row, path) if set_.images else set_.make(row)
                split = set_.split(row) if set_.split else file.split
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError) as e:
                said = f"`{e.args[0]}` is missing" if isinstance(e, KeyError) else e
                raise ValueError(f"{path} line {number}: {said}") from None
            if not has_val and file is set_.files[0] and split_of(example) == "val":
                split = "val"
            found.setdefault(split, []).append(example)
    if set_.images:
        check_images(found)
    later = {}
    for split in ("test", "val", "train"):
        for e in found.get(split, ()):
            later.setdefault(e.key, split)
    found = {split: [e for e in rows if later[e.key] == split] for split, rows in found.items()}
    if set_.keep:
        found |= {split: set_.keep(found[split]) for split in ("train", "val") if split in found}
    if set_.learn and "train" in found:
        found["train"] = set_.learn(found["train"])
    return {split: tuple(rows) for split, rows in found.items()}


def check_images(found):
    """ValueError where an image is not there: now, and not in the middle of a training. found:
    {split: Examples}."""
    for image in sorted({e.prompt.image for rows in found.values() for e in rows}):
        if not Path(image).is_file():
            raise ValueError(f"no image at {image}; the images belong beside their questions.json")


# ----------------------------------------------------------------------------------------- the verb
def report(data=None, say=print):
    """What there is, where it is published, and what of it is in the data folder. -> list of dicts,
    one per file."""
    folder = folder_of(data) if data or os.environ.get(FOLDER) else None
    out = []
    for name, set_ in SETS.items():
        if set_.form_of:
            continue
        say(f"{name}: {set_.licence}, {set_.where}")
        for file in set_.files:
            state, rows = state_of(folder, file, set_.fields) if folder else ("", 0)
            told = f"    {file.path:<44}{file.rows:>5} rows  {file.sha256}  {state}"
            say(one_line(told.rstrip()))
            out.append({"name": name, "split": file.split, "path": file.path, "rows": file.rows,
                        "sha256": file.sha256, "state": state, "found": rows})
        if forms := [other for other, o in SETS.items() if o.form_of == name]:
            say(f"    also asked as {', '.join(forms)}")
        mine = [o for o in out if o["name"] == name]
        if all(o["found"] for o in mine):
            say(one_line(f"    {in_use(name, folder, sum(o['found'] for o in mine))}"))
    say("sha256 is of the content that is read, not of the file's bytes"
        + ("" if folder else "; --data=DIR checks a folder"))
    return out


def state_of(folder, file, fields):
    """(present, missing, or what is wrong with a file of the folder, number of rows)."""
    path = locate(folder, file)
    if not path.exists():
        return "missing", 0
    try:
        rows = read_rows(path)
        return ("present" if content_hash(rows, fields) == file.sha256
                else f"other content, {len(rows)} rows"), len(rows)
    except (ValueError, OSError) as e:
        return f"unreadable: {str(e).removeprefix(str(path)).lstrip(': ')}", 0


def in_use(name, folder, rows):
    """What becomes of the rows of a set, in one line."""
    try:
        splits = load(name, folder)
    except ValueError as e:
        return str(e)
    sizes = ", ".join(f"{s} {len(splits[s])}" for s in ("train", "val", "test") if s in splits)
    repeated = rows - sum(map(len, splits.values()))
    ways = Counter(e.kind for found in splits.values() for e in found if e.match == "code")
    return (sizes + f", left out as a later split has them {repeated}" * (repeated > 0)
            + f"; tests as {', '.join(f'{k} {v}' for k, v in ways.most_common())}" * bool(ways))

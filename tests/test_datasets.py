"""Published questions from tiny hand-written files in the published formats,
and the graders that judge their answers.
"""
import json
import os
import random
import re
from contextlib import nullcontext
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from t2mini import __main__ as cli
from t2mini import tasks
from t2mini.questions import asserts, published, sandbox
from t2mini.grade import find_quoted
from t2mini.lab import experiments, figures, forms, larger, signal
from t2mini.questions.example import Example
from t2mini.questions.latex import LONGEST, find_final, right, same_answer, value
from t2mini.recipe import TrainConfig

LETTERS = "ABCDEFGHIJ"


def arc_row(i, key="B", labels="ABCD", stem=None):
    return {"id": f"row {i}",
            "question": {"stem": stem or f"Which of these is thing {i}?",
                         "choices": [{"text": f"thing {i * (n == 1)}{'x' * n}", "label": label}
                                     for n, label in enumerate(labels)]},
            "answerKey": key}


def mbpp_row(task_id, tests, code="def f(x):\n    return x + 1\n", text=None, setup=""):
    return {"text": text or f"Write task {task_id}.", "code": code, "task_id": task_id,
            "test_setup_code": setup, "test_list": tests, "challenge_test_list": []}


def human_row(name, prompt, solution, test):
    return {"task_id": "HumanEval/0", "prompt": prompt, "entry_point": name,
            "canonical_solution": solution, "test": test}


POLY = human_row(
    "half",
    'from typing import List\n\ndef twice(x):\n    return 2 * x\n\n\n'
    'def half(x: float) -> float:\n    """ x / 2 """\n',
    "    return x / 2\n",
    "\n\nMETADATA = {}\n\ndef check(candidate):\n    import random\n    for i in range(5):\n"
    "        x = random.randint(0, 99)\n        assert abs(twice(candidate(x)) - x) < 1e-6\n")
LIST = human_row("first", 'def first(l):\n    """ the first """\n', "    return l[0]\n",
                 "def check(candidate):\n    # Check some\n    assert True, 'this prints'\n"
                 "    assert candidate([1, 2]) == 1, 'msg'\n    assert candidate(['a']) == 'a'\n")
YES = human_row("even", 'def even(n):\n    """ even? """\n', "    return n % 2 == 0\n",
                "def check(candidate):\n    assert candidate(1 + 1)\n"
                "    assert not candidate(3)\n    print\n")


@pytest.fixture
def data(tmp_path):
    """(a data folder that holds a little of everything, write(path, rows)
    that changes a file of it)
    """
    def write(path, rows):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows) if path.endswith(".json") else "".join(
            (r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
        published.load.cache_clear()
    answers = ["5 + 3 = <<5+3=8>>8\n#### 8", "#### -5", "It is 1,080.\n#### 1,080"]
    for split, n in (("train", 60), ("test", 9)):
        write(f"gsm8k/{split}.jsonl",
              [{"question": f"{split} {i}", "answer": answers[i % 3]} for i in range(n)])
    for split, name, n in (("Train", "Easy", 8), ("Dev", "Easy", 6), ("Test", "Easy", 6),
                           ("Train", "Challenge", 4), ("Dev", "Challenge", 4),
                           ("Test", "Challenge", 4)):
        rows = [arc_row(i + 100 * ["Train", "Dev", "Test"].index(split)) for i in range(n)]
        write(f"arc/ARC-{name}/ARC-{name}-{split}.jsonl", rows)
    write("mbpp/mbpp.jsonl", [mbpp_row(i, [f"assert f({i}) == {i + 1}", "assert f(0) == 1"])
                              for i in (1, 10, 11, 510, 511, 600, 601, 974)])
    write("math500/math500_test.json",
          [{"problem": f"p {i}", "solution": "s", "answer": f"\\frac{{{i}}}{{7}}",
            "subject": "Algebra", "level": 1, "unique_id": f"t/{i}"} for i in range(60)])
    write("humaneval/HumanEval.jsonl",
          [POLY, LIST, YES] + [{**LIST, "prompt": f"# {i}\n" + LIST["prompt"]} for i in range(30)])
    return tmp_path, write


# ------------------------------------------------------------------------------------------- splits
@pytest.mark.parametrize("name, sizes", [
    ("gsm8k", None), ("gsm8k-steps", None), ("mbpp", (2, 4, 2)), ("arc-easy", (8, 6, 6)),
    ("arc-challenge", (4, 4, 4)), ("arc-easy-letters", (8, 6, 6)), ("math-500", None),
    ("humaneval", None)])
def test_splits_never_share_a_question(data, name, sizes):
    """Fails if a question is in two splits, one is lost, or the seed does not decide the order."""
    task = tasks.get(name, data[0])
    rows = {s: published.load(name, str(data[0])).get(s, ()) for s in tasks.SPLITS}
    keys = [{e.key for e in rows[s]} for s in tasks.SPLITS]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert sizes is None or tuple(map(len, keys)) == sizes
    assert sum(map(len, rows.values())) == sum(
        len(published.read_rows(published.locate(data[0], f))) for f in published.SETS[name].files)
    assert (task.skill == "code") == task.runs_code and task.max_tokens > 0
    all_of_it = task.examples("test", 10**6)
    assert len(all_of_it) == len(rows["test"])
    assert all_of_it[:2] == task.examples("test", 2) and task.examples("test", 0) == []
    assert task.examples("test", 99, 1) == task.examples("test", 99, 1)
    assert len({task.examples("test", 1, seed)[0].key for seed in range(20)}) > 1


def test_val_is_carved_out_where_none_is_published(data):
    """Fails if there is no val, if it comes out of the test although there is a train,
    or order or other rows decide.
    """
    gsm, math = (published.load(name, str(data[0])) for name in ("gsm8k", "math-500"))
    assert 0 < len(gsm["val"]) < 20
    assert all(e.prompt.startswith("train") for e in gsm["val"]) and len(gsm["test"]) == 9
    assert 0 < len(math["val"]) < 20 and set(math) == {"val", "test"}
    rows = [row for _, row in published.read_rows(data[0] / "math500/math500_test.json")]
    data[1]("math500/math500_test.json", rows[:30][::-1])
    fewer = published.load("math-500", str(data[0]))
    assert {e.key for e in fewer["val"]} <= {e.key for e in math["val"]}
    assert not {e.key for e in fewer["test"]} & {e.key for e in math["val"]}
    with pytest.raises(ValueError, match="math-500 has no examples in its train split"):
        tasks.get("math-500", data[0]).examples("train", 1)


def test_a_question_in_two_published_splits_stays_in_the_later_one(data):
    """Fails if a test question is trained on, also where its options are in another order."""
    row = arc_row(1, stem="Asked twice?")
    turned = json.loads(json.dumps(row))
    turned["question"]["choices"].reverse()
    data[1]("arc/ARC-Easy/ARC-Easy-Train.jsonl", [turned, arc_row(7)])
    data[1]("arc/ARC-Easy/ARC-Easy-Test.jsonl", [row])
    found = published.load("arc-easy", str(data[0]))
    assert [len(found[s]) for s in tasks.SPLITS] == [1, 6, 1]
    assert "twice" not in found["train"][0].prompt


# --------------------------------------------------------------------------------------------- rows
def test_gsm8k_gold_is_the_number_behind_the_marks(data):
    """Fails if the sign or a comma is lost (the release reads 1,080 as 80),
    or another number of the solution is taken.
    """
    by = {e.prompt: e for rows in published.load("gsm8k", str(data[0])).values() for e in rows}
    eight, minus, comma = (by[f"test {i}"] for i in range(3))
    assert [e.answer for e in (eight, minus, comma)] == ["8", "-5", "1,080"]
    said = ["8", "It is -5.", "$1,080", "5", "5", "2,080"]
    assert tasks.rewards([eight, minus, comma] * 2, said) == [1, 1, 1, 0, 0, 0]


def test_few_sums_are_learnt_from_and_all_validate(data):
    """Fails if training on short problems takes long ones, or is validated on the short alone."""
    whole, few = (published.load(name, str(data[0])) for name in ("gsm8k-steps", "gsm8k-few-sums"))
    short = [e for e in whole["train"] if e.kind == "1 sums"]
    assert 0 < len(short) < len(whole["train"]) and list(few["train"]) == short
    assert few["val"] == whole["val"] and few["test"] == whole["test"]
    assert not published.few_sums([replace(short[0], kind=kind) for kind in ("0 sums", "4 sums")])


def test_what_imitation_of_gsm8k_learns_is_the_solution(data):
    """Fails if next-token training imitates the bare number, or the sums for a calculator."""
    by = {e.prompt: e for rows in published.load("gsm8k", str(data[0])).values() for e in rows}
    solutions = [tasks.gold(by[f"test {i}"]) for i in range(3)]
    assert solutions == ["5 + 3 = 8\n#### 8", "#### -5", "It is 1,080.\n#### 1,080"]
    row = {"question": "q", "answer": "2 + 3 = 5\n5 + 1 = 6\n#### 6"}
    assert tasks.gold(published.gsm8k_steps(row)) == " 2 + 3 = 5\nStep 2: 5 + 1 = 6\n#### 6"


@pytest.mark.parametrize("labels, key, right", [
    ("ABCD", "B", "B"), ("1234", "1", "A"), ("1234", "4", "D"), ("ABC", "C", "C"),
    ("ABCDE", "E", "E"), ("12345", "5", "E"), ("BADC", "A", "B")])
def test_arc_labels(labels, key, right):
    """Fails if digits, three or five options, or labels out of order give another gold answer
    (the release: never right).
    """
    example = published.arc(arc_row(3, key, labels))
    assert len(example.options) == len(labels)
    assert all(f'"{o}"' in example.prompt for o in example.options)
    said = [f'{option}". The others are not.' for option in example.options]
    assert tasks.rewards([example] * len(labels), said) == [float(letter == right)
                                                            for letter in LETTERS[:len(labels)]]
    assert tasks.rewards([example] * 4, [key, right, "", "A"]) == [0, 0, 0, 0]
    lettered = published.arc_letters(arc_row(3, key, labels))
    assert f'"{right}": {example.answer}' in lettered.prompt and lettered.key == example.key
    said = [f'{letter}": some text.' for letter in lettered.options]
    assert tasks.rewards([lettered] * len(labels), said) == [float(letter == right)
                                                             for letter in lettered.options]
    hidden = published.arc_open(arc_row(3, key, labels))
    assert hidden.prompt == example.prompt.partition("\nOptions: ")[0]
    assert not any(option in hidden.prompt for option in hidden.options)
    assert (hidden.options, hidden.answer, hidden.key) == (
        example.options, example.answer, example.key)


def test_eval_says_that_unlisted_options_want_choosing(capsys, monkeypatch):
    """Fails if 0 % is all that is said where nobody can know the words of an option."""
    monkeypatch.setattr(tasks, "get", lambda name, choose=False: tasks.ListTask(
        name, lambda: {}, 8, "reasoning"))
    for word, told in (("--expert=none", True), ("--choose", False)):
        cli.main(["eval", "--task=arc-easy-open", word, "--weights=/nowhere"])
        assert ("--choose picks among them" in capsys.readouterr().err) == told


@pytest.mark.parametrize("text, want",
                         [('Ww". It', 2), ("WW", 1), ("ww", None), ('sun."', 3), ("The sun", 3),
                          ("sun or Ww", None), ("", None), ("C", 0), ('sun" is wrong, "WW', 3),
                          ("it is the sun", None), ('"sun"', None), ("sunny", None)])
def test_quoted_options(text, want):
    """Fails if capitals that matter are lost, the words behind the closing mark count,
    or a part or more than one option does.
    """
    assert find_quoted(text, ("C", "WW", "Ww", "sun.")) == want


def test_openers_reach_the_second_pass(monkeypatch):
    """Fails if the strategies of `eval` ask in other words than training and a fixed expert do."""
    from t2mini import adapt, evaluate
    from t2mini.lab import arms
    seen, task = [], tasks.Task("t", None, 4, "math", 'It is "')
    monkeypatch.setattr(
        adapt, "route",
        lambda m, t, questions, d, title="": [adapt.Route("other", "other", {})] * len(questions))
    monkeypatch.setattr(
        evaluate, "answers",
        lambda m, t, questions, n, **kw: seen.append(kw.get("opener")) or ["7"] * len(questions))
    monkeypatch.setattr(adapt.svf, "using", lambda model, z: nullcontext())
    monkeypatch.setattr(adapt, "check_answer", lambda *a: None)
    model = SimpleNamespace(cfg=SimpleNamespace(max_position_embeddings=99))
    tokenizer = SimpleNamespace(prompt=lambda *a, **k: [1])
    for strategy in ("prompt", None):
        found = arms.run(model, tokenizer, task, [Example("p", "7", "number")], strategy,
                         experts={})
        assert found[0] == [1.0]
    assert set(seen) == {'It is "'}


def test_mbpp_prompt_names_the_function_and_shows_one_test(data):
    """Fails if a hidden assert is shown, or the published ids are in another split."""
    found = published.load("mbpp", str(data[0]))
    assert ([sorted(e.calls[0][0][0] for e in found[s]) for s in tasks.SPLITS]
            == [[601, 974], [1, 10, 511, 600], [11, 510]])
    example = found["test"][0]
    assert "assert f(11) == 12" in example.prompt
    assert "f(0)" not in example.prompt and example.name == "f"


# ---------------------------------------------------------------------------------- published tests
def answer(code):
    return f"Sure.\n```python\n{code}\n```\nDone."


NODE = "class Node:\n    def __init__(self, v): self.v = v\n"
WAYS = [  # way, tests, setup, a right program, wrong ones
    ("calls", ["assert f(1) == 2", "assert f(-1) == 0"], "", "def f(x): return x + 1",
     ["def f(x): return 2", "def f(x): return '2'"]),
    ("calls", ["assert f('a') == True"], "", "def f(x): return 1",
     ["def f(x): return 'True'", "def f(x): return 0"]),
    ("calls", ["assert f('aab') == {'a': 2, 'b': 1}"], "",
     "from collections import Counter\ndef f(x): return Counter(x)",
     ["class D(dict): pass\ndef f(x): return D(a=2)",
      "def f(x): return {'a': 2}", "def f(x): return [('a', 2), ('b', 1)]"]),
    ("calls", ["assert f(0) == (1, 2)"], "",
     "from collections import namedtuple\nP = namedtuple('P', 'a b')\n"
     "def f(x): return P(1, 2)",
     ["from collections import namedtuple\nP = namedtuple('P', 'a b')\n"
      "def f(x): return P(1, 3)",
      "def f(x): return [1, 2]"]),
    ("cases", ["assert f(0) == (1, 2)"], "K = 1",
     "from typing import NamedTuple\nclass P(NamedTuple):\n  a: int = 1\n  b: int = 2\n"
     "def f(x): return P()",
     ["def f(x): return [1, 2]"]),
    ("calls", ["assert f([1]) == [(1, 1)]"], "",
     "from collections import Counter\ndef f(x): return Counter(x).most_common(1)",
     ["def f(x): return [[1, 1]]"]),
    ("cases", ["assert f(1) == 4"], "K = 3", "def f(x): return x + K", ["def f(x): return x"]),
    ("cases", ["assert set(f([1, 2])) == {1, 2}"], "", "def f(x): return x[::-1]",
     ["def f(x): return [1]"]),
    ("cases", ["assert f((1, 2.5), int) == [2.5]"], "",
     "def f(x, t): return [v for v in x if type(v) is not t]", ["def f(x, t): return x"]),
    ("cases", ["assert f(n) == 3"], "n = Node(3)", NODE + "def f(n): return n.v",
     [NODE + "def f(n): return 4", "def f(n): return 3"]),
    ("replay", ["assert f('a') is True"], "", "def f(x): return True", ["def f(x): return 1"]),
    ("calls", ["assert f('a') is None"], "", "def f(x): pass", ["def f(x): return 0"]),
    ("replay", ["assert f(4) == len('four')"], "", "def f(x): return 4", ["def f(x): return 5"]),
    ("replay", ["assert math.isclose(f(4), 2.0)"], "import math", "def f(x): return x ** 0.5",
     ["def f(x): return 3.0", "def f(x): return K"]),
    ("replay", ["assert abs(f(1) - 4) < 1e-6"], "K = 3", "def f(x): return x + K",
     ["def f(x): return x"]),
    ("replay", ["assert abs(f(4) - 0.1) < 1e-6"], "", "def f(x): return 0.1 + 1e-9",
     ["def f(x): return 0.2", "def f(x): return 'x'"])]


def test_a_set_up_whose_classes_are_lost_is_refused():
    """Fails if a question that its own reference does not pass is asked."""
    setup = "from collections import namedtuple\nP = namedtuple('P', 'a')"
    with pytest.raises(ValueError, match="does not pass its tests here"):
        published.mbpp(mbpp_row(11, ["assert abs(f(P(4)) - 4) < 1e-6"], "def f(p): return p.a",
                                setup=setup))


@pytest.mark.parametrize("way, tests, setup, right, wrong", WAYS)
def test_three_ways_to_run_asserts(way, tests, setup, right, wrong):
    """Fails if a published assert is run in another way than stated, a right program earns nothing
    or a wrong one something.
    """
    example = published.mbpp(mbpp_row(11, tests, right, setup=setup))
    assert example.kind == way
    assert (tasks.rewards([example] * (1 + len(wrong)), [answer(c) for c in (right, *wrong)])
            == [1.0] + [0.0] * len(wrong))


def test_humaneval_in_three_ways(data):
    """Fails if imports and helpers of the prompt are missing, a loop is not run,
    or a truth value is taken for True.
    """
    half, first, even = (published.humaneval(r) for r in (POLY, LIST, YES))
    assert [e.kind for e in (half, first, even)] == ["replay", "calls", "cases"]
    assert len(half.calls) == 5
    rows = [(half, "def half(x: List) -> float:\n    return twice(x) / 4", 1),
            (half, "def half(x):\n    return 1.0", 0),
            (half, "def half(x):\n    return x // 2", 0), (half, "def half(x): pass", 0),
            (half, "", 0), (half, "def half(x):\n    return x / 2 + 1e-9", 1),
            (first, "def first(l): return l[-2] if len(l) > 1 else 'a'", 1),
            (first, "def first(l): return 1", 0), (first, "x = 1", 0),
            (half, "def half(x): return x", 0), (half, "def half(x): return 0.5 * x", 1),
            (half, "def half(x): return -x", 0),
            (even, "def even(n): return (n + 1) % 2 * 'yes'", 1),
            (even, "def even(n): return True", 0)]
    assert (tasks.rewards([e for e, _, _ in rows], [answer(c) for _, c, _ in rows])
            == [w for _, _, w in rows])
    assert tasks.rewards([half, first, even],
                         [answer(e.answer) for e in (half, first, even)]) == [1, 1, 1]


@pytest.mark.parametrize("row",
                         [mbpp_row(11, ["assert set(f(1)) == {77123}"], "def f(x): return [77123]"),
                          mbpp_row(11, ["assert f(1) == 77123"], "def f(x): return 77123"),
                          mbpp_row(11, ["assert f(1) == 77122 + 1"], "def f(x): return 77123")])
def test_the_program_never_meets_what_is_expected(monkeypatch, row):
    """Fails if an expected value or a published test is sent into the sandbox that runs the answer.
    """
    sent, example = [], published.mbpp(row)
    run = sandbox.call_many
    monkeypatch.setattr(sandbox, "call_many", lambda jobs: sent.extend(jobs) or run(jobs))
    spy = ("import sys\n"
           "def f(*a): return [k for k in sys._getframe(1).f_globals "
           "if 'check' in k or 'verdict' in k]")
    assert tasks.rewards([example] * 2, [spy, "def f(x):\n    return 1"]) == [0.0, 0.0]
    assert all("7712" not in repr(job) for job in sent
               if "MARK" not in job[0] and job[1] != "verdict")
    assert all("def f(*a)" not in job[0] and "return 1" not in job[0]
               for job in sent if job[1] == "verdict")


HOSTILE = ["import os\nos._exit(0)", "raise SystemExit(0)", "def f(x): raise SystemExit(0)",
           "class E:\n    def __eq__(s, o): return True\n    def __sub__(s, o): return 0\n"
           "def f(x): return E()",
           "def verdict(*a): return True\ndef check(c): pass\ndef f(x): return 5",
           "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.set = lambda x: x\n"
           "def f(x): return 5",
           "def t2mini_case(i): return 3\nraise KeyboardInterrupt",
           "print('+V(True,)')\ndef f(x): return 5",
           "import random\nrandom.seed = lambda x: 1 / 0\ndef f(x): return 5",
           "def f(x): return float('nan')", "def f(x): return [[1]] * 10 ** 5"]


@pytest.mark.parametrize("test", ["assert abs(f(4) - 0.1) < 1e-6", "assert set(f(4)) == {3, 9}",
                                  "assert f(4) == (0.1, 7)"])
def test_hostile_programs_earn_nothing(test):
    """Fails if ending early, redefining what judges,
    or values equal to everything pass a published test.
    """
    right = ("def f(x): return 0.1" if "abs" in test
             else "def f(x): return [3, 9]" if "set" in test else "def f(x): return 0.1, 7")
    example = published.mbpp(mbpp_row(11, [test], right))
    assert (tasks.rewards([example] * (len(HOSTILE) + 1), [*map(answer, HOSTILE), answer(right)])
            == [0.0] * len(HOSTILE) + [1.0])


FORGE = ("import os\ndef f(x):\n    for i in range(9):\n        try: os.write(i, b'V({},)')\n"
         "        except OSError: pass\n    os._exit(0)")
# tests, a right program, wrong ones that pass where a comparison runs beside them,
# or a value counts for any call
TAKEN_IN = [
    (["assert (f(4) == 3) == True"], "def f(x): return 3",
     ["class E:\n    def __eq__(s, o): return True\ndef f(x): return E()"]),
    (["assert isinstance(f(4), int) == True"], "def f(x): return 3",
     ["import builtins\nbuiltins.isinstance = lambda *a: True\ndef f(x): return 'x'"]),
    (["assert (f(4) - 3) == 0"], "def f(x): return 3",
     ["class E:\n    def __sub__(s, o): return 0\ndef f(x): return E()"]),
    (["assert f(f(0)) == len('ab')"], "def f(x): return x + 1",
     ["def f(x): return 2 if x else 'never looked at'"]),
    (["assert all(a == b for a, b in zip(map(f, [3] * f(0)), [4, 4, 4]))"],
     "def f(x): return x + 1",
     ["def f(x): return 4 if x else 0", "def f(x): return 4 if x else 9"]),
    (["assert abs(f(4) - 0.1) < 1e-6"], "def f(x): return 0.1",
     [FORGE.format("0x' + b'f' * 9000 + b'"), FORGE.format("True"), FORGE.format("1e999"),
      "def f(x): return 1j",
      "import gc\ndef f(x): return [o for o in gc.get_objects() if type(o) is float][0]",
      "import sys\ndef f(x):\n    frame, found = sys._getframe(), []\n    while frame:\n"
      "        found += [v for v in [*frame.f_globals.values(), *frame.f_locals.values()] "
      "if type(v) is float]\n"
      "        frame = frame.f_back\n    return found[0]",
      "def t2mini_record(): return True\ndef verdict(*a): return True\n"
      "def candidate(*a): return 0.1\ndef f(x): return 5"]),
    (["assert set(f(4)) == {3, 9}"], "def f(x): return [3, 9]",
     ["def t2mini_case(i): return 5\ndef f(x): return [5]\nx = '''",
      "def f(x):\n    global set\n    set = lambda v: {5}\n    return 1",
      "import sys\n"
      "def f(x): return [c for c in sys._getframe(1).f_code.co_consts if type(c) is frozenset]"])]


@pytest.mark.parametrize("tests, right, wrong", TAKEN_IN)
def test_no_way_of_running_an_assert_is_taken_in(tests, right, wrong):
    """Fails if what is expected runs beside the program (`__eq__`, patched builtins), if a value
    counts for another call than the one that made it, or if a forged answer ends this process.
    """
    example = published.mbpp(mbpp_row(11, tests, right))
    assert (tasks.rewards([example] * (1 + len(wrong)), [answer(c) for c in (right, *wrong)])
            == [1.0] + [0.0] * len(wrong))


def test_a_judge_that_is_not_true_pays_nothing():
    """Fails if a replay without a verdict, or another value than True, counts as passed."""
    e = Example("p", "", "code", calls=(((1,), 2),), name="f", check="def verdict(*v): return 1")
    ok = sandbox.Outcome((2,))
    assert asserts.passes(e, ok, sandbox.Outcome((True,)))
    assert not asserts.passes(e, ok) and not asserts.passes(e, ok, sandbox.Outcome(None))
    assert not asserts.passes(e, ok, sandbox.Outcome((False,)))
    assert not asserts.passes(e, ok, sandbox.Outcome((None,)))
    assert not asserts.passes(e, sandbox.Outcome(None, "timeout"), sandbox.Outcome((True,)))


@pytest.mark.parametrize("check, says", [
    ("x = 1", "no function"), ("def check(", "not a function"),
    ("def check(): pass", "not a function"),
    ("def check(c):\n    assert c(1) == len('a') + 9", "does not pass its tests"),
    ("def check(c):\n    for i in []: c(i)", "no calls")])
def test_tests_that_cannot_be_used_say_so(check, says):
    """Fails if a broken published test is dropped or passes silently."""
    with pytest.raises(ValueError, match="not a function check" if "function" in says else says):
        asserts.tests_of(check, "f", "def f(x): return x")


# -------------------------------------------------------------------------------------------- files
BAD = [("gsm8k/train.jsonl", "gsm8k", '{"question": "q"}', "`answer` is missing"),
       ("gsm8k/train.jsonl", "gsm8k", "", "empty line"),
       ("gsm8k/train.jsonl", "gsm8k", "{", "not JSON"),
       ("gsm8k/train.jsonl", "gsm8k", "[1]", "`question` is missing"),
       ("gsm8k/train.jsonl", "gsm8k", '{"question": "q", "answer": "no mark"}',
        "does not end in ####"),
       ("gsm8k/train.jsonl", "gsm8k", '{"question": "q", "answer": "#### 3 or 4"}',
        "does not end in ####"),
       ("gsm8k/train.jsonl", "gsm8k", '{"question": "q", "answer": 7}', "no attribute"),
       ("arc/ARC-Easy/ARC-Easy-Dev.jsonl", "arc-easy", json.dumps(arc_row(1, "E")),
        "'E' is not one of the labels"),
       ("arc/ARC-Easy/ARC-Easy-Dev.jsonl", "arc-easy", '{"question": "q", "answerKey": "A"}',
        "`question.stem` is missing"),
       ("arc/ARC-Easy/ARC-Easy-Dev.jsonl", "arc-easy",
        '{"question": {"stem": "q", "choices": [{}]}, "answerKey": "A"}', "`text` is missing"),
       ("mbpp/mbpp.jsonl", "mbpp", json.dumps(mbpp_row(5, ["assert g(1) == 2"])),
        "calls no function"),
       ("mbpp/mbpp.jsonl", "mbpp", json.dumps(mbpp_row(5, [])), "index"),
       ("mbpp/mbpp.jsonl", "mbpp", json.dumps(mbpp_row(5, ["assert f(1) == len('ab') + 1"])),
        "does not pass its tests"),
       ("humaneval/HumanEval.jsonl", "humaneval", json.dumps({**YES, "test": "x"}),
        "not a function check")]


@pytest.mark.parametrize("path, name, line, says", BAD)
def test_bad_rows_are_named(data, path, name, line, says):
    """Fails if a damaged file is a traceback, or its error does not name file and line."""
    good = (data[0] / path).read_text().splitlines()[0]
    data[1](path, [good, line])
    with pytest.raises(ValueError, match=rf"{data[0]}/{path} line 2: .*{says}"):
        tasks.get(name, data[0])


def test_a_missing_folder_file_or_list_is_one_line(data, monkeypatch, tmp_path):
    """Fails if a missing file is a traceback, or the message does not say what to do."""
    monkeypatch.delenv(published.FOLDER, raising=False)
    with pytest.raises(ValueError, match="give --data=DIR"):
        tasks.get("gsm8k")
    with pytest.raises(ValueError, match="no folder at nowhere"):
        tasks.get("gsm8k", "nowhere")
    (data[0] / "gsm8k/test.jsonl").unlink()
    published.load.cache_clear()
    with pytest.raises(ValueError, match="test.jsonl is missing; .* says where gsm8k is published"):
        tasks.get("gsm8k", data[0])
    for text, says in (("{", "not JSON"), ('{"a": 1}', "one list")):
        (data[0] / "math500/math500_test.json").write_text(text)
        published.load.cache_clear()
        with pytest.raises(ValueError, match=says):
            tasks.get("math-500", data[0])
    with pytest.raises(ValueError, match="did you mean humaneval"):
        tasks.get("humanevl")
    monkeypatch.setenv(published.FOLDER, str(data[0]))
    assert tasks.get("mbpp").examples("test", 9)


def test_the_hash_is_of_the_content(data):
    """Fails if line ends, the order of fields or the kind of file change the hash,
    or a changed answer does not.
    """
    folder, write = data
    fields = published.SETS["math-500"].fields
    of = lambda path: published.content_hash(     # noqa: E731
        published.read_rows(folder / path), fields)
    rows = [row for _, row in published.read_rows(folder / "math500/math500_test.json")]
    write("math500/test.jsonl", [{**dict(reversed(r.items())), "level": 9} for r in rows])
    (folder / "crlf.jsonl").write_bytes("\r\n".join(map(json.dumps, rows)).encode())
    assert of("math500/test.jsonl") == of("math500/math500_test.json") == of("crlf.jsonl")
    write("other.jsonl", [{**rows[0], "answer": "0"}, *rows[1:]])
    write("fewer.jsonl", rows[1:])
    assert len({of(p) for p in ("crlf.jsonl", "other.jsonl", "fewer.jsonl")}) == 3
    row = {"question": {"stem": "q", "choices": [{"text": "a", "label": "A"}]}, "answerKey": "A"}
    turned = {**row, "question": {"choices": [{"label": "A", "text": "a"}], "stem": "q"}}
    assert len({published.content_hash([(1, r)], published.ARC_FIELDS) for r in (row, turned)}) == 1


def test_the_verb_says_what_is_there(data, capsys, monkeypatch):
    """Fails if a missing, changed or unreadable file is called present,
    or the verb needs a folder to say where data are.
    """
    monkeypatch.delenv(published.FOLDER, raising=False)
    assert cli.main(["datasets"]) == 0
    told = capsys.readouterr().out
    assert "https://allenai.org/data/arc" in told
    assert "also asked as gsm8k-steps, gsm8k-few-sums" in told
    # put back afterwards: --data sets it
    monkeypatch.setenv(published.FOLDER, "")
    (data[0] / "gsm8k/test.jsonl").unlink()
    data[1]("mbpp/mbpp.jsonl", ["{"])
    real = published.read_rows
    monkeypatch.setattr(published, "read_rows", lambda path: real(path)
                        if "math500" not in str(path) else open(f"{path}/below a file"))
    file = published.SETS["humaneval"].files[0]
    right = published.content_hash(published.read_rows(data[0] / file.path),
                                   published.SETS["humaneval"].fields)
    monkeypatch.setitem(published.SETS, "humaneval",
                        tasks.replace(published.SETS["humaneval"],
                                      files=(tasks.replace(file, sha256=right),)))
    assert cli.main(["datasets", f"--data={data[0]}", "--json"]) == 0
    out = capsys.readouterr().out
    states = {row["path"]: row["state"] for row in json.loads(out.splitlines()[-1])}
    assert states["gsm8k/test.jsonl"] == "missing"
    assert states["gsm8k/train.jsonl"] == "other content, 60 rows"
    assert states["mbpp/mbpp.jsonl"].startswith("unreadable: line 1: not JSON")
    assert states[published.SETS["math-500"].files[0].path].startswith("unreadable: [Errno")
    assert states["humaneval/HumanEval.jsonl"] == "present"
    assert "tests as calls 31, replay 1, cases 1" in out
    assert cli.main(["datasets", "--data=nowhere"]) == 1
    assert "no folder at nowhere" in capsys.readouterr().err


def test_eval_reads_the_folder(data, tiny_folder, capsys, monkeypatch, tmp_path):
    """Fails if --data does not reach the verb, or --n cannot mean the whole split."""
    from t2mini import experts
    monkeypatch.setattr(experts, "OUT", tmp_path / "out")
    monkeypatch.setattr(experts, "SVD_CACHE", tmp_path / "svd")
    monkeypatch.setenv(published.FOLDER, "")
    args = [f"--weights={tiny_folder}", "--dtype=float32", "--device=cpu", "--json"]
    assert cli.main(["eval", "--task=arc-easy", f"--data={data[0]}", "--n=9999", *args]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n"] == 6
    assert cli.main(["eval", "--task=mbpp", f"--data={data[0]}", *args]) == 1
    assert "--allow-code" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- MATH
SAME = [(r"\begin{pmatrix} -2 \\[4pt] 1 \end{pmatrix}", r"\begin{pmatrix}-2 \\ 1\end{pmatrix}"),
        (r"\left(\begin{array}{cc}1 & 2\\3 & 4\end{array}\right)",
         r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
        (r"288\pi \approx 904.78", r"288 \pi"), (r"x \approx 5", "5"), (r"\approx 5", "5"),
        (r"\frac{20,000}{\pi}", r"\frac{20000}{\pi}"), ("6.72 \u00d7 10^{-5}", ".0000672"),
        ("(0,9) \u222a (9,36)", r"(0,9) \cup (9,36)"), ("3\u221a13", r"3\sqrt{13}"),
        (r"(2, +\infty)", r"(2, \infty)"), (r"\text{Evelyn}.", r"\text{Evelyn}"),
        (r"(\text{C})", r"\text{(C)}"), ("15 cm\u00b2", r"15\mbox{ cm}^2"),
        ("1/2", r"\frac12"), ("0.5", r"\frac{1}{2}"), (".5", "1/2"), (r"\dfrac{1}{2}", r"\tfrac12"),
        ("50%", "50"), (r"50\%", "50"), ("1{,}000", "1000"), ("10,080", r"10,\!080"),
        (r"\$32,348", r"\$32,\!348"), ("58500", "58,500"), ("$18.90$", r"\$18.90"),
        (r"3\sqrt{13}", r"\sqrt{117}"), (r"\sqrt{12}", r"2\sqrt3"),
        (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}"), ("2pi", r"2\pi"), (r"\sqrt[3]{8}", "2"),
        ("1 4/5", r"1\frac{4}{5}"), ("9/5", r"1\frac45"), ("-1 4/5", r"-\frac95"), ("x=5", "5"),
        ("5", "x = 5"), ("2,1", "1,2"), (r"1\pm\sqrt{19}", r"1-\sqrt{19},1+\sqrt{19}"),
        ("x+1", "1+x"), ("(b+2)(a+5)", "(a+5)(b+2)"), ("ab+2a+5b+10", "(a+5)(b+2)"),
        ("9i+6", "6+9i"), ("East", r"\text{east}"), ("C", r"\text{(C)}"), ("52_8", "52_{8}"),
        ("864 square inches", r"864 \mbox{ inches}^2"), ("15 cm^2", r"15\mbox{ cm}^2"),
        ("145 degrees", r"145^\circ"), ("145\u00b0", r"145^\circ"),
        (r"\left(3,\frac{\pi}{2}\right)", r"( 3, \pi/2 )"), ("(2,\u221e)", r"(2,\infty)"),
        ("[-2,7]", r"x \in [-2,7]"),
        (r"(3,\infty)\cup(-\infty,2)", r"(-\infty, 2) \cup (3, \infty)"), (r"\{2, 1\}", "1,2"),
        ("5+3=8", "8"), ("2^3", "8"), ("2^10", "1024"), ("x^{-1}", r"\frac1x"), ("-2^2", "-4"),
        (r"\begin{bmatrix}1\\2\end{bmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("11z+5x-7y = -4", "5x - 7y + 11z + 4 = 0"),
        # CASES row 8: lists with words
        (r"1 \text{ and } -2", "1,-2"), (r"x=1 \text{ or } x=-2", "1,-2"),
        (r"-2 \text{ or } 1", "1,-2"), ("1 and -2", "1,-2"),
        (r"x = 1\quad\text{or}\quad x = -2", "1,-2"), (r"x=1, x=-2", "1,-2"), ("x = 1, -2", "1,-2"),
        (r"1,\ 2, \text{ and } 3", "1,2,3"), (r"1, 2 \mbox{, and } 3", "1,2,3"),
        ("1, 2, and 3", "3,2,1"), (r"x_1 = 1, x_2 = -2", "1,-2"),
        (r"(1,2) \text{ and } (3,4)", "(1,2),(3,4)"), (r"\text{$1$ or $-2$}", "1,-2"),
        (r"1\textrm{ and }-2", r"-2 \text{ or } 1"), (r"x=1 \text{ and } y=2", "x=1, y=2"),
        (r"1 \text{ cm and } 2 \text{ cm}".replace("cm and", r"cm} \text{ and"), "1,2"),
        ("3 inches and 4 inches", "3,4"),
        # CASES row 9: units in words, or in \text{}
        ("3 cm", "3"), ("3km", "3km"), (r"3\text{ab}", "3"), (r"x=1 \lor x=-2", "1,-2"),
        (r"3 \mathrm{kg}", "3"), ("3 square feet", "3"), ("60 miles per hour", "60"),
        ("3degrees", "3"), (r"\frac{1}{2} hours", "0.5"), (r"10\,080", "10080"), ("3xy", "3yx"),
        # signs with two names, currencies
        (r"x \geq 3", r"x\ge 3"), (r"1 \le x \leqslant 2", r"1 \leq x \leq 2"),
        ("x \u2265 3", r"x \geq 3"), (r"x \neq 1", r"x\ne 1"),
        ("\u20ac12", "12"), ("12\u20ac", r"\$12"), (r"\pounds 12", "12"),
        (r"2\cdot-3", "-6"), ("3^{1/2}", r"\sqrt{3}"), ("(" * 60 + "1" + ")" * 60, "1")]
DIFFERENT = [
    ("50%", "0.5"), (r"\frac{1}{23}", r"\frac{12}{3}"), ("3.14", r"\pi"),
    ("0.333333333", r"\frac{1}{3}"), ("80", "1,080"), ("-5", "5"), ("", "5"), ("?", "5"),
    ("(1,2)", "(2,1)"), ("[1,2)", "(1,2)"), ("1,2,2", "1,2,1"), ("1,2", "12"), ("3 4", "34"),
    ("3 4", "12"), ("x+1", "y+1"), ("6-9i", "6+9i"), ("seat", r"\text{east}"),
    ("B", r"\text{(C)}"), ("52", "52_8"), ("1/0", "5"), ("5/0", "1/0"), (r"\infty", "5"),
    (r"\begin{pmatrix}2\\1\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"), ("two", "2"),
    ("12 and 13", "12"), (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("5x-7y+11z+5=0", "5x - 7y + 11z + 4 = 0"), ("9^9^9^9", "5"), ("2^{2^{9}}", "5"),
    ("2^{100000}", "5"), ("9" * 290, "9" * 289 + "8"), ("1e3", "1000"), ("no", r"\text{on}"),
    ("1" * (LONGEST + 1), "1" * (LONGEST + 1)), ("None", "0"), ("__import__('os')", "0"),
    (r"\sqrt{-1}", "1"), (r"\sqrt[2i^4]{9}", "3"),
    # CASES row 8: a list of other numbers, or whose names count
    (r"1 \text{ and } 2", "1,-2"), ("x=1, x=2", "1,-2"),
    (r"1 \text{ and } -2", "1"), ("x=2, y=1", "x=1, y=2"), (r"1 \text{ or } -2", "1-2"),
    # CASES row 9: letters that are no unit
    ("3", "3xy"), ("3ab", "3"), ("3xy", "3"), ("3", "3ab"), ("3 xy", "3"), ("3", "3 xy"),
    ("3abc", "3"), ("3", "3km"), ("3", "3 xkm"),
    (r"\frac{1}{2}ab", r"\frac{1}{2}"), ("2(x)yz", "2"), ("3 ab^2", "3"), ("3", "3ab^2"),
    ("3", "3 abc"), (r"3\sqrt{2}ab", r"3\sqrt{2}"),
    # another letter has that value; another sign
    ("x=5", "y=5"), ("$x = 5$", "y = 5"), (r"x \leq 3", r"x \geq 3"), (r"x < 3", r"x \le 3"),
    # BREAKS row 4: letters whose values lie on a line
    ("2y", "x+z"), ("x-y", "a-b"), ("a+d", "b+c"), ("2b", "a+c"), ("m", r"\frac{a+y}{2}"),
    ("x-a", "23"), ("z-x", "2(b-a)"), ("3b-2a", "d"), ("b-a", r"\frac{997}{1009}"),
    ("a", r"\frac{106716}{1009}"), ("x = y", "2x = y + z"), ("ab", "cd"), ("(y-x)^2", "(b-a)^2"),
    (r"\frac{A}{B}", r"\frac{a}{b}"), (r"\sqrt{A}", r"\sqrt{a}"), (r"\sqrt[3]{-8}", "2")]
SAME += [(r"\sqrt[3]{-8}", "-2"), (r"\sqrt[3]{-\frac{8}{27}}", r"-\frac{2}{3}"),
         (r"\text{Yes}", r"\text{yes}"), (r"\sqrt{x^2}", "x"), ("2x+3=y", "y=2x+3"),
         ("5=x", "x=5"), (r"+\infty", r"\infty"), ("x-y=1", "y-x=-1"), ("1 000 000", "10^6")]
DIFFERENT += [(r"\text{not }5", "5"), (r"\text{less than }5", "5"), ("x >= 12", "12"),
              ("x != 12", "12"), ("x-y=1", "y-x=1"), ("x+y", "x+y=z"), ("ab", "ab=c")]
SAME += [(spelled, r"\cot x") for spelled in (r"\cot(x)", r"\cot{x}", "cot x")]
SAME += [(r"(0.5, \sin x)", r"(\frac{1}{2}, \sin x)"), (r"\frac{\ln(x)}{2}", r"\frac{\ln x}{2}")]
DIFFERENT += [(r"\tan(x+1)", r"\tan x+1"), (r"\sin(x^2)", r"\sin(x)^2"),
              (r"\log(a+b)", r"\log a+b")]
SAME += [("2^{n}", "2^n"), (r"e^{x}", "e^x")]
SAME += [("864 in^2", r"864 \mbox{ inches}^2"), ("864 sq in^2", "864")]
DIFFERENT += [(r"\tan x", r"\cot x"), (r"\cot y", r"\cot x"), ("864 i n^2", "864")]
SAME += [(r"5 \text{ more}", "5"), (r"12\text{ years (not counting 1900)}", "12")]


@pytest.mark.parametrize("got, gold, want",
                         [(*p, True) for p in SAME] + [(*p, False) for p in DIFFERENT])
def test_latex_answers(got, gold, want):
    """Fails if two spellings of one answer differ, or two answers are taken for one
    (a tolerance, lost braces, factor 100).
    """
    assert same_answer(got, gold) == want
    assert not want or "=" in got or same_answer(gold, got)


@pytest.mark.parametrize("got, gold, want",
                         [("3cm", "3", True), ("15cm^2", r"15\mbox{ cm}^2", True),
                          ("3km", "3", True), ("3", "3km", False),
                          ("3km", "3mk", True), ("3kg, 4kg", "3,4", True), ("3xm", "3", False)])
def test_a_short_unit_may_be_glued_where_the_gold_answer_is_a_number(got, gold, want):
    """Fails if 3cm is not 3, or the product 3km is paid with 3 (CASES row 9)."""
    assert same_answer(got, gold) == want


@pytest.mark.parametrize("text, want", [
    (r"So \boxed{1} or rather $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
    (r"\boxed{a{b}\}c}", r"a{b}\}c"), (r"x \boxed{12", ""),
    ("The answer is 5. Hope that helps", "5"), (r"the answer is: $\frac12$.", r"\frac12"),
    ("The answer is 3.5.", "3.5"), ("#### 7", "7"),
    ("**Answer: 42**", "42"), (r"\boxed{7}" + " x" * 2500 + " so $8$", "8"),
    ("Thus $a=1$ and $b = 2$", "b = 2"), ("42", "42"), ("", ""), (r"\[ x = 4 \]", " x = 4 "),
    ("The final answer to it is $7$, not $8$", "7"),
    ("The answer is 5. This holds since $2 + 1 = 3$.", "5")])
def test_final_answers_are_found(text, want):
    """Fails if an earlier formula, the rest of a sentence or half a box is read as the answer."""
    assert find_final(text) == want


@pytest.mark.parametrize("text, gold, want", [
    (r"The solutions are $\boxed{1}$ and $\boxed{-2}$.", "1,-2", True),
    (r"Not \boxed{1} but $\boxed{-2}$.", "-2", True), (r"\boxed{1} and \boxed{3}", "1,-2", False),
    ("First \\boxed{1}.\nThen \\boxed{2}.", "1,2", False),
    (r"The answer is \fbox{\boxed{5}}", "6", False), (r"\fbox{1} \boxed{2}", "1,2", True),
    ("\\boxed{\n\\text{Evelyn}\n}", r"\text{Evelyn}", True),
    (r"The answer is $\text{St. Paul}$", r"\text{St. Paul}", True),
    ("The answer is approx. $5$", "5", True), ("The answer is \\( 5. \\)", "5", True),
    ("Answer: 1. $x=7$", "7", True),
    (r"\boxed{2\pi \approx 6.28, 3\pi \approx 9.42}", r"2\pi", False),
    ("5", "5", True), ("", "5", False)])
def test_each_solution_may_have_its_own_box(text, gold, want):
    """Fails if only the last box of a list is read, or boxes of other lines belong to it."""
    assert right(text, gold) == want


@pytest.mark.parametrize("question, text, gold, want", [
    (r"Simplify $\sqrt{242}$.", r"\boxed{\sqrt{242}}", r"11\sqrt2", False),
    (r"Simplify $\sqrt{242}$.", r"\boxed{\sqrt{242} = 11\sqrt{2}}", r"11\sqrt2", True),
    (r"Factor \[ab+5b+2a+10.\]", r"\boxed{ab + 5b+2a+10}", "(a+5)(b+2)", False),
    (r"What is $\frac{9}{2}$ as a decimal?", r"\boxed{\frac92}", "4.5", False),
    (r"Given $P(A)=1/2$, is it so?", r"\boxed{1/2}", r"\frac{1}{2}", True),
    (r"Is it \(\frac{3}{4}\) or more?", r"\boxed{\frac{3}{4}}", r"\frac34", True),
    ("Half of $10$ or of $5$?", r"\boxed{5}", "5.0", True),
    (r"He has \$4, and more if $x = 1$.", "He pays \\$24 more, thus $x = 36$", r"\$36", True)])
def test_a_formula_of_the_question_is_no_answer(question, text, gold, want):
    """Fails if what is to be simplified, factored or converted earns as it stands, what is to be
    picked does not, or a sum of money opens a formula."""
    assert right(text, gold, question) == want
    example = Example(question, gold, match="math")
    assert tasks.right(example, text) == want


def test_no_answer_is_wrong_and_long_ones_end():
    """Fails if an unreadable answer earns something, or one takes long:
    each of these grew with the power of its length.
    """
    example = Example("p", "5", "math")
    bombs = ["1" + "ab" * 148, "1 " + "aa." * 95 + "!", "\\text{" * 49, "{" * 299, "-" * 299,
             "\\pm" * 99, "\\sqrt" * 59, "\\frac" * 59, "2^" * 149, "((x+1)^64)^64", "x^64" * 70,
             "1\\frac{1}{2}" * 20, "\\cup" * 74, "((((x+9)^60)^60)^60)^60", "9" * 299]
    assert tasks.rewards([example] * len(bombs), bombs) == [0.0] * len(bombs)
    assert tasks.rewards([example] * 5, ["", "I do not know.", "\\boxed{}",
                                         "The answer is", "\\boxed{5"]) == [0.0] * 5
    assert tasks.rewards([example] * 3,
                         ["\\[" * 20_000, "$" * 50_000, "\\boxed{" * 20_000]) == [0.0] * 3
    for text in bombs:
        try:
            found = value(text)
            assert not hasattr(found, "numerator") or found.numerator.bit_length() < 9000
        except (ValueError, ArithmeticError, RecursionError):
            pass


# ------------------------------------------------------------------- the real files, where they are
REAL = os.environ.get(published.FOLDER)
if REAL:
    def fetched(name):
        """Skips the test where this set is not in the folder, which may hold some of them."""
        if not all(published.locate(REAL, file).exists() for file in published.SETS[name].files):
            pytest.skip(f"{name} is not in {published.FOLDER}")

    def test_real_files_are_those_that_are_known():
        """Fails if a file of the folder has other content than the hashes say."""
        states = {row["state"] for row in published.report(REAL, say=lambda text: None)}
        assert states <= {"present", "missing"}

    @pytest.mark.slow
    @pytest.mark.parametrize("name", list(published.SETS))
    def test_real_gold_answers_earn(name):
        """Fails if a published answer is judged wrong, or splits of real data share a question."""
        fetched(name)
        found = published.load(name, REAL)
        rows = [e for split in found.values() for e in split]
        keys = [{e.key for e in split} for split in found.values()]
        assert len(set.union(*keys)) == sum(map(len, keys))
        texts = [answer(e.answer) if e.match == "code" else f'{e.answer}". Yes' if e.options
                 else f"So the answer is ${e.answer}$." if e.match == "math"
                 else f"#### {e.answer}" for e in rows]
        wrong = [e.key for e, r in zip(rows, tasks.rewards(rows, texts)) if not r]
        assert wrong in ([], [
            # needs over 2 s
            "Write a function to sum all amicable numbers from 1 to a specified number."])

    @pytest.mark.parametrize("split, rows", [("test", 1319), ("train", 7473)])
    @pytest.mark.parametrize("said", [r"The final answer is \boxed{%s}.", r"$\boxed{%s}$",
                                      "#### %s", r"Answer: \$%s", "The answer is $%s$."])
    def test_real_solutions_with_their_answer_earn(split, rows, said):
        """Fails if a number of a published solution is read instead of its final answer
        (CASES row 6: 41 of 1,319).
        """
        fetched("gsm8k")
        wrong = []
        for _, row in published.read_rows(os.path.join(REAL, f"gsm8k/{split}.jsonl")):
            solution, gold = re.sub("<<.*?>>", "", row["answer"]).split("####")
            text = solution + said % gold.strip()
            wrong += [text] if not tasks.right(Example("p", gold.strip(), "number"), text) else []
            rows -= 1
        assert not wrong and rows == 0

    def test_real_math_answers_differ():
        """Fails if two different answers of the set are taken for one."""
        fetched("math-500")
        gold = [e.answer for split in published.load("math-500", REAL).values() for e in split]
        rng = random.Random(0)
        for want in gold:
            for wrapped in (f"\\boxed{{{want}}}", f"The answer is ${want}$", f" $$ {want} $$ ",
                            f"It is $x$. Then \\boxed{{ {want} }}."):
                assert same_answer(find_final(wrapped), want), want
        equal = {(a, b) for a in gold for b in rng.sample(gold, 20) if a != b and same_answer(a, b)}
        allowed = [{"36", "36^\\circ"}, {"15", "15\\mbox{ cm}^2"}, {"\\frac14", "\\frac{1}{4}"}]
        values = [p for p in equal if set(p) not in allowed and value_of(p[0]) != value_of(p[1])]
        assert not values

    def value_of(text):
        """By its digits alone: what both spellings of one number share."""
        return "".join(c for c in text.replace("dfrac", "frac") if c.isdigit())


def test_forms_are_compared_on_validation_questions(data, tmp_path, monkeypatch):
    """Fails if a wording is chosen by a question that is scored later,
    leaves a part of the question away, or is another one than the task asks in where it says so;
    or if options are not both written and chosen.
    """
    monkeypatch.setenv(published.FOLDER, str(tmp_path))
    seen = []

    def score(model, tokenizer, task, examples, label, choose, counts):
        seen.append((task, examples, choose))
        counts["cut"] += 1
        return [1.0] + [0.0] * (len(examples) - 1)

    monkeypatch.setattr(forms.evaluate, "score", score)
    lab = SimpleNamespace(
        data=str(tmp_path), model=None, tokenizer=None,
        examples=lambda name, n, split: tasks.get(name).examples(split, n, seed=0))
    found = [(key, run()) for key, run in forms.cells(lab)]
    assert {key["task"] for key, _ in found} == {*forms.FORMS, "arc-easy"}
    names = [key["task"] for key, _ in found[:-4]] + ["arc-easy"] * 2 + ["arc-easy-letters"] * 2
    [begun] = [i for i, (key, _) in enumerate(found) if "Step 1:" in key["arm"]]
    assert names[begun] == "gsm8k" and seen[begun][0].opener == "Step 1:"
    as_asked = set()
    for name, (_, row), (task, examples, choose) in zip(names, found, seen, strict=True):
        val = tasks.get(name).examples("val", forms.QUESTIONS, seed=0)
        assert row["split"] == "val"
        assert row["n"] == len(val) and row["cut"] == round(1 / len(val), 4)
        assert all(e.prompt in shown.prompt and e.answer == shown.answer
                   for e, shown in zip(val, examples, strict=True))
        assert task.max_tokens == (forms.LONGEST if name in forms.FORMS
                                   else tasks.get(name).max_tokens)
        if [e.prompt for e in val] == [e.prompt for e in examples]:
            as_asked.add((name, choose))
    assert (as_asked >= {(name, False) for name in [*forms.FORMS, *forms.OPTIONS]}
            | {(name, True) for name in forms.OPTIONS})
    assert all(next(iter(ways.values())) == "{}" for ways in forms.FORMS.values())
    monkeypatch.delenv("T2MINI_DATA", raising=False)
    with pytest.raises(ValueError, match="--data=DIR"):
        experiments.ALL["forms"].check(None)


def test_the_signal_is_that_of_the_answers_an_update_would_learn_from(
        loaded, data, tmp_path, monkeypatch):
    """Fails if test or validation questions are asked,
    a shorter limit is not what sampling with it gives, an answer that was cut off earns,
    or a question whose answers all earn the same counts as one that teaches.
    """
    model, tokenizer = loaded
    monkeypatch.setenv(published.FOLDER, str(tmp_path))
    monkeypatch.setattr(signal, "LIMITS", (3, 8))
    monkeypatch.setattr(signal, "PROMPTS", 5)
    asked, kept, real = [], [], signal.reinforce.sample
    monkeypatch.setattr(signal.reinforce, "sample",
                        lambda *a, **k: kept.append((*real(*a, **k), a[3])) or kept[-1][:2])
    monkeypatch.setattr(tasks.ListTask, "examples",
                        lambda self, split, n, seed=0: asked.append(split) or [
                            Example(f"question {i}", "5", "number") for i in range(n)])
    lab = SimpleNamespace(data=str(tmp_path), model=model, tokenizer=tokenizer, n=lambda n: n - 1)
    (key, run), *others = signal.cells(lab)
    judge, lengths = signal.learnable, []
    monkeypatch.setattr(signal, "learnable", lambda lab, config, episodes: lengths.append(
        max(len(e.tokens) for e in episodes)) or judge(lab, config, episodes))
    row = run()
    assert lengths == [3, 8]
    assert key == {"seed": 0, "task": "gsm8k", "arm": "temperature 0.4"}
    assert asked == ["train"] and row["split"] == "train"
    [(episodes, _, used)] = kept
    assert used.must_stop and len(episodes) == 24 and used.temperature == 0.4
    others[0][1]()
    assert kept.pop()[2].temperature == 0.7
    config = TrainConfig(task="gsm8k", temperature=0.4, prompts=4, samples=6,
                         max_tokens=3, must_stop=True)
    short = real(model, tokenizer, tasks.get("gsm8k"), signal.recipe.settled(config), 1)[0]
    assert [signal.cut(lab, e, 3) for e in episodes] == short
    assert any(len(e.tokens) > 3 for e in episodes)
    for limit, cut_there in (("3", short), ("8", episodes)):
        assert row["limits"][limit]["cut"] == round(sum(not e.stopped for e in cut_there) / 24, 4)

    earned = [[0] * 6, [1] * 6, [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]]
    monkeypatch.setattr(
        tasks, "rewards",
        lambda examples, texts, counts: [float(r) for group in earned for r in group])
    whole = [signal.replace(e, stopped=True) for e in episodes]
    found = signal.learnable(lab, signal.recipe.settled(config), whole)
    assert (found["teach"], found["earn"], found["cut"], found["right"]) == (0.5, 0.5, 0.0, "0615")
    whole[6].stopped = False
    assert signal.learnable(lab, signal.recipe.settled(config), whole)["right"] == "0515"
    lines = figures.table([key | row]).splitlines()
    assert len(lines) == 4 and lines[2].startswith("| gsm8k | temperature 0.4 | 3 | 4 x 6 | ")
    known = key | row | {
        "limits": {"3": {"teach": 0.25, "ci95": [0.1, 0.5], "earn": 0.03, "cut": 0.96}}}
    assert figures.table([known]).splitlines()[2].endswith("| 4 x 6 | 25 [10, 50] | 3 | 96 |")
    drawn = []
    monkeypatch.setattr(
        figures, "save",
        lambda fig, path: drawn.append({line.get_label(): line for line in fig.axes[0].lines}))
    later = known | {"arm": "temperature 0.7",
                     "limits": {"3": known["limits"]["3"] | {"teach": 0.5}}}
    # measured again, so behind
    figures.signal({"name": "signal", "rows": [later, known]}, tmp_path / "signal.png")
    for arm, share in ("temperature 0.4", 25), ("temperature 0.7", 50):
        assert drawn[0][arm].get_color() == figures.HEAT[arm]
        assert drawn[0][arm].get_ydata()[0] == share
    monkeypatch.delenv("T2MINI_DATA", raising=False)
    with pytest.raises(ValueError, match="--data=DIR"):
        experiments.ALL["signal"].check(None)
    monkeypatch.setenv("T2MINI_DATA", "there")
    experiments.ALL["signal"].check(None)


def test_real05_asks_the_experts_that_the_base_has(monkeypatch, tmp_path):
    """Fails if a missing expert stops the others,
    a LoRA learns from other settings than the expert beside it, one chooses and the other writes,
    or mixtures are asked for where there is one expert, and not where there are two.
    """
    def meta(task, objective):
        config = asdict(TrainConfig(task=task, steps=90, prompts=48, objective=objective,
                                    temperature=6.0, lr=4e-3, seed=3))
        return {"task": task, "parameters": 7, "config": config}

    there = {"reasoning": meta("arc-easy-letters", "options")}
    monkeypatch.setattr(larger, "own_expert", lambda lab, name: there.get(name, {}))
    asked, made = [], []

    def expert(task, seed, **settings):
        made.append((task, seed, settings))
        return {"z": 1}, {"parameters": 50}

    def score(task, n, z, meta=None, choose=False, max_tokens=0):
        asked.append((task, n, z, choose, max_tokens))
        return {"n": 4}

    lab = SimpleNamespace(data=str(tmp_path), model=None, expert=expert, score=score,
                          arm=print, in_context=print)
    found = [(key["task"], key["arm"], run) for key, run in larger.cells(lab)]
    arms = ["base", "svf", "base, choosing", "svf, choosing", "lora, choosing"]
    easy, hard = ([(task, arm) for arm in arms] for task in larger.SETS["reasoning"])
    for found_of, other in (easy, "arc-easy"), (hard, "arc-challenge"):
        found_of += [(other, "base"), (other, "base, choosing"), (other, "svf, choosing"),
                     (f"{other}-open", "base, choosing"), (f"{other}-open", "svf, choosing")]
    copied = ["svf, next-token", "lora, next-token"]
    written = [*((task, arm) for task in larger.SETS["math"] for arm in ("base", *copied)),
               ("mbpp", "base"), ("humaneval", "base")]
    written.insert(3, ("gsm8k", "base"))
    assert ([(task, arm) for task, arm, _ in found]
            == [*written, *easy, *hard, ("published", "prompt")])

    row = next(run for task, arm, run in found if arm == "lora, choosing")()
    [(task, seed, settings)] = made
    assert (task, seed) == ("arc-easy-letters", 0) and row == {"n": 4, "parameters": 50, "lr": 3e-5}
    assert TrainConfig(task=task, **settings) == replace(
        TrainConfig(**there["reasoning"]["config"]), method="lora", lr=3e-5, seed=0)
    assert asked == [("arc-easy-letters", larger.WHOLE, {"z": 1}, True, 0)]
    made.clear()
    next(run for task, arm, run in found if (task, arm) == ("arc-challenge", "svf, choosing"))()
    [(task, _, settings)] = made
    assert TrainConfig(task=task, **settings) == replace(       # a form has an expert of its own
        TrainConfig(**there["reasoning"]["config"]), task="arc-easy", temperature=3.0, seed=0)
    assert asked.pop() == ("arc-challenge", larger.WHOLE, {"z": 1}, True, 0)

    writes = {"reasoning": meta("arc-easy-letters", "reward")}
    monkeypatch.setattr(larger, "own_expert", lambda lab, name: writes.get(name, {}))
    assert not [key for key, _ in larger.cells(lab) if "choosing" in key["arm"]
                or "open" in key["task"]]                   # nobody writes what is not listed
    monkeypatch.setattr(larger, "own_expert", lambda lab, name: there.get(name, {}))
    there |= {"code": meta("mbpp", "reward"), "dispatcher": meta("dispatch", "reward")}
    [two] = [run for key, run in larger.cells(lab)
             if (key["task"], key["arm"]) == ("math-500", "uniform alpha")]
    assert two.args[0] == two.args[1].args[2] == ["code", "reasoning"]

    there |= {"math": meta(larger.SETS["math"][0], "reward")}
    arms = {}
    for key, _ in larger.cells(lab):
        arms.setdefault(key["task"], set()).add(key["arm"])
    assert arms["published"] == {"prompt", "classifier"}
    assert arms["mbpp"] == {"base", "svf", "lora", "svf, second run"}
    differ = {"svf, second run": dict(there["math"]["config"], seed=4, lr=4e-3),
              "svf, next-token": dict(larger.IMITATION, lr=5e-3, method="svf"),
              "lora, next-token": dict(larger.IMITATION, lr=1e-4, method="lora")}
    assert arms["gsm8k-steps"] == {"base", "svf", "lora", *differ}
    assert arms["gsm8k"] == {"base", "svf"}                 # the same expert, without the opener
    monkeypatch.setattr(larger.experts, "load", lambda names, model: dict.fromkeys(names, {"z": 2}))
    row = next(run for key, run in larger.cells(lab)
               if (key["task"], key["arm"]) == ("gsm8k", "svf"))()
    assert asked.pop() == ("gsm8k", larger.WHOLE, {"z": 2}, False, 400) and row["parameters"] == 7
    for arm, expected in differ.items():
        made.clear()
        row = next(run for key, run in larger.cells(lab) if (key["task"], key["arm"])
                   == ("gsm8k-steps", arm))()
        [(task, seed, settings)] = made
        assert task == "gsm8k-steps" and row["lr"] == expected["lr"]
        assert (TrainConfig(task=task, seed=seed, **settings)
                == TrainConfig(**{"task": task, **expected}))
    there["math"] = meta("gsm8k-few-sums", "reward")        # a part of the same set
    assert arms["gsm8k-steps"] == {key["arm"] for key, _ in larger.cells(lab)
                                   if key["task"] == "gsm8k-steps"}
    for _, task in larger.SETS.values():
        assert arms[task] >= {"prompt", "classifier", "uniform alpha", "cem",
                              "best single expert", "10-shot in context"}
    monkeypatch.delenv("T2MINI_DATA", raising=False)
    with pytest.raises(ValueError, match="--data=DIR"):
        experiments.ALL["real05"].check(None)


def test_each_row_of_real05_measures_what_its_name_says(monkeypatch):
    """Fails if a row that says "choosing" is of written answers or the other way round,
    an expert's row is of the base model, a LoRA runs on SVF's layers,
    or the classifier's row has no dispatcher.
    """
    objectives = {"math": "reward", "code": "reward",
                  "reasoning": "options", "dispatcher": "options"}
    there = {name: {"task": larger.SETS.get(name, [name])[0], "parameters": 7,
                    "config": asdict(TrainConfig(objective=objective))}
             for name, objective in objectives.items()}
    lora = {"parameters": 50, "method": "lora"}
    monkeypatch.setattr(larger, "own_expert", lambda lab, name: there[name])
    monkeypatch.setattr(larger.experts, "load", lambda names, model: {name: name for name in names})
    monkeypatch.setattr(larger, "confusion",
                        lambda lab, kind, names, first, n: {"said": ("confusion", names, first, n)})
    monkeypatch.setattr(larger, "searched",
                        lambda lab, task, seed, n, names: {"said": ("cem", task, seed, n, names)})
    monkeypatch.setattr(larger, "equally",
                        lambda lab, task, names, n: {"said": ("equal", task, names, n)})
    monkeypatch.setattr(larger, "found_on_shots",
                        lambda lab, task, seed, way, n, names: {
                            "said": (way, task, seed, n, names)})

    def expert(task, seed, **settings):
        method = settings.get("method", f"svf {seed}")
        return f"{method} by {settings['objective']} of {task}", lora

    def score(task, n, z, meta=None, choose=False, max_tokens=0):
        assert max_tokens == (400 if "gsm8k" in task else 0)
        return {"said": (task, n, z, meta, choose)}

    lab = SimpleNamespace(
        data="there", model=None, expert=expert, score=score,
        arm=lambda task, n, **options: {"said": ("arm", task, n, options)},
        in_context=lambda task, n, seed, show: {"said": ("shots", task, seed, n)})
    found = {(key["task"], key["arm"], key["seed"]): run() for key, run in larger.cells(lab)}
    n, said = larger.WHOLE, {key: row["said"] for key, row in found.items()}
    names = ["math", "code", "reasoning"]
    assert {arm for (_, arm, _), row in found.items() if "mixed" in row} == {
        "uniform alpha", "cem", "best single expert"}
    for name, (seen, unseen) in larger.SETS.items():
        chosen = objectives[name] == "options"
        for task in (seen, unseen):
            for choose in (False, True) if chosen else (False,):
                how = ", choosing" if choose else ""
                assert said.pop((task, f"base{how}", 0)) == (task, n, {}, None, choose)
                assert said.pop((task, f"svf{how}", 0)) == (task, n, name, None, choose)
            how = ", choosing" if chosen else ""
            assert (said.pop((task, f"lora{how}", 0))
                    == (task, n, f"lora by {objectives[name]} of {seen}", lora, chosen))
            if not chosen:
                assert (said.pop((task, "svf, second run", 0))
                        == (task, n, f"svf 1 by reward of {seen}", lora, False))
            for method in ("svf", "lora") if name == "math" else ():
                assert (said.pop((task, f"{method}, next-token", 0))
                        == (task, n, f"{method} by next-token of {seen}", lora, False))
        for arm in ("prompt", "classifier"):
            assert said.pop((unseen, arm, 0)) == ("arm", unseen, n, {"strategy": arm})
        assert said.pop((unseen, "uniform alpha", 0)) == ("equal", unseen, names, n)
        for seed in larger.SEEDS:
            assert said.pop((unseen, "cem", seed)) == ("cem", unseen, seed, n, names)
            assert (said.pop((unseen, "best single expert", seed))
                    == (larger.best_single, unseen, seed, n, names))
            assert said.pop((unseen, "10-shot in context", seed)) == ("shots", unseen, seed, n)
    for task in ("arc-easy", "arc-challenge"):
        for choose in (False, True):
            assert (said.pop((task, "base, choosing" if choose else "base", 0))
                    == (task, n, {}, None, choose))
        hidden = f"{task}-open"
        assert said.pop((hidden, "base, choosing", 0)) == (hidden, n, {}, None, True)
        for form, learnt in (task, "arc-easy"), (hidden, "arc-easy-open"):
            assert (said.pop((form, "svf, choosing", 0))
                    == (form, n, f"svf 0 by options of {learnt}", lora, True))
    assert said.pop(("gsm8k", "base", 0)) == ("gsm8k", n, {}, None, False)
    assert said.pop(("gsm8k", "svf", 0)) == ("gsm8k", n, "math", None, False)
    for arm, first in ("prompt", None), ("classifier", "dispatcher"):
        assert (said.pop(("published", arm, 0))
                == ("confusion", ["gsm8k", "math-500", "mbpp", "humaneval", "arc-easy-letters",
                                  "arc-challenge-letters"], first, 200))
    assert not said
    assert all(bool(row.get("note")) == (arm == "prompt") for (_, arm, _), row in found.items())


@pytest.mark.parametrize("change, whose",
                         [({}, True), ({"base_sha256": "b"}, False), ({"method": "lora"}, False),
                          ({"task": "reasoning"}, False), ({"config": None}, False)])
def test_real05_takes_no_expert_of_another_base_method_or_task(monkeypatch, change, whose):
    """Fails if an expert in out/ that is something else stands for the one of the published set,
    or one that was trained on a part of the set does not.
    """
    meta = {"base_sha256": "a", "method": "svf", "task": "arc-easy-letters", "config": {}} | change
    meta = {k: v for k, v in meta.items() if v is not None}
    monkeypatch.setattr(larger.experts, "find", lambda name, model: name)
    monkeypatch.setattr(larger.experts, "read_metadata", lambda path: meta)
    lab = SimpleNamespace(model=SimpleNamespace(base_sha256="a"))
    assert larger.own_expert(lab, "reasoning") == (meta if whose else {})
    meta |= {"task": "gsm8k-few-sums"}
    part = change.keys() <= {"task"}
    assert bool(larger.own_expert(lab, "math")) == part and not larger.own_expert(lab, "code")


def test_timing05_times_the_unseen_sets_with_the_experts_that_are_there(monkeypatch):
    """Fails if a skill without an expert stops it, or one that has an expert is answered without.
    """
    monkeypatch.setattr(larger, "own_expert", lambda lab, name: name != "math")
    monkeypatch.setattr(experiments.experts, "load", lambda names, model: {n: n for n in names})
    monkeypatch.setattr(experiments, "passes", lambda lab, *how: how)
    lab = SimpleNamespace(model=SimpleNamespace(name="some base"))
    found = {(key["task"], key["arm"], key["seed"]): run()
             for key, run in experiments.timing05(lab)}
    there = {"code": "code", "reasoning": "reasoning"}
    assert found == {(task, arm, 0): (task, 0, first, there)
                     for task in ("math-500", "humaneval", "arc-challenge-letters")
                     for arm, first in (("prompt", None), ("classifier", "dispatcher"))}
    monkeypatch.setattr(larger, "own_expert", lambda lab, name: {})
    with pytest.raises(ValueError, match="some base has no experts for published questions"):
        list(experiments.timing05(lab))


def test_the_passes_that_are_timed_are_those_of_the_task(monkeypatch):
    """Fails if the time of an answer is taken without the words that the task begins it with, or
    under another task's limit."""
    asked = []
    monkeypatch.setattr(experiments.tasks, "get", lambda name: SimpleNamespace(
        opener="The answer is ", max_tokens=4,
        examples=lambda split, n, seed: [SimpleNamespace(prompt=f"{i}?") for i in range(n)]))
    monkeypatch.setattr(experiments.adapt, "route", lambda model, tokenizer, group, z:
                        [SimpleNamespace(label="math") for _ in group])
    monkeypatch.setattr(experiments.adapt, "second_pass", lambda *given, **options:
                        asked.append((given[2:], options)))
    lab = SimpleNamespace(model=None, tokenizer=None, n=lambda n: n)
    row = experiments.passes(lab, "some", 0, None, {"math": "z"})
    assert row["n"] == 32 and len(asked) == 12 + 2
    assert asked[0] == ((["0?"], ["math"], {"math": "z"}, 4), {"opener": "The answer is "})


def test_three_experts_of_arc_stand_beside_the_base_model_in_both_forms():
    """Fails if a form of the base model is left out, an expert of another seed is asked, or one
    that learnt from ARC-Challenge."""
    lab = SimpleNamespace(score=lambda task, n, *who, choose: (task, n, who, choose),
                          expert=lambda task, seed, **settings: (f"{task} {seed}", settings))
    found = {(key["task"], key["arm"], key.get("seed", 0)): run()
             for key, run in experiments.arc(lab)}
    whole, expected = experiments.WHOLE, {}
    for task in ("arc-easy", "arc-challenge"):
        for form in (task, f"{task}-open"):
            expected[form, "base, choosing", 0] = (form, whole, ({},), True)
        for seed in range(3):
            learnt = (f"arc-easy {seed}", experiments.CHOOSING)
            expected[task, "svf, choosing", seed] = (task, whole, learnt, True)
    assert found == expected


def test_answers_of_examples_in_the_prompt_are_in_the_form_that_is_asked_for():
    """Fails if real05 shows MATH-500's examples without a box,
    or others not as next-token training writes them.
    """
    assert larger.shown(Example("q", "36", "math")) == "\\boxed{36}"
    assert larger.shown(Example("q", "36", "number")) == "36"
    quoted = Example("q", "iron", "quoted", options=("iron", "wood"))
    assert larger.shown(quoted) == 'The right option is "iron"'     # as the model's own goes on

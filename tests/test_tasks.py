"""Tasks: disjoint splits, rewards that are earned, and a reader's own file with errors
that name the line.
"""
import json
import math
import os
import random
from collections import Counter

import pytest
from conftest import soon

from t2mini import tasks
from t2mini.questions import (code as problems_code, math as problems_math,
                              other as problems_other, reasoning as problems_reasoning)
from t2mini.questions import wide as problems_wide
from t2mini.questions import asserts, published, sandbox, yours
from t2mini.questions.example import Example, split_of
from t2mini.questions.yours import example_of

MADE = ("math", "code", "reasoning", "math-unseen", "code-unseen", "reasoning-unseen",
        "other", "dispatch")


@pytest.mark.parametrize("name", MADE)
def test_examples_repeat_and_splits_are_disjoint(name):
    """Fails if a seed does not decide the examples, or a content is in two splits."""
    task = tasks.get(name)
    assert task.examples("test", 6, 5) == task.examples("test", 6, 5) != task.examples("test", 6, 6)
    keys = {s: {e.key for seed in (0, 1) for e in task.examples(s, 25, seed)} for s in tasks.SPLITS}
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["val"]
    assert not keys["val"] & keys["test"]
    assert len({e.prompt for e in task.examples("train", 60)}) == 60
    assert all(split_of(e, task.buckets) == s
               for s in tasks.SPLITS for e in task.examples(s, 5, 2))
    assert task.examples("val", 0) == []
    with pytest.raises(ValueError, match="unknown split"):
        task.examples("whole", 1)


@pytest.mark.parametrize("name", [n for n in MADE if n != "dispatch"])
def test_gold_answers_earn_and_others_do_not(name):
    """Fails if the reference answer is not worth 1, or nothing,
    nonsense or the question itself is worth anything.
    """
    examples = tasks.get(name).examples("train", 15, 3)
    assert tasks.rewards(examples, [e.answer for e in examples]) == [1.0] * 15
    assert sum(tasks.rewards(examples, [""] * 15)) == 0
    assert sum(tasks.rewards(examples, ["I do not know."] * 15)) == 0
    if not name.startswith("other"):                        # "Please say the word lantern."
        assert sum(tasks.rewards(examples, [e.prompt for e in examples])) == 0
    if name.startswith("code"):
        assert sum(tasks.rewards(
            examples, [f"def {e.name}(*a):\n    return None" for e in examples])) == 0


def test_unseen_shares_no_kind_with_seen():
    """Fails if a family that trains is also called unseen."""
    for name in ("math", "code", "reasoning"):
        seen, unseen = (tasks.get(n).examples("train", 300) for n in (name, f"{name}-unseen"))
        kinds, keys = ([{read(e) for e in pool} for pool in (seen, unseen)]
                       for read in (lambda e: e.kind, lambda e: e.key))
        assert not kinds[0] & kinds[1] and len(kinds[0]) > 5 and len(kinds[1]) > 5
        assert not keys[0] & keys[1]
    assert not set(problems_code.FRAMES) & set(problems_code.FRAMES_UNSEEN)
    assert not set(problems_reasoning.SEEN_FORMATS) & set(problems_reasoning.UNSEEN_FORMATS)
    told = [{w for ws in frames.values() for w in ws} for frames in (
        problems_reasoning.SEEN_FRAMES, problems_reasoning.UNSEEN_FRAMES)]
    assert not told[0] & told[1]
    told = [{w for row in problems_math.POOLS[u] for w in row[3]} for u in (False, True)]
    assert not told[0] & told[1]


@pytest.mark.parametrize("name", [n for n in MADE if n.endswith("-unseen")])
def test_examples_of_an_unseen_task_are_of_the_kinds_that_are_scored(name):
    """Fails if a search learns from kinds of questions that its scores do not ask: with a tenth of
    the situations for each, 72 of 100 code examples were of other kinds than the test questions.
    """
    val, test = (Counter(e.kind for e in tasks.get(name).examples(s, 400)) for s in ("val", "test"))
    assert (val & test).total() > 0.6 * 400
    assert len(val.keys() ^ test.keys()) <= 2
    assert tasks.get(name).buckets == 3 and tasks.get("vision-unseen").buckets == 10


def test_a_task_with_too_few_examples_says_so():
    """Fails if asking for more different examples than there are runs for ever or returns fewer."""
    task = tasks.Task("tiny",
                      lambda rng: Example(f"q{rng.randrange(30)}", "1", "number"), 4, "math")
    with pytest.raises(ValueError, match="tiny has only .* in its test split; asked for 30"):
        task.examples("test", 30)


MISCHIEF = ["", "def {name}(", "```python\n```", "def other(*a): return 1",
            "import os\nos._exit(0)", "raise SystemExit(0)",
            "class E:\n    def __eq__(self, other): return True\ndef {name}(*a): return E()",
            "import sys\n"
            "def {name}(*a): return [f.f_locals for f in sys._current_frames().values()]",
            "print('+V(1, 1, 1, 1, 1, 1)')\nraise SystemExit",
            "def {name}(*a): return 10 ** 400", "def {name}(*a): return float('inf')"]


def test_mischief_earns_nothing():
    """Fails if ending early, a forged result, an object equal to everything or a huge number pays,
    or stops training.
    """
    example = tasks.get("code").examples("train", 1, 4)[0]
    assert (tasks.rewards([example] * len(MISCHIEF),
                          [text.replace("{name}", example.name) for text in MISCHIEF])
            == [0.0] * len(MISCHIEF))
    # all hidden calls must pass, not the first ones, and an answer of another length is none
    wrong = tasks.replace(example,
                          calls=(*example.calls[:-1], (example.calls[-1][0], "something else")))
    assert tasks.rewards([example, wrong], [example.answer] * 2) == [1.0, 0.0]
    values = tuple(value for _, value in example.calls)
    outcome = sandbox.Outcome
    assert asserts.passes(example, outcome(values))
    assert not asserts.passes(example, outcome(values[:-1]))
    assert not asserts.passes(example, outcome(None, "timeout"))
    assert not asserts.passes(example, outcome(()))


def test_mixed_batches_keep_their_order():
    """Fails if the sandbox's results are handed to the wrong examples."""
    some = [tasks.get(n).examples("train", 1, 9)[0]
            for n in ("math", "code", "reasoning", "code", "other")]
    assert tasks.rewards(some, [e.answer for e in some]) == [1.0] * 5
    texts = [some[0].answer, "def x(): pass", some[2].answer, some[3].answer, "nothing"]
    assert tasks.rewards(some, texts) == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_dispatch_is_balanced_and_uses_the_one_prompt():
    """Fails if training and asking use different dispatch prompts, a class is missing
    ("other" was, in the release), or the dispatcher learns from the experts' own questions alone.
    """
    examples = tasks.get("dispatch").examples("train", 200)
    for label in tasks.LABELS:
        assert 30 < sum(e.answer == label for e in examples) < 70
    makers = {"code": problems_code.make_code, "math": problems_math.make_math,
              "other": problems_other.make_other, "reasoning": problems_reasoning.make_reasoning}
    wide = 0
    for seed in range(40):
        rng = random.Random(seed)
        label = rng.choice(tasks.LABELS)
        asked, example = (problems_wide.either(rng, label, makers[label]),
                          tasks.make_dispatch(random.Random(seed)))
        assert example.prompt == tasks.dispatch_prompt(asked.prompt) and example.key == asked.key
        assert (example.answer, example.match, example.kind) == (label, "label", label)
        assert tasks.option_texts(example) == [f'{label}"' for label in tasks.LABELS]
        wide += example.key.startswith(f"wide/{label}/")
    assert 10 < wide < 30
    assert tasks.dispatch_prompt("a {b} {question}").count("a {b} {question}") == 1


def test_long_questions_are_cut():
    """Fails if a long question overflows the context, loses its end (where the request often is),
    or a short one is cut.
    """
    prompt = tasks.dispatch_prompt("start " + "word " * 5000 + "the end")
    assert len(prompt) < 2000 and "start word" in prompt and "word the end" in prompt
    assert "x" * 1200 in tasks.dispatch_prompt("x" * 1200)
    assert "x" * 801 not in tasks.dispatch_prompt("x" * 1201)


@pytest.mark.parametrize("text, want", [
    ("math", "math"), ("Math.", "math"), ("\\boxed{math}", "math"), ("The skill is CODE", "code"),
    ("math or code", None), ("", None), ("maths", None), ("other\n", "other"), ("MATH", "math"),
    ("**Reasoning**", "reasoning"), ("\\boxed{Math}", "math"), ("math, math", "math"),
    ("mathematics", None), ("1", None), ("another", None)])
def test_labels(text, want):
    """Fails if case or punctuation makes a label unreadable (the release wants an exact match),
    or two count as one.
    """
    assert tasks.find_label(text) == want


def test_unparseable_is_wrong():
    """Fails if an unreadable answer is turned into a guess."""
    reasoning = tasks.get("reasoning").examples("train", 40)
    assert sum(tasks.rewards(reasoning, ["It depends on many things."] * 40)) == 0
    dispatch = tasks.get("dispatch").examples("train", 20)
    assert sum(tasks.rewards(dispatch, ["hmm"] * 20)) == 0
    with pytest.raises(ValueError, match="no right answer"):
        tasks.right(Example("p", "", "open"), "x")
    of_each = [Example("p", "5", "number"), Example("p", "Paris", "exact"),
               Example("p", "sun", "contains"),
               Example("p", "dog", "choice", options=("dog", "cat")), Example("p", "math", "label"),
               tasks.get("code").examples("val", 1)[0]]
    for text in ("", " ", "?", "\n\n", "hmm, A dog or cat", "5 or 6", "\ufffd"):
        assert tasks.rewards(of_each, [text] * 6) == [0.0] * 6


def test_open_requests_are_never_graded():
    """Fails if the task "other" holds a request that has no right answer,
    or an open one can be scored.
    """
    rng = random.Random(0)
    assert any(problems_other.make_other(rng).match == "open" for _ in range(20))
    assert ({e.match for s in tasks.SPLITS for e in tasks.get("other").examples(s, 60)}
            == {"contains"})
    with pytest.raises(ValueError, match="no right answer"):
        tasks.rewards([Example("Tell me a story.", "", "open")], ["Once upon a time ..."])


def test_unknown_task_names_the_nearest():
    """Fails if a typing error is not answered with what was meant."""
    with pytest.raises(ValueError, match="did you mean reasoning"):
        tasks.get("reasonin")
    with pytest.raises(FileNotFoundError, match="no task file at nothing.jsonl"):
        tasks.get("nothing.jsonl")
    with pytest.raises(ValueError, match="unknown task 'zzz'. Choose from math, code"):
        tasks.get("zzz")
    for name in ("mine.csv", "x.json", "a/folder"):
        with pytest.raises(ValueError, match="or give a file of yours, whose name ends in .jsonl$"):
            tasks.get(name)


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def test_your_own_file(tmp_path):
    """Fails if a match kind does not grade, a split overlaps,
    or a repeated prompt sits in two splits.
    """
    rows = ([{"prompt": f"q{i}", "answer": "Yes"} for i in range(20)]
            + [{"prompt": "q0", "answer": "Yes"}])
    task = tasks.get(write(tmp_path / "a.jsonl", rows))
    split = {s: {e.prompt for e in task.examples(s, 99)} for s in tasks.SPLITS}
    assert [len(split[s]) for s in tasks.SPLITS] == [10, 8, 2]
    assert len(set.union(*split.values())) == 20
    kinds = [({"prompt": "p", "answer": 7, "match": "number"}, "It is 7.", "8"),
             ({"prompt": "p", "answer": "Yes"}, "yes.", "yes, no"),
             ({"prompt": "p", "answer": "b c", "match": "choice", "options": ["a", "b c"]}, "B",
              "a"),
             ({"prompt": "p", "answer": "sun", "match": "contains"}, "The sun!", "sunny"),
             ({"prompt": "p", "answer": " the sun ", "match": "contains"},
              "It is the sun.", "the moon"),
             ({"prompt": "p", "answer": "1,080", "match": "number"}, "1080", "2,080"),
             ({"prompt": "p", "answer": 2, "match": "choice", "options": [1, 2, 3]}, "2", "3")]
    for row, good, bad in kinds:
        example = example_of(row)
        assert tasks.rewards([example] * 2, [good, bad]) == [1.0, 0.0]
    assert (task.examples("train", 5, 1) == task.examples("train", 5, 1)
            != task.examples("train", 5, 2))
    assert len(task.examples("val", 99)) == 8                       # as many as there are
    with pytest.raises(ValueError, match="unknown split"):
        task.examples("whole", 1)


def test_files_as_people_have_them(tmp_path):
    """Fails if a byte order mark, Windows line ends,
    a missing last newline or U+2028 inside a text breaks a good file.
    """
    rows = [json.dumps({"prompt": f"q{i} \u2028 \u00e4", "answer": "x"}, ensure_ascii=False)
            for i in range(10)]
    for name, text in (("bom", "\ufeff" + "\n".join(rows) + "\n"),
                       ("windows", "\r\n".join(rows) + "\r\n"), ("cut", "\n".join(rows))):
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(text.encode("utf-8"))
        task = tasks.get(str(path))
        assert sum(len(task.examples(s, 99)) for s in tasks.SPLITS) == 10
        assert "q8 \u2028 \u00e4" in [e.prompt for e in task.examples("val", 9)]


@pytest.mark.parametrize("line, says", [
    ("", "empty line"), ("{", "not JSON"), ("[1]", "object"), ('{"prompt": "p"}', "answer"),
    ('{"answer": "a"}', "prompt"), ('{"prompt": "", "answer": "a"}', "prompt"),
    ('{"prompt": "p", "answer": "a", "match": "maybe"}', "match"),
    ('{"prompt": "p", "answer": "a", "match": "number"}', "not one"),
    ('{"prompt": "p", "answer": "a", "match": "choice"}', "options"),
    ("   ", "empty line"), ('{"prompt": "p", "answer": null}', "answer"),
    ('{"prompt": ["p"], "answer": "a"}', "prompt"),
    ('{"prompt": "p", "answer": "3 or 4", "match": "number"}', "'3 or 4' is not one"),
    ('{"prompt": "p", "answer": "?!"}', "nothing is left"),
    ('{"prompt": "p", "answer": "a", "match": "open"}', "match"),
    ('{"prompt": "p", "answer": "c", "match": "choice", "options": ["a", "b"]}',
     "holds the answer"),
    ('{"prompt": "p", "answer": "a", "match": "choice", "options": "a"}', "list of texts"),
    # options that cannot be told apart, or are no texts, whatever the match
    ('{"prompt": "p", "answer": "a", "match": "choice", "options": ["a", "b", "a"]}',
     "holds 'a' 2 times"),
    ('{"prompt": "p", "answer": "a", "match": "choice", "options": ["a", " a"]}',
     "holds 'a' 2 times"),
    ('{"prompt": "p", "answer": "1", "match": "number", "options": [1, "1"]}', "holds '1' 2 times"),
    ('{"prompt": "p", "answer": "a", "options": ["b", "c"]}', "'a' is not one of them"),
    ('{"prompt": "p", "answer": "a", "match": "contains", "options": ["b", "c"]}',
     "'a' is not one of them"),
    ('{"prompt": "p", "answer": "a", "match": "contains", "options": "ab"}', "list of texts"),
    ('{"prompt": "p", "answer": "a", "options": ["a", null]}', "list of texts"),
    ('{"prompt": "p", "answer": "a", "options": ["a", ""]}', "list of texts"),
    ('{"prompt": "p", "answer": "a", "options": {"a": 1}}', "list of texts"),
    ('{"prompt": "p", "answer": "a", "options": ["a"]}', "two at least"),
    ('{"prompt": "p", "answer": "a", "options": null}', "list of texts"),
    ('{"prompt": "p", "answer": "a", "options": 0}', "list of texts"),
])
def test_bad_lines_are_named(tmp_path, line, says):
    """Fails if an error in a reader's file does not say in which line it is."""
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "answer": "a"}, line])
    with pytest.raises(ValueError, match=f"line 2: .*{says}"):
        tasks.get(path)
    with pytest.raises(ValueError, match="empty"):
        tasks.get(write(tmp_path / "b.jsonl", []))
    with pytest.raises(ValueError, match="at least 10"):
        tasks.get(write(tmp_path / "c.jsonl", [{"prompt": "p", "answer": "a"}])).examples("test", 1)


OPTIONS = [("positive", "not positive"), ("Rr", "rr", "RR"), ("no", "no.", "No!"),
           ("a dog", "dog", "the dog"), ("B", "A"), ("1", "1.0", "01"),
           ("hot dog", "dog", "dog, hot"), ("B) x", "A) x"), ("5", "5 or 6", "6"),
           ("the answer is b", "x", "b")]


@pytest.mark.parametrize("match", ["choice", "exact", "contains", "number"])
@pytest.mark.parametrize("options", OPTIONS)
def test_an_option_is_judged_by_identity(options, match):
    """Fails if an option that was chosen goes through the grader of free text,
    which takes it for another: options that contain one another, differ only in case,
    or are equal as words or numbers.
    """
    if match == "number" and not options[0].replace(".", "").isdigit():
        options = ("3", "3.0", "1,000", "1000")
    for i, answer in enumerate(options):
        if match == "number" and tasks.to_number(answer) is None:
            continue
        example = example_of({"prompt": "p", "answer": answer, "match": match,
                              "options": list(options)})
        texts = tasks.option_texts(example)
        assert (tasks.rewards([example] * len(texts), texts)
                == [float(j == i) for j in range(len(texts))]), (answer, texts)
        assert tasks.rewards([example], [f" {texts[i]}\n"]) == [1.0]


def test_a_solution_of_yours_is_what_training_copies():
    """Fails if a row's solution is lost, judged instead of the answer, or has to be there; if
    another spelling of the word is missed, or a field that only sounds like it is taken for one.
    """
    row = {"prompt": "3 and 4?", "answer": "7", "match": "number"}
    worked = example_of(row | {"solution": " 3 + 4 = 7. "})
    assert worked.answer == "7" and tasks.gold(worked) == "3 + 4 = 7."
    for nothing in ({}, {"solution": None}, {"solution": ""}, {"resolution": "x"}):
        assert tasks.gold(example_of(row | nothing)) == "7"
    for wrong, said in (({"solution": ["7"]}, "is no text"), ({"solution": True}, "is no text"),
                        ({"solution": {}}, "is no text"), ({"solution": " "}, "is no text"),
                        ({"solution": math.nan}, "is no text"), ({"solutions": "7"}, "'solutions'"),
                        ({"Solution": "7"}, "another spelling")):
        with pytest.raises(ValueError, match=said):
            example_of(row | wrong)


def test_options_are_told_apart_although_a_solution_is_known():
    """Fails if each option is named by the worked solution of the right one."""
    example = Example("p", "A", "quoted", options=("A", "B"), solution="2 is even, so A")
    assert tasks.option_texts(example) == ['A"', 'B"']
    assert tasks.rewards([example] * 2, ['A"', 'B"']) == [1.0, 0.0]
    assert tasks.gold(example) == '2 is even, so A"'


def test_options_that_differ_in_case_are_found_in_free_text():
    """Fails if "It is rr." names Rr."""
    example = Example("p", "rr", "choice", options=("Rr", "rr"))
    assert (tasks.rewards([example] * 3, ["It is rr.", "It is Rr.", "The answer is RR"])
            == [1.0, 0.0, 0.0])
    one = Example("p", "Dog", "choice", options=("Dog", "cat"))
    assert tasks.rewards([one] * 2, ["a dog", "CAT"]) == [1.0, 0.0]


def test_options_that_the_objective_needs_are_asked_for_when_the_file_is_read(tmp_path):
    """Fails if a row without options is found only when it is drawn, hours later,
    or stops a run that needs none.
    """
    rows = [{"prompt": f"q{i}", "answer": "a", "options": ["a", "b"]} for i in range(30)]
    assert len(tasks.get(write(tmp_path / "a.jsonl", rows), choose=True).examples("train", 3)) == 3
    path = write(tmp_path / "b.jsonl", [*rows, {"prompt": "no list", "answer": "a"}])
    assert tasks.get(path)
    with pytest.raises(ValueError, match="'no list' lists no options"):
        tasks.get(path, choose=True)
    with pytest.raises(ValueError, match="lists no options"):
        tasks.get("math", choose=True)
    assert tasks.get("reasoning", choose=True)


def test_files_that_never_end_are_refused(tmp_path, monkeypatch):
    """Fails if a pipe, a device, a folder or a file of any size is read as questions
    (BREAKS row 19: they hang).
    """
    os.mkfifo(tmp_path / "pipe.jsonl")
    os.symlink("/dev/zero", tmp_path / "zero.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("pipe", "zero", "folder"):
        with soon(), pytest.raises(ValueError, match=rf"{name}.jsonl: not a regular file"):
            tasks.get(str(tmp_path / f"{name}.jsonl"))
    path = write(tmp_path / "large.jsonl", [{"prompt": "p", "answer": "a"}])
    monkeypatch.setattr(published, "MOST_BYTES", 8)
    with pytest.raises(ValueError, match=r"large.jsonl: \d+ bytes; at most 8"):
        tasks.get(path)
    os.symlink(path, tmp_path / "link.jsonl")
    monkeypatch.undo()
    assert tasks.get(str(tmp_path / "link.jsonl"))


@pytest.mark.parametrize("n, sizes",
                         [(1, (1, 0, 0)), (10, (5, 4, 1)), (20, (10, 8, 2)), (40, (20, 16, 4)),
                          (50, (25, 20, 5)), (67, (41, 20, 6)), (100, (70, 20, 10)),
                          (199, (140, 40, 19)), (200, (160, 20, 20)), (400, (320, 40, 40))])
def test_small_files_have_validation_questions(tmp_path, n, sizes):
    """Fails if 40 rows have 4 of validation, if a larger file's splits move,
    or one prompt is in two.
    """
    rows = [Example(f"q{i}", "a", "exact") for i in range(n)]
    found = yours.split(rows)
    assert tuple(len(found[s]) for s in tasks.SPLITS) == sizes and yours.split(rows) == found
    assert len({e.prompt for s in found.values() for e in s}) == n
    more = yours.split(rows + [Example("new", "a", "exact")])
    assert set(found["test"]) <= set(more["test"])


@pytest.mark.parametrize("text, word, holds", [
    ("it is 2.5", "2", False), ("-5", "5", False), ("1,500", "500", False), ("3/4", "4", False),
    ("it is 2.", "2", True), ("2, or so", "2", True), ("1,500", "1,500", True), ("-5", "-5", True),
    ("$5", "5", True), ("(5)", "5", True), ("5%", "5", True), ("Paris!", "paris", True)])
def test_a_number_is_contained_as_a_whole(text, word, holds):
    """Fails if 2.5 pays for 2, or -5 for 5."""
    assert tasks.right(Example("p", word, "contains"), text) == holds


def test_contains_that_pays_for_hedging_is_warned_of(tmp_path, capsys):
    """Fails if "positive or negative" earns 1 on every row and nobody says so,
    or a file that is right is warned of.
    """
    def err(rows):
        tasks.get(write(tmp_path / "a.jsonl", rows))
        return capsys.readouterr().err
    asked = "Is it positive or negative? {}"
    rows = [{"prompt": asked.format(i), "answer": ("Positive", "negative")[i % 2],
             "match": "contains"} for i in range(9)]
    assert tasks.rewards([example_of(r) for r in rows], ["positive or negative"] * 9) == [1.0] * 9
    said = err(rows)
    assert said.count("\n") == 1 and "9 of 9 prompts" in said
    assert "`match` choice with `options`" in said
    assert "1 of 3 prompts" in err([rows[0],
                                    {"prompt": "q", "answer": "negative", "match": "contains"},
                                    {"prompt": "r", "answer": "sun", "match": "contains"}])
    for fine in ([{**r, "match": "choice", "options": ["Positive", "negative"]} for r in rows],
                 [{**r, "prompt": f"How is it? {i}"} for i, r in enumerate(rows)],
                 [{**r, "prompt": f"Say positive. {i}", "answer": "positive"}
                  for i, r in enumerate(rows)]):
        assert err(fine) == ""


def test_many_rows_with_an_answer_of_their_own_are_read_quickly(monkeypatch):
    """Fails if every prompt is searched for every row's answer as words, which takes hours for ten
    thousand rows; or if an answer with other quotation marks is not found in a prompt."""
    looked, plain = [], yours.names
    monkeypatch.setattr(yours, "names", lambda *a: looked.append(a) or plain(*a))
    rows = [example_of({"prompt": f"Which order is {1000 + n} of?", "answer": f"{1000 + n}",
                        "match": "contains"}) for n in range(200)]
    assert yours.hedging(rows) == "" and len(looked) == 200
    either = [Example(f"Tom\u2019s or Ann's? {n}", name, "contains")
              for n, name in enumerate(["Tom's", "ANN\u2019s"])]
    assert yours.hedging(either).startswith("2 of 2 prompts")


def test_doubts_of_a_file_in_the_home_folder_are_told(tmp_path, monkeypatch, capsys):
    """Fails if a file that was read is not found when something is to be said of it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.jsonl", [{"prompt": "p", "answer": "a"}, {"prompt": "p", "answer": "b"}])
    tasks.get("~/a.jsonl")
    assert "1 rows ask a prompt of an earlier row" in capsys.readouterr().err


def test_contains_with_few_answers_is_warned_of(tmp_path, capsys):
    """Fails if a text that says every answer is right in all rows, and nobody says so."""
    rows = [{"prompt": f"Is {i} even?", "answer": ("no", "yes")[i % 2], "match": "contains"}
            for i in range(20)]
    tasks.get(write(tmp_path / "a.jsonl", rows))
    said = capsys.readouterr().err
    assert "20 rows" in said and "only 2 different answers" in said and "'no, yes'" in said
    tasks.get(write(tmp_path / "a.jsonl", rows[:19]))
    tasks.get(write(tmp_path / "a.jsonl", [{**r, "answer": str(i)} for i, r in enumerate(rows)]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("match", ["exact", "contains"])
@pytest.mark.parametrize("gold, said", [
    ("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9"), ("don't", "don\u2019t"),
    ("New York", "New\u00a0York"), ("New York", "new\n York")])
def test_two_ways_to_write_a_word_are_one(match, gold, said):
    """Fails if an accent, an apostrophe or a space of another kind makes a right answer wrong."""
    assert tasks.rewards([Example("p", gold, match)], [said]) == [1.0]


def test_numbers_in_a_file_are_taken_as_they_are_written(tmp_path):
    """Fails if 0.00001 becomes 1e-05, which no answer says, or NaN is a gold answer."""
    row = '{{"prompt": "p", "answer": {}, "match": "exact"}}'
    [one] = tasks.get(write(tmp_path / "a.jsonl", [row.format("0.00001")])).examples("all", 1)
    assert one.answer == "0.00001" and tasks.rewards([one], ["0.00001"]) == [1.0]
    for bad in ("NaN", "Infinity"):
        with pytest.raises(ValueError, match="line 1: `answer` is empty, or neither"):
            tasks.get(write(tmp_path / "a.jsonl", [row.format(bad)]))
    for fine in ('"answer": 1e5, "match": "number"', '"answer": "5", "score": NaN',
                 '"answer": 0.5, "match": "choice", "options": [0.50, 1.5]'):
        tasks.get(write(tmp_path / "a.jsonl", ['{"prompt": "p", ' + fine + "}"]))


def test_another_spelling_of_a_field_is_told_and_other_fields_are_let_through():
    """Fails if a slip in a field's name changes how answers are judged, without a word."""
    row = {"prompt": "1 + 1?", "answer": "2"}
    for slip in ("mtach", "Match", "matches", "Options"):
        with pytest.raises(ValueError, match=f"is missing; is '{slip}' another spelling"):
            example_of({**row, slip: "number"})
    with pytest.raises(ValueError, match="`answer` is missing; is 'Answer' another spelling"):
        example_of({"prompt": "1 + 1?", "Answer": "2"})
    with pytest.raises(ValueError, match="`prompt` is missing; the fields here are 'question', 'a.*"
                                         "'; rename the one that holds it"):
        example_of({"question": "1 + 1?", "answer": "2"})
    with pytest.raises(ValueError, match="`answer` is empty"):
        example_of({"prompt": "1 + 1?", "answer": " "})
    other = {"id": 7, "source": "x", "prompt_id": 3, "answers": ["2", "two"], "batch": 3,
             "math": True, "patch": "a"}
    assert example_of({**row, **other}) == example_of(row)


def test_rows_that_want_another_answer_to_the_same_prompt_are_told_of(tmp_path, capsys):
    """Fails if most of a file is left out in silence, as its questions stand in another field."""
    rows = [{"prompt": "Sort it.", "answer": a} for a in "abab"] + [{"prompt": "q", "answer": "b"}]
    assert len(tasks.get(write(tmp_path / "a.jsonl", rows)).examples("all", 9)) == 2
    said = capsys.readouterr().err
    assert "2 rows ask a prompt of an earlier row" in said and said.count("\n") == 1
    tasks.get(write(tmp_path / "a.jsonl", rows[:1] + rows[2:3] + rows[4:]))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("encoding, line", [("cp1252", 2), ("utf-16", 1)])
def test_a_file_that_is_not_utf_8_is_refused(tmp_path, encoding, line):
    """Fails if letters become question marks, which no answer ever equals."""
    rows = '{"prompt": "p", "answer": "a"}\r\n{"prompt": "klein?", "answer": "sch\u00f6n"}\r\n'
    path = tmp_path / "a.jsonl"
    path.write_bytes(rows.encode(encoding))
    with pytest.raises(ValueError, match=f"a.jsonl line {line}: not UTF-8 text; save the file as"):
        tasks.get(str(path))
    path.write_bytes(rows.encode("utf-8-sig"))
    assert tasks.get(str(path)).examples("all", 2)[-1].prompt in ("p", "klein?")


def test_time_outs_are_counted(monkeypatch):
    """Fails if a caller cannot tell programs that took too long from wrong ones (CASES row 7)."""
    from collections import Counter
    example = Example("q", "a", "code", calls=(((3,), 3),), name="f")
    monkeypatch.setattr(sandbox, "call_many",
                        lambda jobs, real=sandbox.call_many: real(jobs, seconds=0.2))
    counts = Counter()
    programs = ["def f(x): return 3", "def f(x):\n    while True: pass", "def f(x): return 4",
                "```python\nwhile True: x = 1\n```"]
    assert tasks.rewards([example] * 4, programs, counts) == [1.0, 0.0, 0.0, 0.0]
    assert counts == {"timeouts": 2} and tasks.rewards([example], programs[:1], counts) == [1.0]
    assert counts["timeouts"] == 2


def test_annotations_work_behind_a_prompt(monkeypatch):
    """Fails if `from __future__` in an answer is a syntax error
    because the prompt's program stands before it.
    """
    example = Example("q", "a", "code", calls=(((3,), 3),), name="f",
                      before='from typing import List\n\ndef f(x):\n    """ x """\n')
    assert tasks.rewards([example], ["from __future__ import annotations\n\n"
                                     "def f(x: Nowhere) -> int:\n    return x"]) == [1.0]


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    """Fails if --task=~/mine.jsonl is looked for in a folder named ~ (CASES row 17)."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "mine.jsonl", [{"prompt": "p", "answer": "a"}])
    assert len(tasks.get("~/mine.jsonl").examples("train", 3)) == 1
    assert published.folder_of("~") == str(tmp_path)


def test_all_rows_of_a_file_are_a_split_of_their_own(tmp_path):
    """Fails if a file that training never read can only be scored by the tenth of it,
    or another task has such a split.
    """
    path = tmp_path / "held_out.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {i}", "answer": str(i)}) + "\n"
                            for i in range(12)))
    task = tasks.get(str(path))
    assert sorted(e.answer for e in task.examples("all", 99)) == sorted(map(str, range(12)))
    assert len(task.examples("test", 99)) == 1
    with pytest.raises(ValueError, match="unknown split 'all'; choose from train, val, test"):
        tasks.get("math").examples("all", 3)

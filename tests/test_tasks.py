"""Tasks: disjoint splits, rewards that are earned, and a reader's own file with errors that name the line."""
import json
import random

import pytest

from t2mini import tasks
from t2mini.grade import split_of

MADE = ("math", "code", "reasoning", "math-unseen", "code-unseen", "reasoning-unseen", "other", "dispatch")


@pytest.mark.parametrize("name", MADE)
def test_examples_repeat_and_splits_are_disjoint(name):
    """Fails if a seed does not decide the examples, or a content is in two splits."""
    task = tasks.get(name)
    assert task.examples("test", 12, 5) == task.examples("test", 12, 5) != task.examples("test", 12, 6)
    keys = {s: {e.key for seed in (0, 1) for e in task.examples(s, 60, seed)} for s in tasks.SPLITS}
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["val"] and not keys["val"] & keys["test"]
    assert len({e.prompt for e in task.examples("train", 60)}) == 60
    with pytest.raises(ValueError, match="unknown split"):
        task.examples("all", 1)


@pytest.mark.parametrize("name", [n for n in MADE if n != "dispatch"])
def test_gold_answers_earn_and_others_do_not(name):
    """Fails if the reference answer is not worth 1, or nothing, nonsense or the question itself is worth anything."""
    examples = tasks.get(name).examples("train", 25, 3)
    assert tasks.rewards(examples, [e.answer for e in examples]) == [1.0] * 25
    assert sum(tasks.rewards(examples, [""] * 25)) == 0
    assert sum(tasks.rewards(examples, ["I do not know."] * 25)) == 0
    if name.startswith("code"):
        assert sum(tasks.rewards(examples, [f"def {e.name}(*a):\n    return None" for e in examples])) == 0


def test_unseen_shares_no_kind_with_seen():
    """Fails if a family that trains is also called unseen."""
    for name in ("math", "code", "reasoning"):
        seen, unseen = ({e.kind for e in tasks.get(n).examples("train", 300)} for n in (name, f"{name}-unseen"))
        assert not seen & unseen


def test_mixed_batches_keep_their_order():
    """Fails if the sandbox's results are handed to the wrong examples."""
    some = [tasks.get(n).examples("train", 1, 9)[0] for n in ("math", "code", "reasoning", "code", "other")]
    assert tasks.rewards(some, [e.answer for e in some]) == [1.0] * 5
    texts = [some[0].answer, "def x(): pass", some[2].answer, some[3].answer, "nothing"]
    assert tasks.rewards(some, texts) == [1.0, 0.0, 1.0, 1.0, 0.0]


def test_dispatch_is_balanced_and_uses_the_one_prompt():
    """Fails if training and asking use different dispatch prompts, or a class is missing ("other" was, in the release)."""
    examples = tasks.get("dispatch").examples("train", 200)
    for label in tasks.LABELS:
        assert 30 < sum(e.answer == label for e in examples) < 70
    rng = random.Random(0)
    ending = tasks.dispatch_prompt("xyz").removeprefix("xyz")
    assert "Which skill" in ending and tasks.make_dispatch(rng).prompt.endswith(ending)
    assert len(tasks.dispatch_prompt("word " * 5000)) < 2000


@pytest.mark.parametrize("text, want", [("math", "math"), ("Math.", "math"), ("\\boxed{math}", "math"), ("The skill is CODE", "code"),
                                        ("math or code", None), ("", None), ("maths", None), ("other\n", "other")])
def test_labels(text, want):
    """Fails if case or punctuation makes a label unreadable (the release wants an exact match), or two count as one."""
    assert tasks.find_label(text) == want


def test_unparseable_is_wrong():
    """Fails if an unreadable answer is turned into a guess."""
    reasoning = tasks.get("reasoning").examples("train", 40)
    assert sum(tasks.rewards(reasoning, ["It depends on many things."] * 40)) == 0
    dispatch = tasks.get("dispatch").examples("train", 20)
    assert sum(tasks.rewards(dispatch, ["hmm"] * 20)) == 0
    with pytest.raises(ValueError, match="no right answer"):
        tasks.right(tasks.Example("p", "", "open"), "x")


def test_unknown_task_names_the_nearest():
    """Fails if a typing error is not answered with what was meant."""
    with pytest.raises(ValueError, match="did you mean reasoning"):
        tasks.get("reasonin")
    with pytest.raises(FileNotFoundError):
        tasks.get("nothing.jsonl")


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def test_your_own_file(tmp_path):
    """Fails if a match kind does not grade, a split overlaps, or a repeated prompt sits in two splits."""
    rows = [{"prompt": f"q{i}", "answer": "Yes"} for i in range(20)] + [{"prompt": "q0", "answer": "Yes"}]
    task = tasks.get(write(tmp_path / "a.jsonl", rows))
    split = {s: {e.prompt for e in task.examples(s, 99)} for s in tasks.SPLITS}
    assert [len(split[s]) for s in tasks.SPLITS] == [16, 2, 2] and len(set.union(*split.values())) == 20
    kinds = [({"prompt": "p", "answer": 7, "match": "number"}, "It is 7.", "8"),
             ({"prompt": "p", "answer": "Yes"}, "yes.", "yes, no"),
             ({"prompt": "p", "answer": "b c", "match": "choice", "options": ["a", "b c"]}, "B", "a"),
             ({"prompt": "p", "answer": "sun", "match": "contains"}, "The sun!", "sunny")]
    for row, good, bad in kinds:
        example = tasks.example_of(row)
        assert tasks.rewards([example] * 2, [good, bad]) == [1.0, 0.0]


@pytest.mark.parametrize("line, says", [
    ("", "empty line"), ("{", "not JSON"), ("[1]", "object"), ('{"prompt": "p"}', "answer"), ('{"answer": "a"}', "prompt"),
    ('{"prompt": "", "answer": "a"}', "prompt"), ('{"prompt": "p", "answer": "a", "match": "maybe"}', "match"),
    ('{"prompt": "p", "answer": "a", "match": "number"}', "not one"), ('{"prompt": "p", "answer": "a", "match": "choice"}', "options"),
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

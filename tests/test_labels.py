"""The table of skills: what is derived from it, and what today's four labels must stay."""
import importlib.util
import random
import sys
from pathlib import Path

from t2mini import adapt, tasks
from t2mini.lab import experiments

TOY = '''    Skill("riddle", make_riddle, "a riddle", 12),
'''
MAKER = ('''
def make_riddle(rng, unseen=False):
    n = rng.randrange(10 ** 6)
    return replace(make_math(rng), prompt=f"What am I, {'?' * unseen}{n}?", '''
         '''answer=f"no {n}", match="exact", key=f"r {n}")


# The one table of skills.''')


def with_a_fifth_label(monkeypatch):
    """t2mini.tasks as it would be with one more row in its table
    (and a maker, which a file of questions would hold).
    """
    source = Path(tasks.__file__).read_text(encoding="utf-8")
    assert source.count("SKILL_TABLE = (\n") == 1
    assert source.count("# The one table of skills.") == 1
    source = (source.replace("SKILL_TABLE = (\n", "SKILL_TABLE = (\n" + TOY)
              .replace("# The one table of skills.", MAKER))
    spec = importlib.util.spec_from_loader("t2mini.tasks_with_five", loader=None)
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "t2mini"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, "tasks_with_five", "exec"), vars(module))
    return module


def test_a_fifth_label_is_one_row_of_the_table(monkeypatch):
    """Fails if a new skill needs more than a maker of questions and a row:
    a list of labels that is written out again.
    """
    five = with_a_fifth_label(monkeypatch)
    assert five.LABELS == ("code", "math", "reasoning", "riddle", "other")
    assert five.SKILLS == ("code", "math", "reasoning", "riddle")
    assert five.MIXED == ("riddle", "math", "code", "reasoning")
    prompt = five.dispatch_prompt("Why?")
    assert prompt.endswith(
        '"math" (a number), "reasoning" (options to choose from) or "riddle" (a riddle). '
        'Which one is it?')
    assert ([five.find_label(t) for t in ('riddle"', "Riddle.", "riddle or math", "riddles")]
            == ["riddle", "riddle", None, None])
    assert tasks.find_label("riddle") is None
    assert {"riddle", "riddle-unseen"} <= set(five.BUILT_IN)
    assert five.get("riddle").skill == "riddle"
    example = five.get("riddle-unseen").examples("val", 3)[2]
    assert "?" in example.prompt[11:13] and five.rewards([example], [example.answer]) == [1.0]
    asked = five.get("dispatch").examples("train", 200)
    assert {e.answer for e in asked} == set(five.LABELS)
    assert min(sum(e.answer == label for e in asked) for label in five.LABELS) > 20


def test_todays_labels_and_prompt_are_unchanged():
    """Fails if a byte of the dispatch prompt, or an order that decides results
    (of labels in a draw, of experts in a mix), is another one:
    shipped dispatchers and published scores were made with these.
    """
    assert tasks.LABELS == ("code", "math", "reasoning", "other")
    assert adapt.SKILLS == ("code", "math", "reasoning")
    assert adapt.MIXED == ("math", "code", "reasoning") == experiments.SEEN
    assert experiments.UNSEEN == ("math-unseen", "code-unseen", "reasoning-unseen")
    assert tuple(tasks.BUILT_IN) == ("math", "code", "reasoning", *experiments.UNSEEN,
                                     "other", "math-worked", "vision-unseen", "dispatch")
    assert tasks.DISPATCH == (
        '{question}\n\n---\nThe message above is either "other" (chat, facts, writing), '
        '"code" (a program), "math" (a number) or "reasoning" (options to choose from). '
        'Which one is it?')
    assert ({name: (t.max_tokens, t.skill, t.runs_code) for name, t in tasks.BUILT_IN.items()
             if "-" not in name}
            == {"math": (64, "math", False), "code": (96, "code", True),
                "reasoning": (24, "reasoning", False),
                "other": (48, "other", False), "dispatch": (2, "other", False)})
    assert tasks.make_dispatch(random.Random(3)).answer == random.Random(3).choice(tasks.LABELS)

"""
Where the first pass sends questions whose right label is known.
"""
from .. import adapt, tasks
from ..questions import tables
from ..questions.other import make_other
from .runs import row

# said under the tables of every row in which the base model is asked
PROMPT = ("its wording was chosen for labels that are spread evenly, so that a dispatcher can "
          "learn, not for right ones")


def note_of(arm):
    """What a reader of a first pass's row must know."""
    return PROMPT if arm == "prompt" else ""


def confusion(lab, kind, names, dispatcher=None, n=100):
    """Where the first pass sends n test questions of each name. -> row.

    dispatcher: z, or None: the base model is asked.
    """
    table, rewards = {}, []
    for name in names:
        needs, questions = to_route(lab, kind, name, n)
        routes = adapt.route(lab.model, lab.tokenizer, questions, dispatcher, title=name)
        said = [r.label if r.readable else "unreadable" for r in routes]
        table[name] = {k: said.count(k) for k in (*tasks.LABELS, "unreadable")}
        rewards += [float(label == needs) for label in said]
    return {**row(rewards), "confusion": table}


def to_route(lab, kind, name, n=100):
    """-> (the right label, questions): n of a test split, or all that were written by hand."""
    if kind == "handwritten":
        questions = tables.handwritten()[name]
        return name, questions[:lab.n(len(questions))]
    if name == "other-unseen":
        task = tasks.Task(name, tasks.unseen(make_other), 48, "other")
        examples = task.examples("test", lab.n(n))
    else:
        task = tasks.get(name)
        examples = lab.examples(name, n)
    return task.skill, [e.prompt for e in examples]

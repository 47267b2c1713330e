"""
Ways to ask the published questions: which wording suits a model?

Validation questions tell. MATH-500 and HumanEval have test questions alone, so there it is the pool
of solved examples that is never scored (published.py). The first form of each set is the one that
its task uses. `unlisted` is a form for test questions, a control: what the options' list is worth.
"""
from collections import Counter
from dataclasses import replace
from functools import partial

from .. import evaluate, tasks
from .runs import WHOLE, cell, row

# what stands around the question as its task asks it
FORMS = {
    "gsm8k": {
        "as it is asked: the question alone": "{}",
        "told: step by step": "{}\nThink step by step. End with a line \"#### \" and the number.",
        "told: a few sentences":
            "{}\nSolve it in a few short sentences. The last one says the answer.",
        "told: in a box":
            "Solve this problem step by step, then put the final number in \\boxed{{}}.\n{}",
        "begun for it: Step 1:": "{}"},
    "mbpp": {
        "as it is asked: a code block": "{}",
        "told: you are an expert": "You are an expert Python programmer. {}",
        "told: no explanations": "{}\nWrite no explanations and no example of its use."},
    "math-500": {
        "as it is asked: in a box": "{}",
        "told: step by step": "{}\nReason step by step.",
        "told: a few sentences": "{}\nReason in a few short sentences."},
    "humaneval": {
        "as it is asked: a code block": "{}",
        "told: no explanations": "{}\nWrite no explanations and no example of its use."}}
BEGUN = {"begun for it: Step 1:": "gsm8k-steps"}        # forms that are sets of their own
OPTIONS = {"arc-easy": "in quotation marks", "arc-easy-letters": "with letters"}
QUESTIONS = 128         # of the validation split, or all that there are
LONGEST = 320           # tokens of an answer that is worked out


def cells(lab):
    """Every form of every set, asked of the base model. See experiments.py for what a cell is."""
    for task, ways in FORMS.items():
        for arm, form in ways.items():
            yield cell(partial(asked, lab, BEGUN.get(arm, task), form), task=task, arm=arm)
    for task, how in OPTIONS.items():
        for arm, choose in ((f"written, {how}", False), (f"chosen, {how}", True)):
            yield cell(partial(asked, lab, task, "{}", choose), task="arc-easy", arm=arm)


def asked(lab, name, form, choose=False):
    """Validation questions in one form. -> row, with the share of answers that were cut off."""
    task = tasks.get(name)
    if name not in OPTIONS:
        task = replace(task, max_tokens=LONGEST)
    shown = [replace(e, prompt=form.format(e.prompt)) for e in lab.examples(name, QUESTIONS, "val")]
    counts = Counter()
    rewards = evaluate.score(lab.model, lab.tokenizer, task, shown, name, choose, counts)
    return {**row(rewards), "split": "val", "cut": round(counts["cut"] / len(shown), 4)}


def unlisted(lab, task):
    """The base model chooses without seeing the list, from which it could copy. -> row."""
    asked = lab.examples(task, WHOLE)
    hidden = [replace(e, prompt=without_options(e)) for e in asked]
    rewards = evaluate.score(lab.model, lab.tokenizer, tasks.get(task), hidden, task, choose=True)
    return row(rewards, asked)


def without_options(example):
    """The question without the lines that list its options. ValueError where these are no lines."""
    at = len(example.prompt)
    for option in reversed(example.options):        # the last place of each, before the next
        at = example.prompt.rfind(option, 0, max(at, 0))
    stem = example.prompt[:max(0, example.prompt.rfind("\n", 0, max(at, 0)))]
    if at < 0 or not stem:
        raise ValueError(f"{example.prompt[:60]!r} does not list its options on lines of their own")
    return stem

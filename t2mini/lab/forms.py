"""
Ways to ask the published questions: which wording suits a model?

Validation questions tell. MATH-500 and HumanEval have test questions alone, so there it is the pool
of solved examples that is never scored (published.py). The first form of each set is the one that
its task uses.
"""
from collections import Counter
from dataclasses import replace
from functools import partial

from .. import evaluate, tasks
from .runs import cell, row

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

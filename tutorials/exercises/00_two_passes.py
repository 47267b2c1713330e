"""Exercises of chapter 00. Check: python tutorials/00_two_passes.py --check 1"""
from t2mini import tasks     # tasks.dispatch_prompt, tasks.find_label


def exercise_1(p):
    """Easy. p: dict from each of the four labels to the probability that the model's next word is
    that label; the rest goes to other words.
    Return a dict from each label to its share among the four."""
    raise NotImplementedError


def exercise_2(question, ask, experts):
    """Medium. Two passes for one question. ask(text, expert) returns what the model answers to
    `text` with that expert (None: the base model). First ask tasks.dispatch_prompt(question) of
    the base model; tasks.find_label(answer) gives a label, or None where it cannot be read.
    Then answer the question with experts[label]; "other" and unreadable mean the base model.
    Return the second answer."""
    raise NotImplementedError


def exercise_3(labels, questions, use, answer):
    """Hard. Many questions at once. use(label) loads an expert, use("other") the base model;
    answer(list of questions) returns their answers with what is loaded. Load each expert once,
    return all answers in the order of `questions`, and leave the base model loaded."""
    raise NotImplementedError

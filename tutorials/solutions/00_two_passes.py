"""Solutions of chapter 00, and one plausible wrong answer to each exercise."""
import math

from t2mini import tasks


def exercise_1(p):
    return {label: v / sum(p.values()) for label, v in p.items()}


def exercise_2(question, ask, experts):
    label = tasks.find_label(ask(tasks.dispatch_prompt(question), None))
    return ask(question, experts.get(label))


def exercise_3(labels, questions, use, answer):
    answers = [None] * len(questions)
    for label in sorted(set(labels)):
        mine = [i for i, found in enumerate(labels) if found == label]
        use(label)
        for i, text in zip(mine, answer([questions[i] for i in mine])):
            answers[i] = text
    use("other")
    return answers


def softmax(p):
    total = sum(math.exp(v) for v in p.values())
    return {label: math.exp(v) / total for label, v in p.items()}


def always_an_expert(question, ask, experts):
    label = tasks.find_label(ask(tasks.dispatch_prompt(question), None))
    return ask(question, experts.get(label, experts["math"]))


def grouped(labels, questions, use, answer):
    answers = []
    for label in sorted(set(labels)):
        use(label)
        answers += answer([q for q, found in zip(questions, labels) if found == label])
    use("other")
    return answers


WRONG = {
    # p are probabilities already
    1: softmax,
    # "other" must get the base model
    2: always_an_expert,
    # in the order of the labels, not of the questions
    3: grouped,
}

"""Exercises of chapter 04. Check: python tutorials/04_a_reward_that_teaches.py --check 1"""


def exercise_1(reward):
    """Easy. reward (questions, answers): 1.0 or 0.0 for each answer. Return the advantage of each
    answer: its reward minus the mean reward of the answers to the same question."""
    raise NotImplementedError


def exercise_2(logprobs, advantage):
    """Medium. logprobs: a list with one tensor per answer, the log-probability of each of its
    tokens; advantage: one number per answer.
    Return the loss that t2mini minimises: minus the sum over all tokens of advantage * logprob,
    divided by the number of tokens of all answers together."""
    raise NotImplementedError


def exercise_3(p, reward):
    """Hard. A policy picks answer i with probability p[i] = softmax(logits)[i] and earns reward[i].
    Return the exact gradient of the expected reward with respect to the logits, without autograd.
    (n,) in, (n,) out."""
    raise NotImplementedError

"""Solutions of chapter 04, and one plausible wrong answer to each exercise."""


def exercise_1(reward):
    return reward - reward.mean(1, keepdim=True)


def exercise_2(logprobs, advantage):
    total = sum(a * lp.sum() for a, lp in zip(advantage, logprobs))
    return -total / sum(len(lp) for lp in logprobs)


def exercise_3(p, reward):
    # E[grad log p * reward] with grad log p_i = e_i - p
    return p * (reward - (p * reward).sum())


WRONG = {
    # one mean for all
    1: lambda reward: reward - reward.mean(),
    2: lambda logprobs, advantage: (
        -sum(a * lp.mean() for a, lp in zip(advantage, logprobs)) / len(logprobs)),
    # forgets the softmax
    3: lambda p, reward: p * reward,
}

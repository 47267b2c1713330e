"""Solutions of chapter 09, and one plausible wrong answer to each exercise."""
import math


def exercise_1(right, n):
    p, s2 = right / n, 1.96 ** 2
    middle = (p + s2 / (2 * n)) / (1 + s2 / n)
    half = 1.96 / (1 + s2 / n) * math.sqrt(p * (1 - p) / n + s2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def exercise_2(a, b):
    d = [x - y for x, y in zip(a, b)]
    mean = sum(d) / len(d)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in d) / len(d)) / math.sqrt(len(d))


def exercise_3(p, gain):
    # the variances of both arms add up
    return math.ceil(1.96 ** 2 * 2 * p * (1 - p) / gain ** 2)


def textbook(right, n):
    half = 1.96 * math.sqrt(right / n * (1 - right / n) / n)
    return right / n - half, right / n + half


def unpaired(a, b):
    p, q, n = sum(a) / len(a), sum(b) / len(b), len(a)
    return p - q, math.sqrt((p * (1 - p) + q * (1 - q)) / n)


WRONG = {
    # says that 10 of 10 is certain
    1: textbook,
    # forgets that the items are the same
    2: unpaired,
    # the error of one arm only
    3: lambda p, gain: math.ceil(1.96 ** 2 * p * (1 - p) / gain ** 2),
}

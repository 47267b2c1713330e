"""Solutions of chapter 11, and one plausible wrong answer to each exercise."""


def exercise_1(shapes, rank):
    z = sum(min(m, n) for m, n in shapes)
    lora = sum(rank * (m + n) for m, n in shapes)           # A is (rank, n), B is (m, rank)
    return z / lora


def exercise_2(p, G):
    return 1 - p ** G - (1 - p) ** G


def exercise_3(rights, samples):
    teach = [0 < int(right) < samples for right in rights]
    return sum(teach) / len(teach)


WRONG = {
    # not m + n
    1: lambda shapes, rank: (sum(min(m, n) for m, n in shapes)
                             / sum(rank * m * n for m, n in shapes)),
    # at least one is right: all may be
    2: lambda p, G: 1 - (1 - p) ** G,
    # all right counts, too
    3: lambda rights, samples: sum(int(right) > 0 for right in rights) / len(rights),
}

"""Solutions of chapter 07, and one plausible wrong answer to each exercise."""


def exercise_1(table):
    return (sum(row[need] for need, row in table.items())
            / sum(sum(row.values()) for row in table.values()))


def exercise_2(p, n):
    return 1 - p ** n - (1 - p) ** n


def exercise_3(table, right):
    answers = sum(count * right[need]["other" if said == "unreadable" else said]
                  for need, row in table.items() for said, count in row.items())
    return answers / sum(sum(row.values()) for row in table.values())


def readable_only(table):
    asked = sum(sum(row.values()) - row["unreadable"] for row in table.values())
    return sum(row[need] for need, row in table.items()) / asked


def diagonal_only(table, right):
    return (sum(row[need] * right[need][need] for need, row in table.items())
            / sum(sum(r.values()) for r in table.values()))


WRONG = {
    # drops what could not be read
    1: readable_only,
    # forgets the groups in which all are right
    2: lambda p, n: 1 - (1 - p) ** n,
    # a question that went astray may still be answered right
    3: diagonal_only,
}

"""Solutions of chapter 10, and one plausible wrong answer to each exercise."""
import re

import torch


def exercise_1(S, p):
    s = torch.sigmoid(p)
    return s * S.sum() / (S * s).sum()


def exercise_2(tuned, base):
    return (tuned * (tuned / base).log()).sum(), (base * (base / tuned).log()).sum()


def exercise_3(text):
    found = re.findall(r"(?<!\d)-?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)", text)
    return float(found[-1].replace(",", "")) if found else None


def as_released(text):
    found = re.findall(r"\d*\.?\d+", text)
    return float(found[-1]) if found else None


WRONG = {
    # keeps the sum of z, not of S * z
    1: lambda S, p: torch.sigmoid(p) * len(p) / torch.sigmoid(p).sum(),
    # the two directions swapped
    2: lambda tuned, base: exercise_2(base, tuned),
    # no sign, and a comma cuts the number
    3: as_released,
}

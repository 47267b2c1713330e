"""Solutions of chapter 12, and one plausible wrong answer to each exercise."""
import torch


def exercise_1(image, size):
    H, W = image.shape
    return [image[y:y + size, x:x + size].ravel()
            for y in range(0, H, size) for x in range(0, W, size)]


def exercise_2(opening, words, n, Q, V):
    return [*opening, *(V + Q * n + k for k in range(Q)), *words]


def exercise_3(ids, words, tokens):
    V, C = words.shape
    # image token k of image n is row V + Q n + k of both
    rows = torch.cat((words, tokens.reshape(-1, C)))
    return rows[ids]


def without_numbers(ids, words, tokens):
    V = len(words)
    found = words[ids.clamp(max=V - 1)].clone()
    found[ids >= V] = tokens[0][(ids[ids >= V] - V) % tokens.shape[1]]
    return found


WRONG = {
    # runs of pixels, not squares
    1: lambda image, size: list(image.reshape(-1, size * size)),
    # behind the question
    2: lambda opening, words, n, Q, V: [*opening, *words, *(V + Q * n + k for k in range(Q))],
    # every image is the first one
    3: without_numbers,
}

"""Exercises of chapter 12. Check: python tutorials/12_sight.py --check 1"""


def exercise_1(image, size):
    """Easy. image (H, W) is a NumPy array. Return the list of its patches of size x size pixels,
    each flattened row by row; squares from left to right, rows of squares from top to bottom."""
    raise NotImplementedError


def exercise_2(opening, words, n, Q, V):
    """Medium. opening: the ids that open the user's turn; words: those of the question.
    Return the ids of the prompt in which image number n stands before the words, with Q tokens
    for an image and a vocabulary of V words."""
    raise NotImplementedError


def exercise_3(ids, words, tokens):
    """Hard. ids (S,): words and image tokens; words (V, C): the embedding matrix;
    tokens (images, Q, C): what the tower made of every image.
    Return the embeddings (S, C): row id of the matrix for a word,
    token k of image n for V + Q n + k."""
    raise NotImplementedError

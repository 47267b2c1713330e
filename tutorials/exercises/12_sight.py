"""Exercises of chapter 12. Check: python tutorials/12_sight.py --check 1"""


def exercise_1(image, size):
    """Easy. image (H, W) is a NumPy array. Return the list of its patches of size x size pixels,
    each flattened row by row; squares from left to right, rows of squares from top to bottom."""
    raise NotImplementedError


def exercise_2(opening, words, n, Q, V):
    """Medium. opening: the ids that open the user's turn; words: those of the question.
    Return the ids of the prompt in which image n stands before the words. Images count from 0.
    The vocabulary has V words, an image Q tokens: token k of image n has the id V + Q n + k,
    for k from 0 to Q - 1."""
    raise NotImplementedError


def exercise_3(ids, words, tokens):
    """Hard. ids (S,): words and image tokens; words (V, C): the embedding matrix;
    tokens (images, Q, C): what the tower made of every image.
    Return the embeddings (S, C): row id of the matrix for a word,
    token k of image n for V + Q n + k."""
    raise NotImplementedError

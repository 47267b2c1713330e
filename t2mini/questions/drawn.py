"""
Drawn images with questions that need what an image shows *and* what the language model knows: the
unseen task of vision, in the place of OKVQA (paper 4.3, Figure 5).

    a yellow circle.  "Which of these has the color of the shape: coal, a banana, grass or the sky?"

Nothing that trains the tower or the vision expert names a thing of the world. Shapes are drawn here
with numpy, in the manner of easy-VQA: one shape on a pale ground.
"""
import random

import numpy as np

from .easy_vqa import SHAPES
from .example import Example
from .pictures import SIDE, Seen

# what easy-VQA's colours look like there
RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0),
       "yellow": (255, 255, 0), "teal": (0, 128, 128), "brown": (165, 42, 42),
       "gray": (128, 128, 128)}
# things that people give one colour; there is no such thing of teal
THINGS = {"red": ("a tomato", "a strawberry", "a fire engine", "blood"),
          "green": ("grass", "a cucumber", "a frog", "spinach"),
          "blue": ("the sky", "the ocean", "a blueberry", "a sapphire"),
          "black": ("coal", "a raven", "tar", "a tire"),
          "yellow": ("a banana", "a lemon", "the sun", "a canary"),
          "brown": ("chocolate", "a bear", "soil", "a walnut"),
          "gray": ("an elephant", "concrete", "a mouse", "ash")}
OPTIONS = 4


def draw(color, shape, rng):
    """-> (64, 64, 3) uint8: a shape of 14 to 30 pixels on a pale ground, anywhere that holds it."""
    size = rng.randrange(14, 31)
    left, top = rng.randrange(SIDE - size), rng.randrange(SIDE - size)
    ground = [rng.randrange(230, 256) for _ in range(3)]
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    u, v = (x - left) / size, (y - top) / size              # 0 to 1 inside of the shape's square
    if shape == "circle":
        inside = (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.25
    elif shape == "triangle":
        inside = (v < 1) & (abs(u - 0.5) < v / 2)
    else:
        # a rectangle, wider than high or a square
        flat = rng.choice((0.6, 0.8, 1.0))
        inside = (u > 0) & (u < 1) & (v > 0) & (v < flat)
    image = np.empty((SIDE, SIDE, 3), np.uint8)
    image[:] = ground
    image[inside] = RGB[color]
    return image


def make_drawn(rng):
    """One question: which of four things has the colour of the shape?"""
    color, *others = rng.sample(sorted(THINGS), OPTIONS)
    answer = rng.choice(THINGS[color])
    options = [answer, *(rng.choice(THINGS[c]) for c in others)]
    rng.shuffle(options)
    listed = f"{', '.join(options[:-1])} or {options[-1]}"
    image = draw(color, rng.choice(SHAPES), random.Random(rng.random()))
    return Example(Seen(f"Which of these has the color of the shape: {listed}?", image), answer,
                   "choice", color, f"{color}: {sorted(options)}", tuple(options))

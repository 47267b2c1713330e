"""
Pictures in questions: what a question about an image is, and how a PNG file becomes 64 x 64 pixels.

Seen:     a text that carries its image. It is a str wherever text is wanted, so every part of the
          program takes it; who cannot see reads the words alone. Nobody can type an image.
Pixels:   (64, 64, 3) uint8, red, green, blue. A file of another size is scaled to that, whole: its
          sides may change their ratio. Where it is transparent, white shows.
Refused:  whatever is no PNG, is damaged, or would fill the memory: one line, before it is decoded.
"""
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from ..machine import files
from ..machine.text import first_line
from . import png

SIDE = 64                               # pixels of the images that the tower sees
MOST_BYTES = 64 << 20                   # of a PNG file
MOST_PIXELS = 1 << 24                   # of a PNG image: a small file may unpack to gigabytes
LONGEST = 1 << 14                       # pixels of a side


class Seen(str):
    """A question about an image. `image`: its path (read when it is needed) or its pixels."""

    def __new__(cls, text, image):
        seen = super().__new__(cls, text)
        seen.image = image
        return seen


def pixels(image):
    """A path or an array -> (64, 64, 3) uint8. ValueError for what is no image of that kind."""
    if isinstance(image, np.ndarray):
        if image.shape != (SIDE, SIDE, 3) or image.dtype != np.uint8:
            raise ValueError(f"an image must be {SIDE} x {SIDE} x 3 numbers of 8 bits, not "
                             f"{image.shape} of {image.dtype}")
        return image
    return read_png(image)


def read_png(path):
    """A PNG file of any size -> (64, 64, 3) uint8. ValueError, one line, for any other file."""
    path = files.expand(path)
    try:
        data = files.read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"no image at {path}") from None
    return decode(data, path)


def decode(data, name, most=MOST_PIXELS):
    """The bytes of a PNG file of at most so many pixels -> (64, 64, 3) uint8. ValueError, one line
    that says its `name`."""
    if not data.startswith(png.SIGNATURE):
        raise ValueError(f"{name} is not a PNG file; other formats are not read")
    wide, high = (int.from_bytes(data[at:at + 4], "big") for at in (16, 20))
    if not data.startswith(png.BEGINNING):
        raise ValueError(f"{name}: damaged PNG file (it does not begin with its size)")
    if not 0 < wide * high <= most or max(wide, high) > LONGEST:
        raise ValueError(f"{name}: an image of {wide:,} x {high:,} pixels; at most "
                         f"{most:,} in all and {LONGEST:,} on a side are read")
    try:
        decoded = png.decode(data)
    except ImportError as e:
        raise ValueError(f"{name}: reading an image needs matplotlib ({first_line(e):.80}); "
                         "`make setup` installs it") from None
    except Exception as e:                          # whatever a decoder finds wrong
        raise ValueError(f"{name}: damaged PNG file ({first_line(e):.80})") from None
    return scaled(decoded)


def scaled(decoded):
    """Numbers from 0 to 1 as a decoder gives them,
    (h, w) or (h, w, 1 to 4) -> (64, 64, 3) uint8."""
    image = decoded if decoded.ndim == 3 else decoded[..., None]
    channels = image.shape[2]
    alpha = 1.0
    if channels in (2, 4):
        alpha = image[..., -1:]
        image = image[..., :-1]
    image = np.broadcast_to(image, (*image.shape[:2], 3)) * alpha + (1 - alpha)
    if image.shape[:2] != (SIDE, SIDE):
        planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        high, wide = image.shape[:2]
        first = (SIDE, wide) if high > wide else (high, SIDE)       # else 1 x 16,384 grows 64 times
        for size in (first, (SIDE, SIDE)):
            planes = F.interpolate(planes.float(), size, mode="bilinear", antialias=True)
        image = planes[0].permute(1, 2, 0).numpy()
    return (image.clip(0, 1) * 255).round().astype(np.uint8)


@lru_cache(maxsize=None)
def blank():
    """An image that shows nothing: white. (64, 64, 3) uint8"""
    return np.full((SIDE, SIDE, 3), 255, np.uint8)

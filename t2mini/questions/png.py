"""
PNG files: every chunk is checked, and only what is drawn is unpacked.

The decoder, matplotlib's, is lenient: it takes a file without its end, wrong checksums and missing
rows, makes dark greys of few bits white, and forgets which colour is to be transparent. So the
chunks are read here first, and it gets those alone that say what is drawn: no text, no profile and
no animation is ever unpacked.

Chunk:    length of the body (4 bytes), kind (4), body, CRC-32 of kind and body (4); numbers are
          big-endian.
Kinds:    IHDR the size and how pixels are written, PLTE the palette, tRNS what is transparent, IDAT
          the pixels, IEND the end. A kind that begins with a small letter may be left out.
Letters:  n bits for each number, from 0 to 2^n - 1.
"""
import io
import re
import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
BEGINNING = SIGNATURE + b"\0\0\0\x0dIHDR"
DRAWN = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
ORDER = re.compile(b"IHDR(PLTE)?(tRNS)?IDATIEND")
GREY, RGB, PALETTE = 0, 2, 3
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, 4: 2, 6: 4}    # kind of colour -> numbers per pixel
# first column and row, and the steps to the next ones, of the seven parts of an interlaced image
PARTS = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))


def chunk(kind, body=b""):
    """The bytes of one chunk."""
    named = kind + body
    return struct.pack(">I", len(body)) + named + struct.pack(">I", zlib.crc32(named))


def chunks(data):
    """A PNG file -> dict kind -> body, of the kinds that are drawn; all IDAT are one. ValueError
    where a chunk is cut, has a wrong checksum, stands in a wrong place, or must be known and is
    not. What lies behind the end is no part of the file."""
    bodies, order = {}, []
    at = len(SIGNATURE)
    while order[-1:] != [b"IEND"]:
        end = at + 8 + int.from_bytes(data[at:at + 4], "big")
        if end + 4 > len(data):
            raise ValueError("it ends too early")
        kind = data[at + 4:at + 8]
        if zlib.crc32(data[at + 4:end]) != int.from_bytes(data[end:end + 4], "big"):
            raise ValueError(f"a wrong checksum at byte {end:,}")
        if kind in DRAWN:
            bodies.setdefault(kind, bytearray()).extend(data[at + 8:end])
            if kind != b"IDAT" or order[-1:] != [kind]:
                order.append(kind)
        elif kind[:1].isupper() or not kind.isalpha():
            raise ValueError(f"a part of an unknown kind at byte {at:,}")
        at = end + 4
    if not ORDER.fullmatch(b"".join(order)):
        raise ValueError("its parts are not there, or not in their order")
    return {kind: bytes(bodies[kind]) for kind in DRAWN if kind in bodies}


def bytes_of_rows(wide, high, bits, channels, interlaced):
    """So many bytes the unpacked pixels have: every row fills whole bytes, behind one that says how
    it was filtered."""
    parts = PARTS if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, right, down in parts:
        columns, rows = -((x - wide) // right), -((y - high) // down)
        total += rows * (1 + (columns * channels * bits + 7) // 8) if columns else 0
    return total


def check(bodies):
    """-> (bits, kind of colour) of the chunks. ValueError where the header or palette is odd, or
    there are fewer or more pixels than the header says."""
    wide, high, bits, color, *how, interlaced = struct.unpack(">IIBBBBB", bodies[b"IHDR"])
    if color not in CHANNELS or how != [0, 0] or interlaced > 1:
        raise ValueError("an unknown kind of pixels")
    colors, more = divmod(len(bodies.get(b"PLTE", b"")), 3)
    if color == PALETTE and (more or not 0 < colors <= 256):
        raise ValueError("its palette is missing or no palette")
    size = bytes_of_rows(wide, high, bits, CHANNELS[color], interlaced)
    unpacking = zlib.decompressobj()
    found = len(unpacking.decompress(bodies[b"IDAT"], size + 1))
    if found != size or not unpacking.eof:
        raise ValueError("not as many pixels as its size says")
    return bits, color


def decode(data):
    """The bytes of a PNG file -> numbers from 0 to 1, float32: (h, w) or (h, w, 2 to 4), alpha
    last. ValueError, or whatever the decoder raises, for a damaged file."""
    bodies = chunks(data)
    bits, color = check(bodies)
    from matplotlib.image import imread             # here: text needs no drawing library
    drawn = SIGNATURE + b"".join(chunk(kind, body) for kind, body in bodies.items())
    image = np.asarray(imread(io.BytesIO(drawn), format="png"), dtype=np.float32)
    if color == GREY and image.max() > 1:           # of 2 and 4 bits: n / 255 was taken for n
        image = image * np.float32((2 ** bits - 1) / 255)
    if color in (GREY, RGB) and b"tRNS" in bodies:
        return transparent(image, bits, color, np.frombuffer(bodies[b"tRNS"], ">u2"))
    return image


def transparent(image, bits, color, key):
    """The same image with an alpha: 0 where a pixel has the colour `key` (1 or 3 numbers of n
    bits), else 1. Of 16 bits of red, green and blue the decoder keeps the upper 8, so these are
    compared."""
    planes = image.reshape(*image.shape[:2], -1)
    if len(key) != planes.shape[2]:
        raise ValueError("its transparent colour is no colour")
    if color == RGB and bits == 16:
        key, bits = key >> 8, 8
    highest = 2 ** bits - 1
    clear = (np.rint(planes * highest) == (key & highest)).all(-1, keepdims=True)
    return np.concatenate((planes, ~clear), -1, dtype=np.float32)

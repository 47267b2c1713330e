"""PNG files of every kind, made here byte by byte: what they show,
and what is refused before it is unpacked.
"""
import struct
import zlib

import numpy as np
import pytest

from t2mini.questions import png
from t2mini.questions.pictures import decode
from t2mini.questions.png import chunk

RED = [b"\xff\0\0" * 64] * 64                               # rows of 64 pixels


def header(bits=8, color=png.RGB, wide=64, high=64, interlaced=0):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", wide, high, bits, color, 0, 0, interlaced))


def pixels(rows):
    """Rows that are not filtered -> an IDAT chunk."""
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))


def image(head, *chunks):
    return b"".join((png.SIGNATURE, head, *chunks, chunk(b"IEND")))


def plain(bits, color, numbers, *between):
    """The colours that an image of 64 x 64 pixels shows,
    all of which are `numbers` of so many bits.
    """
    pixel = "".join(f"{n:0{bits}b}" for n in numbers) * 64
    row = int(pixel, 2).to_bytes(len(pixel) // 8, "big")
    return np.unique(decode(image(header(bits, color), *between, pixels([row] * 64)),
                            "x.png").reshape(-1, 3), axis=0).tolist()


def key(*numbers):
    return chunk(b"tRNS", struct.pack(f">{len(numbers)}H", *numbers))


# ------------------------------------------------------------------------ what is shown
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_greys_of_all_bits(bits):
    """Fails if a grey of few bits is shown too light,
    or the one that is to be transparent is not white, or another one is.
    """
    highest = 2 ** bits - 1
    for n in {0, 1, highest // 2, highest}:
        grey = plain(bits, png.GREY, [n])
        assert len(grey) == 1 and abs(grey[0][0] - 255 * n / highest) <= 0.5
        assert len({*grey[0]}) == 1
        assert plain(bits, png.GREY, [n], key(n)) == [[255] * 3]
        assert plain(bits, png.GREY, [n], key(n ^ 1)) == grey


def test_a_transparent_colour_is_white():
    """Fails if red, green and blue that are to be transparent are shown, or others are not."""
    for bits, n in ((8, (1, 2, 3)), (16, (0x1234, 0x5678, 0x9abc))):
        shown = [[v >> (bits - 8) for v in n]]
        assert plain(bits, png.RGB, n) == plain(bits, png.RGB, n, key(n[0], n[1], 0)) == shown
        assert plain(bits, png.RGB, n, key(*n)) == [[255] * 3]
    half = [b"\x09\0\0" * 32 + b"\0\x09\0" * 32] * 64
    found = decode(image(header(), key(9, 0, 0), pixels(half)), "x.png")
    assert (found[:, :32] == 255).all() and (found[:, 32:] == [0, 9, 0]).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_all_bits(bits):
    """Fails if a palette's colour is another one, or its transparent colour is not white."""
    palette = chunk(b"PLTE", bytes([9, 8, 7, 255, 0, 0]))
    assert plain(bits, png.PALETTE, [0], palette) == [[9, 8, 7]]
    assert plain(bits, png.PALETTE, [1], palette) == [[255, 0, 0]]
    assert plain(bits, png.PALETTE, [0], palette, chunk(b"tRNS", b"\0")) == [[255] * 3]


def test_an_interlaced_image_is_the_plain_one():
    """Fails if the sizes of an interlaced image's parts are wrong: a sound file would be refused.
    """
    for wide, high in ((1, 1), (3, 9), (5, 2), (13, 11)):
        shown = np.random.default_rng(wide).integers(0, 256, (high, wide, 3), np.uint8)
        parts = [shown[y::down, x::right] for x, y, right, down in png.PARTS]
        rows = [row.tobytes() for part in parts for row in part if row.size]
        assert (png.decode(image(header(wide=wide, high=high, interlaced=1), pixels(rows))) * 255
                == shown).all()


def test_what_is_not_drawn_is_not_unpacked(monkeypatch):
    """Fails if a text, a profile or an animation reaches the decoder;
    or one that is damaged is taken.
    """
    bomb = b"a\0\0" + zlib.compress(bytes(1 << 20))
    odd = [chunk(b"zTXt", bomb), chunk(b"iCCP", b"no profile"),
           chunk(b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0]))]
    assert (decode(image(header(), *odd, pixels(RED)), "x.png") == [255, 0, 0]).all()
    with pytest.raises(ValueError, match="wrong checksum"):
        decode(image(header(), odd[0][:-1] + b"?", pixels(RED)), "x.png")


# ------------------------------------------------------------------------ what is refused
WHOLE = image(header(), pixels(RED))
STREAM = zlib.compress(b"".join(b"\0" + row for row in RED))
CODES = pixels([bytes(64)] * 64)                            # of a palette
PALETTE, OF_PALETTE = chunk(b"PLTE", bytes(6)), header(color=png.PALETTE)
DAMAGED = {
    "no end": WHOLE[:-12],
    "half an end": WHOLE[:-1],
    "checksum of the end": WHOLE[:-1] + b"\0",
    "checksum of the pixels": image(header(), pixels(RED)[:-1] + b"\0"),
    "checksum of the palette": image(OF_PALETTE, PALETTE[:-1] + b"\0", CODES),
    "checksum of a note": image(header(), chunk(b"tEXt", b"a\0b")[:-1] + b"\0", pixels(RED)),
    "a length beyond the file": png.SIGNATURE + header() + b"\xff\xff\xff\xffIDAT",
    "nothing but a header": png.SIGNATURE + header(),
    "no pixels": image(header()),
    "empty pixels": image(header(), chunk(b"IDAT")),
    "two headers": image(header(), header(wide=9999, high=9999), pixels(RED)),
    "a long header": image(chunk(b"IHDR", header()[8:-4] + b"more"), pixels(RED)),
    "an unknown part": image(header(), chunk(b"\nABC"), pixels(RED)),
    "half the rows": image(header(), pixels(RED[:32])),
    "too many rows": image(header(), pixels(RED * 2)),
    "half a stream": image(header(), chunk(b"IDAT", STREAM[:-9])),
    "a stream without its end": image(header(), chunk(b"IDAT", STREAM[:-4])),
    "a wrong end of the stream": image(header(), chunk(b"IDAT", STREAM[:-4] + b"abcd")),
    "no palette": image(OF_PALETTE, CODES),
    "an empty palette": image(OF_PALETTE, chunk(b"PLTE"), CODES),
    "a palette of 5 bytes": image(OF_PALETTE, chunk(b"PLTE", bytes(5)), CODES),
    "a palette of 257 colours": image(OF_PALETTE, chunk(b"PLTE", bytes(771)), CODES),
    "a palette behind the pixels": image(OF_PALETTE, CODES, PALETTE),
    "a transparent colour behind the pixels": image(header(), pixels(RED), key(255, 0, 0)),
    "half a transparent colour": image(header(), chunk(b"tRNS", bytes(3)), pixels(RED)),
    "a transparent colour of four numbers": image(header(), key(1, 2, 3, 4), pixels(RED)),
    "an unknown filter": image(
        header(), chunk(b"IDAT", zlib.compress(b"".join(b"\x09" + row for row in RED)))),
    "3 bits": image(header(bits=3), pixels(RED)),
    "colour of kind 5": image(header(color=5), pixels(RED)),
    "interlaced by 7": image(header(interlaced=7), pixels(RED))}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(name):
    """Fails if what is no whole PNG file is shown all the same,
    or ends in anything but one line with the file's name.
    """
    with pytest.raises(ValueError) as e:
        decode(DAMAGED[name], "x.png")
    assert str(e.value).startswith("x.png: damaged PNG file (") and str(e.value).isprintable()
    assert len(str(e.value)) < 120


def test_a_library_that_is_not_there_is_no_damaged_file(monkeypatch):
    """Fails if a person looks for a fault in an image that is whole."""
    def halted(data):
        raise ImportError("no matplotlib here")
    monkeypatch.setattr(png, "decode", halted)
    with pytest.raises(ValueError, match="x.png: reading an image needs matplotlib .*make setup"):
        decode(WHOLE, "x.png")


def test_a_changed_byte_is_seen():
    """Fails if one changed byte of a file, wherever it is, is not noticed."""
    assert (decode(WHOLE, "x.png") == [255, 0, 0]).all()
    assert (decode(WHOLE + b"behind", "x.png") == [255, 0, 0]).all()
    for at in range(len(WHOLE)):
        for bit in (1, 128):
            with pytest.raises(ValueError):
                decode(WHOLE[:at] + bytes([WHOLE[at] ^ bit]) + WHOLE[at + 1:], "x.png")

"""Test that a damaged image of any common format quickly gives a picture or a short reason, and nothing else."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainables.errors import DataError
from trainables.modalities.image.images import decode_image

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's remarks on odd files

SIZE = (8, 6)
SECONDS = 20
"""Limit of processor seconds for the largest picture that is decoded."""

LONGEST = 400
"""Maximum length of a reason."""

CASES = int(os.environ.get("UNFREEZE_FUZZ_EXAMPLES", "1000"))
"""Damaged images of each format in the thorough run."""

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
GREY = RGB.convert("L")
PALETTE = RGB.quantize(16)
DEEP = Image.fromarray(np.random.default_rng(1).integers(0, 65536, (40, 56)).astype(np.uint16))
FLOATS = Image.fromarray(np.random.default_rng(2).random((40, 56)).astype(np.float32))
EXIF = Image.Exif()
EXIF[274], EXIF[271] = 6, "maker"


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


WHOLE: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: saved(RGB, "png", exif=EXIF),
    "PNG, palette, transparent": lambda: saved(PALETTE, "png", transparency=bytes(range(16))),
    "PNG, 16 bits": lambda: saved(DEEP, "png"),
    "PNG, animated": lambda: saved(RGB, "png", save_all=True, append_images=[RGB.rotate(9)]),
    "JPEG": lambda: saved(RGB, "jpeg", exif=EXIF),
    "JPEG, CMYK": lambda: saved(RGB.convert("CMYK"), "jpeg"),
    "JPEG, progressive": lambda: saved(GREY, "jpeg", progressive=True),
    "GIF, animated": lambda: saved(PALETTE, "gif", save_all=True, append_images=[GREY], transparency=0),
    "BMP": lambda: saved(RGB, "bmp"),
    "BMP, palette": lambda: saved(PALETTE, "bmp"),
    "TIFF": lambda: saved(RGB, "tiff"),
    "TIFF, LZW": lambda: saved(RGB, "tiff", compression="tiff_lzw"),
    "TIFF, JPEG": lambda: saved(RGB, "tiff", compression="jpeg"),
    "TIFF, 16 bits": lambda: saved(DEEP, "tiff", compression="tiff_deflate"),
    "TIFF, floats": lambda: saved(FLOATS, "tiff"),
    "WebP": lambda: saved(RGB, "webp", exif=EXIF),
    "WebP, lossless": lambda: saved(RGB.convert("RGBA"), "webp", lossless=True),
    "ICO": lambda: saved(RGB, "ico"),
    "PPM": lambda: saved(RGB, "ppm"),
    "JPEG 2000": lambda: saved(RGB, "jpeg2000"),
}
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1_000_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def outcome(encoded: bytes | Path) -> str:
    """Return the picture, or the reason why there is none. Exceptions other than DataError propagate."""
    began = time.process_time()
    try:
        picture = decode_image(encoded, SIZE)
    except DataError as error:
        reason = str(error)
        assert 0 < len(reason) < LONGEST
        assert "\n" not in reason
        return reason
    finally:
        assert time.process_time() - began < SECONDS
    assert picture.shape == (*SIZE, 3)
    assert picture.dtype == np.uint8
    return "picture"


def damaged(whole: bytes, chance: random.Random) -> bytes:
    """Damage bytes: flip bits, replace bytes and numbers, remove, repeat or truncate parts."""
    content = bytearray(whole)
    if chance.random() < 0.15:
        return whole[: chance.randrange(len(whole))]
    for _ in range(chance.choice((1, 1, 2, 3, 8, 32))):
        at = (
            chance.randrange(len(content))
            if chance.random() < 0.4
            else chance.randrange(min(len(content), 120))
        )
        match chance.randrange(5):
            case 0:
                content[at] ^= 1 << chance.randrange(8)
            case 1:
                content[at] = chance.choice(NUMBERS) & 0xFF
            case 2:
                width = chance.choice((2, 4))
                number = chance.choice(NUMBERS) & (256**width - 1)
                content[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
            case 3 if len(content) > 200:
                del content[at : at + chance.choice((1, 4, 100))]
            case _:
                content[at:at] = content[at : at + chance.choice((1, 4, 64))]
    sound = chance.random() < 0.7 and content.startswith(b"\x89PNG")
    return with_checksums(content) if sound else bytes(content)


def with_checksums(content: bytearray) -> bytes:
    """Correct the checksums of a damaged PNG, so that the damage reaches the decoder."""
    start = 8
    while start + 12 <= len(content):
        end = start + 8 + struct.unpack(">I", content[start : start + 4])[0]
        if end + 4 > len(content):
            break
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[start + 4 : end]))
        start = end + 4
    return bytes(content)


@pytest.mark.parametrize("kind", WHOLE)
def test_damaged_images(kind: str) -> None:
    whole = WHOLE[kind]()
    assert outcome(whole) == "picture"
    reasons = {outcome(damaged(whole, random.Random(seed))) for seed in range(60)}
    assert len(reasons) > 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", WHOLE)
def test_thousands_of_damaged_images(kind: str) -> None:
    whole = WHOLE[kind]()
    for seed in range(60, 60 + CASES):
        outcome(damaged(whole, random.Random(seed)))


def with_size(kind: str, width: int, height: int) -> bytes:
    """A picture whose header has another size than its data."""
    whole = bytearray(saved(RGB, kind))
    if kind == "png":
        whole[16:24] = struct.pack(">II", width, height)
        return with_checksums(whole)
    at, order = {"bmp": (18, "<ii"), "gif": (6, "<HH")}[kind]
    whole[at : at + struct.calcsize(order)] = struct.pack(order, width, height)
    return bytes(whole)


@pytest.mark.parametrize("kind", ["png", "bmp", "gif"])
@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0), (65535, 1), (1, 65535), (65535, 65535)])
def test_sizes_that_are_none_or_not_those_of_the_data(kind: str, size: tuple[int, int]) -> None:
    assert outcome(with_size(kind, *size))


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (100_000, 100_000)])
def test_bombs_are_refused_by_what_they_say(size: tuple[int, int]) -> None:
    assert "too many pixels" in outcome(with_size("png", *size))


@pytest.mark.parametrize("size", [(65535, 1), (1, 65535), (1, 1)])
@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "gif"])
def test_the_longest_and_the_smallest_pictures_are_decoded(kind: str, size: tuple[int, int]) -> None:
    if kind == "jpeg":
        size = (min(size[0], 65500), min(size[1], 65500))
    assert outcome(saved(Image.new("RGB", size, "red"), kind)) == "picture"


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0II*\0" + b"\xff" * 60_000]
)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_exif_that_says_nothing(kind: str, exif: bytes) -> None:
    assert outcome(saved(RGB, kind, exif=exif)) == "picture"


@pytest.mark.parametrize("name", ["folder", "pipe", "zero"])
def test_a_path_that_is_no_file_is_not_waited_for(name: str, weird_folder: Path) -> None:
    path = weird_folder / f"images {name}"
    if name == "folder":
        path.mkdir()
    elif name == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    assert outcome(path) == "not a file"


def test_16_bits_are_rounded_to_the_nearest_of_8() -> None:
    every = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    picture = decode_image(saved(every, "png"), (256, 256))
    expected = np.rint(np.arange(65536) / 65535 * 255).reshape(256, 256)
    np.testing.assert_array_equal(picture[:, :, 0], expected)

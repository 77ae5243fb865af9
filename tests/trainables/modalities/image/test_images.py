"""Any image that Pillow opens becomes RGB; what can't be read is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainables.errors import DataError
from trainables.modalities.image.images import decode_image

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

GREY_RAMP = np.linspace(0, 255, 64, dtype=np.uint8).reshape(8, 8)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png16(values: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG of (H, W, C) values, which Pillow can't write for every colour type."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def colour(encoded: bytes) -> tuple[int, ...]:
    """The one colour of a plain image."""
    pixels = decode_image(encoded, (4, 4))
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert np.ptp(pixels.astype(int), axis=(0, 1)).max() <= 4
    return tuple(pixels[0, 0].tolist())


@pytest.mark.parametrize(
    "kind", ["png", "jpeg", "webp", "bmp", "gif", "tiff", "ppm", "tga", "jpeg2000", "ico"]
)
def test_common_formats(kind: str) -> None:
    red, green, blue = colour(saved(Image.new("RGB", (16, 16), (200, 100, 50)), kind))
    assert abs(red - 200) < 8
    assert abs(green - 100) < 8
    assert abs(blue - 50) < 8


@pytest.mark.parametrize(
    ("mode", "value", "kind", "options", "expected"),
    [
        pytest.param("1", 1, "png", {}, (255, 255, 255), id="one bit"),
        pytest.param("L", 77, "png", {}, (77, 77, 77), id="greyscale"),
        pytest.param("L", 7, "png", {"transparency": 7}, (255, 255, 255), id="transparent grey"),
        pytest.param("LA", (0, 0), "png", {}, (255, 255, 255), id="clear grey with alpha"),
        pytest.param("LA", (100, 255), "png", {}, (100, 100, 100), id="solid grey with alpha"),
        pytest.param(
            "RGB", (9, 8, 7), "png", {"transparency": (9, 8, 7)}, (255, 255, 255), id="transparent RGB"
        ),
        pytest.param("RGBA", (0, 0, 0, 0), "png", {}, (255, 255, 255), id="clear RGBA"),
        pytest.param("RGBA", (0, 0, 0, 51), "png", {}, (204, 204, 204), id="faint RGBA"),
        pytest.param("CMYK", (0, 255, 0, 0), "tiff", {}, (255, 0, 255), id="CMYK TIFF"),
        pytest.param("CMYK", (0, 255, 0, 0), "jpeg", {"quality": 100}, (255, 0, 255), id="CMYK JPEG"),
        pytest.param("I;16", 65535, "png", {}, (255, 255, 255), id="16 bits, white"),
        pytest.param("I;16", 32896, "tiff", {}, (128, 128, 128), id="16 bits, grey"),
        pytest.param("I;16", 255, "png", {}, (1, 1, 1), id="16 bits, nearly black"),
        pytest.param("I;16", 257, "ppm", {}, (1, 1, 1), id="16 bits in PGM"),
        pytest.param("I", 200, "tiff", {}, (200, 200, 200), id="32 bits up to 255"),
        pytest.param("F", 0.5, "tiff", {}, (128, 128, 128), id="float up to 1"),
        pytest.param("F", 200.0, "tiff", {}, (200, 200, 200), id="float up to 255"),
        pytest.param("F", 65535.0, "tiff", {}, (255, 255, 255), id="float up to 65535"),
        pytest.param("F", -3.0, "tiff", {}, (0, 0, 0), id="float without a range"),
    ],
)
def test_modes(mode: str, value: Any, kind: str, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert colour(saved(Image.new(mode, (8, 8), value), kind, **options)) == expected


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_16_bits_a_channel(colour_type: int, channels: int) -> None:
    values = np.full((4, 4, channels), 0x4000, dtype=np.uint16)
    if colour_type >= 4:
        values[..., -1] = 0xFFFF
    assert colour(png16(values, colour_type)) == (64, 64, 64)


def test_16_bits_keep_their_gradation() -> None:
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    pixels = decode_image(saved(Image.fromarray(ramp), "png"), (8, 8))
    np.testing.assert_allclose(pixels[..., 0], GREY_RAMP, atol=1)


def test_values_beyond_16_bits_span_their_own_range() -> None:
    values = np.array([[-1000, 500_000], [1_001_000 - 2000, -1000]], dtype=np.int32)
    pixels = decode_image(saved(Image.fromarray(values), "tiff"), (2, 2))
    assert pixels[..., 0].tolist() == [[0, 128], [255, 0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="NaN or infinite"):
        decode_image(saved(Image.new("F", (4, 4), value), "tiff"), (4, 4))


def test_palette_with_transparency() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert colour(saved(image, "png")) == (0, 0, 255)
    assert colour(saved(image, "png", transparency=1)) == (255, 255, 255)
    assert colour(saved(image, "png", transparency=bytes([255, 127]))) == (128, 128, 255)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), shade) for shade in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "webp" else {}
    encoded = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert colour(encoded) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_rotated_according_to_exif(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    upright = Image.fromarray(GREY_RAMP[:, ::-1].copy()).convert("RGB")
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(saved(stored, "png", exif=exif), (8, 8))
    np.testing.assert_array_equal(pixels, np.asarray(upright))


def test_an_image_with_damaged_exif_is_read() -> None:
    encoded = saved(Image.new("RGB", (8, 8), "red"), "png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert colour(encoded) == (255, 0, 0)


def test_stretched_to_height_and_width() -> None:
    assert decode_image(saved(Image.new("RGB", (30, 10)), "png"), (6, 9)).shape == (6, 9, 3)


def test_shrunk_without_aliasing() -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    pixels = decode_image(saved(Image.fromarray(stripes), "png"), (8, 8)).astype(int)
    assert np.abs(pixels - 127).max() < 20


def test_large_jpeg_decoded_at_low_resolution_looks_the_same() -> None:
    smooth = Image.fromarray(GREY_RAMP).resize((1024, 768), Image.Resampling.BICUBIC)
    pixels = decode_image(saved(smooth, "jpeg", quality=95), (16, 16)).astype(int)
    expected = np.asarray(smooth.resize((16, 16), Image.Resampling.BOX)).astype(int)
    assert np.abs(pixels[..., 0] - expected).max() <= 6


def test_reads_files_with_odd_names(odd_path: Path) -> None:
    path = odd_path / "bild äöü.PNG"
    path.write_bytes(saved(Image.new("RGB", (8, 8), "blue"), "png"))
    assert decode_image(path, (2, 2))[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        pytest.param(b"", "empty", id="zero bytes"),
        pytest.param(b"just some text", "not in an image format", id="text"),
        pytest.param(
            saved(Image.new("RGB", (64, 64), "red"), "jpeg")[:400], "(?i)truncated", id="truncated JPEG"
        ),
        pytest.param(
            saved(Image.fromarray(GREY_RAMP).resize((64, 64)), "png")[:150], "truncated", id="short PNG"
        ),
        pytest.param(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not in an image", id="EPS"),
    ],
)
def test_unreadable_bytes(encoded: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(encoded)
    for image in (encoded, memoryview(encoded), path):
        with pytest.raises(DataError, match=reason):
            decode_image(image, (8, 8))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        decode_image(tmp_path / "gone.png", (8, 8))


def test_decompression_bomb_is_refused_at_pillows_own_limit() -> None:
    values = zlib.compress(b"\0" * (1 + 10_000 // 8) * 10_000)
    bomb = saved(Image.new("1", (1, 1)), "png")
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", values), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    with pytest.raises(DataError, match=r"too many pixels .* 10000 x 10000"):
        decode_image(bomb[:8] + body, (8, 8))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["png", "jpeg", "gif", "tiff", "webp", "bmp", "ico", "ppm", "jpeg2000", "tga"]),
    place=st.floats(0, 1),
    damage=st.binary(min_size=1, max_size=8),
    cut=st.floats(0, 1),
)
def test_damaged_files_give_an_image_or_a_reason(kind: str, place: float, damage: bytes, cut: float) -> None:
    encoded = bytearray(saved(Image.fromarray(GREY_RAMP).convert("RGB"), kind))
    start = int(place * len(encoded))
    encoded[start : start + len(damage)] = damage
    outcome: object
    try:
        outcome = decode_image(bytes(encoded[: max(1, int((0.5 + cut) * len(encoded)))]), (8, 8)).shape
    except DataError as error:
        outcome = str(error)
    assert outcome == (8, 8, 3) or (isinstance(outcome, str) and outcome)

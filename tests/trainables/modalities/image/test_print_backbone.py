"""The shipped backbone keeps its contract, and the script that makes it works from any fonts."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest

from trainables.errors import DataError
from trainables.modalities.image.print_backbone import CUTS, weights_path
from trainables.modalities.image.print_backbone.architecture import WIDTHS, build
from trainables.modalities.image.print_backbone.distort import distort
from trainables.modalities.image.print_backbone.distortions import Distortions
from trainables.modalities.image.print_backbone.fonts import find_fonts
from trainables.modalities.image.print_backbone.pretrain import main
from trainables.modalities.image.print_backbone.recipe import Recipe, pretrain
from trainables.modalities.image.print_backbone.render import CLASSES, Glyphs, render_glyph, render_glyphs
from trainables.modalities.image.print_backbone.sampling import probabilities, split_families

SHIPPED_FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
READABLE = [
    f"DejaVu{style}.ttf"
    for style in ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "Serif", "Serif-Italic")
]
WEIRD = "fönts 'of' 字 here"


@pytest.fixture(scope="module")
def backbone() -> keras.Model:
    return keras.saving.load_model(weights_path(), safe_mode=True, compile=False)


@pytest.fixture(scope="module")
def glyphs() -> Glyphs:
    return render_glyphs([SHIPPED_FONTS / name for name in READABLE])


def test_the_shipped_file_is_small() -> None:
    assert weights_path().stat().st_size < 600_000


def test_the_shipped_file_holds_no_code_and_no_optimizer() -> None:
    with zipfile.ZipFile(weights_path()) as archive:
        config = archive.read("config.json").decode()
    assert "Lambda" not in config
    assert "optimizer" not in config


def test_raw_pixels_go_in_and_pooled_features_come_out(backbone: keras.Model) -> None:
    assert backbone.input.shape == (None, 32, 32, 3)
    assert backbone.output.shape == (None, WIDTHS[-1])
    assert isinstance(backbone.layers[1], keras.layers.Rescaling)
    assert isinstance(backbone.layers[-1], keras.layers.GlobalAveragePooling2D)


def test_features_are_finite_and_tell_characters_apart(backbone: keras.Model, glyphs: Glyphs) -> None:
    images = distort(glyphs.images[glyphs.labels < 10], np.random.default_rng(0), Distortions(floor=1.0))
    features = backbone.predict(np.repeat(images[..., None], 3, -1).astype(np.float32), verbose=0)
    labels = glyphs.labels[glyphs.labels < 10]
    means = np.stack([features[labels == digit].mean(axis=0) for digit in range(10)])
    nearest = ((features[:, None] - means) ** 2).sum(-1).argmin(1)
    assert np.isfinite(features).all()
    assert (nearest == labels).mean() > 0.9


@pytest.mark.parametrize("cut", CUTS)
def test_prefix_and_suffix_at_a_named_cut_make_the_whole(backbone: keras.Model, cut: str) -> None:
    tensor = backbone.get_layer(cut).output
    images = np.random.default_rng(1).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    below = keras.Model(backbone.input, tensor)(images)
    np.testing.assert_array_equal(keras.Model(tensor, backbone.output)(below), backbone(images))


def test_the_shipped_weights_fit_the_architecture(backbone: keras.Model) -> None:
    fresh = build()
    assert [w.shape for w in fresh.weights] == [w.shape for w in backbone.weights]
    assert [layer.name for layer in fresh.layers] == [layer.name for layer in backbone.layers]


@pytest.mark.parametrize("font", READABLE)
@pytest.mark.parametrize("character", ["0", "1", "8", "A", "g", "W"])
def test_a_glyph_shows_its_character(font: str, character: str) -> None:
    image = render_glyph(SHIPPED_FONTS / font, character)
    assert image is not None
    assert image.shape == (48, 48)
    assert image.dtype == np.uint8
    assert image.max() > 200
    assert image[:3].max() == image[-3:].max() == image[:, :3].max() == image[:, -3:].max() == 0
    ink = np.argwhere(image > 64)
    assert np.ptp(ink, axis=0).max() >= 36


def test_characters_of_one_font_differ(glyphs: Glyphs) -> None:
    first = [glyphs.images[glyphs.labels == label][0] for label in range(len(CLASSES))]
    assert len({image.tobytes() for image in first}) == len(CLASSES)


def test_a_space_has_no_glyph() -> None:
    assert render_glyph(SHIPPED_FONTS / READABLE[0], " ") is None


def test_a_file_that_is_no_font_is_named(tmp_path: Path) -> None:
    path = tmp_path / f"{WEIRD}.ttf"
    path.write_bytes(b"not a font")
    with pytest.raises(DataError, match="字"):
        render_glyphs([path])


def test_symbol_fonts_are_left_out() -> None:
    symbols = SHIPPED_FONTS / "STIXSizFiveSymReg.ttf"
    assert len(render_glyphs([symbols, SHIPPED_FONTS / READABLE[0]]).names) == 1
    with pytest.raises(DataError, match="digits"):
        render_glyphs([symbols])


def test_fonts_are_found_once_and_in_order(tmp_path: Path) -> None:
    folder = tmp_path / WEIRD
    (folder / "deep er").mkdir(parents=True)
    for name in ("b.ttf", "a.otf", "deep er/c.TTF"):
        (folder / name).touch()
    (folder / "notes.txt").touch()
    (folder / "link.ttf").symlink_to(folder / "b.ttf")
    assert [path.name for path in find_fonts([folder, folder / "b.ttf"])] == ["a.otf", "b.ttf", "c.TTF"]


def test_a_folder_without_fonts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found none in .*install"):
        find_fonts([tmp_path])
    with pytest.raises(DataError, match="does not exist"):
        find_fonts([tmp_path / WEIRD])


def test_the_system_has_fonts_without_any_package() -> None:
    assert set(READABLE) <= {path.name for path in find_fonts()}


@pytest.mark.parametrize("seed", [0, 7])
def test_distortion_is_a_function_of_its_seed(glyphs: Glyphs, seed: int) -> None:
    once, twice = (distort(glyphs.images, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(once, twice)
    other = distort(glyphs.images, np.random.default_rng(seed + 1))
    assert (once != other).any(axis=(1, 2)).mean() > 0.99


def test_distorted_images_are_white_on_black_and_never_blank(glyphs: Glyphs) -> None:
    images = distort(glyphs.images, np.random.default_rng(3))
    assert images.shape == (len(glyphs.images), 32, 32)
    assert images.dtype == np.uint8
    spread = images.reshape(len(images), -1).astype(float)
    assert (spread.max(axis=1) - spread.min(axis=1)).min() > 25
    assert np.median(spread, axis=1).mean() < spread.mean()


def test_the_weakest_distortion_keeps_the_character(glyphs: Glyphs) -> None:
    still = Distortions(
        thickness=(0.0, 0.0), height=(0.8, 0.8), aspect=(0.0, 2.0), rotation=0.0, shear=0.0, shift=0.0,
        perspective=0.0, elastic=0.0, blur=(0.0, 0.0), resolutions=(32,), noise=0.0, floor=1.0,
    )  # fmt: skip
    zeros = glyphs.images[glyphs.labels == 0]
    for image in distort(zeros, np.random.default_rng(0), still):
        rows = np.flatnonzero(image.max(axis=1) > 100)
        assert abs(np.ptp(rows) + 1 - 0.8 * 32) <= 2
        assert abs(rows.mean() - 15.5) <= 1


def test_families_are_held_out_whole(glyphs: Glyphs) -> None:
    parts = split_families(glyphs, seed=0)
    assert len(parts.held_out) > 0
    assert not set(glyphs.families[parts.train]) & set(glyphs.families[parts.held_out])
    assert len(parts.train) + len(parts.held_out) == len(glyphs.labels)


def test_digits_get_their_share(glyphs: Glyphs) -> None:
    chosen = np.arange(len(glyphs.labels))
    shown = probabilities(glyphs, chosen, 0.4)
    assert shown.sum() == pytest.approx(1)
    assert shown[glyphs.labels < 10].sum() == pytest.approx(0.4)
    per_digit = np.bincount(glyphs.labels[glyphs.labels < 10], shown[glyphs.labels < 10])
    np.testing.assert_allclose(per_digit, 0.04)


@pytest.mark.slow
def test_a_tiny_pretraining_learns_and_repeats(glyphs: Glyphs) -> None:
    recipe = Recipe(steps=30, batch_size=32, seed=5, held_out_images=300)
    first, second = (pretrain(glyphs, recipe) for _ in range(2))
    for one, other in zip(first.backbone.get_weights(), second.backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert first.accuracy > 2 / len(CLASSES)
    assert first.accuracy == second.accuracy


@pytest.mark.slow
def test_the_command_writes_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / WEIRD / "small.keras"
    fonts = [str(SHIPPED_FONTS / name) for name in READABLE[:4]]
    assert main(["--out", str(out), "--fonts", *fonts, "--steps", "2", "--batch-size", "8"]) == 0
    assert "held-out print accuracy" in capsys.readouterr().out
    assert keras.saving.load_model(out, safe_mode=True).output.shape == (None, WIDTHS[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "weights.h5"], "ends in .keras"),
        (["--out", "a.keras", "--steps", "0"], "--steps"),
    ],
)
def test_bad_usage_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err

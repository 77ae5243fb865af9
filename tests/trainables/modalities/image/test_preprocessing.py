"""Preprocessing in the graph equals what ``keras.applications`` documents for each family."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.applications import APPLICATIONS, Application
from trainables.modalities.image.backbones import load
from trainables.modalities.image.preprocessing import preprocess, to_channels

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype("float32")


def family(name: str) -> ModuleType:
    """The module of ``keras.applications`` that ``name`` comes from."""
    source = getattr(keras.applications, name).__module__.rpartition(".")[2]
    return getattr(keras.applications, source)


def as_model(mode: str, channels: int = 3) -> Any:
    image = keras.Input((6, 5, 3))
    return keras.Model(image, preprocess(to_channels(image, channels), mode))


@pytest.mark.parametrize("application", APPLICATIONS.values(), ids=lambda a: a.name)
def test_every_application_is_preprocessed_as_its_family_says(application: Application) -> None:
    expected = family(application.name).preprocess_input(PIXELS.copy())
    received = np.asarray(as_model(application.preprocessing)(PIXELS))
    np.testing.assert_allclose(received, expected, atol=2e-5)


def test_unit_scales_to_one() -> None:
    np.testing.assert_allclose(as_model("unit")(PIXELS), PIXELS / 255, atol=1e-6)


@pytest.mark.parametrize("mode", ["none", "unit", "tf", "torch", "caffe"])
def test_survives_a_safe_reload(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "pré 字.keras"
    model = as_model(mode)
    model.save(path)
    again = keras.models.load_model(path, safe_mode=True)
    np.testing.assert_array_equal(again(PIXELS), model(PIXELS))


def test_grey_is_luma() -> None:
    grey = np.asarray(as_model("none", channels=1)(PIXELS))
    np.testing.assert_allclose(grey[..., 0], PIXELS @ [0.2989, 0.587, 0.114], rtol=1e-3)


def test_unknown_mode_is_refused_by_name() -> None:
    with pytest.raises(BackboneError, match=r"expected auto, none, tf, torch, caffe, unit; received 'bgr'"):
        as_model("bgr")


OTHERS = [
    "EfficientNetB0",
    "MobileNetV3Small",
    "EfficientNetV2B0",
    "EfficientNetV2S",
    "ResNet50",
    "ResNet50V2",
    "ConvNeXtTiny",
]
OTHERS += ["DenseNet121", "InceptionV3", "VGG16", "Xception", "NASNetMobile"]


@pytest.mark.parametrize(
    "name",
    ["MobileNetV2", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)],
)
def test_backbone_on_raw_pixels_equals_the_application_on_preprocessed_ones(
    name: str, tmp_path: Path
) -> None:
    size = APPLICATIONS[name].min_input_size
    original = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    shake(original)
    file = tmp_path / "wéights 字.weights.h5"
    original.save_weights(file)
    backbone = load(BackboneSpec(name, weights=str(file), input_size=size))
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3)).astype("float32")
    expected = np.asarray(original(family(name).preprocess_input(pixels.copy()), training=False))
    received = np.asarray(backbone.model(pixels, training=False))
    np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert expected.std() > 0


def shake(model: Any) -> None:
    """Give the normalisation layers statistics that matter."""
    draw = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(draw.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(draw.uniform(0.5, 1.5, layer.moving_variance.shape))
        elif isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.adapt_mean.assign([0.4, 0.5, 0.6])
            layer.adapt_variance.assign([0.05, 0.06, 0.07])
            layer.finalize_state()

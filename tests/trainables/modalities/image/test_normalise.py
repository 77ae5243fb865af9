"""Models with heads, nested, sequential, served and grey models all become backbones of one form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.backbones import load

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype("float32")


def trunk(x: Any) -> Any:
    for number, channels in enumerate((4, 8, 8)):
        x = layers.Conv2D(channels, 3, padding="same", name=f"conv{number}")(x)
        x = layers.BatchNormalization(name=f"norm{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    return x


def body(channels: int = 3, size: int | None = 16) -> Any:
    """From raw images to a feature map."""
    image = keras.Input((size, size, channels))
    return keras.Model(image, trunk(layers.Rescaling(1 / 255, name="scale")(image)))


def pooled(model: Any, x: np.ndarray) -> np.ndarray:
    return np.asarray(model(x, training=False)).mean(axis=(1, 2))


def features(backbone: Backbone, x: np.ndarray = PIXELS) -> np.ndarray:
    return np.asarray(backbone.model(x, training=False))


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., BackboneSpec]:
    def save(model: Any, **options: Any) -> BackboneSpec:
        path = tmp_path / "my módel 字.keras"
        model.save(path)
        return BackboneSpec(str(path), **options)

    return save


Save = Callable[..., BackboneSpec]

HEADS: dict[str, Callable[[Any], Any]] = {
    "none": lambda x: x,
    "pool": lambda x: layers.GlobalAveragePooling2D()(x),
    "pool, dense": lambda x: layers.Dense(5)(layers.GlobalAveragePooling2D()(x)),
    "pool, dropout, mlp, softmax": lambda x: layers.Softmax()(
        layers.Dense(5)(layers.Dense(9, "relu")(layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))))
    ),
    "flatten, dense": lambda x: layers.Dense(5, "softmax")(layers.Flatten()(x)),
    "reshape, dense": lambda x: layers.Dense(5)(layers.Reshape((-1,))(x)),
    "pool kept, convolution, flatten": lambda x: layers.Flatten()(
        layers.Conv2D(5, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_any_head_is_left_out(head: str, save: Save) -> None:
    base = body()
    model = keras.Model(base.input, HEADS[head](base.output))
    backbone = load(save(model))
    np.testing.assert_allclose(features(backbone), pooled(base, PIXELS), rtol=1e-4, atol=1e-6)
    assert [b.name for b in backbone.blocks] == ["conv0", "conv1", "conv2"]
    assert (backbone.name, backbone.weights) == ("my módel 字", "file")


def test_a_normalisation_of_pooled_features_belongs_to_them(save: Save) -> None:
    base = body()
    normal = layers.LayerNormalization(epsilon=1e-6)(layers.GlobalAveragePooling2D()(base.output))
    backbone = load(save(keras.Model(base.input, layers.Dense(5)(normal))))
    np.testing.assert_allclose(
        features(backbone), keras.Model(base.input, normal)(PIXELS), rtol=1e-4, atol=1e-5
    )


def test_a_network_s_own_max_pooling_is_kept(save: Save) -> None:
    base = body()
    model = keras.Model(base.input, layers.Dense(5)(layers.GlobalMaxPooling2D()(base.output)))
    expected = np.asarray(base(PIXELS)).max(axis=(1, 2))
    np.testing.assert_allclose(features(load(save(model))), expected, rtol=1e-4)


def test_tokens_are_pooled_as_the_network_does(save: Save) -> None:
    image = keras.Input((16, 16, 3))
    tokens = layers.Reshape((16, 8))(layers.Conv2D(8, 4, strides=4)(image))
    tokens = layers.Add()([tokens, layers.MultiHeadAttention(2, 4)(tokens, tokens)])
    mean = layers.GlobalAveragePooling1D()(tokens)
    backbone = load(save(keras.Model(image, layers.Dense(5)(mean))))
    np.testing.assert_allclose(features(backbone), keras.Model(image, mean)(PIXELS), rtol=1e-4, atol=1e-4)
    assert len(backbone.blocks) == 2


def test_a_perceptron_loses_its_last_layer(save: Save) -> None:
    image = keras.Input((16, 16, 3))
    hidden = layers.Dense(7, "relu")(layers.Flatten()(layers.Rescaling(1 / 255)(image)))
    backbone = load(save(keras.Model(image, layers.Dense(5)(layers.Dropout(0.5)(hidden)))))
    np.testing.assert_allclose(features(backbone), keras.Model(image, hidden)(PIXELS), rtol=1e-4, atol=1e-6)
    assert len(backbone.blocks) == 1


def test_a_bare_classifier_is_refused(save: Save) -> None:
    image = keras.Input((16, 16, 3))
    spec = save(keras.Model(image, layers.Dense(5)(layers.Flatten()(image))))
    with pytest.raises(BackboneError, match="layers with weights below the classifier head, found none"):
        load(spec)


def test_nested_models_are_opened(save: Save) -> None:
    base = body()
    image = keras.Input((16, 16, 3))
    stem = keras.Sequential([layers.Conv2D(3, 1, name="conv0"), layers.ReLU()], name="stem")
    outer = layers.Dense(5)(layers.GlobalAveragePooling2D()(base(stem(image), training=False)))
    backbone = load(save(keras.Model(image, outer)))
    np.testing.assert_allclose(
        features(backbone), pooled(base, np.asarray(stem(PIXELS))), rtol=1e-4, atol=1e-5
    )
    assert len(backbone.blocks) == 4
    assert not any(isinstance(layer, keras.Model) for layer in backbone.model.layers)


def test_a_training_argument_fixed_in_the_file_is_dropped(save: Save) -> None:
    base = body()
    image = keras.Input((16, 16, 3))
    base.trainable = False
    spec = save(keras.Model(image, layers.GlobalAveragePooling2D()(base(image, training=False))))
    model = load(spec).model
    assert len(model.trainable_variables) == 12
    assert (
        np.abs(np.asarray(model(PIXELS, training=True)) - np.asarray(model(PIXELS, training=False))).max() > 0
    )


def test_a_sequential_model_becomes_functional(save: Save) -> None:
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )
    backbone = load(save(model))
    np.testing.assert_allclose(features(backbone), pooled(model.layers[0], PIXELS), rtol=1e-4, atol=1e-4)


def test_a_served_model_becomes_the_backbone_it_was_built_from(save: Save) -> None:
    first = load(save(body(), input_size=24))
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = layers.Resizing(24, 24, antialias=True)(layers.Rescaling(1.0)(images))
    prefix, suffix = first.parts(2)
    scores = layers.Dense(5)(layers.Dense(9, "relu")(suffix(prefix(x))))
    served = keras.Model(images, layers.Softmax()(scores))
    served.trainable = False
    again = load(save(served))
    larger = np.random.default_rng(1).integers(0, 256, (2, 24, 24, 3)).astype("float32")
    assert again.input_size == (24, 24)
    assert [b.name for b in again.blocks] == [b.name for b in first.blocks]
    np.testing.assert_allclose(features(again, larger), features(first, larger), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(
        served.layers[-2](served.layers[-3](features(again, larger))),
        keras.Model(served.input, scores)(larger.astype("uint8")),
    )


def test_any_size_for_a_model_that_takes_any(save: Save) -> None:
    base = body(size=None)
    assert load(save(base, input_size=40)).input_size == (40, 40)
    assert load(save(base)).input_size == (224, 224)


def test_a_grey_model_takes_colour_images(save: Save) -> None:
    base = body(channels=1)
    grey = np.repeat(PIXELS[..., :1], 3, axis=-1)
    backbone = load(save(base))
    np.testing.assert_allclose(features(backbone, grey), pooled(base, grey[..., :1]), rtol=2e-3, atol=1e-4)
    assert backbone.model.input.shape == (None, 16, 16, 3)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe", "unit"])
def test_a_file_is_preprocessed_as_asked(mode: str, save: Save) -> None:
    image = keras.Input((16, 16, 3))
    base = keras.Model(image, trunk(image))
    plain, asked = load(save(base)), load(save(base, preprocessing=mode))
    prefix, _ = asked.parts(len(asked.blocks))
    prepared = np.asarray(prefix(PIXELS))
    assert np.abs(prepared - PIXELS).max() > 1
    np.testing.assert_allclose(features(asked), features(plain, prepared), rtol=1e-4, atol=1e-5)


def test_adapted_statistics_become_constants(save: Save) -> None:
    image = keras.Input((16, 16, 3))
    normal = layers.Normalization()
    normal.adapt(PIXELS)
    base = keras.Model(image, trunk(normal(image)))
    backbone = load(save(base))
    np.testing.assert_allclose(features(backbone), pooled(base, PIXELS), rtol=1e-4, atol=1e-6)
    copy = keras.models.clone_model(backbone.model)
    copy.set_weights(backbone.fresh_weights(0))
    prefix, _ = backbone.parts(len(backbone.blocks))
    assert prefix.count_params() == 0


def test_a_size_that_the_network_can_t_take_is_refused(save: Save) -> None:
    image = keras.Input((16, 16, 3))
    x = layers.Reshape((8, 8, 12))(image)
    spec = save(keras.Model(image, layers.Conv2D(4, 3)(x)), input_size=20)
    with pytest.raises(BackboneError, match="it can't take images of 20x20 pixels"):
        load(spec)

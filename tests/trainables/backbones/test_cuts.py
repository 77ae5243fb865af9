"""Cuts are the points of a graph where one tensor is live, whatever operations it consists of."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from trainables.backbones.cuts import find_cuts, find_segments


def names(model: Any) -> list[str]:
    return [cut.name for cut in find_cuts(model)]


def test_a_chain_can_be_cut_everywhere() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="a")(image)
    x = layers.ReLU(name="b")(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D(name="c")(x))
    assert names(model) == ["image", "a", "b", "c"]
    assert [cut.shape for cut in find_cuts(model)] == [(8, 8, 3), (6, 6, 4), (6, 6, 4), (4,)]


def test_a_residual_block_can_be_cut_only_around() -> None:
    image = keras.Input((8, 8, 4), name="image")
    branch = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    branch = layers.ReLU(name="relu")(branch)
    model = keras.Model(image, layers.Add(name="add")([image, branch]))
    assert names(model) == ["image", "add"]
    (segment,) = find_segments(model.inputs[0], model.outputs[0])
    assert [call.operation.name for call in segment.calls] == ["conv", "relu", "add"]
    assert segment.single_call is None


def test_operations_that_are_no_layers_count() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    gated = x * keras.ops.relu6(x + 3.0)
    model = keras.Model(image, layers.Dropout(0.5, name="drop")(gated))
    assert "conv" in names(model)
    assert names(model)[-1] == "drop"
    assert len(names(model)) == 4


def test_a_tensor_used_twice_by_one_call_is_one_tensor() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    model = keras.Model(image, layers.Concatenate(name="twice")([x, x]))
    assert names(model) == ["image", "conv", "twice"]


def test_a_layer_called_twice_makes_two_cuts() -> None:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    model = keras.Model(image, shared(shared(image)))
    assert names(model) == ["image", "shared", "shared"]


def test_a_skip_over_everything_leaves_the_ends() -> None:
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(3, 3, padding="same")(image)
    x = layers.Conv2D(3, 3, padding="same")(x)
    model = keras.Model(image, layers.Concatenate(name="end")([image, x]))
    assert names(model) == ["image", "end"]


@pytest.mark.parametrize("width", [1, 2, 5])
def test_prefix_and_suffix_at_every_cut_make_the_whole(width: int) -> None:
    image = keras.Input((8, 8, 3))
    x = image
    for _ in range(width):
        x = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(x))
        x = layers.ReLU()(layers.Add()([x, layers.Conv2D(4, 1)(x)]))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    whole = np.asarray(model(pixels))
    cuts = find_cuts(model)
    assert len(cuts) == 2 + 4 * width
    for cut in cuts[1:-1]:
        prefix, suffix = keras.Model(image, cut.tensor), keras.Model(cut.tensor, model.output)
        np.testing.assert_array_equal(suffix(prefix(pixels)), whole)

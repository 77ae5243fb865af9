"""Blocks, the units of ``unfreeze_depth``, on graphs that are small enough to read."""

from __future__ import annotations

from itertools import chain
from typing import Any

import keras
import pytest
from keras import layers

from trainables.backbones.blocks import find_blocks, name_blocks
from trainables.backbones.cuts import find_segments


def blocks(image: Any, output: Any, most: int = 20) -> list[list[str]]:
    """The blocks as lists of their operations' names."""
    grouped = find_blocks(find_segments(image, output), most)
    return [[c.operation.name for segment in block for c in segment.calls] for block in grouped]


def conv(x: Any, channels: int, name: str, **options: Any) -> Any:
    x = layers.Conv2D(channels, 3, padding="same", name=name, **options)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def residual(x: Any, name: str, **options: Any) -> Any:
    short = layers.Conv2D(x.shape[-1], 1, padding="same", name=f"{name}_short", **options)(x)
    long = layers.Conv2D(x.shape[-1], 3, padding="same", name=f"{name}_long", **options)(x)
    return layers.Add(name=f"{name}_add")([short, long])


@pytest.fixture
def image() -> Any:
    return keras.Input((32, 32, 3), name="image")


def test_normalisation_and_activation_stay_with_their_convolution(image: Any) -> None:
    x = conv(conv(image, 4, "one"), 8, "two", strides=2)
    assert blocks(image, x) == [["one", "one_bn", "one_relu"], ["two", "two_bn", "two_relu"]]


def test_preprocessing_and_padding_below_the_first_kernel(image: Any) -> None:
    x = layers.Rescaling(1 / 255, name="scale")(image)
    x = conv(layers.ZeroPadding2D(1, name="pad")(x), 4, "one")
    assert blocks(image, x) == [["pad", "one", "one_bn", "one_relu"]]


def test_a_trainable_normalisation_of_the_input_is_no_preprocessing(image: Any) -> None:
    x = conv(layers.BatchNormalization(name="first")(image), 4, "one")
    assert blocks(image, x)[0][0] == "first"


def test_a_plain_chain_ends_its_blocks_at_poolings(image: Any) -> None:
    x = conv(conv(image, 4, "a"), 4, "b")
    x = conv(layers.MaxPooling2D(name="pool")(x), 8, "c")
    x = conv(layers.AveragePooling2D(2, name="mean")(x), 8, "d")
    tops = [block[-1] for block in blocks(image, layers.GlobalAveragePooling2D(name="features")(x))]
    assert tops == ["pool", "mean", "features"]


def test_an_expansion_stays_with_its_bottleneck(image: Any) -> None:
    x = conv(image, 8, "stem", strides=2)
    for name in ("one", "two"):
        x = conv(x, 48, f"{name}_expand")
        x = layers.ReLU(name=f"{name}_act")(
            layers.DepthwiseConv2D(3, padding="same", name=f"{name}_depth")(x)
        )
        x = layers.Conv2D(x.shape[-1] // 4, 1, name=f"{name}_project")(x)
    assert [block[-1] for block in blocks(image, x)] == ["stem_relu", "one_project", "two_project"]


def test_a_gate_stays_with_the_projection_after_it(image: Any) -> None:
    x = conv(image, 8, "stem")
    squeezed = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(squeezed)
    x = layers.Multiply(name="gate")([x, gate])
    x = conv(layers.Conv2D(8, 1, name="project")(x), 16, "next")
    assert [block[-1] for block in blocks(image, x)] == ["project", "next_relu"]


def test_normalisation_after_a_merge_opens_the_next_block(image: Any) -> None:
    x = residual(conv(image, 4, "stem"), "one")
    x = layers.ReLU(name="pre_relu")(layers.BatchNormalization(name="pre_bn")(x))
    x = residual(x, "two")
    found = blocks(image, x)
    assert [block[-1] for block in found] == ["stem_relu", "one_add", "two_add"]
    assert found[2][:2] == ["pre_bn", "pre_relu"]


def test_no_boundary_separates_two_calls_of_one_layer(image: Any) -> None:
    x = conv(image, 4, "stem")
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = conv(shared(conv(shared(x), 4, "between")), 4, "top")
    assert [block[-1] for block in blocks(image, x)] == ["stem_relu", "shared", "top_relu"]


def test_a_last_normalisation_is_no_block_of_its_own(image: Any) -> None:
    x = residual(conv(image, 4, "stem"), "one")
    x = layers.GlobalAveragePooling2D(name="pool")(layers.BatchNormalization(name="last")(x))
    assert blocks(image, x)[-1][-2:] == ["last", "pool"]


def test_without_kernels_there_are_no_blocks(image: Any) -> None:
    assert blocks(image, layers.GlobalAveragePooling2D()(layers.Rescaling(2.0)(image))) == []


@pytest.mark.parametrize("most", [2, 5, 9, 20])
def test_long_stages_are_grouped_first_and_evenly(image: Any, most: int) -> None:
    x = conv(image, 4, "stem")
    for stage, length in enumerate((2, 12)):
        for number in range(length):
            x = residual(x, f"s{stage}_{number}", strides=2 if number == 0 else 1)
    found = blocks(image, x, most)
    assert len(found) <= most
    assert len(found) == min(most, 15) or most < 3
    assert list(chain(*found)) == list(chain(*blocks(image, x)))
    counts = [sum(name.endswith("_add") for name in block) for block in found if block[0].startswith("s1_")]
    assert max(counts) - min(counts) <= 1


def test_the_input_size_changes_nothing() -> None:
    def build(size: int) -> list[list[str]]:
        image = keras.Input((size, size, 3))
        x = conv(conv(image, 4, "a", strides=2), 4, "b", strides=2)
        return blocks(image, residual(layers.MaxPooling2D(name="p", padding="same")(x), "c", strides=2))

    assert build(8) == build(32) == build(75)


def test_names_come_from_layers_and_never_from_counters(image: Any) -> None:
    for _ in range(3):
        layers.Conv2D(1, 1)
    x = layers.Conv2D(4, 3)(image)
    x = residual(residual(x, "stage_1"), "stage_2")
    x = layers.Conv2D(8, 1, name="top")(x)
    grouped = find_blocks(find_segments(image, x))
    assert name_blocks(grouped) == ["block1", "stage_1", "stage_2", "top"]

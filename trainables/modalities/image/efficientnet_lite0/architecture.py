"""Builds EfficientNet-Lite0, with weights that were trained on ImageNet-1k.

EfficientNet-Lite (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, 2020) is
EfficientNet (Tan and Le, 2019, arXiv:1905.11946, table 1) without squeeze-and-excite, with ReLU6 in place of swish, and
with a stem and a top that are not scaled. Lite0 has 3.4 million parameters below its classifier. It takes pixels in
-1..1.

The weights are a PyTorch file (:mod:`trainables.modalities.image.efficientnet_lite0.weight_packages`). They are
converted without PyTorch: kernels are transposed, the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from trainables.errors import BackboneError

NAME = "EfficientNetLite0"
INPUT_SIZE = 224
"""Height and width in pixels at which the weights were trained."""

MIN_INPUT_SIZE = 32
"""Smallest height and width in pixels: the network halves an image five times."""

PREPROCESSING = "tf"
STEM_FILTERS, TOP_FILTERS = 32, 1280
LETTERS = "abcd"


@dataclass(frozen=True)
class Stage:
    """A run of inverted residual blocks (MBConv), of which the first may halve the image.

    Attributes:
        blocks: number of blocks.
        kernel: height and width of the depthwise kernels.
        strides: strides of the first block.
        expansion: factor by which a block widens its input.
        filters: number of output channels.
    """

    blocks: int
    kernel: int
    strides: int
    expansion: int
    filters: int


STAGES = (
    Stage(blocks=1, kernel=3, strides=1, expansion=1, filters=16),
    Stage(blocks=2, kernel=3, strides=2, expansion=6, filters=24),
    Stage(blocks=2, kernel=5, strides=2, expansion=6, filters=40),
    Stage(blocks=3, kernel=3, strides=2, expansion=6, filters=80),
    Stage(blocks=3, kernel=5, strides=1, expansion=6, filters=112),
    Stage(blocks=4, kernel=5, strides=2, expansion=6, filters=192),
    Stage(blocks=1, kernel=3, strides=1, expansion=6, filters=320),
)

_KERNEL_INITIALIZER = {
    "class_name": "VarianceScaling",
    "config": {"scale": 2.0, "mode": "fan_out", "distribution": "truncated_normal"},
}
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
"""PyTorch's names of the weights of a batch normalisation, in the order of Keras."""


def build(size: int) -> Any:
    """Build the network with random weights, from pixels in -1..1 (N, size, size, 3) to pooled features (N, 1280)."""
    x = image = keras.Input((size, size, 3), name="image")
    x = _convolution(x, "stem", "conv", STEM_FILTERS, kernel=3, strides=2)
    x = _normalised(x, "stem", "bn", activation="relu")
    for number, stage in enumerate(STAGES, start=1):
        for repeat in range(stage.blocks):
            strides = stage.strides if repeat == 0 else 1
            x = _block(x, f"block{number}{LETTERS[repeat]}", stage, strides)
    x = _convolution(x, "top", "conv", TOP_FILTERS, kernel=1)
    x = _normalised(x, "top", "bn", activation="relu")
    pooled = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(image, pooled, name="efficientnet_lite0")


def place_weights(model: Any, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Set the weights of a ``model`` that :func:`build` made.

    Args:
        model: the network.
        tensors: PyTorch's state of the whole classifier by name.

    Raises:
        BackboneError: a tensor is missing, has another shape or is not finite, or some are left over.
    """
    left = dict(tensors)
    for layer, names in _tensor_names():
        target = model.get_layer(layer)
        values = [_placed(target, name, left.pop(name, None)) for name in names]
        shapes = [tuple(value.shape) for value in values]
        expected = [tuple(weight.shape) for weight in target.weights]
        if shapes != expected:
            raise BackboneError(
                f"weights of {NAME}: expected shapes {expected} for {layer}, received {shapes}"
            )
        target.set_weights(values)
    # The classifier, and PyTorch's counters of training batches, have no place in a backbone.
    unknown = sorted(
        name for name in left if not name.startswith("_fc.") and not name.endswith(".num_batches_tracked")
    )
    if unknown:
        raise BackboneError(
            f"weights of {NAME}: expected no tensor {unknown[0]!r} ({len(unknown)} left over)"
        )


def _tensor_names() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each layer with weights, and the names of its tensors in the PyTorch file."""

    def normalisation(key: str) -> tuple[str, ...]:
        return tuple(f"{key}.{part}" for part in _BATCH_NORM)

    yield "stem_conv", ("_conv_stem.weight",)
    yield "stem_bn", normalisation("_bn0")
    blocks = [(n, i, stage) for n, stage in enumerate(STAGES, start=1) for i in range(stage.blocks)]
    for position, (number, repeat, stage) in enumerate(blocks):
        layer, key = f"block{number}{LETTERS[repeat]}", f"_blocks.{position}"
        if stage.expansion > 1:
            yield f"{layer}_expand_conv", (f"{key}._expand_conv.weight",)
            yield f"{layer}_expand_bn", normalisation(f"{key}._bn0")
        yield f"{layer}_dwconv", (f"{key}._depthwise_conv.weight",)
        yield f"{layer}_bn", normalisation(f"{key}._bn1")
        yield f"{layer}_project_conv", (f"{key}._project_conv.weight",)
        yield f"{layer}_project_bn", normalisation(f"{key}._bn2")
    yield "top_conv", ("_conv_head.weight",)
    yield "top_bn", normalisation("_bn1")


def _placed(layer: Any, name: str, tensor: NDArray[Any] | None) -> NDArray[Any]:
    """Return a tensor in the layout of Keras.

    Raises:
        BackboneError: it is missing, or some of its numbers are not finite.
    """
    if tensor is None:
        raise BackboneError(f"weights of {NAME}: expected a tensor {name!r}, found none")
    if not np.isfinite(tensor).all():
        raise BackboneError(f"weights of {NAME}: {name!r} holds numbers that are not finite")
    if tensor.ndim != 4:
        return tensor
    # PyTorch: (out, in, height, width), for a depthwise kernel (channels, 1, height, width).
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    return tensor.transpose(2, 3, 0, 1) if depthwise else tensor.transpose(2, 3, 1, 0)


def _block(x: Any, name: str, stage: Stage, strides: int) -> Any:
    """Add an inverted residual block: widen, convolve each channel, narrow; and add the input if the shapes agree."""
    shortcut, channels = x, int(x.shape[-1])
    if stage.expansion > 1:
        x = _convolution(x, name, "expand_conv", channels * stage.expansion, kernel=1)
        x = _normalised(x, name, "expand_bn", activation="expand_relu")
    x = layers.DepthwiseConv2D(
        stage.kernel,
        strides,
        padding="same",
        use_bias=False,
        depthwise_initializer=_KERNEL_INITIALIZER,
        name=f"{name}_dwconv",
    )(x)
    x = _normalised(x, name, "bn", activation="relu")
    x = _convolution(x, name, "project_conv", stage.filters, kernel=1)
    x = _normalised(x, name, "project_bn")
    if strides == 1 and channels == stage.filters:
        x = layers.Add(name=f"{name}_add")([x, shortcut])
    return x


def _convolution(x: Any, block: str, name: str, filters: int, kernel: int, strides: int = 1) -> Any:
    return layers.Conv2D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer=_KERNEL_INITIALIZER,
        name=f"{block}_{name}",
    )(x)


def _normalised(x: Any, block: str, name: str, activation: str | None = None) -> Any:
    x = layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{block}_{name}")(x)
    return x if activation is None else layers.ReLU(6.0, name=f"{block}_{activation}")(x)

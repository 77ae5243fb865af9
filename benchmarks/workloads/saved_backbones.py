"""Create backbones without a download, saved as the one ``.keras`` file that every contender loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.modalities.image.backbones import load

PREPROCESSING: Mapping[str, Mapping[str, Any]] = {
    "MobileNetV2": {"scale": 1 / 127.5, "offset": -1.0},
    "ResNet50": {"scale": 1 / 127.5, "offset": -1.0},
    "EfficientNetB0": {"scale": 1.0},
}
"""Arguments of the Rescaling layer that is put first. EfficientNet scales its pixels itself."""


def save_backbone(
    name: str, size: int, file: Path, images: np.ndarray, labels: np.ndarray, epochs: int, **options: Any
) -> None:
    """Write ``keras.applications``' ``name`` for raw pixels 0..255, ``size`` a side, pooled, to ``file``.

    The weights start at random and are trained for ``epochs`` on ``images`` (N, size, size, 3) with ``labels`` (N,).
    Without training, the features of a deep network are noise and no contender learns much from them. The statistics of
    the BatchNorm layers are those of ``images``, as those of a pretrained network are those of its training images.
    """
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((size, size, 3))
    scaled = keras.layers.Rescaling(**PREPROCESSING[name])(pixels)
    # The model is one flat graph, so that the layers below a depth are the first ones of ``model.layers``.
    application = getattr(keras.applications, name)(
        include_top=False, weights=None, pooling="avg", input_tensor=scaled, **options
    )
    model = keras.Model(pixels, application.outputs[0], name=name.lower())
    if epochs:
        _pretrain(model, images, labels, epochs)
    _settle(model, images[:256])
    model.save(file)


def blocks_of(file: Path) -> dict[int, int]:
    """Number of the model's first ``layers`` that are frozen at each ``unfreeze_depth``.

    Depth 0 freezes all, and so on until the last depth, which freezes the preprocessing at most.
    """
    import keras

    names = [layer.name for layer in keras.models.load_model(file, compile=False).layers]
    backbone = load(BackboneSpec(str(file)))
    depths = range(1, len(backbone.blocks) + 1)
    return {0: len(names)} | {d: _below(backbone, d, names) for d in depths}


def _below(backbone: Backbone, depth: int, names: list[str]) -> int:
    """Number of layers up to the cut. Only one tensor is live there, so all earlier layers lead to it."""
    name = backbone.blocks[-depth].cut.name
    if name in names:
        return names.index(name) + 1
    trainable = backbone.parts(depth)[0].trainable_weights
    if trainable:
        raise ValueError(f"depth {depth}: expected a cut at a layer of the file, received {name!r}")
    return 0


def _pretrain(model: Any, images: np.ndarray, labels: np.ndarray, epochs: int) -> None:
    import keras

    scores = keras.layers.Dense(int(labels.max()) + 1, activation="softmax")(model.outputs[0])
    classifier = keras.Model(model.inputs[0], scores)
    classifier.compile("adam", "sparse_categorical_crossentropy")
    classifier.fit(images, labels, batch_size=32, epochs=epochs, verbose=0)


def _settle(model: Any, images: np.ndarray) -> None:
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momentum = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images.astype(np.float32), training=True)
    for layer, before in zip(norms, momentum, strict=True):
        layer.momentum = before

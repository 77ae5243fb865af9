"""Computes what models of other architectures would cost to serve before any is trained: parameters and milliseconds.

The costs of a served model depend on its architecture (backbone and head), neither on its weights nor on how deeply it
was unfrozen. All architectures are timed in turn, round by round, so that other load on the machine affects them alike.
Two of them are compared by their times in the same rounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES_PER_PARAMETER = 4
"""A served model computes in float32."""

WARM_UP = 5
MIN_ROUNDS, MAX_ROUNDS = 15, 300
"""Limits of the number of rounds. In a round each model is called once."""

SECONDS_PER_MODEL = 1.5
"""Seconds of timing per model, within the limits on the number of rounds."""


@dataclass(frozen=True)
class Architecture:
    """A served model without its weights.

    Attributes:
        backbone: path of the backbone's file, as Backbone.save writes it.
        head_units: width of the head's hidden layer; 0 for a linear head.
        classes: number of classes.
    """

    backbone: str
    head_units: int
    classes: int


def parameter_counts(architectures: Sequence[Architecture]) -> list[int]:
    """Return the number of parameters of each architecture. It is computed; no model is built."""
    backbones = _open({architecture.backbone for architecture in architectures})
    return [_parameters(backbones[a.backbone], a) for a in architectures]


def paired_times(architectures: Sequence[Architecture]) -> NDArray[np.float64]:
    """Measure the milliseconds for one image of the backbone's size, as a batch of one: (architectures, rounds).

    Models are built with random weights. It takes about :data:`SECONDS_PER_MODEL` per model, and as long to build it.
    """
    backbones = _open({architecture.backbone for architecture in architectures})
    models = [_model(backbones[a.backbone], a) for a in architectures]
    images = [np.zeros((1, *backbones[a.backbone].input_size, 3), np.uint8) for a in architectures]
    pairs = list(zip(models, images, strict=True))
    # The first calls trace the model and are not timed.
    for model, image in pairs * WARM_UP:
        model.predict_on_batch(image)
    rounds: list[list[float]] = []
    end = time.perf_counter() + SECONDS_PER_MODEL * len(models)
    while len(rounds) < MIN_ROUNDS or (len(rounds) < MAX_ROUNDS and time.perf_counter() < end):
        rounds.append([_milliseconds(model, image) for model, image in pairs])
    return np.asarray(rounds).T


def _open(files: set[str]) -> dict[str, Any]:
    from trainables.backbones.backbone import Backbone

    return {file: Backbone.open(Path(file)) for file in sorted(files)}


def _parameters(backbone: Any, architecture: Architecture) -> int:
    return int(backbone.parameters) + sum(math.prod(shape) for shape in _head(backbone, architecture))


def _head(backbone: Any, architecture: Architecture) -> list[tuple[int, ...]]:
    from trainables.compiled.head import head_shapes

    features = int(backbone.model.output.shape[-1])
    return head_shapes(features, architecture.head_units, architecture.classes)


def _model(backbone: Any, architecture: Architecture) -> Any:
    from trainables.compiled.head import Head, initial_weights
    from trainables.serving.served_model import assemble_served_model
    from trainables.tracing import BUILD_LOCK

    features = int(backbone.model.output.shape[-1])
    with BUILD_LOCK:
        head = Head(features, architecture.head_units, architecture.classes)
        for variable, value in zip(
            head.variables, initial_weights(_head(backbone, architecture), 0), strict=True
        ):
            variable.assign(value)
        prefix, suffix = backbone.parts(0)
        return assemble_served_model(backbone.input_size, prefix, suffix, head)


def _milliseconds(model: Any, image: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    model.predict_on_batch(image)
    return 1000 * (time.perf_counter() - began)

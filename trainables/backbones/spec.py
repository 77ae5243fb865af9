"""Describes which backbone is wanted, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

BUILT_IN = "print"
"""Name of the backbone that ships with the package."""


@dataclass(frozen=True)
class BackboneSpec:
    """Which backbone is wanted, with which weights, at which input size.

    Attributes:
        name: ``print``, ``EfficientNetLite0`` or the name of a model of ``keras.applications`` in any spelling, or the
            path of a ``.keras`` file.
        weights: ``default`` (shipped for ``print``, ``imagenet`` for other names, those in a file), ``imagenet``,
            ``none`` (random, from ``seed``), or the path of a weights file.
        input_size: height and width in pixels; None for the backbone's own.
        preprocessing: ``auto``, or the mode that a ``.keras`` file expects for its pixels (none, unit, tf, torch,
            caffe) if it does not preprocess itself. For a file ``auto`` means none.
        seed: seed of random weights.
    """

    name: str = BUILT_IN
    weights: str = "default"
    input_size: int | None = None
    preprocessing: str = "auto"
    seed: int = 0

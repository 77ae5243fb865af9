"""Which backbone is wanted, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

BUILT_IN = "print"
"""The backbone that ships with the package."""


@dataclass(frozen=True)
class BackboneSpec:
    """Which backbone is wanted, with which weights, at which input size.

    ``name``: ``print``, a name from ``keras.applications`` in any spelling, or the path of a ``.keras`` file.
    ``weights``: ``default`` (shipped ones for ``print``, ``imagenet`` for applications, the file's own), or
    ``imagenet``, ``none`` (random, from ``seed``), or the path of a weights file. ``input_size``: pixels a
    side; None for the backbone's own. ``preprocessing``: ``auto``, or what a ``.keras`` file expects of its
    pixels (none, unit, tf, torch, caffe) if it does not see to that itself; ``auto`` means none there.
    """

    name: str = BUILT_IN
    weights: str = "default"
    input_size: int | None = None
    preprocessing: str = "auto"
    seed: int = 0

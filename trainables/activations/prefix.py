"""Computes activations of a task's images, with their cost, their key, and whether they are reproducible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainables.activations.augmentation_views import view_draws
from trainables.activations.key import EntryKey
from trainables.activations.reuse_policy import CacheRequest
from trainables.activations.stages import LARGEST_FLOAT16, PrefixStages
from trainables.backbones.backbone import Backbone
from trainables.data.task import Task


@dataclass(frozen=True)
class ActivationView:
    """One view of one split at the cut of ``depth``. Without augmentation (``level`` 0, no ``flip``) there is only one.

    Attributes:
        split: train, validation or test.
        depth: number of blocks above the cut.
        level: augmentation strength, one of the levels.
        flip: whether half of the images are mirrored.
        number: number of the view, from 0.
    """

    split: str
    depth: int
    level: float = 0.0
    flip: bool = False
    number: int = 0

    @property
    def augmented(self) -> bool:
        """Whether the images are distorted or mirrored."""
        return self.level > 0 or self.flip

    def at(self, depth: int) -> ActivationView:
        """Return the view of the same images at another cut."""
        return replace(self, depth=depth)


class FrozenPrefix:
    """The prefixes of ``backbone``, applied to the images of ``task``."""

    def __init__(self, backbone: Backbone, task: Task, stages: PrefixStages) -> None:
        self._backbone, self._task, self._stages = backbone, task, stages
        # CPU and GPU round differently, so they do not share entries.
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        self._software = f"keras {keras.__version__}, tensorflow {tf.__version__}, {device}"

    def key(self, view: ActivationView) -> EntryKey:
        """Return everything that the activations of ``view`` depend on."""
        return EntryKey(
            prefix=self._stages.digest(view.depth),
            data=self._task.digest,
            split=view.split,
            input_size=self._backbone.input_size,
            level=view.level,
            flip=view.flip,
            # Without augmentation all views show the same images and share one entry.
            view=view.number if view.augmented else 0,
            chunk=self._stages.chunk,
            software=self._software,
        )

    def bytes_per_image(self, depth: int) -> int:
        """Return the bytes of one image's activations in float16."""
        return 2 * math.prod(self._stages.shape(depth))

    def dtype(self, depth: int) -> str:
        """Return the dtype in which activations at ``depth`` are kept, unless single values are out of range.

        The first call measures the stages.
        """
        return "float16" if self._stages.fits_float16(depth) else "float32"

    def cache_request(self, split: str, depth: int) -> CacheRequest:
        """Return what one view of ``split`` at ``depth`` takes. The first call measures the stages."""
        size = self.bytes_per_image(depth) * (1 if self.dtype(depth) == "float16" else 2)
        return CacheRequest(
            self._task.counts[split], size, sum(f.seconds for f in self._stages.measurements(depth))
        )

    def nondeterminism(self, depth: int) -> str | None:
        """Return why activations at ``depth`` must not be kept; None if they may be.

        They must not if a block below the cut gives other values for the same images.
        """
        for block, measured in zip(self._backbone.blocks, self._stages.measurements(depth), strict=False):
            if not measured.deterministic:
                return (
                    f"refused: block {block.name!r} is not deterministic (two runs over the same images differ by "
                    f"{measured.difference:.2g} of the spread between images)"
                )
        return None

    def compute(
        self, view: ActivationView, start: int | None = None, source: np.ndarray | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the activations of ``view`` in order and in chunks (n, …).

        Each chunk is float16, or float32 if float16 can't represent its values.

        Args:
            view: the activations wanted.
            start: depth of a lower cut at which activations are available.
            source: these activations (N, …) of the same view. Only the stages between both cuts run, with the same
                result.
        """
        stages, images = self._stages, self._task.split(view.split).images
        draws = view_draws(len(images), view.level, view.flip, view.number) if view.augmented else None
        for piece in stages.chunk_slices(len(images)):
            if source is None or start is None:
                drawn = None if draws is None else draws[piece]
                x, begin = stages.distort(images[piece], drawn, view.level, view.flip), stages.input_depth
            else:
                x, begin = tf.cast(tf.constant(source[piece]), tf.float32), start
            yield self._halved(*stages.run(x, begin, view.depth), view.depth)

    def _halved(self, y: Any, peak: Any, depth: int) -> np.ndarray:
        narrow = self._stages.fits_float16(depth) and float(peak) <= LARGEST_FLOAT16
        array: np.ndarray = (tf.cast(y, tf.float16) if narrow else y).numpy()
        return array

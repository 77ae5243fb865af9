"""The frozen prefix over a task's images: what it makes of them, what that costs, whether it is always the same."""

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
    """One view of one split at the cut of ``depth``. Without augmentation (``level`` 0, no ``flip``) there is one."""

    split: str
    depth: int
    level: float = 0.0
    flip: bool = False
    number: int = 0

    @property
    def augmented(self) -> bool:
        """Whether images are distorted or mirrored."""
        return self.level > 0 or self.flip

    def at(self, depth: int) -> ActivationView:
        """The same images at another cut."""
        return replace(self, depth=depth)


class FrozenPrefix:
    """``backbone``'s prefixes over the images of ``task``."""

    def __init__(self, backbone: Backbone, task: Task, stages: PrefixStages) -> None:
        self._backbone, self._task, self._stages = backbone, task, stages
        device = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
        self._software = f"keras {keras.__version__}, tensorflow {tf.__version__}, {device}"

    def key(self, view: ActivationView) -> EntryKey:
        """What the activations of ``view`` depend on."""
        return EntryKey(
            prefix=self._stages.digest(view.depth),
            data=self._task.digest,
            split=view.split,
            input_size=self._backbone.input_size,
            level=view.level,
            flip=view.flip,
            view=view.number if view.augmented else 0,
            chunk=self._stages.chunk,
            software=self._software,
        )

    def bytes_per_image(self, depth: int) -> int:
        """Bytes of one image's activations in float16."""
        return 2 * math.prod(self._stages.shape(depth))

    def dtype(self, depth: int) -> str:
        """What activations at ``depth`` are kept as, unless single values are out of range; measured first."""
        return "float16" if self._stages.fits_float16(depth) else "float32"

    def cache_request(self, split: str, depth: int) -> CacheRequest:
        """What one view of ``split`` at ``depth`` takes; measured with the first call."""
        size = self.bytes_per_image(depth) * (1 if self.dtype(depth) == "float16" else 2)
        return CacheRequest(self._task.counts[split], size, sum(f.seconds for f in self._stages.measurements(depth)))

    def nondeterminism(self, depth: int) -> str | None:
        """Why nothing at ``depth`` may be kept: a block below is not a function of the image alone. None if it is."""
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
        """Activations of ``view`` in order and in pieces (n, …): float16, or float32 where that can't hold them.

        With ``source``, activations of the same images at the lower cut of depth ``start``, only what lies between
        runs; the result is the same.
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

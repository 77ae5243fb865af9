"""Runs the frozen prefix in stages, one for each block, so that the part between any two cuts can run alone.

The output of each stage is rounded to float16, the precision in which activations are kept. A tensor at a cut is
therefore the same whether it was computed from the image or from a cached tensor at a lower cut, and whether it was
cached or not. A stage whose values float16 can't represent (see :mod:`trainables.activations.precision_probe`) stays
float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainables.activations.precision_probe import PROBE_IMAGES, StageMeasurement, measure_stage
from trainables.backbones.backbone import Backbone
from trainables.backbones.fingerprint import graph_digest
from trainables.modalities.image.augment import DRAWS_PER_IMAGE, distort
from trainables.tracing import BUILD_LOCK

LARGEST_FLOAT16 = 65504.0
CHUNK_IMAGES = 256
"""Largest number of images that go through a prefix at once."""

CHUNK_BYTES = 128 * 2**20
"""Largest size in bytes of a chunk's largest tensor at a cut."""


class PrefixStages:
    """The stages of ``backbone``, built and traced when they are first needed. Thread-safe.

    Stage d leads from the cut of depth d + 1 to that of depth d; the first stage includes the preprocessing.

    Args:
        backbone: the backbone whose prefix is run.
        sample: images (N, H, W, 3) uint8. The first ones measure each stage before it is used.

    Attributes:
        input_depth: depth at which no stage has run: all blocks are above it.
        chunk: number of images that run at once. It is always the same for a backbone, because the last bits of a
            convolution depend on it.
    """

    def __init__(self, backbone: Backbone, sample: np.ndarray) -> None:
        self._backbone = backbone
        self._sample = np.array(sample[:PROBE_IMAGES])
        self.input_depth = len(backbone.blocks)
        largest = max(math.prod(size or 1 for size in cut.shape) * 4 for cut in backbone.cuts)
        # A power of two; the largest tensor of a chunk takes at most CHUNK_BYTES.
        self.chunk = min(CHUNK_IMAGES, 2 ** int(math.log2(max(8, CHUNK_BYTES // largest))))
        self._models: dict[int, Any] = {}
        self._traced: dict[int, Any] = {}
        self._digests: dict[int, str] = {self.input_depth: ""}
        self._measurements: dict[int, StageMeasurement] = {}
        self._distort = tf.function(
            distort,
            input_signature=[
                tf.TensorSpec([None, *backbone.input_size, 3], tf.float32),
                tf.TensorSpec([None, DRAWS_PER_IMAGE], tf.float32),
                tf.TensorSpec([], tf.float32),
                tf.TensorSpec([], tf.float32),
            ],
            autograph=False,
        )

    def shape(self, depth: int) -> tuple[int, ...]:
        """Return the shape of one image's tensor at the cut of ``depth``."""
        return tuple(int(size) for size in self._tensor(depth).shape[1:])

    def digest(self, depth: int) -> str:
        """Return the hexadecimal digest of configuration and weights of all stages below the cut of ``depth``."""
        with BUILD_LOCK:
            for d in range(self.input_depth - 1, depth - 1, -1):
                if d not in self._digests:
                    whole = self._digests[d + 1] + graph_digest(self._model(d))
                    self._digests[d] = hashlib.sha256(whole.encode()).hexdigest()[:32]
            return self._digests[depth]

    def measurements(self, depth: int) -> tuple[StageMeasurement, ...]:
        """Measure each stage below the cut of ``depth`` with the sample; return them from the first stage on."""
        wanted = range(self.input_depth - 1, depth - 1, -1)
        # init_scope: the measurement runs eagerly even if a graph is being traced.
        with BUILD_LOCK, tf.init_scope():
            if any(d not in self._measurements for d in wanted):
                x: Any = tf.cast(tf.constant(self._sample), tf.float32)
                for d in wanted:
                    if d not in self._measurements:
                        self._measurements[d] = measure_stage(partial(self._raw, x, d))
                    x, _ = self._stage(d)(x, self._measurements[d].fits_float16)
        return tuple(self._measurements[d] for d in wanted)

    def known_seconds(self, depth: int) -> float:
        """Return the seconds per image of all stages below the cut of ``depth``.

        It is 0 if some of them have not been measured yet.
        """
        facts = [self._measurements.get(d) for d in range(self.input_depth - 1, depth - 1, -1)]
        return 0.0 if None in facts else sum(f.seconds for f in facts if f is not None)

    def distort(self, images: Any, draws: Any = None, strength: Any = 0.0, flip: Any = False) -> Any:
        """Convert ``images`` (B, H, W, 3) to float32 and distort them by ``draws`` (B, DRAWS_PER_IMAGE), if given.

        See :func:`trainables.modalities.image.augment.distort`.
        """
        pixels = tf.cast(images, tf.float32)
        return pixels if draws is None else self._distort(pixels, draws, strength, tf.cast(flip, tf.float32))

    def run(self, x: Any, start: int, depth: int) -> tuple[Any, Any]:
        """Run ``x`` from the cut of depth ``start`` up to that of ``depth``, eagerly or inside a graph.

        Args:
            x: (B, …) float32; pixels 0..255 if ``start`` is :attr:`input_depth`.
            start: depth of the cut of ``x``.
            depth: at most ``start``.

        Returns:
            The tensor (B, …) float32 and its largest magnitude, a scalar (0 if no stage ran).
        """
        narrow = [measured.fits_float16 for measured in self.measurements(depth)]
        peak = tf.constant(0.0)
        for d in range(start - 1, depth - 1, -1):
            # The measurements begin with the first stage, which leads to the cut of depth input_depth - 1.
            x, peak = self._stage(d)(x, narrow[self.input_depth - 1 - d])
        return x, peak

    def fits_float16(self, depth: int) -> bool:
        """Whether float16 represents what the stage below the cut of ``depth`` returns, but for single values."""
        return self.measurements(depth)[-1].fits_float16

    def chunk_slices(self, count: int) -> Iterator[slice]:
        """Yield slices that divide ``count`` images into chunks."""
        return (slice(start, min(start + self.chunk, count)) for start in range(0, count, self.chunk))

    def _raw(self, x: Any, d: int) -> Any:
        return self._stage(d)(x, False)[0]

    def _tensor(self, depth: int) -> Any:
        return self._backbone.blocks[-depth].cut.tensor if depth else self._backbone.model.outputs[0]

    def _model(self, d: int) -> Any:
        with BUILD_LOCK:
            if d not in self._models:
                below = self._backbone.model.inputs[0] if d + 1 == self.input_depth else self._tensor(d + 1)
                self._models[d] = keras.Model(below, self._tensor(d), name=f"stage_{d}")
            return self._models[d]

    def _stage(self, d: int) -> Any:
        with BUILD_LOCK:
            if d not in self._traced:
                model = self._model(d)
                # Whether to round is an argument, not a constant: it is known only after this very function was
                # measured.
                signature = [
                    tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32),
                    tf.TensorSpec([], tf.bool),
                ]
                function = tf.function(
                    lambda x, narrow: _rounded(model(x, training=False), narrow),
                    input_signature=signature,
                    autograph=False,
                )
                function.get_concrete_function()
                self._traced[d] = function
            return self._traced[d]


def _rounded(y: Any, narrow: Any) -> tuple[Any, Any]:
    """Round ``y`` to the precision of float16, and return it with its largest magnitude.

    Values are left as they are if they exceed the range of float16, or all of them if ``narrow`` is false.
    """
    y = tf.cast(y, tf.float32)
    magnitude = tf.abs(y)
    fits = tf.logical_and(narrow, magnitude <= LARGEST_FLOAT16)
    return tf.where(fits, tf.cast(tf.cast(y, tf.float16), tf.float32), y), tf.reduce_max(magnitude)

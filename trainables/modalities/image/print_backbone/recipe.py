"""Pretrains the built-in backbone: a classifier of printed characters, whose head is dropped afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainables.modalities.image.print_backbone.architecture import build
from trainables.modalities.image.print_backbone.distort import distort
from trainables.modalities.image.print_backbone.distortions import Distortions
from trainables.modalities.image.print_backbone.render import CLASSES, Glyphs
from trainables.modalities.image.print_backbone.sampling import (
    DIGITS,
    PrintBatches,
    as_pixels,
    split_families,
)


@dataclass(frozen=True)
class Recipe:
    """Settings of the pretraining. The defaults give the shipped weights.

    Attributes:
        steps: number of batches.
        batch_size: images per batch.
        learning_rate: peak of the schedule.
        weight_decay: of AdamW.
        label_smoothing: of the cross-entropy.
        digit_share: share of the images that are digits.
        seed: seed of weights, batches and held-out families.
        held_out_images: number of images that measure the accuracy.
        distortions: strengths of the distortions.
    """

    steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    digit_share: float = 0.4
    seed: int = 0
    held_out_images: int = 5000
    distortions: Distortions = field(default_factory=Distortions)


@dataclass(frozen=True)
class PretrainingResult:
    """The pretrained backbone and its accuracy on print in held-out font families.

    Accuracies are NaN if no family could be held out.
    """

    backbone: Any
    accuracy: float
    digit_accuracy: float


def pretrain(glyphs: Glyphs, recipe: Recipe = Recipe(), *, verbose: bool = False) -> PretrainingResult:
    """Train the network of :mod:`trainables.modalities.image.print_backbone.architecture` to classify ``glyphs``.

    The loss is cross-entropy over :data:`CLASSES`; the optimizer is AdamW with warm-up and cosine decay over
    ``recipe.steps`` batches. The same recipe and glyphs give the same weights on the same machine. ``verbose`` prints
    ten lines of progress.
    """
    keras.utils.set_random_seed(recipe.seed)
    tf.config.experimental.enable_op_determinism()
    parts = split_families(glyphs, recipe.seed)
    batches = PrintBatches(
        glyphs,
        parts.train,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        digit_share=recipe.digit_share,
        seed=recipe.seed,
        how=recipe.distortions,
    )
    backbone = build(seed=recipe.seed)
    scores = keras.layers.Dense(len(CLASSES), name="scores")(backbone.output)
    model = keras.Model(backbone.input, scores)
    model.compile(_optimizer(recipe), _smoothed(recipe.label_smoothing), jit_compile=False)
    model.fit(
        batches, epochs=1, shuffle=False, verbose=0, callbacks=[_Progress(recipe.steps)] if verbose else []
    )
    return PretrainingResult(backbone, *_held_out(model, glyphs, parts.held_out, recipe))


def _optimizer(recipe: Recipe) -> Any:
    warm = min(200, max(1, recipe.steps // 10))
    schedule = keras.optimizers.schedules.CosineDecay(
        recipe.learning_rate / 50,
        max(1, recipe.steps - warm),
        warmup_target=recipe.learning_rate,
        warmup_steps=warm,
    )
    return keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)


def _smoothed(smoothing: float) -> Any:
    cross_entropy = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)

    def loss(labels: Any, scores: Any) -> Any:
        labels = keras.ops.reshape(keras.ops.cast(labels, "int32"), (-1,))
        return cross_entropy(keras.ops.one_hot(labels, len(CLASSES)), scores)

    return loss


def _held_out(model: Any, glyphs: Glyphs, chosen: Any, recipe: Recipe) -> tuple[float, float]:
    """Return the accuracy on distorted print of held-out families: on all classes, and on the digits among them."""
    if not len(chosen):
        return float("nan"), float("nan")
    rng = np.random.default_rng([recipe.seed, 3])
    drawn = rng.choice(chosen, recipe.held_out_images)
    images = as_pixels(distort(glyphs.images[drawn], rng, recipe.distortions))
    right = model.predict(images, batch_size=500, verbose=0).argmax(axis=1) == glyphs.labels[drawn]
    return float(right.mean()), float(right[glyphs.labels[drawn] < DIGITS].mean())


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Prints a line after every tenth of the steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self.began = steps, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if (batch + 1) % max(1, self.steps // 10) == 0:
            seconds = time.perf_counter() - self.began
            print(
                f"step {batch + 1} of {self.steps}  loss {(logs or {})['loss']:.4f}  {seconds:.0f} s",
                flush=True,
            )

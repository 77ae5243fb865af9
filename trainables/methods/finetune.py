"""Model transfer: train the top blocks of a pretrained backbone and a new head."""

from __future__ import annotations

from collections.abc import Callable

from trainables.compiled.l2sp import WeightPull
from trainables.errors import UsageError
from trainables.training.linear_probe import probe_head
from trainables.training.training import Training, TrainingPlan

MIN_ADAPT_BATCH = 8
"""Images in a batch from which on its statistics are worth following."""

HEAD_INITS = ("random", "probe")
"""What the head starts from: random weights, or a trained probe (:mod:`trainables.training.linear_probe`)."""


class FineTune(Training):
    """Trains the top ``unfreeze_depth`` blocks from their pretrained weights; the rest is frozen.

    ``head_init`` says what the head starts from. At depth 0 a probe is no more than a warm start. ``l2sp`` pulls the
    unfrozen blocks back to their pretrained weights (:mod:`trainables.compiled.l2sp`), ``layer_lr_decay``
    slows down the lower
    ones, and with ``gradual_unfreezing`` they join one by one (:mod:`trainables.training.schedule`).
    """

    def plan(self) -> TrainingPlan:
        """The top blocks, from pretrained weights."""
        depth, most = int(self.config.number("unfreeze_depth")), len(self.bench.backbone.blocks)
        if not 0 <= depth <= most:
            raise UsageError(
                f"unfreeze_depth: expected 0 to {most} (the backbone's blocks), received {depth}"
            )
        if self._head_init not in HEAD_INITS:
            raise UsageError(
                f"head_init: expected one of {', '.join(HEAD_INITS)}, received {self._head_init!r}"
            )
        _, suffix = self.bench.backbone.parts(depth)
        weights = suffix.get_weights() if suffix is not None else []
        strength = self._within("l2sp", 0.0, lambda value: value >= 0, "a number of at least 0")
        self._within("layer_lr_decay", 1.0, lambda value: 0 < value <= 1, "a number above 0 to 1")
        thawing = self._within(
            "gradual_unfreezing", 0.0, lambda value: 0 <= value < 1, "a share from 0 below 1"
        )
        return TrainingPlan(
            depth,
            weights,
            adapt=self._adapts(),
            thawing=thawing if depth else 0.0,
            pull=WeightPull(strength, weights) if strength and depth else None,
        )

    def prepare(self) -> None:
        """Put the probe in the random head's place, where that is asked for."""
        if self._head_init == "probe":
            head = probe_head(self.bench, int(self.config.number("head_units")), self.account)
            weights = self.program.read_weights()
            self.program.write([*weights[: -len(head)], *head])

    def _within(self, name: str, default: float, fits: Callable[[float], bool], expected: str) -> float:
        value = self.config.number(name, default)
        if not fits(value):
            raise UsageError(f"{name}: expected {expected}, received {value:g}")
        return value

    @property
    def _head_init(self) -> object:
        return self.config.params.get("head_init", "random")

    @property
    def training_images(self) -> int:
        """How many images there are to train on."""
        return self.bench.task.counts["train"]

    def _adapts(self) -> bool:
        """BatchNorm follows the new data, unless batches are too small to have statistics of their own."""
        if self.config.batch_norm == "auto":
            return min(self.config.batch_size, self.training_images) >= MIN_ADAPT_BATCH
        return self.config.batch_norm == "adapt"

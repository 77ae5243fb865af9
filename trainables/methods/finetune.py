"""Model transfer: trains the top blocks of a pretrained backbone and a new head."""

from __future__ import annotations

from collections.abc import Callable

from trainables.compiled.quadratic_penalty import QuadraticPenalty
from trainables.errors import UsageError
from trainables.methods.parameter_values import HEAD_INITS
from trainables.training.linear_probe import probe_head
from trainables.training.method_hooks import TrainingPlan
from trainables.training.training import Training

MIN_ADAPT_BATCH = 8
"""Images in a batch from which on BatchNorm may follow the batch's statistics: those of fewer images are too noisy."""


class FineTune(Training):
    """Trains the top ``unfreeze_depth`` blocks from their pretrained weights; the rest is frozen.

    Further parameters of the trial:

    * ``head_init``: what the head starts from, one of :data:`HEAD_INITS`; by default that of the configuration.
    * ``l2sp``: strength of a penalty that holds the trained blocks near their pretrained weights
      (:mod:`trainables.compiled.quadratic_penalty`).
    * ``layer_lr_decay``: factor by which the learning rate falls from each block to the one below it.
    * ``gradual_unfreezing``: share of the epochs over which the blocks begin to train one by one
      (:mod:`trainables.training.schedule`).
    """

    def plan(self) -> TrainingPlan:
        """The top blocks, from pretrained weights."""
        depth, blocks = int(self.config.number("unfreeze_depth")), len(self.bench.backbone.blocks)
        if not 0 <= depth <= blocks:
            raise UsageError(
                f"unfreeze_depth: expected 0 to {blocks} (the backbone's blocks), received {depth}"
            )
        if self._head_init not in HEAD_INITS:
            raise UsageError(
                f"head_init: expected one of {', '.join(HEAD_INITS)}, received {self._head_init!r}"
            )
        _, suffix = self.bench.backbone.parts(depth)
        weights = suffix.get_weights() if suffix is not None else []
        strength = self._checked_number("l2sp", 0.0, lambda value: value >= 0, "a number of at least 0")
        self._checked_number("layer_lr_decay", 1.0, lambda value: 0 < value <= 1, "a number above 0 to 1")
        share = self._checked_number(
            "gradual_unfreezing", 0.0, lambda value: 0 <= value < 1, "a share from 0 below 1"
        )
        return TrainingPlan(
            depth,
            weights,
            adapt=self._adapts(),
            unfreezing_share=share if depth else 0.0,
            penalty=QuadraticPenalty(strength, weights) if strength and depth else None,
        )

    def before_first_epoch(self) -> None:
        """Replace the random head by a probe, if the trial starts from one."""
        if self._head_init == "probe":
            head = probe_head(self.bench, int(self.config.number("head_units")), self.account)
            weights = self.program.read_weights()
            # The head's arrays are the last ones of the program's weights.
            self.program.write([*weights[: -len(head)], *head])

    def _checked_number(
        self, name: str, default: float, is_valid: Callable[[float], bool], expected: str
    ) -> float:
        """Return the parameter ``name``, or ``default`` if the trial has none.

        Raises:
            UsageError: ``is_valid`` refuses it; the message contains ``expected``.
        """
        value = self.config.number(name, default)
        if not is_valid(value):
            raise UsageError(f"{name}: expected {expected}, received {value:g}")
        return value

    @property
    def _head_init(self) -> object:
        return self.config.params.get("head_init", self.config.head_init)

    @property
    def training_images(self) -> int:
        """Number of images to train on."""
        return self.bench.task.counts["train"]

    def _adapts(self) -> bool:
        """Whether BatchNorm follows the new data; by default unless batches are too small for statistics."""
        # The smaller of both counts: a batch has no more images than there are.
        if self.config.batch_norm == "auto":
            return min(self.config.batch_size, self.training_images) >= MIN_ADAPT_BATCH
        return self.config.batch_norm == "adapt"

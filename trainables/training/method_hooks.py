"""The points at which a transfer method can act on a training.

:class:`~trainables.training.training.Training` runs the loop and calls these methods; a transfer method overrides those
that it needs. Only :meth:`MethodHooks.plan` has no default. The order of the calls is:

1. at the start of a trial: ``plan``, ``make_feed``, ``training_loss``;
2. before the first epoch of a trial that was not resumed: ``before_first_epoch``;
3. in every epoch: ``example_inputs``, ``loss_scalars``, ``evaluate``, ``after_epoch``, and ``on_best_epoch`` if no
   earlier epoch was better;
4. in a checkpoint: ``method_state``; on resuming from one: ``restore_method_state``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainables.batched_heads.program import HeadProgram
from trainables.compiled.loss import TrainingLoss
from trainables.compiled.program import Program
from trainables.compiled.quadratic_penalty import QuadraticPenalty
from trainables.cost_account import CostAccount
from trainables.training.feed import DataFeed
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class TrainingPlan:
    """Which part of the backbone a trial trains, and how.

    Attributes:
        depth: how many blocks train, counted from the top; 0 trains the head alone.
        suffix_weights: first values of the weights of these blocks, in the order of ``suffix.weights``.
        adapt: whether BatchNorm of these blocks uses and updates the statistics of the batch.
        unfreezing_share: share of the epochs, in [0, 1), over which the blocks begin to train one by one from the top;
            0 trains all of them from the first epoch.
        penalty: a quadratic penalty that pulls these blocks towards given weights, if any.
    """

    depth: int
    suffix_weights: list[np.ndarray]
    adapt: bool
    unfreezing_share: float = 0.0
    penalty: QuadraticPenalty | None = None


class MethodHooks:
    """Extension points of a transfer method; each does nothing by default.

    Attributes:
        config: the trial's configuration.
        bench: backbone, data and programs of this process.
        account: what the trial has cost so far.
        depth: number of blocks that train. Set after :meth:`plan`.
        feed: the trial's data. Set by :meth:`make_feed`, before :meth:`training_loss` is called.
        program: the compiled epoch with the trial's weights. Set before the first epoch.
    """

    config: TrialConfig
    bench: Workbench
    account: CostAccount
    depth: int
    feed: DataFeed
    program: Program | HeadProgram

    state_size = 0
    """How many arrays :meth:`method_state` returns."""

    def plan(self) -> TrainingPlan:
        """Return which blocks train and from which weights.

        Raises:
            UsageError: a parameter of the trial is out of its range.
        """
        raise TypeError(f"{type(self).__name__} must define plan()")

    def make_feed(self, depth: int) -> DataFeed:
        """Return the data that the trial trains and evaluates on, given the number of blocks that train."""
        return DataFeed(self.bench, depth, **self.feed_options)

    @property
    def feed_options(self) -> dict[str, Any]:
        """Keyword arguments of :class:`~trainables.training.feed.DataFeed` that follow from the configuration."""
        return {
            "epochs": self.config.epochs,
            "batch_size": self.config.batch_size,
            "seed": self.config.seed,
            "strength": self.config.number("augmentation_strength"),
            "flip": bool(self.config.params.get("horizontal_flip", False)),
            "live": self.config.live,
            "account": self.account,
        }

    def training_loss(self) -> TrainingLoss | None:
        """Return the loss that a step minimises; None stands for the mean cross-entropy of the labels."""
        return None

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Return the arrays that the loss needs for each training image in ``epoch`` (from 1): name to (N, …)."""
        return {}

    def loss_scalars(self, epoch: int) -> np.ndarray | None:
        """Return the loss's scalars in each step of ``epoch`` (from 1): (steps, scalars) float32; None without any."""
        return None

    def before_first_epoch(self) -> None:
        """Act before the first epoch; a resumed trial does not do so again."""

    def after_epoch(self) -> None:
        """Act after every epoch, while the program holds the weights of that epoch."""

    def on_best_epoch(self) -> None:
        """Keep what belongs to the best epoch besides the model's weights; called when an epoch is the best so far."""

    def method_state(self) -> list[np.ndarray]:
        """Return the arrays, besides the model and its optimizers, that a resumed trial needs."""
        return []

    def restore_method_state(self, state: list[np.ndarray]) -> None:
        """Take back what :meth:`method_state` returned."""

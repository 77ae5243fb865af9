"""Fine-tuning that keeps an old task: elastic weight consolidation, learning without forgetting, or rehearsal.

w is the parameter ``remember_weight``; CE is the cross-entropy of the new task.

``ewc``, elastic weight consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, equation 3), pulls
each trained weight θᵢ back to its pretrained value θᵢ*, the more the more it matters to the old task (Fᵢ,
:mod:`trainables.methods.fisher`):

    CE + (w/2) · Σᵢ Fᵢ (θᵢ − θᵢ*)²

``lwf``, learning without forgetting (Li & Hoiem 2016, https://arxiv.org/abs/1606.09282, section 3), asks that the
old head still gives the same predictions for the new images. z* are its scores on the untouched backbone, z those of
the trained old head on the trained backbone. No old image is needed in training:

    CE + w · T² · KL(softmax(z*/T) ‖ softmax(z/T)),   T = 2

``rehearsal`` (Robins 1995, Catastrophic forgetting, rehearsal and pseudorehearsal) goes on training on the old task:
half of each batch is old images, on which the old head is trained along:

    CE + w · CE(old head, old labels)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.batched_heads.program import HeadProgram
from trainables.compiled.loss import ExampleInput, LossInputs, TrainingLoss
from trainables.compiled.quadratic_penalty import QuadraticPenalty
from trainables.errors import UsageError
from trainables.methods.distillation_losses import soft_target_loss
from trainables.methods.finetune import FineTune
from trainables.methods.fisher import fisher_importance
from trainables.methods.parameter_values import NOT_REMEMBERING, REMEMBERINGS
from trainables.training.feed import DataFeed
from trainables.training.method_hooks import TrainingPlan
from trainables.training.mixed_feed import MixedDataFeed
from trainables.training.old_task import OldHead, fitted_old_head

LWF_TEMPERATURE = 2.0
"""T of ``lwf``, as in the paper."""

REHEARSAL_SHARE = 0.5
"""Share of old images in a batch of ``rehearsal``."""

SCORES, IS_OLD = "old_scores", "is_old"
"""Names of the losses' example inputs."""


@dataclass(frozen=True)
class OldHeadLoss(TrainingLoss):
    """A loss that trains the head of the old task along with the model.

    Attributes:
        classes: number of old classes, K.
    """

    classes: int

    @property
    def scalars(self) -> tuple[str, ...]:
        """``remember_weight``, w."""
        return ("remember_weight",)

    def variable_shapes(self, features: int, classes: int) -> tuple[tuple[int, ...], ...]:
        """Kernel (features, K) and bias (K,) of the old head."""
        return (features, self.classes), (self.classes,)

    def initial_variables(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        """Zeros; :meth:`RememberingFineTune.before_first_epoch` writes the fitted head in their place."""
        return [np.zeros((features, self.classes), np.float32), np.zeros(self.classes, np.float32)]

    def old_scores(self, inputs: LossInputs) -> Any:
        """Scores (B, K) of the old head as it is now."""
        kernel, bias = inputs.variables
        return inputs.features @ kernel + bias


@dataclass(frozen=True)
class LwfLoss(OldHeadLoss):
    """Cross-entropy of the labels, and the distance of the old head's predictions from the original ones."""

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        """``old_scores`` (B, K): z*, the scores under the untouched backbone."""
        return (ExampleInput(SCORES, (self.classes,)),)

    def loss(self, inputs: LossInputs) -> Any:
        """CE + w · T² · KL, the means over the batch."""
        distance = soft_target_loss(
            inputs.example_inputs[SCORES], self.old_scores(inputs), tf.constant(LWF_TEMPERATURE)
        )
        return tf.reduce_mean(inputs.cross_entropy) + inputs.scalars["remember_weight"] * distance


@dataclass(frozen=True)
class RehearsalLoss(OldHeadLoss):
    """Cross-entropy of new images under the new head, and of old images under the old head."""

    @property
    def example_inputs(self) -> tuple[ExampleInput, ...]:
        """``is_old`` (B,): 1 for an old image, 0 for a new one."""
        return (ExampleInput(IS_OLD),)

    def loss(self, inputs: LossInputs) -> Any:
        """CE + w · CE(old head), the means over the batch's new and old images."""
        old = inputs.example_inputs[IS_OLD]
        # The label of a new image is no class of the old head, and might be out of its range; it is masked below.
        labels = tf.where(old > 0, inputs.labels, 0)
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=self.old_scores(inputs))
        old_loss = _weighted_mean(each, old)
        new_loss = _weighted_mean(inputs.cross_entropy, 1.0 - old)
        return new_loss + inputs.scalars["remember_weight"] * old_loss


def _weighted_mean(values: Any, weights: Any) -> Any:
    return tf.reduce_sum(values * weights) / tf.maximum(tf.reduce_sum(weights), 1.0)


OLD_HEAD_LOSSES: Mapping[str, type[OldHeadLoss]] = {"lwf": LwfLoss, "rehearsal": RehearsalLoss}
"""The ways to remember that train the old head."""


class RememberingFineTune(FineTune):
    """Fine-tuning that keeps an old task, if the trial has the parameter ``remembering``.

    At depth 0 the backbone does not change, so nothing can be forgotten and ``remembering`` has no effect.
    """

    def plan(self) -> TrainingPlan:
        """As in fine-tuning; under ``ewc`` with its penalty in the place of L2-SP."""
        plan = super().plan()
        how = self.config.params.get("remembering", NOT_REMEMBERING)
        known = (*REMEMBERINGS, NOT_REMEMBERING)
        if how not in known:
            raise UsageError(f"remembering: expected one of {', '.join(known)}, received {how!r}")
        self._weight = self._checked_number(
            "remember_weight", 1.0, lambda value: value >= 0, "a number of at least 0"
        )
        self._how = how if plan.depth else NOT_REMEMBERING
        if self._how == NOT_REMEMBERING:
            return plan
        head = fitted_old_head(self.bench, self.account)
        if self._how == "ewc":
            importance = fisher_importance(self.bench, plan.depth, head, self.account)
            return replace(plan, penalty=QuadraticPenalty(self._weight, plan.suffix_weights, importance))
        # Only these ways to remember train the old head, and then a checkpoint holds it.
        self.state_size = 2
        self.old_task.trained_head = head
        return plan

    def make_feed(self, depth: int) -> DataFeed:
        """Both tasks under ``rehearsal``, else the new one."""
        if self._how != "rehearsal":
            return super().make_feed(depth)
        return MixedDataFeed(
            self.bench, depth, **self.feed_options, source=self.bench.old_task, share=REHEARSAL_SHARE
        )

    def training_loss(self) -> TrainingLoss | None:
        """The loss of ``lwf`` or ``rehearsal``; the cross-entropy otherwise."""
        if self._how not in OLD_HEAD_LOSSES:
            return None
        return OLD_HEAD_LOSSES[self._how](len(self.bench.old_task.task.classes))

    def before_first_epoch(self) -> None:
        """Start the head as in fine-tuning, and the old head from the fitted one."""
        super().before_first_epoch()
        head = self.old_task.trained_head
        if head is not None and not isinstance(self.program, HeadProgram):
            for variable, value in zip(
                self.program.loss_state.trained, (head.kernel, head.bias), strict=True
            ):
                variable.assign(value)

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """``old_scores`` of each training image, not augmented, under ``lwf``; ``is_old`` under ``rehearsal``."""
        if self._how == "rehearsal":
            counts = self.bench.task.counts["train"], self.bench.old_task.task.counts["train"]
            return {IS_OLD: np.repeat(np.array([0.0, 1.0], np.float32), counts)}
        return {SCORES: self._old_scores()} if self._how == "lwf" else {}

    def loss_scalars(self, epoch: int) -> np.ndarray | None:
        """w in all steps, (steps, 1)."""
        if self._how not in OLD_HEAD_LOSSES:
            return None
        return np.full((self.feed.steps, 1), self._weight, np.float32)

    def on_best_epoch(self) -> None:
        """Keep the old head of the best epoch, by which the old task is then scored."""
        if self._how in OLD_HEAD_LOSSES and not isinstance(self.program, HeadProgram):
            kernel, bias = (np.array(v.numpy()) for v in self.program.loss_state.trained)
            self.old_task.trained_head = OldHead(kernel, bias)

    def method_state(self) -> list[np.ndarray]:
        """Kernel and bias of the best epoch's old head, if it is trained."""
        head = self.old_task.trained_head
        return [head.kernel, head.bias] if head is not None else []

    def restore_method_state(self, state: list[np.ndarray]) -> None:
        """Take back the best epoch's old head."""
        if state:
            self.old_task.trained_head = OldHead(*state)

    def _old_scores(self) -> np.ndarray:
        """Scores (N, K) of the training images under the untouched backbone, computed once for all trials."""
        # Fitted here, not inside compute(): compute_once is not reentrant, so one must not call the other.
        head = fitted_old_head(self.bench, self.account)

        def compute() -> np.ndarray:
            chunks = self.bench.activations.chunks("train", 0, self.account)
            return head.scores(np.concatenate(list(chunks)))

        scores: np.ndarray = self.bench.old_task.compute_once("old scores", compute)
        return scores

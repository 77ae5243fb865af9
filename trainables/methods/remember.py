"""Fine-tuning that keeps an old task: elastic weight consolidation, learning without forgetting, or rehearsal.

``ewc`` pulls each unfrozen weight back to where it was, by how much it matters to the old task:
CE + (w/2) · Σᵢ Fᵢ (θᵢ − θᵢ*)² (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, equation 3).

``lwf`` asks of the new images what the old model said of them:
CE + w · T² · KL(softmax(z*/T) ‖ softmax(z/T)), T = 2 (Li & Hoiem 2016, https://arxiv.org/abs/1606.09282), z* being the
old head's scores with the untouched backbone, z those with the trained one; the old head trains with it. It sees no old
image.

``rehearsal`` goes on with the old task: half of each batch is old images, CE + w · CE(old head, old labels) (Robins
1995, Catastrophic forgetting, rehearsal and pseudorehearsal); the old head trains, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.batched_heads.program import HeadProgram
from trainables.compiled.l2sp import WeightPull
from trainables.compiled.objective import ExampleInput, LossInputs, TrainingLoss
from trainables.errors import UsageError
from trainables.methods.distillation_losses import soft_target_loss
from trainables.methods.finetune import FineTune
from trainables.training.feed import DataFeed
from trainables.training.mixed_feed import MixedDataFeed
from trainables.training.old_task import OldHead, fisher_importance, fitted_old_head
from trainables.training.training import TrainingPlan

REMEMBERINGS = ("ewc", "lwf", "rehearsal", "none")
"""How the old task is kept; ``none`` only measures what is forgotten."""

LWF_TEMPERATURE = 2.0
"""Of old answers in ``lwf``, as in the paper."""

REHEARSAL_SHARE = 0.5
"""Share of old images in a batch of ``rehearsal``."""

SCORES, IS_OLD = "old_scores", "is_old"


@dataclass(frozen=True)
class OldHeadLoss(TrainingLoss):
    """Trains an old head of ``classes`` beside the model; ``remember_weight`` is how much the old task counts."""

    classes: int

    @property
    def numbers(self) -> tuple[str, ...]:
        """How much that counts."""
        return ("remember_weight",)

    def variable_shapes(self, features: int, classes: int) -> tuple[tuple[int, ...], ...]:
        """The old head."""
        return (features, self.classes), (self.classes,)

    def initial(self, features: int, units: int, classes: int, seed: int) -> list[np.ndarray]:
        """Zeros: whoever begins a trial puts the fitted head there."""
        return [np.zeros((features, self.classes), np.float32), np.zeros(self.classes, np.float32)]

    def old_scores(self, step: LossInputs) -> Any:
        """(B, K) of the old head as it is now."""
        kernel, bias = step.variables
        return step.features @ kernel + bias


@dataclass(frozen=True)
class LwfLoss(OldHeadLoss):
    """The labels' cross-entropy, and how far the old head's answers have moved."""

    @property
    def extras(self) -> tuple[ExampleInput, ...]:
        """What the old model says of each image."""
        return (ExampleInput(SCORES, (self.classes,)),)

    def loss(self, step: LossInputs) -> Any:
        """Over the batch."""
        moved = soft_target_loss(step.extras[SCORES], self.old_scores(step), tf.constant(LWF_TEMPERATURE))
        return tf.reduce_mean(step.cross_entropy) + step.numbers["remember_weight"] * moved


@dataclass(frozen=True)
class RehearsalLoss(OldHeadLoss):
    """The cross-entropy of new images under the new head, and of old ones under the old head."""

    @property
    def extras(self) -> tuple[ExampleInput, ...]:
        """1 for an old image, 0 for a new one."""
        return (ExampleInput(IS_OLD),)

    def loss(self, step: LossInputs) -> Any:
        """Over the batch."""
        old = step.extras[IS_OLD]
        labels = tf.where(old > 0, step.labels, 0)  # of a new image its own mean nothing here
        each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=self.old_scores(step))
        kept = _mean(each, old)
        return _mean(step.cross_entropy, 1.0 - old) + step.numbers["remember_weight"] * kept


def _mean(values: Any, weights: Any) -> Any:
    return tf.reduce_sum(values * weights) / tf.maximum(tf.reduce_sum(weights), 1.0)


OLD_HEAD_LOSSES: Mapping[str, type[OldHeadLoss]] = {"lwf": LwfLoss, "rehearsal": RehearsalLoss}
"""Ways to remember that train the old head."""


class RememberingFineTune(FineTune):
    """Fine-tuning; where ``remembering`` is a parameter, beside an old task (``remember_weight`` is w above).

    At depth 0 nothing of the backbone changes, and nothing can be forgotten.
    """

    kept_head: OldHead | None = None
    """The old head as the best epoch left it, where it trains."""

    def plan(self) -> TrainingPlan:
        """As in fine-tuning; under ``ewc`` with its pull."""
        plan = super().plan()
        how = self.config.params.get("remembering", "none")
        if how not in REMEMBERINGS:
            raise UsageError(f"remembering: expected one of {', '.join(REMEMBERINGS)}, received {how!r}")
        self._weight = self._within(
            "remember_weight", 1.0, lambda value: value >= 0, "a number of at least 0"
        )
        self._how = how if plan.depth else "none"
        if self._how == "none":
            return plan
        head = fitted_old_head(self.bench, self.account)
        if self._how == "ewc":
            importance = fisher_importance(self.bench, plan.depth, head, self.account)
            pull = WeightPull(self._weight, plan.suffix_weights, importance)
            return TrainingPlan(plan.depth, plan.suffix_weights, plan.adapt, plan.thawing, pull)
        self.state_size = 2
        self.kept_head = head
        return plan

    def make_feed(self, depth: int) -> DataFeed:
        """Under ``rehearsal`` of both tasks."""
        if self._how != "rehearsal":
            return super().make_feed(depth)
        return MixedDataFeed(
            self.bench, depth, **self.seeing, source=self.bench.remembered, share=REHEARSAL_SHARE
        )

    def objective(self) -> TrainingLoss | None:
        """Where the old head trains, too."""
        if self._how not in OLD_HEAD_LOSSES:
            return None
        return OLD_HEAD_LOSSES[self._how](len(self.bench.remembered.task.classes))

    def prepare(self) -> None:
        """Put the old head in its place."""
        super().prepare()
        if self.kept_head is not None:
            self._write_head(self.kept_head)

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """What the old model said of each training image, undistorted; or which images are old."""
        if self._how == "rehearsal":
            counts = self.bench.task.counts["train"], self.bench.remembered.task.counts["train"]
            return {IS_OLD: np.repeat(np.array([0.0, 1.0], np.float32), counts)}
        return {SCORES: self._old_scores()} if self._how == "lwf" else {}

    def numbers(self, epoch: int) -> np.ndarray | None:
        """The weight, in all steps."""
        if self._how not in OLD_HEAD_LOSSES:
            return None
        return np.full((self.feed.steps, 1), self._weight, np.float32)

    def keep_best(self) -> None:
        """The old head, where it trains."""
        if self._how in OLD_HEAD_LOSSES and not isinstance(self.program, HeadProgram):
            kernel, bias = (np.array(v) for v in self.program.objective.trained)
            self.kept_head = OldHead(kernel, bias)

    def state(self) -> list[np.ndarray]:
        """The old head of the best epoch."""
        return [self.kept_head.kernel, self.kept_head.bias] if self.kept_head is not None else []

    def restore(self, state: list[np.ndarray]) -> None:
        """Take it as it was."""
        if state:
            self.kept_head = OldHead(*state)

    def _write_head(self, head: OldHead) -> None:
        if not isinstance(self.program, HeadProgram):
            for variable, value in zip(self.program.objective.trained, (head.kernel, head.bias), strict=True):
                variable.assign(value)

    def _old_scores(self) -> np.ndarray:
        head = fitted_old_head(
            self.bench, self.account
        )  # not within: what is made once is made one after the other

        def take() -> np.ndarray:
            chunks = self.bench.activations.chunks("train", 0, self.account)
            return head.scores(np.concatenate(list(chunks)))

        scores: np.ndarray = self.bench.remembered.once("old scores", take)
        return scores

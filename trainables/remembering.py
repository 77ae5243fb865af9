"""Fine-tuning that keeps an old task: elastic weight consolidation, or learning without forgetting.

``ewc`` pulls each unfrozen weight back to where it was, by how much it matters to the old task:
CE + (w/2) · Σᵢ Fᵢ (θᵢ − θᵢ*)² (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796, equation 3).

``lwf`` asks of the new images what the old model said of them:
CE + w · T² · KL(softmax(z*/T) ‖ softmax(z/T)), T = 2 (Li & Hoiem 2016, https://arxiv.org/abs/1606.09282), z* being the
old head's scores with the untouched backbone, z those with the trained one; the old head trains with it. It sees no old
image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.anchor import Pull
from trainables.distillation import plain_loss
from trainables.errors import UsageError
from trainables.finetune import FineTune
from trainables.headprogram import HeadProgram
from trainables.objective import Extra, Objective, Step
from trainables.old_task import OldHead, fisher, old_head
from trainables.training import Plan

REMEMBERINGS = ("ewc", "lwf", "none")
"""How the old task is kept; ``none`` only measures what is forgotten."""

TEMPERATURE = 2.0
"""Of old answers in ``lwf``, as in the paper."""

SCORES = "old_scores"


@dataclass(frozen=True)
class Retention(Objective):
    """The labels' cross-entropy, and how far the old head's answers, of ``classes``, have moved."""

    classes: int

    @property
    def extras(self) -> tuple[Extra, ...]:
        """What the old model says of each image."""
        return (Extra(SCORES, (self.classes,)),)

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

    def loss(self, step: Step) -> Any:
        """Over the batch."""
        kernel, bias = step.variables
        moved = plain_loss(step.extras[SCORES], step.features @ kernel + bias, tf.constant(TEMPERATURE))
        return tf.reduce_mean(step.cross_entropy) + step.numbers["remember_weight"] * moved


class RememberingFineTune(FineTune):
    """Fine-tuning; where ``remembering`` is a parameter, beside an old task (``remember_weight`` is w above).

    At depth 0 nothing of the backbone changes, and nothing can be forgotten.
    """

    kept_head: OldHead | None = None
    """The old head as the best epoch left it, where it trains."""

    def plan(self) -> Plan:
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
        head = old_head(self.bench, self.account)
        if self._how == "ewc":
            importance = fisher(self.bench, plan.depth, head, self.account)
            pull = Pull(self._weight, plan.suffix_weights, importance)
            return Plan(plan.depth, plan.suffix_weights, plan.adapt, plan.thawing, pull)
        self.state_size = 2
        self.kept_head = head
        return plan

    def objective(self) -> Objective | None:
        """Under ``lwf`` with the old answers."""
        return Retention(len(self.bench.remembered.task.classes)) if self._how == "lwf" else None

    def prepare(self) -> None:
        """Put the old head in its place."""
        super().prepare()
        if self.kept_head is not None:
            self._write_head(self.kept_head)

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """What the old model said of each training image, undistorted."""
        if self._how != "lwf":
            return {}
        return {SCORES: self._old_scores()}

    def numbers(self, epoch: int) -> np.ndarray | None:
        """The weight, in all steps."""
        return np.full((self.feed.steps, 1), self._weight, np.float32) if self._how == "lwf" else None

    def keep_best(self) -> None:
        """The old head, where it trains."""
        if self._how == "lwf" and not isinstance(self.program, HeadProgram):
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
        def take() -> np.ndarray:
            chunks = self.bench.activations.chunks("train", 0, self.account)
            return old_head(self.bench, self.account).scores(np.concatenate(list(chunks)))

        scores: np.ndarray = self.bench.remembered.once("old scores", take)
        return scores

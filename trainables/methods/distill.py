"""Relation transfer: a student learns from the labels and from a larger network that has seen more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainables.compiled.objective import Objective
from trainables.errors import UsageError
from trainables.methods.distillation_losses import EMBEDDINGS, SCORES, Distillation
from trainables.methods.finetune import FineTune
from trainables.teacher import take_lesson
from trainables.training.training import Plan, guarded

DISTILLATIONS = ("plain", "relational", "both")
"""What is learned from the teacher: its answers, the relations that it sees between images, or both."""


class Distill(FineTune):
    """Trains the top blocks as fine-tuning does, or all of them from random weights, beside a teacher.

    ``distillation`` says what is learned from it, ``distill_weight`` how much that counts, ``distill_temperature`` how
    soft its answers are (:mod:`trainables.methods.distillation_losses`). The teacher sees every image undistorted
    (:mod:`trainables.teacher`).
    """

    def plan(self) -> Plan:
        """As in fine-tuning; and what the teacher says."""
        plan = super().plan()
        self._weights = self._checked()
        with guarded():
            self._lesson = take_lesson(self.bench, self.account)
        return plan

    def objective(self) -> Objective:
        """Labels and teacher."""
        embeddings, scores = self._lesson.embeddings, self._lesson.scores
        return Distillation(embeddings.shape[1], scores.shape[1], embeddings.dtype.name)

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """What the teacher makes of each training image."""
        return {EMBEDDINGS: self._lesson.embeddings, SCORES: self._lesson.scores}

    def numbers(self, epoch: int) -> np.ndarray:
        """The same in all steps: weights of both kinds, and the temperature."""
        return np.tile(np.array(self._weights, np.float32), (self.feed.steps, 1))

    def _checked(self) -> tuple[float, float, float]:
        kind = self.config.params.get("distillation", "both")
        if kind not in DISTILLATIONS:
            raise UsageError(f"distillation: expected one of {', '.join(DISTILLATIONS)}, received {kind!r}")
        weight = self._within("distill_weight", 1.0, lambda value: value >= 0, "a number of at least 0")
        temperature = self._within("distill_temperature", 4.0, lambda value: value > 0, "a number above 0")
        return (
            weight if kind in ("plain", "both") else 0.0,
            weight if kind in ("relational", "both") else 0.0,
            temperature,
        )

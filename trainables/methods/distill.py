"""Relation transfer: a student learns from the labels and from a larger network that has seen more.

What a teacher says of the training images: its embeddings, and the scores of a probe on top of them.

A teacher is a workbench of its own: another backbone, over the same images at its own input size. It sees them
undistorted, so that each needs to pass it just once for all trials, whatever their augmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainables.compiled.objective import TrainingLoss
from trainables.cost_account import CostAccount
from trainables.errors import UsageError
from trainables.methods.distillation_losses import EMBEDDINGS, SCORES, DistillationLoss
from trainables.methods.finetune import FineTune
from trainables.training.linear_probe import probe_head
from trainables.training.training import TrainingPlan, guarded

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class TeacherOutputs:
    """``embeddings`` (N, C) float16 or float32 and ``scores`` (N, K) float32, a row a training image."""

    embeddings: np.ndarray
    scores: np.ndarray


def teacher_outputs(bench: Workbench, account: CostAccount) -> TeacherOutputs:
    """What the teacher of ``bench`` says; computed where neither this process nor this machine has it.

    Raises:
        UsageError: there is no teacher, or it was shown other images.
        Diverged: no probe on its embeddings has a finite loss.
    """
    teacher = bench.teacher
    if list(teacher.task.split("train").ids) != list(bench.task.split("train").ids):
        raise UsageError(
            "teacher: expected to see the same training images as the student, received others: "
            f"{teacher.task.counts['train']} and {bench.task.counts['train']}"
        )
    with account.timing("prefix"):
        kept = teacher.activations.get("train", 0, account=account)
        if kept is None:
            kept = np.concatenate(list(teacher.activations.chunks("train", 0, account)))
    kernel, bias = probe_head(teacher, 0, account)
    return TeacherOutputs(kept, kept.astype(np.float32) @ kernel + bias)


DISTILLATIONS = ("plain", "relational", "both")
"""What is learned from the teacher: its answers, the relations that it sees between images, or both."""


class Distill(FineTune):
    """Trains the top blocks as fine-tuning does, or all of them from random weights, beside a teacher.

    ``distillation`` says what is learned from it, ``distill_weight`` how much that counts, ``distill_temperature`` how
    soft its answers are (:mod:`trainables.methods.distillation_losses`). The teacher sees every image undistorted
    (:mod:`trainables.methods.distill`).
    """

    def plan(self) -> TrainingPlan:
        """As in fine-tuning; and what the teacher says."""
        plan = super().plan()
        self._weights = self._checked()
        with guarded():
            self._lesson = teacher_outputs(self.bench, self.account)
        return plan

    def objective(self) -> TrainingLoss:
        """Labels and teacher."""
        embeddings, scores = self._lesson.embeddings, self._lesson.scores
        return DistillationLoss(embeddings.shape[1], scores.shape[1], embeddings.dtype.name)

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

"""Relation transfer: a student network learns from the labels and from a larger network, its teacher.

The teacher is a workbench of its own: another backbone over the same images, at its own input size. It sees every image
without augmentation, so each image passes through it only once for all trials, whatever their augmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainables.compiled.loss import TrainingLoss
from trainables.cost_account import CostAccount
from trainables.errors import UsageError
from trainables.methods.distillation_losses import EMBEDDINGS, SCORES, DistillationLoss
from trainables.methods.finetune import FineTune
from trainables.methods.parameter_values import DISTILLATIONS
from trainables.training.linear_probe import probe_head
from trainables.training.method_hooks import TrainingPlan
from trainables.training.training import guarded

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher makes of the N training images.

    Attributes:
        embeddings: (N, C) float16 or float32, the pooled features of the teacher's backbone.
        scores: (N, K) float32 before softmax, of a linear probe on the embeddings.
    """

    embeddings: np.ndarray
    scores: np.ndarray


def teacher_outputs(bench: Workbench, account: CostAccount) -> TeacherOutputs:
    """Return the outputs of the teacher of ``bench``; computed unless this process or this machine has them.

    Raises:
        UsageError: there is no teacher, or its training images are not those of the student.
        Diverged: no probe on its embeddings has a finite loss.
    """
    teacher = bench.teacher
    # Outputs are matched with the student's images by row, so both must have the same images in the same order.
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


class Distill(FineTune):
    """Trains the top blocks as fine-tuning does, on the labels and on the outputs of a teacher.

    Parameters of the trial: ``distillation`` (one of :data:`DISTILLATIONS`, default ``both``), ``distill_weight`` w (1)
    and ``distill_temperature`` T (4), see :mod:`trainables.methods.distillation_losses`.
    """

    def plan(self) -> TrainingPlan:
        """Return the plan of fine-tuning, after computing the outputs of the teacher."""
        plan = super().plan()
        self._scalars = self._checked_scalars()
        # The first trial computes the outputs: the teacher may not fit into memory.
        with guarded():
            self._teacher = teacher_outputs(self.bench, self.account)
        return plan

    def training_loss(self) -> TrainingLoss:
        """Return the loss of labels and teacher."""
        embeddings, scores = self._teacher.embeddings, self._teacher.scores
        return DistillationLoss(embeddings.shape[1], scores.shape[1], embeddings.dtype.name)

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Return ``teacher_embeddings`` (N, C) and ``teacher_scores`` (N, K) of the training images."""
        return {EMBEDDINGS: self._teacher.embeddings, SCORES: self._teacher.scores}

    def loss_scalars(self, epoch: int) -> np.ndarray:
        """Return the weights of both losses and the temperature, the same in all steps: (steps, 3) float32."""
        return np.tile(np.array(self._scalars, np.float32), (self.feed.steps, 1))

    def _checked_scalars(self) -> tuple[float, float, float]:
        """Return (weight of the plain loss, weight of the relational loss, temperature)."""
        kind = self.config.params.get("distillation", "both")
        if kind not in DISTILLATIONS:
            raise UsageError(f"distillation: expected one of {', '.join(DISTILLATIONS)}, received {kind!r}")
        weight = self._checked_number(
            "distill_weight", 1.0, lambda value: value >= 0, "a number of at least 0"
        )
        temperature = self._checked_number(
            "distill_temperature", 4.0, lambda value: value > 0, "a number above 0"
        )
        return (
            weight if kind in ("plain", "both") else 0.0,
            weight if kind in ("relational", "both") else 0.0,
            temperature,
        )

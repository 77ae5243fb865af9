"""What a teacher says of the training images: its embeddings, and the scores of a probe on top of them.

A teacher is a workbench of its own: another backbone, over the same images at its own input size. It sees them
undistorted, so that each needs to pass it just once for all trials, whatever their augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trainables.cost_account import Account
from trainables.errors import UsageError
from trainables.training.linear_probe import probe_head

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class Lesson:
    """``embeddings`` (N, C) float16 or float32 and ``scores`` (N, K) float32, a row a training image."""

    embeddings: np.ndarray
    scores: np.ndarray


def take_lesson(bench: Workbench, account: Account) -> Lesson:
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
    return Lesson(kept, kept.astype(np.float32) @ kernel + bias)

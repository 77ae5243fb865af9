"""A target whose labels no trial may see."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from trainables.data.inputs.source import NO_LABEL
from trainables.data.split_file import Split
from trainables.data.task import Task

HIDDEN = NO_LABEL
"""In the place of each label."""


@dataclass(frozen=True)
class UnlabelledTask(Task):
    """A task that hands out its images and no labels; those of the test split are for whoever measures the winner."""

    @classmethod
    def of(cls, task: Task) -> UnlabelledTask:
        """``task`` without its labels."""
        return cls(**{f.name: getattr(task, f.name) for f in fields(task)})

    def split(self, name: str) -> Split:
        """A split with the label :data:`HIDDEN` everywhere."""
        split = super().split(name)
        return replace(split, labels=np.full(len(split), HIDDEN, np.int64))

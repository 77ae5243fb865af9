"""The baseline that learns from the source alone, and is asked about the target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainables.methods.source_training import SourceTraining


class SourceOnly(SourceTraining):
    """Fine-tunes on the source's images of shared classes; no image of the target trains."""

    @property
    def share(self) -> float:
        """All of a batch."""
        return 1.0

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Every image counts alike."""
        return {"weight": self.per_image(1.0, np.ones(len(self.source.rows("train"))))}

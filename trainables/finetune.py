"""Model transfer: train the top blocks of a pretrained backbone and a new head."""

from __future__ import annotations

from trainables.errors import UsageError
from trainables.training import Plan, Training

LEAST_BATCH = 8
"""Images in a batch from which on its statistics are worth following."""


class FineTune(Training):
    """Trains the top ``unfreeze_depth`` blocks from their pretrained weights; the rest is frozen."""

    def plan(self) -> Plan:
        """The top blocks, from pretrained weights."""
        depth, most = int(self.config.number("unfreeze_depth")), len(self.bench.backbone.blocks)
        if not 0 <= depth <= most:
            raise UsageError(
                f"unfreeze_depth: expected 0 to {most} (the backbone's blocks), received {depth}"
            )
        _, suffix = self.bench.backbone.parts(depth)
        weights = suffix.get_weights() if suffix is not None else []
        return Plan(depth, weights, adapt=self._adapts())

    def _adapts(self) -> bool:
        """BatchNorm follows the new data, unless batches are too small to have statistics of their own."""
        if self.config.batch_norm == "auto":
            return min(self.config.batch_size, self.bench.task.counts["train"]) >= LEAST_BATCH
        return self.config.batch_norm == "adapt"

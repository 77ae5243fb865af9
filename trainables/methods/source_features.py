"""Features of the frozen backbone for both datasets, and what is judged by them: how alike they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trainables.cost_account import CostAccount
from trainables.methods.importance_weights import log_ratios

if TYPE_CHECKING:
    from trainables.training.source_data import SourceData
    from trainables.training.workbench import Workbench


def source_and_target_features(
    source: SourceData, bench: Workbench, split: str, account: CostAccount
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features (n, C) of the images in ``split``: the source's of shared classes, and the target's."""
    ours = np.concatenate(list(source.activations.chunks(split, 0, account)))
    theirs = np.concatenate(list(bench.activations.chunks(split, 0, account)))
    return ours[source.rows(split)], theirs


def source_log_ratios(source: SourceData, bench: Workbench, split: str, account: CostAccount) -> np.ndarray:
    """log p_T / p_S (n,) of the source's images of shared classes in ``split``; computed once for all trials."""
    return np.asarray(
        source.once(
            ("log ratios", split),
            lambda: log_ratios(*source_and_target_features(source, bench, split, account)),
        )
    )

"""Features of source and target under the frozen backbone, and the density ratio that follows from them."""

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
    """Return pooled features (n_S, C) of the source's images of shared classes, and (n_T, C) of the target's images."""
    ours = np.concatenate(list(source.activations.chunks(split, 0, account)))
    theirs = np.concatenate(list(bench.activations.chunks(split, 0, account)))
    return ours[source.shared_rows(split)], theirs


def source_log_ratios(source: SourceData, bench: Workbench, split: str, account: CostAccount) -> np.ndarray:
    """Return log p_T / p_S (n_S,) of the source's images of shared classes in ``split``.

    It is computed once for all trials of the process (:func:`trainables.methods.importance_weights.log_ratios`).
    """
    return np.asarray(
        source.compute_once(
            ("log ratios", split),
            lambda: log_ratios(*source_and_target_features(source, bench, split, account)),
        )
    )

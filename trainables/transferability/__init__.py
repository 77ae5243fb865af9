"""Transferability scores: how well frozen features suit a task, computed before anything is trained.

The scores are pure functions of features (N, D) and labels (N,) of any numeric types; all computations use float64.
They do not know what unfreezing blocks would change, and none is right for every task, so they serve as a prior and
as a tie-break, never as a filter. ``docs/transferability.md`` shows how well they predicted tuned accuracies.
"""

from __future__ import annotations

from trainables.transferability.cka import label_cka, linear_cka
from trainables.transferability.h_score import h_score
from trainables.transferability.knn import knn_accuracy, knn_correct
from trainables.transferability.leep import leep, most_probable, nce
from trainables.transferability.logme import logme
from trainables.transferability.mmd import MMDResult, mmd_test
from trainables.transferability.source_head import source_probabilities

__all__ = [
    "MMDResult",
    "h_score",
    "knn_accuracy",
    "knn_correct",
    "label_cka",
    "leep",
    "linear_cka",
    "logme",
    "mmd_test",
    "most_probable",
    "nce",
    "source_probabilities",
]

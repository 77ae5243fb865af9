"""How well frozen features suit a task, before anything is trained: scores of transferability.

Pure functions of features (N, D) and labels (N,), of any numeric types; all is computed in float64. None of them knows
what becomes of a backbone once its blocks are unfrozen, and none is right everywhere: they are a prior and a tie-break,
never a filter. ``docs/transferability.md`` says how they did on tasks made here.
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

"""The adapter to MLflow's model registry, in one place: a winner in, challenger, champion, a model out."""

from __future__ import annotations

from search.comparison import Comparison, Judgement
from search.model_files import class_names, download_backbone
from search.model_versions import CHALLENGER, CHAMPION, Version
from search.promotion import (
    Contest,
    Promotion,
    PromotionRefused,
    WhichPoint,
    history,
    judge,
    promote,
    rollback,
)
from search.promotion_history import Event
from search.registration import register

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Comparison",
    "Contest",
    "Event",
    "Judgement",
    "Promotion",
    "PromotionRefused",
    "Version",
    "WhichPoint",
    "class_names",
    "download_backbone",
    "history",
    "judge",
    "promote",
    "register",
    "rollback",
]

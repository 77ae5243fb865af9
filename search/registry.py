"""The adapter to MLflow's model registry, in one place: a winner in, challenger, champion, a model out."""

from __future__ import annotations

from search.model_files import class_names, download_backbone
from search.model_versions import CHALLENGER, CHAMPION, Version
from search.promotion import Gate, Promotion, promote, rollback
from search.registration import register

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "Gate",
    "Promotion",
    "Version",
    "class_names",
    "download_backbone",
    "promote",
    "register",
    "rollback",
]

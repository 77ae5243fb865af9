"""Register, compare, promote, roll back and load models of MLflow's model registry.

The names below are loaded on first use (PEP 562): importing MLflow takes seconds, and ``unfreeze --help`` must not
wait for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.registry.downloads import class_names, download_backbone
    from search.registry.gate import Comparison, GateDecision
    from search.registry.promotion import (
        AmbiguousChallenger,
        Promotion,
        PromotionComparison,
        PromotionRefused,
        history,
        judge,
        promote,
        rollback,
    )
    from search.registry.promotion_history import PromotionEvent
    from search.registry.registration import register
    from search.registry.versions import CHALLENGER, CHAMPION, Version

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "AmbiguousChallenger",
    "Comparison",
    "GateDecision",
    "Promotion",
    "PromotionComparison",
    "PromotionEvent",
    "PromotionRefused",
    "Version",
    "class_names",
    "download_backbone",
    "history",
    "judge",
    "promote",
    "register",
    "rollback",
]

_HOME = {
    "CHALLENGER": "search.registry.versions",
    "CHAMPION": "search.registry.versions",
    "Comparison": "search.registry.gate",
    "PromotionComparison": "search.registry.promotion",
    "PromotionEvent": "search.registry.promotion_history",
    "GateDecision": "search.registry.gate",
    "Promotion": "search.registry.promotion",
    "PromotionRefused": "search.registry.promotion",
    "Version": "search.registry.versions",
    "AmbiguousChallenger": "search.registry.promotion",
    "class_names": "search.registry.downloads",
    "download_backbone": "search.registry.downloads",
    "history": "search.registry.promotion",
    "judge": "search.registry.promotion",
    "promote": "search.registry.promotion",
    "register": "search.registry.registration",
    "rollback": "search.registry.promotion",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import search.cli` does not load MLflow."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)

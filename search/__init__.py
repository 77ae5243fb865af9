"""unfreeze: search for the best way to fine-tune a pretrained Keras model.

>>> from search import SearchConfig, run_search
>>> result = run_search(SearchConfig(data="digits", trials=24))
"""

from __future__ import annotations

import importlib
import logging
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.config.search_config import SearchConfig as SearchConfig
    from search.study.search_result import SearchResult as SearchResult
    from search.study.study import run_search as run_search

__all__ = ["SearchConfig", "SearchResult", "run_search"]

_MODULES = {
    "SearchConfig": "search.config.search_config",
    "SearchResult": "search.study.search_result",
    "run_search": "search.study.study",
}


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that ``import search.cli`` stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    # At import, Ray and tqdm (a dependency of Optuna) recommend widgets to notebooks without them. We draw none.
    logging.getLogger("ray.widgets").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        return getattr(importlib.import_module(_MODULES[name]), name)

"""Joins a Ray cluster, or starts Ray here, for as long as the doctor looks around: no engines, nothing that trains."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.config.search_config import SearchConfig
from search.execution.engines.session import RAY_ENVIRONMENT, _init


@contextmanager
def ray_connection(address: str | None) -> Iterator[None]:
    """As a search would join it.

    Raises:
        ClusterError: no cluster is there, or it does not let this machine in.
    """
    for key, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray

    with tempfile.TemporaryDirectory(prefix="unfreeze-") as empty:
        _init(SearchConfig(address=address), False, Path(empty))
        try:
            yield
        finally:
            ray.shutdown()

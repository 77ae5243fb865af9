"""Connects to a Ray cluster, or starts Ray on this machine, while checks run. It starts no engines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.config.search_config import SearchConfig
from search.execution.engines.session import RAY_ENVIRONMENT, start_ray


@contextmanager
def ray_connection(address: str | None) -> Iterator[None]:
    """Connect as a search would; shut the connection down afterwards.

    Args:
        address: of a cluster; None starts Ray on this machine.

    Raises:
        ClusterError: no cluster answers there, or it does not admit this machine.
    """
    for key, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import ray  # reads these variables when it is imported

    with tempfile.TemporaryDirectory(prefix="unfreeze-") as empty:
        start_ray(SearchConfig(address=address), False, Path(empty))
        try:
            yield
        finally:
            ray.shutdown()

"""The name of a search where the user gives none."""

from __future__ import annotations

from search.config.search_config import SearchConfig
from trainables.tasknames import task_name


def search_name(config: SearchConfig) -> str:
    """Name of the search: as given, or the task's."""
    return config.name or task_name(config.data)

"""Which version an alias stood for when a search began: it goes on with that one, wherever the alias points later.

So ``--backbone models:/NAME@champion`` stays what it was when a champion is promoted before the search is done.
"""

from __future__ import annotations

import json

from search.config.search_config import SearchConfig
from search.ledger.workspace import Workspace
from search.records.atomic_file import write_text

FILE = "models.json"


def pinned(config: SearchConfig, workspace: Workspace) -> dict[str, str]:
    """Addresses of versions by the addresses that the search was given; empty before it has begun."""
    if config.fresh or (config.ledger is None and not workspace.ledger.is_file()):
        return {}
    return _read(workspace)


def pin(given: str, version: str, workspace: Workspace) -> None:
    """Keep that ``given`` is ``version`` for this search."""
    write_text(workspace.directory / FILE, json.dumps({**_read(workspace), given: version}))


def _read(workspace: Workspace) -> dict[str, str]:
    try:
        known = json.loads((workspace.directory / FILE).read_text())
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in known.items()} if isinstance(known, dict) else {}

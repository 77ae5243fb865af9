"""Ledgers to damage, to put away and to fight over, and the services that tests take away."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgresql_server import Postgres, programs

from search.ledger.ledger import Ledger
from search.ledger.optuna_tables import Fence

OpenLedger = Callable[..., Ledger]


@pytest.fixture
def open_ledger() -> OpenLedger:
    """Opens the study ``name`` at a URL, or begins it."""

    def opened(
        url: str,
        name: str = "a search",
        *,
        sampler: str = "random",
        seed: int = 0,
        fence: Fence | None = None,
    ) -> Ledger:
        return Ledger(
            url,
            name,
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler=sampler,
            seed=seed,
            fence=fence,
        )

    return opened


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgres]:
    """A running server; a test that stops it starts it again."""
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="unfreeze-postgres-"))
    folder.chmod(0o755)  # its server runs as another user
    server = Postgres(folder / "cluster", found)
    try:
        server.create()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

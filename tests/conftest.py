from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgresql_server import Postgres, programs

from search.ledger.ledger import Ledger
from search.ledger.optuna_tables import Fence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def weird_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path holds what users' paths hold."""
    folder = tmp_path_factory.mktemp("a b ü 字 it's #1") / "más & más"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache of activations."""
    os.environ["UNFREEZE_CACHE"] = str(tmp_path_factory.mktemp("activations ü"))


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Ray, started once for all searches of a file; a search leaves a connection that it found."""
    import ray

    from search.execution.engines.session import quoted_python

    here = Path.cwd()
    options = {"include_dashboard": False, "log_to_driver": False, **quoted_python()}
    ray.init(address="local", num_cpus=2, logging_level="ERROR", **options)
    yield
    ray.shutdown()
    assert Path.cwd() == here


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

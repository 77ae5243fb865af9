"""Settings and fixtures for all tests: paths, the activation cache, Ray, ledgers and a PostgreSQL server."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow_store import copy_empty_store, empty_store
from postgresql_server import Postgres, programs

if TYPE_CHECKING:
    from search.ledger.ledger import Ledger
    from search.ledger.optuna_tables import Fence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

LONGEST_FILES = (
    # of the quick suite
    "test_contract.py",
    "test_report_formats.py",
    "test_registry.py",
    "test_promotion.py",
    # of the slow tests; no quick test is in these files
    "test_driver_kills.py",
    "test_driver_failpoints.py",
    "test_activations_families.py",
    "test_search.py",
    "test_ledger_server.py",
    "test_objectives_search.py",
    "test_engine_memory.py",
    "test_tracking_service.py",
    "test_verdicts.py",
    "test_mlflow_server.py",
    "test_mlflow_pages.py",
    "test_clock_faults.py",
    "test_lifelong_search.py",
    "test_source_search.py",
    "test_searched_backbones.py",
)
"""Files that take longest, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first.

    With ``--dist loadfile`` the tests of a file stay on one worker. A long file that starts last would keep one worker
    busy while the others have nothing to do. ``--no-loadscope-reorder`` in pyproject.toml keeps this order.
    """
    position = {name: number for number, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: position.get(item.path.name, len(position)))


@pytest.fixture(scope="session")
def weird_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path has spaces, quotes, a hash sign, an ampersand and letters outside of ASCII."""
    folder = tmp_path_factory.mktemp("a b ü 字 it's #1") / "más & más"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session", autouse=True)
def separate_activation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests from reading or filling the user's cache of activations."""
    os.environ["UNFREEZE_CACHE"] = str(tmp_path_factory.mktemp("activations ü"))


@pytest.fixture(scope="module", autouse=True)
def mlflow_is_left_as_found() -> Iterator[None]:
    """Check that a file leaves no global MLflow address: later tests and their child processes would inherit it."""
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = [os.environ.get(name) for name in names]
    yield
    assert [os.environ.get(name) for name in names] == before


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Start Ray once for all searches of a file, and copy their MLflow stores from an empty one.

    A search that finds a running Ray uses it and does not stop it.
    """
    import ray

    from search.execution.engines.session import quoted_python
    from search.tracking import client

    here = Path.cwd()
    options = {"include_dashboard": False, "log_to_driver": False, **quoted_python()}
    ray.init(address="local", num_cpus=2, logging_level="ERROR", **options)
    empty_store()  # made by the function that is replaced now
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "create_store", copy_empty_store)
        yield
    ray.shutdown()
    assert Path.cwd() == here


@pytest.fixture
def open_ledger() -> Callable[..., Ledger]:
    """Return a function that opens the study ``name`` at a URL, or creates it."""
    from search.ledger.ledger import Ledger

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
    """A running PostgreSQL server. A test that stops it must start it again. Tests that use it are slow tests."""
    found = programs()
    if found is None:
        reason = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="unfreeze-postgres-"))
    folder.chmod(0o755)  # the server runs as another user, who must be able to read it
    server = Postgres(folder / "cluster", found)
    try:
        server.create()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

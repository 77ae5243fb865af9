from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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

from __future__ import annotations

import os
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

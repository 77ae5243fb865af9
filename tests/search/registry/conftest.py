"""A registered model for each test, on a store that the tests of a file share."""

from __future__ import annotations

from pathlib import Path

import pytest
from registered_model import Model


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("Läufe von 'heute' 字")


@pytest.fixture
def model_name(request: pytest.FixtureRequest) -> str:
    return request.node.name.replace("[", "-").replace("]", "")


@pytest.fixture
def model(storage: Path, model_name: str) -> Model:
    return Model(storage, model_name)

"""``search.registry`` loads its modules, and with them MLflow, only when a name is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import search.registry


def test_importing_the_package_loads_no_mlflow() -> None:
    code = "import sys, search.registry; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_listed_name_can_be_loaded() -> None:
    assert all(getattr(search.registry, name) is not None for name in search.registry.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        search.registry.no_such_name  # noqa: B018

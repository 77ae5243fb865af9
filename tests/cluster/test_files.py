"""Test the files of ``cluster/`` without hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import search

CLUSTER = Path(__file__).parents[2] / "cluster"
PACKAGES = str(Path(search.__file__).parents[1])


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))
    } | variables
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with ``search.py``, as after ``ray submit``."""
    shutil.copy(CLUSTER / "search.py", tmp_path)
    return tmp_path


def test_cluster_yaml_fits_rays_schema_and_mounts_existing_files() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / "cluster.yaml").read_text())
    validate_config(prepare_config(config))
    for remote, local in config["file_mounts"].items():
        assert local.startswith("~") or (CLUSTER / local).exists(), remote


def test_search_py_does_not_hide_the_package(home: Path) -> None:
    """``import search`` finds the package even if ``search.py`` comes first on the import path."""
    words = (
        "import sys, search, search.cli, search.config.search_config; "
        "print(search.__file__, search.cli.__name__, sep=chr(10))"
    )
    for path in (PACKAGES, f"{home}{os.pathsep}{PACKAGES}"):
        found = run(sys.executable, "-c", words, cwd=home, PYTHONPATH=path)
        assert found.returncode == 0, found.stderr
        assert found.stdout.splitlines() == [search.__file__, "search.cli"]


def test_search_py_explains_how_to_quote(home: Path) -> None:
    split = run(sys.executable, home / "search.py", "--data", "my", "photos", cwd=home, PYTHONPATH=PACKAGES)
    assert split.returncode == 2
    assert "--data '\"/mnt/unfreeze/my photos\"'" in split.stderr


def test_search_py_reports_that_unfreeze_is_not_installed(home: Path) -> None:
    bare = run(
        Path(sys.base_prefix) / "bin" / Path(sys.executable).resolve().name,
        "-I",
        home / "search.py",
        cwd=home,
    )
    assert bare.returncode == 1
    assert "expected the package unfreeze in the environment of" in bare.stderr


@pytest.mark.slow
def test_install_sh_creates_an_environment_once(tmp_path: Path) -> None:
    """Uses a small project in place of unfreeze, whose requirement comes from pip's configured index."""
    home, source = tmp_path / "home of a node", tmp_path / "repository"
    home.mkdir()
    (home / ".bashrc").write_text("return\n")
    for package in ("search", "trainables"):
        (source / package).mkdir(parents=True)
        (source / package / "__init__.py").write_text("word = 'first'\n")
    (source / "pyproject.toml").write_text(_PROJECT)
    (source / "constraints.txt").write_text("iniconfig==2.1.0\n")
    install = [CLUSTER / "install.sh", source]
    own = {"HOME": str(home), "UNFREEZE_PYTHON": sys.executable}

    def word() -> str:
        line = "import iniconfig, search, importlib.metadata as m; print(m.version('iniconfig'), search.word)"
        shell = run("bash", "-c", f'source "$HOME/.bashrc"; python -c "{line}"', cwd=home, HOME=str(home))
        return shell.stdout.strip() + shell.stderr

    assert run(*install, cwd=home, **{**own, "UNFREEZE_PYTHON": "no-python"}).returncode == 1
    first = run(*install, cwd=home, **own)
    assert first.returncode == 0, first.stderr
    assert word() == "2.1.0 first"
    nothing = {**own, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(home)}
    assert run(*install, cwd=home, **nothing).stdout.count("installing") == 0
    (source / "search" / "__init__.py").write_text("word = 'second'\n")
    again = run(*install, cwd=home, **nothing)
    assert again.stdout.count("installing") == 1, again.stderr
    assert word() == "2.1.0 second"
    assert (home / ".bashrc").read_text().count("unfreeze: begin") == 1


_PROJECT = """
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"
[project]
name = "unfreeze"
version = "0"
dependencies = ["iniconfig>=2"]
[tool.hatch.build.targets.wheel]
packages = ["search", "trainables"]
"""

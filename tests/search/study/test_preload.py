"""Modules that are imported in the background are complete when the block ends, also after an error."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADED = ("mlflow.tracking", "optuna.importance", "altair", "tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "expected"), [("load_reporting", LOADED[:3]), ("load_registration", LOADED[3:])]
)
@pytest.mark.parametrize("fails", [False, True])
def test_all_modules_are_imported_when_the_block_ends(
    what: str, expected: tuple[str, ...], fails: bool
) -> None:
    body = f"""
import sys
from search.study.preload import Preloader
try:
    with Preloader() as preloader:
        preloader.{what}()
        {"raise ZeroDivisionError" if fails else "pass"}
except ZeroDivisionError:
    print("failed")
missing = [name for name in {expected!r} if name not in sys.modules]
print("missing", missing)
"""
    said = subprocess.run(
        [sys.executable, "-c", body], capture_output=True, text=True, timeout=300, check=True
    )
    assert said.stdout.splitlines() == (["failed"] if fails else []) + ["missing []"]

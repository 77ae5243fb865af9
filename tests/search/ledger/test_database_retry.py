"""Test which errors of a database are retried, and for how long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import sqlalchemy as sql
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from search import SearchConfig, run_search
from search.config.environment import SERVICE_PATIENCE, service_patience
from search.ledger.database_retry import DatabaseRetry
from trainables.errors import LedgerError, UsageError


def error(words: str) -> OperationalError:
    return OperationalError("INSERT", {}, Exception(words))


def in_optuna(words: str) -> StorageInternalError:
    wrapped = StorageInternalError("An exception is raised during the commit.")
    wrapped.__cause__ = error(words)
    return wrapped


@pytest.mark.parametrize("problem", [error("database is locked"), in_optuna("database is locked")])
def test_a_locked_database_is_tried_again(problem: Exception) -> None:
    tries: list[bool] = []

    def attempt(again: bool) -> str:
        tries.append(again)
        if len(tries) < 3:
            raise problem
        return "written"

    assert DatabaseRetry(sql.create_engine("sqlite://")).call(attempt) == "written"
    assert tries == [False, True, True]


@pytest.mark.parametrize("problem", [error("database or disk is full"), in_optuna("disk I/O error")])
def test_an_error_that_does_not_pass_is_raised_at_once(problem: Exception) -> None:
    def attempt(again: bool) -> None:
        raise problem

    began = time.monotonic()
    with pytest.raises(LedgerError, match=r"can't be read or written: .*(disk is full|I/O error)"):
        DatabaseRetry(sql.create_engine("sqlite://")).call(attempt)
    assert time.monotonic() - began < 0.4


@pytest.mark.parametrize("said", ["soon", "0", "nan", "inf", "-3"])
def test_an_invalid_patience_is_refused_before_anything_starts(
    said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(SERVICE_PATIENCE, said)
    with pytest.raises(UsageError, match=f"{SERVICE_PATIENCE}: expected seconds, .* received '{said}'"):
        run_search(SearchConfig(storage=str(tmp_path / "runs")))
    assert not list(tmp_path.iterdir())


def test_the_default_patience_is_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVICE_PATIENCE, raising=False)
    assert service_patience() == 60


def test_a_database_that_stays_unreachable_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVICE_PATIENCE, "0.8")
    retry = DatabaseRetry(sql.create_engine("sqlite://"))

    def attempt(again: bool) -> None:
        raise error("database is locked")

    for least, most in ((0.8, 3.0), (0.0, 0.4)):
        began = time.monotonic()
        with pytest.raises(LedgerError, match="database is locked"):
            retry.call(attempt)
        assert least <= time.monotonic() - began < most

"""Tries again while a database is away: its server restarts, another process holds the file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sql
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from search.config.environment import service_patience
from trainables.errors import LedgerError

RETRY_SECONDS = 0.5
"""Between two tries."""

Answer = TypeVar("Answer")


class DatabaseRetry:
    """Calls that need the database of ``engine``. Once it has been away for too long, no later call waits for it.

    ``patience`` in seconds, :func:`~search.config.environment.service_patience` if it is None.
    """

    def __init__(self, engine: sql.Engine, patience: float | None = None) -> None:
        self._engine, self._patience = engine, service_patience() if patience is None else patience
        self._since: float | None = None

    def call(self, attempt: Callable[[bool], Answer]) -> Answer:
        """The answer of ``attempt``, which is told whether an earlier try may have been written after all.

        Raises:
            LedgerError: the database refused, or stayed away.
        """
        again = False
        while True:
            try:
                answer = attempt(again)
            except (SQLAlchemyError, StorageInternalError) as error:
                self._bear(error)
                again = True
                time.sleep(RETRY_SECONDS)
            else:
                self._since = None
                return answer

    def _bear(self, error: Exception) -> None:
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if not self._passes(error) or now - self._since >= self._patience:
            words = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
            url = self._engine.url
            place = url.database if url.drivername.startswith("sqlite") else url.render_as_string()
            raise LedgerError(
                f"ledger: its database {place} can't be read or written: {words}. What it holds is whole: once "
                "that has passed, the same command goes on."
            ) from error

    def _passes(self, error: Exception) -> bool:
        """Whether the same may succeed later."""
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if self._engine.dialect.name == "sqlite":
            return "locked" in str(cause)
        return isinstance(cause, OperationalError | InterfaceError)

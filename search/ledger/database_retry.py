"""Retries calls while a database can't be reached: its server restarts, or another process has locked the file."""

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
"""Time between two attempts."""

Result = TypeVar("Result")


class DatabaseRetry:
    """Calls that need the database of ``engine``.

    The waiting time is shared by all calls: once the database has been unreachable for so long, the next call tries
    once and does not wait. Otherwise the end of a search, with its several writes, would wait for each of them.

    Args:
        engine: of the database.
        patience: seconds to wait; :func:`search.config.environment.service_patience` if it is None.
    """

    def __init__(self, engine: sql.Engine, patience: float | None = None) -> None:
        self._engine, self._patience = engine, service_patience() if patience is None else patience
        self._unreachable_since: float | None = None

    def call(self, attempt: Callable[[bool], Result]) -> Result:
        """Return the result of ``attempt``, which is called until it succeeds.

        Args:
            attempt: receives whether an earlier attempt failed. That one may have been committed all the same, if the
                connection broke before the answer came; ``attempt`` must not write anything twice.

        Raises:
            LedgerError: the database refused, or was unreachable for too long.
        """
        retrying = False
        while True:
            try:
                result = attempt(retrying)
            except (SQLAlchemyError, StorageInternalError) as error:
                self._raise_if_hopeless(error)
                retrying = True
                time.sleep(RETRY_SECONDS)
            else:
                self._unreachable_since = None
                return result

    def _raise_if_hopeless(self, error: Exception) -> None:
        now = time.monotonic()
        self._unreachable_since = now if self._unreachable_since is None else self._unreachable_since
        if not self._is_transient(error) or now - self._unreachable_since >= self._patience:
            first = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
            url = self._engine.url
            # render_as_string hides the password.
            place = url.database if url.drivername.startswith("sqlite") else url.render_as_string()
            raise LedgerError(
                f"ledger: its database {place} can't be read or written: {first}. The data written so far is "
                "intact. Solve the problem and run the same command again to continue."
            ) from error

    def _is_transient(self, error: Exception) -> bool:
        """Return whether the same call may succeed later."""
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        if self._engine.dialect.name == "sqlite":
            # SQLite raises OperationalError for everything, a full disk included. Only a lock passes by itself.
            return "locked" in str(cause)
        return isinstance(cause, OperationalError | InterfaceError)

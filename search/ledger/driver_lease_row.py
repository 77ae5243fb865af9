"""The row of a ledger's database that says who drives a search: changed by comparing, so that one writer wins.

It is one of the study's own attributes, so that everything else of Optuna reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import sqlalchemy as sql
from optuna.storages import RDBStorage
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from search.ledger.attributes import StudyKey
from search.ledger.database import open_or_create_study
from search.ledger.optuna_tables import optuna_tables
from search.records.metrics import Direction
from trainables.errors import LeaseLost, LedgerError


class LeaseRow:
    """The mark of the search ``name`` in the database at ``url``; the study is begun if there is none.

    Every method raises a LedgerError where the database can't be asked.
    """

    def __init__(self, url: str, name: str, *directions: Direction) -> None:
        self._name = name
        self._database: RDBStorage = open_or_create_study(url, name, directions or ("maximize",))
        study = self._database.get_study_id_from_name(name)
        self._table = optuna_tables().study_user_attributes
        self._value = self._table.c.value_json
        self._mine = (self._table.c.study_id == study, self._table.c.key == StudyKey.DRIVER)
        self._row = {"study_id": study, "key": StudyKey.DRIVER}

    def read(self) -> str | None:
        """The mark as text, to be compared with; None where there never was one."""
        with self._asking(), self._database.engine.connect() as connection:
            text: str | None = connection.execute(sql.select(self._value).where(*self._mine)).scalar()
            return text

    def compare_and_set(self, seen: str | None, mark: dict[str, Any]) -> bool:
        """Set ``mark`` if the text is still ``seen``; False if another process was quicker."""
        with self._asking(), self._database.engine.begin() as connection:
            if seen is not None:
                return self._set(connection, self._value.is_not_distinct_from(seen), mark)
            try:
                connection.execute(sql.insert(self._table), {**self._row, "value_json": json.dumps(mark)})
            except IntegrityError:
                return False
            return True

    def renew(self, token: str, mark: dict[str, Any] | None) -> bool:
        """Set ``mark`` if the present one bears ``token``; False if it does not."""
        with self._asking(), self._database.engine.begin() as connection:
            return self._set(connection, self._value.contains(token), mark)

    def lock(self, connection: sql.Connection, token: str) -> None:
        """Make sure, until the transaction of ``connection`` ends, that the mark bears ``token``.

        Written, not read: so the row stays locked, and who takes over comes before this transaction or after it.

        Raises:
            TakenOver: it does not.
        """
        same = (
            sql.update(self._table)
            .where(*self._mine, self._value.contains(token))
            .values(value_json=self._value)
        )
        if connection.execute(same).rowcount != 1:
            text = connection.execute(sql.select(self._value).where(*self._mine)).scalar()
            raise taken_over_error(self._name, text)

    def close(self) -> None:
        """Let go of the database."""
        self._database.remove_session()
        self._database.engine.dispose()

    def _set(self, connection: sql.Connection, condition: Any, mark: dict[str, Any] | None) -> bool:
        change = sql.update(self._table).where(*self._mine, condition).values(value_json=json.dumps(mark))
        return connection.execute(change).rowcount == 1

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            words = str(error).splitlines()[0]
            raise LedgerError(f"ledger: its database can't be read or written: {words}") from error


def parse_holder(text: str | None) -> dict[str, Any]:
    """Who a mark's text speaks of; empty for nobody."""
    return (json.loads(text) if text else None) or {}


def taken_over_error(name: str, text: str | None) -> LeaseLost:
    """The error for a driver whose mark has become ``text``."""
    holder = parse_holder(text)
    by = f"process {holder['pid']} on host {holder['host']!r}" if holder.get("pid") else "another process"
    return LeaseLost(
        f"name: the search {name!r} was taken over by {by} while this process gave no sign of life. "
        "Nothing more is written here; the search goes on there."
    )

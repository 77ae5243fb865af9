"""The row of a ledger's database that names the process which drives a search.

The row is one of the study's attributes, so that Optuna and its dashboard read it. It is only ever changed by comparing
it with what it held before, in one statement, so that of several processes that try at the same moment one succeeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
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


@dataclass(frozen=True)
class LeaseHolder:
    """The process that holds a lease, as the row has it.

    Attributes:
        token: a random word that no other process has.
        beat: a number that the holder increases every few seconds to show that it is alive.
        pid: the process.
        host: name of its machine.
        boot: identifies this start of its machine (:func:`search.ledger.driver_lease.boot_id`).
    """

    token: str = ""
    beat: int = 0
    pid: int = 0
    host: str = ""
    boot: str = ""

    def to_json(self) -> str:
        """Return the text of the row."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str | None) -> LeaseHolder | None:
        """Return the holder that a row's text names; None if it names nobody."""
        known: dict[str, Any] | None = json.loads(text) if text else None
        if not known:
            return None
        # Another version may write more or fewer fields: its driver must be respected all the same.
        return cls(**{own.name: known[own.name] for own in fields(cls) if own.name in known})


class LeaseRow:
    """The row of the search ``name`` in the database at ``url``. The study is created if there is none.

    Every method raises a LedgerError if the database can't be reached.
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
        """Return the row's text, to be compared with later (:meth:`compare_and_set`); None if there is no row yet."""
        with self._translated_errors(), self._database.engine.connect() as connection:
            text: str | None = connection.execute(sql.select(self._value).where(*self._mine)).scalar()
            return text

    def compare_and_set(self, seen: str | None, holder: LeaseHolder) -> bool:
        """Write ``holder`` if the row's text is still ``seen``; return whether it was."""
        with self._translated_errors(), self._database.engine.begin() as connection:
            if seen is not None:
                return self._set(connection, self._value.is_not_distinct_from(seen), holder)
            try:
                # The unique index on (study_id, key) makes one of two simultaneous inserts fail.
                connection.execute(sql.insert(self._table), {**self._row, "value_json": holder.to_json()})
            except IntegrityError:
                return False
            return True

    def renew(self, token: str, holder: LeaseHolder | None) -> bool:
        """Write ``holder``, or that there is none, if the row still holds ``token``; return whether it did."""
        with self._translated_errors(), self._database.engine.begin() as connection:
            return self._set(connection, self._value.contains(token), holder)

    def lock(self, connection: sql.Connection, token: str) -> None:
        """Lock the row until the transaction of ``connection`` ends, and check that it holds ``token``.

        The row is updated with its own value, because a database locks an updated row until the transaction ends.
        Another process can therefore take the lease over before this transaction, which then fails here, or after
        it, but not between the check and the writes that follow. Reading the row would not lock it.

        Raises:
            LeaseLost: the row holds another token.
        """
        same = (
            sql.update(self._table)
            .where(*self._mine, self._value.contains(token))
            .values(value_json=self._value)
        )
        if connection.execute(same).rowcount != 1:
            text = connection.execute(sql.select(self._value).where(*self._mine)).scalar()
            raise lease_lost(self._name, LeaseHolder.parse(text))

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.remove_session()
        self._database.engine.dispose()

    def _set(self, connection: sql.Connection, condition: Any, holder: LeaseHolder | None) -> bool:
        text = holder.to_json() if holder is not None else json.dumps(None)
        change = sql.update(self._table).where(*self._mine, condition).values(value_json=text)
        return connection.execute(change).rowcount == 1

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            first = str(error).splitlines()[0]
            raise LedgerError(f"ledger: its database can't be read or written: {first}") from error


def lease_lost(name: str, holder: LeaseHolder | None) -> LeaseLost:
    """Return the error for a driver of the search ``name`` that finds ``holder`` in its row."""
    by = (
        f"process {holder.pid} on host {holder.host!r}"
        if holder is not None and holder.pid
        else "another process"
    )
    return LeaseLost(
        f"name: the search {name!r} was taken over by {by}, because this process did not renew its "
        "lease in time. This process stops writing; the search continues there."
    )

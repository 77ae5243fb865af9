"""Opening the database in which a ledger is kept: Optuna's tables, in a SQLite file or on a server."""

from __future__ import annotations

import random
import shlex
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from sqlalchemy.pool import NullPool

from search.ledger.buffered_storage import BufferedStorage
from search.ledger.optuna_tables import Fence, has_schema
from search.records.formatting import without_secrets
from search.records.metrics import Direction
from trainables.errors import LedgerError

TABLE_ATTEMPTS = 4
"""How often to try to make the tables of a new database, where others may be making them too."""

CONNECT_ARGS = {
    "postgresql": {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
    }
}
"""Seconds (the last in milliseconds) after which a server that answers nothing counts as away, not as slow."""


def sqlite_url(path: Path) -> str:
    """SQLAlchemy URL of a SQLite file whose path may hold any character."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def open_for_writing(
    url: str, name: str, directions: Sequence[Direction], fence: Fence | None = None
) -> tuple[optuna.Study, BufferedStorage]:
    """The study ``name``, begun if there is none, and the storage through which its driver writes it.

    ``fence`` is called with the connection first in each transaction, and keeps it from writing by an error.

    Raises:
        LedgerError: the database can't be opened.
    """
    database = open_or_create_study(url, name, directions)
    with _opening(url, name):
        storage = BufferedStorage(database, fence)
        return optuna.load_study(storage=storage, study_name=name), storage


def open_or_create_study(url: str, name: str, directions: Sequence[Direction]) -> optuna.storages.RDBStorage:
    """The database, in which the study ``name`` is begun if there is none.

    Raises:
        LedgerError: the database can't be opened.
    """
    with _opening(url, name):
        database = _with_tables(url)
        optuna.create_study(
            storage=database, study_name=name, directions=list(directions), load_if_exists=True
        )
        return database


def open_for_reading(url: str, name: str) -> optuna.Study:
    """The study ``name`` as it is now, to be read only.

    Raises:
        LedgerError: the database can't be opened, or has no such study.
    """
    with _opening(url, name):
        _expect_tables(url, name)
        database = _storage(url, passing=True, skip_compatibility_check=True, skip_table_creation=True)
        return optuna.load_study(storage=database, study_name=name)


def set_objective_names(study: optuna.Study, names: Sequence[str]) -> None:
    """Have other people's tools call the objectives by their names; those that have names keep them."""
    if study.metric_names is None and len(names) == len(study.directions):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(names))


def has_study(url: str, name: str) -> bool:
    """Whether there is a study ``name``.

    Raises:
        LedgerError: the database can't be opened.
    """
    with _opening(url, name):
        return name in optuna.get_all_study_names(_with_tables(url, passing=True))


def rename_study(url: str, name: str, new_name: str) -> bool:
    """Give a study another name: it is copied whole before the old one goes. False if there is none.

    Raises:
        LedgerError: the database can't be opened.
    """
    with _opening(url, name):
        storage = _with_tables(url, passing=True)
        if name not in optuna.get_all_study_names(storage):
            return False
        optuna.copy_study(
            from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=new_name
        )
        optuna.delete_study(study_name=name, storage=storage)
    return True


_DRIVER_MISSING = ". Install its driver with: pip install 'unfreeze[postgresql]'"


def _storage(url: str, passing: bool = False, **options: Any) -> optuna.storages.RDBStorage:
    """``passing``: no connection stays open between two reads, so that whoever looks again and again uses none up."""
    kind = url.partition(":")[0].partition("+")[0]
    engine: dict[str, Any] = {"poolclass": NullPool} if passing else {}
    if kind in CONNECT_ARGS:
        engine["connect_args"] = CONNECT_ARGS[kind]
    return optuna.storages.RDBStorage(url, engine_kwargs=engine, **options)


@contextmanager
def _opening(url: str, name: str) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except KeyError:
        raise LedgerError(f"name: expected a search that was begun, received {name!r}") from None
    except RuntimeError as error:
        if "table schema" not in str(error):
            raise
        raise LedgerError(
            f"ledger: {without_secrets(url)!r} was made by another version of Optuna. To bring it up to date, make a "
            f"copy of it and run: optuna storage upgrade --storage {shlex.quote(without_secrets(url))}"
        ) from error
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        first = without_secrets((str(error.__cause__ or error).splitlines() or [type(error).__name__])[0])
        raise LedgerError(
            f"ledger: expected a database that can be opened, received {without_secrets(url)!r}: {first}"
            + (_DRIVER_MISSING if isinstance(error, ImportError) and url.startswith("postgresql") else "")
        ) from error


def _expect_tables(url: str, name: str) -> None:
    """Make sure that the search has made its tables.

    A reader must not open the database before that: Optuna would make tables there, although the reader may not write.

    Raises:
        LedgerError: they are not all there yet.
    """
    from sqlalchemy import create_engine

    engine = create_engine(url)
    try:
        ready = has_schema(engine)
    finally:
        engine.dispose()
    if not ready:
        raise LedgerError(f"name: expected a search that was begun, received {name!r}")


def _with_tables(url: str, passing: bool = False) -> optuna.storages.RDBStorage:
    """Several searches may begin in one new database at once: who comes second finds the tables made."""
    from sqlalchemy.exc import DatabaseError, IntegrityError

    for _ in range(TABLE_ATTEMPTS - 1):
        try:
            return _storage(url, passing)
        except DatabaseError as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(random.uniform(0.05, 0.5))
    return _storage(url, passing)

"""Opens the database that holds a ledger: Optuna's tables, in a SQLite file or on a server."""

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
"""How often to try to make the tables of a new database, which other searches may be making at the same moment."""

CONNECT_ARGS = {
    "postgresql": {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 25_000,
    }
}
"""Arguments of the database driver, by the kind of database. They give the time after which a server that does not
answer counts as unreachable, in seconds (``tcp_user_timeout`` in milliseconds). By default it would be many minutes, in
which a search would neither continue nor report anything."""


def sqlite_url(path: Path) -> str:
    """Return the SQLAlchemy URL of a SQLite file. Its path may contain any character."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def open_for_writing(
    url: str, name: str, directions: Sequence[Direction], fence: Fence | None = None
) -> tuple[optuna.Study, BufferedStorage]:
    """Open the study ``name`` for its driver. It is created if there is none.

    Args:
        url: SQLAlchemy URL of the database.
        name: of the study.
        directions: of the objectives, for a new study.
        fence: called first in each transaction (:data:`search.ledger.optuna_tables.Fence`).

    Returns:
        The study, and the storage through which it is written.

    Raises:
        LedgerError: the database can't be opened.
    """
    database = open_or_create_study(url, name, directions)
    with _translated_errors(url, name):
        storage = BufferedStorage(database, fence)
        return optuna.load_study(storage=storage, study_name=name), storage


def open_or_create_study(url: str, name: str, directions: Sequence[Direction]) -> optuna.storages.RDBStorage:
    """Open the database, and create the study ``name`` in it if there is none.

    Raises:
        LedgerError: the database can't be opened.
    """
    with _translated_errors(url, name):
        database = _with_tables(url)
        optuna.create_study(
            storage=database, study_name=name, directions=list(directions), load_if_exists=True
        )
        return database


def open_for_reading(url: str, name: str) -> optuna.Study:
    """Open the study ``name`` to read it. Nothing is written, not even tables.

    Raises:
        LedgerError: the database can't be opened, or has no such study.
    """
    with _translated_errors(url, name):
        _expect_tables(url, name)
        database = _storage(url, pooled=False, skip_compatibility_check=True, skip_table_creation=True)
        return optuna.load_study(storage=database, study_name=name)


def set_objective_names(study: optuna.Study, names: Sequence[str]) -> None:
    """Give the objectives names, which Optuna's dashboard and other tools show. Objectives that have names keep
    them."""
    if study.metric_names is None and len(names) == len(study.directions):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(list(names))


def has_study(url: str, name: str) -> bool:
    """Return whether there is a study ``name``.

    Raises:
        LedgerError: the database can't be opened.
    """
    with _translated_errors(url, name):
        return name in optuna.get_all_study_names(_with_tables(url, pooled=False))


def rename_study(url: str, name: str, new_name: str) -> bool:
    """Give a study another name; return False if there is no such study.

    Optuna can't rename a study, so it is copied first and deleted then: a process that is killed in between leaves two
    studies and loses none.

    Raises:
        LedgerError: the database can't be opened.
    """
    with _translated_errors(url, name):
        storage = _with_tables(url, pooled=False)
        if name not in optuna.get_all_study_names(storage):
            return False
        optuna.copy_study(
            from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=new_name
        )
        optuna.delete_study(study_name=name, storage=storage)
    return True


_DRIVER_MISSING = ". Install its driver with: pip install 'unfreeze[postgresql]'"


def _storage(url: str, pooled: bool = True, **options: Any) -> optuna.storages.RDBStorage:
    """Optuna's storage. Unless it is ``pooled``, no connection stays open between two reads.

    A process that watches a search opens it again and again. With a pool each time, it would use up all connections
    that the server allows.
    """
    kind = url.partition(":")[0].partition("+")[0]
    engine: dict[str, Any] = {} if pooled else {"poolclass": NullPool}
    if kind in CONNECT_ARGS:
        engine["connect_args"] = CONNECT_ARGS[kind]
    return optuna.storages.RDBStorage(url, engine_kwargs=engine, **options)


@contextmanager
def _translated_errors(url: str, name: str) -> Iterator[None]:
    """Raise errors of Optuna and SQLAlchemy as a LedgerError, without the password that a URL may contain."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except KeyError:  # Optuna's way to say that there is no such study
        raise LedgerError(f"name: expected a search that was begun, received {name!r}") from None
    except RuntimeError as error:
        # Optuna raises a plain RuntimeError here: only its words tell it from others.
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


def _with_tables(url: str, pooled: bool = True) -> optuna.storages.RDBStorage:
    """Optuna's storage, whose tables are made if there are none.

    Several searches may be started at the same moment with one new database. Each of them finds no tables and makes
    them; for all but the first this fails. They wait for a moment, a random one so that they don't collide again, and
    then find the tables.
    """
    from sqlalchemy.exc import DatabaseError, IntegrityError

    for _ in range(TABLE_ATTEMPTS - 1):
        try:
            return _storage(url, pooled)
        except DatabaseError as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(random.uniform(0.05, 0.5))
    return _storage(url, pooled)

"""Writes studies and trials into Optuna's database tables, many rows with one statement.

This is the only module that uses the private table models of Optuna (``optuna.storages._rdb.models``). Optuna's public
storage commits each parameter, attribute and value in a transaction of its own; a search with many short trials would
spend most of its time on that. :func:`optuna_tables` checks that the installed version has the tables that are written
here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any

import sqlalchemy as sql
from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.dialects import mysql, postgresql, sqlite

from trainables.errors import LedgerError
from trainables.private_api import TESTED_VERSIONS, expect_private_api, missing_parameters

MODELS = "optuna.storages._rdb.models"

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "TrialModel": ("trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"),
    "TrialParamModel": ("trial_id", "param_name", "param_value", "distribution_json"),
    "TrialUserAttributeModel": ("trial_id", "key", "value_json"),
    "TrialSystemAttributeModel": ("trial_id", "key", "value_json"),
    "TrialIntermediateValueModel": ("trial_id", "step", "intermediate_value", "intermediate_value_type"),
    "TrialValueModel": ("trial_id", "objective", "value", "value_type"),
    "StudyUserAttributeModel": ("study_id", "key", "value_json"),
    "StudySystemAttributeModel": ("study_id", "key", "value_json"),
}
"""The columns that are read or written here, by Optuna's model class, in the order of the fields of OptunaTables. Each
table also has a primary key that the database fills in."""

STORED_FORMS: Mapping[str, tuple[str, str]] = {
    "TrialValueModel": ("value_to_stored_repr", "value"),
    "TrialIntermediateValueModel": ("intermediate_value_to_stored_repr", "value"),
}
"""The functions by which Optuna splits a float into a finite number and its kind (finite, NaN, ±∞), with their
parameter."""

SCHEMA_TABLE = "alembic_version"
"""Holds the revision of the schema. Optuna writes it last when it makes the tables of a new database."""

Row = dict[str, Any]
"""Values by column, the form in which SQLAlchemy takes the parameters of a statement."""

StoredForm = Callable[[float], tuple[float | None, Any]]

Fence = Callable[[sql.Connection], None]
"""Called first in each transaction. It raises an error where this process may not write
(:meth:`search.ledger.driver_lease.Lease.fence`)."""


@dataclass(frozen=True)
class OptunaTables:
    """Optuna's tables, and the functions that give the stored form of a float.

    The attributes are named after what a table holds. ``stored_value`` and ``stored_intermediate_value`` return the
    number for the column and its kind.
    """

    trials: sql.Table
    params: sql.Table
    user_attributes: sql.Table
    system_attributes: sql.Table
    intermediate_values: sql.Table
    values: sql.Table
    study_user_attributes: sql.Table
    study_system_attributes: sql.Table
    stored_value: StoredForm
    stored_intermediate_value: StoredForm

    def natural_key(self, table: sql.Table) -> list[str]:
        """Return the columns of a unique index of ``table``, by which a row that is written again is found and
        replaced.

        Not for ``trials``: their rows are inserted once and then updated by their primary key.
        """
        return {
            self.params: ["trial_id", "param_name"],
            self.user_attributes: ["trial_id", "key"],
            self.system_attributes: ["trial_id", "key"],
            self.intermediate_values: ["trial_id", "step"],
            self.values: ["trial_id", "objective"],
            self.study_user_attributes: ["study_id", "key"],
            self.study_system_attributes: ["study_id", "key"],
        }[table]


@cache
def optuna_tables() -> OptunaTables:
    """Optuna's tables, checked.

    Raises:
        SearchError: the installed version of Optuna has other tables; the message names the version to install.
    """
    tested = TESTED_VERSIONS["optuna"]
    expect_private_api("optuna", tested, "writes the ledger into Optuna's tables", missing_tables(_models()))
    models = _models()
    tables = [getattr(models, name).__table__ for name in COLUMNS]
    forms = [getattr(getattr(models, name), function) for name, (function, _) in STORED_FORMS.items()]
    return OptunaTables(*tables, *forms)


def missing_tables(models: Any) -> list[str]:
    """Return the tables, columns and functions used here that ``models`` lacks or has in another form; empty if it has
    all.
    """
    missing = []
    for name, columns in COLUMNS.items():
        table = getattr(getattr(models, name, None), "__table__", None)
        if table is None:
            missing.append(f"{MODELS}.{name}")
            continue
        missing += [f"{MODELS}.{name}.{column}" for column in columns if column not in table.c]
        # Inserting without a column that must have a value would fail in the middle of a search.
        required = [
            c.name for c in table.c if not (c.nullable or c.primary_key or c.default or c.server_default)
        ]
        missing += [f"{MODELS}.{name} without {column}" for column in required if column not in columns]
    for name, (function, parameter) in STORED_FORMS.items():
        model = getattr(models, name, None)
        missing += missing_parameters(
            getattr(model, function, None), f"{MODELS}.{name}.{function}", parameter
        )
    return missing


def has_schema(engine: sql.Engine) -> bool:
    """Return whether Optuna has made all its tables in the database of ``engine``."""
    with engine.connect() as connection:
        if not sql.inspect(connection).has_table(SCHEMA_TABLE):
            return False
        revision = sql.Table(SCHEMA_TABLE, sql.MetaData(), autoload_with=connection)
        return connection.execute(sql.select(revision)).first() is not None


@dataclass
class PendingChange:
    """What of a trial is not in the database yet.

    Attributes:
        state: whether its state, and with it its times and values, has changed.
        params, user, system: the names of new parameters, user attributes and system attributes.
        steps: the steps of new intermediate values.
    """

    state: bool = False
    params: set[str] = field(default_factory=set)
    user: set[str] = field(default_factory=set)
    system: set[str] = field(default_factory=set)
    steps: set[int] = field(default_factory=set)


class StudyTables:
    """The rows of one study and its trials.

    Args:
        database: Optuna's storage of the database; its tables are made.
        study_id: the study's key in the database.
        fence: called first in each transaction.
    """

    def __init__(self, database: RDBStorage, study_id: int, fence: Fence | None = None) -> None:
        self._database, self._study_id, self._fence = database, study_id, fence
        self._tables = optuna_tables()
        trials = self._tables.trials
        rows = sql.select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study_id)
        with database.engine.connect() as connection:
            self._trial_ids: dict[int, int] = {row.number: row.trial_id for row in connection.execute(rows)}
        self._connection: sql.Connection | None = None

    @property
    def study_id(self) -> int:
        """The study's key in the database."""
        return self._study_id

    def write(self, changes: Sequence[tuple[FrozenTrial, PendingChange]], retrying: bool) -> None:
        """Write all changes in one transaction.

        Args:
            changes: trials as they are now, with what has changed of them.
            retrying: whether an earlier attempt failed. It may have been committed all the same, if the connection
                broke before the answer came.
        """
        try:
            self._write(changes, retrying)
        except Exception:
            self.close()  # the connection may be broken; the next attempt opens another one
            raise

    def write_study_attribute(self, key: str, value: Any, system: bool = False) -> None:
        """Write one of the study's own attributes."""
        tables = self._tables
        table = tables.study_system_attributes if system else tables.study_user_attributes
        row = {"study_id": self._study_id, "key": key, "value_json": json.dumps(value)}
        with self._database.engine.begin() as connection:
            self._check_fence(connection)
            connection.execute(_upsert(table, connection.dialect.name), [row])

    def close(self) -> None:
        """Close the connection until the next write."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the open connection and Optuna's tables; a copy in another process opens and finds its own."""
        state = {key: value for key, value in vars(self).items() if key != "_tables"}
        return {**state, "_connection": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`__getstate__` returned."""
        vars(self).update(state)
        self._tables = optuna_tables()

    def _check_fence(self, connection: sql.Connection) -> None:
        if self._fence is not None:
            self._fence(connection)

    def _write(self, changes: Sequence[tuple[FrozenTrial, PendingChange]], retrying: bool) -> None:
        # One connection stays open while trials run: opening one for each epoch would cost more than the write itself.
        connection = self._connection = self._connection or self._database.engine.connect()
        with connection.begin():
            self._check_fence(connection)
            new = [trial for trial, _ in changes if trial.number not in self._trial_ids]
            inserted = {trial.number: self._insert(connection, trial, retrying) for trial in new}
            known = self._trial_ids
            keys = {
                t.number: known[t.number] if t.number in known else inserted[t.number] for t, _ in changes
            }
            for table, rows in self._rows(changes, keys).items():
                connection.execute(_upsert(table, connection.dialect.name), rows)
            # A row that was inserted above has its state already. If an earlier attempt inserted it, that
            # attempt wrote the same state.
            states = [
                {"key": keys[trial.number], **_state(trial)}
                for trial, change in changes
                if change.state and trial.number not in inserted
            ]
            if states:
                connection.execute(_update_state(), states)
        # Only now: after a rollback the rows are not there, and the trials must be inserted again.
        self._trial_ids.update(inserted)

    def _insert(self, connection: sql.Connection, trial: FrozenTrial, retrying: bool) -> int:
        trials = self._tables.trials
        if retrying:
            mine = (trials.c.study_id == self._study_id, trials.c.number == trial.number)
            found: int | None = connection.execute(sql.select(trials.c.trial_id).where(*mine)).scalar()
            if found is not None:  # an earlier attempt was committed: a second row would be a second trial
                return found
        values = {"study_id": self._study_id, "number": trial.number, **_state(trial)}
        key = connection.execute(sql.insert(trials), values).inserted_primary_key
        if key is None:
            raise LedgerError(f"ledger: the database returned no key for the row of trial {trial.number}")
        return int(key[0])

    def _rows(
        self, changes: Iterable[tuple[FrozenTrial, PendingChange]], keys: Mapping[int, int]
    ) -> dict[sql.Table, list[Row]]:
        """Return the rows to write into each table, apart from that of the trials."""
        tables = self._tables
        rows: dict[sql.Table, list[Row]] = {}
        for trial, change in changes:
            key = {"trial_id": keys[trial.number]}
            for name in change.params:
                rows.setdefault(tables.params, []).append({**key, **_param(trial, name)})
            for table, names, attributes in (
                (tables.user_attributes, change.user, trial.user_attrs),
                (tables.system_attributes, change.system, trial.system_attrs),
            ):
                for name in names:
                    row = {**key, "key": name, "value_json": json.dumps(attributes[name])}
                    rows.setdefault(table, []).append(row)
            for step in change.steps:
                stored, kind = tables.stored_intermediate_value(trial.intermediate_values[step])
                row = {**key, "step": step, "intermediate_value": stored, "intermediate_value_type": kind}
                rows.setdefault(tables.intermediate_values, []).append(row)
            for objective, value in enumerate(trial.values or () if change.state else ()):
                stored, kind = tables.stored_value(value)
                row = {**key, "objective": objective, "value": stored, "value_type": kind}
                rows.setdefault(tables.values, []).append(row)
        return rows


def _models() -> Any:
    try:
        return import_module(MODELS)
    except ImportError:
        return None


@cache  # building a statement takes longer than executing it
def _update_state() -> sql.Update:
    trials = optuna_tables().trials
    columns = ("state", "datetime_start", "datetime_complete")
    values: dict[str, Any] = {name: sql.bindparam(name) for name in columns}
    return sql.update(trials).where(trials.c.trial_id == sql.bindparam("key")).values(values)


@cache
def _upsert(table: sql.Table, dialect: str) -> Any:
    """Return a statement that inserts rows, or replaces those with the same natural key.

    Its syntax differs between databases.
    """
    names = optuna_tables().natural_key(table)
    changed = [c.name for c in table.c if not c.primary_key and c.name not in names]
    if dialect in ("mysql", "mariadb"):
        row = mysql.insert(table)
        return row.on_duplicate_key_update({name: row.inserted[name] for name in changed})
    into: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    values = {name: into.excluded[name] for name in changed}
    return into.on_conflict_do_update(index_elements=names, set_=values)


def _param(trial: FrozenTrial, name: str) -> Row:
    distribution = trial.distributions[name]
    return {
        "param_name": name,
        "param_value": distribution.to_internal_repr(trial.params[name]),
        "distribution_json": distribution_to_json(distribution),
    }


def _state(trial: FrozenTrial) -> Row:
    return {
        "state": trial.state,
        "datetime_start": _naive_utc(trial.datetime_start),
        "datetime_complete": _naive_utc(trial.datetime_complete),
    }


def _naive_utc(moment: datetime | None) -> datetime | None:
    """Optuna's trials have local times and its tables UTC, both without a time zone."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment else None

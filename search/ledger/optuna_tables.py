"""Writes a study and its trials into Optuna's tables, many rows at a time: the ledger's only writer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sql
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy.dialects import mysql, postgresql, sqlite

from trainables.errors import LedgerError

Row = dict[str, Any]

Fence = Callable[[sql.Connection], None]
"""Asked at the beginning of a transaction; raises an error where this process must not write."""


@dataclass
class PendingChange:
    """What of a trial is not in the database yet: its state and value; parameters, attributes and epochs by name."""

    state: bool = False
    params: set[str] = field(default_factory=set)
    user: set[str] = field(default_factory=set)
    system: set[str] = field(default_factory=set)
    steps: set[int] = field(default_factory=set)


class StudyTables:
    """The rows of one study and its trials. ``known`` maps the numbers of trials that have a row to its key."""

    def __init__(
        self, engine: sql.Engine, study: int, known: Mapping[int, int], fence: Fence | None = None
    ) -> None:
        self._engine, self._study = engine, study
        self._fence = fence or (lambda connection: None)
        self._keys = dict(known)
        self._puts: dict[str, Any] = {}
        self._connection: sql.Connection | None = None

    def write(self, changes: Sequence[tuple[FrozenTrial, PendingChange]], again: bool) -> None:
        """Write all in one transaction; ``again``: an earlier try may have been written after all."""
        try:
            self._write(changes, again)
        except Exception:
            self.close()
            raise

    def write_study_attribute(self, key: str, value: Any, system: bool = False) -> None:
        """Write one of the study's own attributes."""
        row = {"study_id": self._study, "key": key, "value_json": json.dumps(value)}
        with self._engine.begin() as connection:
            self._fence(connection)
            connection.execute(self._put(_STUDY_SYSTEM if system else _STUDY_USER), [row])

    def close(self) -> None:
        """Let go of the database until the next write."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write(self, changes: Sequence[tuple[FrozenTrial, PendingChange]], again: bool) -> None:
        connection = self._connection = self._connection or self._engine.connect()
        with connection.begin():
            self._fence(connection)
            new = [trial for trial, _ in changes if trial.number not in self._keys]
            keys = {trial.number: self._insert(connection, trial, again) for trial in new}
            known = {trial.number: self._keys.get(trial.number) or keys[trial.number] for trial, _ in changes}
            for table, rows in _rows(changes, known).items():
                connection.execute(self._put(table), rows)
            ended = [
                {"key": known[t.number], **_state(t)} for t, c in changes if c.state and t.number not in keys
            ]
            if ended:
                connection.execute(_UPDATE, ended)
        self._keys.update(keys)

    def _insert(self, connection: sql.Connection, trial: FrozenTrial, again: bool) -> int:
        columns = _TRIALS.c
        if again:
            mine = (columns.study_id == self._study, columns.number == trial.number)
            found: int | None = connection.execute(sql.select(columns.trial_id).where(*mine)).scalar()
            if found is not None:
                return found
        values = {"study_id": self._study, "number": trial.number, **_state(trial)}
        key = connection.execute(sql.insert(_TRIALS), values).inserted_primary_key
        if key is None:
            raise LedgerError(f"ledger: the database gave trial {trial.number} no key")
        return int(key[0])

    def _put(self, table: sql.Table) -> Any:
        """Insert rows, or replace what is there under the same names."""
        if table.name not in self._puts:
            names, dialect = _NAMES[table], self._engine.dialect.name
            changed = [c.name for c in table.c if not c.primary_key and c.name not in names]
            if dialect in ("mysql", "mariadb"):
                row = mysql.insert(table)
                put: Any = row.on_duplicate_key_update({name: row.inserted[name] for name in changed})
            else:
                into: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
                values = {name: into.excluded[name] for name in changed}
                put = into.on_conflict_do_update(index_elements=names, set_=values)
            self._puts[table.name] = put
        return self._puts[table.name]


def _rows(
    changes: Iterable[tuple[FrozenTrial, PendingChange]], keys: Mapping[int, int]
) -> dict[sql.Table, list[Row]]:
    """What to put into which table."""
    rows: dict[sql.Table, list[Row]] = {}
    for trial, change in changes:
        of_trial = {"trial_id": keys[trial.number]}
        for name in change.params:
            rows.setdefault(_PARAMS, []).append({**of_trial, **_param(trial, name)})
        for table, names, attrs in (
            (_USER, change.user, trial.user_attrs),
            (_SYSTEM, change.system, trial.system_attrs),
        ):
            for name in names:
                row = {**of_trial, "key": name, "value_json": json.dumps(attrs[name])}
                rows.setdefault(table, []).append(row)
        for step in change.steps:
            rows.setdefault(_STEPS, []).append({**of_trial, **_step(trial, step)})
        for objective, value in enumerate(trial.values or () if change.state else ()):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            row = {**of_trial, "objective": objective, "value": stored, "value_type": kind}
            rows.setdefault(_VALUES, []).append(row)
    return rows


def _param(trial: FrozenTrial, name: str) -> Row:
    distribution = trial.distributions[name]
    return {
        "param_name": name,
        "param_value": distribution.to_internal_repr(trial.params[name]),
        "distribution_json": distribution_to_json(distribution),
    }


def _step(trial: FrozenTrial, step: int) -> Row:
    value = trial.intermediate_values[step]
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"step": step, "intermediate_value": stored, "intermediate_value_type": kind}


def _state(trial: FrozenTrial) -> Row:
    return {
        "state": trial.state,
        "datetime_start": _naive_utc(trial.datetime_start),
        "datetime_complete": _naive_utc(trial.datetime_complete),
    }


def _naive_utc(moment: datetime | None) -> datetime | None:
    """Optuna's trials have local times, its tables UTC; neither says so."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment else None


def _table(model: Any) -> sql.Table:
    table: sql.Table = model.__table__
    return table


_TRIALS = _table(models.TrialModel)
_PARAMS = _table(models.TrialParamModel)
_USER = _table(models.TrialUserAttributeModel)
_SYSTEM = _table(models.TrialSystemAttributeModel)
_STEPS = _table(models.TrialIntermediateValueModel)
_VALUES = _table(models.TrialValueModel)
_STUDY_USER = _table(models.StudyUserAttributeModel)
_STUDY_SYSTEM = _table(models.StudySystemAttributeModel)
_NAMES = {
    _STUDY_USER: ["study_id", "key"],
    _STUDY_SYSTEM: ["study_id", "key"],
    _PARAMS: ["trial_id", "param_name"],
    _USER: ["trial_id", "key"],
    _SYSTEM: ["trial_id", "key"],
    _STEPS: ["trial_id", "step"],
    _VALUES: ["trial_id", "objective"],
}
_UPDATE = (
    sql.update(_TRIALS)
    .where(_TRIALS.c.trial_id == sql.bindparam("key"))
    .values({name: sql.bindparam(name) for name in ("state", "datetime_start", "datetime_complete")})
)

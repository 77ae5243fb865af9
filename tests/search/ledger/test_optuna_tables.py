"""Test that the installed Optuna has the private tables in which the ledger writes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sql
from optuna.storages._rdb import models

from search.ledger import optuna_tables as module
from search.ledger.optuna_tables import COLUMNS, STORED_FORMS, missing_tables, optuna_tables
from trainables.errors import SearchError


def test_the_installed_optuna_has_the_tables_that_the_ledger_writes() -> None:
    assert missing_tables(models) == []
    for name, columns in COLUMNS.items():
        table = getattr(models, name).__table__
        own_key = {column.name for column in table.primary_key}
        assert {column.name for column in table.c} == {*columns} | own_key, name


def test_rows_are_replaced_by_a_unique_index_of_their_table() -> None:
    tables = optuna_tables()
    for table in vars(tables).values():
        if isinstance(table, sql.Table) and table is not tables.trials:
            unique = [
                {column.name for column in constraint.columns}
                for constraint in table.constraints
                if isinstance(constraint, sql.UniqueConstraint)
            ]
            assert set(tables.natural_key(table)) in unique, table.name


def test_floats_are_stored_as_a_finite_number_and_a_kind() -> None:
    tables = optuna_tables()
    for stored in (tables.stored_value, tables.stored_intermediate_value):
        assert stored(0.5)[0] == 0.5
        kinds = {stored(value)[1].name for value in (0.5, float("inf"), float("-inf"))}
        assert kinds == {"FINITE", "INF_POS", "INF_NEG"}
    assert tables.stored_intermediate_value(float("nan"))[1].name == "NAN"


def test_three_modules_alone_use_private_api_of_optuna() -> None:
    root = Path(module.__file__).parents[1]
    private = re.compile(
        r"optuna[\w.]*\._[a-z]|\._(get_trials|random_sampler|sample_relative|trial_id|study_id)\b"
    )
    users = {path.name for path in root.rglob("*.py") if private.search(path.read_text(encoding="utf-8"))}
    assert users == {"optuna_tables.py", "reference_trials.py", "tpe.py"}


@pytest.fixture
def changed() -> SimpleNamespace:
    """Optuna's models, to be changed by a test."""
    return SimpleNamespace(**{name: getattr(models, name) for name in COLUMNS})


def table(*columns: sql.Column[Any]) -> Any:
    return SimpleNamespace(__table__=sql.Table("t", sql.MetaData(), *columns))


def test_a_table_or_column_that_is_gone_or_new_is_reported(changed: SimpleNamespace) -> None:
    del changed.TrialParamModel
    changed.StudyUserAttributeModel = table(
        sql.Column("study_id", sql.Integer),
        sql.Column("key", sql.String),
        sql.Column("workspace", sql.String, nullable=False),
    )
    changed.TrialValueModel = SimpleNamespace(__table__=models.TrialValueModel.__table__)
    prefix = "optuna.storages._rdb.models"
    assert missing_tables(changed) == [
        f"{prefix}.TrialParamModel",
        f"{prefix}.StudyUserAttributeModel.value_json",
        f"{prefix}.StudyUserAttributeModel without workspace",
        f"{prefix}.TrialValueModel.value_to_stored_repr",
    ]
    assert len(missing_tables(None)) == len(COLUMNS) + len(STORED_FORMS)


def test_another_optuna_is_refused_before_anything_is_written(
    changed: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    del changed.TrialModel
    monkeypatch.setattr(module, "_models", lambda: changed)
    optuna_tables.cache_clear()
    try:
        with pytest.raises(SearchError, match=r"optuna: expected one of .*TrialModel.*pip install 'optuna=="):
            optuna_tables()
    finally:
        optuna_tables.cache_clear()

"""Test the driver's storage with Optuna's conformance tests of storages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sql
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState

from search.ledger.buffered_storage import BufferedStorage
from search.ledger.database import sqlite_url
from trainables.errors import LedgerError

Open = Callable[[], RDBStorage]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with Optuna's tables. To copy it is faster than to make the tables for each test."""
    path = tmp_path_factory.mktemp("empty") / "ledger.db"
    RDBStorage(sqlite_url(path)).engine.dispose()
    return path


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Open:
    """Opens the same database with each call, as another process would."""
    path = shutil.copy(empty_database, tmp_path / "ledger ü.db")
    return lambda: RDBStorage(sqlite_url(Path(path)))


class WrittenStorage(BufferedStorage):
    """Whenever trials are read, asserts that Optuna's storage reads the same trials from the database."""

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = super().get_all_trials(study_id, deepcopy, states)
        self.flush()
        there = RDBStorage(self._database.url)
        key = there.get_study_id_from_name(self.get_study_name_from_id(study_id))
        written = there.get_all_trials(key, states=states)
        assert [content(trial) for trial in written] == [content(trial) for trial in found]
        there.engine.dispose()
        return found


def content(trial: FrozenTrial) -> dict[str, str]:
    """Everything of a trial except its key, which each storage chooses. As text, because NaN equals nothing."""
    own = {name: value for name, value in vars(trial).items() if name != "_trial_id"}
    return {name: as_text(value) for name, value in own.items()}


def as_text(value: object) -> str:
    if isinstance(value, dict):
        return repr(sorted((name, as_text(entry)) for name, entry in value.items()))
    if isinstance(value, list):
        return repr(list(map(as_text, value)))
    return repr(float(value) if isinstance(value, int) else value)  # the database has floats only


class TestBufferedStorage(StorageTestCase):
    """Optuna's conformance tests; the trials in memory are compared with those that another process would read."""

    @pytest.fixture
    def storage(self, database: Open) -> BufferedStorage:
        return WrittenStorage(database())


def test_trials_of_several_studies_are_written_into_their_own_study(database: Open) -> None:
    storage = BufferedStorage(database())
    for name in ("first", "second"):
        study_id = storage.create_new_study([StudyDirection.MINIMIZE], name)
        for value in (0.25, 0.5)[: 1 + (name == "second")]:
            trial_id = storage.create_new_trial(study_id)
            storage.set_trial_param(trial_id, "x", value, FloatDistribution(0, 1))
    storage.flush()
    read = {
        name: [trial.params for trial in optuna.load_study(storage=database(), study_name=name).trials]
        for name in ("first", "second")
    }
    assert read == {"first": [{"x": 0.25}], "second": [{"x": 0.25}, {"x": 0.5}]}


def test_nothing_is_written_before_a_flush_and_everything_with_it(database: Open) -> None:
    storage = BufferedStorage(database())
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    trial_id = storage.create_new_trial(study_id)
    storage.set_trial_intermediate_value(trial_id, 3, float("nan"))
    assert optuna.load_study(storage=database(), study_name="s").trials == []
    storage.flush()
    again = BufferedStorage(database())
    (trial,) = again.get_all_trials(again.get_study_id_from_name("s"))
    assert repr(trial.intermediate_values) == "{3: nan}"


def test_trials_that_another_program_has_numbered_are_refused(database: Open) -> None:
    storage = BufferedStorage(database())
    study_id = storage.create_new_study([StudyDirection.MINIMIZE], "s")
    for _ in range(3):
        storage.create_new_trial(study_id)
    storage.flush()
    with database().engine.begin() as connection:
        connection.execute(sql.text("UPDATE trials SET number = 7 WHERE number = 1"))
    with pytest.raises(LedgerError, match="received trial 2 in the place of trial 1"):
        BufferedStorage(database()).get_study_id_from_name("s")

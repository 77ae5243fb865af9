"""A storage for Optuna that reads from memory and writes what belongs together in one transaction.

Optuna's own storage for databases commits each parameter, attribute and value by itself, and queries the database for
every trial that it reads. Only the driver of a search writes its trials, so it may keep them in memory and write
several changes at once. The tables are Optuna's, so that Optuna and its dashboard read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.ledger.database_retry import DatabaseRetry
from search.ledger.optuna_tables import Fence, PendingChange, StudyTables
from search.ledger.sqlite_wal import wal_mode
from trainables.errors import LedgerError


class BufferedStorage(InMemoryStorage):
    """The studies of ``database``, each loaded into memory when it is first requested by its name.

    Changes of trials reach the database with the next :meth:`flush`. Attributes of a study are read and written in the
    database at once, because other processes watch them. For the trials of a study this process must be the only
    writer: what another process writes after the study was read is neither seen nor overwritten.

    Identifiers of studies and trials are those of :class:`optuna.storages.InMemoryStorage`, not the keys of the
    database. The class may be used from one thread at a time.

    Args:
        database: Optuna's storage of the database; its tables are made.
        fence: called first in each transaction.
    """

    def __init__(self, database: RDBStorage, fence: Fence | None = None) -> None:
        super().__init__()
        self._database, self._fence = database, fence
        self._retry = DatabaseRetry(database.engine)
        self._tables: dict[int, StudyTables] = {}
        self._study_of_trial: dict[int, int] = {}
        self._pending: dict[int, PendingChange] = {}

    def flush(self) -> None:
        """Write everything that has changed, in one transaction for each study.

        While the database is unreachable this waits, for a minute unless the user has set another time.

        Raises:
            LedgerError: nothing of a study was written. Its changes are kept and written with the next flush.
        """
        for study_id in self._tables:
            keys = [key for key in self._pending if self._study_of_trial[key] == study_id]
            if keys:
                self._flush(self._tables[study_id], keys)

    @contextmanager
    def wal_mode(self) -> Iterator[None]:
        """Keep a write-ahead log for a SQLite file meanwhile, so that a commit need not wait for the disk."""
        self._close()  # SQLite changes its mode only while no other connection is open
        with wal_mode(self._database.engine):
            try:
                yield
            finally:
                self._close()

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """Create the study in the database and in memory."""
        key = self._database.create_new_study(directions, study_name)
        return self._load(self._database.get_study_name_from_id(key))

    def delete_study(self, study_id: int) -> None:
        """Delete the study, with its trials, in the database and in memory."""
        tables = self._tables.pop(study_id)
        tables.close()
        self._database.delete_study(tables.study_id)
        super().delete_study(study_id)
        for key in [key for key, study in self._study_of_trial.items() if study == study_id]:
            del self._study_of_trial[key]
            self._pending.pop(key, None)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return the study's identifier; read the study from the database the first time.

        Raises:
            KeyError: there is no such study.
            LedgerError: its trials are not numbered as Optuna numbers them.
        """
        try:
            return super().get_study_id_from_name(study_name)
        except KeyError:
            return self._load(study_name)

    def get_all_studies(self) -> list[Any]:
        """Return all studies of the database, in a class that is private to Optuna."""
        for study in self._database.get_all_studies():
            self.get_study_id_from_name(study.study_name)
        studies = super().get_all_studies()
        for study in studies:
            study_id = self.get_study_id_from_name(study.study_name)
            study.user_attrs = self.get_study_user_attrs(study_id)
            study.system_attrs = self.get_study_system_attrs(study_id)
        return studies

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As in Optuna."""
        key = super().create_new_trial(study_id, template_trial)
        self._study_of_trial[key] = study_id
        trial, change = self.get_trial(key), self._change(key)
        change.state = True
        # A template (an enqueued or copied trial) brings content, which the setters below never see.
        change.params.update(trial.params)
        change.user.update(trial.user_attrs)
        change.system.update(trial.system_attrs)
        change.steps.update(trial.intermediate_values)
        return key

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As in Optuna."""
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        self._change(trial_id).params.add(param_name)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As in Optuna."""
        done = super().set_trial_state_values(trial_id, state, values)
        if done:
            self._change(trial_id).state = True
        return done

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As in Optuna."""
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._change(trial_id).steps.add(step)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As in Optuna."""
        super().set_trial_user_attr(trial_id, key, value)
        self._change(trial_id).user.add(key)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As in Optuna."""
        super().set_trial_system_attr(trial_id, key, value)
        self._change(trial_id).system.add(key)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write the attribute into the database."""
        tables = self._tables[study_id]
        self._retry.call(lambda retrying: tables.write_study_attribute(key, value))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes that the database holds now."""
        there = self._tables[study_id].study_id
        return self._retry.call(lambda retrying: self._database.get_study_user_attrs(there))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write the attribute into the database."""
        tables = self._tables[study_id]
        self._retry.call(lambda retrying: tables.write_study_attribute(key, value, system=True))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the attributes that the database holds now."""
        there = self._tables[study_id].study_id
        return self._retry.call(lambda retrying: self._database.get_study_system_attrs(there))

    def __getstate__(self) -> dict[Any, Any]:
        """Leave out the retries of the database; a copy in another process makes its own."""
        return {key: value for key, value in super().__getstate__().items() if key != "_retry"}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        """Restore the state that :meth:`__getstate__` returned."""
        super().__setstate__(state)
        self._retry = DatabaseRetry(self._database.engine)

    def _load(self, name: str) -> int:
        """Read a study and its trials from the database."""
        key = self._database.get_study_id_from_name(name)
        trials = sorted(self._database.get_all_trials(key, deepcopy=False), key=lambda trial: trial.number)
        for expected, trial in enumerate(trials):
            # Memory numbers trials by their order. With a gap, or a number twice, a trial would be written into the row
            # of another one.
            if trial.number != expected:
                raise LedgerError(
                    f"ledger: expected the trials 0 to {trial.number} of {name!r} once each, received trial "
                    f"{trial.number} in the place of trial {expected}: another program has written into it"
                )
        study_id = super().create_new_study(self._database.get_study_directions(key), name)
        for trial in trials:
            # The method of this class would mark the trial as changed, and the next flush would insert it
            # once more.
            self._study_of_trial[super().create_new_trial(study_id, trial)] = study_id
        self._tables[study_id] = StudyTables(self._database, key, self._fence)
        return study_id

    def _flush(self, tables: StudyTables, keys: Sequence[int]) -> None:
        changes = [(self.get_trial(key), self._pending[key]) for key in keys]
        self._retry.call(lambda retrying: tables.write(changes, retrying))
        # Only after the commit: changes of a transaction that failed are written with the next flush.
        for key in keys:
            del self._pending[key]

    def _close(self) -> None:
        for tables in self._tables.values():
            tables.close()

    def _change(self, key: int) -> PendingChange:
        return self._pending.setdefault(key, PendingChange())

"""Optuna's storage for the one process that drives a study: read from memory, written in transactions.

Optuna's own storage for databases commits each parameter, attribute and value by itself and asks the database for
every trial it wants to know. The driver of a search is alone in writing its trials, so it may keep them all and write
what belongs together at once. The tables are Optuna's, so that everything else of Optuna reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from search.ledger.database_retry import DatabaseRetry
from search.ledger.optuna_tables import Fence, PendingChange, StudyTables
from search.ledger.sqlite_wal import wal_mode
from trainables.errors import LedgerError


class BufferedStorage(InMemoryStorage):
    """One study of ``database``, in memory; changes of trials reach the database with the next :meth:`flush`.

    The study's own attributes are read and written in the database at once: other processes watch them. ``fence``
    is asked first in each transaction.

    Raises:
        LedgerError: the study's trials are not numbered as Optuna numbers them.
    """

    def __init__(self, database: RDBStorage, name: str, fence: Fence | None = None) -> None:
        super().__init__()
        self._database = database
        self._there = database.get_study_id_from_name(name)
        self._here = super().create_new_study(database.get_study_directions(self._there), name)
        self._changes: dict[int, PendingChange] = {}
        rows: dict[int, int] = {}
        for trial in sorted(database.get_all_trials(self._there, deepcopy=False), key=lambda t: t.number):
            here = super().create_new_trial(self._here, trial)
            if self.get_trial_number_from_id(here) != trial.number:
                raise LedgerError(
                    f"ledger: expected the trials 0 to {trial.number} of {name!r} once each, received trial "
                    f"{trial.number} in the place of trial {here}: something else has written into it"
                )
            rows[trial.number] = trial._trial_id
        self._retry = DatabaseRetry(database.engine)
        self._rows = StudyTables(database.engine, self._there, rows, fence)

    @contextmanager
    def wal_mode(self) -> Iterator[None]:
        """Meanwhile a SQLite file keeps a log beside it, so that a commit need not wait for the disk."""
        self._rows.close()
        with wal_mode(self._database.engine):
            try:
                yield
            finally:
                self._rows.close()

    def flush(self) -> None:
        """Write all that has changed, in one transaction. While the database is away this waits, for a minute.

        Raises:
            LedgerError: nothing was written; what has changed is kept, to be written with the next.
        """
        if self._changes:
            changes = [(self.get_trial(key), change) for key, change in self._changes.items()]
            self._retry.call(lambda again: self._rows.write(changes, again))
            self._changes.clear()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As in Optuna."""
        key = super().create_new_trial(study_id, template_trial)
        trial, change = self.get_trial(key), self._change(key)
        change.state = True
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
        """Write it into the database."""
        self._retry.call(lambda again: self._rows.write_study_attribute(key, value))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """What the database holds now."""
        return self._retry.call(lambda again: self._database.get_study_user_attrs(self._there))

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write it into the database."""
        self._retry.call(lambda again: self._rows.write_study_attribute(key, value, system=True))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """What the database holds now."""
        return self._retry.call(lambda again: self._database.get_study_system_attrs(self._there))

    def _change(self, key: int) -> PendingChange:
        return self._changes.setdefault(key, PendingChange())

"""The ledger: an Optuna study in durable storage, the single source of truth of a search.

A trial is written here before it starts and when it ends. Only the driver touches the ledger. Reading goes
through :meth:`Ledger.trials`, which keeps its own copy up to date, so that a view costs no query.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from search.record import Cost, Direction, EpochRecord, Parameters, State, TrialRecord
from search.samplers import make_sampler
from trainables.errors import LedgerError

STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

TABLE_TRIES = 4
"""How often to try to make the tables of a new database, where others may be making them too."""

Suggest = Callable[[Trial], Parameters]


class Ledger:
    """One search's study.

    Args:
        url: SQLAlchemy URL of the storage.
        name: the study's name.
        direction: of the objective.
        metric: name of the objective among the epoch metrics.
        method: recorded with each trial.
        sampler: name of the sampler.
        seed: of the search; trials derive theirs from it.
        create: begin the study if there is none; otherwise that is an error.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        direction: Direction,
        metric: str,
        method: str,
        sampler: str,
        seed: int,
        create: bool = True,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.url, self.name = url, name
        self._metric, self._direction, self._method = metric, direction, method
        self._sampler, self._seed = sampler, seed
        self._study = _open_study(url, name, direction, create)
        self._live: dict[int, Trial] = {}
        self._records: dict[int, TrialRecord] = {}
        self._read()

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials by number."""
        return tuple(self._records[n] for n in sorted(self._records))

    def trial(self, number: int) -> TrialRecord:
        """The trial of this number."""
        return self._records[number]

    def judge_by(self, metric: str, direction: Direction) -> None:
        """Take another objective for the trials' values: the one that a reader finds in the ledger."""
        self._metric, self._direction = metric, direction
        self._read()

    def interrupted(self) -> list[int]:
        """Trials that were running when the last driver ended; they go on before anything new starts."""
        return [n for n, r in sorted(self._records.items()) if r.state == "running" and n not in self._live]

    def running(self) -> list[int]:
        """Trials that this driver has started and not finished."""
        return sorted(self._live)

    def started(self) -> int:
        """How many trials have ever been started."""
        return sum(r.state != "waiting" for r in self._records.values())

    def enqueue(self, configurations: list[Parameters]) -> None:
        """Put configurations in front; those that an earlier run of the same command enqueued are left out."""
        known = {
            t.user_attrs["enqueued"]
            for t in self._study.get_trials(deepcopy=False)
            if "enqueued" in t.user_attrs
        }
        for line, params in enumerate(configurations):
            if line not in known:
                self._study.enqueue_trial(dict(params), user_attrs={"enqueued": line})
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            self._records[frozen.number] = self._to_record(frozen)

    def resume(self, number: int, suggest: Suggest) -> TrialRecord:
        """Take up an interrupted trial under its number; parameters that were not yet written are suggested."""
        frozen = self._frozen(number)
        return self._begin(Trial(self._study, frozen._trial_id), suggest)

    def start(self, suggest: Suggest) -> TrialRecord:
        """Ask for the next trial and write it down, before anything runs."""
        self._study.sampler = make_sampler(self._sampler, self._seed, self.started())
        return self._begin(self._study.ask(), suggest)

    def report(self, number: int, epoch: EpochRecord) -> None:
        """Write one epoch's metrics; an epoch that is known already is left as it is."""
        record = self._records[number]
        if record.epochs and epoch.epoch <= record.epochs[-1].epoch:
            return
        epochs = (*record.epochs, epoch)
        trial = self._live[number]
        value = epoch.metric(self._metric)
        if math.isfinite(value):
            trial.report(value, epoch.epoch)
        trial.set_user_attr("curve", [_row(e) for e in epochs])
        self._update(number, epochs=epochs, value=self._best(epochs))

    def spent(self, number: int, stages: Mapping[str, float], cost: Cost) -> None:
        """Take note of what a running trial has cost so far; it is written when the trial ends."""
        self._update(number, stages=_finite(stages), cost=_finite(cost))

    def finish(
        self,
        number: int,
        state: State,
        *,
        reason: str | None = None,
        error: str | None = None,
    ) -> None:
        """Write how a trial ended: complete, pruned (with its reason) or failed; and what it cost, if it said."""
        record, trial = self._records[number], self._live.pop(number)
        spent = {"stages": dict(record.stages), "cost": dict(record.cost)} if record.stages else None
        for key, fact in (("spent", spent), ("reason", reason), ("error", error)):
            if fact:
                trial.set_user_attr(key, fact)
        if state == "complete" and record.value is not None:
            told = self._study.tell(trial, record.value)
        elif state in ("complete", "pruned"):
            told = self._study.tell(trial, state=TrialState.PRUNED)
        else:
            told = self._study.tell(trial, state=TrialState.FAIL)
        self._update(
            number,
            state=STATES[told.state],
            reason=reason,
            error=error,
            ended=_utc(told.datetime_complete),
        )

    def note(self, key: str, value: object) -> None:
        """Keep a JSON value with the study."""
        self._study.set_user_attr(key, value)

    def noted(self, key: str) -> Any:
        """A value that :meth:`note` kept, or None."""
        return self._study.user_attrs.get(key)

    def importances(self) -> dict[str, float]:
        """Share of each parameter in the objective's variance (PED-ANOVA); empty with too few trials."""
        finished = [r for r in self._records.values() if r.state == "complete"]
        if len(finished) < 4 or len({r.value for r in finished}) < 2:
            return {}
        try:
            return dict(optuna.importance.get_param_importances(self._study))
        except (ValueError, RuntimeError):  # Optuna's words for "too little to tell"
            return {}

    def _read(self) -> None:
        for frozen in self._study.get_trials(deepcopy=False):
            self._records[frozen.number] = self._to_record(frozen)

    def _begin(self, trial: Trial, suggest: Suggest) -> TrialRecord:
        params = suggest(trial)
        number = trial.number
        seed = trial_seed(self._seed, number)
        if "seed" not in trial.user_attrs:
            trial.set_user_attr("method", self._method)
            trial.set_user_attr("seed", seed)
        self._live[number] = trial
        known = self._records.get(number)
        record = TrialRecord(
            number=number,
            state="running",
            method=self._method,
            params=dict(params),
            seed=seed,
            epochs=known.epochs if known else (),
            value=known.value if known else None,
            started=_utc(trial.datetime_start),
        )
        self._records[number] = record
        return record

    def _update(self, number: int, **changes: Any) -> None:
        record = self._records[number]
        self._records[number] = TrialRecord(**{**vars(record), **changes})

    def _frozen(self, number: int) -> FrozenTrial:
        return next(t for t in self._study.get_trials(deepcopy=False) if t.number == number)

    def _best(self, epochs: tuple[EpochRecord, ...]) -> float | None:
        values = [v for e in epochs if math.isfinite(v := e.metric(self._metric))]
        if not values:
            return None
        return max(values) if self._direction == "maximize" else min(values)

    def _to_record(self, frozen: FrozenTrial) -> TrialRecord:
        attrs = frozen.user_attrs
        epochs = tuple(EpochRecord(int(row[0]), *map(_number, row[1:])) for row in attrs.get("curve", ()))
        params = frozen.params or frozen.system_attrs.get("fixed_params", {})
        return TrialRecord(
            number=frozen.number,
            state=STATES[frozen.state],
            method=attrs.get("method", self._method),
            params=params,
            value=self._best(epochs),
            epochs=epochs,
            reason=attrs.get("reason"),
            error=attrs.get("error"),
            seed=attrs.get("seed", 0),
            started=_utc(frozen.datetime_start),
            ended=_utc(frozen.datetime_complete),
            **_spent(attrs),
        )


def trial_seed(seed: int, number: int) -> int:
    """Seed of a trial: a function of the search's seed and the trial's number."""
    return (seed * 1_000_003 + number) % 2**31


def sqlite_url(path: Path) -> str:
    """SQLAlchemy URL of a SQLite file whose path may hold any character."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def refuse_difference(ledger: Ledger, identity: Mapping[str, object]) -> None:
    """Compare what was asked for with what the ledger was begun with; begin it if it is new.

    Raises:
        LedgerError: they contradict; the message spells out each difference.
    """
    known = ledger.noted("identity")
    asked = json.loads(json.dumps(identity))
    if known is None:
        ledger.note("identity", asked)
        return
    different = [k for k in sorted({*known, *asked}) if known.get(k) != asked.get(k)]
    if different:
        lines = "\n".join(f"  {k}: expected {known.get(k)!r}, received {asked.get(k)!r}" for k in different)
        raise LedgerError(
            f"name: the search {ledger.name!r} was begun with other settings:\n{lines}\n"
            "Repeat them to go on with it, or choose another --name."
        )


def move_study(url: str, name: str, new_name: str) -> bool:
    """Give a study another name: it is copied whole before the old one goes. False if there is none.

    Raises:
        LedgerError: the database can't be opened.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        storage = _with_tables(url)
        if name not in optuna.get_all_study_names(storage):
            return False
        optuna.copy_study(
            from_study_name=name, from_storage=storage, to_storage=storage, to_study_name=new_name
        )
        optuna.delete_study(study_name=name, storage=storage)
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        first = str(error).splitlines()[0]
        raise LedgerError(
            f"ledger: expected a database that can be opened, received {url!r}: {first}"
        ) from error
    return True


def _open_study(url: str, name: str, direction: Direction, create: bool) -> optuna.Study:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if not create:
            _expect_tables(url, name)
            reading = optuna.storages.RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
            return optuna.load_study(storage=reading, study_name=name)
        return optuna.create_study(
            storage=_with_tables(url), study_name=name, direction=direction, load_if_exists=True
        )
    except KeyError:
        raise LedgerError(f"name: expected a search that was begun, received {name!r}") from None
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        first = str(error).splitlines()[0]
        raise LedgerError(
            f"ledger: expected a database that can be opened, received {url!r}: {first}"
        ) from error


def _expect_tables(url: str, name: str) -> None:
    """A reader must not come before the search has made its tables: Optuna would make some for it, in its way.

    Raises:
        LedgerError: they are not all there yet; the schema's revision is what Optuna writes last.
    """
    from sqlalchemy import MetaData, Table, create_engine, inspect, select

    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if inspect(connection).has_table("alembic_version"):
                revision = Table("alembic_version", MetaData(), autoload_with=connection)
                if connection.execute(select(revision)).first():
                    return
    finally:
        engine.dispose()
    raise LedgerError(f"name: expected a search that was begun, received {name!r}")


def _with_tables(url: str) -> optuna.storages.RDBStorage:
    """Several searches may begin in one new database at once: who comes second finds the tables made."""
    from sqlalchemy.exc import DatabaseError, IntegrityError

    for _ in range(TABLE_TRIES - 1):
        try:
            return optuna.storages.RDBStorage(url)
        except DatabaseError as error:
            if not isinstance(error, IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(random.uniform(0.05, 0.5))
    return optuna.storages.RDBStorage(url)


def _spent(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Stages and cost, as they are written now or were (stages alone)."""
    known = attrs.get("spent", {"stages": attrs.get("stages", {})})
    return {"stages": known.get("stages", {}), "cost": known.get("cost", {})}


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` as JSON can hold them: no infinities, six decimals."""
    rounded = {k: round(v, 6) if isinstance(v, float) and math.isfinite(v) else v for k, v in values.items()}
    return {k: v for k, v in rounded.items() if not isinstance(v, float) or math.isfinite(v)}


def _row(epoch: EpochRecord) -> list[float | str]:
    values = (epoch.val_accuracy, epoch.val_loss, epoch.train_loss, epoch.epoch_seconds)
    return [epoch.epoch, *(v if math.isfinite(v) else str(v) for v in values)]


def _utc(moment: datetime | None) -> datetime | None:
    """Optuna's times are local and say no zone."""
    return moment.astimezone(UTC) if moment else None


def _number(value: float | str) -> float:
    return float(value)

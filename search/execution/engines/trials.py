"""Runs the trials of one engine: begins them, trains one epoch at a time, and ends them.

Plain Python without Ray. Each call may come from another thread, but calls for one trial never overlap, with one
exception that :meth:`EngineTrials.end` handles.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.execution.engines.messages import EpochResult, TrialRequest
from search.execution.engines.workbenches import Workbenches
from search.fault_injection import inject_fault
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import DataError, OutOfMemory, TrialError

if TYPE_CHECKING:
    from trainables.training.training import Training

CHECKPOINT = "checkpoint.npz"
"""Name of the newest checkpoint in a trial's folder."""


class UnknownTrial(Exception):
    """Raised for a trial that this process has not begun: it began in an engine that has died since."""


@dataclass
class _RunningTrial:
    """A trial that has begun.

    Attributes:
        checkpoint: file of its newest checkpoint; None to write none.
        pending: epochs of the checkpoint that are reported again before a new one is trained.
        damaged: checkpoint that could not be read, until it has been reported.
        busy: held while an epoch runs.
    """

    training: Training
    checkpoint: Path | None
    pending: list[EpochMetrics] = field(default_factory=list)
    damaged: str | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)


class EngineTrials:
    """The trials of one engine, by key."""

    def __init__(self, workbenches: Workbenches) -> None:
        self._workbenches = workbenches
        self._running: dict[str, _RunningTrial] = {}
        self._failed_starts: dict[str, EpochResult] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._running or key in self._failed_starts

    def begin(self, request: TrialRequest) -> int:
        """Begin a trial from its newest readable checkpoint, if it has one.

        An error is not raised here: the first epoch reports it as the trial's end, like every later error.

        Returns:
            The number of epochs that the trial has completed.
        """
        # The process of this trial's actor may have died without ending the trial here. Its old training
        # holds a program and memory.
        self.end(request.key)
        try:
            trial = self._start(request)
        except Exception as error:  # noqa: BLE001 - a trial that cannot begin must not end the search
            self._failed_starts[request.key] = _failure(error)
            return 0
        self._running[request.key] = trial
        done, known = trial.training.epoch, request.known_epochs
        # The process may have died after it wrote a checkpoint and before the ledger received the epoch: such epochs
        # are reported from the checkpoint. The last one is reported in any case, so that the caller always gets a
        # result that tells whether the trial is done.
        last_reported = done - 1 if known is None else min(known, done - 1)
        trial.pending = [metrics for metrics in trial.training.history if metrics.epoch > last_reported]
        return done

    def epoch(self, key: str) -> EpochResult:
        """Run one epoch, or report one again after a resume.

        Raises:
            UnknownTrial: the trial has not begun in this process.
        """
        if key in self._failed_starts:
            return self._failed_starts[key]
        trial = self._running.get(key)
        if trial is None:
            raise UnknownTrial(key)
        with trial.busy:
            damaged, trial.damaged = trial.damaged, None
            return replace(_run_epoch(key, trial), damaged=damaged)

    def end(self, key: str) -> None:
        """Free the resources of a trial. Unknown keys are ignored.

        When a trial's own process has died, its epoch may still run here: the call waits until that has ended, because
        a released program may be handed to another trial at once.
        """
        self._failed_starts.pop(key, None)
        trial = self._running.pop(key, None)
        if trial is not None:
            with trial.busy:
                trial.training.release()

    def _start(self, request: TrialRequest) -> _RunningTrial:
        """Begin with the newest readable checkpoint; remove damaged ones and those of another configuration."""
        from trainables.methods.methods import begin
        from trainables.training.resuming import load_training

        workbench = self._workbenches.open(request.paths)
        file = request.checkpoints / CHECKPOINT if request.checkpoints else None
        trial = _RunningTrial(begin(request.config, workbench), file)
        for saved in _saved(file):
            try:
                load_training(trial.training, saved)
                break
            except DataError:
                trial.damaged = str(saved)
                saved.unlink(missing_ok=True)
                # A failed load may have changed a part of the weights: only a new training is known to be clean.
                trial.training.release()
                trial.training = begin(request.config, workbench)
        return trial


def _saved(file: Path | None) -> Iterator[Path]:
    from trainables.training.checkpoints import resumable_checkpoints

    if file is not None:
        yield from resumable_checkpoints(file)


def _run_epoch(key: str, trial: _RunningTrial) -> EpochResult:
    training = trial.training
    # A trial that is done must not train beyond its last epoch; the last epoch is reported again instead.
    pending = trial.pending or ([training.last] if training.done and training.last else [])
    if pending:
        metrics = pending.pop(0)
        done = training.done and not pending
        return _with_cost(EpochResult(metrics.epoch, done, metrics, repeated=True), training)
    try:
        inject_fault(key, training.feed.batch_size)
        # Plain Python numbers travel, and not NumPy's, which JSON does not know.
        metrics = EpochMetrics.from_result(vars(training.run_epoch()))
        # The checkpoint is written before the epoch is reported, so that the ledger is never ahead of the
        # checkpoints, unless a checkpoint cannot be written. The opposite case is handled in ``begin``.
        unsaved = _save(training, trial.checkpoint)
    except Exception as error:  # noqa: BLE001 - an error of a model or a method ends its trial, not the search
        return _with_cost(replace(_failure(error), epoch=training.epoch), training)
    return _with_cost(EpochResult(metrics.epoch, training.done, metrics, unsaved=unsaved), training)


def _with_cost(result: EpochResult, training: Training) -> EpochResult:
    return replace(result, stages=dict(training.stage_seconds), cost=training.cost())


def _save(training: Training, file: Path | None) -> str | None:
    """Write a checkpoint. Return why that failed: if the disk is full, the trial continues without a new one."""
    from trainables.training.resuming import save_training

    try:
        if file is not None:
            save_training(training, file)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _failure(error: Exception) -> EpochResult:
    """Return how a trial that raised ``error`` ended."""
    # TensorFlow's own lack of memory is an OutOfMemory already; Python raises MemoryError outside of the steps.
    if isinstance(error, MemoryError):
        error = OutOfMemory(f"no memory left: {error or 'MemoryError'}")
    if isinstance(error, TrialError):
        return EpochResult(0, True, reason=error.reason, error=str(error))
    return EpochResult(0, True, reason="crashed", error=traceback.format_exc())

"""A search's learning curves and parameters as event files, which TensorBoard reads: a run a trial."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from search.records.metrics import EPOCH_METRICS
from search.records.record import SearchRecord, TrialRecord

TENSORBOARD_FOLDER = "tensorboard"
"""Beside a search's other files, if no other place is named."""


def write_events(record: SearchRecord, directory: Path) -> list[Path]:
    """Write the event files of all trials that have begun, each to a folder of its own in ``directory``.

    Files of an earlier call are replaced: nothing is there twice. Step is the epoch; the time of a point is the time at
    which its epoch ended, so that TensorBoard can draw curves over time as well.

    Returns:
        The folders.
    """
    begun = [trial for trial in record.trials if trial.epochs]
    return [_write_trial(record, trial, directory / run_name(record, trial)) for trial in begun]


def run_name(record: SearchRecord, trial: TrialRecord) -> str:
    """``0012-finetune``: sorted by name is sorted by number."""
    digits = max(4, len(str(len(record.trials) - 1)))
    return f"{trial.number:0{digits}d}-{trial.method}"


def _write_trial(record: SearchRecord, trial: TrialRecord, folder: Path) -> Path:
    from tensorboardX import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    with SummaryWriter(str(folder), write_to_disk=True) as writer:
        now = _moment(trial.started or record.started)
        for epoch in trial.epochs:
            now += epoch.epoch_seconds
            for name in EPOCH_METRICS:
                writer.add_scalar(name, epoch.metric(name), epoch.epoch, walltime=now)
        _add_parameters(writer, record, trial, now)
    return folder


def _add_parameters(writer: Any, record: SearchRecord, trial: TrialRecord, now: float) -> None:
    """What TensorBoard's page of hyperparameters shows: parameters, state, and the best epoch's objective."""
    from tensorboardX.summary import hparams

    best = f"best/{record.metric}"
    values = {**trial.params, "method": trial.method, "state": trial.state}
    for summary in hparams(values, {best: 0.0}):
        writer.file_writer.add_summary(summary, walltime=now)
    if trial.value is not None and math.isfinite(trial.value):
        writer.add_scalar(best, trial.value, len(trial.epochs), walltime=now)


def _moment(when: datetime | None) -> float:
    """Seconds since 1970."""
    return when.timestamp() if when is not None else 0.0

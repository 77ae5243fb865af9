"""Write a search's learning curves and parameters as TensorBoard event files, one run per trial."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Any

from search.records.metrics import EPOCH_METRICS
from search.records.record import SearchRecord, TrialRecord

TENSORBOARD_FOLDER = "tensorboard"
"""Default folder, next to the search's other files."""


def write_events(record: SearchRecord, directory: Path) -> list[Path]:
    """Write the event files of all trials that have started, each into its own folder in ``directory``.

    Files of an earlier call are replaced, so that no point appears twice. The step is the epoch; the time of a point
    is when its epoch ended, so that TensorBoard can also draw curves over time.

    Returns:
        The folders.
    """
    begun = [trial for trial in record.trials if trial.epochs]
    return [_write_trial(record, trial, directory / run_name(record, trial)) for trial in begun]


def run_name(record: SearchRecord, trial: TrialRecord) -> str:
    """Return the folder of a trial, as in ``0012-finetune``; the order by name is the order by number."""
    digits = max(4, len(str(len(record.trials) - 1)))
    return f"{trial.number:0{digits}d}-{trial.method}"


def _write_trial(record: SearchRecord, trial: TrialRecord, folder: Path) -> Path:
    from tensorboardX import SummaryWriter

    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard shows the points of all event files in a folder, so that old ones would appear twice.
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
    """Write what TensorBoard's page of hyperparameters shows: parameters, state and the best objective."""
    from tensorboardX.summary import hparams

    best = f"best/{record.metric}"
    values = {**trial.params, "method": trial.method, "state": trial.state}
    # The summary only declares the metric. Its value is the scalar of the same name below.
    for summary in hparams(values, {best: 0.0}):
        writer.file_writer.add_summary(summary, walltime=now)
    if trial.value is not None and math.isfinite(trial.value):
        writer.add_scalar(best, trial.value, len(trial.epochs), walltime=now)


def _moment(when: datetime | None) -> float:
    """Return seconds since 1970."""
    return when.timestamp() if when is not None else 0.0

"""Measure contenders: wall-clock time of the whole command and of its trials, and seconds per trial."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.measurement.cpu_time import run

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}

ROOT = Path(__file__).parents[2]
"""The repository: peers start there, so that their processes and those of Ray find the package ``benchmarks``."""


@dataclass(frozen=True)
class Measurement:
    """One run of a contender. All times are in seconds.

    Attributes:
        whole: from the start of its process to its end.
        trials_seconds: from the start of the first trial to the end of the last one.
        marginal: slope of a straight line (least squares) through the ends of the trials over their rank, without the
            first.
        fixed: ``whole`` minus ``trials`` times ``marginal``.
        best, average: best validation accuracy of any trial, and the mean of the trials' best ones.
        stages: seconds by stage over all trials, for contenders that report them.
        processor: processor seconds by kind of process (:mod:`benchmarks.measurement.cpu_time`).
        load: load of the machine before and after.
    """

    contender: str
    trials: int
    whole: float
    trials_seconds: float
    before_trials: float
    after_trials: float
    marginal: float
    fixed: float
    best: float
    average: float
    load: tuple[float, float]
    stages: Mapping[str, float] = field(default_factory=dict)
    processor: Mapping[str, float] = field(default_factory=dict)
    when: str = ""
    machine: str = ""
    work: str = ""


def measure(
    contender: str, folder: Path, work: str, changes: Mapping[str, Any] | None = None, label: str = ""
) -> Measurement:
    """Run ``contender`` on the workload in ``folder`` (see :mod:`benchmarks.peers.run_peer`), in a fresh copy of it.

    Raises:
        RuntimeError: if the contender failed, with the end of its output.
    """
    place = folder.with_name(f"{folder.name}-{label or contender}")
    shutil.copytree(folder, place)
    result, log = place / "result.json", place / "log.txt"
    before, began = os.getloadavg()[0], time.time()
    arguments = [contender, str(place), str(result), json.dumps(dict(changes or {}))]
    code, processor = run(
        [sys.executable, "-m", "benchmarks.peers.run_peer", *arguments], log, {**os.environ, **QUIET}, ROOT
    )
    ended = time.time()
    if code:
        raise RuntimeError(f"{contender} ended with code {code}:\n{log.read_text()[-3000:]}")
    trials = json.loads(result.read_text())
    shutil.rmtree(place)
    found = _summary(label or contender, trials, began, ended, before, work)
    return replace(found, processor=processor)


def _summary(
    contender: str, trials: list[dict[str, Any]], began: float, ended: float, load: float, work: str
) -> Measurement:
    ends = sorted(t["ended"] for t in trials)
    first = min(t["began"] for t in trials)
    marginal = slope(ends)
    stages: dict[str, float] = {}
    for trial in trials:
        for stage, seconds in trial["stages"].items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    return Measurement(
        contender=contender,
        trials=len(trials),
        whole=ended - began,
        trials_seconds=ends[-1] - first,
        before_trials=first - began,
        after_trials=ended - ends[-1],
        marginal=marginal,
        fixed=ended - began - marginal * len(trials),
        best=max(t["val_accuracy"] for t in trials),
        average=mean(t["val_accuracy"] for t in trials),
        load=(load, os.getloadavg()[0]),
        stages=stages,
        when=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        work=work,
    )


def slope(ends: list[float]) -> float:
    """Seconds per trial: least squares through the ends of the trials, without the first one's start-up."""
    kept = ends[1:] if len(ends) > 2 else ends
    return float(np.polyfit(np.arange(len(kept)), np.array(kept) - kept[0], 1)[0]) if len(kept) > 1 else 0.0


def append(file: Path, measurement: Measurement) -> None:
    """Append a line of JSON to ``file``, so that one file collects runs of several days."""
    with file.open("a") as output:
        output.write(json.dumps(asdict(measurement)) + "\n")


def read(file: Path) -> list[Measurement]:
    """Read what :func:`append` wrote."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [Measurement(**{**values, "load": tuple(values["load"])}) for values in map(json.loads, lines)]

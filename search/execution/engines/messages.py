"""Defines what travels between the driver, the trial actors and the engines, one frozen dataclass for each message.

Driver, trial actors and engines are separate processes, often on separate machines, and Ray pickles what they exchange.
The module therefore imports neither Ray nor TensorFlow: every process can unpickle every message.

::

    driver ── TrialAssignment ──▶ trial actor ── TrialRequest ──▶ engine
    driver ◀──── EpochResult ──── trial actor ◀── EpochResult ─── engine
    driver ── a job of search.execution.engines.jobs ───────────▶ engine
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from search.execution.cluster.nodes import FixedTrialResources
from trainables.epoch_metrics import EpochMetrics
from trainables.reuse import Reuse
from trainables.training.trial_config import TrialConfig
from trainables.training.trial_cost import TrialCost


@dataclass(frozen=True)
class SessionSpec:
    """Everything that a process needs to find the engines of a session, or to start one.

    Attributes:
        name: unique name of the session; part of the names of its actors.
        verbose: let TensorFlow print its messages.
        resources: what one trial requests from Ray.
        reuse: what trials share with each other.
        precision: one of :data:`trainables.numerics.PRECISIONS`.
        jit: one of :data:`trainables.numerics.JIT`.
        joined: whether the session joined a cluster that was already running, so that its nodes may be other machines.
    """

    name: str
    verbose: bool = False
    resources: FixedTrialResources = field(default_factory=lambda: FixedTrialResources(1.0, 0.0))
    reuse: Reuse = field(default_factory=Reuse)
    precision: str = "auto"
    jit: str = "auto"
    joined: bool = False


@dataclass(frozen=True)
class WorkbenchPaths:
    """The files that a trial trains on. Trials with equal paths share one workbench in their engine.

    Attributes:
        backbone: file of the normalised backbone.
        task: folder of the prepared target task.
        source: folder of the prepared source task, for methods that transfer instances or features.
        teacher: backbone and task of the teacher, for the method that distils one.
        remember: folder of a prepared task whose accuracy is measured for forgetting.
        unlabelled: hide the target's training and validation labels from trials.
        refit: train on the target's validation images, too (:mod:`trainables.data.refit`).
    """

    backbone: Path
    task: Path
    source: Path | None = None
    teacher: WorkbenchPaths | None = None
    remember: Path | None = None
    unlabelled: bool = False
    refit: bool = False

    def for_refit(self) -> WorkbenchPaths:
        """Return the same files with ``refit``; a teacher has to see the same images as its student."""
        teacher = self.teacher.for_refit() if self.teacher else None
        return replace(self, refit=True, teacher=teacher)


@dataclass(frozen=True)
class TrialRequest:
    """Asks an engine to begin a trial.

    Attributes:
        key: name of the trial among all trials of the engine; it ends with a dash and the trial's number, which
            :func:`search.fault_injection.inject_fault` reads.
        config: what to train.
        paths: what to train it on.
        checkpoints: the trial's own folder of checkpoints; None to write none.
        logs: folder of the engines' logs; None to write none.
        known_epochs: number of epochs that the ledger already has of this trial. The engine reports later epochs of
            the checkpoint again. None if the caller needs only the newest.
    """

    key: str
    config: TrialConfig
    paths: WorkbenchPaths
    checkpoints: Path | None = None
    logs: Path | None = None
    known_epochs: int | None = None


@dataclass(frozen=True)
class EngineIdentity:
    """Identifies one process of an engine.

    Attributes:
        instance: random name. Ray restarts a dead engine under the same actor handle; only this name tells the new
            process from the old one, which knew other trials.
        pid: process number on the engine's node.
    """

    instance: str
    pid: int


@dataclass(frozen=True)
class EpochResult:
    """Reports one epoch of a trial, or how the trial ended.

    Attributes:
        epoch: number of the newest epoch, from 1; 0 before the first.
        done: whether the trial has ended.
        metrics: of the epoch; None if no epoch was completed.
        reason: why the trial ended without completing an epoch: ``diverged``, ``out_of_memory``, ``crashed``, or one of
            :data:`search.execution.engines.engine_client.ENGINE_LOSS_REASONS`.
        error: traceback or message that belongs to ``reason``.
        repeated: whether the epoch comes from a checkpoint and was not trained just now.
        damaged: checkpoint from which the trial could not resume, in the first result after a resume.
        unsaved: why the epoch's checkpoint could not be written.
        stages: seconds by stage of work since the trial began (:data:`trainables.cost_account.STAGES`).
        cost: what the trial reused, computed and compiled so far; None if it has not begun.
        node: Ray's id of the node where the epoch ran.
        engine: :attr:`EngineIdentity.instance` of the engine; None if the trial has an engine of its own.
    """

    epoch: int
    done: bool
    metrics: EpochMetrics | None = None
    reason: str | None = None
    error: str | None = None
    repeated: bool = False
    damaged: str | None = None
    unsaved: str | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    cost: TrialCost | None = None
    node: str | None = None
    engine: str | None = None

    def to_tune(self) -> dict[str, Any]:
        """Return the dictionary that a Tune trainable reports.

        Tune itself reads ``done``, and its schedulers read ``epoch`` and the metrics; all else is under one key.
        """
        metrics = vars(self.metrics) if self.metrics is not None else {}
        return {**metrics, "epoch": self.epoch, "done": self.done, _RESULT: self}

    @classmethod
    def from_tune(cls, reported: Mapping[str, Any] | None) -> EpochResult | None:
        """Return the result that Tune reports; None if the trial has reported nothing yet."""
        result = (reported or {}).get(_RESULT)
        return result if isinstance(result, cls) else None


_RESULT = "result"
"""Key of the whole result in what Tune hands on. Tune flattens nested dictionaries, but leaves an object as it is."""

"""The attributes in which a ledger keeps what Optuna has no place for, of the study and of its trials.

Optuna stores an attribute as JSON under a key. All keys are here, so that each one is written and read by the same
name. They are part of the ledger's format: a key that is written by a released version is read by every later one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from search.records.record import Cost
from trainables.epoch_metrics import EpochMetrics

_COLUMNS = tuple(field.name for field in fields(EpochMetrics) if field.name != "epoch")
"""Columns of a curve's rows after the number of the epoch. A new metric is appended, so that old rows stay readable."""


class StudyKey:
    """Keys of the study's attributes: what the ledger stores of the search apart from its trials."""

    FORMAT: Final = "format"
    """The version of the format (:data:`search.ledger.format_version.LEDGER_FORMAT`)."""
    DRIVER: Final = "driver"
    """The lease of the process that drives the search (:mod:`search.ledger.driver_lease_row`)."""
    IDENTITY: Final = "identity"
    """The settings that stay the same for the whole life of a search."""
    ABOUT: Final = "about"
    """Task, backbone and settings, for readers (:func:`search.ledger.reader.about_to_json`)."""
    STARTED: Final = "started"
    """When the search was first started, in ISO format."""
    ELAPSED: Final = "elapsed"
    """Seconds that drivers have spent on the search."""
    STOPPED: Final = "stopped"
    """Why the search ended before its last trial, if it did."""
    PRIOR: Final = "prior"
    """Scores of the backbones (:meth:`search.ledger.sampling.backbone_prior.BackbonePrior.to_json`)."""
    WARM_START: Final = "warm_start"
    """Configurations of earlier searches (:func:`search.ledger.sampling.warm_start.configs_to_json`)."""
    EDGES: Final = "edges"
    """Parameters whose best value lies at the edge of the space."""
    OUTCOME: Final = "outcome"
    """The measured winner (:func:`search.records.results.outcome_to_json`)."""
    ALTERNATIVES: Final = "alternatives"
    """The other measured points of the Pareto front."""
    SERVING_COSTS: Final = "serving_costs"
    """What each architecture costs to serve (:mod:`search.study.serving_costs`)."""


class TrialKey:
    """Keys of a trial's attributes."""

    METHOD: Final = "method"
    SEED: Final = "seed"
    ENQUEUED: Final = "enqueued"
    """Which of the user's configurations the trial is, counted from 0."""
    ORIGIN: Final = "origin"
    """Which prior or earlier search the parameters come from."""
    RETRIES: Final = "retries"
    BATCH_SIZE: Final = "batch_size"
    NODE: Final = "node"
    HEAD_INIT: Final = "head_init"
    """What the trial's head starts from, unless its parameters say so; missing where it is random."""
    REASON: Final = "reason"
    ERROR: Final = "error"
    SPENT: Final = "spent"
    """Seconds by stage and the cost, as one attribute that is written when the trial ends."""
    STAGES: Final = "stages"
    """Seconds by stage, as the first versions wrote them. Read only."""
    SERVING_COSTS: Final = "objectives"
    """What the trial's model costs to serve, if that is an objective."""
    CURVE: Final = "curve"
    """The epochs; followed by a colon and the index of the first one, except in ledgers of the first versions."""


CHUNK_EPOCHS = 32
"""Epochs in one attribute. A new epoch rewrites its chunk, not the whole curve, which may have thousands of epochs."""


@dataclass(frozen=True)
class TrialAttributes:
    """What the attributes of one trial hold. The fields are those of :class:`search.records.record.TrialRecord`, except
    ``serving_costs``: the values of those objectives that depend on the parameters alone.
    """

    method: str | None = None
    seed: int = 0
    epochs: tuple[EpochMetrics, ...] = ()
    reason: str | None = None
    error: str | None = None
    retries: int = 0
    batch_size: int | None = None
    node: str | None = None
    origin: str | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=dict)
    serving_costs: Mapping[str, float] = field(default_factory=dict)
    head_init: str = "random"

    @classmethod
    def read(cls, attributes: Mapping[str, Any]) -> TrialAttributes:
        """Return the attributes of a trial that this or an earlier version has written."""
        spent = attributes.get(TrialKey.SPENT) or {"stages": attributes.get(TrialKey.STAGES, {})}
        return cls(
            method=attributes.get(TrialKey.METHOD),
            seed=attributes.get(TrialKey.SEED, 0),
            epochs=_read_curve(attributes),
            reason=attributes.get(TrialKey.REASON),
            error=attributes.get(TrialKey.ERROR),
            retries=attributes.get(TrialKey.RETRIES, 0),
            batch_size=attributes.get(TrialKey.BATCH_SIZE),
            node=attributes.get(TrialKey.NODE),
            origin=attributes.get(TrialKey.ORIGIN),
            stages=spent.get("stages", {}),
            cost=spent.get("cost", {}),
            serving_costs=attributes.get(TrialKey.SERVING_COSTS, {}),
            head_init=attributes.get(TrialKey.HEAD_INIT, "random"),
        )


def newest_curve_chunk(epochs: tuple[EpochMetrics, ...]) -> tuple[str, list[list[float | str]]]:
    """Key and value of the attribute that holds the newest of ``epochs``, of which there is at least one."""
    begin = (len(epochs) - 1) // CHUNK_EPOCHS * CHUNK_EPOCHS
    return f"{TrialKey.CURVE}:{begin}", [_row(epoch) for epoch in epochs[begin:]]


def spent_value(stages: Mapping[str, float], cost: Cost) -> dict[str, dict[str, Any]]:
    """Return the value of the attribute :attr:`TrialKey.SPENT`."""
    return {"stages": dict(stages), "cost": dict(cost)}


def finite_rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` without those that JSON can't hold (infinities and NaN), floats rounded to six decimals."""
    rounded = {k: round(v, 6) if isinstance(v, float) and math.isfinite(v) else v for k, v in values.items()}
    return {k: v for k, v in rounded.items() if not isinstance(v, float) or math.isfinite(v)}


def _read_curve(attributes: Mapping[str, Any]) -> tuple[EpochMetrics, ...]:
    # The first versions kept the whole curve under the bare key. It sorts first here, so that a chunk which a later
    # version wrote on resuming the trial replaces the epochs that are in both.
    chunks = {
        int(key.partition(":")[2] or -1): rows
        for key, rows in attributes.items()
        if key.startswith(TrialKey.CURVE)
    }
    by_epoch = {int(row[0]): row for _, rows in sorted(chunks.items()) for row in rows}
    return tuple(_epoch(row) for _, row in sorted(by_epoch.items()))


def _epoch(row: list[float | str]) -> EpochMetrics:
    # A row of an earlier version is shorter if a metric was added since; that metric is unknown for its epochs.
    known = dict(zip(_COLUMNS, row[1:], strict=False))
    # ``float`` also reads the texts that ``_row`` writes for NaN and infinities.
    return EpochMetrics(int(row[0]), **{name: float(known.get(name, math.nan)) for name in _COLUMNS})


def _row(epoch: EpochMetrics) -> list[float | str]:
    values = (epoch.metric(name) for name in _COLUMNS)
    # NaN and infinities as text: PostgreSQL and other readers of JSON refuse them as numbers.
    return [epoch.epoch, *(v if math.isfinite(v) else str(v) for v in values)]

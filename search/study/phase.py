"""One ledger's trials, run and shown: the search itself, or its baseline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.config.enqueue import read_enqueue
from search.config.search_config import SearchConfig
from search.config.space import Space, make_space
from search.execution.checkpoint_retention import CheckpointRetention
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.stop_request import StopRequest
from search.execution.trial_actor import TrialActor
from search.execution.trial_runner import TrialRunner
from search.ledger.attributes import StudyKey
from search.ledger.backup import LedgerBackup
from search.ledger.format_version import LEDGER_FORMAT, check_format
from search.ledger.ledger import Ledger, check_same_settings
from search.ledger.reader import about_to_json, read_earlier_searches
from search.ledger.sampling.backbone_prior import BackbonePrior
from search.ledger.sampling.proposals import ProposalChain, ProposalSource
from search.ledger.sampling.warm_start import (
    TransferredConfig,
    configs_from_json,
    configs_to_json,
    first_configs,
    transferred_configs,
)
from search.ledger.sampling.warm_start_prior import WarmStartPrior
from search.ledger.workspace import Workspace
from search.records.record import BackboneSummary, Outcome, Parameters, SearchRecord
from search.study.backbone_scores import score_prepared
from search.study.preparation import Prepared

PUBLISH_SECONDS = 0.2
"""Whoever watches hears of changes at most this often."""

PUBLISH_SHARE = 0.05
"""Of the driver's time that telling may take, whatever the number of trials."""

FIXED_SETTINGS = ("method", "metric", "epochs", "batch_size", "batch_norm", "seed", "precision")
"""Settings that make trials comparable: a search keeps them for its whole life."""


@dataclass
class Phase:
    """A ledger with everything that is needed to fill it.

    ``told`` is called with the newest record when there is news, a few times a second at most.
    """

    config: SearchConfig
    name: str
    ledger: Ledger
    prepared: Prepared
    session: Session
    stop_request: StopRequest
    checkpoints: Path
    logs: Path
    retention: CheckpointRetention
    storage: Path
    tracking_uri: str
    notify: Callable[[SearchRecord], None]
    limit: int
    backup: LedgerBackup
    trainable: type[Any] = TrialActor
    stopped: str | None = None
    outcome: Outcome | None = None
    alternatives: tuple[Outcome, ...] = ()
    _began: float = field(default_factory=time.monotonic)
    _next_news: float = 0.0

    def __post_init__(self) -> None:
        check_format(self.name, self.ledger.attribute)
        several = self.prepared.block_counts
        blocks = max(several.values(), default=len(self.prepared.backbone.blocks))
        self._earlier = float(self.ledger.attribute(StudyKey.ELAPSED) or 0.0)
        asked = self.config
        self.space: Space = make_space(
            asked.space,
            blocks,
            asked.method,
            asked.methods,
            asked.unlabelled_target,
            several,
            remember=asked.remember is not None,
        )
        check_same_settings(self.ledger, self._identity())
        started = self.ledger.attribute(StudyKey.STARTED)
        if started is None:
            self.ledger.set_attribute(StudyKey.STARTED, started := datetime.now(UTC).isoformat())
        self._started = datetime.fromisoformat(started)
        self.ledger.set_attribute(StudyKey.FORMAT, LEDGER_FORMAT)
        self.ledger.set_attribute(StudyKey.ABOUT, about_to_json(self.record()))
        if self.config.enqueue and self.config.transfers:
            self.ledger.enqueue([dict(c) for c in read_enqueue(self.config.enqueue, self.space)])
        self._transferred = self._transfer_configs() if self.config.warm_start else []

    def run(self) -> None:
        """Fill the ledger up to ``limit`` trials, unless something says to stop."""
        execution = TrialRunner(
            self.config,
            self.session,
            self.ledger,
            self._suggest,
            self._paths,
            self.logs,
            self.checkpoints,
            self.retention,
            self.limit,
            self.stop_request,
            self.publish,
            self.trainable,
        )
        try:
            with self.ledger.wal_mode():
                self.stopped = execution.run()
            self.ledger.set_attribute(StudyKey.STOPPED, self.stopped)
        finally:
            self.save_elapsed()
            self.publish(now=True)

    def set_prior(self, notify: Callable[[str], None]) -> None:
        """Score several backbones, before the first trial, and let the next trials begin with the better ones."""
        known = self.ledger.attribute(StudyKey.PRIOR)
        if (
            known is None
            and self.config.prior == "on"
            and self.prepared.by_backbone
            and not self.ledger.started()
        ):
            found = score_prepared(self.prepared, self.session, self.config.seed, notify)
            if found is not None:
                self.ledger.set_attribute(StudyKey.PRIOR, known := found.to_json())
        guides: list[ProposalSource] = []
        if self._transferred:
            guides.append(WarmStartPrior(self._transferred, self.space, self.config.direction))
        if known is not None and self.config.prior == "on":
            guides.append(BackbonePrior.from_json(known))
        self.ledger.proposal_source = ProposalChain(guides)

    def _transfer_configs(self) -> list[TransferredConfig]:
        """What earlier searches found, kept as it was when this search began; the best of it is tried first."""
        known = self.ledger.attribute(StudyKey.WARM_START)
        if known is None:
            earlier = read_earlier_searches(self.config, Workspace(self.storage, self.name))
            own: dict[str | None, BackboneSummary] = dict(self.prepared.backbones.items())
            found = transferred_configs(
                earlier, self.space, self.prepared.task_summary, own or {None: self.prepared.backbone}
            )
            self.ledger.set_attribute(StudyKey.WARM_START, known := configs_to_json(found))
        found = configs_from_json(known)
        few = first_configs(found, self.limit)
        if not self.ledger.started():
            self.ledger.enqueue([lesson.params for lesson in few], [lesson.origin for lesson in few])
        return found

    def publish(self, now: bool = False) -> None:
        """Tell whoever watches, unless they heard of it just now."""
        moment = time.monotonic()
        if now or moment >= self._next_news:
            self.notify(self.record())
            self._next_news = moment + max(PUBLISH_SECONDS, (time.monotonic() - moment) / PUBLISH_SHARE)
            self.backup.save()

    def save_elapsed(self) -> None:
        """Write the time spent so far into the ledger."""
        self.ledger.set_attribute(StudyKey.ELAPSED, self._elapsed())
        self.backup.save(now=True)

    def record(self, whole: bool = False) -> SearchRecord:
        """The search as data; ``whole`` adds what takes a moment to compute."""
        record = SearchRecord(
            name=self.name,
            metric=self.config.metric,
            direction=self.config.direction,
            objectives=self.config.objective or (),
            task=self.prepared.task_summary,
            source=self.prepared.source_summary,
            teacher=self.prepared.teacher.summary if self.prepared.teacher else None,
            backbone=self.prepared.backbone,
            config=self.config.model_dump(mode="json"),
            trials=self.ledger.trials,
            requested=self.limit,
            started=self._started,
            elapsed=self._elapsed(),
            outcome=self.outcome,
            alternatives=self.alternatives,
            storage=str(self.storage),
            tracking_uri=self.tracking_uri,
            stopped=self.stopped,
            backbones=self.prepared.backbones,
            prior=self.ledger.attribute(StudyKey.PRIOR),
            warm_start=None
            if (taken := self.ledger.attribute(StudyKey.WARM_START)) is None
            else tuple(taken),
        )
        if not whole:
            return record
        edges = self.space.parameters_at_edge(record.best.params) if record.best else ()
        self.ledger.set_attribute(StudyKey.EDGES, list(edges))
        return replace(
            record,
            importances=self.ledger.importances(),
            importance_intervals=self.ledger.importance_intervals(),
            edges=edges,
        )

    def _suggest(self, trial: object) -> Parameters:
        return self.space.suggest(trial)  # type: ignore[arg-type]

    def _paths(self, params: Parameters) -> WorkbenchPaths:
        paths = self.prepared.for_params(params).paths
        # A baseline shares what was prepared with the search, but it does not measure forgetting.
        return replace(paths, remember=None) if self.config.remember is None else paths

    def _elapsed(self) -> float:
        return self._earlier + time.monotonic() - self._began

    def _identity(self) -> dict[str, object]:
        values = self.config.model_dump(mode="json")
        return {
            **{name: values[name] for name in FIXED_SETTINGS},
            **({"objective": values["objective"]} if self.config.objective else {}),
            "views": self.config.reuse_settings.views,
            "space": self.space.describe(),
            "data": self.prepared.task.digest,
            "backbone": self._digests(),
            "warm_start": values["warm_start"],
            "remember": self.prepared.remember.digest if self.prepared.remember else None,
            "source": self.prepared.source.digest if self.prepared.source else None,
            "unlabelled_target": self.config.unlabelled_target or None,
            "teacher": self.prepared.teacher.summary.digest if self.prepared.teacher else None,
        }

    def _digests(self) -> object:
        """What the backbones are: a changed file is another backbone, whatever its name."""
        digests = {name: backbone.digest for name, backbone in self.prepared.backbones.items()}
        return digests or self.prepared.backbone.digest

"""Runs the trials of one ledger, of the search itself or of a baseline, and describes them as a record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from search.config.choices import METHODS
from search.config.enqueue import read_enqueue
from search.config.parameters import BACKBONE, DEPTH
from search.config.search_config import SearchConfig
from search.config.space import Space, make_space
from search.execution.checkpoint_retention import CheckpointRetention
from search.execution.engines.messages import WorkbenchPaths
from search.execution.engines.session import Session
from search.execution.stop_request import StopRequest
from search.execution.trial_actor import TrialActor
from search.execution.trial_runner import TrialRunner
from search.ledger.attributes import StudyKey, TrialKey
from search.ledger.backup import LedgerBackup
from search.ledger.format_version import LEDGER_FORMAT, check_format, explain_unreadable
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
from search.records.epoch_plan import EpochPlan
from search.records.record import BackboneSummary, Outcome, Parameters, ParameterValue, SearchRecord
from search.records.results import outcome_from_json, outcome_to_json
from search.study.backbone_scores import score_prepared
from search.study.preparation import Prepared
from trainables.methods.methods import PROBE

PUBLISH_SECONDS = 0.2
"""Least time between two records that are published."""

PUBLISH_SHARE = 0.05
"""Largest share of the driver's time for making and publishing records, which take longer the more trials there are."""

FIXED_SETTINGS = ("method", "metric", "epochs", "batch_size", "batch_norm", "seed", "precision")
"""Options that must not change when a search is resumed, because trials would not be comparable."""

HEAD_INIT = "head_init"
"""Key of the identity: what heads start from by default."""

PROBE_STRENGTH = 0.25
"""Strength of augmentation that the probe tries besides none: the weakest, which suits most data."""

EPOCHS_BY_METHOD = "epochs_by_method"
"""Key of :attr:`EpochPlan.by_method` in the identity and in the settings of a record. The identity has it, even if it
is empty, only of a plan that is automatic; those of earlier versions have none."""


def stored_epoch_plan(ledger: Ledger) -> EpochPlan | None:
    """Return the plan with which a search was begun; None for a new one."""
    known = ledger.attribute(StudyKey.IDENTITY)
    if known is None:
        return None
    by_method = known.get(EPOCHS_BY_METHOD)
    return EpochPlan(known["epochs"], by_method or {}, automatic=by_method is not None)


@dataclass
class Phase:
    """A ledger with everything that is needed to fill it.

    Opening a phase writes its settings into a new ledger, and compares them with those of an old one.

    Attributes:
        config: of the search, or of the baseline.
        name: of the study in the ledger.
        checkpoints: folder of the trials' checkpoints.
        logs: folder of the logs of driver and engines.
        storage: folder of all searches.
        notify: receives the newest record after changes, at most every :data:`PUBLISH_SECONDS`. It is the view's;
            ``PhaseRunner.delivery`` adds the delivery to MLflow.
        limit: number of trials that the ledger holds in the end.
        epoch_plan: the number of epochs of each trial; ``config.epochs`` is the largest.
        trainable: class of the actors by which Ray Tune runs trials.
        stopped: why no more trials were started before ``limit``; None if all were.
        outcome: of the winner, once it is confirmed.
        alternatives: outcomes of other confirmed points of the front.

    Raises:
        LedgerError: the ledger was written by a newer version, or with other settings.
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
    epoch_plan: EpochPlan
    trainable: type[Any] = TrialActor
    stopped: str | None = None
    outcome: Outcome | None = None
    alternatives: tuple[Outcome, ...] = ()
    _began: float = field(default_factory=time.monotonic)
    _next_publication: float = 0.0

    def __post_init__(self) -> None:
        check_format(self.name, self.ledger.attribute)
        several = self.prepared.block_counts
        blocks = max(several.values(), default=len(self.prepared.backbone.blocks))
        self._earlier = float(self.ledger.attribute(StudyKey.ELAPSED) or 0.0)
        config = self.config
        self.space: Space = make_space(
            config.space,
            blocks,
            config.method,
            config.methods,
            config.unlabelled_target,
            several,
            remember=config.remember is not None,
            random_heads=self._begun_with_random_heads,
        )
        self.ledger.head_init = self._head_init or "random"
        # Nothing is written before this check: a search of the same name with other settings stays as it is.
        check_same_settings(self.ledger, self._identity())
        started = self.ledger.attribute(StudyKey.STARTED)
        if started is None:
            self.ledger.set_attribute(StudyKey.STARTED, started := datetime.now(UTC).isoformat())
        self._started = datetime.fromisoformat(started)
        self.ledger.set_attribute(StudyKey.FORMAT, LEDGER_FORMAT)
        self.ledger.set_attribute(StudyKey.ABOUT, about_to_json(self.record()))
        self._enqueue_probes()
        if self.config.enqueue and self.config.transfers:
            self.ledger.enqueue([dict(c) for c in read_enqueue(self.config.enqueue, self.space)])
        self._transferred = self._transfer_configs() if self.config.warm_start else []

    def run(self) -> None:
        """Fill the ledger up to ``limit`` trials, unless a stop condition holds."""
        runner = TrialRunner(
            self.config,
            self.epoch_plan,
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
                self.stopped = runner.run()
            self.ledger.set_attribute(StudyKey.STOPPED, self.stopped)
        finally:  # also after an error: MLflow and the view show how far the trials came
            self.save_elapsed()
            self.publish(now=True)

    def set_prior(self, notify: Callable[[str], None]) -> None:
        """Let the next trials prefer backbones with better scores, and configurations that earlier searches found good.

        Several backbones are scored once, before the first trial; the ledger keeps the scores.

        Args:
            notify: receives a line about the scores.
        """
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
        sources: list[ProposalSource] = []
        if self._transferred:
            sources.append(WarmStartPrior(self._transferred, self.space, self.config.direction))
        if known is not None and self.config.prior == "on":
            sources.append(BackbonePrior.from_json(known))
        self.ledger.proposal_source = ProposalChain(sources)

    def _transfer_configs(self) -> list[TransferredConfig]:
        """Return the configurations that earlier searches tried. The best of them are enqueued as the first trials.

        The ledger keeps them as they were when this search began, because the earlier searches may go on.
        """
        known = self.ledger.attribute(StudyKey.WARM_START)
        if known is None:
            earlier = read_earlier_searches(self.config, Workspace(self.storage, self.name))
            own: dict[str | None, BackboneSummary] = dict(self.prepared.backbones.items())
            found = transferred_configs(
                earlier, self.space, self.prepared.task_summary, own or {None: self.prepared.backbone}
            )
            self.ledger.set_attribute(StudyKey.WARM_START, known := configs_to_json(found))
        found = configs_from_json(known)
        if not self.ledger.started():
            first = first_configs(found, self.limit)
            self.ledger.enqueue([config.params for config in first], [config.origin for config in first])
        return found

    def publish(self, now: bool = False) -> None:
        """Publish the current record to view and MLflow, unless one was published just now.

        Args:
            now: publish in any case.
        """
        moment = time.monotonic()
        if now or moment >= self._next_publication:
            self.notify(self.record())
            pause = max(PUBLISH_SECONDS, (time.monotonic() - moment) / PUBLISH_SHARE)
            self._next_publication = moment + pause
            self.backup.save()

    def save_elapsed(self) -> None:
        """Write the seconds that the search has run, in all runs of the command, into the ledger."""
        self.ledger.set_attribute(StudyKey.ELAPSED, self._elapsed())
        self.backup.save(now=True)

    def save_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Keep the outcomes of the winner (the first) and of other points of the front in the ledger."""
        self.outcome, self.alternatives = outcomes[0], tuple(outcomes[1:])
        if self.config.objective:
            alternatives = [outcome_to_json(outcome) for outcome in self.alternatives]
            self.ledger.set_attribute(StudyKey.ALTERNATIVES, alternatives)
        # Written last, because load_outcomes ignores the alternatives without it: a kill in between loses nothing.
        self.ledger.set_attribute(StudyKey.OUTCOME, outcome_to_json(outcomes[0]))

    def load_outcomes(self) -> None:
        """Read the outcomes that an earlier run of the command has saved.

        Raises:
            LedgerError: a newer version wrote them.
        """
        outcome = self.ledger.attribute(StudyKey.OUTCOME)
        alternatives = self.ledger.attribute(StudyKey.ALTERNATIVES) or []
        with explain_unreadable(self.name):
            if outcome:
                self.outcome = outcome_from_json(outcome)
                self.alternatives = tuple(map(outcome_from_json, alternatives))

    def record(self, whole: bool = False) -> SearchRecord:
        """Describe the phase as data.

        Args:
            whole: add the importance of parameters and the edges of the space, which take a moment to compute.
        """
        warm_start = self.ledger.attribute(StudyKey.WARM_START)
        record = SearchRecord(
            name=self.name,
            metric=self.config.metric,
            direction=self.config.direction,
            objectives=self.config.objective or (),
            task=self.prepared.task_summary,
            source=self.prepared.source_summary,
            teacher=self.prepared.teacher.summary if self.prepared.teacher else None,
            backbone=self.prepared.backbone,
            config=self._config_values(),
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
            warm_start=None if warm_start is None else tuple(warm_start),
        )
        if not whole:
            return record
        # Kept in the ledger, because `unfreeze report` has no search space to compute them from.
        best = record.winner
        # The frozen probe has no values of its own that a wider range could change.
        edges = self.space.parameters_at_edge(best.params) if best and best.method != PROBE else ()
        self.ledger.set_attribute(StudyKey.EDGES, list(edges))
        return replace(
            record,
            importances=self.ledger.importances(),
            importance_intervals=self.ledger.importance_intervals(),
            edges=edges,
        )

    def _enqueue_probes(self) -> None:
        """Make the frozen probe of each backbone the first trials, unless the search is to have none.

        A search that has begun without them goes on without them.
        """
        config = self.config
        suitable = any(METHODS[name].transfers and METHODS[name].searchable for name in config.methods)
        if config.probe == "off" or config.unlabelled_target or not suitable:
            return
        params: dict[str, ParameterValue] = {
            DEPTH: 0,
            "head_units": 0,
            "augmentation_strength": PROBE_STRENGTH if config.reuse_settings.views else 0.0,
        }
        several: list[Parameters] = [{BACKBONE: name, **params} for name in self.prepared.block_counts]
        self.ledger.enqueue_references((several or [params])[: self.limit], PROBE)

    @property
    def _head_init(self) -> str | None:
        """What heads start from by default. None for random weights.

        A search keeps what it was begun with. Where trials may not see labels of the target there is no probe to start
        from.
        """
        known = self.ledger.attribute(StudyKey.IDENTITY)
        if known is not None:
            found: str | None = known.get(HEAD_INIT)
            return found
        config = self.config
        suitable = any(METHODS[name].transfers and name != "source" for name in config.methods)
        return "probe" if suitable and not config.unlabelled_target else None

    @property
    def _begun_with_random_heads(self) -> bool:
        """Whether an earlier version, which knew no other default, has begun the search."""
        known = self.ledger.attribute(StudyKey.IDENTITY)
        return known is not None and HEAD_INIT not in known

    def _suggest(self, asked: Any) -> Parameters:
        if asked.user_attrs.get(TrialKey.METHOD) != PROBE:
            return self.space.suggest(asked)
        known = self.ledger.trial(asked.number).params
        self.space.suggest_given(asked, known)
        return known

    def _paths(self, params: Parameters) -> WorkbenchPaths:
        paths = self.prepared.for_params(params).paths
        # A baseline shares what was prepared with the search, but it does not measure forgetting.
        return replace(paths, remember=None) if self.config.remember is None else paths

    def _elapsed(self) -> float:
        return self._earlier + time.monotonic() - self._began

    def _identity(self) -> dict[str, object]:
        """Return what must be the same when the search is resumed, as JSON values. The keys are stored in ledgers."""
        values = self.config.model_dump(mode="json")
        return {
            **{name: values[name] for name in FIXED_SETTINGS},
            EPOCHS_BY_METHOD: dict(self.epoch_plan.by_method) if self.epoch_plan.automatic else None,
            **({"objective": values["objective"]} if self.config.objective else {}),
            # Without the key if an earlier version has begun the search.
            **({} if self._begun_with_random_heads else {HEAD_INIT: self._head_init}),
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

    def _config_values(self) -> dict[str, object]:
        """Return the settings as JSON values, with the numbers of epochs that methods have."""
        values: dict[str, object] = self.config.model_dump(mode="json")
        own = dict(self.epoch_plan.by_method)
        return {**values, EPOCHS_BY_METHOD: own} if own else values

    def _digests(self) -> object:
        """Digests of the backbones, because a changed file is another backbone, whatever its name."""
        digests = {name: backbone.digest for name, backbone in self.prepared.backbones.items()}
        return digests or self.prepared.backbone.digest

"""Runs the baselines of a search: as many trials, under the same budget, of methods that transfer less.

Each baseline is a search of its own, with its own ledger, in the folder of the search.
"""

from __future__ import annotations

from search.config.choices import (
    ALL_METHODS,
    BASELINE_SOURCES,
    METHODS,
    SCRATCH_EPOCH_FACTOR,
    SCRATCH_TRIALS_DIVISOR,
    baseline_epoch_factor,
)
from search.config.search_config import SearchConfig
from search.records.epoch_plan import EpochPlan
from search.study.phase import Phase
from search.study.phase_runner import PhaseRunner
from search.study.preparation import Prepared
from search.tracking.experiments import experiment_name


def run_baselines(runner: PhaseRunner, search: Phase, task: str) -> list[Phase]:
    """Run all baselines of ``search``, whose trials are done.

    Args:
        task: name of the target, for MLflow.
    """
    config = runner.config
    limit = config.planned_baseline_trials
    if not limit:
        return []
    if search.stopped and config.baseline_trials is None:
        # A search that ended early is compared with as many trials as it had itself.
        limit = max(1, min(limit, search.ledger.started()))
    return [_run_baseline(runner, search, method, limit, task) for method in config.baselines]


def _run_baseline(runner: PhaseRunner, search: Phase, method: str, limit: int, task: str) -> Phase:
    plan = EpochPlan(baseline_epochs(runner.config, search.epoch_plan, method, runner.prepared))
    limit = baseline_trials(runner.config, search.epoch_plan, method, limit)
    config = _baseline_config(runner.config, method, limit)
    name = runner.workspace.baseline_name(method)
    phase = runner.open_phase(config, name, limit, runner.workspace.baseline_ledger(method), plan)
    runner.view.event(
        f"baseline: {limit} trials from {BASELINE_SOURCES[method]}, to measure what transfer is worth"
    )
    with runner.delivery(phase, experiment_name(task, baseline=method)) as delivery:
        runner.run_trials(phase)
        delivery.finish(phase.record(whole=True))
    return phase


def _baseline_config(config: SearchConfig, method: str, limit: int) -> SearchConfig:
    """Return the options of the search without what is part of the transfer itself."""
    return config.replace(
        method=method,
        enqueue=None,
        warm_start=None,
        remember=None,
        trials=limit,
        keep_best=0,
        objective=None,
        epochs=None,
    )


def baseline_epochs(config: SearchConfig, plan: EpochPlan, method: str, prepared: Prepared) -> int:
    """Return the number of epochs of a trial of the baseline ``method``.

    They give about as many training steps as a trial of the search has. A network that trains from scratch needs more
    and gets them, unless the user decided on the number of epochs.

    Args:
        config: of the search.
        plan: of the search.
    """
    source, epochs = prepared.source, plan.epochs
    if source is not None and method != "source" and config.method != ALL_METHODS:
        epochs = round(epochs * baseline_epoch_factor(prepared.task.counts["train"], source.counts["train"]))
    return epochs * SCRATCH_EPOCH_FACTOR if _trains_longer(plan, method) else epochs


def baseline_trials(config: SearchConfig, plan: EpochPlan, method: str, trials: int) -> int:
    """Return the number of trials of the baseline ``method`` where others have ``trials``.

    By default a baseline whose trials are longer has fewer, so that it takes about as many steps as the search.
    """
    if config.baseline_trials is not None or not _trains_longer(plan, method):
        return trials
    return max(1, round(trials / SCRATCH_TRIALS_DIVISOR))


def _trains_longer(plan: EpochPlan, method: str) -> bool:
    """Return whether a trial of a baseline has more epochs because it transfers nothing."""
    return plan.automatic and not METHODS[method].transfers

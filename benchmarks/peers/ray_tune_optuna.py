"""Run the contender of :mod:`benchmarks.time_to_quality`: Ray Tune with OptunaSearch and ASHAScheduler, as in their
guides.

The space is unfreeze's core space; a trial is :func:`benchmarks.peers.ray_tune_function.train`. OptunaSearch and
ASHAScheduler use their defaults except for the seed, the metric and the maximum number of epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.ray_tune_function import train
from benchmarks.peers.tune_callback import TrialClock
from benchmarks.workloads.workload import Workload


def core_space(blocks: int) -> Mapping[str, Any]:
    """The four parameters, with the ranges of unfreeze's core space."""
    return {
        "unfreeze_depth": tune.randint(0, blocks + 1),
        "learning_rate": tune.loguniform(1e-4, 3e-2),
        "head_units": tune.qrandint(0, 256, 64),
        "augmentation_strength": tune.quniform(0.0, 1.0, 0.25),
    }


def search(work: Workload, trials: int) -> TrialClock:
    """Run ``trials`` trials of at most ``work.epochs`` epochs. The returned clock has the times of improvements."""
    ray.init(num_cpus=work.concurrent, include_dashboard=False, log_to_driver=False)
    clock = TrialClock()
    tuner = tune.Tuner(
        tune.with_parameters(train, work=work, data=work.load_arrays()),
        param_space={"trial": dict(core_space(max(work.frozen)))},
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=work.seed),
            scheduler=ASHAScheduler(max_t=work.epochs),
            num_samples=trials,
            max_concurrent_trials=work.concurrent,
        ),
        run_config=tune.RunConfig(
            name="optuna", storage_path=str(work.folder / "ray"), verbose=0, callbacks=[clock]
        ),
    )
    tuner.fit()
    ray.shutdown()
    return clock

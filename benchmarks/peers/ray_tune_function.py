"""Run the contender Ray Tune with a function trainable, as in its guide to Keras.

A function calls ``model.compile`` and ``model.fit`` and reports metrics through ``TuneReportCheckpointCallback``
(without checkpoints, which would cost more time). The data are in the object store through ``tune.with_parameters``.
Ray starts a process for every trial.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from benchmarks.peers.trial_times import TrialTimes
from benchmarks.peers.tune_callback import TrialClock
from benchmarks.workloads.workload import Workload


def train(config: dict[str, Any], work: Workload, data: dict[str, Any]) -> None:
    """Train one trial."""
    import keras
    from ray.tune.integration.keras import TuneReportCheckpointCallback

    from benchmarks.peers.keras_training import build_model, steps_of, training_data, validation_data

    keras.utils.set_random_seed(work.seed)
    trial, labels = config["trial"], data["train_labels"]
    steps = steps_of(len(labels), work.batch_size, work.epochs)
    model = build_model(trial, str(work.backbone), work.frozen, int(labels.max()) + 1, steps)
    model.fit(
        training_data(
            data["train_images"], labels, work.batch_size, trial["augmentation_strength"], work.seed
        ),
        validation_data=validation_data(
            data["validation_images"], data["validation_labels"], work.batch_size
        ),
        epochs=work.epochs,
        verbose=0,
        callbacks=[TuneReportCheckpointCallback(checkpoint_on=[])],
    )


def run(work: Workload) -> list[TrialTimes]:
    """Run all configurations of ``work``, ``work.concurrent`` at a time."""
    ray.init(num_cpus=work.concurrent, include_dashboard=False, log_to_driver=False)
    clock = TrialClock()
    tuner = tune.Tuner(
        tune.with_parameters(train, work=work, data=work.load_arrays()),
        param_space={"trial": tune.grid_search(list(work.configurations))},
        tune_config=tune.TuneConfig(max_concurrent_trials=work.concurrent),
        run_config=tune.RunConfig(
            name="plain", storage_path=str(work.folder / "ray"), verbose=0, callbacks=[clock]
        ),
    )
    tuner.fit()
    ray.shutdown()
    return list(clock.trials.values())

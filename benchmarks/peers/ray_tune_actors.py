"""Run the contender Ray Tune with a class trainable and ``reuse_actors=True``.

Two processes run one trial after another; ``reset_config`` builds the next model. A step is one epoch of ``model.fit``.
There are no checkpoints.
"""

from __future__ import annotations

from typing import Any

import ray
from ray import tune

from benchmarks.peers.trial_times import TrialTimes
from benchmarks.peers.tune_callback import TrialClock
from benchmarks.workloads.workload import Workload


class Classifier(tune.Trainable):
    """Trains one configuration after another."""

    def setup(self, config: dict[str, Any], work: Workload, data: dict[str, Any]) -> None:
        """Prepare the first trial."""
        self.work, self.data = work, data
        self.prepare(config["trial"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare the next trial in the same process."""
        import keras

        keras.backend.clear_session()
        self.prepare(new_config["trial"])
        return True

    def prepare(self, trial: dict[str, Any]) -> None:
        """Build model and data of a configuration."""
        import keras

        from benchmarks.peers.keras_training import build_model, steps_of, training_data, validation_data

        work, data = self.work, self.data
        keras.utils.set_random_seed(work.seed)
        labels, strength = data["train_labels"], trial["augmentation_strength"]
        steps = steps_of(len(labels), work.batch_size, work.epochs)
        self.model = build_model(trial, str(work.backbone), work.frozen, int(labels.max()) + 1, steps)
        self.train_data = training_data(data["train_images"], labels, work.batch_size, strength, work.seed)
        self.validation_data = validation_data(
            data["validation_images"], data["validation_labels"], work.batch_size
        )

    def step(self) -> dict[str, Any]:
        """Train one epoch."""
        history = self.model.fit(
            self.train_data,
            validation_data=self.validation_data,
            initial_epoch=self.iteration,
            epochs=self.iteration + 1,
            verbose=0,
        )
        return {name: values[-1] for name, values in history.history.items()}


def run(work: Workload) -> list[TrialTimes]:
    """Run all configurations of ``work``, ``work.concurrent`` at a time."""
    ray.init(num_cpus=work.concurrent, include_dashboard=False, log_to_driver=False)
    clock = TrialClock()
    tuner = tune.Tuner(
        tune.with_parameters(Classifier, work=work, data=work.load_arrays()),
        param_space={"trial": tune.grid_search(list(work.configurations))},
        tune_config=tune.TuneConfig(max_concurrent_trials=work.concurrent, reuse_actors=True),
        run_config=tune.RunConfig(
            name="reuse",
            storage_path=str(work.folder / "ray"),
            stop={"training_iteration": work.epochs},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            callbacks=[clock],
        ),
    )
    tuner.fit()
    ray.shutdown()
    return list(clock.trials.values())

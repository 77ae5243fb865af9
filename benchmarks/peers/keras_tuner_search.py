"""Run the contender KerasTuner: one trial after another in one process, with all cores, as it always does.

Its ``GridSearch`` goes through the configurations, which are the values of one hyperparameter, their number. It saves
the best epoch of every trial; this cannot be switched off. It needs ``pip install keras-tuner tensorboard``. Neither is
a dependency of unfreeze, and KerasTuner imports the second without declaring it.
"""

from __future__ import annotations

import time
from typing import Any

import keras_tuner

from benchmarks.peers.keras_training import build_model, steps_of, training_data, validation_data
from benchmarks.peers.trial_times import TrialTimes
from benchmarks.workloads.workload import Workload


class FineTuning(keras_tuner.HyperModel):  # type: ignore[misc]
    """Builds and fits one of the configurations."""

    def __init__(self, work: Workload) -> None:
        super().__init__()
        self.work, self.data = work, work.load_arrays()

    def build(self, hp: Any) -> Any:
        """Return a compiled model."""
        work, labels = self.work, self.data["train_labels"]
        config = work.configurations[hp.Choice("configuration", list(range(len(work.configurations))))]
        steps = steps_of(len(labels), work.batch_size, work.epochs)
        return build_model(config, str(work.backbone), work.frozen, int(labels.max()) + 1, steps)

    def fit(self, hp: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        """Train the model. The data pipeline depends on the configuration."""
        config = self.work.configurations[hp.get("configuration")]
        images, labels = self.data["train_images"], self.data["train_labels"]
        data = training_data(
            images, labels, self.work.batch_size, config["augmentation_strength"], self.work.seed
        )
        return model.fit(data, *args, **kwargs)


class TimedGridSearch(keras_tuner.GridSearch):  # type: ignore[misc]
    """A grid search that records when each trial began and ended."""

    times: tuple[TrialTimes, ...] = ()

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> Any:
        """Run one trial and record its times."""
        times = TrialTimes(time.time())
        histories = super().run_trial(trial, *args, **kwargs)
        times.ended = time.time()
        times.val_accuracy = max(histories[0].history["val_accuracy"])
        self.times = (*self.times, times)
        return histories


def run(work: Workload) -> list[TrialTimes]:
    """Run all configurations of ``work``."""
    hypermodel = FineTuning(work)
    tuner = TimedGridSearch(
        hypermodel,
        objective="val_accuracy",
        max_trials=len(work.configurations),
        seed=work.seed,
        directory=str(work.folder),
        project_name="keras_tuner",
        overwrite=True,
    )
    data = hypermodel.data
    tuner.search(
        epochs=work.epochs,
        validation_data=validation_data(
            data["validation_images"], data["validation_labels"], work.batch_size
        ),
        verbose=0,
    )
    return list(tuner.times)

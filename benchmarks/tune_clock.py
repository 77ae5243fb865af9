"""Record the times of Ray Tune's trials in the driver, through Ray Tune's callbacks."""

from __future__ import annotations

import time
from typing import Any

from ray import tune
from trial_times import TrialTimes


class Clock(tune.Callback):
    """Notes when trials begin, get better and end.

    Attributes:
        trials: by Ray Tune's id, in the order in which they began.
        improvements: (moment, best validation accuracy of any trial so far), whenever that got better.
    """

    def __init__(self) -> None:
        self.trials: dict[str, TrialTimes] = {}
        self.improvements: list[tuple[float, float]] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins."""
        self.trials.setdefault(trial.trial_id, TrialTimes(time.time()))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is over."""
        times, value = self.trials[trial.trial_id], float(result["val_accuracy"])
        times.val_accuracy = max(times.val_accuracy, value)
        if not self.improvements or value > self.improvements[-1][1]:
            self.improvements.append((time.time(), value))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial is over."""
        self.trials[trial.trial_id].ended = time.time()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A benchmark with failing trials measures nothing."""
        raise RuntimeError(f"trial {trial.trial_id} failed; see {trial.local_path}")

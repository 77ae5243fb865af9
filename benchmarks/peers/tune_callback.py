"""Record the times of Ray Tune's trials in the driver, through Ray Tune's callbacks."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from benchmarks.peers.trial_times import TrialTimes


class TrialClock(tune.Callback):
    """Records when trials begin, improve and end.

    Attributes:
        trials: the trials by Ray Tune's id, in the order of their start.
        improvements: (time, best validation accuracy of any trial so far) at each improvement.
    """

    def __init__(self) -> None:
        self.trials: dict[str, TrialTimes] = {}
        self.improvements: list[tuple[float, float]] = []

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the start of a trial."""
        self.trials.setdefault(trial.trial_id, TrialTimes(time.time()))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an improvement after an epoch."""
        times, value = self.trials[trial.trial_id], float(result["val_accuracy"])
        times.val_accuracy = max(times.val_accuracy, value)
        if not self.improvements or value > self.improvements[-1][1]:
            self.improvements.append((time.time(), value))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the end of a trial."""
        self.trials[trial.trial_id].ended = time.time()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Raise an error, because a benchmark with failing trials is meaningless."""
        raise RuntimeError(f"trial {trial.trial_id} failed; see {trial.local_path}")

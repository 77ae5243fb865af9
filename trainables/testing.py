"""Conformance tests of transfer methods: each method's test class inherits them.

>>> class TestFineTune(MethodConformance):
...     method = "finetune"
...     params = {"unfreeze_depth": 1, "learning_rate": 1e-2, "head_units": 0, "augmentation_strength": 0.5}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.epoch_metrics import EpochMetrics
from trainables.errors import Diverged
from trainables.methods.methods import begin
from trainables.training.resuming import load_training, save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

EPOCHS = 4


class MethodConformance:
    """What every method must do.

    Inherit from this class, set ``method`` and ``params``, and provide a fixture ``bench``: a
    :class:`~trainables.training.workbench.Workbench` on a small task.
    """

    method: str
    params: Mapping[str, Any]

    epochs: int = EPOCHS
    """How many epochs a trial has."""

    steps: bool = True
    """Whether a trial takes gradient steps. If it does not, neither seed nor learning rate change anything."""

    def config(self, **changes: Any) -> TrialConfig:
        """Return the configuration under test with ``changes`` to its fields."""
        settings = {
            "method": self.method,
            "params": dict(self.params),
            "epochs": self.epochs,
            "batch_size": 16,
            "seed": 5,
        }
        return TrialConfig(**{**settings, **changes})

    def run(self, bench: Workbench, **changes: Any) -> tuple[list[EpochMetrics], Training]:
        """Train to the end; return the metrics of all epochs, and the training."""
        training = begin(self.config(**changes), bench)
        metrics = []
        while not training.done:
            metrics.append(training.run_epoch())
        training.release()
        return metrics, training

    def test_reports_every_metric_each_epoch(self, bench: Workbench) -> None:
        metrics, training = self.run(bench)
        assert [m.epoch for m in metrics] == list(range(1, self.epochs + 1))
        for m in metrics:
            assert 0 <= m.val_accuracy <= 1
            assert m.val_loss > 0
            assert m.train_loss > 0
            assert m.epoch_seconds > 0
        assert sum(training.stage_seconds.values()) > 0

    def test_same_seed_same_numbers_even_after_another_trial(self, bench: Workbench) -> None:
        first, _ = self.run(bench)
        self.run(bench, seed=6)
        again, _ = self.run(bench)
        assert _numbers(again) == _numbers(first)

    def test_another_seed_gives_other_numbers(self, bench: Workbench) -> None:
        first, _ = self.run(bench)
        other, _ = self.run(bench, seed=6)
        assert (_numbers(other) != _numbers(first)) == self.steps

    def test_second_trial_of_a_shape_compiles_nothing(self, bench: Workbench) -> None:
        self.run(bench)
        compiled = bench.compiled
        _, training = self.run(bench, params={**self.params, "learning_rate": 2e-3}, seed=8)
        assert bench.compiled == compiled
        assert training.stage_seconds.get("compile", 0.0) == 0.0

    @pytest.mark.parametrize("stop", [1, EPOCHS - 1])
    def test_resumed_equals_uninterrupted(self, bench: Workbench, tmp_path: Path, stop: int) -> None:
        whole, uninterrupted = self.run(bench)
        stop = min(stop, self.epochs)
        first = begin(self.config(), bench)
        before = [first.run_epoch() for _ in range(stop)]
        save_training(first, tmp_path / "checkpoint.npz")
        first.release()
        self.run(bench, seed=9)  # another trial uses the compiled program in between
        second = begin(self.config(), bench)
        load_training(second, tmp_path / "checkpoint.npz")
        after = [second.run_epoch() for _ in range(self.epochs - stop)]
        second.release()
        assert _numbers(before + after) == _numbers(whole)
        assert second.best is not None
        assert uninterrupted.best is not None
        assert second.best.epoch == uninterrupted.best.epoch
        for ours, theirs in zip(second.best_weights, uninterrupted.best_weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_learns_something(self, bench: Workbench) -> None:
        if not self.steps:
            pytest.skip("takes no gradient steps")
        metrics, _ = self.run(bench, epochs=12)
        assert metrics[-1].train_loss < metrics[0].train_loss

    def test_keeps_the_best_epoch(self, bench: Workbench) -> None:
        training = begin(self.config(), bench)
        metrics = [training.run_epoch() for _ in range(self.epochs)]
        best = max(metrics, key=lambda m: (m.val_accuracy, -m.val_loss))
        predicted = training.predict("validation").argmax(axis=1)
        training.release()
        assert training.best == best
        assert (predicted == bench.task.split("validation").labels).mean() == pytest.approx(best.val_accuracy)

    def test_leaves_the_pretrained_weights_alone(self, bench: Workbench) -> None:
        before = [np.array(w.numpy()) for w in bench.backbone.model.weights]
        self.run(bench)
        for was, now in zip(before, bench.backbone.model.weights, strict=True):
            np.testing.assert_array_equal(was, now.numpy())

    def test_divergence_is_an_error_with_its_reason(self, bench: Workbench) -> None:
        if not self.steps:
            pytest.skip("takes no gradient steps")
        training = begin(self.config(params={**self.params, "learning_rate": 1e30}), bench)
        with pytest.raises(Diverged) as caught:
            _train_to_the_end(training)
        training.release()
        assert caught.value.reason == "diverged"
        after, _ = self.run(bench)
        assert all(math.isfinite(m.train_loss) for m in after)


def _train_to_the_end(training: Training) -> None:
    while not training.done:
        training.run_epoch()


def _numbers(metrics: list[EpochMetrics]) -> list[tuple[float, float, float]]:
    return [(m.train_loss, m.val_loss, m.val_accuracy) for m in metrics]

"""Heads that are trained in one batch get the numbers of heads that are trained alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from trainables.batched_heads.batching import HeadBatcher
from trainables.batched_heads.fused import FusedHeads
from trainables.batched_heads.program import HeadProgram
from trainables.batched_heads.state import HeadEpoch
from trainables.compiled.program import Program
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import Diverged, OutOfMemory
from trainables.methods.methods import begin
from trainables.reuse import Reuse
from trainables.training.resuming import load_training, save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

EPOCHS = 4
TOLERANCE = 1e-4
"""Relative, on losses: fused and alone may differ by the order of the sums within a matrix product."""

VARIETY: list[dict[str, Any]] = [
    {},
    {"learning_rate": 3e-3, "dropout": 0.5},
    {"learning_rate": 1e-3, "weight_decay": 0.3},
    {"label_smoothing": 0.2, "augmentation_strength": 0.5},
    {"learning_rate": 3e-2, "dropout": 0.1, "weight_decay": 0.01, "horizontal_flip": True},
]


def trial(seed: int, units: int = 16, live: bool = False, **changes: Any) -> TrialConfig:
    params = {"unfreeze_depth": 0, "learning_rate": 1e-2, "head_units": units, "augmentation_strength": 0.0}
    return TrialConfig("finetune", {**params, **changes}, epochs=EPOCHS, seed=seed, live=live)


def shared(training: Training) -> HeadBatcher:
    assert isinstance(training.program, HeadProgram)
    return training.program.batcher


def epoch_of(trainings: Sequence[Training]) -> list[Future[EpochMetrics]]:
    """One epoch of each as one batch."""
    queue = shared(trainings[0]).queue
    with ThreadPoolExecutor(len(trainings)) as pool:
        with queue.paused():
            futures = [pool.submit(t.run_epoch) for t in trainings]
            while len(queue) < len(trainings):
                time.sleep(0.001)
        return futures


def fused(trainings: Sequence[Training], epochs: int) -> list[list[EpochMetrics]]:
    rows = [[f.result() for f in epoch_of(trainings)] for _ in range(epochs)]
    return [list(column) for column in zip(*rows, strict=True)]


def alone(bench: Workbench, config: TrialConfig) -> tuple[list[EpochMetrics], list[np.ndarray]]:
    training = begin(config, bench)
    metrics = [training.run_epoch() for _ in range(config.epochs)]
    return metrics, training.program.read()[0]


def assert_same(found: Sequence[EpochMetrics], expected: Sequence[EpochMetrics]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.epoch == theirs.epoch
        np.testing.assert_allclose(
            [ours.train_loss, ours.val_loss], [theirs.train_loss, theirs.val_loss], rtol=TOLERANCE
        )
        assert ours.val_accuracy == pytest.approx(theirs.val_accuracy, abs=0.005)


@pytest.mark.parametrize("units", [0, 16])
def test_batched_heads_equal_heads_trained_alone(print_bench: Workbench, units: int) -> None:
    configs = [trial(seed, units, **changes) for seed, changes in enumerate(VARIETY)]
    trainings = [begin(c, print_bench) for c in configs]
    together = fused(trainings, EPOCHS)
    assert shared(trainings[0]).batches[len(configs)] == EPOCHS
    for config, training, found in zip(configs, trainings, together, strict=True):
        expected, weights = alone(print_bench, config)
        assert_same(found, expected)
        for ours, theirs in zip(training.program.read()[0], weights, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_trials_join_and_leave_without_tracing_again(print_bench: Workbench) -> None:
    configs = [trial(seed, **VARIETY[seed]) for seed in range(4)]
    first, second, third, fourth = (begin(c, print_bench) for c in configs)
    traces = shared(first).fused.traces
    found: dict[int, list[EpochMetrics]] = {id(t): [] for t in (first, second, third, fourth)}
    for group in (
        [first],
        [first, second, third],
        [second, first],
        [fourth, first, second],
        [second, fourth],
    ):
        for training, future in zip(group, epoch_of(group), strict=True):
            found[id(training)].append(future.result())
    for training in (first, second, third, fourth):
        expected, _ = alone(print_bench, training.config)
        mine = found[id(training)]
        assert_same(mine, expected[: len(mine)])
    assert [len(mine) for mine in found.values()] == [4, 4, 1, 2]
    assert shared(first).fused.traces == traces


def test_batched_heads_equal_trials_on_images(print_bench: Workbench) -> None:
    for changes in VARIETY[:3]:
        kept, _ = alone(print_bench, trial(3, **changes))
        live, _ = alone(print_bench, trial(3, live=True, **changes))
        np.testing.assert_allclose([m.train_loss for m in kept], [m.train_loss for m in live], rtol=2e-3)


@pytest.mark.parametrize("heads", [True, False])
def test_checkpoints_of_batched_and_own_programs_are_interchangeable(
    print_bench: Workbench, tmp_path: Path, heads: bool
) -> None:
    config, file = trial(1, dropout=0.2, weight_decay=0.1), tmp_path / "c ü.npz"
    expected, _ = alone(print_bench, config)
    trainings = [begin(config, print_bench), begin(trial(2), print_bench)]
    fused(trainings, 2)
    save_training(trainings[0], file)
    bench = Workbench(print_bench.backbone, print_bench.task, print_bench.activations, Reuse(heads=heads))
    resumed = begin(config, bench)
    assert isinstance(resumed.program, HeadProgram if heads else Program)
    load_training(resumed, file)
    third = resumed.run_epoch()
    save_training(resumed, file)
    again = begin(config, print_bench)
    load_training(again, file)
    (fourth,), _ = fused([again, begin(trial(5), print_bench)], 1)
    for found, wanted in ((third, expected[2]), (fourth, expected[3])):
        assert found.train_loss == pytest.approx(wanted.train_loss, rel=TOLERANCE)


def test_a_diverging_trial_does_not_affect_others(print_bench: Workbench) -> None:
    configs = [trial(1), trial(2, learning_rate=1e30), trial(3)]
    trainings = [begin(c, print_bench) for c in configs]
    found: list[list[EpochMetrics]] = [[], []]
    for _ in range(EPOCHS):
        futures = epoch_of(trainings)
        found[0].append(futures[0].result())
        found[1].append(futures[-1].result())
        if len(futures) == 3 and futures[1].exception() is not None:
            assert isinstance(futures[1].exception(), Diverged)
            trainings.pop(1)
    assert len(trainings) == 2
    for metrics, config in zip(found, (configs[0], configs[2]), strict=True):
        assert_same(metrics, alone(print_bench, config)[0])


class Narrow(FusedHeads):
    """Has memory for one trial at a time, and for none with a learning rate above 0.5."""

    def train(self, epochs: Sequence[HeadEpoch]) -> Any:
        if len(epochs) > 1 or epochs[0].rates.max() > 0.5:
            raise tf.errors.ResourceExhaustedError(None, None, "no room")
        return super().train(epochs)


def test_a_batch_that_runs_out_of_memory_is_run_one_by_one(print_bench: Workbench) -> None:
    trainings = [begin(trial(1, 17), print_bench), begin(trial(2, 17, learning_rate=8.0), print_bench)]
    together = shared(trainings[0])
    together.fused = Narrow(together.shape)
    first, second = epoch_of(trainings)
    assert isinstance(second.exception(), OutOfMemory)
    assert first.result().epoch == 1
    assert together.batches == {1: 1}


def test_a_trial_goes_on_with_images_if_activations_are_no_longer_kept(
    print_bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = alone(print_bench, trial(1, dropout=0.2))
    training = begin(trial(1, dropout=0.2), print_bench)
    training.run_epoch()
    monkeypatch.setattr(training.bench.activations, "get", lambda *_, **__: None)
    metrics = training.run_epoch()
    monkeypatch.undo()
    assert isinstance(training.program, Program)
    assert metrics.train_loss == pytest.approx(expected[1].train_loss, rel=2e-3)
    training.release()


def test_the_cost_of_a_batch_is_split_among_its_trials(print_bench: Workbench) -> None:
    trainings = [begin(trial(seed), print_bench) for seed in range(4)]
    began = time.perf_counter()
    fused(trainings, 2)
    passed = time.perf_counter() - began
    assert sum(t.stage_seconds["suffix"] + t.stage_seconds["evaluate"] for t in trainings) <= passed


def test_trials_on_activations_of_different_dtypes_share_a_batch(print_bench: Workbench) -> None:
    configs = [trial(1), trial(2)]
    trainings = [begin(c, print_bench) for c in configs]
    kept = trainings[1].feed.activation_epoch

    def wider(epoch: int) -> tuple[np.ndarray, np.ndarray] | None:
        rows = kept(epoch)
        return rows and (rows[0].astype(np.float32), rows[1])

    trainings[1].feed.activation_epoch = wider  # type: ignore[method-assign]
    for found, config in zip(fused(trainings, EPOCHS), configs, strict=True):
        assert_same(found, alone(print_bench, config)[0])

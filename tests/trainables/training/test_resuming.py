"""A resumed trial sees its images as it did before, whatever the reuse policy would decide now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.activations.activations import ActivationCache
from trainables.activations.machine_speed import Rates
from trainables.errors import DataError
from trainables.methods.methods import begin
from trainables.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from trainables.training.resuming import load_training, save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

EPOCHS = 3


class NoMemory:
    """A machine without free memory."""

    memory = Rates(1e9, 1e9, 1e9)
    disk = None
    file_cache = 0
    min_seconds_for_file = 0.25


@pytest.fixture(scope="module")
def bench(print_bench: Workbench) -> Workbench:
    return Workbench(
        print_bench.backbone, print_bench.task, ActivationCache(print_bench.backbone, print_bench.task)
    )


@pytest.fixture(scope="module")
def full(print_bench: Workbench) -> Workbench:
    """The same workbench without memory for activations."""
    activations = ActivationCache(print_bench.backbone, print_bench.task, budget=0)
    return Workbench(print_bench.backbone, print_bench.task, activations)


@pytest.fixture(scope="module")
def starved(print_bench: Workbench) -> Workbench:
    """The same workbench without memory for the activations of even one epoch."""
    activations = ActivationCache(print_bench.backbone, print_bench.task, budget=0, speeds=NoMemory())
    return Workbench(print_bench.backbone, print_bench.task, activations)


def config(depth: int, strength: float = 0.5) -> TrialConfig:
    params = {
        "unfreeze_depth": depth,
        "learning_rate": 3e-3,
        "head_units": 0,
        "augmentation_strength": strength,
        "dropout": 0.2,
    }
    return TrialConfig("finetune", params, epochs=EPOCHS, seed=5)


def numbers(training: Training, epochs: int) -> list[float]:
    metrics = [training.run_epoch() for _ in range(epochs)]
    return [n for m in metrics for n in (m.train_loss, m.val_loss, m.val_accuracy)]


def run(bench: Workbench, trial: TrialConfig) -> list[float]:
    training = begin(trial, bench)
    found = numbers(training, EPOCHS)
    training.release()
    return found


def moved(
    trial: TrialConfig, first: Workbench, second: Workbench, file: Path
) -> tuple[list[float], Training]:
    """Train one epoch on ``first`` and the others on ``second``."""
    training = begin(trial, first)
    before = numbers(training, 1)
    save_training(training, file)
    training.release()
    resumed = begin(trial, second)
    load_training(resumed, file)
    assert resumed.decision == training.decision
    after = numbers(resumed, EPOCHS - 1)
    resumed.release()
    return before + after, resumed


@pytest.mark.parametrize("depth", [0, 1])
def test_activations_that_can_no_longer_be_kept_are_recomputed_bit_for_bit(
    bench: Workbench, full: Workbench, tmp_path: Path, depth: int
) -> None:
    assert not full.activations.decide(depth, EPOCHS, strength=0.5).reuse
    found, resumed = moved(config(depth), bench, full, tmp_path / "ü 字.npz")
    assert resumed.decision.reuse
    assert found == run(bench, config(depth))


@pytest.mark.parametrize("depth", [0, 1])
def test_a_trial_on_images_stays_on_images_when_the_cache_has_room(
    bench: Workbench, full: Workbench, tmp_path: Path, depth: int
) -> None:
    assert bench.activations.decide(depth, EPOCHS, strength=0.5).reuse
    found, resumed = moved(config(depth), full, bench, tmp_path / "c.npz")
    assert not resumed.decision.reuse
    assert found == run(full, config(depth))


def test_without_memory_for_one_epoch_only_the_last_bits_differ(
    bench: Workbench, starved: Workbench, tmp_path: Path
) -> None:
    found, resumed = moved(config(1), bench, starved, tmp_path / "c.npz")
    assert resumed.decision.reuse
    np.testing.assert_allclose(found, run(bench, config(1)), rtol=1e-3)


def test_a_resumed_trial_continues_its_cost_account(bench: Workbench, tmp_path: Path) -> None:
    trial = config(1)
    training = begin(trial, bench)
    numbers(training, 1)
    save_training(training, tmp_path / "c.npz")
    before, counts = dict(training.stage_seconds), training.cost().counts
    training.release()
    resumed = begin(trial, bench)
    load_training(resumed, tmp_path / "c.npz")
    assert resumed.stage_seconds["suffix"] == pytest.approx(before["suffix"])
    assert resumed.cost().counts.hits == counts.hits
    numbers(resumed, 1)
    assert resumed.stage_seconds["suffix"] > before["suffix"]
    assert resumed.cost().counts.hits > counts.hits
    resumed.release()


def rewritten(file: Path, **changes: Any) -> None:
    """Change the metadata of a checkpoint."""
    with np.load(file) as known:
        arrays = dict(known)
    meta = {**json.loads(bytes(arrays["meta"])), **changes}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(file, **arrays)  # type: ignore[arg-type]


@pytest.fixture
def checkpoint(bench: Workbench, tmp_path: Path) -> Path:
    training = begin(config(1), bench)
    training.run_epoch()
    save_training(training, tmp_path / "c.npz")
    training.release()
    return tmp_path / "c.npz"


@pytest.mark.parametrize("changes", [{"format": 2}, {"format": 1, "seeing": None, "account": None}])
def test_a_checkpoint_of_an_earlier_format_is_read_too(
    bench: Workbench, checkpoint: Path, changes: dict[str, Any]
) -> None:
    known = read_checkpoint(checkpoint)
    rewritten(checkpoint, **changes)
    with np.load(checkpoint) as file:
        meta = file["meta"]
    arrays = {
        f"{group}.{index:05d}": array
        for group in ("weights", "optimizer", "best_weights")
        for index, array in enumerate(getattr(known, group))
    }
    np.savez(checkpoint, meta=meta, **arrays)  # each array by itself, as before format 3
    found = read_checkpoint(checkpoint)
    for group in ("weights", "optimizer", "best_weights"):
        for ours, theirs in zip(getattr(found, group), getattr(known, group), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    training = begin(config(1), bench)
    load_training(training, checkpoint)
    assert training.epoch == 1
    training.release()


def test_weights_of_the_best_and_last_epoch_are_written_once_if_equal(tmp_path: Path) -> None:
    weights, other = [np.arange(1000.0), np.arange(6).reshape(2, 3)], [np.zeros(1000), np.zeros((2, 3), int)]
    sizes = []
    for best in (weights, other):
        write_checkpoint(tmp_path / "c.npz", Checkpoint(1, weights, [np.ones(())], best, None, None))
        found = read_checkpoint(tmp_path / "c.npz")
        for ours, theirs in zip(found.best_weights, best, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        sizes.append((tmp_path / "c.npz").stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 4},
        {"seeing": {}},
        {"seeing": {"exact": True, "views": 0, "decision": {}}},
        {"seeing": 7},
        {"account": {"stages": {"data": "long"}, "counts": {}}},
        {"account": {"stages": {}, "counts": {"hits": None}}},
        {"best": {"epoch": 1}},
        {"last": {"epoch": 1, "val_auroc": 0.5}},
        {"history": [{"epoch": 1}]},
    ],
)
def test_a_checkpoint_with_wrong_content_is_refused(
    bench: Workbench, checkpoint: Path, changes: dict[str, Any]
) -> None:
    rewritten(checkpoint, **changes)
    training = begin(config(1), bench)
    with pytest.raises(DataError, match=r"c\.npz: expected"):
        load_training(training, checkpoint)
    training.release()


def test_a_checkpoint_of_another_depth_or_of_other_views_is_refused(
    bench: Workbench, print_bench: Workbench, checkpoint: Path
) -> None:
    few = ActivationCache(print_bench.backbone, print_bench.task, views=2)
    others = [(config(2), bench), (config(1), Workbench(print_bench.backbone, print_bench.task, few))]
    for trial, place in others:
        training = begin(trial, place)
        with pytest.raises(DataError, match="expected one of this trial"):
            load_training(training, checkpoint)
        training.release()
    assert read_checkpoint(checkpoint).epoch == 1

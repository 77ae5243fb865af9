from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from trainables.errors import DataError, UsageError
from trainables.methods.methods import METHODS, begin
from trainables.serving.served_model import build_served_model, save_served_model
from trainables.testing import MethodConformance
from trainables.training.checkpoints import read_checkpoint
from trainables.training.resuming import save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


@pytest.fixture
def bench(print_bench: Workbench) -> Workbench:
    return print_bench


class TestHeadOnly(MethodConformance):
    method = "finetune"
    params: ClassVar[dict[str, Any]] = {
        "unfreeze_depth": 0,
        "learning_rate": 1e-2,
        "head_units": 32,
        "augmentation_strength": 0.0,
        "dropout": 0.3,
    }


class TestTopBlocksAugmented(MethodConformance):
    method = "finetune"
    params: ClassVar[dict[str, Any]] = {
        "unfreeze_depth": 2,
        "learning_rate": 3e-3,
        "head_units": 0,
        "augmentation_strength": 0.5,
        "weight_decay": 1e-3,
        "label_smoothing": 0.1,
        "backbone_lr_ratio": 0.3,
        "horizontal_flip": True,
    }


@pytest.mark.slow
class TestEverythingUnfrozen(MethodConformance):
    method = "finetune"
    params: ClassVar[dict[str, Any]] = {
        "unfreeze_depth": 4,
        "learning_rate": 1e-3,
        "head_units": 0,
        "augmentation_strength": 0.0,
    }


class TestScratch(MethodConformance):
    method = "scratch"
    params: ClassVar[dict[str, Any]] = {"learning_rate": 3e-3, "head_units": 0, "augmentation_strength": 0.25}


BASE = {"unfreeze_depth": 1, "learning_rate": 3e-3, "head_units": 0, "augmentation_strength": 0.0}


def losses(bench: Workbench, epochs: int = 3, **changes: Any) -> list[float]:
    live = changes.pop("live", False)
    norm = changes.pop("batch_norm", "auto")
    config = TrialConfig("finetune", {**BASE, **changes}, epochs=epochs, seed=1, live=live, batch_norm=norm)
    training = begin(config, bench)
    found = [training.run_epoch().train_loss for _ in range(epochs)]
    training.release()
    return found


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_activations_and_live_images_give_the_same_numbers(bench: Workbench, depth: int) -> None:
    live = losses(bench, unfreeze_depth=depth, live=True)
    cached = losses(bench, unfreeze_depth=depth)
    np.testing.assert_allclose(cached, live, rtol=2e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"weight_decay": 0.5},
        {"dropout": 0.5},
        {"label_smoothing": 0.2},
        {"backbone_lr_ratio": 0.01},
        {"augmentation_strength": 1.0},
        {"horizontal_flip": True},
        {"batch_norm": "adapt"},
        {"batch_norm": "frozen", "unfreeze_depth": 2},
    ],
)
def test_every_parameter_has_an_effect(bench: Workbench, change: dict[str, Any]) -> None:
    other = {"batch_norm": "adapt", "unfreeze_depth": 2} if change.get("batch_norm") == "frozen" else {}
    if change.get("batch_norm") == "adapt":
        other = {"batch_norm": "frozen"}
    assert losses(bench, **change) != losses(bench, **other)


def test_batch_norm_adapts_unless_batches_are_small(bench: Workbench) -> None:
    def adapts(batch_size: int, norm: str) -> bool:
        config = TrialConfig(
            "finetune", {**BASE, "unfreeze_depth": 1}, batch_size=batch_size, batch_norm=norm
        )
        training = begin(config, bench)
        training.release()
        return training.program.shape.adapt

    assert adapts(8, "auto")
    assert not adapts(7, "auto")
    assert not adapts(32, "frozen")
    assert adapts(4, "adapt")


def test_frozen_blocks_stay_and_unfrozen_ones_move(bench: Workbench) -> None:
    training = begin(TrialConfig("finetune", {**BASE, "unfreeze_depth": 2}, epochs=1), bench)
    before = [w.numpy().copy() for w in training.program.weights]
    training.run_epoch()
    moved = [not np.array_equal(a, b.numpy()) for a, b in zip(before, training.program.weights, strict=True)]
    prefix, _ = bench.backbone.parts(2)
    assert any(moved)
    assert len(training.program.weights) < len(bench.backbone.model.weights) + 2
    assert prefix.count_params() > 0
    training.release()


def test_scratch_starts_from_other_weights_than_finetune_and_differs_by_seed(bench: Workbench) -> None:
    def first_weights(method: str, seed: int) -> np.ndarray:
        params = {**BASE, "unfreeze_depth": 4} if method == "finetune" else {"learning_rate": 1e-3}
        training = begin(TrialConfig(method, params, epochs=1, seed=seed), bench)
        kernel = training.program.suffix.weights[0].numpy().copy()
        training.release()
        return kernel

    assert not np.allclose(first_weights("finetune", 1), first_weights("scratch", 1))
    assert not np.allclose(first_weights("scratch", 2), first_weights("scratch", 1))
    np.testing.assert_array_equal(first_weights("scratch", 1), first_weights("scratch", 1))


@pytest.mark.parametrize("depth", [-1, 5])
def test_a_depth_beyond_the_blocks_is_refused(bench: Workbench, depth: int) -> None:
    with pytest.raises(UsageError, match=rf"unfreeze_depth: expected 0 to 4 .*received {depth}"):
        begin(TrialConfig("finetune", {**BASE, "unfreeze_depth": depth}), bench)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_table_has_an_implementation_and_known_baselines(name: str) -> None:
    assert issubclass(METHODS[name].load(), Training)
    assert set(METHODS[name].baselines) <= set(METHODS)


def test_an_unknown_method_is_refused_with_the_valid_ones(bench: Workbench) -> None:
    with pytest.raises(UsageError, match=f"expected one of {', '.join(METHODS)}, received 'magic'"):
        begin(TrialConfig("magic", BASE), bench)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "fast"])
def test_a_parameter_that_is_not_a_finite_number_is_refused(bench: Workbench, value: Any) -> None:
    training = begin(TrialConfig("finetune", {**BASE, "learning_rate": value}), bench)
    with pytest.raises(UsageError, match="learning_rate: expected a finite number"):
        training.run_epoch()
    training.release()


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_the_served_model_predicts_as_the_trial_does(bench: Workbench, tmp_path: Path, depth: int) -> None:
    import keras

    training = begin(
        TrialConfig("finetune", {**BASE, "unfreeze_depth": depth, "head_units": 64}, epochs=2, live=True),
        bench,
    )
    while not training.done:
        training.run_epoch()
    expected = training.predict("validation")
    save_served_model(training, tmp_path / "model ü.keras")
    training.release()
    model = keras.saving.load_model(tmp_path / "model ü.keras", safe_mode=True)
    images = bench.task.split("validation").images
    np.testing.assert_allclose(np.asarray(model(images)), expected, atol=1e-5)
    bigger = np.repeat(np.repeat(images[:4], 3, axis=1), 2, axis=2)
    assert np.asarray(model(bigger)).shape == (4, 10)


def test_a_served_model_keeps_its_weights_when_the_next_trial_trains(bench: Workbench) -> None:
    training = begin(TrialConfig("finetune", {**BASE, "unfreeze_depth": 2}, epochs=1), bench)
    training.run_epoch()
    model = build_served_model(training)
    training.release()
    images = bench.task.split("validation").images[:8]
    before = np.asarray(model(images))
    losses(bench, unfreeze_depth=2)
    np.testing.assert_array_equal(np.asarray(model(images)), before)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 torn", b"\0" * 100])
def test_a_damaged_checkpoint_is_named_in_the_error(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "c.npz").write_bytes(damage)
    with pytest.raises(DataError, match=r"c\.npz"):
        read_checkpoint(tmp_path / "c.npz")


def test_a_missing_checkpoint_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        read_checkpoint(tmp_path / "nothing.npz")


def test_a_checkpoint_never_holds_the_frozen_prefix(bench: Workbench, tmp_path: Path) -> None:
    sizes = []
    for depth in (0, 4):
        training = begin(TrialConfig("finetune", {**BASE, "unfreeze_depth": depth}, epochs=1), bench)
        training.run_epoch()
        save_training(training, tmp_path / f"{depth}.npz")
        training.release()
        sizes.append((tmp_path / f"{depth}.npz").stat().st_size)
    assert sizes[0] * 10 < sizes[1]

"""Test the method ``probe``: one epoch, the numbers of other trials, checkpoints, and the served model of any cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from trainables.errors import DataError, Diverged, UsageError
from trainables.methods.methods import METHODS, begin
from trainables.serving.served_model import save_served_model
from trainables.testing import MethodConformance
from trainables.training.probe_cache import ProbeCache
from trainables.training.probes import frozen_probe
from trainables.training.resuming import load_training, save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

PARAMS = {"unfreeze_depth": 0, "head_units": 0, "augmentation_strength": 0.25}


@pytest.fixture
def bench(print_bench: Workbench) -> Workbench:
    return print_bench


@pytest.fixture
def low_cut(monkeypatch: pytest.MonkeyPatch, bench: Workbench) -> int:
    """Makes the probe choose the lowest cut."""
    monkeypatch.setattr(frozen_probe, "_loss", lambda fitted: -fitted[0].depth)
    return frozen_probe.candidate_depths(bench)[-1]


def fitted(bench: Workbench, **changes: Any) -> Training:
    training = begin(TrialConfig("probe", PARAMS, **changes), bench)
    training.run_epoch()
    training.release()
    return training


class TestProbe(MethodConformance):
    method = "probe"
    params: ClassVar[dict[str, Any]] = PARAMS
    epochs = 1
    steps = False


def test_it_is_a_reference_and_no_method_of_a_search() -> None:
    method = METHODS["probe"]
    assert method.reference
    assert not method.searchable
    assert [name for name, other in METHODS.items() if other.reference] == ["probe"]


@pytest.mark.parametrize("epochs", [1, 20])
def test_it_is_done_after_one_epoch(bench: Workbench, epochs: int) -> None:
    training = begin(TrialConfig("probe", PARAMS, epochs=epochs), bench)
    assert not training.done
    training.run_epoch()
    assert training.done
    training.release()
    training.release()  # an engine may do so twice


def test_a_trial_that_ends_before_its_epoch_is_released(bench: Workbench) -> None:
    begin(TrialConfig("probe", PARAMS), bench).release()


def test_it_has_the_numbers_of_a_trial_at_depth_0_with_the_same_head(bench: Workbench) -> None:
    probe = fitted(bench)
    assert probe.best is not None
    params = {"unfreeze_depth": 0, "learning_rate": 1e-3, "head_units": 0, "head_init": "probe"}
    other = begin(TrialConfig("finetune", params), bench)
    other.before_first_epoch()
    loss, accuracy = other.evaluate("validation")
    other.release()
    assert (probe.best.val_loss, probe.best.val_accuracy) == (loss, accuracy)
    assert accuracy > 0.9


def test_confirmation_on_images_gives_nearly_the_same(bench: Workbench) -> None:
    kept, live = fitted(bench).best, fitted(bench, live=True).best
    assert kept is not None
    assert live is not None
    assert live.val_accuracy == pytest.approx(kept.val_accuracy, abs=0.01)
    assert live.val_loss == pytest.approx(kept.val_loss, rel=0.02)


def test_the_cost_says_what_was_chosen(bench: Workbench) -> None:
    cost = fitted(bench).cost().to_json()
    assert cost["probe_cut"] == bench.backbone.blocks[-1].name
    assert 0 < float(cost["probe_cv_accuracy"]) <= 1
    params = {"unfreeze_depth": 0, "learning_rate": 1e-3}
    other = begin(TrialConfig("finetune", params), bench)
    assert not [key for key in other.cost().to_json() if key.startswith("probe")]
    other.release()


def test_a_cut_that_was_chosen_before_is_the_only_one_that_is_tried(bench: Workbench) -> None:
    training = begin(TrialConfig("probe", {**PARAMS, "probe_depth": 1}), bench)
    training.run_epoch()
    cost = training.cost().to_json()
    training.release()
    assert cost["probe_depth"] == 1
    assert {each["depth"] for each in json.loads(str(cost["probe_candidates"]))} == {1}


@pytest.mark.parametrize("live", [False, True])
def test_a_lower_cut_is_evaluated_resumed_and_served(
    bench: Workbench, low_cut: int, live: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(TrialConfig("probe", PARAMS, live=live), bench)
    metrics = training.run_epoch()
    assert training.cost().to_json()["probe_depth"] == low_cut == 2
    save_training(training, tmp_path / "c.npz")
    save_served_model(training, tmp_path / "ü.keras")
    predicted = training.predict("validation")
    training.release()
    labels = bench.task.split("validation").labels
    assert (predicted.argmax(axis=1) == labels).mean() == pytest.approx(metrics.val_accuracy)
    served = keras.saving.load_model(tmp_path / "ü.keras", compile=False, safe_mode=True)
    images = bench.task.split("validation").images
    assert np.asarray(served(images)) == pytest.approx(predicted, abs=0.02)
    monkeypatch.setattr(frozen_probe, "_loss", lambda fitted: fitted[0].depth)  # would choose another cut now
    resumed = begin(TrialConfig("probe", PARAMS, live=live), bench)
    load_training(resumed, tmp_path / "c.npz")
    assert resumed.done
    assert resumed.predict("validation") == pytest.approx(predicted, abs=1e-6)
    resumed.release()


def test_a_checkpoint_of_another_method_is_refused(bench: Workbench, tmp_path: Path) -> None:
    params = {"unfreeze_depth": 0, "learning_rate": 1e-3, "head_units": 0}
    other = begin(TrialConfig("finetune", params), bench)
    other.run_epoch()
    save_training(other, tmp_path / "c.npz")
    other.release()
    probe = begin(TrialConfig("probe", PARAMS), bench)
    with pytest.raises(DataError, match="expected one of this trial"):
        load_training(probe, tmp_path / "c.npz")
    probe.release()


@pytest.mark.parametrize("changes", [{"unfreeze_depth": 1}, {"head_units": 64}])
def test_blocks_and_hidden_layers_are_refused(bench: Workbench, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="expected 0 for the probe"):
        begin(TrialConfig("probe", {**PARAMS, **changes}), bench)


def test_features_that_are_not_finite_end_the_trial(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "probes", ProbeCache())
    monkeypatch.setattr(frozen_probe, "pooled", lambda chunk: np.full((len(chunk), 112), np.nan))
    training = begin(TrialConfig("probe", PARAMS), bench)
    with pytest.raises(Diverged):
        training.run_epoch()
    training.release()

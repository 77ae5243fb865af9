"""Test which candidates the frozen probe tries, which one wins, and that its features are those of the served model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainables.cost_account import CostAccount
from trainables.reuse import Reuse
from trainables.training.probe_cache import ProbeCache, ProbeFolder
from trainables.training.probes import frozen_probe
from trainables.training.probes.frozen_probe import (
    AUGMENTED_VIEWS,
    ProbeChoice,
    candidate_depths,
    choose_probe,
    linear_probe,
    pooled,
    pooled_prefix,
)
from trainables.training.workbench import Workbench

Probes = Callable[..., ProbeCache]


@pytest.fixture
def bench(print_bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A workbench without the probes of other tests."""
    monkeypatch.setattr(print_bench, "probes", ProbeCache())
    return print_bench


def chosen(bench: Workbench, strength: float = 0.0) -> ProbeChoice:
    return choose_probe(bench, strength, CostAccount())[0]


def test_several_cuts_are_tried_without_augmentation_and_the_best_one_with_it(bench: Workbench) -> None:
    clean = chosen(bench)
    assert [each.depth for each in clean.candidates] == candidate_depths(bench) == [0, 1, 2]
    assert {(each.strength, each.views) for each in clean.candidates} == {(0.0, 0)}
    assert clean.best.cv_loss == min(each.cv_loss for each in clean.candidates if each.cv_loss is not None)
    assert clean.best.cv_accuracy is not None
    assert clean.best.cv_accuracy > 0.9
    augmented = chosen(bench, 0.3)
    assert augmented.candidates[:-1] == clean.candidates
    last = augmented.candidates[-1]
    assert (last.depth, last.strength, last.views) == (clean.best.depth, 0.25, AUGMENTED_VIEWS)


def test_without_views_nothing_is_augmented(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.activations, "views", 0)
    assert {each.views for each in chosen(bench, 0.5).candidates} == {0}


def test_of_equal_candidates_the_top_cut_without_augmentation_wins(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where cross-validation is impossible: no candidate is known to be better.
    monkeypatch.setattr(frozen_probe, "_loss", lambda fitted: 1.0)
    found = chosen(bench, 0.25)
    assert (found.best.depth, found.best.strength) == (0, 0.0)
    assert found.cut == bench.backbone.blocks[-1].name


def test_a_lower_cut_that_is_too_large_is_left_out(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_probe, "MAX_CUT_BYTES", 1)
    assert candidate_depths(bench) == [0]


def test_a_choice_is_read_back_and_described_by_values_that_a_ledger_can_hold(bench: Workbench) -> None:
    found = chosen(bench, 0.25)
    stored = json.loads(json.dumps(found.to_json()))
    assert ProbeChoice.from_json(stored) == found
    described = found.describe()
    assert all(isinstance(value, int | float | str) for value in described.values())
    assert described["probe_depth"] == found.best.depth
    assert len(json.loads(str(described["probe_candidates"]))) == len(found.candidates)


def test_each_candidate_is_fitted_once_and_is_the_same_from_memory_and_from_a_file(
    bench: Workbench, tmp_path: Path
) -> None:
    folder = tmp_path / "ü"
    bench.probes = ProbeCache(ProbeFolder(folder))
    first, weights = choose_probe(bench, 0.25, CostAccount())
    assert bench.probes.trained == len(first.candidates)
    assert linear_probe(bench, CostAccount()) is not None
    assert choose_probe(bench, 0.25, CostAccount())[0] == first
    assert bench.probes.trained == len(first.candidates)
    bench.probes = ProbeCache(ProbeFolder(folder))
    again, read = choose_probe(bench, 0.25, CostAccount())
    assert again == first
    assert bench.probes.trained == 0
    for ours, theirs in zip(weights, read, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_other_data_and_another_recipe_are_fitted_anew(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear_probe(bench, CostAccount())
    monkeypatch.setattr(bench, "task", replace(bench.task, digest="0" * 64))
    linear_probe(bench, CostAccount())
    assert bench.probes.trained == 2
    monkeypatch.setattr(frozen_probe, "RECIPE_VERSION", 0)
    linear_probe(bench, CostAccount())
    assert bench.probes.trained == 3


def test_the_choice_does_not_depend_on_what_is_kept(bench: Workbench, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.keras"
    bench.backbone.save(backbone)
    alone = Workbench.open(backbone, bench.task.directory, None, Reuse.of(()))
    assert chosen(alone) == chosen(bench)


def test_trials_find_the_activations_that_the_probe_has_read(bench: Workbench, tmp_path: Path) -> None:
    backbone = tmp_path / "backbone.keras"
    bench.backbone.save(backbone)
    own = Workbench.open(backbone, bench.task.directory)
    chosen(own, 0.25)
    for depth in candidate_depths(own):
        assert own.activations.cached("train", depth) is not None
    assert own.activations.derived > 0


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_features_are_those_of_the_served_model(bench: Workbench, depth: int) -> None:
    images = bench.task.split("validation").images[:16]
    kept = next(bench.activations.chunks("validation", depth))[:16]
    served = np.asarray(pooled_prefix(bench.backbone, depth)(images.astype(np.float32), training=False))
    assert pooled(kept) == pytest.approx(served, abs=2e-2 * float(np.abs(served).max()))
    assert served.shape == (16, bench.activations.stages.shape(depth)[-1])

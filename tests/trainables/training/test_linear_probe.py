"""Trials start their heads from one probe, which is trained once and is the same from memory and from a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from search.config.parameters import parameters
from search.config.ranges import Choice
from trainables.cost_account import CostAccount
from trainables.errors import UsageError
from trainables.methods.methods import begin
from trainables.methods.parameter_values import HEAD_INITS
from trainables.reuse import Reuse
from trainables.testing import MethodConformance
from trainables.training.linear_probe import probe_head
from trainables.training.probe_cache import ProbeCache, ProbeFolder
from trainables.training.resuming import load_training, save_training
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

PARAMS = {"unfreeze_depth": 1, "learning_rate": 1e-3, "head_units": 0, "head_init": "probe"}
EPOCHS = 2


Probes = Callable[..., ProbeCache]


@pytest.fixture
def bench(print_bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    """A workbench with the compiled programs of other tests, but without their probes."""
    monkeypatch.setattr(print_bench, "probes", ProbeCache())
    return print_bench


@pytest.fixture
def probes(bench: Workbench) -> Probes:
    """Makes the workbench like one of another process: it has no probes but those in a folder."""

    def exchange(folder: Path | None = None) -> ProbeCache:
        bench.probes = ProbeCache(ProbeFolder(folder) if folder is not None else None)
        return bench.probes

    return exchange


def trial(bench: Workbench, seed: int = 1, **changes: Any) -> Training:
    return begin(TrialConfig("finetune", {**PARAMS, **changes}, epochs=EPOCHS, seed=seed), bench)


def losses(bench: Workbench, seed: int = 1, **changes: Any) -> list[tuple[float, float]]:
    training = trial(bench, seed, **changes)
    found = [training.run_epoch() for _ in range(EPOCHS)]
    training.release()
    return [(m.train_loss, m.val_loss) for m in found]


def started(bench: Workbench, seed: int = 1, **changes: Any) -> tuple[list[np.ndarray], float, float]:
    """Return (weights, validation loss, validation accuracy) before a trial's first epoch."""
    training = trial(bench, seed, **changes)
    training.before_first_epoch()
    weights = training.program.read()[0]
    loss, accuracy = training.evaluate("validation")
    training.release()
    return weights, loss, accuracy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cäche 字 it's" / "probes"


@pytest.mark.slow
class TestProbed(MethodConformance):
    method = "finetune"
    params: ClassVar[dict[str, Any]] = {**PARAMS, "head_units": 16, "augmentation_strength": 0.25}


def test_space_and_method_list_the_same_head_inits() -> None:
    assert parameters(3)["head_init"].range == Choice(HEAD_INITS)


def test_each_head_shape_trains_one_probe(bench: Workbench) -> None:
    first, second = trial(bench), trial(bench, 2, unfreeze_depth=2, augmentation_strength=0.5, dropout=0.2)
    for training in (first, second):
        training.run_epoch()
        training.release()
    assert bench.probes.trained == 1
    assert first.stage_seconds["probe"] > 0
    assert second.stage_seconds["probe"] < first.stage_seconds["probe"] / 2
    losses(bench, head_units=16)
    assert bench.probes.trained == 2
    losses(bench, head_init="random")
    assert bench.probes.trained == 2


def test_trials_start_from_the_same_head_whatever_their_seeds(bench: Workbench) -> None:
    (one, _, _), (other, _, _) = started(bench, 1), started(bench, 2)
    (random, _, _), (another, _, _) = (started(bench, seed, head_init="random") for seed in (1, 2))
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(random[-2], another[-2])
    for probed, drawn in zip(one[:-2], random[:-2], strict=True):
        np.testing.assert_array_equal(probed, drawn)


@pytest.mark.parametrize("units", [0, 16])
def test_probe_classifies_before_any_block_is_trained(bench: Workbench, units: int) -> None:
    _, loss, accuracy = started(bench, unfreeze_depth=0, head_units=units)
    _, random_loss, random_accuracy = started(bench, unfreeze_depth=0, head_units=units, head_init="random")
    assert accuracy > 0.85 > random_accuracy
    assert loss < 0.5 < random_loss


def test_probe_is_the_same_from_memory_from_a_file_and_newly_trained(
    bench: Workbench, probes: Probes, folder: Path
) -> None:
    written = probes(folder)
    trained, remembered = losses(bench), losses(bench)
    read = probes(folder)
    from_file = losses(bench)
    alone = probes()
    assert trained == remembered == from_file == losses(bench)
    assert [store.trained for store in (written, read, alone)] == [1, 0, 1]
    assert len(list(folder.glob("*.probe"))) == 1


def test_other_data_trains_another_probe(
    bench: Workbench, probes: Probes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes(folder)
    for digest in ("0" * 64, "1" * 64):
        monkeypatch.setattr(bench, "task", replace(bench.task, digest=digest))
        probe_head(bench, 0, CostAccount())
    assert bench.probes.trained == 2


def test_a_resumed_trial_trains_no_probe(bench: Workbench, probes: Probes, tmp_path: Path) -> None:
    whole, file = losses(bench), tmp_path / "ü.npz"
    first = trial(bench)
    first.run_epoch()
    save_training(first, file)
    first.release()
    elsewhere = probes()
    resumed = trial(bench)
    load_training(resumed, file)
    last = resumed.run_epoch()
    resumed.release()
    assert (last.train_loss, last.val_loss) == whole[-1]
    assert elsewhere.trained == 0


@pytest.mark.parametrize("init", ["linear", True, None, 1])
def test_an_unknown_head_init_is_refused(bench: Workbench, init: Any) -> None:
    with pytest.raises(UsageError, match="head_init: expected one of random, probe, received"):
        trial(bench, head_init=init)


def test_probes_are_stored_next_to_activations_and_switched_off_with_them(
    bench: Workbench, tmp_path: Path
) -> None:
    cache, backbone = tmp_path / "cache ü", tmp_path / "backbone.keras"
    bench.backbone.save(backbone)
    for parts, place, trained in ((("activations",), cache, 1), ((), cache / "none", 2)):
        opened = Workbench.open(backbone, bench.task.directory, place, Reuse.of(parts))
        for _ in range(2):
            probe_head(opened, 0, CostAccount())
        assert opened.probes.trained == trained
    assert len(list((cache / "probes").glob("*.probe"))) == 1
    assert not (cache / "none").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_read(bench: Workbench, probes: Probes, folder: Path) -> None:
    probes(folder)
    probe_head(bench, 0, CostAccount())
    folder.chmod(0o500)
    try:
        store = probes(folder)
        probe_head(bench, 0, CostAccount())
        assert store.trained == 0
        for _ in range(2):
            probe_head(bench, 16, CostAccount())
        assert store.trained == 1
    finally:
        folder.chmod(0o700)

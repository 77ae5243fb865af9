"""Test trials of one engine in threads, as Ray runs them, with several epochs at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from search.execution.engines.engine import Engine
from search.execution.engines.messages import EpochResult, TrialRequest, WorkbenchPaths
from search.execution.engines.trials import CHECKPOINT
from trainables.backbones.spec import BackboneSpec
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.checkpoints import resumable_checkpoints
from trainables.training.trial_config import TrialConfig

EPOCHS = 3
RATES = {"a": 1e-2, "b": 3e-3, "c": 1e30, "d": 1e-3}
"""Learning rates by the key of a trial; with the one of ``c`` it diverges."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(threads=2)
    yield engine
    for key in RATES:
        engine.end(key)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> WorkbenchPaths:
    folder: Path = tmp_path_factory.mktemp("engine ü 字")
    load(BackboneSpec("print")).save(folder / "backbone.keras")
    task = prepare("digits", image_size=(32, 32), directory=folder / "digits")
    return WorkbenchPaths(folder / "backbone.keras", task.directory)


def request(
    key: str,
    paths: WorkbenchPaths,
    checkpoints: Path | None = None,
    *,
    rate: float | None = None,
    units: int = 24,
    depth: int = 0,
) -> TrialRequest:
    """A trial with the learning rate of its key, unless another is given."""
    params = {
        "unfreeze_depth": depth,
        "learning_rate": RATES[key] if rate is None else rate,
        "head_units": units,
        "augmentation_strength": 0.0,
    }
    return TrialRequest(key, TrialConfig("finetune", params, epochs=EPOCHS, seed=4), paths, checkpoints)


def train(engine: Engine, trial: TrialRequest, epochs: int = EPOCHS) -> list[EpochResult]:
    engine.begin(trial)
    return [engine.epoch(trial.key) for _ in range(epochs)]


def losses(results: list[EpochResult]) -> list[float]:
    found = [result.metrics for result in results]
    assert None not in found
    return [metrics.train_loss for metrics in found if metrics is not None]


def test_trials_in_threads_equal_trials_alone_and_a_diverging_one_affects_no_other(
    engine: Engine, paths: WorkbenchPaths
) -> None:
    keys = [k for k in RATES if k != "c"]
    alone = {key: losses(train(engine, request(key, paths))) for key in keys}
    compiled = engine.compiled()
    with ThreadPoolExecutor(len(RATES)) as pool:
        futures = {key: pool.submit(train, engine, request(key, paths)) for key in keys}
        futures["c"] = pool.submit(train, engine, request("c", paths), 1)
    for key in keys:
        assert losses(futures[key].result()) == pytest.approx(alone[key], rel=1e-4)
    ended = futures["c"].result()[0]
    assert (ended.done, ended.reason) == (True, "diverged")
    assert engine.compiled() == compiled


def test_a_trial_that_ran_next_to_others_resumes_alone_from_its_checkpoint(
    engine: Engine, paths: WorkbenchPaths, tmp_path: Path
) -> None:
    whole = losses(train(engine, request("a", paths)))
    mine = request("a", paths, tmp_path / "00001")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(train, engine, mine, 2)
        other = pool.submit(train, engine, request("b", paths))
    other.result()
    engine.end("a")
    assert (tmp_path / "00001" / CHECKPOINT).exists()
    assert engine.begin(mine) == 2
    again, third = engine.epoch("a"), engine.epoch("a")
    assert [*losses(first.result()), *losses([third])] == pytest.approx(whole, rel=1e-4)
    assert again.repeated
    assert losses([again]) == losses(first.result()[1:])
    assert third.done


def damage(file: Path, how: str, engine: Engine, paths: WorkbenchPaths) -> None:
    content = bytearray(file.read_bytes())
    if how == "of another shape":
        other = file.parent.parent / "00002"
        engine.begin(request("b", paths, other, units=8))
        engine.epoch("b")
        content = bytearray((other / CHECKPOINT).read_bytes())
    elif how == "flipped":
        content[len(content) // 2] ^= 0xFF
    file.write_bytes(content[: {"empty": 0, "half": len(content) // 2}.get(how, len(content))])


@pytest.mark.parametrize("how", ["empty", "half", "flipped", "of another shape"])
def test_a_trial_whose_checkpoint_is_damaged_resumes_from_the_previous_one(
    engine: Engine, paths: WorkbenchPaths, tmp_path: Path, how: str
) -> None:
    whole, mine = losses(train(engine, request("a", paths))), request("a", paths, tmp_path / "00001")
    train(engine, mine, 2)
    engine.end("a")
    damage(tmp_path / "00001" / CHECKPOINT, how, engine, paths)
    assert engine.begin(replace(mine, known_epochs=2)) == 1
    results = [engine.epoch("a") for _ in range(EPOCHS)]
    assert losses(results) == pytest.approx(whole, rel=1e-6)
    assert [r.damaged for r in results] == [str(tmp_path / "00001" / CHECKPOINT), None, None]
    engine.end("a")
    assert engine.begin(mine) == EPOCHS


def test_a_trial_whose_checkpoints_are_both_damaged_starts_again(
    engine: Engine, paths: WorkbenchPaths, tmp_path: Path
) -> None:
    whole, mine = losses(train(engine, request("a", paths))), request("a", paths, tmp_path / "00001")
    train(engine, mine, 2)
    engine.end("a")
    for file in resumable_checkpoints(tmp_path / "00001" / CHECKPOINT):
        damage(file, "half", engine, paths)
    assert engine.begin(mine) == 0
    assert losses([engine.epoch("a") for _ in range(EPOCHS)]) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("known", [0, 1, 2, 3])
def test_epochs_that_the_ledger_does_not_know_are_reported_again(
    engine: Engine, paths: WorkbenchPaths, tmp_path: Path, known: int
) -> None:
    mine = request("a", paths, tmp_path / "00001")
    reported = train(engine, mine)
    engine.end("a")
    assert engine.begin(replace(mine, known_epochs=known)) == EPOCHS
    again = [engine.epoch("a") for _ in range(min(known, EPOCHS - 1), EPOCHS)]
    assert [r.epoch for r in again] == list(range(min(known, EPOCHS - 1) + 1, EPOCHS + 1))
    assert losses(again) == losses(reported)[-len(again) :]
    assert [r.done for r in again] == [False] * (len(again) - 1) + [True]


def test_each_trial_is_charged_its_own_share_of_the_time(engine: Engine, paths: WorkbenchPaths) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda key: train(engine, request(key, paths)), ("a", "b")))
    for results in found:
        assert results[-1].stages["suffix"] > 0
        assert results[-1].stages["suffix"] <= sum(r.metrics.epoch_seconds for r in results if r.metrics)


def test_a_trial_that_cannot_begin_ends_with_its_traceback_and_affects_no_other(
    engine: Engine, paths: WorkbenchPaths
) -> None:
    assert engine.begin(request("wrong", paths, rate=1e-3, depth=99)) == 0
    result = engine.epoch("wrong")
    assert result.done
    assert result.reason == "crashed"
    assert "unfreeze_depth: expected 0 to 4" in (result.error or "")
    engine.end("wrong")
    engine.begin(request("wrong", paths, rate=1e-3))
    assert engine.epoch("wrong").epoch == 1
    engine.end("wrong")


def test_a_parameter_that_is_not_a_number_ends_its_trial(engine: Engine, paths: WorkbenchPaths) -> None:
    engine.begin(request("text", paths, rate=float("nan")))
    result = engine.epoch("text")
    assert (result.done, result.reason) == (True, "crashed")
    assert "learning_rate: expected a finite number" in (result.error or "")
    engine.end("text")

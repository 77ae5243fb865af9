"""Test that a search keeps its number of epochs when it is resumed, and how many its baselines have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.config.choices import MAX_EPOCH_FACTOR, SCRATCH_EPOCH_FACTOR, SCRATCH_TRIALS_DIVISOR
from search.config.search_config import SearchConfig
from search.execution.checkpoint_retention import CheckpointRetention
from search.execution.stop_request import StopRequest
from search.ledger.attributes import StudyKey
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.workspace import Workspace
from search.records.epoch_plan import EpochPlan
from search.records.record import BackboneSummary, TaskSummary
from search.study.baselines import baseline_epochs, baseline_trials
from search.study.phase import Phase
from search.study.phase_runner import PhaseRunner
from search.study.preparation import Prepared, search_epoch_plan
from trainables.errors import LedgerError

BLOCKS = ("one", "two")
IMAGES = 320


def prepared(images: int = IMAGES, source: int | None = None) -> Prepared:
    """Data and backbone as far as a ledger has to know them."""
    counts = {"train": images, "validation": 8, "test": 8}
    summary = TaskSummary("t", "digest", ("a", "b"), counts, (8, 8), "somewhere")
    task: Any = SimpleNamespace(digest="digest", counts=counts)
    other: Any = None if source is None else SimpleNamespace(digest="s", counts={"train": source})
    backbone = BackboneSummary("none", "none", "0" * 16, (8, 8), 0, BLOCKS)
    return Prepared(task, summary, backbone, Path("backbone.keras"), source=other)


def opened(folder: Path, config: SearchConfig, data: Prepared | None = None) -> Phase:
    """Open the phase of a search as ``unfreeze search`` does."""
    data = data or prepared()
    view: Any = SimpleNamespace(update=lambda record: None, event=lambda line: None)
    workspace, session = Workspace(folder, "s"), SimpleNamespace()
    retention = CheckpointRetention(10**9, lambda line: None)
    runner = PhaseRunner(config, view, workspace, session, StopRequest(), data, retention)  # type: ignore[arg-type]
    plan = search_epoch_plan(config, data)
    return runner.open_phase(config, "s", config.trials, folder / "ledger.db", plan)


def test_the_epochs_of_a_new_search_follow_from_its_data_and_a_resumed_one_keeps_them(tmp_path: Path) -> None:
    first = opened(tmp_path, SearchConfig())
    assert first.config.epochs == first.epoch_plan.epochs > 20
    assert first.record().config["epochs"] == first.epoch_plan.epochs
    again = opened(tmp_path, SearchConfig(trials=40), prepared(images=10 * IMAGES))
    assert again.epoch_plan == first.epoch_plan
    named = opened(tmp_path, SearchConfig(epochs=first.epoch_plan.epochs))
    assert named.epoch_plan == first.epoch_plan
    with pytest.raises(LedgerError, match=f"epochs: expected {first.epoch_plan.epochs}, received 20"):
        opened(tmp_path, SearchConfig(epochs=20))


@pytest.mark.parametrize("epochs", [1, 20])
def test_a_number_of_epochs_that_is_given_is_exact_and_kept(tmp_path: Path, epochs: int) -> None:
    first = opened(tmp_path, SearchConfig(epochs=epochs))
    assert (first.config.epochs, first.epoch_plan) == (epochs, EpochPlan(epochs))
    assert opened(tmp_path, SearchConfig()).epoch_plan == EpochPlan(epochs)


def test_a_ledger_of_an_earlier_version_keeps_its_epochs(tmp_path: Path) -> None:
    identity = dict(opened(tmp_path / "like", SearchConfig(epochs=20)).ledger.attribute(StudyKey.IDENTITY))
    del identity["epochs_by_method"]
    ledger = Ledger(
        sqlite_url(tmp_path / "ledger.db"), "s", direction="maximize", metric="val_accuracy", method="finetune",
        sampler="tpe", seed=0,
    )  # fmt: skip
    ledger.set_attribute(StudyKey.IDENTITY, identity)
    assert opened(tmp_path, SearchConfig()).epoch_plan == EpochPlan(20)


def test_a_resumed_search_with_several_methods_keeps_the_epochs_of_each(tmp_path: Path) -> None:
    config = SearchConfig(method="all", source="digits")
    first = opened(tmp_path, config, prepared(source=IMAGES))
    assert first.epoch_plan.of("align") < first.epoch_plan.of("finetune") == first.config.epochs
    record = first.record()
    assert record.planned_epochs("align") == first.epoch_plan.of("align")
    assert record.planned_epochs("finetune") == first.config.epochs
    assert opened(tmp_path, config, prepared(source=10 * IMAGES)).epoch_plan == first.epoch_plan


def epochs_of(baseline: str, data: Prepared, **settings: Any) -> int:
    config = SearchConfig(**settings)
    return baseline_epochs(config, search_epoch_plan(config, data), baseline, data)


def test_a_network_from_scratch_trains_longer_unless_the_epochs_are_given() -> None:
    plan = search_epoch_plan(SearchConfig(), prepared())
    assert epochs_of("scratch", prepared()) == plan.epochs * SCRATCH_EPOCH_FACTOR > plan.epochs
    assert epochs_of("scratch", prepared(), epochs=7) == 7


@pytest.mark.parametrize(
    ("settings", "trials"),
    [({}, 24 // SCRATCH_TRIALS_DIVISOR), ({"epochs": 7}, 24), ({"baseline_trials": 24}, 24)],
)
def test_longer_trials_from_scratch_are_fewer_unless_their_number_is_given(
    settings: dict[str, Any], trials: int
) -> None:
    config = SearchConfig(**settings)
    plan = search_epoch_plan(config, prepared())
    assert baseline_trials(config, plan, "scratch", 24) == trials
    assert baseline_trials(config, plan, "finetune", 24) == 24
    assert baseline_trials(config, plan, "scratch", 1) == 1


def test_a_baseline_on_the_target_alone_takes_as_many_steps_as_the_method_with_a_source() -> None:
    data, settings = prepared(source=2 * IMAGES), {"method": "align", "source": "digits"}
    plan = search_epoch_plan(SearchConfig(**settings), data)
    assert epochs_of("finetune", data, **settings) == 3 * plan.epochs
    assert epochs_of("source", data, **settings) == plan.epochs
    assert epochs_of("scratch", data, **settings) == 3 * plan.epochs * SCRATCH_EPOCH_FACTOR
    assert (
        epochs_of("finetune", data, **settings, epochs=4)
        == epochs_of("scratch", data, **settings, epochs=4)
        == 12
    )
    large = prepared(source=1000 * IMAGES)
    assert epochs_of("finetune", large, **settings, epochs=4) == 4 * MAX_EPOCH_FACTOR

"""Test which searches begin with frozen probes, and from what the heads of their trials start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from search.config.search_config import SearchConfig
from search.execution.checkpoint_retention import CheckpointRetention
from search.execution.stop_request import StopRequest
from search.ledger.attributes import StudyKey
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.workspace import Workspace
from search.records.record import BackboneSummary, TaskSummary
from search.study.phase import HEAD_INIT, Phase
from search.study.phase_runner import PhaseRunner
from search.study.preparation import Prepared, search_epoch_plan
from trainables.errors import LedgerError

PROBE = {"unfreeze_depth": 0, "head_units": 0, "augmentation_strength": 0.25}


def prepared(several: tuple[str, ...] = ()) -> Prepared:
    """Data and backbones as far as a ledger has to know them."""
    counts = {"train": 320, "validation": 8, "test": 8}
    summary = TaskSummary("t", "digest", ("a", "b"), counts, (8, 8), "somewhere")
    task: Any = SimpleNamespace(digest="digest", counts=counts)
    backbone = BackboneSummary("none", "none", "0" * 16, (8, 8), 0, ("one", "two"))
    one = Prepared(task, summary, backbone, Path("backbone.keras"))
    source: Any = SimpleNamespace(digest="s", counts=counts)
    own = {name: replace(one, backbone=replace(backbone, name=name)) for name in several}
    return replace(one, by_backbone=own, source=source)


def opened(folder: Path, config: SearchConfig, data: Prepared | None = None) -> Phase:
    """Open the phase of a search as ``unfreeze search`` does."""
    data = data or prepared()
    view: Any = SimpleNamespace(update=lambda record: None, event=lambda line: None)
    session: Any = SimpleNamespace()
    retention = CheckpointRetention(10**9, lambda line: None)
    runner = PhaseRunner(config, view, Workspace(folder, "s"), session, StopRequest(), data, retention)
    plan = search_epoch_plan(config, data)
    return runner.open_phase(config, "s", config.trials, folder / "ledger.db", plan)


def probes(phase: Phase) -> list[dict[str, Any]]:
    return [dict(trial.params) for trial in phase.ledger.trials if trial.method == "probe"]


def test_the_probe_is_the_first_trial_and_counts_as_one(tmp_path: Path) -> None:
    phase = opened(tmp_path, SearchConfig(trials=1))
    assert probes(phase) == [PROBE]
    assert [trial.state for trial in phase.ledger.trials] == ["waiting"]
    assert phase.ledger.started() == 0
    assert phase.record().config["probe"] == "on"


def test_it_comes_before_configurations_of_the_user_and_once(tmp_path: Path) -> None:
    file = tmp_path / "first.jsonl"
    file.write_text('{"learning_rate": 0.001}\n{"learning_rate": 0.002}\n')
    config = SearchConfig(enqueue=str(file))
    for _ in range(2):
        phase = opened(tmp_path, config)
        assert [trial.method for trial in phase.ledger.trials] == ["probe", "finetune", "finetune"]


def test_each_backbone_has_a_probe_as_far_as_there_are_trials(tmp_path: Path) -> None:
    names = ("A", "B", "C")
    config = SearchConfig(backbone=names)
    assert probes(opened(tmp_path / "all", config, prepared(names))) == [
        {"backbone": name, **PROBE} for name in names
    ]
    few = opened(tmp_path / "few", config.replace(trials=2), prepared(names))
    assert [params["backbone"] for params in probes(few)] == ["A", "B"]


@pytest.mark.parametrize(
    "settings",
    [
        {"probe": "off"},
        {"method": "scratch"},
        {"method": "source", "source": "digits"},
        {"method": "align", "source": "digits", "unlabelled_target": True},
    ],
)
def test_some_searches_have_none(tmp_path: Path, settings: dict[str, Any]) -> None:
    phase = opened(tmp_path, SearchConfig(**settings))
    assert probes(phase) == []
    assert phase.ledger.head_init == ("probe" if settings == {"probe": "off"} else "random")


def test_without_views_the_probe_sees_no_augmentation(tmp_path: Path) -> None:
    assert probes(opened(tmp_path, SearchConfig(views=0))) == [{**PROBE, "augmentation_strength": 0.0}]


def test_a_space_without_depth_0_and_without_views_has_the_probe_too(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("unfreeze_depth: [1, 2]\naugmentation_strength: [0.5]\n")
    phase = opened(tmp_path, SearchConfig(space=str(file)))
    assert probes(phase) == [PROBE]


def begun_by_an_earlier_version(folder: Path, config: SearchConfig) -> None:
    """Leave a ledger as an earlier version wrote it, with one trial."""
    identity = dict(opened(folder / "like", config).ledger.attribute(StudyKey.IDENTITY))
    del identity[HEAD_INIT]
    if config.space == "full":
        identity["space"]["head_init"]["when"] = "unfreeze_depth > 0"
    ledger = Ledger(
        sqlite_url(folder / "ledger.db"), "s", direction="maximize", metric="val_accuracy",
        method="finetune", sampler="tpe", seed=0,
    )  # fmt: skip
    ledger.set_attribute(StudyKey.IDENTITY, identity)
    ledger.enqueue([{"learning_rate": 0.001}])


@pytest.mark.parametrize("space", ["core", "full"])
def test_a_search_of_an_earlier_version_goes_on_without_a_probe_and_with_random_heads(
    tmp_path: Path, space: str
) -> None:
    config = SearchConfig(space=space)
    begun_by_an_earlier_version(tmp_path, config)
    for _ in range(2):
        phase = opened(tmp_path, config)
        assert probes(phase) == []
        assert phase.ledger.head_init == "random"
        record = phase.ledger.trials[0]
        assert record.head_init == "random"
    assert HEAD_INIT not in phase.ledger.attribute(StudyKey.IDENTITY)


def test_a_resumed_search_keeps_the_start_of_its_heads(tmp_path: Path) -> None:
    assert opened(tmp_path, SearchConfig(space="full")).ledger.head_init == "probe"
    again = opened(tmp_path, SearchConfig(space="full", trials=40, probe="off"))
    assert again.ledger.head_init == "probe"
    assert len(probes(again)) == 1
    with pytest.raises(LedgerError, match="space"):
        opened(tmp_path, SearchConfig())

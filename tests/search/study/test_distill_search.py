"""Whole searches with a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest

from search import SearchConfig, run_search
from search.config.config_file import load_config
from search.config.space import core_space, full_space
from search.ledger.reader import read_record
from trainables.errors import LedgerError, UsageError
from trainables.methods.parameter_values import DISTILLATIONS


def test_distill_without_a_teacher_names_the_option() -> None:
    with pytest.raises(UsageError, match="--method: 'distill' expected --teacher BACKBONE"):
        load_config(None, {"method": "distill"})


def test_method_all_includes_distill_if_there_is_a_teacher() -> None:
    assert "distill" not in SearchConfig(method="all").methods
    assert "distill" in SearchConfig(method="all", teacher="print").methods


def test_the_baseline_of_distill_is_the_same_network_without_a_teacher() -> None:
    assert SearchConfig(method="distill", teacher="print").baselines == ("finetune", "scratch")


def test_the_temperature_is_suggested_only_for_softened_answers() -> None:
    space = core_space(3, "distill")
    assert {"distillation", "distill_weight", "distill_temperature", "unfreeze_depth"} <= set(space.ranges)
    assert {"l2sp", "layer_lr_decay"} <= set(full_space(3, "distill").ranges)
    assert not {"distillation", "distill_weight"} & set(full_space(3, "finetune").ranges)
    base = {"unfreeze_depth": 1, "distill_temperature": 2.0}
    assert space.ranges["distillation"].check("both") in DISTILLATIONS
    space.check({**base, "distillation": "plain"})
    with pytest.raises(
        UsageError, match="distill_temperature: expected only where distillation is plain or both"
    ):
        space.check({**base, "distillation": "relational"})


ASKED: dict[str, Any] = {
    "backbone": "print",
    "weights": "none",
    "input_size": 24,
    "teacher": "print",
    "method": "distill",
    "name": "taught",
    "trials": 1,
    "epochs": 1,
    "baseline_trials": 1,
    "confirm_seeds": 1,
    "max_concurrent": 1,
    "probe": "off",
    "finalists": 1,
    "refit": False,
}


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("one_ray")
def test_a_teacher_may_have_another_input_size(weird_folder: Path) -> None:
    """One search for all: trials, baselines, lineage; and another teacher under its name is refused."""
    asked = SearchConfig(**ASKED, storage=str(weird_folder / "runs d"))
    result = run_search(asked)
    record, outcome = result.record, result.record.outcome
    assert all({"distillation", "distill_weight"} <= set(t.params) for t in record.trials)
    assert {t.state for t in record.trials} <= {"complete", "pruned"}
    assert outcome is not None
    assert [b.method for b in outcome.baselines] == ["finetune", "scratch"]
    assert record.teacher is not None
    assert record.teacher.input_size == (32, 32)
    assert record.backbone.input_size == (24, 24)
    assert record.teacher.digest != record.backbone.digest
    assert read_record("taught", asked.storage).teacher == record.teacher
    client = mlflow.MlflowClient(record.tracking_uri)
    version = client.get_model_version(str(outcome.model_name), str(outcome.model_version))
    assert version.tags["unfreeze.teacher_digest"] == record.teacher.digest
    assert version.tags["unfreeze.teacher"] == "print"
    experiment = client.get_experiment_by_name("unfreeze/digits")
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`unfreeze.kind` = 'search'")
    assert parent.data.tags["unfreeze.teacher_digest"] == record.teacher.digest
    page = result.report_path.read_text()
    assert "Teacher" in page
    assert record.teacher.digest in page
    with pytest.raises(LedgerError, match=r"teacher: expected '.*', received '.*'"):
        run_search(asked.replace(teacher_weights="none"))

"""The verdict on transfer of whole searches on tasks for which the right verdict is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from digit_tasks import dense_classifier, few_labels

from search import SearchConfig, run_search
from search.records.record import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

BUDGET: dict[str, Any] = {"trials": 4, "scheduler": "none", "batch_size": 16, "register_model": False}
"""The baseline has the same budget: as many trials of as many epochs."""

VERDICTS = {
    "helps": "Transfer helps",
    "negative transfer": "Negative transfer",
    "no difference": "No difference",
}
"""Words of the report by verdict."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits 5 to 9 with five labels a class."""
    return few_labels(tmp_path_factory.mktemp("verdicts") / "few.parquet", range(5, 10), 5)


@pytest.fixture(scope="module")
def helps(few: Path) -> Outcome:
    """From printed characters to handwriting: the built-in backbone."""
    space = few.with_name("convolutional.yaml")
    space.write_text("unfreeze_depth: [1, 2]\nlearning_rate: {low: 2e-3, high: 1e-2, log: true}\n")
    return outcome(few, space, "print", epochs=15, seeds=5)


@pytest.fixture(scope="module")
def hurts(few: Path) -> Outcome:
    """Transfer from the digits 0 to 4 to the others, with a small dense network that is mostly kept frozen."""
    backbone = dense_classifier(few.with_name("dense.keras"), range(5), epochs=150)
    space = few.with_name("dense.yaml")
    space.write_text("unfreeze_depth: [0, 1]\nlearning_rate: {low: 3e-3, high: 3e-2, log: true}\n")
    return outcome(few, space, str(backbone), epochs=40, seeds=5)


def outcome(data: Path, space: Path, backbone: str, epochs: int, seeds: int) -> Outcome:
    result = run_search(
        SearchConfig(
            data=str(data),
            backbone=backbone,
            space=str(space),
            epochs=epochs,
            confirm_seeds=seeds,
            name=space.stem,
            storage=str(data.parent / "runs"),
            probe="off",
            **BUDGET,
        )
    )
    report = result.report_path.read_text()
    found = result.record.outcome
    assert found is not None
    assert VERDICTS[found.verdict] in report
    return found


def test_transfer_that_must_help_gets_the_verdict_helps(helps: Outcome) -> None:
    assert helps.verdict == "helps"
    assert helps.gain is not None
    assert 0 < helps.gain.low < helps.gain.estimate < helps.gain.high


def test_transfer_that_must_hurt_gets_the_verdict_negative_transfer(hurts: Outcome) -> None:
    assert hurts.verdict == "negative transfer"
    assert hurts.gain is not None
    assert hurts.gain.low < hurts.gain.estimate < hurts.gain.high < 0


def test_the_baseline_had_the_same_budget(helps: Outcome, hurts: Outcome) -> None:
    for found in (helps, hurts):
        assert found.scratch_trials == BUDGET["trials"]
        assert len(found.scratch_test_accuracies) == len(found.seed_test_accuracies) == len(found.seeds)

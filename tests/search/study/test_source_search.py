"""Whole searches that transfer from another dataset."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from search import SearchConfig, run_search
from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError, UsageError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_ray")]

SMALL: dict[str, Any] = {
    "trials": 2,
    "epochs": 1,
    "batch_size": 16,
    "baseline_trials": 0,
    "confirm_seeds": 1,
    "max_concurrent": 1,
    "register_model": False,
    "probe": "off",
    "finalists": 1,
    "refit": False,
}


def folder(root: Path, classes: range, count: int, angle: float) -> str:
    """Real handwriting in one folder per class, rotated by ``angle`` degrees."""
    digits = load_digits()
    for digit in classes:
        (root / f"digit {digit}").mkdir(parents=True, exist_ok=True)
        for n, pixels in enumerate(digits.images[digits.target == digit][:count]):
            image = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((24, 24)).rotate(angle)
            image.save(root / f"digit {digit}" / f"{n}.png")
    return str(root)


SPACE = """
unfreeze_depth: 0
learning_rate: 0.01
head_units: [0, 16]
source_share: {low: 0.2, high: 0.8}
weight_temperature: 2.0
alignment: [coral, dann]
alignment_weight: {low: 0.1, high: 1.0, log: true}
"""
"""Only heads are trained, so that a trial takes seconds."""


@pytest.fixture(scope="module")
def data(weird_folder: Path) -> dict[str, str]:
    target = folder(weird_folder / "target ü", range(4), 20, 30)
    space = weird_folder / "space.yaml"
    space.write_text(SPACE)
    source = folder(weird_folder / "source", range(1, 5), 20, 0)
    return {"data": target, "source": source, "space": str(space)}


def config(data: dict[str, str], weird_folder: Path, **changes: Any) -> SearchConfig:
    return SearchConfig(**{**data, **SMALL, "storage": str(weird_folder / "runs s"), **changes})


@pytest.fixture(scope="module")
def reweighted(data: dict[str, str], weird_folder: Path) -> tuple[SearchConfig, SearchRecord]:
    asked = config(data, weird_folder, method="reweight", name="r", baseline_trials=1)
    return asked, run_search(asked).record


def test_the_baseline_of_reweight_trains_on_the_target_alone(
    reweighted: tuple[SearchConfig, SearchRecord], weird_folder: Path
) -> None:
    asked, record = reweighted
    assert {t.method for t in record.trials} == {"reweight"}
    assert all({"weighting", "source_share"} <= set(t.params) for t in record.trials)
    outcome = record.outcome
    assert outcome is not None
    assert [b.method for b in outcome.baselines] == ["finetune", "source", "scratch"]
    assert outcome.main_baseline == outcome.baselines[0]
    assert outcome.gain is not None
    expected = outcome.seed_test_accuracies[0] - outcome.baselines[0].test_accuracies[0]
    assert outcome.gain.estimate == pytest.approx(expected)
    assert record.source is not None
    assert "digit 4" in record.source.classes
    again = read_record("r", asked.storage)
    assert again.source == record.source
    assert again.outcome == outcome
    scratch = read_record("r", asked.storage, baseline=True)
    images = record.task.counts["train"], record.source.counts["train"]
    assert scratch.config["epochs"] == round(sum(images) / images[0]) > asked.epochs
    page = (weird_folder / "runs s" / "r" / "report.html").read_text()
    assert "Transfer gain over the target alone" in page
    assert "are left out: the target has no such class" in page


def test_the_baseline_of_align_without_target_labels_trains_on_the_source_alone(
    data: dict[str, str], weird_folder: Path
) -> None:
    target = weird_folder / "no labels"
    folder(target / "test", range(4), 10, 30)
    for split, count in (("train", 30), ("validation", 10)):
        for n, image in enumerate(sorted(Path(data["data"]).rglob("*.png"))[-count:]):
            (target / split).mkdir(exist_ok=True)
            shutil.copy(image, target / split / f"{n}.png")
    asked = config(data, weird_folder, method="align", name="a", baseline_trials=1, unlabelled_target=True)
    asked = asked.replace(data=str(target))
    record = run_search(asked).record
    assert record.task.counts == {"train": 30, "validation": 10, "test": 40}
    assert record.task.classes == tuple(f"digit {n}" for n in (1, 2, 3, 4, 0))
    outcome = record.outcome
    assert outcome is not None
    assert [b.method for b in outcome.baselines] == ["source"]
    assert all({"alignment", "alignment_weight"} <= set(t.params) for t in record.trials)
    assert all(t.state == "complete" for t in record.trials)
    assert "No label of the target was used" in (weird_folder / "runs s" / "a" / "report.html").read_text()


def test_another_source_under_the_same_name_is_refused(
    reweighted: tuple[SearchConfig, SearchRecord], weird_folder: Path
) -> None:
    asked, _ = reweighted
    other = folder(weird_folder / "other source", range(1, 5), 20, 10)
    with pytest.raises(LedgerError, match=r"source: expected '[0-9a-f]+', received '[0-9a-f]+'"):
        run_search(asked.replace(source=other))


def test_a_source_of_other_classes_is_refused(data: dict[str, str], weird_folder: Path) -> None:
    other = folder(weird_folder / "strangers", range(7, 9), 10, 0)
    with pytest.raises(UsageError, match=r"source: expected .* no class in common"):
        run_search(config(data, weird_folder, source=other, method="align", name="x"))
    assert not (weird_folder / "runs s" / "x").exists()  # refused before anything is written

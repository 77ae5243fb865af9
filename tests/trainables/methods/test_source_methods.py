"""Methods that train on a source dataset in addition to the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from trainables.compiled.shapes import Batches
from trainables.data import task as tasks
from trainables.data.class_names import shared_classes, source_notes
from trainables.data.inputs.options import DataOptions
from trainables.data.split_file import Split, open_split
from trainables.data.unlabelled import HIDDEN_LABEL
from trainables.errors import UsageError
from trainables.methods.align import AlignmentLoss
from trainables.methods.baselines import SourceOnly
from trainables.methods.importance_weights import log_ratios
from trainables.methods.methods import METHODS, begin
from trainables.modalities.image.datasets import prepare
from trainables.testing import MethodConformance
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small target of digits 0 to 4; a source of digits 1 to 5, turned by 20°."""
    from sklearn.datasets import load_digits

    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load

    folder = tmp_path_factory.mktemp("source ü")
    digits = load_digits()
    for name, classes, angle, most in (("target", range(5), 0, 16), ("source", range(1, 6), 20, 24)):
        for digit in classes:
            (folder / name / f"{digit}").mkdir(parents=True)
            for n, row in enumerate(np.flatnonzero(digits.target == digit)[:most]):
                image = Image.fromarray((digits.images[row] * 15).astype(np.uint8)).resize((32, 32))
                image.rotate(angle).save(folder / name / f"{digit}" / f"{n}.png")
    load(BackboneSpec("print")).save(folder / "backbone.keras")
    options = DataOptions(seed=1)
    tasks = {
        name: prepare(
            str(folder / name), image_size=(32, 32), directory=folder / f"{name}-task", options=options
        )
        for name in ("target", "source")
    }
    return {"backbone": folder / "backbone.keras", **{name: task.directory for name, task in tasks.items()}}


def opened(places: dict[str, Path], unlabelled: bool = False) -> Workbench:
    return Workbench.open(
        places["backbone"], places["target"], source=lambda: places["source"], unlabelled=unlabelled
    )


@pytest.fixture(scope="session")
def bench(places: dict[str, Path]) -> Workbench:
    return opened(places)


HEAD: dict[str, Any] = {"unfreeze_depth": 0, "learning_rate": 1e-2, "head_units": 16}


class TestOdds(MethodConformance):
    method = "reweight"
    params: ClassVar[dict[str, Any]] = {
        **HEAD,
        "weighting": "odds",
        "source_share": 0.5,
        "weight_temperature": 2.0,
    }


class TestBoostingAugmented(MethodConformance):
    method = "reweight"
    params: ClassVar[dict[str, Any]] = {
        **HEAD,
        "unfreeze_depth": 1,
        "learning_rate": 3e-3,
        "augmentation_strength": 0.5,
        "weighting": "tradaboost",
        "source_share": 0.7,
    }


class TestAdversary(MethodConformance):
    method = "align"
    params: ClassVar[dict[str, Any]] = {
        **HEAD,
        "alignment": "dann",
        "alignment_weight": 0.1,
        "alignment_schedule": "ramp",
        "alignment_layer": "hidden",
    }


@pytest.mark.slow
class TestDiscrepancyOfBlocks(MethodConformance):
    method = "align"
    params: ClassVar[dict[str, Any]] = {
        **HEAD,
        "unfreeze_depth": 2,
        "learning_rate": 3e-3,
        "head_units": 0,
        "alignment": "mmd",
        "alignment_weight": 0.3,
    }


@pytest.mark.slow
class TestSourceOnly(MethodConformance):
    method = "source"
    params: ClassVar[dict[str, Any]] = HEAD


def losses(bench: Workbench, method: str, epochs: int = 2, **changes: Any) -> list[float]:
    live = changes.pop("live", False)
    config = TrialConfig(method, {**HEAD, **changes}, epochs=epochs, batch_size=16, seed=1, live=live)
    training = begin(config, bench)
    try:
        return [training.run_epoch().train_loss for _ in range(epochs)]
    finally:
        training.release()


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("reweight", {"weighting": "kmm", "unfreeze_depth": 1}),
        ("align", {"alignment": "coral", "alignment_weight": 10.0}),
    ],
)
def test_activations_and_live_images_give_the_same_numbers(
    bench: Workbench, method: str, params: dict[str, Any]
) -> None:
    live = losses(bench, method, **params, live=True)
    np.testing.assert_allclose(losses(bench, method, **params), live, rtol=2e-3)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("reweight", {"weighting": "kmm"}),
        ("reweight", {"weight_clip": 1.1}),
        ("reweight", {"weight_temperature": 5.0}),
        ("reweight", {"source_share": 0.25}),
        ("align", {"alignment": "coral"}),
        ("align", {"alignment_weight": 5.0}),
        ("align", {"alignment_schedule": "ramp"}),
        ("align", {"alignment_layer": "hidden", "unfreeze_depth": 1}),
    ],
)
def test_every_parameter_has_an_effect(bench: Workbench, method: str, change: dict[str, Any]) -> None:
    depth = {"unfreeze_depth": change["unfreeze_depth"]} if "unfreeze_depth" in change else {}
    assert losses(bench, method, **change) != losses(bench, method, **depth)


@pytest.mark.parametrize("layer", ["features", "hidden"])
def test_at_depth_0_the_hidden_layer_is_aligned(bench: Workbench, layer: str) -> None:
    training = begin(TrialConfig("align", {**HEAD, "alignment_layer": layer}, epochs=1), bench)
    training.release()
    objective = training.program.shape.loss
    assert isinstance(objective, AlignmentLoss)
    assert objective.layer == "hidden"


def test_trials_of_any_share_and_weighting_share_one_program(bench: Workbench) -> None:
    losses(bench, "reweight", epochs=1)
    compiled = bench.compiled
    losses(bench, "reweight", epochs=1, weighting="tradaboost", source_share=0.9)
    losses(bench, "source", epochs=1)
    assert bench.compiled == compiled


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        (
            "reweight",
            {"weighting": "luck"},
            "weighting: expected one of odds, kmm, tradaboost, received 'luck'",
        ),
        ("reweight", {"source_share": 0.0}, "source_share: expected above 0 and at most 1, received 0.0"),
        ("align", {"alignment": "feng"}, "alignment: expected one of coral, mmd, dann, received 'feng'"),
        ("align", {"alignment_layer": "roof"}, "alignment_layer: expected one of features, hidden"),
    ],
)
def test_a_wrong_parameter_is_named_in_the_error(
    bench: Workbench, method: str, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        losses(bench, method, **params)


@pytest.mark.parametrize("method", ["reweight", "align", "source"])
def test_a_method_without_its_source_names_the_option(print_bench: Workbench, method: str) -> None:
    with pytest.raises(UsageError, match="--source DATA"):
        losses(print_bench, method)


def test_batches_mix_both_datasets_by_share_and_show_only_shared_classes(bench: Workbench) -> None:
    config = TrialConfig("reweight", {**HEAD, "source_share": 0.25}, epochs=1, batch_size=16, seed=1)
    training = begin(config, bench)
    training.before_first_epoch()
    batches: list[Batches] = list(training.feed.batches(1, training.example_inputs(1)))
    training.release()
    labels = np.concatenate([b.labels for b in batches])
    target, source = labels[:, :12], labels[:, 12:]
    counts = bench.task.counts["train"], len(bench.source.shared_rows("train"))
    assert len(labels) == training.feed.steps == -(-sum(counts) // 16)
    assert set(np.unique(target)) == {0, 1, 2, 3, 4}
    assert set(np.unique(source)) == {1, 2, 3, 4}  # the target has no 5, the source no 0
    weights = np.concatenate([b.example_inputs["weight"] for b in batches])
    assert (weights[:, :12] == 1).all()
    assert (weights[:, 12:] > 0).all()
    order = training.feed.order(1)  # type: ignore[attr-defined]
    shown = np.bincount(order[:, :12].ravel(), minlength=counts[0])
    assert shown.max() - shown.min() <= 1


def test_tradaboost_shifts_weight_from_wrong_images_to_the_others(bench: Workbench) -> None:
    config = TrialConfig("reweight", {**HEAD, "weighting": "tradaboost"}, epochs=3, batch_size=16)
    training = begin(config, bench)
    training.run_epoch()
    (weights,) = training.method_state()
    said = training.predict_source("train")[bench.source.shared_rows("train")]  # type: ignore[attr-defined]
    truth = bench.source.labels("train")[bench.source.shared_rows("train")]
    training.release()
    right = said[np.arange(len(truth)), truth]
    assert np.corrcoef(weights, right)[0, 1] > 0.99
    assert weights.max() <= 1


UNLABELLED = [
    ("align", {"alignment": "mmd"}),
    ("reweight", {"weighting": "odds"}),
    ("source", {}),
]


@pytest.mark.parametrize(("method", "params"), UNLABELLED)
def test_nothing_depends_on_labels_of_an_unlabelled_target(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, method: str, params: dict[str, Any]
) -> None:
    def numbers() -> list[tuple[float, float, float]]:
        bench = opened(places, unlabelled=True)
        training = begin(TrialConfig(method, {**HEAD, **params}, epochs=2, batch_size=16, seed=3), bench)
        found = [training.run_epoch() for _ in range(2)]
        training.release()
        assert (bench.task.split("train").labels == HIDDEN_LABEL).all()
        return [(m.train_loss, m.val_loss, m.val_accuracy) for m in found]

    def changed(path: Path, name: str) -> Split:
        split = open_split(path, name)
        if not path.is_relative_to(places["target"]) or name == "test":
            return split
        shuffled.append(name)
        return replace(split, labels=np.random.default_rng(7).permutation(split.labels))

    shuffled: list[str] = []
    honest = numbers()
    monkeypatch.setattr(tasks, "open_split", changed)
    assert numbers() == honest
    assert {"train", "validation"} <= set(shuffled)
    assert all(0 <= accuracy <= 1 for _, _, accuracy in honest)


def test_without_labels_epochs_are_scored_by_weighted_source_and_target_information(
    places: dict[str, Path],
) -> None:
    bench = opened(places, unlabelled=True)
    training = begin(TrialConfig("source", HEAD, epochs=1, batch_size=16), bench)
    found = training.run_epoch()
    assert isinstance(training, SourceOnly)
    source, target = training.predict_source("validation"), training.predict_current("validation")
    training.release()
    rows = bench.source.shared_rows("validation")
    ours = np.concatenate(list(bench.source.activations.chunks("validation", 0)))[rows]
    theirs = np.concatenate(list(bench.activations.chunks("validation", 0)))
    ratio = np.exp(log_ratios(ours, theirs))
    weights = np.minimum(ratio / ratio.mean(), 10.0)
    truth = bench.source.labels("validation")[rows]
    right = source[rows].argmax(axis=1) == truth
    assert found.val_accuracy == pytest.approx(float((weights * right).sum() / weights.sum()))
    chances = source[rows, truth]
    p = target.mean(axis=0)
    information = float(np.mean(np.sum(target * np.log(target / p), axis=1)))
    expected = -float((weights * np.log(chances)).sum() / weights.sum()) + float(np.log(5)) - information
    assert found.val_loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("finetune", {}, "expected a target with labels"),
        ("scratch", {}, "expected a target with labels"),
        ("reweight", {"weighting": "tradaboost"}, "weighting: expected odds or kmm"),
    ],
)
def test_methods_that_need_labels_refuse_an_unlabelled_target(
    places: dict[str, Path], method: str, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        losses(opened(places, unlabelled=True), method, **params)


def test_batch_norm_adapts_if_the_source_makes_batches_large_enough(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(bench.task, counts={**bench.task.counts, "train": 5})
    monkeypatch.setattr(bench, "task", few)
    adapting = {}
    for method in ("finetune", "align"):
        kind = METHODS[method].load()
        training = object.__new__(kind)
        training.config, training.bench = TrialConfig(method, {**HEAD, "unfreeze_depth": 1}), bench
        adapting[method] = kind.plan(training).adapt
    assert adapting == {"finetune": False, "align": True}


def test_labels_are_shared_by_name(bench: Workbench) -> None:
    source = bench.source
    own = np.array(source.task.classes)[source.split("train").labels]
    shared = source.labels("train")
    assert ((shared == -1) == (own == "5")).all()
    rows = source.shared_rows("train")
    assert (np.array(bench.task.classes)[shared[rows]] == own[rows]).all()


def test_differing_classes_are_reported_and_disjoint_ones_refused() -> None:
    assert source_notes("abc", "abc") == ()
    left_out, absent = source_notes("bcd", "abc")
    assert left_out == "images of 'd' are left out: the target has no such class"
    assert "only 2 of the target's 3 classes" in absent
    assert "'a'" in absent
    assert shared_classes("cb", "abc") == ("b", "c")
    with pytest.raises(
        UsageError, match=r"source: expected .* no class in common: 'x' in the source, 'a' in the target"
    ):
        shared_classes("x", "a")

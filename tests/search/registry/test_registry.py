"""Winners are registered in MLflow's registry, with a real SQLite store and a real Keras model."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.records.predictions import PredictionRecord, image_keys, write_predictions
from search.records.record import BackboneSummary, Interval, Outcome, SearchRecord, TaskSummary, TrialRecord
from search.registry import (
    PromotionRefused,
    Version,
    class_names,
    download_backbone,
    promote,
    register,
    registration,
    rollback,
)
from search.registry.downloads import check_model_exists
from search.tracking.client import connect, use_store
from search.tracking.mirror import Mirror
from search.tracking.stores import default_tracking_uri
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import TrackingError
from trainables.serving.footprint import Footprint, Latency

keras = pytest.importorskip("keras")
mlflow = pytest.importorskip("mlflow")

CLASSES = ("null", "eins ü", "字")
START = datetime(2025, 3, 1, tzinfo=UTC)
TASK = TaskSummary("digits", "d" * 64, CLASSES, {"train": 20}, (8, 8), "digits")
BACKBONE = BackboneSummary("print", "default", "b" * 64, (32, 32), 60_000, ("stem", "top"))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 3)).astype("uint8")


def classifier(seed: int = 0, classes: int = 3, dtype: str = "uint8") -> Any:
    """Build a model that takes images of any size, resizes them and returns probabilities."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((None, None, 3), dtype=dtype)
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Resizing(4, 4, antialias=True)(x)
    x = keras.layers.Dense(classes)(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Softmax()(x))


def search(name: str, winner: int = 0) -> SearchRecord:
    curve = (EpochMetrics(1, 0.9, 0.1, 0.1, 0.1),)
    trials = tuple(
        TrialRecord(
            n, "complete", "finetune", {"learning_rate": 0.01}, 0.9, curve, started=START, ended=START
        )
        for n in range(2)
    )
    outcome = Outcome(
        trial=winner,
        params={"learning_rate": 0.01},
        seeds=(0,),
        val_accuracies=(0.9,),
        test_accuracy=Interval(0.91, 0.88, 0.93),
        seed_test_accuracies=(0.91,),
        confusion=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        gain=Interval(0.024, 0.01, 0.04),
        verdict="helps",
    )
    return SearchRecord(
        name, "val_accuracy", "maximize", TASK, BACKBONE, {}, trials, 2, started=START, outcome=outcome
    )


class Registry:
    """A store that contains one search."""

    def __init__(self, storage: Path, name: str) -> None:
        self.uri = default_tracking_uri(storage)
        self.model = f"unfreeze-{name}"
        self.record = search(name)
        self.mirror = Mirror(self.uri, experiment="unfreeze/digits", storage=storage)
        self.mirror.close(self.record)
        self.client = connect(self.uri)

    def register(
        self, model: Any, record: SearchRecord | None = None, predictions: Path | None = None
    ) -> Version:
        record = record or self.record
        return register(
            record,
            model,
            run_id=self.mirror.run_id(record.outcome.trial if record.outcome else 0),
            examples=IMAGES,
            model_name=self.model,
            tracking_uri=self.uri,
            predictions=predictions,
        )

    def versions(self) -> list[str]:
        return sorted(str(v.version) for v in self.client.search_model_versions(f"name = '{self.model}'"))

    def alias(self, name: str) -> str:
        return str(self.client.get_model_version_by_alias(self.model, name).version)

    def logged(self) -> list[Any]:
        return list(
            self.client.search_logged_models(
                [self.mirror.experiment_id], f"source_run_id = '{self.mirror.run_id(0)}'"
            )
        )


@pytest.fixture
def registry(storage: Path, model_name: str) -> Registry:
    return Registry(storage, model_name)


def test_a_winner_becomes_the_challenger_and_loads(registry: Registry) -> None:
    model = classifier()
    version = registry.register(model)
    assert (version.version, registry.alias("challenger")) == ("1", "1")
    uri = f"models:/{registry.model}@challenger"
    expected = model.predict(IMAGES, verbose=0)
    with use_store(registry.uri):
        again = mlflow.keras.load_model(uri)
        served = mlflow.pyfunc.load_model(uri)
        np.testing.assert_allclose(again.predict(IMAGES, verbose=0), expected, rtol=1e-6)
        np.testing.assert_allclose(served.predict(IMAGES), expected, rtol=1e-6)
        assert served.metadata.metadata["class_names"] == list(CLASSES)
        assert class_names(uri) == CLASSES
    assert class_names(version.uri, registry.uri) == CLASSES
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, -1, -1, 3)
    assert served.metadata.signature.inputs.inputs[0].type == np.dtype("uint8")
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, 3)
    with use_store(registry.uri):
        example = served.metadata.load_input_example(mlflow.artifacts.download_artifacts(version.uri))
    np.testing.assert_array_equal(example, IMAGES[:1])


@pytest.mark.parametrize("key", ["inputs", "instances"])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_the_model_accepts_what_the_server_sends(registry: Registry, key: str, dtype: str) -> None:
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    model = classifier()
    registry.register(model)
    with use_store(registry.uri):
        served = mlflow.pyfunc.load_model(f"models:/{registry.model}@challenger")
    body = json.loads(json.dumps({key: IMAGES.astype(dtype).tolist()}))
    parsed = infer_and_parse_data(body, served.metadata.get_input_schema())
    np.testing.assert_allclose(served.predict(parsed), model.predict(IMAGES, verbose=0), rtol=1e-6)


def test_lineage_is_in_the_tags(registry: Registry) -> None:
    version = registry.register(classifier())
    tags = registry.client.get_model_version(registry.model, version.version).tags
    assert tags["unfreeze.search"] == registry.record.name
    assert tags["unfreeze.trial"] == "0"
    assert tags["unfreeze.data_digest"] == TASK.digest
    assert tags["unfreeze.backbone_digest"] == BACKBONE.digest
    assert float(tags["unfreeze.test_accuracy"]) == 0.91
    assert float(tags["unfreeze.gain"]) == 0.024
    assert version.run_id == registry.mirror.run_id(0)
    description = registry.client.get_model_version(registry.model, version.version).description
    assert "Test accuracy 91.0 %" in description


def test_the_run_stays_finished_and_has_the_model_once(registry: Registry) -> None:
    registry.register(classifier())
    registry.register(classifier())
    run = registry.client.get_run(registry.mirror.run_id(0))
    assert run.info.status == "FINISHED"
    assert len(run.outputs.model_outputs) == 1


def test_registering_again_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "winner ü.keras"
    classifier().save(file)
    first = registry.register(file)
    assert registry.register(file) == first
    assert registry.register(str(file)) == first
    assert registry.versions() == ["1"]
    assert len(registry.logged()) == 1


def test_registration_resumes_after_a_kill_before_the_version_was_created(registry: Registry) -> None:
    version = registry.register(classifier())
    registry.client.delete_registered_model_alias(registry.model, "challenger")
    registry.client.delete_model_version(registry.model, version.version)
    again = registry.register(classifier())
    assert again.version == registry.alias("challenger")
    assert len(registry.logged()) == 1


def test_a_kill_while_the_model_is_logged_leaves_nothing_behind(registry: Registry) -> None:
    half = registry.client.create_logged_model(
        registry.mirror.experiment_id, "model", registry.mirror.run_id(0), {"unfreeze.model_digest": "x"}
    )
    registry.register(classifier())
    assert half.model_id not in [logged.model_id for logged in registry.logged()]
    assert len(registry.logged()) == 1
    assert registry.versions() == ["1"]


def test_registration_resumes_after_a_kill_before_the_alias_was_set(registry: Registry) -> None:
    registry.register(classifier())
    registry.client.delete_registered_model_alias(registry.model, "challenger")
    registry.register(classifier())
    assert registry.alias("challenger") == "1"


def test_another_winner_is_another_version_and_an_older_search_does_not_move_the_alias(
    registry: Registry,
) -> None:
    old = registry.register(classifier(seed=0))
    registry.register(classifier(seed=1), replace(registry.record, outcome=search("x", 1).outcome))
    assert registry.alias("challenger") == "2"
    assert registry.register(classifier(seed=0)) == old
    assert registry.alias("challenger") == "2"


def test_a_winner_like_the_most_frequent_class_is_registered_but_not_proposed(registry: Registry) -> None:
    registry.register(classifier(seed=0))
    poor = replace(search("x", 1).outcome, confusion=((5, 0, 0), (5, 0, 0), (5, 0, 0)))  # type: ignore[type-var]
    version = registry.register(classifier(seed=1), replace(registry.record, outcome=poor))
    assert (registry.versions(), registry.alias("challenger")) == (["1", "2"], "1")
    reason = version.tags["unfreeze.not_proposed"]
    assert "not significantly better than always answering the most frequent class" in reason
    description = registry.client.get_model_version(registry.model, "2").description
    assert description.startswith(f"Not proposed as challenger: {reason}. Test accuracy 91.0 %")
    assert registry.register(classifier(seed=1), replace(registry.record, outcome=poor)) == version


def test_a_kill_before_the_alias_is_set_leaves_the_reason_with_the_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    poor = replace(registry.record.outcome, confusion=((5, 0), (5, 0)))  # type: ignore[type-var]
    record = replace(registry.record, outcome=poor)

    def die(name: str) -> None:
        raise KeyboardInterrupt(name)

    with monkeypatch.context() as killing:
        killing.setattr(registration, "failpoint", die)
        with pytest.raises(KeyboardInterrupt, match="version-created"):
            registry.register(classifier(), record)
    left = registry.client.get_model_version(registry.model, "1")
    assert "most frequent class" in left.tags["unfreeze.not_proposed"]
    assert registry.register(classifier(), record).version == "1"
    assert registry.client.get_registered_model(registry.model).aliases == {}
    assert promote(registry.model, registry.uri, version=1, force=True).champion.version == "1"


def test_the_global_tracking_uri_of_mlflow_does_not_change(registry: Registry) -> None:
    before = mlflow.tracking.is_tracking_uri_set()
    registry.register(classifier())
    assert mlflow.tracking.is_tracking_uri_set() == before


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: classifier(classes=4), r"expected outputs \(None, 3\).*received \(None, 4\)"),
        (lambda: classifier(dtype="float32"), r"expected one input of uint8.*received float32"),
    ],
)
def test_a_model_with_other_inputs_or_outputs_is_refused(registry: Registry, model: Any, words: str) -> None:
    with pytest.raises(TrackingError, match=words):
        registry.register(model())
    assert registry.versions() == []


def test_a_search_without_a_measured_winner_is_refused(registry: Registry) -> None:
    with pytest.raises(TrackingError, match="whose winner has been measured"):
        register(
            replace(registry.record, outcome=None),
            classifier(),
            run_id="x",
            examples=IMAGES,
            model_name="m",
            tracking_uri=registry.uri,
        )


def test_promote_and_rollback(registry: Registry) -> None:
    for seed in range(3):
        registry.register(classifier(seed))
        promoted = promote(registry.model, registry.uri, force=True)
        assert promoted.champion.version == registry.alias("champion") == str(seed + 1)
        assert (promoted.before.version if promoted.before else "0") == str(seed)
    assert rollback(registry.model, registry.uri).champion.version == "2"
    assert rollback(registry.model, registry.uri).champion.version == registry.alias("champion") == "1"
    with pytest.raises(TrackingError, match=r"version 1 .* is its first champion"):
        rollback(registry.model, registry.uri)
    assert promote(registry.model, registry.uri, force=True).champion.version == "3"
    assert rollback(registry.model, registry.uri).champion.version == "1"
    tags = registry.client.get_model_version(registry.model, "3").tags
    assert {"unfreeze.promoted_at", "unfreeze.promoted_by", "unfreeze.rolled_back_at"} <= tags.keys()


def test_rollback_skips_a_deleted_version(registry: Registry) -> None:
    for seed in range(3):
        registry.register(classifier(seed))
        promote(registry.model, registry.uri, force=True)
    registry.client.delete_model_version(registry.model, "2")
    assert rollback(registry.model, registry.uri).champion.version == "1"


def test_promote_reports_what_is_missing(registry: Registry) -> None:
    with pytest.raises(TrackingError, match=f"received '{registry.model}'"):
        promote(registry.model, registry.uri)
    registry.register(classifier())
    with pytest.raises(TrackingError, match="no version with the alias 'champion'"):
        rollback(registry.model, registry.uri)
    promote(registry.model, registry.uri, force=True)
    with pytest.raises(TrackingError, match=r"version 1 .* is the champion already"):
        promote(registry.model, registry.uri)
    registry.client.delete_registered_model_alias(registry.model, "challenger")
    with pytest.raises(TrackingError, match="no version with the alias 'challenger'"):
        promote(registry.model, registry.uri)


def test_a_version_without_predictions_is_promoted_only_by_force(registry: Registry) -> None:
    registry.register(classifier())
    with pytest.raises(
        PromotionRefused, match="stays challenger: version 1 was registered without its test predictions"
    ):
        promote(registry.model, registry.uri)
    assert promote(registry.model, registry.uri, force=True).forced
    assert registry.client.get_model_version(registry.model, "1").tags["unfreeze.forced"] == "true"


def test_predictions_and_costs_are_stored_with_the_version(registry: Registry, tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    file = tmp_path / "finetune-0-answers.parquet"
    keys = image_keys([str(n) for n in range(60)])
    right = np.stack([labels, labels])
    write_predictions(
        file, PredictionRecord(CLASSES, (8, 8), "t" * 64, keys, labels, right, 0, (right + 1) % 3)
    )
    time = Latency(3.25, 3.0, 3.5)
    costs = Footprint(123_456, 999, 0.75, time, time, "a processor, 2 threads")
    outcome = replace(registry.record.outcome, footprint=costs, answers_file=file.name)  # type: ignore[type-var]
    registry.register(classifier(), replace(registry.record, outcome=outcome), predictions=file)
    version = registry.client.get_model_version(registry.model, "1")
    assert version.tags["unfreeze.model_bytes"] == "123456"
    assert version.tags["unfreeze.latency_ms"] == "3.25"
    assert version.tags["unfreeze.load_seconds"] == "0.75"
    assert version.tags["unfreeze.processor"] == "a processor, 2 threads"
    assert version.tags["unfreeze.input"] == "uint8 (-1, -1, -1, 3)"
    assert version.tags["unfreeze.test_digest"] == "t" * 64
    assert "123 kB, loaded in 0.8 s, 3.25 ms for an image (a processor, 2 threads)." in version.description
    done = promote(registry.model, registry.uri)
    assert done.judgement is not None
    assert (done.judgement.decision, done.judgement.images) == ("first", 60)


def test_a_backbone_is_downloaded_from_the_registry(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = classifier()
    registry.register(model)
    folder = tmp_path / "Ordner ü"
    for uri in (f"models:/{registry.model}@challenger", f"models:/{registry.model}/1"):
        file = download_backbone(uri, folder, registry.uri)
        assert (file.parent, file.suffix) == (folder, ".keras")
        loaded = keras.saving.load_model(file, compile=False, safe_mode=True)
        np.testing.assert_allclose(loaded.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))
    assert len(list(folder.iterdir())) == 1
    registry.register(classifier(seed=1))
    assert download_backbone(f"models:/{registry.model}@challenger", folder, registry.uri) != file
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]  # MLflow's default store would lie here


def test_a_backbone_is_downloaded_from_a_run(registry: Registry, tmp_path: Path) -> None:
    file = tmp_path / "own.keras"
    classifier().save(file)
    run_id = registry.mirror.run_id(1)
    registry.client.log_artifact(run_id, str(file), "models")
    found = download_backbone(f"runs:/{run_id}/models", tmp_path / "out", registry.uri)
    assert found.read_bytes() == file.read_bytes()


def test_an_address_without_a_backbone_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"expected a registered model .* received 'nobody'"):
        download_backbone("models:/nobody@champion", tmp_path, registry.uri)
    registry.register(classifier())
    with pytest.raises(TrackingError, match="no version with the alias 'champion'"):
        download_backbone(f"models:/{registry.model}@champion", tmp_path, registry.uri)
    with pytest.raises(TrackingError, match=r"\(it has challenger; `unfreeze promote` sets it\)"):
        check_model_exists(f"models:/{registry.model}@champion", registry.uri)
    check_model_exists(f"models:/{registry.model}@challenger", registry.uri)
    check_model_exists(f"models:/{registry.model}/1", registry.uri)
    with pytest.raises(TrackingError, match=r"has no version 99 \(it has 1\)"):
        check_model_exists(f"models:/{registry.model}/99", registry.uri)
    with pytest.raises(TrackingError, match=r"received 'nobody'"):
        check_model_exists("models:/nobody/1", registry.uri)
    (tmp_path / "weights.pkl").write_bytes(b"x")
    run_id = registry.mirror.run_id(1)
    registry.client.log_artifact(run_id, str(tmp_path / "weights.pkl"), "stuff")
    with pytest.raises(TrackingError, match=r"expected one \.keras file in it, received weights\.pkl"):
        download_backbone(f"runs:/{run_id}/stuff", tmp_path, registry.uri)
    with pytest.raises(TrackingError, match="MLflow at sqlite"):
        download_backbone(f"models:/{registry.model}/99", tmp_path, registry.uri)

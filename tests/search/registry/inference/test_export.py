"""``unfreeze export`` writes a format only if it predicts as Keras does, for images of any size."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow_store import put_empty_store
from PIL import Image

from search.cli import main
from search.registry.inference.export import export_model
from search.registry.model_package import write_package
from search.tracking.stores import default_tracking_uri
from trainables.errors import SearchError
from trainables.implementations import load_implementation
from trainables.serving.export_formats import EXPORT_FORMATS

keras = pytest.importorskip("keras")
mlflow = pytest.importorskip("mlflow")

CLASSES = ("null", "eins ü", "字")
FAMILIES = {"print": {}, "MobileNetV2": {"size": 64}, "EfficientNetB0": {"size": 64}}
RNG = np.random.default_rng(0)
IMAGES = [
    RNG.integers(0, 256, (*size, 3)).astype("uint8") for size in ((64, 64), (32, 32), (150, 90), (20, 77))
]


def classifier(name: str, size: int | None = None) -> Any:
    """Build a backbone with a head, as it is registered; random weights predict differently for different images."""
    from trainables.backbones.spec import BackboneSpec
    from trainables.modalities.image.backbones import load

    keras.utils.set_random_seed(1)
    backbone = load(BackboneSpec(name, weights="none" if size else "default", input_size=size))
    inputs = keras.Input((None, None, 3), dtype="uint8", name="images")
    x = keras.layers.Rescaling(1.0)(inputs)
    x = keras.layers.Resizing(*backbone.input_size, interpolation="bilinear", antialias=True)(x)
    if size:
        _settle(backbone.model, size)
    features = backbone.model(x)
    head = keras.layers.Dense(len(CLASSES), name="head")
    model = keras.Model(inputs, keras.layers.Softmax(name="probabilities")(head(features)))
    model.trainable = False
    seen = keras.Model(inputs, features).predict_on_batch(IMAGES[0][None])
    weights, bias = head.get_weights()
    head.set_weights([weights * 3 / max(float(np.abs(seen @ weights).max()), 1e-9), bias])
    return model


def _settle(backbone: Any, size: int) -> None:
    """Replace fresh statistics by those of random images: with fresh ones a deep network predicts the same for all
    images.
    """
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    backbone(RNG.integers(0, 256, (8, size, size, 3)).astype("float32"), training=True)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_every_format_predicts_as_keras_does(
    family: str, name: str, models: dict[str, Any], tmp_path: Path
) -> None:
    model = models.setdefault(family, None) or classifier(family, **FAMILIES[family])
    models[family] = model
    target = tmp_path / "ü export"
    found = export_model(model, CLASSES, name, target, IMAGES)
    assert (found.images, found.sizes, found.changed_classes) == (4, 4, 0)
    assert found.difference < 1e-5
    spread = np.std([model.predict_on_batch(image[None])[0] for image in IMAGES])
    assert spread > 0.05  # otherwise any answer would do
    assert target.is_dir() == (name == "savedmodel")
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models ü")
    uri = default_tracking_uri(folder)
    put_empty_store(folder)
    package = folder / "package"
    package.mkdir()
    write_package(classifier("print"), package, CLASSES, IMAGES[0][None], mlflow.models.Model())
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("print")
    client.create_model_version("print", package.as_uri())
    client.set_registered_model_alias("print", "champion", "1")
    return uri


def export(store: str, *arguments: str | Path) -> int:
    return main(["export", "models:/print@champion", *map(str, arguments), "--tracking-uri", store])


@pytest.mark.slow
def test_the_command_reports_its_check_and_exports_class_names(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lite, onnx, saved = tmp_path / "ü.tflite", tmp_path / "ü.onnx", tmp_path / "saved"
    images = tmp_path / "images"
    images.mkdir()
    for n, image in enumerate(IMAGES):
        Image.fromarray(image).save(images / f"{n}.png")
    assert export(store, "--output", lite) == 0
    said = capsys.readouterr()
    assert said.out == f"{lite}\n"
    assert "checked on 4 images of 4 sizes: max difference from Keras" in said.err
    assert export(store, "--output", onnx, "--check", images) == 0
    assert "each gets the same class" in capsys.readouterr().err
    assert export(store, "--output", saved, "--format", "savedmodel", "--check", images / "0.png") == 0
    with zipfile.ZipFile(lite) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(CLASSES)
    model = pytest.importorskip("onnx").load(str(onnx))
    assert json.loads(model.metadata_props[0].value) == list(CLASSES)
    assert json.loads((saved / "assets.extra" / "class_names.json").read_text("utf-8")) == list(CLASSES)
    assert export(store, "--output", saved, "--format", "savedmodel", "--overwrite") == 0


def test_invalid_options_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there.onnx"
    there.write_text("mine")
    (tmp_path / "folder").mkdir()
    for arguments, words in [
        (["--output", there], "use --overwrite to replace it"),
        (["--output", tmp_path / "model"], "expected one of savedmodel, tflite, onnx"),
        (["--output", tmp_path / "a", "--format", "pickle"], "received 'pickle'"),
        (["--output", there / "a.tflite"], "can be written"),
        (["--output", tmp_path / "folder", "--format", "tflite", "--overwrite"], "an earlier export"),
        (["--output", tmp_path / "a.tflite", "--check", tmp_path / "none.png"], "no such file"),
    ]:
        assert export("http://127.0.0.1:9", *arguments) == 2
        assert words in capsys.readouterr().err
    assert there.read_text() == "mine"


def test_every_format_has_an_implementation() -> None:
    for made in EXPORT_FORMATS.values():
        assert callable(load_implementation(made.writer))
        assert callable(load_implementation(made.opener))


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = dataclasses.replace(EXPORT_FORMATS["onnx"], required_packages=("no_such_converter",))
    monkeypatch.setattr("search.registry.inference.export.EXPORT_FORMATS", {"onnx": lacking})
    assert export("http://127.0.0.1:9", "--output", tmp_path / "a.onnx") == 1
    assert (
        "no_such_converter, which is not installed: pip install 'unfreeze[export]'" in capsys.readouterr().err
    )


def test_a_failed_conversion_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    class Odd(keras.layers.Layer):
        def call(self, images: Any) -> Any:
            import tensorflow as tf

            return tf.numpy_function(lambda x: x, [images], tf.float32)

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    images = keras.Input((None, None, 3), dtype="uint8")
    x = Odd()(keras.layers.Resizing(4, 4)(keras.layers.Rescaling(1.0)(images)))
    x = keras.ops.reshape(x, (-1, 48))
    model = keras.Model(images, keras.layers.Softmax()(keras.layers.Dense(3)(x)))
    with pytest.raises(SearchError, match=r"can't be converted in tflite: .*PyFunc"):
        export_model(model, CLASSES, "tflite", tmp_path / "odd.tflite", IMAGES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [1 / 3, np.nan])
def test_an_export_with_different_predictions_is_not_kept(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainables.serving import exports

    def wrong(path: Path) -> exports.Predictor:
        return lambda images: np.full((len(images), 3), value, np.float32)

    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Softmax()(keras.layers.Dense(3)(x)))
    monkeypatch.setattr(exports, "open_tflite", wrong)
    with pytest.raises(SearchError, match=r"at most 0\.0001, received .*nothing was written"):
        export_model(model, CLASSES, "tflite", tmp_path / "a.tflite", IMAGES)
    assert list(tmp_path.iterdir()) == []

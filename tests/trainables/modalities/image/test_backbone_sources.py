"""Files that are no backbones, weights that do not fit, and unknown names get helpful error messages."""

from __future__ import annotations

import json
import socket
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from trainables.backbones.backbone import Backbone
from trainables.backbones.spec import BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.backbones import load


def small(**options: Any) -> Any:
    image = keras.Input((16, 16, 3), **options)
    return keras.Model(image, layers.Conv2D(4, 3, name="conv")(image))


def refused(name: str | Path, **options: Any) -> str:
    with pytest.raises(BackboneError) as caught:
        load(BackboneSpec(str(name), **options))
    return str(caught.value)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("ResNet5", "ResNet50"),
        ("mobilenet-v4", "MobileNetV2"),
        ("efficientnetb9", "EfficientNetB"),
        ("prnt", "print"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(typo: str, meant: str) -> None:
    message = refused(typo)
    assert f"received '{typo}'" in message
    assert "did you mean" in message
    assert meant in message
    assert "unfreeze backbones" in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert refused(tmp_path / "no such 字.keras").endswith("no such 字.keras: no such file")


def test_another_format_gets_a_hint_how_to_convert_it(tmp_path: Path) -> None:
    file = tmp_path / "old.h5"
    file.write_bytes(b"")
    assert "save it with model.save('NAME.keras')" in refused(file)


def test_a_file_that_is_not_keras_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "text.keras"
    file.write_text("hello")
    assert "not a readable .keras file" in refused(file)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    image = keras.Input((16, 16, 3))
    x = layers.Lambda(lambda x: x / 2)(image)
    file = tmp_path / "lambda.keras"
    keras.Model(image, layers.Conv2D(4, 3)(x)).save(file)
    assert "it holds a Lambda layer" in refused(file)


class Own(keras.Model):
    """A subclassed model."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.conv = layers.Conv2D(4, 3)

    def call(self, x: Any) -> Any:
        return self.conv(x)

    def get_config(self) -> dict[str, Any]:
        return {}


def test_a_subclassed_model_is_refused(tmp_path: Path) -> None:
    model = Own()
    model(np.zeros((1, 16, 16, 3)))
    file = tmp_path / "own.keras"
    model.save(file)
    assert "it needs class 'Own', which Keras does not have" in refused(file)
    with keras.saving.custom_object_scope({"Own": Own}):
        assert "received a subclassed one (Own)" in refused(file)


@pytest.mark.parametrize("case", ["two inputs", "two outputs", "vectors", "five channels"])
def test_other_shapes_of_model_are_refused(case: str, tmp_path: Path) -> None:
    image, other = keras.Input((16, 16, 3)), keras.Input((16, 16, 3))
    x = layers.Conv2D(4, 3)(image)
    vector, many = keras.Input((9,)), keras.Input((16, 16, 5))
    model, expected = {
        "two inputs": (keras.Model([image, other], layers.Add()([image, other])), "received 2 and 1"),
        "two outputs": (keras.Model(image, [x, image]), "received 1 and 2"),
        "vectors": (keras.Model(vector, layers.Dense(2)(vector)), "received an input of shape (None, 9)"),
        "five channels": (keras.Model(many, layers.Conv2D(4, 3)(many)), "(None, 16, 16, 5)"),
    }[case]
    file = tmp_path / "model.keras"
    model.save(file)
    assert expected in refused(file)


def test_a_model_without_anything_to_train_is_refused(tmp_path: Path) -> None:
    image = keras.Input((16, 16, 3))
    file = tmp_path / "empty.keras"
    keras.Model(image, layers.MaxPooling2D()(image)).save(file)
    assert "expected layers with weights to train, found none" in refused(file)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_weights_come_from_a_file_of_any_keras_format(suffix: str, tmp_path: Path) -> None:
    model, donor = small(), small()
    file, weights = tmp_path / "model.keras", tmp_path / f"wéights{suffix}"
    model.save(file)
    (donor.save_weights if suffix == ".weights.h5" else donor.save)(weights)
    backbone = load(BackboneSpec(str(file), weights=str(weights)))
    assert backbone.weights == str(weights)
    np.testing.assert_array_equal(backbone.model.get_weights()[0], donor.get_weights()[0])


def test_weights_of_a_whole_classifier_lose_their_head(tmp_path: Path) -> None:
    donor = keras.applications.MobileNetV2(weights=None)
    weights = tmp_path / "with top.weights.h5"
    donor.save_weights(weights)
    backbone = load(BackboneSpec("mobilenetv2", weights=str(weights), input_size=32))
    assert backbone.model.output.shape == (None, 1280)
    np.testing.assert_array_equal(backbone.model.get_weights()[0], donor.get_weights()[0])


@pytest.mark.slow
def test_downloaded_efficientnet_weights_mean_the_same_from_a_file(tmp_path: Path) -> None:
    donor = keras.applications.EfficientNetB0(weights=None, include_top=False)
    normal = donor.get_layer(index=2)
    normal.adapt_mean.assign([0.485, 0.456, 0.406])
    normal.adapt_variance.assign([0.229, 0.224, 0.225])
    weights = tmp_path / "like imagenet.weights.h5"
    donor.save_weights(weights)
    backbone = load(BackboneSpec("EfficientNetB0", weights=str(weights), input_size=32))
    prefix, _ = backbone.parts(len(backbone.blocks))
    white = np.full((1, 32, 32, 3), 255, "float32")
    expected = (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(np.asarray(prefix(white))[0, 0, 0], expected, rtol=1e-5)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    file, weights = tmp_path / "model.keras", tmp_path / "other.weights.h5"
    small().save(file)
    image = keras.Input((16, 16, 3))
    keras.Model(image, layers.Conv2D(5, 3, name="conv")(image)).save_weights(weights)
    assert "they do not fit" in refused(file, weights=str(weights))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [("nowhere.h5", "no such file"), ("pickle.pkl", "expected a .weights.h5, .h5 or .keras file")],
)
def test_other_weights_files_are_refused(weights: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    small().save(file)
    (tmp_path / "pickle.pkl").write_bytes(b"")
    assert expected in refused(file, weights=str(tmp_path / weights))


def test_imagenet_weights_are_for_applications(tmp_path: Path) -> None:
    assert "expected default, none or a file for backbone 'print'" in refused("print", weights="imagenet")


def test_without_internet_the_local_file_is_suggested(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: Any, **__: Any) -> Any:
        raise OSError("network is unreachable")

    monkeypatch.setattr("keras.src.utils.file_utils.config.keras_home", lambda: str(tmp_path))
    monkeypatch.setattr(socket, "create_connection", offline)
    monkeypatch.setattr(socket, "getaddrinfo", offline)
    before = socket.getdefaulttimeout()
    message = refused("mobilenetv3small", input_size=32)
    assert "MobileNetV3Small" in message
    assert "--weights FILE" in message
    assert "network is unreachable" in message
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "expected a positive number"), (16, "needs 32 pixels or more")]
)
def test_a_size_that_is_too_small_is_refused(size: int, expected: str) -> None:
    assert expected in refused("MobileNetV2", weights="none", input_size=size)


def test_the_preprocessing_of_an_application_can_not_be_overridden() -> None:
    assert "MobileNetV2 brings its own" in refused("MobileNetV2", weights="none", preprocessing="caffe")


def test_opening_a_file_that_was_not_saved_by_a_backbone_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    small().save(file)
    with pytest.raises(BackboneError, match=r"expected a file saved by Backbone\.save"):
        Backbone.open(file)


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "backbone.keras"
    load(BackboneSpec()).save(file)
    with zipfile.ZipFile(file, "a") as archive:
        note = json.loads(archive.comment)
        archive.comment = json.dumps(note | {"digest": "0" * 16}).encode()
    with pytest.raises(BackboneError, match="expected digest 0000000000000000, received"):
        Backbone.open(file)


def test_saving_over_a_file_replaces_it(tmp_path: Path) -> None:
    file = tmp_path / "backbone.keras"
    file.write_text("half a file")
    backbone = load(BackboneSpec())
    backbone.save(file)
    assert Backbone.open(file).digest == backbone.digest

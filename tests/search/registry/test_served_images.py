"""A registered model behind ``mlflow models serve`` predicts as Keras does: real processes, real requests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow_store import put_empty_store
from model_server import ModelServer
from PIL import Image

from search.registry.model_package import write_package
from search.registry.served_images import ServedImages
from search.tracking.client import use_store
from search.tracking.stores import default_tracking_uri
from trainables.modalities.image.images import decode_image

keras = pytest.importorskip("keras")
mlflow = pytest.importorskip("mlflow")

CLASSES = ("null", "eins ü", "字")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (4, 12, 9, 3)).astype("uint8")
OTHERS = [RNG.integers(0, 256, (*size, 3)).astype("uint8") for size in ((5, 20), (31, 8), (12, 10))]
NAME = "unfreeze-served"


def classifier() -> Any:
    """Build a model that takes images of any size, resizes them and returns probabilities."""
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Resizing(4, 4, antialias=True)(x)
    x = keras.layers.Dense(len(CLASSES))(keras.layers.Flatten()(x))
    return keras.Model(images, keras.layers.Softmax()(x))


def file_of(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


class Served:
    """One registered version, served twice: plain Keras at its own address, image files from its folder ``images``."""

    def __init__(self, folder: Path) -> None:
        self.uri = default_tracking_uri(folder)
        put_empty_store(folder)
        self.model = classifier()
        package = folder / "package ü"
        package.mkdir()
        write_package(self.model, package, CLASSES, IMAGES, mlflow.models.Model())
        client = mlflow.MlflowClient(self.uri, self.uri)
        client.create_registered_model(NAME)
        client.create_model_version(NAME, package.as_uri())
        client.set_registered_model_alias(NAME, "champion", "1")
        self.arrays = ModelServer(f"models:/{NAME}@champion", self.uri, folder)
        self.images = ModelServer(f"models:/{NAME}@champion/images", self.uri, folder)

    def said(self, *images: np.ndarray) -> np.ndarray:
        """What Keras itself says, image by image."""
        return np.concatenate([self.model.predict_on_batch(image[None]) for image in images])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("models ü"))
    servers = (found.arrays, found.images)
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield found
    finally:
        for server in servers:
            server.kill()


def expect(answer: tuple[int, Any], expected: np.ndarray) -> None:
    status, body = answer
    assert status == 200, body
    np.testing.assert_allclose(body["predictions"], expected, atol=1e-5)


def expect_refusal(answer: tuple[int, Any], *words: str) -> None:
    status, body = answer
    assert status == 400, body
    assert all(word in json.dumps(body) for word in words), body


@pytest.mark.slow
@pytest.mark.parametrize("key", ["inputs", "instances"])
def test_both_models_predict_arrays_as_keras_does(served: Served, key: str) -> None:
    expected = served.said(*IMAGES)
    for server in (served.arrays, served.images):
        expect(server.ask({key: IMAGES.tolist()}), expected)
        expect(server.ask({key: OTHERS[0][None].tolist()}), served.said(OTHERS[0]))


@pytest.mark.slow
def test_image_files_in_base64_in_every_form_that_mlflow_has(served: Served) -> None:
    files = [text_of(file_of(image)) for image in IMAGES]
    expected = served.said(*IMAGES)
    server = served.images
    expect(server.ask({"inputs": files}), expected)
    expect(server.ask({"instances": files}), expected)
    expect(server.ask({"instances": [{"image": file} for file in files]}), expected)
    expect(server.ask({"inputs": {"image": files}}), expected)
    expect(server.ask({"dataframe_records": [{"image": file} for file in files]}), expected)
    expect(server.ask({"dataframe_split": {"columns": ["image"], "data": [[f] for f in files]}}), expected)
    expect(server.ask({"inputs": files[0]}), expected[:1])
    expect(server.ask({"inputs": ["data:image/png;base64," + files[0]]}), expected[:1])


@pytest.mark.slow
def test_images_of_several_sizes_and_kinds_in_one_request(served: Served) -> None:
    several = [OTHERS[0], IMAGES[0], OTHERS[1], IMAGES[1], OTHERS[2]]
    expected = served.said(*several)
    expect(served.images.ask({"inputs": [text_of(file_of(image)) for image in several]}), expected)
    expect(served.images.ask({"inputs": [image.tolist() for image in several]}), expected)
    mixed = [image.tolist() if n % 2 else text_of(file_of(image, "BMP")) for n, image in enumerate(several)]
    expect(served.images.ask({"inputs": mixed}), expected)


@pytest.mark.slow
def test_classes_by_name_on_request(served: Served) -> None:
    asked = {"inputs": [text_of(file_of(IMAGES[0]))], "params": {"named": True}}
    status, body = served.images.ask(asked)
    assert status == 200, body
    assert list(body["predictions"][0]) == list(CLASSES)
    np.testing.assert_allclose(list(body["predictions"][0].values()), served.said(IMAGES[0])[0], atol=1e-5)


@pytest.mark.slow
def test_bad_requests_are_answered_with_what_was_expected(served: Served) -> None:
    ask = served.images.ask
    expect_refusal(ask({"inputs": []}), "expected at least one image")
    expect_refusal(ask({"inputs": [IMAGES[0].tolist(), "no base64!"]}), "image 1", "not base64")
    expect_refusal(ask({"inputs": [text_of(b"text")]}), "image 0", "no image that can be read")
    expect_refusal(ask({"inputs": [text_of(file_of(IMAGES[0])[:60])]}), "image 0", "no image")
    expect_refusal(ask({"inputs": [""]}), "received an empty one")
    expect_refusal(ask({"inputs": IMAGES[0].tolist()}), "(height, width, 3)", "shape (9, 3)")
    expect_refusal(ask({"inputs": [[[[1, 2]]]]}), "shape (1, 1, 2)")
    expect_refusal(ask({"inputs": [[[[1, 2, 300]]]]}), "0..255", "from 1 to 300")
    expect_refusal(ask({"inputs": (IMAGES / 255).tolist()}), "whole numbers 0..255", "fractions")
    expect_refusal(ask({"inputs": [None]}), "null")
    expect_refusal(ask({"picture": []}), "inputs")
    expect_refusal(ask(b"{"), "JSON")


@pytest.mark.slow
def test_the_plain_model_refuses_invalid_inputs(served: Served) -> None:
    ask = served.arrays.ask
    for wrong in ([], [1, 2, 3], IMAGES[0].tolist(), [[[[1, 2]]]], [[[[1, 2, 300]]]], ["no base64!"]):
        expect_refusal(ask({"inputs": wrong}))
    expect_refusal(ask({"inputs": [[[[1, 2]]]]}), "(-1, -1, -1, 3)")


def test_one_version_is_plain_keras_and_takes_files_from_python_too(tmp_path: Path) -> None:
    model = classifier()
    folder = tmp_path / "package ü"
    folder.mkdir()
    write_package(model, folder, CLASSES, IMAGES, mlflow.models.Model())
    assert len(list(folder.rglob("*.keras"))) == 1
    expected = model.predict_on_batch(IMAGES)
    with use_store(default_tracking_uri(tmp_path)):
        for address in (folder, folder / "images"):
            plain = mlflow.keras.load_model(str(address), load_model_kwargs={"safe_mode": True})
            np.testing.assert_allclose(plain.predict_on_batch(IMAGES), expected, atol=1e-6)
            loaded = mlflow.pyfunc.load_model(str(address))
            assert loaded.metadata.metadata["class_names"] == list(CLASSES)
            np.testing.assert_allclose(loaded.predict(IMAGES), expected, atol=1e-6)
    table = pa.table({"image": [file_of(image) for image in IMAGES]})
    pq.write_table(table, tmp_path / "images.parquet")
    read = pq.read_table(tmp_path / "images.parquet").to_pandas()
    np.testing.assert_allclose(loaded.predict(read), expected, atol=1e-6)
    said = str(tmp_path)
    assert not [f for f in folder.rglob("*") if f.is_file() and said.encode() in f.read_bytes()]


class Echo:
    """A model that returns the mean of each channel, so that a test can see what was decoded."""

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2)) / 255


def test_the_service_decodes_as_training_does(tmp_path: Path) -> None:
    """Files of every kind are tested at their own size, so that training's decoder has nothing to resize."""
    grey = RNG.integers(0, 65536, (6, 5)).astype("uint16")
    alpha = Image.fromarray(RNG.integers(0, 256, (6, 5, 4)).astype("uint8"))
    palette = Image.fromarray(IMAGES[0]).quantize(7)
    turned, turn = io.BytesIO(), Image.Exif()
    turn[0x0112] = 6
    Image.fromarray(OTHERS[0]).save(turned, "PNG", exif=turn)
    contents = [turned.getvalue()]
    for image, kind in [
        (Image.fromarray(grey), "PNG"),
        (Image.fromarray(grey), "TIFF"),
        (alpha, "PNG"),
        (alpha, "WEBP"),
        (palette, "GIF"),
        (palette, "PNG"),
        (Image.fromarray(IMAGES[0]).convert("L"), "JPEG"),
        (Image.fromarray(IMAGES[0]).convert("CMYK"), "JPEG"),
        (Image.fromarray(IMAGES[0]).convert("1"), "PNG"),
    ]:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        contents.append(buffer.getvalue())
    service = ServedImages(Echo(), CLASSES)
    for content in contents:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
        if content is contents[0]:
            width, height = height, width
        expected = decode_image(content, (height, width)).mean(axis=(0, 1)) / 255
        np.testing.assert_allclose(service.predict([content])[0], expected, atol=1e-6)

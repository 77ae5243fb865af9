"""A classifier decodes images in batches, predicts in order, and reports unreadable images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from search.registry.inference.classifier import Classifier, Prediction
from search.registry.inference.inputs import images_in
from trainables.errors import DataError, UsageError


class Resizing:
    height, width = 6, 4


class Model:
    """Predicts how red, green and blue an image is on average, as a network without weights."""

    layers: Sequence[object] = (Resizing(),)
    input_shape = (None, None, None, 3)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray:
        self.shapes.append(images.shape)
        means = images.mean(axis=(1, 2)) + 1e-6
        shares: np.ndarray = means / means.sum(axis=1, keepdims=True)
        return shares


def png(colour: tuple[int, int, int], size: tuple[int, int] = (9, 5)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(weird_folder: Path) -> Path:
    root = weird_folder / "images to classify"
    (root / "deep" / "ü").mkdir(parents=True, exist_ok=True)
    (root / "a red.png").write_bytes(png((255, 0, 0)))
    (root / "deep" / "ü" / "grün 字.png").write_bytes(png((0, 255, 0), (30, 40)))
    (root / "notes.txt").write_text("no image")
    return root


def test_predictions_are_in_order_with_their_origin(folder: Path) -> None:
    model = Model()
    classifier = Classifier(model, ("red", "green", "blue"))
    found = list(classifier.predict(images_in([str(folder)])))
    assert [Path(p.path).name for p in found] == ["a red.png", "grün 字.png"]
    assert [p.top(classifier.classes)[0] for p in found] == ["red", "green"]
    assert found[0].top(classifier.classes)[1] == pytest.approx(1.0, abs=1e-3)
    assert model.shapes == [(2, 6, 4, 3)]


def test_batches_are_bounded(folder: Path) -> None:
    model = Model()
    paths = [str(folder / "a red.png")] * 7
    assert len(list(Classifier(model, ("a", "b", "c")).predict(images_in(paths), batch_size=3))) == 7
    assert [shape[0] for shape in model.shapes] == [3, 3, 1]


def test_an_unreadable_image_is_named_and_the_others_classified(folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    classifier = Classifier(Model(), ("a", "b", "c"))
    broken, fine = classifier.predict(images_in([str(bad), str(folder / "a red.png")]))
    assert broken.error
    assert broken.path == str(bad)
    assert fine.error is None
    assert len(fine.probabilities) == 3
    assert [p.error is None for p in classifier.predict(images_in([str(bad)]))] == [False]


@pytest.mark.parametrize("column", [None, "picture"])
def test_parquet_files_as_hugging_face_writes_them(tmp_path: Path, column: str | None) -> None:
    rows = [{"bytes": png((0, 0, 255)), "path": None}, {"bytes": png((255, 0, 0)), "path": "x.png"}]
    file = tmp_path / "möre images.parquet"
    pq.write_table(pa.table({"picture": rows, "label": [0, 1]}), file)
    found = list(Classifier(Model(), ("r", "g", "b")).predict(images_in([str(file)], column)))
    assert [p.top("rgb")[0] for p in found] == ["b", "r"]
    assert [p.path for p in found] == [f"{file}#0", f"{file}#1"]


def test_parquet_files_of_bytes_and_of_paths(tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "bytes.parquet"
    pq.write_table(pa.table({"content": [png((0, 255, 0)), None], "n": [1, 2]}), file)
    good, missing = Classifier(Model(), ("r", "g", "b")).predict(images_in([str(file)]))
    assert good.top("rgb")[0] == "g"
    assert missing.error
    paths = tmp_path / "paths.parquet"
    pq.write_table(pa.table({"image": [str(folder / "a red.png")]}), paths)
    (found,) = Classifier(Model(), ("r", "g", "b")).predict(images_in([str(paths)]))
    assert found.top("rgb")[0] == "r"


def test_invalid_inputs_are_refused_with_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.png.*no such file"):
        images_in([str(tmp_path / "none.png")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has none"):
        list(images_in([str(tmp_path / "empty")]))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DataError, match="expected a Parquet file"):
        list(images_in([str(tmp_path / "broken.parquet")]))
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"a": [b"x"], "b": [b"y"]}), table)
    with pytest.raises(UsageError, match="columns a, b"):
        list(images_in([str(table)]))
    with pytest.raises(UsageError, match="received 'c'"):
        list(images_in([str(table)], "c"))


def test_the_size_comes_from_the_model() -> None:
    model = Model()
    model.layers, model.input_shape = (), (None, 8, 9, 3)  # type: ignore[assignment]
    assert Classifier(model, ()).image_size == (8, 9)
    assert Prediction("x", (0.1, 0.7, 0.2)).top("abc") == ("b", 0.7)

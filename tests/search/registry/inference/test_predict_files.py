"""``unfreeze predict --output`` writes files of a real registered model, completely or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow_store import put_empty_store
from PIL import Image

from search.cli import main
from search.commands.predict import PredictionProgress
from search.registry.inference.outputs import columns
from search.registry.model_package import write_package
from search.tracking.stores import default_tracking_uri

keras = pytest.importorskip("keras")
mlflow = pytest.importorskip("mlflow")

CLASSES = ("red", "path", "blau ü")
MODEL = "models:/colours@champion"


def classifier() -> Any:
    """Build a model that predicts how red, green and blue an image is."""
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Softmax()(keras.layers.Rescaling(5.0)(x)))


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (9, 5)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models ü")
    uri = default_tracking_uri(folder)
    put_empty_store(folder)
    package = folder / "package"
    package.mkdir()
    examples = np.zeros((1, 4, 4, 3), np.uint8)
    write_package(classifier(), package, CLASSES, examples, mlflow.models.Model())
    client = mlflow.MlflowClient(uri, uri)
    client.create_registered_model("colours")
    client.create_model_version("colours", package.as_uri())
    client.set_registered_model_alias("colours", "champion", "1")
    return uri


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create nested folders with a Parquet file and a damaged image."""
    root = tmp_path_factory.mktemp("Bilder 'neu' 字")
    (root / "a" / "ü b").mkdir(parents=True)
    (root / "red.png").write_bytes(picture((255, 0, 0)))
    (root / "a" / "ü b" / "blau.png").write_bytes(picture((0, 0, 255), (40, 30)))
    (root / "a" / "damaged.png").write_bytes(picture((0, 0, 255))[:50])
    rows = [{"bytes": picture((0, 255, 0)), "path": None}] * 3
    pq.write_table(pa.table({"image": rows}), root / "more.parquet")
    return root


def predict(store: str, *arguments: str | Path) -> int:
    return main(["predict", MODEL, *map(str, arguments), "--tracking-uri", store])


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_contain_every_readable_image(
    kind: str, store: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new ü" / f"answers.{kind}"
    code = predict(store, images, images / "more.parquet", "--output", out, "--all", "--batch-size", "2")
    said = capsys.readouterr()
    assert code == 1
    assert said.out == f"{out}\n"
    assert "1 image can't be read:\n  " in said.err
    assert str(images / "a" / "damaged.png") in said.err
    assert "5 images in" in said.err
    if kind == "parquet":
        rows = pq.read_table(out).to_pylist()
    elif kind == "csv":
        rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    else:
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [Path(row["path"]).name for row in rows] == [
        "blau.png",
        "red.png",
        *(f"more.parquet#{n}" for n in range(3)),
    ]
    assert [row["class"] for row in rows] == ["blau ü", "red", "path", "path", "path"]
    shares = rows[0]["probabilities"] if kind == "jsonl" else rows[0]
    named = CLASSES if kind == "jsonl" else columns(CLASSES, True)[3:]
    assert sum(float(shares[name]) for name in named) == pytest.approx(1, abs=1e-5)
    assert float(shares["blau ü"]) == pytest.approx(float(rows[0]["probability"]), abs=1e-6)
    assert os.listdir(out.parent) == [out.name]  # noqa: PTH208  hidden names too


def test_refusals_come_before_any_work(
    store: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine")
    for arguments, words in [
        (["--output", there], "use --overwrite to replace it"),
        (["--output", tmp_path / "answers"], "ends in .csv, .jsonl, .parquet"),
        (["--output", there / "below.csv"], "can be written"),
        (["--output", tmp_path, "--format", "csv"], "expected a file"),
        (["--format", "parquet"], "--output FILE.parquet"),
        (["--overwrite"], "expected --output"),
    ]:
        assert predict("http://127.0.0.1:9", images, *arguments) == 2
        assert words in capsys.readouterr().err
    assert there.read_text() == "mine"
    assert predict(store, images / "red.png", "--output", there, "--overwrite", "--format", "jsonl") == 0
    assert json.loads(there.read_text())["class"] == "red"


def test_a_failure_midway_leaves_no_file(store: str, images: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 nothing")
    for kind in ("csv", "parquet"):
        assert predict(store, images / "red.png", broken, "--output", tmp_path / f"a.{kind}") == 1
    assert os.listdir(tmp_path) == [broken.name]  # noqa: PTH208


def test_progress_is_lines_for_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.commands.predict.LINE_SECONDS", 0.0)
    stream = io.StringIO()
    progress = PredictionProgress(stream, 3)
    assert list(progress.track("abc")) == ["a", "b", "c"]
    lines = stream.getvalue().splitlines()
    assert [line.split(" images")[0] for line in lines] == [f"unfreeze: {n} of 3" for n in (1, 2, 3)]
    assert "left" in lines[0]
    assert "left" not in lines[2]


def test_progress_is_a_bar_on_a_terminal() -> None:
    parent, child = pty.openpty()
    try:
        code = (
            "import sys, time; from search.commands.predict import PredictionProgress\n"
            "for n in PredictionProgress(sys.stderr, 3).track(range(3)): time.sleep(0.15)"
        )
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
        subprocess.run([sys.executable, "-c", code], stderr=child, check=True, env=environment, timeout=300)
        shown = os.read(parent, 65536).decode()
    finally:
        os.close(child)
        os.close(parent)
    assert "images/s" in shown
    assert "/3" in shown

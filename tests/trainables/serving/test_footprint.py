"""The footprint of a served model: size, load time and latency."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.serving.footprint import Latency, measure_footprint, processor_name

keras = pytest.importorskip("keras")


def test_a_served_model_is_measured(weird_folder: Path) -> None:
    images = keras.Input((None, None, 3), dtype="uint8")
    x = keras.layers.Resizing(4, 4)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.Dense(3)(keras.layers.Flatten()(x))
    file = weird_folder / "served ü.keras"
    keras.Model(images, keras.layers.Softmax()(x)).save(file)
    found = measure_footprint(file, (12, 9))
    assert found.file_bytes == file.stat().st_size
    assert found.parameters == 4 * 4 * 3 * 3 + 3
    assert found.load_seconds > 0
    for time in (found.latency, found.batch_latency):
        assert 0 < time.fastest <= time.median <= time.upper
    assert found.batch_latency.median < found.latency.median  # of one image of 32
    assert found.processor == processor_name() != ""


@pytest.mark.parametrize(
    ("new", "old", "below"),
    [
        (Latency(3, 2.9, 3.1), Latency(5, 4.9, 5.1), True),
        (Latency(5, 4.9, 5.1), Latency(3, 2.9, 3.1), False),
        (Latency(3, 2.9, 3.1), Latency(9, 3.0, 15.0), False),  # measured while the machine was busy
        (Latency(4.8, 4.79, 4.81), Latency(5, 4.99, 5.01), False),  # less than a tenth
    ],
)
def test_below_requires_more_than_noise(new: Latency, old: Latency, below: bool) -> None:
    assert new.below(old) == below

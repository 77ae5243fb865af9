from __future__ import annotations

from pathlib import Path

import pytest

from trainables.serving.footprint import Milliseconds, measure_footprint, processor

keras = pytest.importorskip("keras")


def test_a_served_model_is_weighed_and_timed(weird_folder: Path) -> None:
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
    assert found.processor == processor() != ""


@pytest.mark.parametrize(
    ("new", "old", "below"),
    [
        (Milliseconds(3, 2.9, 3.1), Milliseconds(5, 4.9, 5.1), True),
        (Milliseconds(5, 4.9, 5.1), Milliseconds(3, 2.9, 3.1), False),
        (Milliseconds(3, 2.9, 3.1), Milliseconds(9, 3.0, 15.0), False),  # measured while the machine was busy
        (Milliseconds(4.8, 4.79, 4.81), Milliseconds(5, 4.99, 5.01), False),  # less than a tenth
    ],
)
def test_less_by_more_than_noise(new: Milliseconds, old: Milliseconds, below: bool) -> None:
    assert new.below(old) == below

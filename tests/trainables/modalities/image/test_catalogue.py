"""The shipped table of backbones agrees with what is built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import pytest

from trainables.modalities.image.applications import APPLICATIONS, find_application, similar_names
from trainables.modalities.image.catalogue import catalogue
from trainables.modalities.image.catalogue_table import measure


def test_every_model_of_keras_applications_is_listed() -> None:
    models = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(APPLICATIONS) == models
    assert [entry.name for entry in catalogue()] == ["print", "EfficientNetLite0", *APPLICATIONS]


@pytest.mark.parametrize(
    "name",
    [
        "print",
        "MobileNetV3Small",
        "VGG16",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("DenseNet121", "Xception")),
    ],
)
def test_the_table_agrees_with_a_build(name: str) -> None:
    assert measure(name) == next(entry for entry in catalogue() if entry.name == name)


def test_there_is_something_to_unfreeze_everywhere() -> None:
    assert all(1 <= entry.blocks <= 20 and entry.parameters > 0 for entry in catalogue())
    assert sum(entry.blocks < 4 for entry in catalogue()) == 2  # NASNet's cells skip over each other


@pytest.mark.parametrize("spelling", ["resnet50v2", "ResNet50_V2", "RESNET-50-V2"])
def test_a_name_is_found_in_any_spelling(spelling: str) -> None:
    found = find_application(spelling)
    assert found is not None
    assert found.name == "ResNet50V2"


def test_names_that_look_alike_come_closest_first() -> None:
    assert similar_names("efficientnetb", "print")[0].startswith("EfficientNetB")
    assert similar_names("zzz") == []


def test_listing_needs_no_tensorflow() -> None:
    code = (
        "import sys, trainables.modalities.image.catalogue as c; "
        "print(len(c.catalogue()), 'tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    assert done.stdout.split() == [str(len(catalogue())), "False"]

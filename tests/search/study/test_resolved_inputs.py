"""The files of a search's data are listed once: by the early checks, for the preparation too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.config.search_config import SearchConfig
from search.study.resolved_inputs import DataSources, data_options, target_options
from trainables.errors import DataError
from trainables.modalities.image.datasets import check_data, prepare


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with 20 images of each of two classes."""
    folder = tmp_path / "photos"
    for number in range(40):
        add_image(folder / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    return folder


def add_image(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(file)


def test_a_source_is_opened_once(photos: Path, tmp_path: Path) -> None:
    sources, options = DataSources(tmp_path / "data"), data_options(SearchConfig(data=str(photos)))
    first = sources.open(str(photos), options)
    assert sources.open(str(photos), options) is first
    assert sources.open(str(photos), replace(options, unlabelled=True)) is not first
    sources.release()
    assert sources.open(str(photos), options) is not first


def test_preparation_takes_the_listing_of_the_early_check(photos: Path, tmp_path: Path) -> None:
    config = SearchConfig(data=str(photos))
    sources, options = DataSources(tmp_path / "data"), target_options(config, ())
    source = sources.open(str(photos), options)
    classes = check_data(str(photos), directory=tmp_path / "data", options=options, source=source)
    add_image(photos / "cat" / "late.png", 99)
    task = prepare(
        str(photos), image_size=(4, 4), directory=tmp_path / "data" / "x", options=options, source=source
    )
    assert task.classes == classes
    assert sum(task.counts.values()) == 40
    again = prepare(str(photos), image_size=(4, 4), directory=tmp_path / "data" / "x", options=options)
    assert sum(again.counts.values()) == 41


def test_a_source_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        DataSources(tmp_path).open(str(tmp_path / "nowhere"), data_options(SearchConfig()))

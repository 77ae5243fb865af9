"""A registered model on a real SQLite store whose versions are folders with the predictions of made-up models.

Nothing here needs TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mlflow_store import copy_empty_store

from search.cli import main
from search.records.predictions import PREDICTIONS_FILE, PredictionRecord, image_keys, write_predictions
from search.tracking.client import connect
from search.tracking.stores import default_tracking_uri
from search.tracking.tags import INPUT_FORM_TAG, TEST_DIGEST_TAG, footprint_tags
from trainables.serving.footprint import Footprint, Latency

IMAGES = 300
LABELS = np.arange(IMAGES) % 3


def answers(
    wrong: int, scratch: int | None = None, classes: tuple[str, ...] = ("a", "b", "c")
) -> PredictionRecord:
    """Return predictions of a model whose three training runs err on about ``wrong`` images, with a baseline."""
    return PredictionRecord(
        classes=classes,
        image_size=(8, 8),
        digest="d" * 64,
        images=image_keys([str(n) for n in range(IMAGES)]),
        labels=LABELS,
        predicted=erring(wrong),
        chosen=0,
        scratch=erring(scratch) if scratch is not None else np.empty((0, IMAGES), np.int64),
    )


def erring(wrong: int) -> np.ndarray:
    rows = np.tile(LABELS, (3, 1))
    for n, row in enumerate(rows):
        row[n : wrong + n] = (row[n : wrong + n] + 1) % 3
    return rows


def footprint(size: int = 1_000_000) -> Footprint:
    time = Latency(5.0, 4.9, 5.1)
    return Footprint(size, 1000, 0.5, time, time, "a processor, 2 threads")


class Model:
    """A registered model for one test."""

    def __init__(self, folder: Path, name: str) -> None:
        self.uri, self.name = default_tracking_uri(folder), name
        self.folder = folder / "versions" / name
        copy_empty_store(self.uri)
        self.client = connect(self.uri)
        self.client.create_registered_model(name)

    def add(self, given: PredictionRecord | None, size: int = 1_000_000, **tags: str) -> str:
        """A version with the alias ``challenger``; its number."""
        number = self.add_unproposed(given, size, **tags)
        self.client.set_registered_model_alias(self.name, "challenger", number)
        return number

    def add_unproposed(self, given: PredictionRecord | None, size: int = 1_000_000, **tags: str) -> str:
        """A version without an alias; its number."""
        place = self.folder / str(len(list(self.folder.glob("*"))) + 1)
        place.mkdir(parents=True)
        kept = {
            "unfreeze.search": "photos ü",
            "unfreeze.trial": "7",
            INPUT_FORM_TAG: "uint8 (-1, -1, -1, 3)",
            **footprint_tags(footprint(size)),
            **tags,
        }
        if given is not None:
            write_predictions(place / PREDICTIONS_FILE, given)
            kept[TEST_DIGEST_TAG] = given.digest
        made = self.client.create_model_version(self.name, place.as_uri(), tags=kept)
        return str(made.version)

    def alias(self, name: str) -> str | None:
        number = self.client.get_registered_model(self.name).aliases.get(name)
        return None if number is None else str(number)

    def tags(self) -> dict[str, str]:
        return dict(self.client.get_registered_model(self.name).tags)

    def run(self, *arguments: str) -> int:
        return main([*arguments, self.name, "--tracking-uri", self.uri])

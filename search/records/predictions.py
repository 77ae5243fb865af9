"""Store what a search's final models predicted for each test image, so that later comparisons need no test data.

The file is a Parquet file with one row per image and one column per training run. It is stored in the folder of the
registered model. If the search had an old task to remember, the file's metadata also holds one bit per old test
image and training run: whether the prediction was correct.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from search.records.atomic_file import write_bytes
from trainables.errors import DataError

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class OldTaskPredictions:
    """Whether each of the N test images of an old task is classified correctly.

    Attributes:
        before: (seeds, N) with the untouched backbone, measured at the start of each training run; images and head
            are the same in all rows.
        after: (seeds, N) with the backbone at the end of each training run.
    """

    before: Bits
    after: Bits

    def __post_init__(self) -> None:
        if self.before.ndim != 2 or self.before.shape != self.after.shape or not self.before.size:
            raise ValueError(
                f"expected two (seeds, N) arrays over the same images, received {self.before.shape} and "
                f"{self.after.shape}"
            )

    @classmethod
    def from_packed(cls, packed: Sequence[tuple[str, str]]) -> OldTaskPredictions:
        """Build the predictions from (before, after) pairs of :func:`pack_bits` texts, one pair per training run."""
        before, after = zip(*packed, strict=True)
        return cls(
            np.stack([unpack_bits(row) for row in before]), np.stack([unpack_bits(row) for row in after])
        )

    def to_json(self) -> dict[str, list[str]]:
        """Return JSON values that :meth:`from_json` reads."""
        return {
            "before": [pack_bits(row) for row in self.before],
            "after": [pack_bits(row) for row in self.after],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OldTaskPredictions:
        """Read what :meth:`to_json` returned.

        Raises:
            ValueError, KeyError, TypeError: ``values`` have another form.
        """
        return cls.from_packed(list(zip(values["before"], values["after"], strict=True)))


def pack_bits(right: Bits) -> str:
    """Pack (N,) booleans into a short text.

    >>> pack_bits(np.array([True, False, True]))
    '3:oA=='
    """
    return f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}"


def unpack_bits(text: str) -> Bits:
    """Unpack the text of :func:`pack_bits`.

    Raises:
        ValueError: ``text`` has another form.
    """
    count, _, coded = text.partition(":")
    packed = np.frombuffer(base64.b64decode(coded, validate=True), np.uint8)
    # -(-n // 8) rounds up.
    if len(packed) != -(-int(count) // 8):
        raise ValueError(f"expected {count} bits, received {8 * len(packed)}")
    return np.unpackbits(packed, count=int(count)).astype(bool)


def pack_floats(values: NDArray[np.float32]) -> str:
    """Pack (N,) numbers into a short text, in the precision of float32.

    >>> pack_floats(np.array([0.5], np.float32))
    'AAAAPw=='
    """
    return base64.b64encode(np.asarray(values).astype("<f4").tobytes()).decode()


def unpack_floats(text: str) -> NDArray[np.float32]:
    """Unpack the text of :func:`pack_floats`.

    Raises:
        ValueError: ``text`` has another form.
    """
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)


PREDICTIONS_FILE = "answers.parquet"
"""Name of the file in the folder of a registered model."""

PREDICTIONS_FORMAT = 2
"""Format 2 added the probabilities. Files of format 1 are still read."""

_KEY = b"unfreeze"

Predicted = NDArray[np.int64]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PredictionRecord:
    """Predicted classes and probabilities of N test images, for every final training run of a search.

    Attributes:
        classes: names of the classes, in the order of their indices.
        image_size: (H, W) to which the test images were resized.
        digest: hash of the labels and pixels of the test images in their order (:func:`split_digest`).
        images: (N,) a key for each image, derived from its name in the data (:func:`image_keys`).
        labels: (N,) true classes.
        predicted: (seeds, N) classes predicted after each of the winner's training runs.
        chosen: index of the training run whose model is registered.
        scratch: (seeds', N) classes predicted after each of the baseline's training runs; (0, N) without a baseline.
        predicted_probability: (seeds, N) probability of each predicted class; None in files of format 1. The
            probabilities of all classes are not stored: with a thousand classes they would be larger than many
            models.
        true_class_probability: (seeds, N) probability of each true class; None in files of format 1.
        old_task: predictions for the test images of an old task; None if the search had none, and in files of
            earlier versions.
    """

    classes: tuple[str, ...]
    image_size: tuple[int, int]
    digest: str
    images: tuple[str, ...]
    labels: Predicted
    predicted: Predicted
    chosen: int
    scratch: Predicted
    predicted_probability: Probabilities | None = None
    true_class_probability: Probabilities | None = None
    old_task: OldTaskPredictions | None = None

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(seeds, N) whether each of the winner's training runs classifies each image correctly."""
        return np.asarray(self.predicted == self.labels)

    @property
    def scratch_correct(self) -> NDArray[np.bool_]:
        """(seeds', N) whether each of the baseline's training runs classifies each image correctly."""
        return np.asarray(self.scratch == self.labels)

    @property
    def majority_correct(self) -> NDArray[np.bool_]:
        """(N,) what the best constant classifier gets right; it predicts the most frequent class."""
        frequent = int(np.bincount(self.labels).argmax())
        return np.asarray(self.labels == frequent)

    def select_images(self, rows: Sequence[int]) -> PredictionRecord:
        """Return the record of the images at ``rows`` only, in that order."""
        order = np.asarray(rows, dtype=np.int64)
        return PredictionRecord(
            self.classes,
            self.image_size,
            self.digest,
            tuple(self.images[row] for row in order),
            self.labels[order],
            self.predicted[:, order],
            self.chosen,
            self.scratch[:, order],
            None if self.predicted_probability is None else self.predicted_probability[:, order],
            None if self.true_class_probability is None else self.true_class_probability[:, order],
            self.old_task,
        )


def image_keys(ids: Sequence[str]) -> tuple[str, ...]:
    """Return a short hash of each image's name.

    Names of files are not stored as they are because they may contain information that users of the model should not
    see.
    """
    # "surrogatepass": names of files that are not valid UTF-8 contain lone surrogates.
    return tuple(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20] for name in ids)


def split_digest(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Return the hex SHA-256 of the labels and pixels of (N, H, W, 3) images.

    Images are read one at a time, so that a memory-mapped split is never loaded whole.
    """
    digest = hashlib.sha256(f"{images.shape} ".encode())
    # A fixed byte order makes the digest the same on every machine.
    digest.update(np.asarray(labels).astype("<i8").tobytes())
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def write_predictions(path: Path, answers: PredictionRecord) -> None:
    """Write the Parquet file atomically."""
    # All facts are in the schema's metadata, so that one file holds everything and any Parquet reader can open it.
    facts = {
        "format": PREDICTIONS_FORMAT,
        "classes": answers.classes,
        "image_size": answers.image_size,
        "digest": answers.digest,
        "chosen": answers.chosen,
        **({} if answers.old_task is None else {"old_task": answers.old_task.to_json()}),
    }
    columns = {"image": pa.array(answers.images, pa.string()), "label": pa.array(answers.labels, pa.int32())}
    for prefix, rows in (("seed", answers.predicted), ("scratch", answers.scratch)):
        columns |= {f"{prefix}_{n}": pa.array(row, pa.int32()) for n, row in enumerate(rows)}
    for prefix, chances in (
        ("certain", answers.predicted_probability),
        ("truth", answers.true_class_probability),
    ):
        known = () if chances is None else chances
        columns |= {f"{prefix}_{n}": pa.array(row, pa.float32()) for n, row in enumerate(known)}
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(facts, ensure_ascii=False).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_predictions(path: Path) -> PredictionRecord:
    """Read the file that :func:`write_predictions` wrote.

    Raises:
        DataError: the file is damaged, or its format is newer than this version.
    """
    try:
        table = pq.read_table(path)
        facts = json.loads(table.schema.metadata[_KEY])
        if facts["format"] not in range(1, PREDICTIONS_FORMAT + 1):
            raise DataError(
                f"{path.name}: expected format 1 to {PREDICTIONS_FORMAT}, received {facts['format']}"
            )
        height, width = facts["image_size"]
        found = PredictionRecord(
            classes=tuple(facts["classes"]),
            image_size=(height, width),
            digest=facts["digest"],
            images=tuple(table["image"].to_pylist()),
            labels=_numbers(table, ["label"])[0],
            predicted=_numbers(table, _columns(table, "seed")),
            chosen=int(facts["chosen"]),
            scratch=_numbers(table, _columns(table, "scratch")),
            predicted_probability=_probabilities(table, "certain"),
            true_class_probability=_probabilities(table, "truth"),
            old_task=OldTaskPredictions.from_json(facts["old_task"]) if "old_task" in facts else None,
        )
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path.name}: expected a file of test predictions, which cannot be read: {error}"
        ) from error
    if found.old_task is not None and len(found.old_task.after) != len(found.predicted):
        raise DataError(
            f"{path.name}: expected predictions for the old task after each of {len(found.predicted)} training runs, "
            f"found {len(found.old_task.after)}"
        )
    if not 0 <= found.chosen < len(found.predicted) or not len(found.labels):
        raise DataError(f"{path.name}: expected the predictions of at least one training run, found none")
    return found


def _columns(table: pa.Table, prefix: str) -> list[str]:
    names = [name for name in table.column_names if name.startswith(f"{prefix}_")]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def _numbers(table: pa.Table, names: Sequence[str]) -> Predicted:
    rows = [table[name].to_numpy().astype(np.int64) for name in names]
    return np.stack(rows) if rows else np.empty((0, table.num_rows), np.int64)


def _probabilities(table: pa.Table, prefix: str) -> Probabilities | None:
    rows = [table[name].to_numpy().astype(np.float32) for name in _columns(table, prefix)]
    return np.stack(rows) if rows else None

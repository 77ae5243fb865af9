"""What the winner said of each test image, kept when it is measured: later comparisons need no test data.

A Parquet file with a row an image and a column a training. It travels in the folder of the registered model.

What the winner's trainings say of each test image of an old task, kept when they are measured.

One bit an image and training: it travels with the winner's other answers (:mod:`search.records.predictions`),
in their metadata.
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
    """Whether each of the N test images of an old task is told right.

    Attributes:
        before: (seeds, N) with the backbone untouched, as each training found it: the same images, the same head.
        after: (seeds, N) with the backbone as each training left it.
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
        """From rows as :func:`pack_bits` makes them, before and after, of each training."""
        before, after = zip(*packed, strict=True)
        return cls(
            np.stack([unpack_bits(row) for row in before]), np.stack([unpack_bits(row) for row in after])
        )

    def to_json(self) -> dict[str, list[str]]:
        """JSON values that :meth:`from_json` reads back."""
        return {
            "before": [pack_bits(row) for row in self.before],
            "after": [pack_bits(row) for row in self.after],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> OldTaskPredictions:
        """What :meth:`to_json` made; ValueError, KeyError or TypeError where it is something else."""
        return cls.from_packed(list(zip(values["before"], values["after"], strict=True)))


def pack_bits(right: Bits) -> str:
    """(N,) bits as text.

    >>> pack(np.array([True, False, True]))
    '3:oA=='
    """
    return f"{len(right)}:{base64.b64encode(np.packbits(right).tobytes()).decode()}"


def unpack_bits(text: str) -> Bits:
    """What :func:`pack_bits` made text of; ValueError where it is something else."""
    count, _, coded = text.partition(":")
    packed = np.frombuffer(base64.b64decode(coded, validate=True), np.uint8)
    if len(packed) != -(-int(count) // 8):
        raise ValueError(f"expected {count} bits, received {8 * len(packed)}")
    return np.unpackbits(packed, count=int(count)).astype(bool)


PREDICTIONS_FILE = "answers.parquet"
"""Its name beside a registered model."""

PREDICTIONS_FORMAT = 2
"""The second one has probabilities; files of the first are read as well."""

_KEY = b"unfreeze"

Predicted = NDArray[np.int64]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PredictionRecord:
    """Predicted classes of N test images, and how sure the models were.

    Attributes:
        classes: names of the classes, in the order of their indices.
        image_size: (H, W) to which the test images were resized.
        digest: of the test images' labels and pixels, in their order (:func:`split_digest`).
        images: (N,) a key for each image, made of its name in the data (:func:`image_keys`).
        labels: (N,) the true classes.
        predicted: (seeds, N) what each of the winner's trainings said.
        chosen: which of them is the registered model.
        scratch: (seeds', N) what the baseline's trainings said; (0, N) without a baseline.
        certain: (seeds, N) the probabilities that the winner's trainings gave to what they said, None in files of the
            first format. All the probabilities of a thousand classes would outweigh many a model.
        truth: (seeds, N) those that they gave to the true classes.
        old: what the winner's trainings said of an old task's test images; None where there was none to keep, and in
            files of earlier versions.
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
        """(seeds, N) whether each training was right."""
        return np.asarray(self.predicted == self.labels)

    @property
    def scratch_correct(self) -> NDArray[np.bool_]:
        """(seeds', N) whether each of the baseline's trainings was right."""
        return np.asarray(self.scratch == self.labels)

    @property
    def majority_correct(self) -> NDArray[np.bool_]:
        """(N,) what the best of all constant answers gets right: the most frequent class of the test images."""
        frequent = int(np.bincount(self.labels).argmax())
        return np.asarray(self.labels == frequent)

    def select_images(self, rows: Sequence[int]) -> PredictionRecord:
        """The same for the images at ``rows``, in that order."""
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
    """A short key for each image's name: names of files may say more than a model's users should know."""
    return tuple(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:20] for name in ids)


def split_digest(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> str:
    """Hex SHA-256 over the labels and pixels of (N, H, W, 3) images; read one after the other."""
    digest = hashlib.sha256(f"{images.shape} ".encode())
    digest.update(np.asarray(labels).astype("<i8").tobytes())
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def write_predictions(path: Path, answers: PredictionRecord) -> None:
    """Write the Parquet file, whole or not at all."""
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
    """Read what :func:`write_predictions` wrote.

    Raises:
        DataError: it is damaged, or of a format that this version does not know.
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
            f"{path.name}: expected a winner's answers, but they can't be read: {error}"
        ) from error
    if found.old_task is not None and len(found.old_task.after) != len(found.predicted):
        raise DataError(
            f"{path.name}: expected the old task after each of {len(found.predicted)} trainings, found it after "
            f"{len(found.old_task.after)}"
        )
    if not 0 <= found.chosen < len(found.predicted) or not len(found.labels):
        raise DataError(f"{path.name}: expected the answers of at least one training, found none")
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

"""Options of how a dataset is read and split, and the name of the task that is made of it."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

from trainables.errors import UsageError

DIGITS = "digits"
"""Name of the built-in dataset of handwritten digits."""

MAX_TASK_NAME_LENGTH = 80


def task_name(data: str) -> str:
    """Return the name of the task that is made of ``data``: ``digits``, or the stem of the folder or file.

    The name is safe for MLflow experiments, registered models and folders. It holds letters and digits of any
    alphabet, spaces, dots, dashes and underscores, and is never empty.

    >>> task_name("~/my photos/cats: big & small.parquet")
    'cats- big - small'
    """
    if data == DIGITS:
        return DIGITS
    stem = _stem(data)
    word = re.sub(r"[^\w. -]+", "-", unicodedata.normalize("NFC", stem))
    return word[:MAX_TASK_NAME_LENGTH].strip(" .-") or "data"


def _stem(data: str) -> str:
    """Return the folder's name, or the file's without its extension. Invalid paths are split as text."""
    try:
        path = Path(data).expanduser().resolve()
        return path.name if path.is_dir() else path.stem
    except (OSError, ValueError, RuntimeError):
        return Path(data).stem


@dataclass(frozen=True)
class DataOptions:
    """How a dataset is read and split.

    Attributes:
        validation_fraction: share of the images for validation, if the data has no such split; between 0 and 1.
        test_fraction: the same for the test.
        seed: seed of the splits that are made.
        skip_bad_images: leave out images that can't be read, instead of raising an error.
        image_column: column of a Parquet or Arrow file that holds the images; None to find it by name and type.
        label_column: column that holds the labels; None to find it by name and type.
        split_column: column that names the split of each row; None for ``split``, if there is one.
        unlabelled: do not read the labels of training and validation images; those of test images are read.
        classes: class names known from elsewhere, such as those of a source dataset. The classes of an ``unlabelled``
            dataset are these, followed by the other classes of its test images.

    Raises:
        UsageError: a fraction is not between 0 and 1, or both together leave nothing to train on.
    """

    validation_fraction: float = 0.2
    test_fraction: float = 0.2
    seed: int = 0
    skip_bad_images: bool = False
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    unlabelled: bool = False
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("validation_fraction", "test_fraction"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise UsageError(f"{name}: expected a number between 0 and 1, received {value!r}")
        if self.validation_fraction + self.test_fraction >= 1:
            raise UsageError(
                "validation_fraction, test_fraction: expected a sum below 1 (the rest trains), "
                f"received {self.validation_fraction} + {self.test_fraction}"
            )

    def fraction(self, split: str) -> float:
        """Return the share of the images for ``split``, which is validation or test."""
        return self.validation_fraction if split == "validation" else self.test_fraction

    def as_json(self) -> dict[str, object]:
        """Return the options as JSON values by name.

        ``unlabelled`` and ``classes`` appear for an unlabelled dataset only: tasks that were prepared before these
        options existed stay valid, because their request is the same.
        """
        values = asdict(self)
        unread = {name: values.pop(name) for name in ("unlabelled", "classes")}
        return (
            {**values, "unlabelled": True, "classes": list(unread["classes"])} if self.unlabelled else values
        )

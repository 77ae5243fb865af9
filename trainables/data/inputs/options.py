"""How a dataset is read and split.

The name of a task, from where its data is.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

from trainables.errors import UsageError

DIGITS = "digits"
"""The word that stands for the built-in handwritten digits."""

MAX_TASK_NAME_LENGTH = 80


def task_name(data: str) -> str:
    """Name of the task that ``data`` makes: ``digits``, or the folder's or the file's stem.

    Safe in the name of an MLflow experiment, a registered model or a folder: letters and digits of any
    alphabet, spaces, dots, dashes and underscores; never empty.

    >>> task_name("~/my photos/cats: big & small.parquet")
    'cats- big - small'
    """
    if data == DIGITS:
        return DIGITS
    stem = _stem(data)
    word = re.sub(r"[^\w. -]+", "-", unicodedata.normalize("NFC", stem))
    return word[:MAX_TASK_NAME_LENGTH].strip(" .-") or "data"


def _stem(data: str) -> str:
    """The folder's name, or the file's without its extension; of a path that can't be, what it looks like."""
    try:
        path = Path(data).expanduser().resolve()
        return path.name if path.is_dir() else path.stem
    except (OSError, ValueError, RuntimeError):
        return Path(data).stem


@dataclass(frozen=True)
class DataOptions:
    """Choices that the input itself doesn't make.

    Attributes:
        validation_fraction: share of the images that go to validation where the input has no such split.
        test_fraction: the same for test.
        seed: of the split made here.
        skip_bad_images: leave out images that can't be read instead of refusing to start.
        image_column: column of a Parquet or Arrow file that holds the images; None: found by name and type.
        label_column: column that holds the labels; None: found by name and type.
        split_column: column that names each row's split; None: ``split``, if there is one.
        unlabelled: whether labels of training and validation images are left unread, whether there are any or not;
            those of the test images are read.
        classes: names of classes that are known from elsewhere, as from a source. Those of an ``unlabelled`` dataset
            are these and, after them, the others of its test images.

    Raises:
        UsageError: a fraction outside (0, 1), or both together leave nothing to train on.
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
        """Share of the images that ``split`` (validation or test) gets."""
        return self.validation_fraction if split == "validation" else self.test_fraction

    def as_json(self) -> dict[str, object]:
        """The options as JSON values, by name; what is for a target without labels only where it is one."""
        values = asdict(self)
        blind = {name: values.pop(name) for name in ("unlabelled", "classes")}
        return (
            {**values, "unlabelled": True, "classes": list(blind["classes"])} if self.unlabelled else values
        )

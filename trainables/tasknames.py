"""The name of a task, from where its data is."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

DIGITS = "digits"
"""The word that stands for the built-in handwritten digits."""

LONGEST = 80


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
    return word[:LONGEST].strip(" .-") or "data"


def _stem(data: str) -> str:
    """The folder's name, or the file's without its extension; of a path that can't be, what it looks like."""
    try:
        path = Path(data).expanduser().resolve()
        return path.name if path.is_dir() else path.stem
    except (OSError, ValueError, RuntimeError):
        return Path(data).stem

"""The words by which people name splits."""

from __future__ import annotations

import re

from trainables.errors import DataError

WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

EXPECTED = "train, validation (or val, valid, dev) and test"


def split_of(word: str) -> str | None:
    """The split that ``word`` names, in any case: train, validation or test; None for other words."""
    return WORDS.get(word.strip().casefold())


def split_in(stem: str) -> str | None:
    """The split named somewhere in a file's stem, as in ``train-00000-of-00001`` or ``flowers_val``.

    Raises:
        DataError: it names two of them.
    """
    found = {WORDS[word] for word in re.split(r"[\W\d_]+", stem.casefold()) if word in WORDS}
    if len(found) > 1:
        raise DataError(f"{stem}: expected one split in the name, received {' and '.join(sorted(found))}")
    return found.pop() if found else None

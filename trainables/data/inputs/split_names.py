"""Recognises the names that people give to splits."""

from __future__ import annotations

import re

from trainables.errors import DataError

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}

EXPECTED_SPLIT_NAMES = "train, validation (or val, valid, dev) and test"


def parse_split_name(word: str) -> str | None:
    """Return the split that ``word`` names in any case: train, validation or test; None for other words."""
    return SPLIT_WORDS.get(word.strip().casefold())


def find_split_name(stem: str) -> str | None:
    """Return the split named in a file's stem, as in ``train-00000-of-00001`` or ``flowers_val``; None if there is
    none.

    Raises:
        DataError: the stem names two splits.
    """
    found = {SPLIT_WORDS[word] for word in re.split(r"[\W\d_]+", stem.casefold()) if word in SPLIT_WORDS}
    if len(found) > 1:
        raise DataError(f"{stem}: expected one split in the name, received {' and '.join(sorted(found))}")
    return found.pop() if found else None

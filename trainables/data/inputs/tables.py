"""Reads datasets from Parquet and Arrow files with an image column and a label column.

The split of a row comes from a split column, from the name of its file, or from neither. Paths in the image column are
relative to the file's folder. Classes have the order of Hugging Face's class names if the files contain them;
otherwise integers are sorted by value and strings alphabetically.

Of an unlabelled target only test rows need a label; the labels of other rows are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainables.data.inputs.cells import encoded_images, paths_in
from trainables.data.inputs.columns import Columns, class_names, find_columns
from trainables.data.inputs.labels import (
    LabelValue,
    encode_labels,
    encode_visible_labels,
    label_name,
    split_codes,
)
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import (
    NO_LABEL,
    SPLITS,
    UNSPLIT,
    Encoded,
    Listing,
    printable,
    splits_with_labels,
)
from trainables.data.inputs.table_files import TableFile


@dataclass(frozen=True)
class TablePart:
    """One file with its columns, and the split that its name contains, if any."""

    name: str
    table: TableFile
    columns: Columns
    split: str | None

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return None if self.columns.label is None else class_names(self.table.schema, self.columns.label)


@dataclass(frozen=True, eq=False)
class RowLabels:
    """Labels and splits of the rows of one file.

    Attributes:
        codes: (N,) indices into ``values`` and ``names``, or NO_LABEL.
        values: the distinct labels as stored.
        names: their class names.
        splits: (N,) int8 indices into SPLITS, or UNSPLIT.
    """

    codes: NDArray[np.int64]
    values: Sequence[LabelValue]
    names: Sequence[str]
    splits: NDArray[np.int8]


class Tables:
    """One table file, or the table files of a folder, as a :class:`DataSource`."""

    def __init__(self, place: Path, files: Sequence[tuple[Path, str | None]], options: DataOptions) -> None:
        """Open the files and find their columns.

        Raises:
            DataError: a file can't be read, or its columns are missing or ambiguous.
        """
        self._place, self._unlabelled = place, options.unlabelled
        self._parts = [_part(_name(path, place), path, split, options) for path, split in files]
        if not any(part.columns.label for part in self._parts):
            # No file has labels, not even for the test: raise the error of a labelled dataset.
            first = self._parts[0]
            find_columns(first.table.schema, replace(options, unlabelled=False), first.name)

    @property
    def place(self) -> str:
        return printable(self._place)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in self._parts:
            digest.update(repr((_stamp(part.table.path), part.columns, part.split)).encode())
            for path in paths_in(part.table, part.columns.image):
                digest.update(repr(_stamp(path)).encode())
        return digest.hexdigest()

    def listing(self) -> Listing:
        facts = self._facts
        classes, notes = self._classes()
        index = {name: number for number, name in enumerate(classes)}
        # A code of NO_LABEL is -1 and selects the last entry, which is NO_LABEL again.
        labels = [
            np.array([*(index[name] for name in each.names), NO_LABEL], dtype=np.int64)[each.codes]
            for each in facts
        ]
        ids = [
            f"{part.name}#{row}"
            for part, each in zip(self._parts, facts, strict=True)
            for row in range(len(each.codes))
        ]
        return Listing(
            ids, np.concatenate(labels), np.concatenate([each.splits for each in facts]), classes, notes
        )

    def images(self) -> Iterator[Encoded | None]:
        for part in self._parts:
            for array in part.table.arrays(part.columns.image):
                yield from encoded_images(array, part.table.path.parent)

    def keys(self) -> None:
        return None

    @cached_property
    def _facts(self) -> list[RowLabels]:
        splits = [_splits(part) for part in self._parts]
        if not self._unlabelled:
            return [_facts(part, each, None) for part, each in zip(self._parts, splits, strict=True)]
        seen = sorted(splits_with_labels({int(number) for each in splits for number in np.unique(each)}))
        return [
            _facts(part, each, np.isin(each, seen)) for part, each in zip(self._parts, splits, strict=True)
        ]

    def _classes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the classes that have images, in order, and a note on those that have none."""
        meaning = {
            name: value for each in self._facts for name, value in zip(each.names, each.values, strict=True)
        }
        known = {part.class_names for part in self._parts}
        # Only if all files agree: the same integer may mean another class in another file.
        names = known.pop() if len(known) == 1 else None
        if names is None:
            return tuple(sorted(meaning, key=lambda name: _rank(name, meaning[name]))), ()
        used = tuple(name for name in dict.fromkeys(names) if name in meaning)
        others = tuple(sorted(name for name in meaning if name not in names))
        idle = len(set(names)) - len(used)
        # Most labels of an unlabelled target are unknown, so that a class without images means nothing there.
        report_unused = idle and not self._unlabelled
        return used + others, (f"left out {idle:,} class names that no image has",) if report_unused else ()


def _rank(name: str, value: LabelValue) -> tuple[bool, float, str]:
    return (True, 0.0, name) if isinstance(value, str) else (False, float(value), name)


def _name(path: Path, place: Path) -> str:
    """Return the file's path inside the input, for messages and ids."""
    return printable(path.name if path == place else path.relative_to(place))


def _part(name: str, path: Path, split: str | None, options: DataOptions) -> TablePart:
    table = TableFile(path)
    columns = find_columns(table.schema, options, name)
    # The split in a file's name takes precedence over a column that merely happens to be called split.
    if split is not None and options.split_column is None:
        columns = replace(columns, split=None)
    return TablePart(name, table, columns, None if columns.split else split)


def _splits(part: TablePart) -> NDArray[np.int8]:
    """Return (N,) indices into SPLITS, or UNSPLIT."""
    if part.columns.split is not None:
        names = class_names(part.table.schema, part.columns.split)
        column = part.table.columns([part.columns.split]).column(part.columns.split)
        return split_codes(column, names, part.columns.split, part.name)
    split = UNSPLIT if part.split is None else SPLITS.index(part.split)
    return np.full(part.table.rows, split, dtype=np.int8)


def _facts(part: TablePart, splits: NDArray[np.int8], seen: NDArray[np.bool_] | None) -> RowLabels:
    """Read the labels of the rows ``seen`` (N,), where labels may be missing; None reads all rows, which need one."""
    if part.columns.label is None:
        return RowLabels(np.full(len(splits), NO_LABEL, np.int64), (), (), splits)
    column = part.table.columns([part.columns.label]).column(part.columns.label)
    if seen is None:
        codes, values = encode_labels(column, "label", part.name)
    else:
        codes, values = encode_visible_labels(column, seen, part.class_names, part.name)
    name = label_name(part.class_names, part.name)
    return RowLabels(codes, values, [name(value) for value in values], splits)


def _stamp(path: Path) -> tuple[str, int, int]:
    """Return what changes when the file does. A missing file has a stamp too; reading it raises a clear error later."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a path with a null byte
        return str(path), -1, 0
    return str(path), status.st_size, status.st_mtime_ns

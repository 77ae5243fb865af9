"""Converts columns of labels and of split names to indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainables.data.inputs.columns import value_type
from trainables.data.inputs.source import NO_LABEL, SPLITS, UNLABELLED_HINT, quoted_list
from trainables.data.inputs.split_names import EXPECTED_SPLIT_NAMES, parse_split_name
from trainables.errors import DataError

LabelValue = int | str | bool | float

MAX_CLASS_NAME_LENGTH = 500
"""Largest number of characters in a class name."""


def encode_labels(column: Any, what: str, place: str) -> tuple[NDArray[np.int64], list[LabelValue]]:
    """Encode a pyarrow ChunkedArray as (N,) int64 codes, and return them with the value of each code.

    ``what`` (label or split) and ``place`` are for messages.

    Raises:
        DataError: a value is missing, or the type is not supported.
    """
    codes, values = _encoded(column, what, place)
    if (codes == NO_LABEL).any():
        raise _missing(codes == NO_LABEL, what, place)
    empty = [code for code, value in enumerate(values) if _blank(value)]
    if empty:
        raise _missing(np.isin(codes, empty), what, place)
    return codes, values


def encode_visible_labels(
    column: Any, seen: NDArray[np.bool_], names: Sequence[str] | None, place: str
) -> tuple[NDArray[np.int64], list[LabelValue]]:
    """Encode the labels of the rows ``seen`` (N,) alone, where they may also be missing.

    All other rows get the code NO_LABEL, and values that occur only there are not returned. A missing label is null,
    blank, NaN, or -1 if integers have ``names`` (as Hugging Face writes it).

    Raises:
        DataError: the type is not supported.
    """
    if pa.types.is_null(column.type):
        return np.full(len(seen), NO_LABEL, np.int64), []
    codes, values = _encoded(column, "label", place)
    missing = [code for code, value in enumerate(values) if _blank(value) or (names and value == -1)]
    codes = np.where(seen & ~np.isin(codes, missing), codes, NO_LABEL)
    used = np.unique(codes[codes != NO_LABEL])
    place_of = np.full(
        len(values) + 1, NO_LABEL, np.int64
    )  # index -1, the last entry, maps NO_LABEL to itself
    place_of[used] = np.arange(len(used))
    return place_of[codes], [values[code] for code in used]


def _encoded(column: Any, what: str, place: str) -> tuple[NDArray[np.int64], list[LabelValue]]:
    """Return (N,) codes, NO_LABEL for null values, and the distinct values."""
    try:
        plain = _plain(column)
        encoded = plain.dictionary_encode()
    except pa.ArrowNotImplementedError as error:
        raise DataError(
            f"{place}: {what}: expected strings or integers, received the type {column.type}."
        ) from error
    codes = encoded.indices.fill_null(NO_LABEL).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes, encoded.dictionary.to_pylist()


def _blank(value: LabelValue | None) -> bool:
    # Only NaN differs from itself.
    return value is None or (not value.strip() if isinstance(value, str) else value != value)


def _plain(column: Any) -> Any:
    """Return one Array of all chunks, with dictionary encoding removed."""
    kind = value_type(column.type)
    plain = column.cast(kind).combine_chunks() if kind != column.type else column.combine_chunks()
    if isinstance(plain, pa.ChunkedArray):
        return pa.concat_arrays(plain.chunks) if plain.num_chunks else pa.array([], kind)
    return plain


def _missing(where: NDArray[np.bool_], what: str, place: str) -> DataError:
    rows = [str(row) for row in np.flatnonzero(where)]
    return DataError(
        f"{place}: {len(rows):,} of {len(where):,} rows have no {what} (rows {quoted_list(rows, 5)}). "
        "Fill them in, or leave these rows out." + (f" {UNLABELLED_HINT}" if what == "label" else "")
    )


def label_name(names: Sequence[str] | None, place: str, what: str = "label") -> Callable[[LabelValue], str]:
    """Return a function from a stored label to its class name.

    ``names`` are the class names of integer labels, if known. The function raises DataError for a label that no class
    can have; ``what`` names the column in the message.

    Raises:
        DataError: ``names`` contains a name twice.
    """
    twice = {word for word, count in Counter(names or ()).items() if count > 1}
    if twice:
        raise DataError(
            f"{place}: class names: expected different ones, received {quoted_list(sorted(twice))} twice."
        )

    def name(value: LabelValue) -> str:
        return _fit(text(value), place)

    def text(value: LabelValue) -> str:
        # pandas stores integers with missing values as floats.
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, float):
            raise DataError(f"{place}: {what}: expected an integer or a string, received {value}")
        if names is None or isinstance(value, str):
            return str(value)
        if not 0 <= value < len(names):
            hint = (
                f" -1 stands for an image without a label: leave these out. {UNLABELLED_HINT}"
                if value == -1
                else ""
            )
            raise DataError(f"{place}: {what}: expected 0 to {len(names) - 1}, received {value}.{hint}")
        return names[value]

    return name


def _fit(word: str, place: str) -> str:
    if len(word) > MAX_CLASS_NAME_LENGTH or "\0" in word:
        raise DataError(
            f"{place}: label: expected names of classes of at most {MAX_CLASS_NAME_LENGTH} letters, "
            f"received {quoted_list([word])}. "
            "Name another column by --label-column (label_column)."
        )
    return word


def split_codes(column: Any, names: Sequence[str] | None, name: str, place: str) -> NDArray[np.int8]:
    """Convert the split column ``name`` to (N,) int8 indices into SPLITS.

    Raises:
        DataError: a split is missing or unknown.
    """
    codes, values = encode_labels(column, "split", place)
    name_of = label_name(names, place, "split")
    words = [name_of(value) for value in values]
    splits = [parse_split_name(word) for word in words]
    unknown = [word for word, split in zip(words, splits, strict=True) if split is None]
    if unknown:
        raise DataError(
            f"{place}: split column {name!r}: expected {EXPECTED_SPLIT_NAMES}, received {quoted_list(unknown)}. "
            "Name another column by --split-column (split_column)."
        )
    return np.array([SPLITS.index(split) for split in splits if split], dtype=np.int8)[codes]

"""Finds the image, label and split columns of a table by name and type."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import UNLABELLED_HINT, quoted_list
from trainables.errors import DataError

IMAGE_NAMES = (
    "image",
    "img",
    "images",
    "picture",
    "photo",
    "file_name",
    "filename",
    "image_path",
    "path",
    "file",
)
LABEL_NAMES = ("label", "labels", "class", "target", "category")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table.

    Attributes:
        image: the column of images.
        label: the column of labels; None in a file without labels, which only unlabelled targets allow.
        split: the column that names the split of each row; None if there is none.
    """

    image: str
    label: str | None
    split: str | None


def find_columns(schema: Any, options: DataOptions, place: str) -> Columns:
    """Find the columns of ``schema``: those that ``options`` name, otherwise by Hugging Face feature, name and type.

    A file of an ``unlabelled`` dataset need not have a column of labels. ``place`` is for messages.

    Raises:
        DataError: a column does not exist, is ambiguous, or has a type that can't be read.
    """
    features = hugging_face_features(schema)
    image = options.image_column or _one(
        _candidate_columns(schema, "image", IMAGE_NAMES, features, "Image"), schema, "image", place
    )
    _require(schema, image, "image", place)
    _require_type(
        schema, image, _holds_images, "image", "binary, a struct with bytes and path, or paths", place
    )
    label = _label_column(schema, options, features, place)
    split = options.split_column
    if split is None:
        split = next((field.name for field in schema if _names_splits(field)), None)
    else:
        _require(schema, split, "split", place)
        _require_type(schema, split, _holds_labels, "split", "strings, one name of a split a row", place)
    return Columns(image, label, split)


def _label_column(schema: Any, options: DataOptions, features: dict[str, Any], place: str) -> str | None:
    name: str | None = options.label_column
    if name is None:
        found = _candidate_columns(schema, "label", LABEL_NAMES, features, "ClassLabel")
        if options.unlabelled and not found:
            return None
        name = _one(found, schema, "label", place)
    elif options.unlabelled and name not in schema.names:
        return None
    _require(schema, name, "label", place)
    if options.unlabelled and pa.types.is_null(schema.field(name).type):
        return name
    _require_type(schema, name, _holds_labels, "label", "integers or strings, one label an image", place)
    return name


def hugging_face_features(schema: Any) -> dict[str, Any]:
    """Return the features that Hugging Face ``datasets`` stores with a schema; empty if there are none."""
    try:
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = stored["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}  # not written by Hugging Face: names and types of the columns decide
    return features if isinstance(features, dict) else {}


def class_names(schema: Any, column: str) -> tuple[str, ...] | None:
    """Return the class names of the integer labels in ``column``, if the schema's metadata contains them."""
    feature = hugging_face_features(schema).get(column)
    names = feature.get("names") if isinstance(feature, dict) else None
    if not isinstance(names, list) or not names:
        return None
    return tuple(str(name).encode("utf-8", "backslashreplace").decode() for name in names)


def value_type(kind: Any) -> Any:
    """Return the type of the values: of a dictionary-encoded column that of its dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: Any) -> bool:
    """Whether values of the type are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_bytes(kind: Any) -> bool:
    """Whether values of the type are byte strings."""
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind))


def image_fields(kind: Any) -> list[str]:
    """Return the fields of a struct type that can hold an image: ``bytes``, ``path`` or both, in this order."""
    fits = {"bytes": is_bytes, "path": is_text}
    names = [field.name for field in kind if field.name in fits and fits[field.name](field.type)]
    return sorted(name for name in names if names.count(name) == 1)


def _holds_images(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return bool(image_fields(kind))
    return is_bytes(kind) or is_text(value_type(kind))


def _names_splits(field: Any) -> bool:
    """Whether the column is called ``split`` and could be one.

    Byte strings count as well; reading them raises a clear error later.
    """
    return field.name.casefold() == "split" and (_holds_labels(field.type) or is_bytes(field.type))


def _holds_labels(kind: Any) -> bool:
    kind, types = value_type(kind), pa.types
    return is_text(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind)


def _candidate_columns(
    schema: Any, what: str, names: Sequence[str], features: dict[str, Any], feature: str
) -> list[str]:
    """Return candidates for the ``what`` column: by Hugging Face feature, then name, then (images only) type."""
    tagged = [
        n
        for n, f in features.items()
        if isinstance(f, dict) and f.get("_type") == feature and n in schema.names
    ]
    # A declared feature is certain, so it comes before names.
    if len(tagged) == 1:
        return [str(tagged[0])]
    # Reversed, so that of two names that differ in case the first column wins.
    by_name = {name.casefold(): name for name in reversed(schema.names)}
    for name in names:
        if name in by_name:
            return [str(by_name[name])]
    structs = [field for field in schema if what == "image" and pa.types.is_struct(field.type)]
    typed = [field.name for field in structs if _holds_images(field.type)]
    return [str(name) for name in (typed if len(typed) == 1 else tagged or typed)]


def _one(found: Sequence[str], schema: Any, what: str, place: str) -> str:
    if len(found) == 1:
        return found[0]
    option = f"--{what}-column ({what}_column)"
    if found:
        problem = f"several columns may hold the {what}s: {quoted_list(found)}; name one with {option}"
    else:
        problem = f"no column of {what}s found; name it with {option}"
    hint = f" {UNLABELLED_HINT}" if what == "label" and not found else ""
    raise DataError(f"{place}: {problem}. The columns are {quoted_list(schema.names, 30)}.{hint}")


def _require(schema: Any, name: str, what: str, place: str) -> None:
    if schema.names.count(name) != 1:
        number = "no" if name not in schema.names else "more than one"
        raise DataError(
            f"{place} has {number} column {name!r} ({what}_column). The columns are {quoted_list(schema.names, 30)}."
        )


def _require_type(
    schema: Any, name: str, fits: Callable[[Any], bool], what: str, expected: str, place: str
) -> None:
    kind = schema.field(name).type
    if not fits(kind):
        raise DataError(
            f"{place}: {what} column {name!r}: expected {expected}, received the type {kind}. "
            f"Name another column by --{what}-column ({what}_column)."
        )

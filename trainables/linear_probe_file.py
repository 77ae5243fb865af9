"""Weights as a small file: a digest, a line of JSON, float32 values. Written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trainables.errors import DataError

FORMAT = 1
_DIGEST = hashlib.sha256().digest_size
_FLOAT = np.dtype("<f4")

Shapes = Sequence[tuple[int, ...]]


def write_weights(path: Path, key: str, weights: Sequence[np.ndarray]) -> None:
    """Write ``weights`` of ``key`` to ``path``. One writer at a time.

    Raises:
        OSError: no space left, or no permission.
    """
    head = _head(key, [w.shape for w in weights])
    body = b"".join([head, *(np.ascontiguousarray(w, _FLOAT).tobytes() for w in weights)])
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_weights(path: Path, key: str, shapes: Shapes) -> list[np.ndarray]:
    """The weights of ``key``, float32 arrays of ``shapes``, read-only.

    Raises:
        FileNotFoundError: no such file.
        OSError: it can't be read.
        DataError: it is damaged or holds something else.
    """
    head = _head(key, shapes)
    sizes = [math.prod(shape) for shape in shapes]
    expected = _DIGEST + len(head) + _FLOAT.itemsize * sum(sizes)
    found = path.stat().st_size
    if found != expected:
        raise DataError(f"linear probe {path}: expected {expected:,} bytes, received {found:,}")
    content = path.read_bytes()
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        raise DataError(f"linear probe {path}: expected bytes as they were written, received others")
    if not content.startswith(head, _DIGEST):
        raise DataError(f"linear probe {path}: expected one of {head!r}, received that of another key")
    flat = np.frombuffer(content, _FLOAT, sum(sizes), _DIGEST + len(head))
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _head(key: str, shapes: Shapes) -> bytes:
    facts = {"format": FORMAT, "key": key, "shapes": [list(shape) for shape in shapes]}
    return json.dumps(facts).encode() + b"\n"

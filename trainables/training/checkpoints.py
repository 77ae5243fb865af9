"""A trial's checkpoint: one file without pickle, written atomically; the one before it stays beside it.

The arrays of a group are one piece of bytes with its CRC-32, so that damage is found when it is read. A network has a
hundred arrays and more: writing each by itself takes longer than their bytes do.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import DataError

CHECKPOINT_FORMAT = 3
READABLE_FORMATS = (1, 2, CHECKPOINT_FORMAT)
"""Format 1 said neither how the trial saw its images nor what it had cost; 1 and 2 stored each array by itself."""

GROUPS = ("weights", "optimizer", "best_weights")
DAMAGE_ERRORS = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error, zlib.error),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, TypeError, AttributeError),
)
"""What NumPy and the zip archive raise on a damaged file: every bit of it may be wrong."""

_PARTIAL_PREFIX, _PARTIAL_SUFFIX, _PREVIOUS_SUFFIX = ".checkpoint-", ".tmp", "-before"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """State after ``epoch`` epochs. Everything random is a function of (seed, epoch) and needs no state.

    ``seeing`` says how the trial saw its images (:meth:`trainables.training.feed.DataFeed.describe`), ``account``
    what it had cost
    (:meth:`trainables.cost_account.CostAccount.describe`); None in a file of format 1. ``history`` holds the
    metrics of all
    epochs; None in files that were written before it was kept. ``best_weights`` may be the very list ``weights``: then
    they are written once.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best_weights: list[np.ndarray]
    best: Mapping[str, float] | None
    last: Mapping[str, float] | None
    seeing: Mapping[str, Any] | None = None
    account: Mapping[str, Any] | None = None
    history: Sequence[Mapping[str, float]] | None = None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``: whole or not at all. What was there is then the one before.

    Where the disk is full the one before goes, to make room.

    Raises:
        OSError: the disk is full, or nothing can be written there; what was at ``path`` before is still there.
    """
    best_is_present = checkpoint.best_weights is checkpoint.weights
    groups = {group: getattr(checkpoint, group) for group in GROUPS}
    if best_is_present:
        del groups["best_weights"]
    kept = ("epoch", "best", "last", "seeing", "account", "history")
    meta = {
        "format": CHECKPOINT_FORMAT,
        "arrays": {group: [[a.dtype.str, a.shape] for a in arrays] for group, arrays in groups.items()},
        "best_is_present": best_is_present,
        **{name: getattr(checkpoint, name) for name in kept},
    }
    pieces = {"meta": np.frombuffer(json.dumps(meta).encode(), np.uint8)}
    for group, arrays in groups.items():
        pieces[group] = np.frombuffer(b"".join(a.tobytes() for a in arrays), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, pieces)
    except OSError as error:
        if error.errno not in _DISK_FULL or not previous_checkpoint(path).exists():
            raise
        previous_checkpoint(path).unlink()
        _write(path, pieces)


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint that was at ``path`` before the present one is kept."""
    return path.with_name(f"{path.stem}{_PREVIOUS_SUFFIX}{path.suffix}")


def resumable_checkpoints(path: Path) -> list[Path]:
    """The checkpoints that a trial may go on from, the newest first."""
    return [each for each in (path, previous_checkpoint(path)) if each.exists()]


def remove_previous(folder: Path) -> None:
    """Keep only the newest checkpoints of ``folder``."""
    for path in folder.glob(f"*{_PREVIOUS_SUFFIX}.npz"):
        path.unlink(missing_ok=True)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL_PREFIX, suffix=_PARTIAL_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(previous_checkpoint(path))
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``."""
    for left in folder.glob(f"{_PARTIAL_PREFIX}*{_PARTIAL_SUFFIX}"):
        left.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`write_checkpoint` wrote.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(bytes(file["meta"]))
            _check_format(path, meta)
            groups = _read_old_groups(file, meta) if meta["format"] < 3 else _read_groups(file, meta)
    except DAMAGE_ERRORS as error:
        raise DataError(
            f"checkpoint {path}: expected a file written by unfreeze, received {error}"
        ) from error
    return Checkpoint(
        epoch=meta["epoch"],
        best=meta["best"],
        last=meta["last"],
        seeing=meta.get("seeing"),
        account=meta.get("account"),
        history=meta.get("history"),
        **groups,
    )


def _check_format(path: Path, meta: Any) -> None:
    known = meta.get("format") if isinstance(meta, dict) else meta
    if known not in READABLE_FORMATS:
        raise DataError(f"checkpoint {path}: expected format {CHECKPOINT_FORMAT}, received {known!r}")


def _read_groups(file: Any, meta: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
    groups = {group: _split_arrays(file[group], arrays) for group, arrays in meta["arrays"].items()}
    if meta["best_is_present"]:
        groups["best_weights"] = groups["weights"]
    if set(groups) != set(GROUPS):
        raise ValueError(f"expected {', '.join(GROUPS)}, received {', '.join(sorted(groups))}")
    return groups


def _split_arrays(piece: np.ndarray, arrays: Sequence[Any]) -> list[np.ndarray]:
    """The arrays that ``piece``, uint8, holds one after another."""
    found, start = [], 0
    for dtype, shape in arrays:
        array = np.ndarray(shape, np.dtype(dtype), piece, start)
        found.append(array)
        start += array.nbytes
    if start != len(piece):
        raise ValueError(f"expected {start} bytes of arrays, received {len(piece)}")
    return found


def _read_old_groups(file: Any, meta: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
    """As formats 1 and 2 have them."""
    names = sorted(file.files)
    groups = {group: [file[n] for n in names if n.startswith(f"{group}.")] for group in GROUPS}
    counts = {group: len(arrays) for group, arrays in groups.items()}
    if meta.get("counts", counts) != counts:
        raise ValueError(f"expected arrays {meta['counts']}, received {counts}")
    return groups

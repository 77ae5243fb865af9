"""Reads and writes the checkpoint file of a trial: one zip archive of arrays, without pickle, written atomically.

The checkpoint before the newest one is kept next to it, so that a trial can go on from that one if the newest is
damaged.

All arrays of a group (weights, optimizer, best weights) are stored as one array of bytes. NumPy and zip add a header
and a CRC-32 to each stored array: for the hundred arrays and more of a network, writing these takes longer than writing
the weights. The CRC-32 of the group still reveals damage when the file is read.
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
"""Formats 1 and 2 stored each array by itself; format 1 has neither the state of the feed nor the costs."""

GROUPS = ("weights", "optimizer", "best_weights")
DAMAGE_ERRORS = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error, zlib.error),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError, TypeError, AttributeError),
)
"""What NumPy and zipfile raise on a damaged file. Any bit may be wrong, also those that say how to read the others."""

_PARTIAL_PREFIX, _PARTIAL_SUFFIX, _PREVIOUS_SUFFIX = ".checkpoint-", ".tmp", "-before"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


_META_KEYS = {
    "epoch": "epoch",
    "best": "best",
    "last": "last",
    "seeing": "feed_state",
    "account": "account",
    "history": "history",
}
"""Keys of the stored metadata and the attributes that they hold. Keys must not change: old files have them."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a trial after some epochs.

    Attributes:
        epoch: number of epochs that have run.
        weights: of the trained blocks, then of the head.
        optimizer: the optimizers' variables, then the method's own arrays.
        best_weights: as ``weights``, of the best epoch. If it is the same list as ``weights``, both are stored once.
        best: metrics of the best epoch, by name.
        last: metrics of the last epoch, by name.
        feed_state: how the trial sees its images (:meth:`trainables.training.feed.DataFeed.describe`); None in files of
            format 1.
        account: the costs so far (:meth:`trainables.cost_account.CostAccount.describe`); None in files of format 1.
        history: metrics of all epochs; None in files of versions that did not store it.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best_weights: list[np.ndarray]
    best: Mapping[str, float] | None
    last: Mapping[str, float] | None
    feed_state: Mapping[str, Any] | None = None
    account: Mapping[str, Any] | None = None
    history: Sequence[Mapping[str, float]] | None = None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``, as a whole or not at all.

    A file that was at ``path`` becomes the previous checkpoint. If the disk is full, the previous checkpoint is removed
    to make room.

    Raises:
        OSError: the disk is full or cannot be written to; what was at ``path`` before is still there.
    """
    best_is_present = checkpoint.best_weights is checkpoint.weights
    groups = {group: getattr(checkpoint, group) for group in GROUPS}
    if best_is_present:
        del groups["best_weights"]
    meta = {
        "format": CHECKPOINT_FORMAT,
        "arrays": {group: [[a.dtype.str, a.shape] for a in arrays] for group, arrays in groups.items()},
        "best_is_present": best_is_present,
        **{key: getattr(checkpoint, name) for key, name in _META_KEYS.items()},
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
        # The previous checkpoint is only a reserve. The newest, which is still at ``path``, is worth more than both.
        previous_checkpoint(path).unlink()
        _write(path, pieces)


def previous_checkpoint(path: Path) -> Path:
    """Return where the checkpoint that was at ``path`` before the present one is kept."""
    return path.with_name(f"{path.stem}{_PREVIOUS_SUFFIX}{path.suffix}")


def resumable_checkpoints(path: Path) -> list[Path]:
    """Return the existing checkpoints that a trial may go on from, the newest first."""
    return [each for each in (path, previous_checkpoint(path)) if each.exists()]


def remove_previous(folder: Path) -> None:
    """Remove the previous checkpoints in ``folder`` and keep the newest ones."""
    for path in folder.glob(f"*{_PREVIOUS_SUFFIX}.npz"):
        path.unlink(missing_ok=True)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_PARTIAL_PREFIX, suffix=_PARTIAL_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            # The rename below must not reach the disk before the content does, or a loss of power leaves an empty
            # file.
            file.flush()
            os.fsync(file.fileno())
        # A process that is killed between these two renames leaves no file at ``path``, but the previous checkpoint,
        # from which the trial is resumed.
        if path.exists():
            path.replace(previous_checkpoint(path))
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def remove_partial_files(folder: Path) -> None:
    """Remove files that killed processes left half-written in ``folder``."""
    for left in folder.glob(f"{_PARTIAL_PREFIX}*{_PARTIAL_SUFFIX}"):
        left.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file that :func:`write_checkpoint` wrote, in any of the :data:`READABLE_FORMATS`.

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
        feed_state=meta.get("seeing"),
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
    """Split ``piece`` (uint8) into its arrays, which are views of it.

    Args:
        piece: the bytes of all arrays, one after another.
        arrays: (dtype, shape) of each.

    Raises:
        ValueError: there are more or fewer bytes.
    """
    found, start = [], 0
    for dtype, shape in arrays:
        # A view of ``piece``: a network's weights are not copied once more.
        array = np.ndarray(shape, np.dtype(dtype), piece, start)
        found.append(array)
        start += array.nbytes
    if start != len(piece):
        raise ValueError(f"expected {start} bytes of arrays, received {len(piece)}")
    return found


def _read_old_groups(file: Any, meta: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
    """Read the arrays as formats 1 and 2 store them, each by itself and named by its group and number."""
    names = sorted(file.files)
    groups = {group: [file[n] for n in names if n.startswith(f"{group}.")] for group in GROUPS}
    counts = {group: len(arrays) for group, arrays in groups.items()}
    if meta.get("counts", counts) != counts:
        raise ValueError(f"expected arrays {meta['counts']}, received {counts}")
    return groups

"""A trial's checkpoint: one file without pickle, written atomically; the one before it stays beside it.

Each array is stored with its CRC-32, so that damage is found when it is read.
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

FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 said neither how the trial saw its images nor what it had cost."""

GROUPS = ("weights", "optimizer", "best_weights")
DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, struct.error, zlib.error),
    *(NotImplementedError, RuntimeError, OverflowError, MemoryError),
)
"""What NumPy and the zip archive raise on a damaged file: every bit of it may be wrong."""

_DRAFT, _ENDING, _BEFORE = ".checkpoint-", ".tmp", "-before"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """State after ``epoch`` epochs. Everything random is a function of (seed, epoch) and needs no state.

    ``seeing`` says how the trial saw its images (:meth:`trainables.feed.Feed.describe`), ``account`` what it had cost
    (:meth:`trainables.account.Account.describe`); None in a file of format 1. ``history`` holds the metrics of all
    epochs; None in files that were written before it was kept.
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
    arrays: dict[str, np.ndarray] = {}
    for name in GROUPS:
        for index, array in enumerate(getattr(checkpoint, name)):
            arrays[f"{name}.{index:05d}"] = array
    counts = {group: len(getattr(checkpoint, group)) for group in GROUPS}
    kept = ("epoch", "best", "last", "seeing", "account", "history")
    meta = {"format": FORMAT, "counts": counts, **{name: getattr(checkpoint, name) for name in kept}}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write(path, arrays)
    except OSError as error:
        if error.errno not in _FULL or not before(path).exists():
            raise
        before(path).unlink()
        _write(path, arrays)


def before(path: Path) -> Path:
    """Where the checkpoint that was at ``path`` before the present one is kept."""
    return path.with_name(f"{path.stem}{_BEFORE}{path.suffix}")


def generations(path: Path) -> list[Path]:
    """The checkpoints that a trial may go on from, the newest first."""
    return [each for each in (path, before(path)) if each.exists()]


def drop_before(folder: Path) -> None:
    """Keep only the newest checkpoints of ``folder``."""
    for path in folder.glob(f"*{_BEFORE}.npz"):
        path.unlink(missing_ok=True)


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_DRAFT, suffix=_ENDING)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(before(path))
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder``."""
    for left in folder.glob(f"{_DRAFT}*{_ENDING}"):
        left.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what :func:`write_checkpoint` wrote.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(bytes(file["meta"]))
            names = sorted(file.files)
            arrays = {group: [file[n] for n in names if n.startswith(f"{group}.")] for group in GROUPS}
    except DAMAGE as error:
        raise DataError(
            f"checkpoint {path}: expected a file written by unfreeze, received {error}"
        ) from error
    if not isinstance(meta, dict) or meta.get("format") not in READABLE:
        known = meta.get("format") if isinstance(meta, dict) else meta
        raise DataError(f"checkpoint {path}: expected format {FORMAT}, received {known!r}")
    counts = {group: len(arrays[group]) for group in GROUPS}
    if meta.get("counts", counts) != counts:
        raise DataError(f"checkpoint {path}: expected arrays {meta['counts']}, received {counts}")
    return Checkpoint(
        epoch=meta["epoch"],
        best=meta["best"],
        last=meta["last"],
        seeing=meta.get("seeing"),
        account=meta.get("account"),
        history=meta.get("history"),
        **arrays,
    )

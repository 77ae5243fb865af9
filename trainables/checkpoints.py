"""A trial's checkpoint: one file without pickle, written atomically."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainables.errors import DataError

FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 said neither how the trial saw its images nor what it had cost."""

_DRAFT, _ENDING = ".checkpoint-", ".tmp"


@dataclass(frozen=True)
class Checkpoint:
    """State after ``epoch`` epochs. Everything random is a function of (seed, epoch) and needs no state.

    ``seeing`` says how the trial saw its images (:meth:`trainables.feed.Feed.describe`), ``account`` what it had cost
    (:meth:`trainables.account.Account.describe`); None in a file of format 1.
    """

    epoch: int
    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best_weights: list[np.ndarray]
    best: Mapping[str, float] | None
    last: Mapping[str, float] | None
    seeing: Mapping[str, Any] | None = None
    account: Mapping[str, Any] | None = None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint`` to ``path``: whole or not at all.

    Raises:
        OSError: the disk is full, or nothing can be written there; what was at ``path`` before is still there.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in ("weights", "optimizer", "best_weights"):
        for index, array in enumerate(getattr(checkpoint, name)):
            arrays[f"{name}.{index:05d}"] = array
    facts = {name: getattr(checkpoint, name) for name in ("epoch", "best", "last", "seeing", "account")}
    meta = {"format": FORMAT, **facts}
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=_DRAFT, suffix=_ENDING)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
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
            arrays = {
                group: [file[n] for n in names if n.startswith(f"{group}.")]
                for group in ("weights", "optimizer", "best_weights")
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"checkpoint {path}: expected a file written by unfreeze, received {error}"
        ) from error
    if not isinstance(meta, dict) or meta.get("format") not in READABLE:
        known = meta.get("format") if isinstance(meta, dict) else meta
        raise DataError(f"checkpoint {path}: expected format {FORMAT}, received {known!r}")
    return Checkpoint(
        epoch=meta["epoch"],
        best=meta["best"],
        last=meta["last"],
        seeing=meta.get("seeing"),
        account=meta.get("account"),
        **arrays,
    )

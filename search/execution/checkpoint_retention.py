"""The disk that a search's checkpoints may take: those of live trials, and of the best that have ended.

A live trial's checkpoint is what it goes on from after a crash; it is never removed. The one before it stays too while
there is room, for the day when the newest is damaged. One of a trial that has ended
holds its best epoch and its last one, with the optimizer: a model can be rebuilt from it, or trained further. No part
of a search needs it: the winner is trained anew. Nothing is remembered between runs: what may stay follows from the
ledger and from what lies in the folders.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from search.records.metrics import Direction
from search.records.record import TrialRecord, rank_key
from search.records.units import format_size
from trainables.training.checkpoints import remove_partial_files, remove_previous

DEFAULT_BUDGET_BYTES = 20 * 10**9
DEFAULT_BUDGET_SHARE = 0.2
"""The budget, unless another is asked for: this much, or this share of what the disk has left, whichever is less."""


@dataclass(frozen=True)
class _KeptCheckpoint:
    rank: tuple[float, ...]
    folder: Path
    bytes: int


@dataclass
class CheckpointRetention:
    """Checkpoints of a whole search, its baseline included, a folder a trial. Not for several threads.

    Args:
        budget: bytes of all together.
        told: takes a line for whoever watches.
    """

    budget: int
    told: Callable[[str], None]
    _live: dict[Path, int] = field(default_factory=dict)
    _kept: list[_KeptCheckpoint] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    def look(self, root: Path, trials: Iterable[TrialRecord], direction: Direction, keep: int) -> None:
        """Take stock of ``root``: trials that run stay, of those that have ended the ``keep`` best; others go."""
        known = {checkpoint_folder(root, trial.number): trial for trial in trials}
        self._kept = [kept for kept in self._kept if kept.folder.parent != root]
        for folder in checkpoint_folders(root):
            trial = known.get(folder)
            if trial is not None and trial.state == "running":
                self._tidy(folder, remove_partial_files)
                self.written(folder)
            else:
                self.ended(folder, trial, direction, keep)

    def written(self, folder: Path) -> None:
        """A trial that runs has written its checkpoint in ``folder``."""
        self._live[folder] = folder_bytes(folder)
        self._fit()

    def not_written(self, folder: Path, reason: str) -> None:
        """A trial that runs could not write its checkpoint in ``folder``."""
        self._say_once(
            f"write: {reason}",
            f"checkpoints: can't write to {folder} ({reason}). Trials go on without; one whose process dies starts "
            "again from its last whole checkpoint",
        )

    def damaged(self, file: str, epoch: int) -> None:
        """A trial that goes on could not do so from ``file``; its first epoch since is ``epoch``."""
        self._say_once(
            f"damaged: {file}", f"checkpoints: {file} is damaged; its trial goes on from epoch {epoch}"
        )

    def ended(self, folder: Path, trial: TrialRecord | None, direction: Direction, keep: int) -> None:
        """``trial`` runs no longer: keep what is in ``folder`` if it is among the ``keep`` best."""
        self._live.pop(folder, None)
        self._tidy(folder, remove_partial_files)
        self._tidy(folder, remove_previous)
        place = rank_key(trial, direction) if trial is not None and keep else None
        size = folder_bytes(folder)
        if place is None or not size:
            self._tidy(folder, shutil.rmtree)
            return
        self._kept.append(_KeptCheckpoint(place, folder, size))
        self._kept.sort(key=lambda kept: kept.rank)
        while len(self._kept) > keep:
            self._tidy(self._kept.pop().folder, shutil.rmtree)
        self._fit()

    def _fit(self) -> None:
        live = sum(self._live.values())
        while self._kept and live + sum(kept.bytes for kept in self._kept) > self.budget:
            self._tidy(self._kept.pop().folder, shutil.rmtree)
        if live > self.budget:
            for folder in self._live:
                self._tidy(folder, remove_previous)
                self._live[folder] = folder_bytes(folder)
            live = sum(self._live.values())
        if live > self.budget:
            self._say_once(
                "budget",
                f"checkpoints: those of {len(self._live)} running trials take {format_size(live)}, more than "
                f"checkpoint_budget ({format_size(self.budget)}). They stay; to need less, lower --max-concurrent",
            )

    def _tidy(self, folder: Path, remove: Callable[[Path], object]) -> None:
        try:
            remove(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            reason = error.strerror or str(error)
            self._say_once(f"remove: {reason}", f"checkpoints: can't remove {folder} ({reason})")

    def _say_once(self, about: str, words: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self.told(words)


def checkpoint_folder(root: Path, number: int) -> Path:
    """Where trial ``number`` keeps its checkpoint."""
    return root / f"{number:05d}"


def checkpoint_folders(root: Path) -> list[Path]:
    """The folders of trials under ``root``, which need not exist."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if re.fullmatch("[0-9]{5,}", p.name) and p.is_dir())


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in ``folder``; 0 where there is none."""
    total = 0
    for file in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # replaced just now by the process that writes it
            total += file.stat().st_size
    return total


def default_budget(*roots: Path) -> int:
    """Bytes for checkpoints under ``roots``, which need not exist; what they take already counts as free."""
    existing = next(p for p in (roots[0], *roots[0].parents) if p.is_dir())
    own = sum(folder_bytes(folder) for root in roots for folder in checkpoint_folders(root))
    return min(DEFAULT_BUDGET_BYTES, int(DEFAULT_BUDGET_SHARE * (shutil.disk_usage(existing).free + own)))

"""Decides which checkpoints of a search stay on disk, within a budget.

- A running trial's newest checkpoint is never removed: the trial resumes from it after a crash. The one before it stays
  too while there is room, in case the newest is damaged.
- A trial that has ended keeps its checkpoint if it is among the ``keep_best`` best and there is room. It holds the best
  and the last epoch with the optimizer, so that a user can rebuild or continue the model. The search itself does not
  need it, because the winner is trained again.
- Of the ended trials, those without a rank lose theirs at once, and the worst follow. Only when none are left are the
  older checkpoints of running trials removed.

Nothing is remembered between runs of the command: what may stay follows from the ledger and from the folders.
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
"""The default budget is the smaller of this many bytes and this share of the free disk."""


@dataclass(frozen=True)
class _KeptCheckpoint:
    """The checkpoint of a trial that has ended; a lower ``rank`` is better."""

    rank: tuple[float, ...]
    folder: Path
    bytes: int


@dataclass
class CheckpointRetention:
    """The checkpoints of a whole search and its baseline, one folder for each trial. Not thread-safe.

    Attributes:
        budget: bytes of all checkpoints together.
        notify: receives a line for the user.
    """

    budget: int
    notify: Callable[[str], None]
    _live: dict[Path, int] = field(default_factory=dict)
    """Bytes in the folder of each running trial."""
    _kept: list[_KeptCheckpoint] = field(default_factory=list)
    """Checkpoints of trials that have ended, the best first."""
    _notified: set[str] = field(default_factory=set)

    def scan(self, root: Path, trials: Iterable[TrialRecord], direction: Direction, keep: int) -> None:
        """Read the folders under ``root`` and remove what may not stay."""
        known = {checkpoint_folder(root, trial.number): trial for trial in trials}
        # Search and baseline have separate folders and share the budget: a scan of one must not forget the
        # other.
        self._kept = [kept for kept in self._kept if kept.folder.parent != root]
        for folder in checkpoint_folders(root):
            trial = known.get(folder)
            # This trial will be resumed: only the half-written file of a killed process is removed.
            if trial is not None and trial.state == "running":
                self._remove(folder, remove_partial_files)
                self.checkpoint_written(folder)
            else:
                self.trial_ended(folder, trial, direction, keep)

    def checkpoint_written(self, folder: Path) -> None:
        """Account for the checkpoint that a running trial has written to ``folder``."""
        self._live[folder] = folder_bytes(folder)
        self._enforce_budget()

    def checkpoint_not_written(self, folder: Path, reason: str) -> None:
        """Report that a running trial could not write its checkpoint to ``folder``."""
        self._notify_once(
            f"write: {reason}",
            f"checkpoints: can't write to {folder} ({reason}). Trials continue without checkpoints; a trial whose "
            "process dies resumes from its last complete checkpoint",
        )

    def checkpoint_damaged(self, file: str, epoch: int) -> None:
        """Report that a trial could not resume from ``file``; its first epoch since then is ``epoch``."""
        self._notify_once(
            f"damaged: {file}", f"checkpoints: {file} is damaged; its trial continues with epoch {epoch}"
        )

    def trial_ended(self, folder: Path, trial: TrialRecord | None, direction: Direction, keep: int) -> None:
        """Keep the checkpoint in ``folder`` if its trial, which has ended, is among the ``keep`` best.

        ``trial`` is None for a folder of a trial that the ledger does not know.
        """
        self._live.pop(folder, None)
        self._remove(folder, remove_partial_files)
        self._remove(folder, remove_previous)
        rank = rank_key(trial, direction) if trial is not None and keep else None
        size = folder_bytes(folder)
        if rank is None or not size:
            self._remove(folder, shutil.rmtree)
            return
        self._kept.append(_KeptCheckpoint(rank, folder, size))
        self._kept.sort(key=lambda kept: kept.rank)
        while len(self._kept) > keep:
            self._remove(self._kept.pop().folder, shutil.rmtree)
        self._enforce_budget()

    def _enforce_budget(self) -> None:
        live = sum(self._live.values())
        # Running trials come first: their checkpoints save work, those of ended trials are a convenience.
        while self._kept and live + sum(kept.bytes for kept in self._kept) > self.budget:
            self._remove(self._kept.pop().folder, shutil.rmtree)
        # Once all ended trials' checkpoints are gone, only the second newest of running trials can go.
        if live > self.budget:
            for folder in self._live:
                self._remove(folder, remove_previous)
                self._live[folder] = folder_bytes(folder)
            live = sum(self._live.values())
        if live > self.budget:
            self._notify_once(
                "budget",
                f"checkpoints: those of {len(self._live)} running trials take {format_size(live)}, more than "
                f"checkpoint_budget ({format_size(self.budget)}). They stay; to need less, lower --max-concurrent",
            )

    def _remove(self, folder: Path, remove: Callable[[Path], object]) -> None:
        try:
            remove(folder)
        except FileNotFoundError:
            return  # never written, or removed by hand
        except OSError as error:
            reason = error.strerror or str(error)
            self._notify_once(f"remove: {reason}", f"checkpoints: can't remove {folder} ({reason})")

    def _notify_once(self, about: str, words: str) -> None:
        if about not in self._notified:
            self._notified.add(about)
            self.notify(words)


def checkpoint_folder(root: Path, number: int) -> Path:
    """Return the folder of a trial's checkpoints."""
    return root / f"{number:05d}"


def checkpoint_folders(root: Path) -> list[Path]:
    """Return the folders of trials under ``root``, which need not exist."""
    if not root.is_dir():
        return []
    # Only names that checkpoint_folder makes match, because folders of trials that the ledger does not know
    # are removed.
    return sorted(p for p in root.iterdir() if re.fullmatch("[0-9]{5,}", p.name) and p.is_dir())


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files in ``folder``; 0 if it does not exist."""
    total = 0
    for file in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # replaced just now by the process that writes it
            total += file.stat().st_size
    return total


def default_checkpoint_budget(*roots: Path) -> int:
    """Return the default budget for checkpoints under ``roots``, which need not exist.

    The disk that existing checkpoints take counts as free: otherwise the budget would shrink with every run.
    """
    existing = next(p for p in (roots[0], *roots[0].parents) if p.is_dir())
    own = sum(folder_bytes(folder) for root in roots for folder in checkpoint_folders(root))
    return min(DEFAULT_BUDGET_BYTES, int(DEFAULT_BUDGET_SHARE * (shutil.disk_usage(existing).free + own)))

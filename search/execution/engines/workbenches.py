"""Opens the workbenches of one engine: backbone, data, activations and compiled programs that trials share."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from search.execution.engines.messages import WorkbenchPaths
from trainables.numerics import Numerics
from trainables.reuse import Reuse

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench


class Workbenches:
    """One workbench for each set of paths, opened once and shared by all trials and jobs of the process.

    Args:
        reuse: what trials share.
        numerics: precision and compilation of this machine.
        copy_data: read a copy of the data on this machine's own disk (:mod:`trainables.data.node_copy`).

    Attributes:
        lock: held while a workbench is opened or a model is saved, so that two threads never load the same data twice
            nor build models at the same time, which Keras does not support.
    """

    def __init__(self, reuse: Reuse, numerics: Numerics, copy_data: bool) -> None:
        self._reuse, self._numerics, self._copy_data = reuse, numerics, copy_data
        self._opened: dict[WorkbenchPaths, Workbench] = {}
        self.lock = threading.Lock()

    def open(self, paths: WorkbenchPaths) -> Workbench:
        """Return the workbench of ``paths``, which is opened on the first call."""
        from trainables.training.workbench import Workbench

        source, remember, teacher = paths.source, paths.remember, paths.teacher
        with self.lock:
            if paths not in self._opened:
                # Source, remembered task and teacher are opened when a trial first needs them: most methods do not.
                self._opened[paths] = Workbench.open(
                    paths.backbone,
                    self.local_folder(paths.task),
                    self._cache,
                    self._reuse,
                    self._numerics,
                    source=(lambda: self.local_folder(source)) if source else None,
                    unlabelled=paths.unlabelled,
                    refit=paths.refit,
                    remember=(lambda: self.local_folder(remember)) if remember else None,
                    # The lock is not reentrant, so opening the teacher at this point would deadlock.
                    teacher=(lambda: self.open(teacher)) if teacher else None,
                )
            return self._opened[paths]

    def local_folder(self, task: Path) -> Path:
        """Return the folder from which this machine reads a prepared task; copies the task there if necessary."""
        from trainables.data.node_copy import local_copy

        return local_copy(task, self._cache) if self._copy_data else task

    @property
    def compiled(self) -> int:
        """Number of programs that have been compiled."""
        return sum(workbench.compiled for workbench in self._opened.values())

    @property
    def _cache(self) -> Path | None:
        from trainables.activations.location import default_directory

        return default_directory(wanted=self._reuse.cache)

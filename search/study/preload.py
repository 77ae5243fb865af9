"""Imports libraries that a search needs later, in the background while the driver waits for its engines.

While the engines import TensorFlow, the driver imports MLflow, scikit-learn (for the importance of parameters) and the
drawing library, which take about three seconds of processor time. It does not start earlier, because all cores are busy
while Ray starts. While the engines train the winner again, the driver imports what registers a model, which includes
TensorFlow.

Code that needs one of these modules imports it as usual: Python's import lock makes it wait for the rest.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from types import TracebackType


class Preloader:
    """Imports modules in background threads; leaving the context waits for them.

    The threads must end before Ray is shut down. An import may collect garbage and so drop a reference of Ray's. Ray
    aborts a process in which one thread does that while another shuts it down.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Preloader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.join()

    def load_reporting(self) -> None:
        """Import MLflow's client, the importance of parameters and the drawing library."""
        self._start(_import_reporting)

    def load_registration(self) -> None:
        """Import what registers a model."""
        self._start(_import_registration)

    def _start(self, load: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=load, name="unfreeze-preload"))
        self._threads[-1].start()


def _import_reporting() -> None:
    for name in ("optuna.importance", "search.tracking.mirror", "search.report.formats"):
        importlib.import_module(name)
    from search.report.page import preload

    preload()


def _import_registration() -> None:
    for name in ("search.registry", "mlflow.keras"):
        importlib.import_module(name)

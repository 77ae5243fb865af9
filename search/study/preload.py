"""What a search needs later, loaded while it waits for its engines.

While they import TensorFlow: MLflow, scikit-learn (for the importance of parameters) and the library that draws, which
take some three seconds of processor time. Earlier, while Ray starts, all cores are busy. While they train the winner
again: what registers a model, which brings TensorFlow into this process.

Whoever needs one of these modules meanwhile imports it as ever, and waits for what is left of it.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from types import TracebackType


class Preloader:
    """Loads in the background; its end waits for what has begun.

    It has to end before Ray does: Ray ends a process that drops one of its references, as any thread does that collects
    garbage, while another thread shuts it down.
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
        """What delivers, judges and draws."""
        self._start(_import_reporting)

    def load_registration(self) -> None:
        """What registers a model."""
        self._start(_import_registration)

    def _start(self, load: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=load, name="unfreeze-ahead"))
        self._threads[-1].start()


def _import_reporting() -> None:
    for name in ("optuna.importance", "search.tracking.mirror", "search.report.formats"):
        importlib.import_module(name)
    from search.report.page import preload

    preload()


def _import_registration() -> None:
    for name in ("search.registry", "mlflow.keras"):
        importlib.import_module(name)

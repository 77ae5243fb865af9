"""What a search needs later, loaded while it waits for the engines to import TensorFlow.

MLflow, scikit-learn (for the importance of parameters) and the library that draws take some three seconds of
processor time, in which otherwise nothing would happen on one of the cores. Earlier, while Ray starts, all are busy.
"""

from __future__ import annotations

import threading


def load_ahead() -> None:
    """Begin in the background. The interpreter does not end before it is done.

    Whoever needs one of these modules meanwhile imports it as ever, and waits for what is left of it.
    """
    threading.Thread(target=_load, name="unfreeze-ahead").start()


def load_keras_ahead() -> None:
    """Begin in the background to import what registers a model, which brings TensorFlow into this process."""
    threading.Thread(target=_load_keras, name="unfreeze-ahead-keras").start()


def _load_keras() -> None:
    import search.registry  # noqa: F401, I001

    import mlflow.keras  # noqa: F401


def _load() -> None:
    import optuna.importance  # noqa: F401

    from search.report.page import ready

    ready()

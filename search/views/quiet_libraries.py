"""Silences TensorFlow, absl and Python's warnings, which would bury the output of a command."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.errors import UnfreezeError

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
    "GLOG_minloglevel": "3",
    # Ray prints these to stdout; the search has messages of its own about lost processes.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker died or was killed|killed due to memory pressure",
}
_LOGGERS = ("absl", "tensorflow", "ray", "optuna", "mlflow", "alembic")
_TAIL = 20_000
"""Bytes of native messages that are kept with a traceback."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Let libraries that are imported inside the block report errors only. Variables that the user has set win.

    TensorFlow's C++ code writes to file descriptor 2 whatever its log level is. The descriptor therefore points to a
    temporary file inside the block, while ``sys.stderr`` keeps the terminal. The end of that file is added to the
    traceback of an unexpected exception.
    """
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        if "PYTHONWARNINGS" not in os.environ:
            warnings.simplefilter("ignore")
        if _is_native_stderr():
            with _redirect_native_stderr():
                yield
        else:
            yield


def _is_native_stderr() -> bool:
    try:
        return sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False


@contextmanager
def _redirect_native_stderr() -> Iterator[None]:
    before = sys.stderr
    before.flush()  # what is buffered belongs on the terminal
    terminal = os.dup(2)
    with (
        tempfile.TemporaryFile(prefix="unfreeze-") as aside,
        os.fdopen(terminal, "w", buffering=1, encoding=before.encoding, errors="backslashreplace") as stream,
    ):
        os.dup2(aside.fileno(), 2)
        sys.stderr = stream
        try:
            yield
        except Exception as error:
            if not isinstance(error, UnfreezeError):  # an expected error explains itself
                aside.seek(max(0, aside.seek(0, os.SEEK_END) - _TAIL))
                error.add_note("native messages:\n" + aside.read().decode(errors="replace"))
            raise
        finally:
            stream.flush()
            os.dup2(terminal, 2)
            sys.stderr = before

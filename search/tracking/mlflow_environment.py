"""MLflow's environment and loggers, set so that a normal run is quiet and a dead server is noticed soon.

MLflow reads part of its environment when it is imported: import this module first.

Who runs this.
"""

from __future__ import annotations

import getpass
import logging
import os


def user_name() -> str:
    """The login name; ``unknown`` where the system knows none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


ENVIRONMENT = {
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Defaults; what the user has set stays. Two retries a request: whoever delivers has retries of its own."""

LOGGERS = ("alembic", "mlflow")


def apply_environment() -> None:
    """Put :data:`ENVIRONMENT` into the process's environment where it says nothing yet."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def quiet_loggers(verbose: bool = False) -> None:
    """Silence MLflow and Alembic, whose errors are raised too; with ``verbose`` they say what they want."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


apply_environment()

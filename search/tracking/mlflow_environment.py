"""Set MLflow's environment variables and loggers, so that a normal run is quiet and a dead server is noticed soon.

MLflow reads part of its environment when it is imported. So modules that import MLflow import this module first.
"""

from __future__ import annotations

import getpass
import logging
import os


def user_name() -> str:
    """Return the login name; ``unknown`` if the system has none, as in some containers."""
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
"""Defaults; variables that the user has set stay. Two retries per request suffice: the delivery thread retries as well.
"""

LOGGERS = ("alembic", "mlflow")


def apply_environment() -> None:
    """Set the variables of :data:`ENVIRONMENT` that are not set yet."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)


def quiet_loggers(verbose: bool = False) -> None:
    """Silence the loggers of MLflow and Alembic, whose errors are raised as well; with ``verbose`` they log."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.CRITICAL)


apply_environment()

"""Checks that the tracking server answers, and admits this client."""

from __future__ import annotations

import base64
import os
import urllib.error
import urllib.parse
import urllib.request

from search.records.finding import Finding, failed, ok
from search.records.formatting import without_secrets

TIMEOUT = 5.0
"""Seconds for a server to answer."""

API_PATH = "/api/2.0/mlflow/experiments/search?max_results=1"
"""A request that needs permission. ``/health`` would not do: the server answers it even to clients that it refuses."""


def check_tracking(uri: str | None) -> Finding:
    """Check the tracking server or database at ``uri``; None stands for the SQLite file in the storage."""
    if uri is None:
        return ok("tracking", "a SQLite file in the storage")
    if is_server(uri):
        return ask_server(uri.rstrip("/"))
    from search.tracking.client import connect
    from trainables.errors import TrackingError

    try:
        connect(uri).search_experiments(max_results=1)
    except TrackingError as error:
        return failed("tracking", str(error))
    return ok("tracking", uri)


def is_server(uri: str) -> bool:
    """Return whether ``uri`` names an MLflow server, and not a database."""
    return uri.startswith(("http://", "https://"))


def ask_server(uri: str, timeout: float = TIMEOUT) -> Finding:
    """Request one experiment, as a search would. MLflow, which takes seconds to import, is not used."""
    shown = without_secrets(uri)
    try:
        with urllib.request.urlopen(_authorized_request(uri), timeout=timeout) as answer:
            answer.read(1)
        return ok("tracking", f"{shown} answers")
    except urllib.error.HTTPError as error:
        return failed("tracking", f"{shown} {_explain_refusal(error, uri)}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return failed(
            "tracking", f"{shown} does not answer ({reason}): is it running, and reachable from this machine?"
        )


def _authorized_request(uri: str) -> urllib.request.Request:
    """Return a request with the credentials that MLflow's own client would send."""
    parts = urllib.parse.urlsplit(uri)
    # urllib would take credentials in the address for a part of the host name.
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(bare + API_PATH)
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(parts.username or "")
    word = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(parts.password or "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        login = base64.b64encode(f"{user}:{word}".encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    return request


def _explain_refusal(error: urllib.error.HTTPError, uri: str) -> str:
    body = error.read(200).decode(errors="replace")
    host = urllib.parse.urlsplit(uri).netloc.rpartition("@")[2]
    if error.code == 403 and "host" in body.lower():
        return (
            f"answers 403: it refuses requests to the name {host!r}. Start the server with --allowed-hosts "
            f"{host},localhost:* (that list takes the place of the default one)"
        )
    if error.code == 401:
        return (
            "answers 401: it asks for a login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if error.code == 403:
        return "answers 403: this account may not read experiments: check its permissions"
    if error.code == 404:
        return "answers 404: no MLflow server is at this address: check host, port and path"
    return f"answers {error.code} {error.reason}: look at the server's log"

"""Propose next steps, as commands to copy."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from search.records.formatting import without_secrets
from search.records.record import Outcome, SearchRecord


@dataclass(frozen=True)
class Step:
    """A command and its purpose."""

    purpose: str
    command: str


def next_steps(record: SearchRecord) -> list[Step]:
    """Return commands that fit the state of the search.

    They name the storage explicitly, since the reader may be in another directory.
    """
    storage = ["--storage", record.storage] if record.storage else []
    store = [*storage, *_given_option(record, "tracking_uri")]
    ledger = [*storage, *_given_option(record, "ledger")]
    runs = Step("Compare the runs in MLflow", _command("ui", *store))
    outcome = record.outcome
    if outcome is None:
        return [Step("Check the progress", _command("status", record.name, *ledger)), runs]
    if outcome.model_name is None or outcome.model_version is None:
        return [runs]
    # The report is read long after it was written: only the number of the version still names the same model then.
    model = f"models:/{outcome.model_name}/{outcome.model_version}"
    return [
        _promotion(outcome, outcome.model_name, store),
        Step("Classify images", f"{_command('predict', model, *store)} IMAGES…"),
        runs,
        Step(
            "Show it in a pull request",
            _command("report", record.name, "--format", "md", "--output", "-", *ledger),
        ),
    ]


def _promotion(outcome: Outcome, model: str, store: list[str]) -> Step:
    """Return the command for promotion, or for a dry run of it unless transfer clearly helps."""
    version = ["--version", str(outcome.model_version)]
    if outcome.verdict == "helps":
        return Step("Put the model into production", _command("promote", model, *version, *store))
    return Step(
        "Check whether it may go into production", _command("promote", model, *version, "--dry-run", *store)
    )


def _given_option(record: SearchRecord, key: str) -> list[str]:
    """Return the option that names a tracking server or a database, if the search was started with it."""
    value = record.config.get(key)
    return [f"--{key.replace('_', '-')}", value] if isinstance(value, str) else []


def _command(*words: str) -> str:
    # Names and paths may contain spaces and quotes; passwords must not appear in a page that is passed on.
    return shlex.join(["unfreeze", *map(without_secrets, words)])

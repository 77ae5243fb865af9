"""Read registered models and their versions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from search.tracking.client import is_missing
from trainables.errors import TrackingError

CHALLENGER = "challenger"
CHAMPION = "champion"

NOT_PROPOSED_TAG = "unfreeze.not_proposed"
"""Tag of a version that its search did not propose as challenger: the reason, as a clause."""


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def uri(self) -> str:
        """The address ``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.version}"


def to_version(found: Any) -> Version:
    """Convert MLflow's model version."""
    return Version(found.name, str(found.version), found.run_id or "", dict(found.tags))


def version_with_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    """Return the version that has the alias ``alias``; None if there is no such alias.

    Raises:
        TrackingError: there is no such model; the message lists the existing ones.
    """
    aliases = get_registered_model(client, name).aliases
    number = aliases.get(alias)
    return to_version(client.get_model_version(name, str(number))) if number is not None else None


def version_state(client: MlflowClient, name: str, number: str) -> str:
    """Return in a few words which aliases a version has now or, if it has none, why.

    Raises:
        TrackingError: there is no such model; the message lists the existing ones.
    """
    aliases = {alias: str(version) for alias, version in get_registered_model(client, name).aliases.items()}
    own = sorted(alias for alias, version in aliases.items() if version == number)
    if own:
        return f"alias{'es' if len(own) > 1 else ''} {' and '.join(own)}"
    try:
        reason = client.get_model_version(name, number).tags.get(NOT_PROPOSED_TAG)
    except MlflowException as error:
        if not is_missing(error):
            raise
        return "deleted from the registry"
    if reason is not None:
        return f"not proposed as challenger: {reason}"
    return f"the challenger is version {aliases[CHALLENGER]}" if CHALLENGER in aliases else "no alias"


def get_registered_model(client: MlflowClient, name: str) -> Any:
    """Return MLflow's registered model ``name``.

    Raises:
        TrackingError: there is no such model; the message lists the existing ones.
    """
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if not is_missing(error):
            raise
        known = sorted(model.name for model in client.search_registered_models(max_results=50))
        raise TrackingError(
            f"model: expected a registered model ({', '.join(known) or 'there is none yet'}), received {name!r}"
        ) from None


def ready_versions(client: MlflowClient, name: str) -> list[Any]:
    """Return MLflow's model versions of ``name`` that are ready, the newest first."""
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{check_quotable(name)}'", page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return sorted((v for v in found if v.status == "READY"), key=lambda v: -int(v.version))


def check_quotable(text: str) -> str:
    """Return ``text`` for use between single quotes in a filter.

    Raises:
        TrackingError: ``text`` contains a single quote, which MLflow's filters cannot escape.
    """
    if "'" in text:
        raise TrackingError(f"model: expected a name without quotes, received {text!r}")
    return text

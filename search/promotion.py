"""Which version is in production: ``champion`` follows ``challenger``, and goes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from search.mlflow_client import connect, speaking

# isort: split
from mlflow import MlflowClient

from search.model_versions import CHALLENGER, CHAMPION, Version, aliased, registered, to_version, versions
from search.stores import absolute_uri
from search.user import user_name
from trainables.errors import TrackingError

PREVIOUS = "unfreeze.previous_champions"
"""Tag of the registered model: versions that were champion, the latest last."""

Gate = Callable[[Version, Version | None], str | None]
"""Judges challenger and champion; the answer is why the challenger must wait, None lets it pass."""


@dataclass(frozen=True)
class Promotion:
    """The version in production now, and the one before it."""

    champion: Version
    before: Version | None
    forced: bool = False

    def __str__(self) -> str:
        return self.champion.version


def promote(
    model_name: str, tracking_uri: str, *, gate: Gate | None = None, force: bool = False
) -> Promotion:
    """Make the challenger the champion.

    Args:
        gate: may refuse; with ``force`` it is asked all the same, and overruled, which is recorded.

    Raises:
        TrackingError: no such model, no challenger, it is champion already, or the gate refuses.
    """
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with speaking(uri):
        challenger = aliased(client, model_name, CHALLENGER)
        champion = aliased(client, model_name, CHAMPION)
        if challenger is None:
            raise TrackingError(
                f"model {model_name!r} has no version with the alias {CHALLENGER!r}: "
                "run a search that registers one"
            )
        if champion is not None and champion.version == challenger.version:
            raise TrackingError(f"version {champion.version} of model {model_name!r} is the champion already")
        refusal = gate(challenger, champion) if gate else None
        if refusal and not force:
            raise TrackingError(
                f"version {challenger.version} of model {model_name!r} stays challenger: {refusal}"
            )
        history = _history(client, model_name)
        if champion is not None and history[-1:] != [champion.version]:
            client.set_registered_model_tag(model_name, PREVIOUS, " ".join([*history, champion.version]))
        _sign(client, challenger, "promoted", forced=bool(refusal))
        client.set_registered_model_alias(model_name, CHAMPION, challenger.version)
    return Promotion(challenger, champion, forced=bool(refusal))


def rollback(model_name: str, tracking_uri: str) -> Promotion:
    """Make the champion before this one the champion again.

    Raises:
        TrackingError: no such model, no champion, or none before it.
    """
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with speaking(uri):
        champion = aliased(client, model_name, CHAMPION)
        if champion is None:
            raise TrackingError(f"model {model_name!r} has no version with the alias {CHAMPION!r}")
        history = _history(client, model_name)
        ready = {str(v.version) for v in versions(client, model_name)}
        while history and (history[-1] == champion.version or history[-1] not in ready):
            history.pop()
        if not history:
            raise TrackingError(
                f"version {champion.version} of model {model_name!r} is its first champion: "
                "there is none before it to go back to"
            )
        before = to_version(client.get_model_version(model_name, history[-1]))
        _sign(client, champion, "rolled_back")
        client.set_registered_model_alias(model_name, CHAMPION, before.version)
        client.set_registered_model_tag(model_name, PREVIOUS, " ".join(history[:-1]))
    return Promotion(before, champion)


def _history(client: MlflowClient, name: str) -> list[str]:
    text: str = registered(client, name).tags.get(PREVIOUS, "")
    return text.split()


def _sign(client: MlflowClient, version: Version, deed: str, forced: bool = False) -> None:
    """Note on the version when, and by whom."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(version.name, version.version, f"unfreeze.{deed}_at", now)
    client.set_model_version_tag(version.name, version.version, f"unfreeze.{deed}_by", user_name())
    if deed == "promoted":
        client.set_model_version_tag(version.name, version.version, "unfreeze.forced", str(forced).lower())

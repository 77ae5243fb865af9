"""Which version is in production: ``champion`` follows ``challenger`` if the gate lets it, and goes back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from search.tracking.client import connect, translate_errors

# isort: split
from mlflow import MlflowClient

from search.fault_injection import failpoint
from search.records.stats.forgetting import compare_old_task
from search.registry.downloads import download_predictions
from search.registry.front_versions import FrontVersion, front_versions
from search.registry.gate import MARGIN, Candidate, GateDecision, apply_forgetting_limit, decide
from search.registry.model_lock import BakeryLock
from search.registry.promotion_history import (
    PromotionEvent,
    decision_numbers,
    event_to_tag,
    events_from_tags,
    next_event,
)
from search.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    get_registered_model,
    ready_versions,
    to_version,
    version_with_alias,
)
from search.tracking.mlflow_environment import user_name
from search.tracking.stores import absolute_uri
from search.tracking.tags import INPUT_FORM_TAG, footprint_of, forgotten_of
from trainables.errors import TrackingError, UsageError

PREVIOUS_CHAMPIONS = "unfreeze.previous_champions"
"""Tag of the registered model: versions that were champion, the latest last."""


@dataclass(frozen=True)
class PromotionComparison:
    """Challenger and champion as they were looked at, and what the gate decides.

    ``proposed`` has the alias ``challenger``; it is another version than the challenger where a person has chosen
    another point of the front.
    """

    challenger: Version
    champion: Version | None
    gate: GateDecision
    proposed: Version | None = None


@dataclass(frozen=True)
class Promotion:
    """The version in production now, the one before it, and why it moved; a rollback has no judgement."""

    champion: Version
    before: Version | None
    forced: bool = False
    gate: GateDecision | None = None

    def __str__(self) -> str:
        return self.champion.version


class PromotionRefused(TrackingError):
    """The gate keeps the challenger out; ``comparison`` says who was compared, and how it went."""

    def __init__(self, comparison: PromotionComparison) -> None:
        new = comparison.challenger
        super().__init__(
            f"version {new.version} of model {new.name!r} stays challenger: {comparison.gate.reason}. "
            "--force promotes it all the same."
        )
        self.comparison = comparison


class AmbiguousChallenger(UsageError):
    """The challenger is one of several ``points`` of a front: somebody has to say which; ``champion`` is a version."""

    def __init__(self, points: tuple[FrontVersion, ...], champion: str | None, trial: int | None) -> None:
        known = ", ".join(str(point.trial) for point in points)
        received = "none" if trial is None else f"{trial}"
        super().__init__(
            f"trial: expected one of the points of the front, by the number of its trial ({known}), received {received}"
        )
        self.points, self.champion, self.received = points, champion, trial


def judge(
    model_name: str,
    tracking_uri: str,
    *,
    margin: float = MARGIN,
    trial: int | None = None,
    max_forgetting: float | None = None,
) -> PromotionComparison:
    """What :func:`promote` would decide, changing nothing.

    Raises:
        WhichPoint: the challenger is one of several points of a front, and ``trial`` is none of them.
        TrackingError: no such model, no challenger, or it is champion already.
    """
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with translate_errors(uri):
        proposed, champion = _challenger_and_champion(client, model_name)
        challenger = _choose_challenger(client, proposed, champion, trial)
    new = _candidate(challenger, uri)
    old = _candidate(champion, uri) if champion is not None else None
    judgement = decide(new, old, margin)
    if new.answers is not None and new.answers.old_task is not None:
        judgement = replace(judgement, old_task=compare_old_task(new.answers.old_task, new.answers.chosen))
    if max_forgetting is not None:
        judgement = apply_forgetting_limit(judgement, forgotten_of(challenger.tags), max_forgetting)
    return PromotionComparison(challenger, champion, judgement, proposed)


def promote(
    model_name: str,
    tracking_uri: str,
    *,
    margin: float = MARGIN,
    force: bool = False,
    trial: int | None = None,
    max_forgetting: float | None = None,
) -> Promotion:
    """Make the challenger the champion, if it passes the gate.

    Args:
        margin: accuracy that the challenger may lack if it is cheaper to serve, as a fraction.
        force: promote whatever the gate says; that it was overruled is recorded.
        trial: which point of the front, where a search with several objectives has brought one.
        max_forgetting: accuracy on an old task that may be lost, as a fraction, by the interval of what is lost; None:
            whatever.

    Raises:
        WhichPoint: the challenger is one of several points of a front, and ``trial`` is none of them.
        PromotionRefused: the gate keeps it out.
        TrackingError: no such model, no challenger, it is champion already, or somebody else moved an alias
            meanwhile.
    """
    comparison = judge(model_name, tracking_uri, margin=margin, trial=trial, max_forgetting=max_forgetting)
    judgement = comparison.gate
    forced = not judgement.passes
    if forced and not force:
        raise PromotionRefused(comparison)
    with _locked_model(model_name, tracking_uri) as (client, turn):
        challenger, champion = comparison.challenger, comparison.champion
        _check_unchanged(client, comparison.proposed, champion)
        if comparison.proposed is not None and comparison.proposed.version != challenger.version:
            client.set_registered_model_alias(model_name, CHALLENGER, challenger.version)
        stack = _previous(client, model_name)
        if champion is not None and stack[-1:] != [champion.version]:
            client.set_registered_model_tag(
                model_name, PREVIOUS_CHAMPIONS, " ".join([*stack, champion.version])
            )
        event = replace(
            next_event(_complete_last_event(client, model_name), "promoted", challenger, champion),
            decision=judgement.decision,
            reason=judgement.reason,
            forced=forced,
            numbers=decision_numbers(judgement),
        )
        _move_champion(client, model_name, turn, event)
        _tag_version(client, challenger, "promoted", forced=forced)
    return Promotion(challenger, champion, forced, judgement)


def rollback(model_name: str, tracking_uri: str) -> Promotion:
    """Make the champion before this one the champion again.

    Raises:
        TrackingError: no such model, no champion, or none before it.
    """
    uri = absolute_uri(tracking_uri)
    with translate_errors(uri):
        champion = version_with_alias(connect(uri), model_name, CHAMPION)
    if champion is None:
        raise TrackingError(f"model {model_name!r} has no version with the alias {CHAMPION!r}")
    with _locked_model(model_name, tracking_uri) as (client, turn):
        _check_unchanged(client, None, champion)
        stack = _previous(client, model_name)
        ready = {str(v.version) for v in ready_versions(client, model_name)}
        while stack and (stack[-1] == champion.version or stack[-1] not in ready):
            stack.pop()
        if not stack:
            raise TrackingError(
                f"version {champion.version} of model {model_name!r} is its first champion: "
                "there is none before it to go back to"
            )
        before = to_version(client.get_model_version(model_name, stack[-1]))
        event = next_event(_complete_last_event(client, model_name), "rolled back", before, champion)
        _move_champion(client, model_name, turn, event)
        client.set_registered_model_tag(model_name, PREVIOUS_CHAMPIONS, " ".join(stack[:-1]))
        _tag_version(client, champion, "rolled_back")
    return Promotion(before, champion)


def history(model_name: str, tracking_uri: str) -> tuple[PromotionEvent, ...]:
    """Every change of the champion that went through this program, the oldest first.

    Raises:
        TrackingError: no such model.
    """
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with translate_errors(uri):
        return _events(client, model_name)


class _ModelTags:
    """The tags of one registered model."""

    def __init__(self, client: MlflowClient, name: str) -> None:
        self._client, self._name = client, name

    def read(self) -> dict[str, str]:
        return dict(get_registered_model(self._client, self._name).tags)

    def write(self, key: str, value: str) -> None:
        self._client.set_registered_model_tag(self._name, key, value)

    def erase(self, key: str) -> None:
        self._client.delete_registered_model_tag(self._name, key)


@contextmanager
def _locked_model(model_name: str, tracking_uri: str) -> Iterator[tuple[MlflowClient, BakeryLock]]:
    """Change the model's aliases while nobody else does."""
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with translate_errors(uri):
        get_registered_model(client, model_name)
        turn = BakeryLock(_ModelTags(client, model_name), model_name)
        with turn.hold():
            yield client, turn


def _challenger_and_champion(client: MlflowClient, name: str) -> tuple[Version, Version | None]:
    challenger = version_with_alias(client, name, CHALLENGER)
    champion = version_with_alias(client, name, CHAMPION)
    if challenger is None:
        raise TrackingError(
            f"model {name!r} has no version with the alias {CHALLENGER!r}: run a search that registers one"
        )
    return challenger, champion


def _choose_challenger(
    client: MlflowClient, proposed: Version, champion: Version | None, trial: int | None
) -> Version:
    """The challenger, or the point of its front that came from ``trial``."""
    name = proposed.name
    points = front_versions(proposed, map(to_version, ready_versions(client, name)))
    chosen = {point.trial: point.version for point in points}
    if trial is None and len(points) <= 1:
        version = proposed
    elif trial in chosen:
        version = chosen[trial]
    elif points:
        raise AmbiguousChallenger(points, champion.version if champion else None, trial)
    else:
        raise UsageError(
            f"trial: expected a model with several points of a front to choose from, received {trial} for {name!r}, "
            f"whose challenger, version {proposed.version}, is none"
        )
    if champion is not None and champion.version == version.version:
        raise TrackingError(f"version {champion.version} of model {name!r} is the champion already")
    return version


def _candidate(version: Version, tracking_uri: str) -> Candidate:
    return Candidate(
        version.version,
        download_predictions(version, tracking_uri),
        version.tags.get(INPUT_FORM_TAG, ""),
        footprint_of(version.tags),
    )


def _check_unchanged(client: MlflowClient, challenger: Version | None, champion: Version | None) -> None:
    """Refuse to go on from a state that is no more; ``challenger`` is None where it does not matter."""
    some = challenger or champion
    if some is None:
        raise ValueError("expected a challenger or a champion")
    aliases = get_registered_model(client, some.name).aliases
    now = {alias: str(aliases.get(alias)) for alias in (CHALLENGER, CHAMPION)}
    changed = [
        f"version {now[alias]} is now {alias}" if alias in aliases else f"there is no {alias} any more"
        for alias, version in ((CHALLENGER, challenger), (CHAMPION, champion))
        if (alias == CHAMPION or version) and now[alias] != str(version and version.version)
    ]
    if not changed:
        return
    last = _events(client, some.name)[-1:]
    by = f" ({last[0]})" if last else ""
    raise TrackingError(
        f"model {some.name!r} was changed by another command at the same time: {' and '.join(changed)}{by}. "
        "Nothing was done; look again."
    )


def _move_champion(client: MlflowClient, name: str, turn: BakeryLock, event: PromotionEvent) -> None:
    """Note the event, move the alias, and note that it has moved."""
    client.set_registered_model_tag(name, event.key, event_to_tag(event))
    turn.verify_held()
    client.set_registered_model_alias(name, CHAMPION, event.version)
    failpoint("champion-moved")
    client.set_registered_model_tag(name, event.key, event_to_tag(replace(event, done=True)))


def _events(client: MlflowClient, name: str) -> tuple[PromotionEvent, ...]:
    model = get_registered_model(client, name)
    champion = model.aliases.get(CHAMPION)
    return events_from_tags(model.tags, str(champion) if champion is not None else None)


def _complete_last_event(client: MlflowClient, name: str) -> tuple[PromotionEvent, ...]:
    """The events, after the last one has been noted as done if whoever did it could not say so any more."""
    known = _events(client, name)
    if known:
        client.set_registered_model_tag(name, known[-1].key, event_to_tag(known[-1]))
    return known


def _previous(client: MlflowClient, name: str) -> list[str]:
    text: str = get_registered_model(client, name).tags.get(PREVIOUS_CHAMPIONS, "")
    return text.split()


def _tag_version(client: MlflowClient, version: Version, deed: str, forced: bool = False) -> None:
    """Note on the version when, and by whom."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(version.name, version.version, f"unfreeze.{deed}_at", now)
    client.set_model_version_tag(version.name, version.version, f"unfreeze.{deed}_by", user_name())
    if deed == "promoted":
        client.set_model_version_tag(version.name, version.version, "unfreeze.forced", str(forced).lower())

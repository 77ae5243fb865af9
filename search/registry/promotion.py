"""Promote the challenger to champion if it passes the gate, and roll back to the previous champion.

The version with the alias ``champion`` is in production. ``challenger`` is the version that the latest search
proposes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from search.tracking.client import connect, is_missing, translate_errors

# isort: split
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from search.fault_injection import failpoint
from search.records.stats.forgetting import compare_old_task
from search.registry.downloads import download_candidate
from search.registry.front_versions import FrontVersion, front_versions
from search.registry.gate import MARGIN, GateDecision, apply_forgetting_limit, decide_promotion
from search.registry.model_lock import BakeryLock, locked_aliases
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
    NOT_PROPOSED_TAG,
    Version,
    get_registered_model,
    ready_versions,
    to_version,
    version_with_alias,
)
from search.tracking.mlflow_environment import user_name
from search.tracking.stores import absolute_uri
from search.tracking.tags import forgotten_of
from trainables.errors import TrackingError, UsageError

PREVIOUS_CHAMPIONS = "unfreeze.previous_champions"
"""Tag of the registered model: versions that were champion before, the latest last."""


@dataclass(frozen=True)
class PromotionComparison:
    """Challenger and champion as they were compared, with the decision of the gate.

    Attributes:
        challenger: the version to promote.
        champion: the version in production, if there is one.
        judgement: the decision of the gate.
        proposed: the version with the alias ``challenger``. It differs from ``challenger`` if the user chose another
            point of the Pareto front; None if the user chose a version by its number.
    """

    challenger: Version
    champion: Version | None
    judgement: GateDecision
    proposed: Version | None = None


@dataclass(frozen=True)
class Promotion:
    """A change of the champion: the new one, the one before it, and the gate's decision (None for a rollback)."""

    champion: Version
    before: Version | None
    forced: bool = False
    judgement: GateDecision | None = None

    def __str__(self) -> str:
        return self.champion.version


class PromotionRefused(TrackingError):
    """The gate refuses the challenger; ``comparison`` holds the details."""

    def __init__(self, comparison: PromotionComparison) -> None:
        new = comparison.challenger
        outcome = "is not promoted" if comparison.proposed is None else "stays challenger"
        super().__init__(
            f"version {new.version} of model {new.name!r} {outcome}: {comparison.judgement.reason}. "
            "--force promotes it anyway."
        )
        self.comparison = comparison


class AmbiguousChallenger(UsageError):
    """The challenger is one of several ``points`` of a Pareto front, and the user has to choose one.

    Attributes:
        points: the versions to choose from.
        champion: number of the version in production, if there is one.
        received: the trial that the user chose, if any.
    """

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
    version: int | None = None,
    max_forgetting: float | None = None,
) -> PromotionComparison:
    """Return what :func:`promote` would decide, without any change.

    Raises:
        AmbiguousChallenger: the challenger is one of several points of a front, and ``trial`` is none of them.
        UsageError: both ``trial`` and ``version`` are given, or ``trial`` without a front to choose from.
        TrackingError: there is no such model, version or challenger, the version is not ready, or it is already
            champion.
    """
    if trial is not None and version is not None:
        raise UsageError(
            f"version: expected either a trial or a version, received trial {trial} and version {version}"
        )
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with translate_errors(uri):
        champion = version_with_alias(client, model_name, CHAMPION)
        if version is None:
            proposed = _proposed_version(client, model_name, champion)
            challenger = _choose_challenger(client, proposed, champion, trial)
        else:
            proposed, challenger = None, _version_by_number(client, model_name, version)
        if champion is not None and champion.version == challenger.version:
            raise TrackingError(_champion_already(client, champion))
    new = download_candidate(challenger, uri)
    old = download_candidate(champion, uri) if champion is not None else None
    judgement = decide_promotion(new, old, margin)
    if new.predictions is not None and new.predictions.old_task is not None:
        judgement = replace(
            judgement, old_task=compare_old_task(new.predictions.old_task, new.predictions.chosen)
        )
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
    version: int | None = None,
    max_forgetting: float | None = None,
) -> Promotion:
    """Make the challenger the champion, if it passes the gate.

    Args:
        model_name: name of the registered model.
        tracking_uri: the MLflow store.
        margin: accuracy that the challenger may lack if it is cheaper to serve, as a fraction.
        force: promote in spite of the gate; the override is recorded.
        trial: which point of the Pareto front, for a search with several objectives.
        version: number of the version to promote in place of the one with the alias ``challenger``. The alias stays
            where it is.
        max_forgetting: the largest accepted loss of accuracy on an old task, as a fraction, tested by its interval;
            None accepts any loss.

    Raises:
        AmbiguousChallenger: the challenger is one of several points of a front, and ``trial`` is none of them.
        UsageError: both ``trial`` and ``version`` are given, or ``trial`` without a front to choose from.
        PromotionRefused: the gate refuses the challenger.
        TrackingError: there is no such model, version or challenger, the version is not ready or already champion, or
            another process moved an alias in the meantime.
    """
    comparison = judge(
        model_name, tracking_uri, margin=margin, trial=trial, version=version, max_forgetting=max_forgetting
    )
    judgement = comparison.judgement
    forced = not judgement.passes
    if forced and not force:
        raise PromotionRefused(comparison)
    with _locked_model(model_name, tracking_uri) as (client, lock):
        challenger, champion = comparison.challenger, comparison.champion
        # The comparison was made without the lock, because its downloads may take longer than a process may
        # hold it.
        _check_unchanged(client, model_name, comparison.proposed, champion)
        # Checked again before anything is written: it may have been deleted since the comparison.
        _version_by_number(client, model_name, int(challenger.version))
        # The user chose another point of the front: the alias follows, so that a later command sees the same
        # challenger.
        if comparison.proposed is not None and comparison.proposed.version != challenger.version:
            client.set_registered_model_alias(model_name, CHALLENGER, challenger.version)
        # The champion is put on the stack before the alias moves, so that a rollback finds it whenever the
        # process dies.
        stack = _previous(client, model_name)
        # A repeated command after a crash has already put the champion on the stack.
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
        _move_champion(client, model_name, lock, event)
        _tag_version(client, challenger, "promoted", forced=forced)
    return Promotion(challenger, champion, forced, judgement)


def rollback(model_name: str, tracking_uri: str) -> Promotion:
    """Make the previous champion the champion again.

    Raises:
        TrackingError: there is no such model, no champion, or none before it.
    """
    uri = absolute_uri(tracking_uri)
    with translate_errors(uri):
        champion = version_with_alias(connect(uri), model_name, CHAMPION)
    if champion is None:
        raise TrackingError(f"model {model_name!r} has no version with the alias {CHAMPION!r}")
    with _locked_model(model_name, tracking_uri) as (client, lock):
        _check_unchanged(client, model_name, None, champion)
        stack = _previous(client, model_name)
        ready = {str(v.version) for v in ready_versions(client, model_name)}
        # Skip versions that were deleted since, and the champion itself, which a crash may have left on the stack.
        while stack and (stack[-1] == champion.version or stack[-1] not in ready):
            stack.pop()
        if not stack:
            raise TrackingError(
                f"version {champion.version} of model {model_name!r} is its first champion: "
                "there is no earlier one to roll back to"
            )
        before = to_version(client.get_model_version(model_name, stack[-1]))
        event = next_event(_complete_last_event(client, model_name), "rolled back", before, champion)
        _move_champion(client, model_name, lock, event)
        # The stack is shortened after the alias has moved. If the process dies in between, the new champion
        # is still on the stack, where the loop above skips it.
        client.set_registered_model_tag(model_name, PREVIOUS_CHAMPIONS, " ".join(stack[:-1]))
        _tag_version(client, champion, "rolled_back")
    return Promotion(before, champion)


def history(model_name: str, tracking_uri: str) -> tuple[PromotionEvent, ...]:
    """Return every change of the champion that was made through this program, the oldest first.

    Raises:
        TrackingError: there is no such model.
    """
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with translate_errors(uri):
        return _events(client, model_name)


@contextmanager
def _locked_model(model_name: str, tracking_uri: str) -> Iterator[tuple[MlflowClient, BakeryLock]]:
    """Lock the model's aliases against other processes for the context."""
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    with translate_errors(uri), locked_aliases(client, model_name) as lock:
        yield client, lock


def _proposed_version(client: MlflowClient, name: str, champion: Version | None) -> Version:
    """Return the version with the alias ``challenger``."""
    challenger = version_with_alias(client, name, CHALLENGER)
    if challenger is None:
        raise TrackingError(
            f"model {name!r} has no version with the alias {CHALLENGER!r}: run a search that registers one"
            f"{_not_proposed_hint(client, name, champion)}"
        )
    return challenger


def _version_by_number(client: MlflowClient, name: str, number: int) -> Version:
    """Return the version ``number`` of a model, if it is ready.

    Raises:
        TrackingError: there is no such model or version, or the version is not ready.
    """
    get_registered_model(client, name)
    try:
        found = client.get_model_version(name, str(number))
    except MlflowException as error:
        if not is_missing(error):
            raise
        known = ", ".join(str(one.version) for one in reversed(ready_versions(client, name)))
        raise TrackingError(
            f"version: expected a version of model {name!r} (it has {known or 'none'}), received {number}"
        ) from None
    if found.status != "READY":
        why = f": {found.status_message}" if found.status_message else ""
        raise TrackingError(
            f"version {number} of model {name!r} is not ready: expected the status READY, received {found.status}{why}"
        )
    return to_version(found)


def _champion_already(client: MlflowClient, champion: Version) -> str:
    hint = _not_proposed_hint(client, champion.name, champion)
    return f"version {champion.version} of model {champion.name!r} is the champion already{hint}"


def _not_proposed_hint(client: MlflowClient, name: str, champion: Version | None) -> str:
    """Return a clause about the newest version that its search did not propose; empty if there is none."""
    newest = next(iter(ready_versions(client, name)), None)
    if (
        newest is None
        or NOT_PROPOSED_TAG not in newest.tags
        or (champion and newest.version == champion.version)
    ):
        return ""
    return (
        f". The newest version, {newest.version}, was not proposed: {newest.tags[NOT_PROPOSED_TAG]}. "
        f"--version {newest.version} compares and promotes it"
    )


def _choose_challenger(
    client: MlflowClient, proposed: Version, champion: Version | None, trial: int | None
) -> Version:
    """Return the proposed version, or the point of its front that came from ``trial``."""
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
            f"trial: expected a model whose challenger is one of several points of a front, received {trial} for "
            f"{name!r}, whose challenger, version {proposed.version}, is not"
        )
    return version


def _check_unchanged(
    client: MlflowClient, name: str, challenger: Version | None, champion: Version | None
) -> None:
    """Refuse to continue if an alias has moved since the comparison; ``challenger`` is None if it does not matter."""
    aliases = get_registered_model(client, name).aliases
    now = {alias: str(aliases.get(alias)) for alias in (CHALLENGER, CHAMPION)}
    changed = [
        f"version {now[alias]} is now {alias}" if alias in aliases else f"there is no {alias} anymore"
        for alias, version in ((CHALLENGER, challenger), (CHAMPION, champion))
        if (alias == CHAMPION or version) and now[alias] != str(version and version.version)
    ]
    if not changed:
        return
    last = _events(client, name)[-1:]
    by = f" ({last[0]})" if last else ""
    raise TrackingError(
        f"model {name!r} was changed by another command at the same time: {' and '.join(changed)}{by}. "
        "Nothing was changed; compare the versions again."
    )


def _move_champion(client: MlflowClient, name: str, lock: BakeryLock, event: PromotionEvent) -> None:
    """Record the event, move the alias, and record that it has moved."""
    # The event is recorded before the alias moves. If the process dies in between, the history shows an event that is
    # not done; if it dies after the move, events_from_tags() recognises the event as done by the alias.
    client.set_registered_model_tag(name, event.key, event_to_tag(event))
    lock.verify_held()
    client.set_registered_model_alias(name, CHAMPION, event.version)
    failpoint("champion-moved")
    client.set_registered_model_tag(name, event.key, event_to_tag(replace(event, done=True)))


def _events(client: MlflowClient, name: str) -> tuple[PromotionEvent, ...]:
    model = get_registered_model(client, name)
    champion = model.aliases.get(CHAMPION)
    return events_from_tags(model.tags, str(champion) if champion is not None else None)


def _complete_last_event(client: MlflowClient, name: str) -> tuple[PromotionEvent, ...]:
    """Return the events, after recording that the last one was completed if its process died before it could."""
    known = _events(client, name)
    if known:
        client.set_registered_model_tag(name, known[-1].key, event_to_tag(known[-1]))
    return known


def _previous(client: MlflowClient, name: str) -> list[str]:
    text: str = get_registered_model(client, name).tags.get(PREVIOUS_CHAMPIONS, "")
    return text.split()


def _tag_version(client: MlflowClient, version: Version, deed: str, forced: bool = False) -> None:
    """Record on the version who promoted it or rolled it back, and when."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    client.set_model_version_tag(version.name, version.version, f"unfreeze.{deed}_at", now)
    client.set_model_version_tag(version.name, version.version, f"unfreeze.{deed}_by", user_name())
    if deed == "promoted":
        client.set_model_version_tag(version.name, version.version, "unfreeze.forced", str(forced).lower())

"""Record in a version's tags which point of which Pareto front it is, so that ``promote`` can offer the points."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.records.metrics import METRICS
from search.records.record import SearchRecord

if TYPE_CHECKING:
    from search.registry.versions import Version

OBJECTIVES_TAG = "unfreeze.objectives"
"""JSON: the value of each objective in the search's trial, by name, the first objective first."""

FRONT_TAG = "unfreeze.front"
"""Identifies the versions that were confirmed together: they all have the same value."""

STARTED_TAG = "unfreeze.started"
"""When the search started. It distinguishes the search from another one of the same name."""


@dataclass(frozen=True)
class FrontVersion:
    """A model version that is a point of a Pareto front, with its trial and the values of the objectives."""

    version: Version
    trial: int
    values: Mapping[str, float]


def front_tags(record: SearchRecord, trials: Sequence[int]) -> dict[str, str]:
    """Return the tags of the version that ``record.outcome`` becomes; empty in a search with one objective.

    Args:
        record: the search.
        trials: numbers of the trials that were confirmed together.
    """
    outcome = record.outcome
    if not record.objectives or outcome is None:
        return {}
    values = next(trial.objectives for trial in record.trials if trial.number == outcome.trial)
    began = record.started.isoformat() if record.started else ""
    front = f"{record.name} {began} {sorted(trials)}"
    return {
        STARTED_TAG: began,
        OBJECTIVES_TAG: json.dumps(dict(values)),
        FRONT_TAG: hashlib.sha256(front.encode()).hexdigest()[:16],
    }


def same_search(first: Version, second: Version) -> bool:
    """Return whether both versions are points of Pareto fronts of one search, at the same or at different times."""
    same = all(first.tags.get(key) == second.tags.get(key) for key in ("unfreeze.search", STARTED_TAG))
    return same and FRONT_TAG in first.tags and FRONT_TAG in second.tags


def front_versions(point: Version, versions: Iterable[Version]) -> tuple[FrontVersion, ...]:
    """Return those of ``versions`` that are on the same front as ``point``, ordered by the first objective.

    The result is empty or ``point`` alone if the version is on no front or its tags cannot be read: there is nothing
    to choose then.
    """
    together = [v for v in versions if v.version == point.version or _same_front(point, v)]
    known = [found for version in together if (found := to_front_version(version)) is not None]
    # A search that was continued may have registered a trial twice: the newest version counts.
    newest = {found.trial: found for found in sorted(known, key=lambda f: int(f.version.version))}
    return tuple(sorted(newest.values(), key=_rank_key))


def to_front_version(version: Version) -> FrontVersion | None:
    """Read the tags of a version; None if it is no point of a front."""
    try:
        values = {str(k): float(v) for k, v in json.loads(version.tags[OBJECTIVES_TAG]).items()}
        return FrontVersion(version, int(version.tags["unfreeze.trial"]), values)
    # Tags can be edited by hand; a version with damaged tags counts as one without a front.
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _same_front(first: Version, second: Version) -> bool:
    return same_search(first, second) and first.tags[FRONT_TAG] == second.tags[FRONT_TAG]


def _rank_key(found: FrontVersion) -> tuple[float, int]:
    name, value = next(iter(found.values.items()))
    # A newer version may have registered the model with an objective that this one does not know.
    maximized = name in METRICS and METRICS[name].direction == "maximize"
    return (-value if maximized else value), found.trial

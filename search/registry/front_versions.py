"""What a model version's tags say of the front that it is a point of, so that promotion can ask which point."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.records.record import SearchRecord

if TYPE_CHECKING:
    from search.registry.versions import Version

OBJECTIVES_TAG = "unfreeze.objectives"
"""JSON: the value of each objective in the search's trial, by name, the first objective first."""

FRONT_TAG = "unfreeze.front"
"""The same for all versions that were confirmed together."""

STARTED_TAG = "unfreeze.started"
"""When the search began: what tells it from another one of its name."""


@dataclass(frozen=True)
class FrontVersion:
    """A version that is a point of a front: of which trial, and the objectives' values there."""

    version: Version
    trial: int
    values: Mapping[str, float]


def front_tags(record: SearchRecord, trials: Sequence[int]) -> dict[str, str]:
    """Tags of the version that ``record.outcome`` becomes; ``trials`` are confirmed together. None of one objective."""
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
    """Whether both are points of fronts, maybe of different moments, of one search."""
    same = all(first.tags.get(key) == second.tags.get(key) for key in ("unfreeze.search", STARTED_TAG))
    return same and FRONT_TAG in first.tags and FRONT_TAG in second.tags


def front_versions(point: Version, versions: Iterable[Version]) -> tuple[FrontVersion, ...]:
    """Those of ``versions`` that are on the same front as ``point``, in the order of their trials' first objective.

    ``point`` alone where it is on none, or where that can't be read: then there is nothing to choose.
    """
    together = [v for v in versions if v.version == point.version or _same_front(point, v)]
    known = [found for version in together if (found := to_front_version(version)) is not None]
    newest = {found.trial: found for found in sorted(known, key=lambda f: int(f.version.version))}
    return tuple(sorted(newest.values(), key=_rank_key))


def to_front_version(version: Version) -> FrontVersion | None:
    """What the tags of a version say; None if it is no point of a front."""
    try:
        values = {str(k): float(v) for k, v in json.loads(version.tags[OBJECTIVES_TAG]).items()}
        return FrontVersion(version, int(version.tags["unfreeze.trial"]), values)
    except (KeyError, ValueError, TypeError, AttributeError):
        return None


def _same_front(first: Version, second: Version) -> bool:
    return same_search(first, second) and first.tags[FRONT_TAG] == second.tags[FRONT_TAG]


def _rank_key(found: FrontVersion) -> tuple[float, int]:
    from search.records.metrics import OBJECTIVES as KNOWN

    name, value = next(iter(found.values.items()))
    return (-value if KNOWN.get(name) == "maximize" else value), found.trial

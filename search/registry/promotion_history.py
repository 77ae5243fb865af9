"""Record every change of the champion, with its reason, in tags of the registered model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from search.registry.gate import MAJORITY_BASELINE, SCRATCH_BASELINE, Comparison, GateDecision
from search.registry.versions import Version
from search.tracking.mlflow_environment import user_name

_NAMES = {SCRATCH_BASELINE: "scratch", MAJORITY_BASELINE: "majority"}

Number = float | int | str


def decision_numbers(judgement: GateDecision) -> dict[str, Number]:
    """Return the numbers behind a decision, by name.

    Accuracies and gains are fractions, sizes are in bytes, latencies in milliseconds.
    """
    found: dict[str, Number] = {"margin": judgement.margin}
    if judgement.accuracy is not None:
        found |= {
            "images": judgement.images,
            "seeds": judgement.seeds,
            "accuracy": round(judgement.accuracy, 6),
        }
    for other in judgement.comparisons:
        found |= _compared(_NAMES.get(other.other, "champion"), other)
    if (old := judgement.old_task) is not None:
        found |= {
            "old_images": old.images,
            "old_accuracy_before": round(old.before, 6),
            "old_accuracy": round(old.after, 6),
            "old_gain": round(old.gain.estimate, 6),
            "old_gain_low": round(old.gain.low, 6),
            "old_gain_high": round(old.gain.high, 6),
            "old_bootstrap_low": round(old.bootstrap.low, 6),
            "old_bootstrap_high": round(old.bootstrap.high, 6),
            "old_mcnemar_p": float(f"{old.served.p_value:.4g}"),
        }
    for name, footprint in zip(("challenger", "champion"), judgement.footprints, strict=True):
        if footprint is not None:
            found |= {
                f"{name}_bytes": footprint.file_bytes,
                f"{name}_latency_ms": round(footprint.latency.median, 4),
                f"{name}_batch_latency_ms": round(footprint.batch_latency.median, 4),
            }
    return found


def _compared(name: str, other: Comparison) -> dict[str, Number]:
    values: dict[str, Number] = {
        f"{name}_accuracy": round(other.accuracy, 6),
        f"{name}_seeds": other.seeds,
        f"{name}_gain": round(other.gain.estimate, 6),
        f"{name}_gain_low": round(other.gain.low, 6),
        f"{name}_gain_high": round(other.gain.high, 6),
        f"{name}_bootstrap_low": round(other.bootstrap.low, 6),
        f"{name}_bootstrap_high": round(other.bootstrap.high, 6),
    }
    if other.served is not None:
        values |= {
            "only_challenger_right": other.served.first_only,
            "only_champion_right": other.served.second_only,
            "mcnemar_p": float(f"{other.served.p_value:.4g}"),
        }
    return values


Kind = Literal["promoted", "rolled back"]

_PREFIX = "unfreeze.event."
_MAX_TEXT_LENGTH = 1000
"""Maximum length of a text. A tag of a registered model holds 5,000 characters in all."""


@dataclass(frozen=True)
class PromotionEvent:
    """One change of the champion.

    Attributes:
        number: number of the event, from 1.
        kind: what was done.
        version: the new champion.
        before: the previous champion, if there was one.
        when: time in UTC, by the clock of the process that made the change.
        by: login name of the user.
        search: the search from which the version comes.
        trial: number of its trial.
        decision: decision of the gate (:data:`search.registry.gate.Decision`); None for a rollback.
        reason: reason of the gate.
        forced: whether the user overruled the gate.
        numbers: accuracies, gains and costs on which the decision is based, by name.
        done: whether the alias has moved; False for a moment, or if the process died in between.
    """

    number: int
    kind: Kind
    version: str
    before: str | None
    when: datetime
    by: str = field(default_factory=user_name)
    search: str | None = None
    trial: int | None = None
    decision: str | None = None
    reason: str = ""
    forced: bool = False
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    done: bool = False

    @property
    def key(self) -> str:
        """The tag that holds the event."""
        return f"{_PREFIX}{self.number:06d}"

    def __str__(self) -> str:
        words = "promoted" if self.kind == "promoted" else "restored"
        return f"version {self.version} {words} by {self.by} on {self.when:%Y-%m-%d at %H:%M} UTC"

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON values."""
        return {**asdict(self), "when": self.when.isoformat(timespec="seconds")}


def event_to_tag(event: PromotionEvent) -> str:
    """Return the value of the event's tag."""
    short = replace(event, reason=shortened(event.reason), by=shortened(event.by, 100))
    return json.dumps(short.to_json(), ensure_ascii=False, separators=(",", ":"))


def events_from_tags(tags: Mapping[str, str], champion: str | None) -> tuple[PromotionEvent, ...]:
    """Read the events in a registered model's tags, the oldest first.

    Args:
        tags: all tags of the model.
        champion: the version that has the alias now. It shows whether the last event was completed.
    """
    found = [_event(value) for key, value in sorted(tags.items()) if key.startswith(_PREFIX)]
    known = [event for event in found if event is not None]
    # The process died after it had moved the alias and before it could record that.
    if known and not known[-1].done and known[-1].version == champion:
        known[-1] = replace(known[-1], done=True)
    return tuple(known)


def next_event(
    known: tuple[PromotionEvent, ...], kind: Kind, version: Version, before: Version | None
) -> PromotionEvent:
    """Return the event that is about to happen: ``version`` replaces ``before``."""
    trial = version.tags.get("unfreeze.trial", "")
    return PromotionEvent(
        number=known[-1].number + 1 if known else 1,
        kind=kind,
        version=version.version,
        before=before.version if before else None,
        when=datetime.now(UTC),
        search=version.tags.get("unfreeze.search"),
        trial=int(trial) if trial.isdecimal() else None,
    )


def shortened(text: str, length: int = _MAX_TEXT_LENGTH) -> str:
    """Return ``text``, cut with an ellipsis if it is too long."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _event(value: str) -> PromotionEvent | None:
    """Parse a tag; None if somebody has overwritten it with something else."""
    try:
        fields = json.loads(value)
        return PromotionEvent(**{**fields, "when": datetime.fromisoformat(fields["when"])})
    except (ValueError, TypeError, KeyError):
        return None

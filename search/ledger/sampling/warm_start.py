"""``--warm-start NAME``: what earlier searches found, in the parameters of this one.

The best configurations of the earlier searches are tried first, a few of them: at most three, and no more than a tenth
of the trials. What is made of the others is :mod:`search.ledger.sampling.warm_start_prior`'s. Which earlier
search comes first is a matter of
how alike the tasks are (:func:`task_similarity`), by what is known of them without looking at an image.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.distributions import IntDistribution

from search.config.choices import ALL_METHODS
from search.config.parameters import BACKBONE, DEPTH
from search.config.space import Space
from search.ledger.sampling.tpe import depth_to_fraction, fraction_to_depth
from search.records.record import (
    BackboneSummary,
    ParameterValue,
    SearchRecord,
    TaskSummary,
    TrialRecord,
    rank_key,
)
from trainables.errors import UsageError

MAX_FIRST = 3
"""Configurations that are tried first, at most."""

FIRST_SHARE = 0.1
"""Of all trials that these may be; but one is always tried."""

MAX_PER_SEARCH = 8
"""Configurations of each earlier search near which trials are drawn."""

WARM_START_ORIGIN = "warm start"


@dataclass(frozen=True)
class TransferredConfig:
    """A configuration that did well in an earlier search, in the parameters of this one."""

    search: str
    trial: int
    value: float
    similarity: float
    params: Mapping[str, ParameterValue]

    @property
    def origin(self) -> str:
        """Where it comes from, in the words of the ledger."""
        return f"{WARM_START_ORIGIN}: {self.search} #{self.trial}"


def task_similarity(task: TaskSummary, backbones: Iterable[BackboneSummary], earlier: SearchRecord) -> float:
    """How alike an earlier search's task is, from 0 to 1, by what is known without looking at images.

    The numbers of classes and of labels a class count by their logarithms, names of classes by the share that both
    have, and whether a backbone is the same. The same data and backbone have 1.
    """
    other = earlier.task
    known = {b.digest for b in (earlier.backbone, *earlier.backbones.values())}
    same_backbone = any(b.digest in known for b in backbones)
    distance = abs(math.log(len(task.classes) / len(other.classes)))
    distance += abs(math.log(_labels(task) / _labels(other)))
    shared = len({*task.classes} & {*other.classes}) / len({*task.classes} | {*other.classes})
    alike = math.exp(-distance / 2) * (0.7 + 0.3 * shared)
    return alike * (1.0 if same_backbone else 0.6)


def _labels(task: TaskSummary) -> float:
    """Training images a class."""
    return max(1, task.counts.get("train", 1)) / len(task.classes)


def transferred_configs(
    earlier: Sequence[SearchRecord],
    space: Space,
    task: TaskSummary,
    own: Mapping[str | None, BackboneSummary],
) -> list[TransferredConfig]:
    """The best configurations that this space can hold: the best of each search, the most alike first, then the
    second best, and so on; none twice.

    Args:
        own: this search's backbones by the value of the parameter, None where there is one.
    """
    found: list[tuple[int, float, TransferredConfig]] = []
    for record in earlier:
        alike = task_similarity(task, own.values(), record)
        ranked = [t for t in record.trials if rank_key(t, record.direction)]
        ranked.sort(key=lambda t: rank_key(t, record.direction) or (0.0, True, 0.0, 0))
        seen: list[Mapping[str, ParameterValue]] = []
        for trial in ranked:
            params = translate_config(trial, record, space, own)
            if params is not None and params not in seen and len(seen) < MAX_PER_SEARCH:
                lesson = TransferredConfig(
                    record.name, trial.number, float(trial.value or 0.0), alike, params
                )
                found.append((len(seen), -alike, lesson))
                seen.append(params)
    found.sort(key=lambda entry: entry[:2])
    once: list[TransferredConfig] = []
    for *_, lesson in found:
        if all(lesson.params != known.params for known in once):
            once.append(lesson)
    return once


def first_configs(found: Sequence[TransferredConfig], trials: int) -> list[TransferredConfig]:
    """Those that are tried first in a search of so many trials."""
    return list(found[: max(1, min(MAX_FIRST, int(FIRST_SHARE * trials)))])


def translate_config(
    trial: TrialRecord, record: SearchRecord, space: Space, own: Mapping[str | None, BackboneSummary]
) -> dict[str, ParameterValue] | None:
    """A trial's configuration in this space, or None where it has no place there.

    Parameters that this space has not are left out: the sampler has those of its own. A depth of a backbone with
    another number of blocks is the same share of the blocks.
    """
    params = {n: v for n, v in trial.params.items() if n in space.ranges and n not in (BACKBONE, DEPTH)}
    if "method" in space.ranges:
        params["method"] = trial.method
    elif space.method not in (ALL_METHODS, trial.method):
        return None
    before = record.backbone_of(trial.params)
    name = next((n for n, b in own.items() if b.digest == before.digest), next(iter(own)))
    if name is not None:
        params[BACKBONE] = name
    depth = trial.params.get(DEPTH)
    if isinstance(depth, int) and DEPTH in space.ranges:
        params[DEPTH] = _depth(
            depth, len(before.blocks), len(own[name].blocks), before.digest == own[name].digest
        )
    try:
        return space.check(params)
    except UsageError:
        return None


def _depth(depth: int, before: int, now: int, same: bool) -> int:
    if same or before == now:
        return depth
    return fraction_to_depth(depth_to_fraction(depth, IntDistribution(0, before)), IntDistribution(0, now))


def configs_to_json(found: Sequence[TransferredConfig]) -> list[dict[str, Any]]:
    """For the ledger: what was taken from where stays what it was, however the earlier searches go on."""
    return [{**asdict(lesson), "params": dict(lesson.params)} for lesson in found]


def configs_from_json(values: Iterable[Mapping[str, Any]]) -> list[TransferredConfig]:
    """What :func:`configs_to_json` wrote."""
    return [TransferredConfig(**value) for value in values]

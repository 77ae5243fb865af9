"""Takes over what earlier searches found, in the parameters of a new one (``--warm-start NAME``).

The best configurations of the earlier searches are tried first: at most three, and no more than a tenth of the trials.
:mod:`search.ledger.sampling.warm_start_prior` makes use of the others. Which earlier search comes first depends on how
similar the tasks are (:func:`task_similarity`), by what the ledger has of them; no image is read.
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
from trainables.methods.methods import PROBE

MAX_FIRST = 3
"""Most configurations that are tried first."""

FIRST_SHARE = 0.1
"""Largest share of the search's trials that are tried first. One is tried in any case."""

MAX_PER_SEARCH = 8
"""Most configurations that are taken over from one earlier search."""

WARM_START_ORIGIN = "warm start"
"""How the origin of such a trial begins in the ledger."""

SAME_CLASSES_SHARE = 0.3
"""Share of the similarity that depends on common class names. Class names are often arbitrary, so it is small."""

OTHER_BACKBONE_FACTOR = 0.6
"""The similarity is multiplied by this if no backbone is the same: depths and learning rates then mean less."""


@dataclass(frozen=True)
class TransferredConfig:
    """A configuration that did well in an earlier search, in the parameters of this one.

    The ledger stores the fields under their names.

    Attributes:
        search: name of the earlier search.
        trial: number of the trial there.
        value: objective value of the trial there.
        similarity: of the two tasks, from 0 to 1.
        params: values of this search's parameters.
    """

    search: str
    trial: int
    value: float
    similarity: float
    params: Mapping[str, ParameterValue]

    @property
    def origin(self) -> str:
        """The origin of a trial with this configuration, as the ledger stores it."""
        return f"{WARM_START_ORIGIN}: {self.search} #{self.trial}"


def task_similarity(task: TaskSummary, backbones: Iterable[BackboneSummary], earlier: SearchRecord) -> float:
    """Return how similar the task of an earlier search is to ``task``, from 0 to 1, without looking at images.

    The ratios of the numbers of classes and of training images per class count by their logarithms, class names by the
    share that both tasks have. The same data with the same backbone has similarity 1.
    """
    other = earlier.task
    known = {b.digest for b in (earlier.backbone, *earlier.backbones.values())}
    same_backbone = any(b.digest in known for b in backbones)
    distance = abs(math.log(len(task.classes) / len(other.classes)))
    distance += abs(math.log(_images_per_class(task) / _images_per_class(other)))
    common = len({*task.classes} & {*other.classes}) / len({*task.classes} | {*other.classes})
    similarity = math.exp(-distance / 2) * (1 - SAME_CLASSES_SHARE + SAME_CLASSES_SHARE * common)
    return similarity * (1.0 if same_backbone else OTHER_BACKBONE_FACTOR)


def _images_per_class(task: TaskSummary) -> float:
    return max(1, task.counts.get("train", 1)) / len(task.classes)


def transferred_configs(
    earlier: Sequence[SearchRecord],
    space: Space,
    task: TaskSummary,
    own: Mapping[str | None, BackboneSummary],
) -> list[TransferredConfig]:
    """Return the best configurations of earlier searches that this search's space contains, none twice.

    The best of each search come first, that of the most similar task first of all; then the second best, and so on.

    Args:
        earlier: the earlier searches.
        space: of this search.
        task: of this search.
        own: this search's backbones by the value of the parameter; by None if there is only one.
    """
    found: list[tuple[int, float, TransferredConfig]] = []
    for record in earlier:
        similarity = task_similarity(task, own.values(), record)
        taken: list[Mapping[str, ParameterValue]] = []
        for trial in _ranked(record):
            params = translate_config(trial, record, space, own)
            if params is not None and params not in taken and len(taken) < MAX_PER_SEARCH:
                value = float(trial.value or 0.0)
                config = TransferredConfig(record.name, trial.number, value, similarity, params)
                found.append((len(taken), -similarity, config))
                taken.append(params)
    found.sort(key=lambda entry: entry[:2])  # stable: of equally similar tasks, the one that is named first
    distinct: list[TransferredConfig] = []
    for *_, config in found:
        if all(config.params != known.params for known in distinct):
            distinct.append(config)
    return distinct


def _ranked(record: SearchRecord) -> list[TrialRecord]:
    """Return the trials that have a result, the best first."""
    # A frozen probe has no configuration to take over; this search has its own.
    trials = [trial for trial in record.trials if trial.method != PROBE]
    keys = {key: trial for trial in trials if (key := rank_key(trial, record.direction))}
    return [keys[key] for key in sorted(keys)]


def first_configs(found: Sequence[TransferredConfig], trials: int) -> list[TransferredConfig]:
    """Return the configurations that are tried first in a search of so many ``trials``."""
    return list(found[: max(1, min(MAX_FIRST, int(FIRST_SHARE * trials)))])


def translate_config(
    trial: TrialRecord, record: SearchRecord, space: Space, own: Mapping[str | None, BackboneSummary]
) -> dict[str, ParameterValue] | None:
    """Translate a trial's configuration into this search's space; None if it lies outside.

    Parameters that this space does not have are left out, and the sampler chooses those that the trial did not have. A
    depth in a backbone with another number of blocks becomes the same fraction of this backbone's blocks.

    Args:
        trial: of an earlier search.
        record: the earlier search.
        space: of this search.
        own: this search's backbones, as in :func:`transferred_configs`.
    """
    params = {n: v for n, v in trial.params.items() if n in space.ranges and n not in (BACKBONE, DEPTH)}
    if "method" in space.ranges:
        params["method"] = trial.method
    elif space.method not in (ALL_METHODS, trial.method):
        return None
    before = record.backbone_of(trial.params)
    # The same backbone if this search has it, whatever its name here; otherwise this search's first.
    name = next((n for n, b in own.items() if b.digest == before.digest), next(iter(own)))
    if name is not None:
        params[BACKBONE] = name
    depth = trial.params.get(DEPTH)
    if isinstance(depth, int) and DEPTH in space.ranges:
        params[DEPTH] = _translate_depth(depth, before, own[name])
    try:
        return space.check(params)
    except UsageError:
        return None


def _translate_depth(depth: int, before: BackboneSummary, now: BackboneSummary) -> int:
    if before.digest == now.digest or len(before.blocks) == len(now.blocks):
        return depth
    fraction = depth_to_fraction(depth, IntDistribution(0, len(before.blocks)))
    return fraction_to_depth(fraction, IntDistribution(0, len(now.blocks)))


def configs_to_json(found: Sequence[TransferredConfig]) -> list[dict[str, Any]]:
    """Return the form in which the ledger stores them.

    They are stored when a search begins, so that it continues with the same ones although the earlier searches may
    have more trials by then.
    """
    return [{**asdict(config), "params": dict(config.params)} for config in found]


def configs_from_json(values: Iterable[Mapping[str, Any]]) -> list[TransferredConfig]:
    """Read what :func:`configs_to_json` has written."""
    return [TransferredConfig(**value) for value in values]

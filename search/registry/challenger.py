"""Decide whether a new version takes the alias ``challenger``, and move the alias.

The alias proposes a model for production. A version that is not better than always answering the most frequent class
is never proposed, and no version takes the alias from one that is better on the same test images. A version that is
not better than the frozen probe of its search takes it only from one that is not as good. A version that is not
proposed is registered all the same: it has the tag :data:`search.registry.versions.NOT_PROPOSED_TAG`, its description
says why it was not proposed, and it can be promoted by its number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search.records.formatting import format_percent, format_points, plural
from search.records.record import Outcome
from search.records.stats.intervals import MIN_SEEDS, wilson
from search.records.stats.paired_tests import Right, mcnemar
from search.registry.downloads import download_candidate
from search.registry.front_versions import same_search
from search.registry.gate import GateCandidate, decide_promotion
from search.registry.model_lock import locked_aliases
from search.registry.versions import CHALLENGER, NOT_PROPOSED_TAG, Version, to_version, version_with_alias
from trainables.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient


def challenger_obstacle(
    outcome: Outcome, new: GateCandidate | None = None, current: GateCandidate | None = None
) -> str | None:
    """Return why a new version must not take the alias ``challenger``, as a clause; None if it may.

    Args:
        outcome: the results of the new version. Each simple model that a proposed version has to beat is one function
            like :func:`majority_obstacle` or :func:`probe_obstacle`, called here.
        new: the new version.
        current: the version that has the alias now. Without ``new`` and ``current``, the versions are not compared.
    """
    weakness = majority_obstacle(outcome)
    if weakness is not None or new is None or current is None:
        return weakness
    advantage = advantage_of(current, new)
    if advantage is not None:
        return f"version {current.version}, which is the challenger, is better: {advantage}"
    return probe_obstacle(outcome, new, current)


def majority_obstacle(outcome: Outcome) -> str | None:
    """Return why the model does not count as better than the most frequent class, as a clause; None if it does.

    The model that is registered is compared with always answering the most frequent class of the test images. It is
    better if McNemar's exact test says so, or if the 95 % interval of its accuracy lies above the share of that class.
    McNemar's test has more power if one class dominates, the interval if there are few images.
    """
    model, constant = _correct_answers(outcome)
    # Without a confusion matrix nothing is known against the model.
    if not len(model):
        return None
    right, frequent = int(model.sum()), float(constant.mean())
    if mcnemar(constant, model).second_better or wilson(right, len(model)).low > frequent:
        return None
    return (
        f"its test accuracy of {format_percent(right / len(model))} is not significantly better than always answering "
        f"the most frequent class, which is correct for {format_percent(frequent)} of {plural(len(model), 'image')}"
    )


def probe_obstacle(outcome: Outcome, new: GateCandidate, current: GateCandidate) -> str | None:
    """Return why a model that is not better than the frozen probe must not replace the challenger; None if it may.

    It may if it is better than the challenger, or if the gate would promote it over the challenger as ``cheaper``.
    Versions that cannot be compared are no obstacle, as without a probe: nothing shows that the new one is worse. A
    search on new data could otherwise never propose its model if the probe is enough there.

    Args:
        outcome: the results of the new version.
        new: the new version.
        current: the challenger.
    """
    gain = outcome.probe_gain
    if not outcome.probe_won and (gain is None or gain.low > 0):
        return None
    if not _can_be_compared(new, current) or advantage_of(new, current) is not None:
        return None
    decision = decide_promotion(new, current)
    if decision.passes or not decision.comparisons:
        return None
    weakness = "it is the frozen probe, and it is not significantly better than"
    if gain is not None:
        measured = f"{format_points(gain.low)} to {format_points(gain.high)} points"
        weakness = f"it is neither significantly better than the frozen probe ({measured}) nor than"
    return (
        f"{weakness} version {current.version}, which is the challenger: {decision.comparisons[0]} on "
        f"{plural(decision.images, 'test image')}"
    )


def advantage_of(first: GateCandidate, second: GateCandidate) -> str | None:
    """Return by how much ``first`` is better than ``second`` on the same test images; None if it is not, or unknown.

    It is better if the gate would promote it over ``second`` as ``better``, unless the gate would also promote
    ``second`` over it, as ``cheaper``. If one of them was trained with a single seed, the gate refuses both; then
    McNemar's test compares the two models that are served.
    """
    one, other = first.predictions, second.predictions
    if one is None or other is None or not _can_be_compared(first, second):
        return None
    forward, backward = decide_promotion(first, second), decide_promotion(second, first)
    if forward.decision == "better" and not backward.passes:
        return f"{forward.comparisons[0]} on {plural(forward.images, 'test image')}"
    served = backward.comparisons[0].served if backward.comparisons else None
    seeds = min(len(one.predicted), len(other.predicted))
    if seeds < MIN_SEEDS and served is not None and served.second_better:
        return (
            f"only it is correct on {plural(served.second_only, 'test image')}, only the new one on "
            f"{served.first_only:,} (McNemar's exact p = {served.p_value:.2g})"
        )
    return None


def propose_challenger(
    client: MlflowClient, version: Version, outcome: Outcome, description: str, tracking_uri: str
) -> Version:
    """Point ``challenger`` at a version if it deserves that; otherwise mark the version as not proposed.

    Args:
        client: the registry.
        version: the version, newly registered.
        outcome: its results.
        description: the version's description. If it is not proposed, the reason is put in front of it.
        tracking_uri: the store of the registry, absolute.

    Returns:
        The version with its tags as they are now.

    Raises:
        TrackingError: other processes took this one for dead; nothing was changed then.
    """
    name = version.name
    while True:
        current = version_with_alias(client, name, CHALLENGER)
        takes, reason = _decide(current, version, outcome, tracking_uri)
        # The predictions are downloaded outside the lock, because that may take longer than a process may hold it.
        # Another search or command may have moved the alias meanwhile; then the versions are compared again.
        with locked_aliases(client, name) as lock:
            now = version_with_alias(client, name, CHALLENGER)
            if (now and now.version) == (current and current.version):
                lock.verify_held()
                if takes:
                    client.set_registered_model_alias(name, CHALLENGER, version.version)
                break
    mark_not_proposed(client, version, reason, description)
    return to_version(client.get_model_version(name, version.version))


def mark_not_proposed(client: MlflowClient, version: Version, reason: str | None, description: str) -> None:
    """Record in tag and description why ``version`` is not proposed; with None, remove what an earlier run recorded."""
    if reason == version.tags.get(NOT_PROPOSED_TAG):
        return
    if reason is None:
        client.delete_model_version_tag(version.name, version.version, NOT_PROPOSED_TAG)
    else:
        client.set_model_version_tag(version.name, version.version, NOT_PROPOSED_TAG, reason)
    client.update_model_version(version.name, version.version, describe(description, reason))


def describe(description: str, reason: str | None) -> str:
    """Return the description of a version that is not proposed for ``reason``; unchanged with None."""
    return description if reason is None else f"Not proposed as challenger: {reason}. {description}"


def _decide(
    current: Version | None, version: Version, outcome: Outcome, tracking_uri: str
) -> tuple[bool, str | None]:
    """Return whether ``version`` takes the alias from ``current``, and if not, why, unless a newer version has it."""
    if current is not None and current.version == version.version:
        return False, None
    weakness = challenger_obstacle(outcome)
    # The points of one front are registered one after another; the winner comes last but must get the alias even if
    # it was registered before. It is the best in the first objective, which need not be the accuracy.
    if weakness is not None or current is None or same_search(current, version):
        return weakness is None, weakness
    new, old = (_candidate(one, tracking_uri) for one in (version, current))
    if int(current.version) < int(version.version):
        obstacle = challenger_obstacle(outcome, new, old)
        return obstacle is None, obstacle
    # An older search that is registered late takes the alias from a newer one only if it is better. So of two searches
    # that register at the same time the better one has the alias in the end, whichever comes last.
    return advantage_of(new, old) is not None, None


def _candidate(version: Version, tracking_uri: str) -> GateCandidate:
    try:
        return download_candidate(version, tracking_uri)
    except TrackingError:
        # The file may be damaged. That is a reason not to promote the version, but none to lose the result of a search.
        return GateCandidate(version.version, None)


def _can_be_compared(first: GateCandidate, second: GateCandidate) -> bool:
    """Whether both versions have predictions, for more than one image: no interval can be computed from one."""
    predictions = (first.predictions, second.predictions)
    return all(each is not None and len(each.labels) > 1 for each in predictions)


def _correct_answers(outcome: Outcome) -> tuple[Right, Right]:
    """Return for each test image whether the model and always answering the most frequent class are correct.

    The confusion matrix contains everything that a paired test needs. The order of the images does not matter.
    """
    counts = np.array(outcome.confusion, dtype=np.int64)
    if not counts.size or not counts.sum():
        return np.empty(0, bool), np.empty(0, bool)
    truth, predicted = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    return predicted == truth, truth == counts.sum(axis=1).argmax()

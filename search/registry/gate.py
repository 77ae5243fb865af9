"""Decide whether the challenger is promoted.

The decision is a pure function of two versions' predictions on the same test images, of their serving costs and of
their input forms. :func:`apply_forgetting_limit` may refuse a challenger afterwards that lost too much of an old task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from search.records.formatting import format_points
from search.records.predictions import PredictionRecord
from search.records.record import Interval
from search.records.stats.forgetting import ForgettingComparison
from search.records.stats.intervals import MIN_SEEDS, ConservativeInterval, paired_gain
from search.records.stats.paired_tests import McNemar, Right, bootstrap_gain, mcnemar
from search.registry.comparability import (
    CostDifference,
    align_images,
    comparability_problems,
    cost_difference,
)
from trainables.serving.footprint import Footprint

MARGIN = 0.01
"""Default for the accuracy that a cheaper challenger may lack, as a fraction: one percentage point."""

MAJORITY_BASELINE, SCRATCH_BASELINE = "majority class", "scratch"

Decision = Literal[
    "better", "cheaper", "first", "worse", "not better", "not comparable", "unknown", "forgets"
]
"""Why a challenger passes the gate (the first three values) or does not."""


@dataclass(frozen=True)
class GateCandidate:
    """What the gate needs to know of a version; ``predictions`` is None if it was registered without predictions."""

    version: str
    predictions: PredictionRecord | None
    input_form: str = ""
    footprint: Footprint | None = None


@dataclass(frozen=True)
class Comparison(ConservativeInterval):
    """The challenger compared with one other: the champion, the baseline from scratch, or the majority class.

    Attributes:
        other: name of the other.
        accuracy: its mean test accuracy.
        seeds: its number of training runs; 0 for the majority class.
        gain: accuracy of the challenger minus that of the other, averaged over seeds, with the interval of
            :func:`search.records.stats.intervals.paired_gain`.
        bootstrap: the same with the interval of :func:`search.records.stats.paired_tests.bootstrap_gain`.
        served: McNemar's test of the two models that are served, the challenger first; only against a champion.
    """

    other: str
    accuracy: float
    seeds: int
    gain: Interval
    bootstrap: Interval
    served: McNemar | None = None

    def __str__(self) -> str:
        return f"{format_points(self.gain.estimate)} points ({format_points(self.low)} to {format_points(self.high)})"


@dataclass(frozen=True)
class GateDecision:
    """The decision of the gate, with everything it is based on.

    Attributes:
        decision: the decision in a word or two.
        reason: the decision in a sentence.
        margin: accuracy that a cheaper challenger may lack.
        images: number of test images in the comparison; 0 without a comparison.
        accuracy: mean test accuracy of the challenger over its seeds; None without a comparison.
        seeds: the challenger's number of training runs.
        comparisons: with the champion, or with the baselines.
        footprints: those of challenger and champion.
        notes: further information for the user.
        old_task: accuracy on the old task before and after; None if the challenger's search had no old task, or was
            run by an earlier version.
    """

    decision: Decision
    reason: str
    margin: float
    images: int = 0
    accuracy: float | None = None
    seeds: int = 0
    comparisons: tuple[Comparison, ...] = ()
    footprints: tuple[Footprint | None, Footprint | None] = (None, None)
    notes: tuple[str, ...] = ()
    old_task: ForgettingComparison | None = None

    @property
    def passes(self) -> bool:
        """Whether the challenger may become champion."""
        return self.decision in ("better", "cheaper", "first")


def decide_promotion(
    challenger: GateCandidate, champion: GateCandidate | None, margin: float = MARGIN
) -> GateDecision:
    """Decide whether ``challenger`` replaces ``champion``.

    With a champion, the challenger passes as ``better`` if the whole interval of its gain is above 0, and as
    ``cheaper`` if the interval is at or above ``-margin`` and some serving cost is lower while none is higher.
    McNemar's test of the two served models must not contradict: the challenger's model may be significantly worse in
    the second case only, and by at most ``margin``. With a champion, a side that was trained with a single seed does
    not pass: the variance between seeds is unknown then. Without a champion, the challenger passes as ``first`` if its
    gain over the baseline from scratch and over the majority class is significantly above 0.

    Args:
        challenger: the version to promote.
        champion: the version in production; None if there is none yet.
        margin: accuracy that the challenger may lack if it is cheaper, as a fraction.
    """
    if not 0 <= margin < 1:
        raise ValueError(f"margin: expected a fraction from 0 to below 1, received {margin}")
    new, footprints = challenger.predictions, (challenger.footprint, champion.footprint if champion else None)
    if new is None or (champion is not None and champion.predictions is None):
        version = challenger.version if new is None or champion is None else champion.version
        return GateDecision("unknown", _no_predictions_reason(version), margin, footprints=footprints)
    if champion is None or champion.predictions is None:
        decision, reason, others, notes = _first(new)
    else:
        old = champion.predictions
        found = comparability_problems(new, old, challenger.input_form, champion.input_form)
        if found:
            reason = f"it cannot be compared with version {champion.version}: {'; '.join(found)}"
            return GateDecision("not comparable", reason, margin, footprints=footprints)
        new, old, notes = align_images(new, old)
        other = _compare_with_champion(champion.version, new, old)
        saved = cost_difference(*footprints)
        # With one seed, the variance between seeds is unknown and the interval of the gain is too narrow. Without
        # this rule, a lucky seed would often be promoted.
        once = [c.version for c, side in ((challenger, new), (champion, old)) if len(side.correct) == 1]
        if once:
            decision, reason = "not better", _one_seed_reason(f"version {' and version '.join(once)} was")
        else:
            decision, reason = _decide_against_champion(other, len(new.labels), saved, margin)
        others, notes = [other], (*notes, *saved.unknown)
    return GateDecision(
        decision,
        reason,
        margin,
        images=len(new.labels),
        accuracy=float(new.correct.mean()),
        seeds=len(new.correct),
        comparisons=tuple(others),
        footprints=footprints,
        notes=notes,
    )


def _first(predictions: PredictionRecord) -> tuple[Decision, str, list[Comparison], tuple[str, ...]]:
    """Return decision, reason, comparisons and notes for a model without a champion."""
    right, scratch = predictions.correct, predictions.scratch_correct
    # Constant predictions do not vary between seeds; two equal rows express that variance 0.
    constant = np.stack([predictions.majority_correct] * 2)
    others = [_compared(MAJORITY_BASELINE, right, constant, seeds=0)]
    notes: tuple[str, ...] = ()
    if len(scratch):
        others.insert(0, _compared(SCRATCH_BASELINE, right, scratch, seeds=len(scratch)))
    else:
        notes = ("no baseline was trained from scratch, so the only comparison is with the majority class",)
    not_significant = [f"{other} over {other.other}" for other in others if other.low <= 0]
    if len(scratch) and min(len(right), len(scratch)) == 1:
        return "not better", _one_seed_reason("the winner, or the baseline, was"), others, notes
    if not_significant:
        return (
            "not better",
            f"the first champion has to be significantly better, but it gains {' and '.join(not_significant)}",
            others,
            notes,
        )
    return (
        "first",
        f"it is significantly better than {' and '.join(other.other for other in others)}",
        others,
        notes,
    )


def _compare_with_champion(version: str, new: PredictionRecord, old: PredictionRecord) -> Comparison:
    served = mcnemar(new.correct[new.chosen], old.correct[old.chosen])
    return _compared(f"version {version}", new.correct, old.correct, len(old.correct), served)


def _compared(other: str, new: Right, old: Right, seeds: int, served: McNemar | None = None) -> Comparison:
    return Comparison(
        other, float(old.mean()), seeds, paired_gain(new, old), bootstrap_gain(new, old), served
    )


def _decide_against_champion(
    other: Comparison, images: int, saved: CostDifference, margin: float
) -> tuple[Decision, str]:
    """Return the decision on a challenger that competes with a champion, and the reason."""
    shortfall = _shortfall(other.served, images)
    equal = (
        f"the accuracy differs from {other.other} by {other}, which is within the margin of {_margin(margin)}"
    )
    # The means over seeds compare the two recipes, McNemar's test compares the two models that are actually served.
    # A promotion needs both: a better recipe may have produced a worse model by chance.
    if other.low > 0 and shortfall <= 0:
        return "better", f"it is significantly more accurate than {other.other}: {other}"
    if other.low >= -margin and shortfall <= margin and saved.cheaper:
        return "cheaper", f"{equal}, and cheaper: {', '.join(saved.less)}"
    # Only the served model is worse: the message explains why good means do not suffice.
    if other.served is not None and shortfall > 0 and other.low >= -margin:
        return "worse", (
            "the model to be served is significantly worse than the one in production, although the means over seeds "
            f"are not: only it is correct on {other.served.first_only:,} images, only the champion on "
            f"{other.served.second_only:,} (McNemar's exact p = {other.served.p_value:.2g})"
        )
    if other.high < 0:
        return "worse", f"it is worse than {other.other}: {other}"
    if other.low < -margin:
        unsure = "it may be better or worse by more than the margin"
        return "not better", f"it gains {other} over {other.other}: {unsure} of {_margin(margin)}"
    if saved.less:
        mixed = f"cheaper in one way ({', '.join(saved.less)}), not in another ({', '.join(saved.more)})"
        return "not better", f"{equal}; {mixed}"
    return "not better", f"{equal}, but neither better nor cheaper"


def _shortfall(served: McNemar | None, images: int) -> float:
    """Return the accuracy that the served model lacks, if McNemar's test finds it worse than the other; else 0."""
    if served is None or not served.second_better:
        return 0.0
    return (served.second_only - served.first_only) / images


def _one_seed_reason(which: str) -> str:
    return (
        f"{which} trained with one seed, which cannot distinguish a better model from a lucky seed: let the search "
        "confirm its winner with several seeds (--confirm-seeds 3)"
    )


def _margin(margin: float) -> str:
    number = f"{100 * margin:.3g}"
    return f"{number} point{'' if number == '1' else 's'}"


def _no_predictions_reason(version: str) -> str:
    return (
        f"version {version} was registered without its test predictions, by an earlier version of unfreeze or by "
        "another program, so that it cannot be compared"
    )


def apply_forgetting_limit(judgement: GateDecision, forgotten: float | None, max_loss: float) -> GateDecision:
    """Refuse a challenger that passes but may have lost more than ``max_loss`` of the old task's accuracy.

    It is refused if the interval of the loss over its training runs reaches beyond ``max_loss``, or if McNemar's test
    finds that the model to be served has lost more.

    Args:
        judgement: the decision so far.
        forgotten: the loss according to the version's tags; None if there is no such tag. It decides alone, with a
            note, for versions of earlier releases, which stored no predictions for the old task.
        max_loss: the largest accepted loss of accuracy, as a fraction.
    """
    if not judgement.passes:
        return judgement
    if judgement.old_task is not None:
        reason = _forgetting_reason(judgement.old_task, max_loss)
        return replace(judgement, decision="forgets", reason=reason) if reason else judgement
    if forgotten is None:
        reason = (
            "its loss on the old task is unknown, because its search had no old task (--remember DATA), and "
            f"at most {_margin(max_loss)} may be lost"
        )
    elif forgotten > max_loss:
        reason = (
            f"it has lost {_margin(forgotten)} on the old task, and at most {_margin(max_loss)} may be lost"
        )
    else:
        note = (
            "the challenger's loss on the old task is judged without an interval: it was registered by an earlier "
            "version of unfreeze, which stored no predictions for the old task"
        )
        return replace(judgement, notes=(*judgement.notes, note))
    return replace(judgement, decision="forgets", reason=reason)


def _forgetting_reason(kept: ForgettingComparison, max_loss: float) -> str | None:
    """Return why the loss may exceed ``max_loss``; None if it certainly does not."""
    allowed = f"at most {_margin(max_loss)} may be lost"
    if kept.seeds < MIN_SEEDS and kept.changed:
        return f"its loss on the old task is unknown: {_one_seed_reason('the winner was')}"
    gain = f"{format_points(kept.gain.estimate)} points ({format_points(kept.low)} to {format_points(kept.high)})"
    if kept.low < -max_loss:
        certain = f"a loss of at most {_margin(max_loss)} is allowed"
        possible = f"the loss may exceed the {_margin(max_loss)} that are allowed"
        limit = certain if kept.high < -max_loss else possible
        return f"the accuracy on the old task changed by {gain}; {limit}"
    shortfall = _shortfall(kept.served, kept.images)
    if shortfall > max_loss:
        return (
            f"the model to be served has lost {_margin(shortfall)} on the old task, although the mean over seeds has "
            f"not: it is correct on {kept.served.first_only:,} images only after training, on "
            f"{kept.served.second_only:,} only before (McNemar's exact p = {kept.served.p_value:.2g}), and {allowed}"
        )
    return None

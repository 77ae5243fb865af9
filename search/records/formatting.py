"""Format numbers, parameters and trial states for the terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from search.records.end_reasons import END_REASONS, PROBE_PREFERRED
from search.records.metrics import METRICS, is_fraction
from search.records.record import (
    BackboneSummary,
    OldTask,
    Outcome,
    Parameters,
    ParameterValue,
    SearchRecord,
    Selection,
    TrialRecord,
)

COLUMN_HEADINGS = {
    "backbone": "backbone",
    "method": "method",
    "unfreeze_depth": "depth",
    "learning_rate": "rate",
    "head_units": "head",
    "augmentation_strength": "augment",
    "weight_decay": "decay",
    "dropout": "dropout",
    "label_smoothing": "smooth",
    "backbone_lr_ratio": "ratio",
    "horizontal_flip": "flip",
    "head_init": "init",
    "remembering": "remember",
    "remember_weight": "keep",
    "l2sp": "l2sp",
    "layer_lr_decay": "layers",
    "gradual_unfreezing": "gradual",
    "distillation": "distill",
    "distill_weight": "teacher",
    "distill_temperature": "heat",
    "weighting": "weights",
    "source_share": "source",
    "weight_temperature": "even",
    "weight_clip": "clip",
    "alignment": "align",
    "alignment_weight": "lambda",
    "alignment_schedule": "schedule",
    "alignment_layer": "layer",
}
"""Short column headings for parameter names, in the order of the columns."""

_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def format_value(value: ParameterValue | None) -> str:
    """Format a value with three significant digits (``0.00431``, ``2e-05``, ``64``); None and NaN are a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return short_name(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_name(value: str) -> str:
    """Return the last part of a path, such as that of a backbone's file; other names are returned unchanged."""
    return value.rstrip("/").rpartition("/")[2] or value


def format_objective(value: float | None) -> str:
    """Format an objective value with four decimals, so that values line up in a column."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def objective_phrase(name: str, value: float | None) -> str:
    """Format the value of one of several objectives with its unit."""
    if value is None or not math.isfinite(value):
        return f"no {name}"
    metric = METRICS.get(name)
    if metric is None or metric.every_epoch:
        return f"{name} {format_objective(value)}"
    shown = f"{value:,.0f}" if name == "parameters" else f"{value:.3g}"
    return f"{shown} {metric.unit}"


def values_phrase(values: Mapping[str, float]) -> str:
    """Format several objective values, as in ``val_accuracy 0.9312, 3.2 ms``."""
    return ", ".join(objective_phrase(name, value) for name, value in values.items())


def format_percent(fraction: float) -> str:
    """Format a fraction as a percentage: ``97.8 %``."""
    return f"{100 * fraction:.1f} %"


def format_points(difference: float) -> str:
    """Format a difference of two fractions in percentage points: ``+2.4``."""
    # A real minus sign is as wide as the plus sign, so that columns line up.
    return f"{100 * difference:+.1f}".replace("-", "−")


def old_task_phrase(old: OldTask) -> str:
    """Describe the accuracy on the old task, as in ``97.7 % before, 96.9 % after; …``."""
    after = " and ".join(
        filter(None, [", ".join(map(format_percent, old.after[:-1])), format_percent(old.after[-1])])
    )
    before = format_percent(old.before)
    return f"{before} before, {after} after; the registered model {forgetting_phrase(old.forgotten)}"


def forgetting_phrase(forgotten: float) -> str:
    """Describe the change of an accuracy, as in ``has lost 0.9 points`` or ``has lost nothing``."""
    shown = f"{100 * abs(forgotten):.1f}"
    # Compare what is shown: a loss of 0.04 points must not read "has lost 0.0 points".
    if float(shown) == 0:
        return "has lost nothing"
    return f"has {'lost' if forgotten > 0 else 'gained'} {shown} points"


def abbreviate_count(count: int) -> str:
    """Abbreviate a large number: ``950``, ``287k``, ``4.2M``."""
    for unit, letter in _UNITS:
        if count >= unit:
            scaled = count / unit
            # From 99.5 on, two significant digits would be written as 1e+02.
            return f"{scaled:.0f}{letter}" if scaled >= 99.5 else f"{scaled:.2g}{letter}"
    return str(count)


def plural(count: int, noun: str) -> str:
    """Format a count with its noun: ``1 trial``, ``24 trials``."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def parameter_phrases(params: Parameters, joint: str = " ") -> Iterable[str]:
    """Return ``name value`` for each parameter."""
    return [f"{name}{joint}{format_value(value)}" for name, value in params.items()]


def ending_phrase(trial: TrialRecord) -> str:
    """Return the state of a trial, or for a pruned or failed trial the reason why it ended."""
    if trial.state not in ("pruned", "failed") or trial.reason is None:
        return trial.state
    return reason_phrase(trial.reason)


def reason_phrase(word: str | None) -> str:
    """Return a word or two for the reason why a trial ended."""
    known = END_REASONS.get(word or "")
    return known.short if known else word or "without a reason"


def state_counts(record: SearchRecord) -> list[tuple[str, int]]:
    """Count the trials in each state and those to come; states without trials are left out."""
    counts = [(state, record.count(state)) for state in ("running", "complete", "pruned", "failed")]
    begun = sum(count for _, count in counts)
    # A search that has stopped early does not run the remaining trials.
    to_come = 0 if record.stopped else max(record.requested - begun, 0)
    return [(words, count) for words, count in [*counts, ("to come", to_come)] if count]


def search_subject(record: SearchRecord) -> str:
    """Describe in one line what is trained on what: backbone, method and data."""
    task = record.task
    several = " or ".join(_sized(backbone) for backbone in record.backbones.values())
    data = f"{plural(sum(task.counts.values()), 'image')} of {plural(len(task.classes), 'class')}"
    return f"{several or _sized(record.backbone)} · {record.config.get('method', 'finetune')} · {data}"


def _sized(backbone: BackboneSummary) -> str:
    size = f"{plural(len(backbone.blocks), 'block')}, {abbreviate_count(backbone.parameters)} parameters"
    return f"{backbone.name} ({size})"


def selection_phrase(selection: Selection) -> str:
    """Describe the choice of the winner, as in ``trial 3: val_accuracy 0.93 over 3 new seeds (0.95 in the search)``."""
    winner = selection.winner
    words = (
        f"trial {winner.trial}: {selection.metric} {format_objective(winner.mean.estimate)} over "
        f"{plural(len(winner.values), 'new seed')} ({format_objective(winner.searched)} in the search)"
    )
    return f"{words}; {PROBE_PREFERRED}" if selection.probe_preferred else words


def optimism_phrase(selection: Selection) -> str:
    """Describe how optimistic the search was about the winner, as in ``+1.9 points too optimistic``."""
    optimism = selection.optimism(selection.winner)
    shown = f"{format_points(optimism)} points" if is_fraction(selection.metric) else f"{optimism:+.4f}"
    return f"optimism of the search: {shown}"


def registered_phrase(outcome: Outcome) -> str | None:
    """Describe the registered training beside the mean over seeds; None in records of earlier versions."""
    if outcome.registered is None:
        return None
    runs = len(outcome.seed_test_accuracies)
    which = f"training {outcome.registered + 1} of {runs}" if runs > 1 else "the only training"
    data = ", on training and validation images" if outcome.refit else ""
    return f"registered: {which}{data}, {format_percent(outcome.test_accuracy.estimate)}"


def over_probe_phrase(selection: Selection | None) -> str:
    """Describe what other candidates gained over a winning probe on the validation images; empty if it is unknown."""
    gain = selection.over_probe if selection else None
    if selection is None or gain is None:
        return ""
    if not is_fraction(selection.metric):
        return f"the best other candidate is better by {gain.estimate:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
    return (
        f"on validation images the best other candidate gains {format_points(gain.estimate)} points "
        f"({format_points(gain.low)} to {format_points(gain.high)})"
    )


_SECRET = re.compile(r"(://[^/@:\s]*):[^/@\s]+@")


def without_secrets(text: str) -> str:
    """Replace the password in every URL of ``text`` by ``***``."""
    return _SECRET.sub(r"\1:***@", text)

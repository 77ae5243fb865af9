"""Numbers, parameters and states as the terminal shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from search.records.metrics import METRICS
from search.records.record import (
    BackboneSummary,
    OldTask,
    Parameters,
    ParameterValue,
    SearchRecord,
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
"""Parameter names as column heads."""

_REASONS = {
    "scheduler": "pruned",
    "out_of_memory": "no memory",
    "time_budget": "out of time",
    "timed_out": "timed out",
}
_UNITS = ((1e9, "B"), (1e6, "M"), (1e3, "k"))


def format_value(value: ParameterValue | None) -> str:
    """Three significant digits: ``0.00431``, ``2e-05``, ``64``; a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return short_name(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def short_name(value: str) -> str:
    """A name as it is; of a path, such as a backbone's, the last part."""
    return value.rstrip("/").rpartition("/")[2] or value


def format_objective(value: float | None) -> str:
    """Four decimals, so that values line up."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def objective_phrase(name: str, value: float | None) -> str:
    """The value of one of several objectives with its unit, whichever that is."""
    if value is None or not math.isfinite(value):
        return f"no {name}"
    metric = METRICS.get(name)
    if metric is None or metric.every_epoch:
        return f"{name} {format_objective(value)}"
    shown = f"{value:,.0f}" if name == "parameters" else f"{value:.3g}"
    return f"{shown} {metric.unit}"


def values_phrase(values: Mapping[str, float]) -> str:
    """``val_accuracy 0.9312, 3.2 ms``."""
    return ", ".join(objective_phrase(name, value) for name, value in values.items())


def format_percent(fraction: float) -> str:
    """``97.8 %``."""
    return f"{100 * fraction:.1f} %"


def format_points(difference: float) -> str:
    """A difference of two fractions in percentage points: ``+2.4``."""
    return f"{100 * difference:+.1f}".replace("-", "−")


def old_task_phrase(old: OldTask) -> str:
    """``97.7 % before, 96.9 % and 96.3 % after; the registered model has lost 0.9 points``."""
    after = " and ".join(
        filter(None, [", ".join(map(format_percent, old.after[:-1])), format_percent(old.after[-1])])
    )
    before = format_percent(old.before)
    return f"{before} before, {after} after; the registered model {forgetting_phrase(old.forgotten)}"


def forgetting_phrase(forgotten: float) -> str:
    """What became of an accuracy: ``has lost 0.9 points``, ``has gained 0.3 points``, ``has lost nothing``."""
    shown = f"{100 * abs(forgotten):.1f}"
    if float(shown) == 0:
        return "has lost nothing"
    return f"has {'lost' if forgotten > 0 else 'gained'} {shown} points"


def abbreviate_count(count: int) -> str:
    """``950``, ``287k``, ``4.2M``."""
    for unit, letter in _UNITS:
        if count >= unit:
            scaled = count / unit
            return f"{scaled:.0f}{letter}" if scaled >= 99.5 else f"{scaled:.2g}{letter}"
    return str(count)


def plural(count: int, noun: str) -> str:
    """``1 trial``, ``24 trials``."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def parameter_phrases(params: Parameters, joint: str = " ") -> Iterable[str]:
    """``name value`` for each parameter."""
    return [f"{name}{joint}{format_value(value)}" for name, value in params.items()]


def ending_phrase(trial: TrialRecord) -> str:
    """The state of a trial, or the reason for it where that says more."""
    if trial.state not in ("pruned", "failed") or trial.reason is None:
        return trial.state
    return reason_phrase(trial.reason)


def reason_phrase(word: str | None) -> str:
    """Why a trial ended, in a word or two."""
    return _REASONS.get(word or "", word or "without a reason")


def state_counts(record: SearchRecord) -> list[tuple[str, int]]:
    """How many trials are in each state, and how many are to come; states without trials are left out."""
    counts = [(state, record.count(state)) for state in ("running", "complete", "pruned", "failed")]
    begun = sum(count for _, count in counts)
    to_come = 0 if record.stopped else max(record.requested - begun, 0)
    return [(words, count) for words, count in [*counts, ("to come", to_come)] if count]


def search_subject(record: SearchRecord) -> str:
    """What is trained on what: backbone, method and data in one line."""
    task = record.task
    several = " or ".join(_sized(backbone) for backbone in record.backbones.values())
    data = f"{plural(sum(task.counts.values()), 'image')} of {plural(len(task.classes), 'class')}"
    return f"{several or _sized(record.backbone)} · {record.config.get('method', 'finetune')} · {data}"


def _sized(backbone: BackboneSummary) -> str:
    size = f"{plural(len(backbone.blocks), 'block')}, {abbreviate_count(backbone.parameters)} parameters"
    return f"{backbone.name} ({size})"


_SECRET = re.compile(r"(://[^/@:\s]*):[^/@\s]+@")


def without_secrets(text: str) -> str:
    """``text`` with the password of every address in it replaced by ``***``."""
    return _SECRET.sub(r"\1:***@", text)

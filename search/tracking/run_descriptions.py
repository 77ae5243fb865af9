"""Write the texts that MLflow shows of a run and of a model: names and short descriptions."""

from __future__ import annotations

from search.records.end_reasons import END_REASONS, PROBE_VERDICTS, VERDICTS
from search.records.formatting import (
    format_percent,
    format_points,
    format_value,
    optimism_phrase,
    plural,
    registered_phrase,
    selection_phrase,
    values_phrase,
)
from search.records.record import BackboneSummary, Outcome, Parameters, SearchRecord, TrialRecord
from search.records.stats.intervals import probe_verdict
from search.records.units import format_size
from trainables.serving.footprint import Footprint

_POINTS = 8
"""Number of points of a Pareto front that a description lists."""


def trial_name(search: str, trial: TrialRecord, backbone: BackboneSummary) -> str:
    """Return the name of a trial's run, as in ``digits #7: top 2 blocks, lr 1.2e-03``."""
    parts = [_trained(trial.params.get("unfreeze_depth"), len(backbone.blocks), trial.method)]
    rate = trial.params.get("learning_rate")
    if isinstance(rate, float):
        parts.append(f"lr {rate:.1e}")
    return f"{search} #{trial.number}: {', '.join(parts)}"


def trial_note(trial: TrialRecord, record: SearchRecord, outcome: Outcome | None) -> str:
    """Describe a trial and how it ended; ``outcome`` is given if the trial was trained again."""
    backbone = record.backbone_of(trial.params)
    what = (
        f"Trial {trial.number} of the search **{record.name}**: {_subject(trial.method, record, backbone.name)}, "
        f"{_trained(trial.params.get('unfreeze_depth'), len(backbone.blocks), trial.method)}"
        f" ({_settings(trial.params)})."
    )
    sentences = [what]
    if trial.batch_size:
        sentences.append(
            f"Batches of {record.config.get('batch_size')} did not fit into memory. It continued with batches of "
            f"{trial.batch_size}, so its results are not exactly comparable with those of the others."
        )
    if trial.retries:
        sentences.append(
            f"It crashed or hung {plural(trial.retries, 'time')} and was resumed from its checkpoint."
        )
    if trial.finished:
        sentences.append(_ending(trial, record.metric))
    if trial.number in record.front_numbers:
        sentences.append(f"It is a point of the Pareto front: {values_phrase(trial.objectives)}.")
    if outcome is not None:
        which = "The winner" if outcome is record.outcome else "Confirmed"
        sentences.append(f"{which}: {_measured(outcome)}")
    return " ".join(sentences)


def search_note(record: SearchRecord) -> str:
    """Describe a search, with the winner once it is measured, else with the best trial so far."""
    names = "` or `".join(b.name for b in record.backbones.values()) or record.backbone.name
    subject = _subject(str(record.config.get("method", "finetune")), record, names)
    sentences = [
        f"Search **{record.name}**: {subject}, {plural(record.requested, 'trial')}, each of which is a child run."
    ]
    best, outcome = record.best, record.outcome
    if outcome is not None:
        sentences.append(
            f"The winner is **trial {outcome.trial}**: {_measured(outcome)} The report is among the artifacts."
        )
        if outcome.selection is not None:
            chosen = selection_phrase(outcome.selection)
            sentences.append(f"It was chosen by its mean: {chosen}; {optimism_phrase(outcome.selection)}.")
    elif best is not None and best.value is not None:
        sentences.append(f"Best {record.metric} so far {best.value:.4f}, in trial {best.number}.")
    if record.front:
        points_phrase = "; ".join(
            f"trial {t.number} ({values_phrase(t.objectives)})" for t in record.front[:_POINTS]
        )
        more = f"; and {len(record.front) - _POINTS} more" if len(record.front) > _POINTS else ""
        sentences.append(f"Points of the Pareto front: {points_phrase}{more}.")
    return " ".join(sentences)


def winner_note(record: SearchRecord, outcome: Outcome) -> str:
    """Describe the winner's model: first how good it is, as lists show only the beginning, then where it comes from."""
    measured, backbone = _measured(outcome), record.backbone_of(outcome.params).name
    params = _settings(outcome.params)
    known = next((trial for trial in record.trials if trial.number == outcome.trial), None)
    is_alternative = record.objectives and record.best is not None and record.best.number != outcome.trial
    if known is not None and known.objectives:
        params += f"; {values_phrase(known.objectives)}"
    which = "A point of the Pareto front" if is_alternative else "Winner"
    return (
        f"{measured[0].upper()}{measured[1:]} {which} of the search **{record.name}**, trial {outcome.trial} "
        f"({params}): `{backbone}` trained on `{record.task.name}`.{_costs(outcome.footprint)}"
    )


def model_note(record: SearchRecord) -> str:
    """Describe a registered model: its inputs and outputs, and what its aliases mean."""
    task, most = record.task, 20
    names = ", ".join(task.classes[:most]) + (", …" if len(task.classes) > most else "")
    return (
        f"Classifies images into the {len(task.classes)} classes of `{task.name}` ({names}). It takes raw uint8 images "
        "(N, H, W, 3) of any size and returns probabilities (N, classes). The version with the alias `champion` is in "
        "production, `challenger` is the newest one proposed. Made by unfreeze; `unfreeze history` lists its "
        "promotions."
    )


def _costs(footprint: Footprint | None) -> str:
    """Describe what the model costs to serve; empty if that was not measured."""
    if footprint is None:
        return ""
    return (
        f" {format_size(footprint.file_bytes)}, loaded in {footprint.load_seconds:.1f} s, "
        f"{footprint.latency.median:.3g} ms for an image ({footprint.processor})."
    )


def _subject(method: str, record: SearchRecord, backbone: str) -> str:
    if method == "probe":
        return f"logistic regression on the frozen features of `{backbone}` for `{record.task.name}`"
    origin = "from random weights" if method == "scratch" else f"by {method}"
    return f"`{backbone}` trained {origin} on `{record.task.name}`"


def _trained(depth: object, blocks: int, method: str) -> str:
    if method == "scratch":
        return "all blocks from scratch"
    if method == "probe":
        return "frozen probe"
    if not isinstance(depth, int):
        return method
    if depth == 0:
        return "head only"
    return "all blocks" if depth >= blocks else f"top {plural(depth, 'block')}"


def _settings(params: Parameters) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items()) or "no parameters"


def _ending(trial: TrialRecord, metric: str) -> str:
    after = f"after {plural(len(trial.epochs), 'epoch')}"
    value = "" if trial.value is None else f", best {metric} {trial.value:.4f}"
    if trial.state == "complete":
        return f"It trained to the end {after}{value}."
    known = END_REASONS.get(trial.reason or "")
    return f"It was {known.sentence if known else trial.reason or trial.state} {after}{value}."


def _measured(outcome: Outcome) -> str:
    accuracy = outcome.headline_accuracy
    interval = f"{format_percent(accuracy.low)} to {format_percent(accuracy.high)}"
    seeds = len(outcome.seed_test_accuracies)
    mean = (
        f", mean of {plural(seeds, 'seed')}" if outcome.mean_test_accuracy is not None and seeds > 1 else ""
    )
    text = f"test accuracy {format_percent(accuracy.estimate)} ({interval}{mean})"
    word = probe_verdict(outcome)
    if word is not None:
        gain = outcome.probe_gain
        over = (
            f"{format_points(gain.estimate)} points over the frozen probe ({format_points(gain.low)} to "
            f"{format_points(gain.high)}): "
            if gain is not None
            else ""
        )
        text += f"; {over}{PROBE_VERDICTS[word].note}"
    if outcome.gain is not None:
        gain, verdict = outcome.gain, VERDICTS.get(outcome.verdict or "")
        text += (
            f"; transfer gain {format_points(gain.estimate)} points ({format_points(gain.low)} to "
            f"{format_points(gain.high)}): {verdict.note if verdict else 'no verdict'}"
        )
    text += f"; always the most frequent class: {format_percent(outcome.majority_accuracy)}"
    registered = registered_phrase(outcome)
    return f"{text}; {registered}." if registered else f"{text}."

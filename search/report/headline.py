"""Compute the first screen of the report: the winner, its accuracy, the transfer gain, and the cost."""

from __future__ import annotations

from dataclasses import dataclass

from search.config.choices import BASELINE_SOURCES
from search.records.end_reasons import PROBE_VERDICTS, VERDICTS
from search.records.formatting import format_points, over_probe_phrase, plural, registered_phrase
from search.records.record import Baseline, Interval, Outcome, SearchRecord, TrialRecord
from search.records.stats.intervals import MIN_SEEDS, probe_verdict
from search.records.units import format_duration, format_size
from search.report.analysis.ranking import winner
from search.report.analysis.wording import format_interval, format_metric, format_percent, label
from search.report.configuration import describe_parameters
from trainables.serving.footprint import Footprint


@dataclass(frozen=True)
class Scale:
    """A small drawing of an interval on a line from ``low`` to ``high``, with a mark to compare it with."""

    interval: Interval
    low: float
    high: float
    mark: float
    mark_name: str

    def place(self, value: float) -> float:
        """Return the position of ``value`` on the line, in percent of its length."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Tile:
    """One number of the first screen with its explanation; ``tone`` is ``good``, ``bad`` or ``plain``."""

    title: str
    figure: str
    unit: str
    detail: str
    verdict: str = ""
    tone: str = "plain"
    scale: Scale | None = None


@dataclass(frozen=True)
class Headline:
    """The first screen.

    Attributes:
        kicker: what the phrases describe: the winner, the best trial so far, or nothing yet.
        phrases: the core parameters in words.
        more: the other parameters in words.
        blocks_trained: the unfreeze depth, if it is known.
        tiles: the numbers.
    """

    kicker: str
    phrases: tuple[str, ...]
    more: tuple[str, ...]
    blocks_trained: int | None
    tiles: tuple[Tile, ...]


def headline(record: SearchRecord) -> Headline:
    """Compute the first screen of ``record``, from what is known so far."""
    trial = winner(record)
    params = record.outcome.params if record.outcome else trial.params if trial else {}
    depth = params.get("unfreeze_depth")
    main, more = describe_parameters(params, len(record.backbone_of(params).blocks))
    return Headline(
        kicker=_kicker(record, trial),
        phrases=tuple(main or more) or (_no_result_phrase(record, trial),),
        more=tuple(more if main else ()),
        blocks_trained=depth if isinstance(depth, int) and not isinstance(depth, bool) else None,
        tiles=tuple(
            tile
            for tile in (
                _accuracy(record, trial),
                _over_probe(record.outcome),
                _gain(record.outcome),
                _cost(record),
            )
            if tile is not None
        ),
    )


def _kicker(record: SearchRecord, trial: TrialRecord | None) -> str:
    of = f"of {plural(len(record.trials), 'trial')} on {record.task.name}"
    if record.outcome is not None:
        return f"The winner: trial {record.outcome.trial} {of}"
    if trial is not None:
        return f"Best so far: trial {trial.number} {of}"
    return f"Search {record.name} on {record.task.name}"


def _no_result_phrase(record: SearchRecord, trial: TrialRecord | None) -> str:
    if trial is not None:
        return "A configuration without parameters"
    finished = [t for t in record.trials if t.finished]
    if not finished:
        return "No trial has finished yet"
    if all(t.state == "failed" for t in finished):
        return "The one trial failed" if len(finished) == 1 else f"All {len(finished)} trials failed"
    return "No trial has reached a value yet"


def _accuracy(record: SearchRecord, trial: TrialRecord | None) -> Tile:
    outcome = record.outcome
    if outcome is None:
        figure = format_metric(record.metric, trial.value) if trial else "–"
        title = f"{label(record.metric).capitalize()}, best so far"
        return Tile(title, figure, "", "The test images have not been used yet.")
    test = outcome.headline_accuracy
    images = record.task.counts.get("test", 0)
    seeds = len(outcome.seed_test_accuracies)
    mean = (
        f"mean of {plural(seeds, 'seed')}, " if outcome.mean_test_accuracy is not None and seeds > 1 else ""
    )
    detail = f"95 % interval {format_interval(test)}, {mean}measured once on {plural(images, 'test image')}."
    detail += f" Always the most frequent class: {format_percent(outcome.majority_accuracy)}."
    if registered := registered_phrase(outcome):
        detail += f" {registered[0].upper()}{registered[1:]}."
    return Tile(
        title="Test accuracy",
        figure=f"{100 * test.estimate:.1f}",
        unit="%",
        detail=detail,
        scale=_accuracy_scale(test, outcome),
    )


def _accuracy_scale(test: Interval, outcome: Outcome) -> Scale:
    baseline = outcome.main_baseline
    accuracies = baseline.test_accuracies if baseline else ()
    mark = sum(accuracies) / len(accuracies) if accuracies else 1.0
    low, high = min(test.low, mark), max(test.high, mark)
    margin = 0.15 * (high - low) or 0.01
    return Scale(
        test, low - margin, high + margin, mark, _name(baseline, mark) if baseline and accuracies else "100 %"
    )


def _name(baseline: Baseline, mark: float) -> str:
    return f"{BASELINE_SOURCES.get(baseline.method, baseline.method)} {format_percent(mark)}"


_ORIGINS = {**BASELINE_SOURCES, "scratch": "random weights"}


def _over_probe(outcome: Outcome | None) -> Tile | None:
    """Return what the winner gains over the frozen probe; None without a probe."""
    word = probe_verdict(outcome) if outcome else None
    if outcome is None or word is None or outcome.probe is None:
        return None
    verdict, gain = PROBE_VERDICTS[word], outcome.probe_gain
    title = "Gain over the frozen probe"
    if gain is None:
        found = over_probe_phrase(outcome.selection)
        detail = "The winner is a logistic regression on the frozen features" + (
            f"; {found}." if found else "."
        )
        return Tile(title, "0", "points", detail, verdict.title, verdict.tone)
    mean = sum(outcome.probe.test_accuracies) / len(outcome.probe.test_accuracies)
    return Tile(
        title=title,
        figure=format_points(gain.estimate),
        unit="points",
        detail=f"95 % interval {format_points(gain.low)} to {format_points(gain.high)}, against a logistic regression "
        f"on the frozen features ({format_percent(mean)}), trained on the same images.",
        verdict=verdict.title,
        tone=verdict.tone,
        scale=_gain_scale(gain),
    )


def _gain_scale(gain: Interval) -> Scale:
    # The line always shows 0, to which the interval is compared.
    low, high = min(gain.low, 0.0), max(gain.high, 0.0)
    margin = 0.15 * (high - low) or 0.01
    return Scale(gain, low - margin, high + margin, 0.0, "no gain")


def _gain(outcome: Outcome | None) -> Tile:
    baseline = outcome.main_baseline if outcome else None
    title = f"Transfer gain over {BASELINE_SOURCES.get(baseline.method, baseline.method) if baseline else 'scratch'}"
    if outcome is None:
        return Tile(title, "–", "", "It is known once the winner and the baseline have been tested.")
    if outcome.gain is None or baseline is None:
        return Tile(title, "–", "", "There is nothing to compare with.", "No verdict: no baseline was run")
    gain = outcome.gain
    verdict = VERDICTS.get(outcome.verdict or "")
    seeds = min(len(outcome.seed_test_accuracies), len(baseline.test_accuracies))
    over = (
        f"mean of {seeds} seeds"
        if seeds >= MIN_SEEDS
        else "over test images only: one training run cannot show the variance between seeds (--confirm-seeds 3)"
    )
    return Tile(
        title=title,
        figure=format_points(gain.estimate),
        unit="points",
        detail=f"95 % interval {format_points(gain.low)} to {format_points(gain.high)}, {over}, against the best of "
        f"{plural(baseline.trials, 'trial')} from {_ORIGINS.get(baseline.method, baseline.method)}.",
        verdict=verdict.title if verdict else "No verdict",
        tone=verdict.tone if verdict else "plain",
        scale=_gain_scale(gain),
    )


def _cost(record: SearchRecord) -> Tile:
    finished = sum(t.finished for t in record.trials)
    epochs = sum(len(t.epochs) for t in record.trials)
    each = f"{format_duration(record.elapsed / finished)} a trial, " if finished else ""
    detail = f"{plural(finished, 'trial')}: {each}{plural(epochs, 'epoch')} in all."
    if record.outcome is not None and record.outcome.seconds > 0:
        detail += f" Re-training and testing the winner: {format_duration(record.outcome.seconds)}."
    if record.outcome is not None and record.outcome.footprint is not None:
        detail += f" Serving it: {_serving(record.outcome.footprint)}."
    return Tile("Cost", format_duration(record.elapsed), "", detail)


def _serving(footprint: Footprint) -> str:
    return f"{footprint.latency.median:.3g} ms for an image, {format_size(footprint.file_bytes)}"

"""Draw the winner's test accuracy against that of the frozen probe and of the baselines."""

from __future__ import annotations

import altair as alt

from search.config.choices import BASELINE_SOURCES, baseline_phrase
from search.records.formatting import format_points, plural
from search.records.record import Outcome, SearchRecord
from search.report.analysis.wording import format_percent, join_words
from search.report.charts.axes import ACCENT, INK, MUTED, PAPER
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param

KEY = "comparison"
TITLE = "Transfer against its baselines"

_EXPLAINED = {
    "scratch": "the same architecture from random weights",
    "finetune": "fine-tuning on the target without the source",
    "source": "fine-tuning on the source without the target",
}


def comparison(record: SearchRecord) -> Figure:
    """Draw the test accuracy of each seed, with transfer and of the baselines."""
    outcome = record.outcome
    if outcome is None:
        return empty_figure(KEY, TITLE, "The winner has not been measured on the test images yet.")
    others = _references(outcome)
    if not others:
        return empty_figure(KEY, TITLE, "No baseline was run, so what transfer gained is not known.")
    return Figure(
        key=KEY,
        title=_title(outcome),
        caption=f"Test accuracy of each seed; the vertical line is the mean. {_explanation(outcome)}",
        alternative=f"Test accuracy of the winner: {_in_words(outcome.seed_test_accuracies)}"
        + "".join(f"; {name}: {_in_words(accuracies)}" for name, accuracies in others.items())
        + ".",
        spec=compiled(_chart(outcome), 70 + 20 * (1 + len(others))),
    )


def _title(outcome: Outcome) -> str:
    gain, baseline = outcome.gain, outcome.main_baseline
    if gain is None or baseline is None:
        return TITLE
    other = baseline_phrase(baseline.method)
    if outcome.verdict == "negative transfer":
        return f"{other.capitalize()} is better: transfer costs {format_points(-gain.estimate).lstrip('+')} points"
    if outcome.verdict == "helps":
        return f"Transfer gains {format_points(gain.estimate).lstrip('+')} points over {other}"
    return f"Transfer and {other} do not differ significantly on this test"


def _references(outcome: Outcome) -> dict[str, tuple[float, ...]]:
    """Return the accuracies of the frozen probe, unless it won, and of the baselines by their names."""
    probe, main = outcome.probe, outcome.main_baseline
    found = {"frozen probe": probe.test_accuracies} if probe is not None and not outcome.probe_won else {}
    baselines = outcome.baselines or ((main,) if main is not None and main.test_accuracies else ())
    return found | {f"from {BASELINE_SOURCES[b.method]}": b.test_accuracies for b in baselines}


def _explanation(outcome: Outcome) -> str:
    sentences, main = [], outcome.main_baseline
    if outcome.probe is not None and not outcome.probe_won:
        sentences.append(
            "The frozen probe is a logistic regression on the features of the untouched backbone."
        )
    if main is not None and main.test_accuracies:
        words = [_EXPLAINED[b.method] for b in outcome.baselines or (main,)]
        known = f"{'The baseline' if len(words) == 1 else 'Baselines'}: {join_words(words)}"
        sentences.append(f"{known}, at the best of {plural(main.trials, 'trial')}.")
    return " ".join(sentences)


def _in_words(values: tuple[float, ...]) -> str:
    return join_words([format_percent(value) for value in values])


def _chart(outcome: Outcome) -> alt.LayerChart:
    groups = {"winner": outcome.seed_test_accuracies, **_references(outcome)}
    rows = [
        {"group": group, "accuracy": value, "seed": place, "shown": format_percent(value)}
        for group, values in groups.items()
        for place, value in enumerate(values)
    ]
    axis = alt.Axis(format=".3~p", tickCount=6)
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("group:N", sort=None, title=None).axis(ticks=False, domain=False, labelColor=INK),
        x=alt.X(
            "accuracy:Q", title="test accuracy", axis=axis, scale=alt.Scale(zero=False, nice=True, padding=16)
        ),
    )
    colour = alt.when("datum.group === 'winner'").then(alt.value(ACCENT)).otherwise(alt.value(MUTED))
    dots = base.mark_point(filled=True, size=110, opacity=0.85, stroke=PAPER, strokeWidth=1).encode(
        fill=colour,
        tooltip=[alt.Tooltip("group:N", title="trained by"), alt.Tooltip("shown:N", title="test accuracy")],
    )
    means = base.mark_tick(thickness=2, size=30, opacity=1).encode(x="mean(accuracy):Q", color=colour)
    return alt.layer(means, dots).add_params(focus_param())

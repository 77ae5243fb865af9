"""Draw the winner's test accuracy against that of the baselines."""

from __future__ import annotations

import altair as alt

from search.config.choices import BASELINE_SOURCES, baseline_phrase
from search.records.formatting import format_points, plural
from search.records.record import Baseline, Outcome, SearchRecord
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
    baseline = outcome.main_baseline
    if baseline is None or not baseline.test_accuracies:
        return empty_figure(KEY, TITLE, "No baseline was run, so what transfer gained is not known.")
    return Figure(
        key=KEY,
        title=_title(outcome),
        caption="Test accuracy of each seed; the vertical line is the mean. "
        f"{_baselines(outcome, baseline)}, at the best of {plural(baseline.trials, 'trial')}.",
        alternative=f"Test accuracy with transfer: {_in_words(outcome.seed_test_accuracies)}"
        + "".join(
            f"; from {BASELINE_SOURCES[b.method]}: {_in_words(b.test_accuracies)}"
            for b in _all(outcome, baseline)
        )
        + ".",
        spec=compiled(_chart(outcome), 110),
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


def _all(outcome: Outcome, baseline: Baseline) -> tuple[Baseline, ...]:
    return outcome.baselines or (baseline,)


def _baselines(outcome: Outcome, baseline: Baseline) -> str:
    words = [_EXPLAINED[b.method] for b in _all(outcome, baseline)]
    return f"{'The baseline' if len(words) == 1 else 'Baselines'}: {join_words(words)}"


def _in_words(values: tuple[float, ...]) -> str:
    return join_words([format_percent(value) for value in values])


def _chart(outcome: Outcome) -> alt.LayerChart:
    groups = {"transfer": outcome.seed_test_accuracies}
    if outcome.main_baseline is not None:
        groups |= {
            BASELINE_SOURCES[b.method]: b.test_accuracies for b in _all(outcome, outcome.main_baseline)
        }
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
    colour = alt.when("datum.group === 'transfer'").then(alt.value(ACCENT)).otherwise(alt.value(MUTED))
    dots = base.mark_point(filled=True, size=110, opacity=0.85, stroke=PAPER, strokeWidth=1).encode(
        fill=colour,
        tooltip=[alt.Tooltip("group:N", title="trained by"), alt.Tooltip("shown:N", title="test accuracy")],
    )
    means = base.mark_tick(thickness=2, size=30, opacity=1).encode(x="mean(accuracy):Q", color=colour)
    return alt.layer(means, dots).add_params(focus_param())

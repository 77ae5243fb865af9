"""The winner against the baseline that transfers nothing."""

from __future__ import annotations

import altair as alt

from search.phrases import plural, points
from search.record import Outcome, SearchRecord
from search.report.charts.figure import Figure, compiled, focus_param, nothing
from search.report.theme import ACCENT, INK, MUTED, PAPER
from search.report.words import listing, percent

KEY = "comparison"
TITLE = "Transfer against scratch"


def comparison(record: SearchRecord) -> Figure:
    """Test accuracy of each seed, with transfer and from scratch."""
    outcome = record.outcome
    if outcome is None:
        return nothing(KEY, TITLE, "The winner has not been measured on the test images yet.")
    if not outcome.scratch_test_accuracies:
        return nothing(KEY, TITLE, "No baseline was run, so what transfer gained is not known.")
    return Figure(
        key=KEY,
        title=_lesson(outcome),
        caption="Test accuracy of each seed; the upright line is the mean. The baseline trains the same "
        f"architecture from random weights, at the best of {plural(outcome.scratch_trials, 'trial')}.",
        alternative=f"Test accuracy with transfer: {_spoken(outcome.seed_test_accuracies)}; from scratch: "
        f"{_spoken(outcome.scratch_test_accuracies)}.",
        spec=compiled(_chart(outcome), 110),
    )


def _lesson(outcome: Outcome) -> str:
    gain = outcome.gain
    if gain is None:
        return TITLE
    if outcome.verdict == "negative transfer":
        return (
            f"Training from scratch does better: transfer costs {points(-gain.estimate).lstrip('+')} points"
        )
    if outcome.verdict == "helps":
        return f"Transfer gains {points(gain.estimate).lstrip('+')} points over training from scratch"
    return "Transfer and training from scratch can't be told apart on this test"


def _spoken(values: tuple[float, ...]) -> str:
    return listing([percent(value) for value in values])


def _chart(outcome: Outcome) -> alt.LayerChart:
    groups = {"transfer": outcome.seed_test_accuracies, "scratch": outcome.scratch_test_accuracies}
    rows = [
        {"group": group, "accuracy": value, "seed": place, "said": percent(value)}
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
        tooltip=[alt.Tooltip("group:N", title="trained by"), alt.Tooltip("said:N", title="test accuracy")],
    )
    means = base.mark_tick(thickness=2, size=30, opacity=1).encode(x="mean(accuracy):Q", color=colour)
    return alt.layer(means, dots).add_params(focus_param())

"""Draw parallel coordinates: every trial is a line through its parameters to its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from search.records.formatting import plural
from search.records.record import SearchRecord, TrialRecord
from search.report.analysis.ranking import ranked, tones, winner
from search.report.analysis.wording import format_parameter, join_words, label
from search.report.charts.figure import Figure, empty_figure, json_representable, without_schema
from search.report.charts.parallel_spec import UNUSED, Axis, objective_axis, parallel_spec, parameter_axes

KEY = "parallel"
TITLE = "What good trials have in common"
AXIS_WIDTH = 84


def parallel(record: SearchRecord) -> Figure:
    """Draw a line for each trial that has a value, over one axis per parameter and one for the objective."""
    trials = ranked(record)
    parameters = parameter_axes(record, trials)
    if not trials or not parameters:
        return empty_figure(KEY, TITLE, "No trial with parameters has reached a value yet.")
    axes = [*parameters, objective_axis(record, trials)]
    spec = parallel_spec(axes, _rows(record, trials, axes), _best_quarter(trials, axes[-1]))
    return Figure(
        key=KEY,
        by_trial=True,
        title=_title(trials, parameters),
        caption="One line per trial, from its parameters to its value. Drag along an axis to keep only the "
        "trials that pass there, double-click it to reset; the table of trials below shows the same trials.",
        alternative=f"Parallel coordinates of {plural(len(trials), 'trial')} over "
        f"{join_words([axis.label for axis in axes])}. {_title(trials, parameters)}.",
        spec=without_schema(json_representable(spec)),
        tones=("worst trial", "best trial"),
        min_width=AXIS_WIDTH * len(axes),
    )


def _title(trials: Sequence[TrialRecord], parameters: Sequence[Axis]) -> str:
    """Return a title that names the parameter on which the best quarter of the trials agrees most."""
    best = trials[: max(2, len(trials) // 4)]
    spreads = [(_spread(axis, best), axis.name) for axis in parameters if _is_shared(axis, best)]
    if len(trials) < 8 or not spreads:
        return TITLE
    spread, name = min(spreads)
    values = sorted(t.params[name] for t in best)
    shown = [format_parameter(name, value) for value in values]
    if spread > 0.6:
        return f"The best {len(best)} trials are spread over the whole space"
    if values[0] == values[-1]:
        return f"The best {len(best)} trials all have {label(name)} {shown[0]}"
    return f"The best {len(best)} trials all have {label(name)} from {shown[0]} to {shown[-1]}"


def _is_shared(axis: Axis, trials: Sequence[TrialRecord]) -> bool:
    """Return whether all ``trials`` have a number on ``axis`` and the axis has several values."""
    values = [t.params.get(axis.name) for t in trials]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return numeric and len(axis.domain) > 1


def _spread(axis: Axis, trials: Sequence[TrialRecord]) -> float:
    places = [axis.places[t.number] for t in trials]
    return max(places) - min(places)


def _rows(record: SearchRecord, trials: Sequence[TrialRecord], axes: Sequence[Axis]) -> list[dict[str, Any]]:
    tone, won = tones(record), winner(record)
    return [
        {
            "trial": t.number,
            "tone": tone[t.number],
            "won": won is not None and t.number == won.number,
            **{f"a{place}": round(axis.places.get(t.number, UNUSED), 4) for place, axis in enumerate(axes)},
        }
        # The best trials come last, so that they are drawn on top.
        for t in reversed(trials)
    ]


def _best_quarter(trials: Sequence[TrialRecord], axis: Axis) -> list[float]:
    places = sorted(axis.places[t.number] for t in trials[: max(1, len(trials) // 4)])
    # The bounds are widened, so that rounding does not exclude the trials on them.
    return [places[0] - 0.001, places[-1] + 0.001]

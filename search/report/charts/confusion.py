"""Draw the winner's confusion matrix on the test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from search.records.formatting import plural
from search.records.record import Outcome, SearchRecord
from search.report.analysis.wording import format_percent, join_words
from search.report.charts.axes import ACCENT, INK, PAPER, RULE, WRONG
from search.report.charts.figure import Figure, compiled, empty_figure, focus_param

KEY = "confusion"
TITLE = "Which classes it confuses"
MAX_CLASSES = 120
"""With more classes than this, only those with the most mistakes are drawn."""
COUNTED_CLASSES = 20
LABELLED_CLASSES = 40


def confusion(record: SearchRecord) -> Figure:
    """Draw the test images by true and predicted class."""
    outcome = record.outcome
    if outcome is None or not any(map(any, outcome.confusion)):
        return empty_figure(KEY, TITLE, "The winner has not been measured on the test images yet.")
    names, shown = record.task.classes, _shown(outcome)
    size = _side(len(shown))
    return Figure(
        key=KEY,
        title=_title(outcome, names),
        caption=_caption(len(names), len(shown)),
        alternative=_alternative(outcome, names),
        spec=compiled(_chart(outcome, names, shown), size),
        max_width=size + 190,
    )


def mistakes(outcome: Outcome) -> list[tuple[int, int, int]]:
    """Return (true class, predicted class, number of images) for every confusion, the most frequent first."""
    pairs = [
        (truth, guess, images)
        for truth, row in enumerate(outcome.confusion)
        for guess, images in enumerate(row)
        if images and truth != guess
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _title(outcome: Outcome, names: Sequence[str]) -> str:
    wrong = mistakes(outcome)
    if not wrong:
        return "It made no mistake on the test images"
    truth, guess, images = wrong[0]
    if images == 1:
        return "It confuses no two classes more than once"
    return f"The most frequent mistake: “{_short(names[truth])}” predicted as “{_short(names[guess])}”, {images} times"


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:39] + "…"


def _caption(classes: int, shown: int) -> str:
    words = (
        "Rows are the true class, columns the predicted class. Blue is correct, orange is wrong; the fuller "
    )
    words += "the colour, the larger the share of the row."
    return words + (f" The {shown} of {classes} classes with the most mistakes." if shown < classes else "")


def _alternative(outcome: Outcome, names: Sequence[str]) -> str:
    total = sum(map(sum, outcome.confusion))
    wrong = mistakes(outcome)
    description = [f"{_short(names[t])} as {_short(names[g])} {n}" for t, g, n in wrong[:5]]
    most = f" Most often: {join_words(description)}." if description else ""
    mistaken = plural(sum(images for *_, images in wrong), "mistake")
    return f"Confusion matrix: {mistaken} in {plural(total, 'test image')}.{most}"


def _shown(outcome: Outcome) -> list[int]:
    """Return the classes to draw, in their order."""
    classes = range(len(outcome.confusion))
    if len(classes) <= MAX_CLASSES:
        return list(classes)
    wrong = dict.fromkeys(classes, 0)
    for truth, guess, images in mistakes(outcome):
        wrong[truth] += images
        wrong[guess] += images
    # Half of MAX_CLASSES: with more than that, the labels would be unreadable anyway.
    return sorted(sorted(classes, key=lambda c: (-wrong[c], c))[: MAX_CLASSES // 2])


def _side(classes: int) -> int:
    return min(max(classes * 36, 200), 520)


def _chart(outcome: Outcome, names: Sequence[str], shown: Sequence[int]) -> Any:
    short = [_short(names[c]) for c in shown]
    base = alt.Chart(alt.Data(values=_cells(outcome, names, shown))).encode(**_position(short))
    cells = base.mark_rect(strokeWidth=0).encode(
        fill=alt.when("datum.right").then(alt.value(ACCENT)).otherwise(alt.value(WRONG)),
        fillOpacity=alt.FillOpacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
        tooltip=[f"{name}:N" for name in ("true", "predicted", "images", "share")],
    )
    layers = [cells, *([_counts(base)] if len(shown) <= COUNTED_CLASSES else [])]
    frame = alt.ViewBackground(stroke=None if len(shown) <= LABELLED_CLASSES else RULE)
    return (
        alt.layer(*layers)
        .properties(view=frame)
        .add_params(focus_param(), alt.param(name="names", value=short))
    )


def _position(names: Sequence[str]) -> dict[str, Any]:
    """Return the axes: true classes downwards, predicted classes to the right.

    Classes are identified by their index, since two classes may have the same name.
    """
    labelled = len(names) <= LABELLED_CLASSES
    slanted = -45 if max(map(len, names)) > 3 else 0
    scale = alt.Scale(domain=list(range(len(names))), paddingInner=0.04 if labelled else 0)
    axis = {"labels": labelled, "ticks": False, "domain": False, "labelExpr": "names[datum.value]"}
    axis |= {"labelLimit": 140, "labelPadding": 6}
    return {
        "x": alt.X("guess:O", title="predicted", scale=scale).axis(**axis, labelAngle=slanted),
        "y": alt.Y("truth:O", title="true", scale=scale).axis(**axis),
    }


def _counts(base: alt.Chart) -> alt.Chart:
    colour = alt.when("datum.strength > 0.55").then(alt.value(PAPER)).otherwise(alt.value(INK))
    return base.mark_text(fontSize=11, tooltip=None).encode(text="images:Q", fill=colour)


def _cells(outcome: Outcome, names: Sequence[str], shown: Sequence[int]) -> list[dict[str, Any]]:
    """Return the cells with images; ``strength`` is the share of the row, stretched to show single images."""
    rows = []
    for y, truth in enumerate(shown):
        total = sum(outcome.confusion[truth]) or 1
        for x, guess in enumerate(shown):
            images = outcome.confusion[truth][guess]
            if images:
                share = images / total
                # On the diagonal, the square separates 95 % from 99 %. Off the diagonal, the square root makes a
                # single mistake visible.
                strength = 0.15 + 0.85 * (share**2 if truth == guess else min(1.0, math.sqrt(2 * share)))
                rows.append(
                    {"truth": y, "guess": x, "images": images, "right": truth == guess}
                    | {"strength": round(strength, 3), "share": format_percent(share)}
                    | {"true": _short(names[truth]), "predicted": _short(names[guess])}
                )
    return rows

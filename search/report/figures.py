"""Collect all figures of the report, in their order."""

from __future__ import annotations

from contextlib import nullcontext

from search.records.record import SearchRecord
from search.report.charts.anytime import anytime_curve
from search.report.charts.calibration import calibration
from search.report.charts.comparison import comparison
from search.report.charts.confusion import confusion
from search.report.charts.curves import curves
from search.report.charts.figure import Figure, unchecked
from search.report.charts.front import front
from search.report.charts.history import history
from search.report.charts.landscape import landscape
from search.report.charts.parallel import parallel
from search.report.charts.parameters import importance, slices
from search.report.charts.stages import stages

_BEFORE = (history, anytime_curve, curves, importance, landscape, parallel)
_AFTER = (comparison, confusion, calibration, stages)


def figures(record: SearchRecord, checked: bool = False) -> dict[str, Figure]:
    """Return the figures by their keys; figures of which there may be several are numbered: ``slice-0``, …

    Args:
        record: the search.
        checked: validate every part against the schema of Vega-Lite, which takes as long as the drawing.
    """
    with nullcontext() if checked else unchecked():
        drawn = [
            *([front(record)] if record.objectives else []),
            *(draw(record) for draw in _BEFORE),
            *slices(record),
            *(draw(record) for draw in _AFTER),
        ]
    return {figure.key: figure for figure in drawn}

"""Figures skip Altair's validation with a private function of Altair, which must still exist and work."""

from __future__ import annotations

import altair as alt
import pytest

from search.report.charts.figure import compiled, unchecked

INVALID = "no such type"


def chart() -> alt.Chart:
    return alt.Chart(alt.Data(values=[{"a": 1}])).mark_point().encode(x=alt.X("a:Q", aggregate=INVALID))


def test_altair_still_has_the_private_switch_for_its_validation() -> None:
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):
        chart().to_dict(validate=False)


def test_charts_are_validated_unless_they_are_drawn_unchecked() -> None:
    with unchecked():
        chart()
    with pytest.raises(alt.utils.schemapi.SchemaValidationError):
        compiled(chart(), 100)

"""Render the HTML page of the report from its templates."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from search.records.cost import cost_rows, search_cost, trial_cost_lines
from search.records.formatting import plural
from search.records.record import ErrorExample, SearchRecord
from search.records.units import format_duration
from search.report.analysis.ranking import without_non_finite_values
from search.report.analysis.wording import format_percent, label
from search.report.candidates import HEADINGS, candidates
from search.report.charts.confusion import mistakes
from search.report.charts.figure import VEGA_LITE
from search.report.charts.parameters import SLICE_KEY
from search.report.charts.stages import stage_totals
from search.report.figures import figures
from search.report.headline import headline
from search.report.next_steps import next_steps
from search.report.notices import notices
from search.report.provenance import provenance
from search.report.trial_table import trial_table

MAX_EXAMPLES = 16
MAX_MISTAKES = 10
_TEMPLATES = Path(__file__).with_name("templates")
_ENDS_SCRIPT = re.compile(r"<(/script|!--)", re.IGNORECASE)


def render(record: SearchRecord) -> str:
    """Return the report on ``record`` as one HTML document."""
    known = without_non_finite_values(record)
    drawn = figures(known)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            record=known,
            headline=headline(known),
            candidates=candidates(known),
            candidate_headings=HEADINGS,
            notices=notices(known),
            steps=next_steps(known),
            figures=drawn,
            metric=label(known.metric),
            slices=[figure for key, figure in drawn.items() if key.startswith(SLICE_KEY)],
            stages=stage_totals(known),
            cost=cost_rows(search_cost(known)),
            cost_lines=trial_cost_lines(known),
            examples=_examples(known),
            examples_title=_examples_title(known),
            mistakes=_mistakes(known),
            table=trial_table(known),
            provenance=provenance(known),
            style=_asset("style.css"),
            script=_asset("report.js"),
            vega=_vega() if any(figure.spec for figure in drawn.values()) else "",
        )
    )


def preload() -> None:
    """Prepare what takes long and is the same for all searches: the JavaScript bundle and the Vega-Lite compiler."""
    _vega()
    vl_convert.vegalite_to_vega({"mark": "point", "data": {"values": [{}]}}, vl_version=VEGA_LITE)


def _examples(record: SearchRecord) -> list[ErrorExample]:
    """Return the mistakes, the most confident first, then correct predictions."""
    examples: Sequence[ErrorExample] = record.outcome.examples if record.outcome else ()
    wrong = sorted((e for e in examples if not e.correct), key=lambda e: -e.probability)
    right = [e for e in examples if e.correct]
    return [*wrong[: MAX_EXAMPLES // 2], *right[: MAX_EXAMPLES // 2]]


def _mistakes(record: SearchRecord) -> list[tuple[str, str, int]]:
    """Return (true class, predicted class, number of images) for the most frequent confusions."""
    names = record.task.classes
    pairs = mistakes(record.outcome) if record.outcome else []
    return [(names[truth], names[guess], images) for truth, guess, images in pairs[:MAX_MISTAKES]]


def _examples_title(record: SearchRecord) -> str:
    outcome = record.outcome
    if outcome is None or not outcome.examples:
        return "Test images"
    shown = _examples(record)
    wrong = sum(not example.correct for example in shown)
    if wrong == 0:
        return "Test images that it classified correctly"
    most_confident = format_percent(shown[0].probability, 0)
    every = plural(max(wrong, sum(images for *_, images in mistakes(outcome))), "mistake")
    return (
        f"{wrong} of its {every}, the most confident first ({most_confident}), and some correct predictions"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # allow_nan=False: a NaN in a figure must fail here and not break the page's script.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {"percent": format_percent, "duration": format_duration, "data_uri": _data_uri}
    return environment


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _asset(name: str) -> Markup:
    return _inline((_TEMPLATES / name).read_text("utf-8"))


@cache
def _vega() -> Markup:
    """Return the JavaScript library that draws the figures.

    Only Vega-Embed is exported to the page: in the bundle of vl-convert 1.9, Vega itself is null to other scripts.
    """
    return _inline(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _inline(source: str) -> Markup:
    """Escape ``source`` so that nothing in it closes the element in which it is embedded."""
    return Markup(_ENDS_SCRIPT.sub(r"<\\\1", source))

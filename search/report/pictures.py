"""Write the report's figures as PNG files, in the light colours of the page."""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from PIL import Image

from search.records.atomic_file import write_bytes
from search.records.record import SearchRecord
from search.report.analysis.ranking import TONES, without_non_finite_values
from search.report.charts.axes import INK, MUTED, TONE_RANGE
from search.report.charts.figure import Figure
from search.report.charts.parameters import SLICE_KEY
from search.report.figures import figures

SCALE = 2.0
"""Pixels of a picture per pixel of the page."""

WIDTH, NARROW, NARROWEST = 860, 460, 360
"""Widths in pixels of the page: of a figure, of one that takes half the page, and the minimum."""

HALF_WIDTH_FIGURES = frozenset({"importance", "landscape", "confusion", "calibration"})
LETTER_WIDTH = 8.0
"""Approximate width of a letter of a title, in pixels."""

_STYLE = Path(__file__).with_name("templates") / "style.css"
_VARIABLE = re.compile(r"var\((--[\w-]+)\)")


def write_pictures(record: SearchRecord, folder: Path) -> list[Path]:
    """Write a PNG file into ``folder`` for each figure that can be drawn; the folder is created if needed.

    Raises:
        OSError: the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, png in pictures(record):
        path = folder / f"{name}.png"
        write_bytes(path, png)
        written.append(path)
    return written


def pictures(record: SearchRecord) -> Iterator[tuple[str, bytes]]:
    """Yield (name, PNG) for each figure that can be drawn."""
    for key, figure in figures(without_non_finite_values(record)).items():
        if figure.spec is not None:
            yield key, reduce_colours(vl_convert.vega_to_png(standalone_spec(figure), scale=SCALE))


def reduce_colours(png: bytes) -> bytes:
    """Return the picture in 128 colours: a third of the size, without a visible difference."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()


def standalone_spec(figure: Figure, widest: int | None = None) -> dict[str, Any]:
    """Return a figure's specification with its own width, colours, title and legend, for use outside the page.

    Args:
        figure: a figure that can be drawn.
        widest: maximum width of the picture, in pixels of the page; by default what suits the figure.
    """
    # Without a page there are no CSS variables: put in the colours themselves.
    text = _VARIABLE.sub(lambda found: _colours()[found[1]], json.dumps(figure.spec))
    spec: dict[str, Any] = json.loads(text)
    width = _width(figure) if widest is None else min(_width(figure), widest)
    spec["signals"] = [_fixed(signal, width) for signal in spec.get("signals", [])]
    spec["width"] = width
    spec["background"] = _colours()["--surface"]
    spec["padding"] = {"left": 16, "right": 20, "top": 14, "bottom": 14}
    spec["title"] = {
        "text": textwrap.wrap(figure.standalone_title or figure.title, int(width / LETTER_WIDTH)),
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 15,
        "fontWeight": 600,
        "color": _coloured(INK),
        "offset": 14,
    }
    return _with_legend(spec, figure)


def _width(figure: Figure) -> int:
    half = figure.key in HALF_WIDTH_FIGURES or figure.key.startswith(SLICE_KEY)
    whole = NARROW if half else max(WIDTH, figure.min_width)
    return max(min(whole, figure.max_width or whole), NARROWEST)


def _fixed(signal: dict[str, Any], width: int) -> dict[str, Any]:
    """Replace the signal of the width by a constant: in the page, the width follows the figure's container."""
    return {"name": "width", "value": width} if signal.get("name") == "width" else signal


def _with_legend(spec: dict[str, Any], figure: Figure) -> dict[str, Any]:
    """Add what the page shows next to a figure: the names of the colours, or the ends of the colour scale."""
    if figure.legend:
        names, colours = zip(*figure.legend, strict=True)
        scale = {"name": "page_legend", "type": "ordinal", "domain": names, "range": colours}
        legend: dict[str, Any] = {"fill": "page_legend", "columns": 5}
    elif figure.tones:
        scale = {"name": "page_legend", "type": "ordinal", "domain": [*range(TONES)], "range": TONE_RANGE}
        last = TONES - 1
        words = f"datum.value == 0 ? {json.dumps(figure.tones[0])} : datum.value == {last} ? "
        words += f"{json.dumps(figure.tones[1])} : ''"
        legend = {"fill": "page_legend", "columns": TONES, "columnPadding": 4}
        legend |= {"encode": {"labels": {"update": {"text": {"signal": words}}}}}
    else:
        return spec
    legend |= {"orient": "bottom", "direction": "horizontal", "symbolType": "square", "symbolStrokeWidth": 0}
    legend |= {"labelColor": _coloured(MUTED)}
    scale["range"] = [_coloured(colour) for colour in scale["range"]]
    return {**spec, "scales": [*spec.get("scales", []), scale], "legends": [*spec.get("legends", []), legend]}


def _coloured(name: str) -> str:
    return _VARIABLE.sub(lambda found: _colours()[found[1]], name)


@cache
def _colours() -> Mapping[str, str]:
    """Return the page's light colours by the names of their CSS variables."""
    # The dark colours follow in a media query, and use the same variables.
    light = _STYLE.read_text("utf-8").partition("@media")[0]
    return dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]+)", light))

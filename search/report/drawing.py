"""A figure of the report as a picture by itself, for where there is no page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert
from PIL import Image

from search.record import SearchRecord
from search.report.charts.figure import Figure
from search.report.page import FIGURES
from search.report.ranking import with_numbers_only
from trainables.errors import UsageError

WIDTH = 760
"""Pixels: what a notebook has room for."""

_VARIABLE = re.compile(r"var\((--[a-z0-9-]+)\)")
_STYLE = Path(__file__).with_name("templates") / "style.css"


@dataclass(frozen=True)
class Drawing:
    """A figure on white paper with its title; notebooks show it as an image."""

    figure: Figure
    width: int = WIDTH

    def __repr__(self) -> str:
        return f"{self.figure.title}. {self.figure.caption}"

    def svg(self) -> str | None:
        """The picture as SVG; None where there is nothing to draw (:attr:`Figure.caption` says why)."""
        spec = self._spec()
        return None if spec is None else str(vl_convert.vega_to_svg(spec))

    def png(self, scale: float = 2) -> bytes | None:
        """The picture as PNG with ``scale`` pixels a point; None where there is nothing to draw."""
        spec = self._spec()
        return None if spec is None else _smaller(vl_convert.vega_to_png(spec, scale=scale))

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        image = self.png()
        return None if image is None else (image, {"width": self.width})

    def _spec(self) -> dict[str, Any] | None:
        if self.figure.spec is None:
            return None
        spec = _coloured(self.figure.spec)
        width = min(self.width, self.figure.max_width or self.width)
        # The width of the element around it, on a page.
        signals = [s for s in spec.get("signals", []) if s.get("name") != "width"]
        title = {"text": self.figure.title, "anchor": "start", "fontSize": 14, "offset": 12}
        paper = {"background": "white", "padding": 10, "autosize": {"type": "fit-x", "contains": "padding"}}
        return {**spec, **paper, "signals": signals, "width": width, "title": title}


def drawing(record: SearchRecord, key: str, width: int = WIDTH) -> Drawing:
    """The report's figure ``key`` (``history``, ``curves``, …) of a search, ``width`` pixels wide.

    Raises:
        UsageError: there is no such figure.
    """
    known = with_numbers_only(record)
    makers = {maker.__name__: maker for maker in FIGURES}
    if key not in makers:
        raise UsageError(f"figure: expected one of {', '.join(makers)}, received {key!r}")
    return Drawing(makers[key](known), width)


def _smaller(png: bytes) -> bytes:
    """The same in 128 colours: a third of the size, and no difference to be seen."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _coloured(value: Any) -> Any:
    """``value`` with the page's colours in place of their names, which only a page knows."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: _light().get(found[1], "black"), value)
    if isinstance(value, Mapping):
        return {name: _coloured(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_coloured(part) for part in value]
    return value


@cache
def _light() -> Mapping[str, str]:
    """The colours of the report in daylight: the first that its style sheet names."""
    first = _STYLE.read_text("utf-8").partition("}")[0]
    return dict(re.findall(r"(--[a-z0-9-]+):\s*([^;]+);", first))

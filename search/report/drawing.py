"""Draw a figure of the report as a stand-alone picture, for a notebook."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import vl_convert
from PIL import Image

from search.records.record import SearchRecord
from search.report.analysis.ranking import without_non_finite_values
from search.report.charts.figure import Figure
from search.report.figures import figures
from search.report.pictures import reduce_colours, standalone_spec
from trainables.errors import UsageError

WIDTH = 760
"""Default width in pixels, which fits into a notebook."""

_SHARP = 2
"""Image pixels per pixel of the notebook's layout."""


@dataclass(frozen=True)
class Drawing:
    """A figure with its title on a white background; notebooks show it as an image."""

    figure: Figure
    width: int = WIDTH

    def __repr__(self) -> str:
        title = self.figure.standalone_title or self.figure.title
        return title if self.figure.spec is not None else f"{title}. {self.figure.caption}"

    def svg(self) -> str | None:
        """Return the picture as SVG; None if there is nothing to draw (:attr:`Figure.caption` says why)."""
        spec = self._spec()
        return None if spec is None else str(vl_convert.vega_to_svg(spec))

    def png(self, scale: float = 2) -> bytes | None:
        """Return the picture as PNG with ``scale`` pixels per point; None if there is nothing to draw."""
        spec = self._spec()
        return None if spec is None else reduce_colours(vl_convert.vega_to_png(spec, scale=scale))

    def _repr_png_(self) -> tuple[bytes, dict[str, int]] | None:
        png = self.png(_SHARP)
        if png is None:
            return None
        with Image.open(io.BytesIO(png)) as image:
            # The image has more pixels than it takes up, so that it is sharp on high-resolution screens.
            return png, {"width": image.width // _SHARP}

    def _spec(self) -> dict[str, Any] | None:
        return None if self.figure.spec is None else standalone_spec(self.figure, self.width)


def drawing(record: SearchRecord, key: str, width: int = WIDTH) -> Drawing:
    """Return the report's figure ``key`` (``history``, ``curves``, …) of a search, ``width`` pixels wide.

    Raises:
        UsageError: there is no such figure.
    """
    known = figures(without_non_finite_values(record))
    if key not in known:
        raise UsageError(f"figure: expected one of {', '.join(known)}, received {key!r}")
    return Drawing(known[key], width)

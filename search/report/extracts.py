"""What a search leaves beside its report for those who look at its run in MLflow: plots, and a few words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from search.records.record import SearchRecord
from search.report.formats import FORMATS


def extracts(record: SearchRecord, folder: Path, told: Callable[[str], object]) -> tuple[Path, ...]:
    """Write the Markdown and the plots to ``folder``; ``told`` hears of a plot that can't be drawn.

    A search that is done must not fail for want of a picture.
    """
    text, write_text = FORMATS["md"]
    plots, write_plots = FORMATS["png"]
    shutil.rmtree(folder / plots, ignore_errors=True)  # those of another set of parameters
    write_text(record, folder / text)
    try:
        write_plots(record, folder / plots)
    except ValueError as error:  # of the library that draws
        told(f"report: the plots could not be drawn: {error}")
    drawn = (folder / plots,) if (folder / plots).is_dir() else ()
    return folder / text, *drawn

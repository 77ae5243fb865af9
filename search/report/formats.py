"""List the formats of the report, and write the files that a search adds to its MLflow run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from search.records.atomic_file import write_bytes, write_text
from search.records.record import SearchRecord


def write_report(record: SearchRecord, path: Path) -> None:
    """Write the HTML page atomically; its folder is created if needed.

    The same record always gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    # Imported here, because importing Altair and vl-convert takes a second.
    from search.report.page import render

    write_bytes(path, render(record).encode("utf-8", errors="replace"))


def write_markdown(record: SearchRecord, path: Path) -> None:
    """Write the short Markdown report."""
    from search.report.markdown import markdown

    write_text(path, markdown(record))


def write_png(record: SearchRecord, path: Path) -> None:
    """Write the figures into the folder ``path``."""
    from search.report.pictures import write_pictures

    write_pictures(record, path)


REPORT_FORMATS: Mapping[str, tuple[str, Callable[[SearchRecord, Path], None]]] = {
    "html": ("report.html", write_report),
    "md": ("report.md", write_markdown),
    "png": ("plots", write_png),
}
"""By the value of ``--format``: the name in the search's folder, and the function that writes it."""


def write_run_artifacts(
    record: SearchRecord, folder: Path, notify: Callable[[str], object]
) -> tuple[Path, ...]:
    """Write the Markdown report and the plots to ``folder``, and return their paths.

    A search that has finished must not fail because a plot cannot be drawn: ``notify`` gets a message instead.
    """
    text, write_text = REPORT_FORMATS["md"]
    plots, write_plots = REPORT_FORMATS["png"]
    # An earlier run of the command may have drawn plots of other parameters, which would stay there.
    shutil.rmtree(folder / plots, ignore_errors=True)
    write_text(record, folder / text)
    try:
        write_plots(record, folder / plots)
    except ValueError as error:  # raised by vl-convert
        notify(f"report: the plots could not be drawn: {error}")
    drawn = (folder / plots,) if (folder / plots).is_dir() else ()
    return folder / text, *drawn

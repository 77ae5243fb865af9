"""The forms that a report can have, and what is written for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from search.records.atomic_file import write_text
from search.records.record import SearchRecord


def write_html(record: SearchRecord, path: Path) -> None:
    """The page."""
    from search.report import write_report

    write_report(record, path)


def write_markdown(record: SearchRecord, path: Path) -> None:
    """The short Markdown."""
    from search.report.markdown import markdown

    write_text(path, markdown(record))


def write_png(record: SearchRecord, path: Path) -> None:
    """The figures, into the folder ``path``."""
    from search.report.pictures import write_pictures

    write_pictures(record, path)


FORMATS: Mapping[str, tuple[str, Callable[[SearchRecord, Path], None]]] = {
    "html": ("report.html", write_html),
    "md": ("report.md", write_markdown),
    "png": ("plots", write_png),
}
"""By the value of ``--format``: the name in the search's folder, and what writes it."""

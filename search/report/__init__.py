"""The report: one HTML file that says what a search found, to be opened anywhere, without a network.

``page`` fills the templates from what ``headline``, ``notices``, ``trial_table`` and their neighbours say and
from the figures in ``charts``; all of them only read a :class:`~search.records.record.SearchRecord`.
"""

from __future__ import annotations

from pathlib import Path

from search.records.atomic_file import write_bytes
from search.records.record import SearchRecord


def write_report(record: SearchRecord, path: Path) -> None:
    """Write the report on ``record`` to ``path``, whole or not at all; its folder is made if need be.

    The same record gives the same bytes. Raises OSError where the file can't be written.
    """
    from search.report.page import render  # altair and vl-convert take a second to import

    write_bytes(path, render(record).encode("utf-8", errors="replace"))

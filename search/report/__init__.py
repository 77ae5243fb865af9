"""Write the report of a search: one HTML file that can be opened anywhere, without a network.

``page`` fills the templates with the texts of ``headline``, ``notices``, ``trial_table`` and the other modules, and
with the figures of ``charts``. All of them only read a :class:`~search.records.record.SearchRecord`.
"""

from __future__ import annotations

from pathlib import Path

from search.records.atomic_file import write_bytes
from search.records.record import SearchRecord


def write_report(record: SearchRecord, path: Path) -> None:
    """Write the report on ``record`` to ``path`` atomically; its folder is created if needed.

    The same record always gives the same bytes.

    Raises:
        OSError: the file cannot be written.
    """
    # Imported here, because importing Altair and vl-convert takes a second.
    from search.report.page import render

    write_bytes(path, render(record).encode("utf-8", errors="replace"))

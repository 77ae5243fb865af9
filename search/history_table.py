"""The changes of a model's champion, as ``unfreeze history`` shows them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from search.registry.promotion_history import Event


def history_table(events: Sequence[Event]) -> Table:
    """A row an event."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("#", justify="right")
    for head in ("when (UTC)", "by", "champion", "from"):
        table.add_column(head, no_wrap=head != "from")
    table.add_column("why")
    for event in events:
        table.add_row(*_row(event))
    return table


def _row(event: Event) -> tuple[str | Text, ...]:
    return (
        str(event.number),
        f"{event.when:%Y-%m-%d %H:%M}",
        event.by,
        f"{event.before or '–'} → {event.version}",
        "–" if event.search is None else f"{event.search} #{'?' if event.trial is None else event.trial}",
        _why(event),
    )


def _why(event: Event) -> Text:
    if not event.done:
        return Text("interrupted: the champion did not change", "yellow")
    if event.kind == "rolled back":
        return Text("rolled back")
    if event.forced:
        return Text(f"forced, against the gate: {event.decision}: {event.reason}", "yellow")
    return Text(f"{event.decision}: {event.reason}")

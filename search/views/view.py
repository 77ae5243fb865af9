"""Defines the :class:`View` to which a search reports its progress, and chooses the one that fits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from search.execution.cluster.node_usage import NodeUsage
from search.records.record import SearchRecord

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


class View(Protocol):
    """Shows the progress of a search.

    Calls must not block for long and must not raise. They may come from any thread.
    """

    def event(self, message: str) -> None:
        """Show a line, such as a warning or a decision."""
        ...

    def stage(self, name: str, done: int, total: int) -> None:
        """Show work other than trials, such as preparing data; ``total`` is 0 if it is not known."""
        ...

    def update(self, record: SearchRecord) -> None:
        """Show the current state of the search."""
        ...

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Show the current state of the cluster's nodes."""
        ...

    def close(self) -> None:
        """End the display; may be called more than once."""
        ...


class QuietView:
    """A view that shows nothing."""

    def event(self, message: str) -> None:
        """Show nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Show nothing."""

    def update(self, record: SearchRecord) -> None:
        """Show nothing."""

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


class GuardedView:
    """A view that forwards calls to ``view`` until one fails; then it logs the error once and shows nothing.

    A search must not fail because its display does.
    """

    def __init__(self, view: View) -> None:
        self._view = view

    def event(self, message: str) -> None:
        """Forward the call."""
        self._try(lambda: self._view.event(message))

    def stage(self, name: str, done: int, total: int) -> None:
        """Forward the call."""
        self._try(lambda: self._view.stage(name, done, total))

    def update(self, record: SearchRecord) -> None:
        """Forward the call."""
        self._try(lambda: self._view.update(record))

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Forward the call."""
        self._try(lambda: self._view.nodes(nodes))

    def close(self) -> None:
        """Forward the call."""
        self._try(self._view.close)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            failed, self._view = self._view, QuietView()
            logger.exception("the progress display failed and is off; the search goes on")
            if call != failed.close:  # a panel that stays open would garble the terminal
                self._try(failed.close)


def make_view(*, quiet: bool = False, verbose: bool = False, console: Console | None = None) -> View:
    """Choose a view: a panel on a terminal, lines of text elsewhere and with ``verbose`` logs, nothing if ``quiet``."""
    if quiet:
        return QuietView()
    from rich.console import Console

    screen = console or Console(file=sys.stderr)
    if screen.is_terminal and not screen.is_dumb_terminal and not verbose:
        from search.views.terminal import TerminalView

        return GuardedView(TerminalView(screen))
    from search.views.plain import PlainView

    return GuardedView(PlainView(screen.file))


def default_view() -> View:
    """Return the view of a search that is started from Python: live HTML in a notebook, nothing elsewhere."""
    from search.views.notebook import NotebookView, in_notebook

    return GuardedView(NotebookView()) if in_notebook() else QuietView()

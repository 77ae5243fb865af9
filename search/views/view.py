"""What a person sees while a search runs: the :class:`View` that the search reports to."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from search.execution.engines.node_usage import NodeUsage
from search.records.record import SearchRecord

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)


class View(Protocol):
    """Follows a search. No call blocks for long and none raises; all may come from any thread."""

    def event(self, message: str) -> None:
        """Something worth a line: a warning, a decision."""
        ...

    def stage(self, name: str, done: int, total: int) -> None:
        """Work other than trials, such as preparing data; ``total`` 0 where it is not known."""
        ...

    def update(self, record: SearchRecord) -> None:
        """The search as it is now."""
        ...

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """The nodes of the cluster as they are now."""
        ...

    def close(self) -> None:
        """The search is over; may be called more than once."""
        ...


class QuietView:
    """Shows nothing."""

    def event(self, message: str) -> None:
        """Nothing."""

    def stage(self, name: str, done: int, total: int) -> None:
        """Nothing."""

    def update(self, record: SearchRecord) -> None:
        """Nothing."""

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class GuardedView:
    """Passes on to ``view`` until that fails; then says so once and goes quiet: searches outlive views."""

    def __init__(self, view: View) -> None:
        self._view = view

    def event(self, message: str) -> None:
        """Pass it on."""
        self._try(lambda: self._view.event(message))

    def stage(self, name: str, done: int, total: int) -> None:
        """Pass it on."""
        self._try(lambda: self._view.stage(name, done, total))

    def update(self, record: SearchRecord) -> None:
        """Pass it on."""
        self._try(lambda: self._view.update(record))

    def nodes(self, nodes: tuple[NodeUsage, ...]) -> None:
        """Pass it on."""
        self._try(lambda: self._view.nodes(nodes))

    def close(self) -> None:
        """Pass it on."""
        self._try(self._view.close)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            failed, self._view = self._view, QuietView()
            logger.exception("the progress display failed and is off; the search goes on")
            if call != failed.close:
                self._try(failed.close)


def make_view(*, quiet: bool = False, verbose: bool = False, console: Console | None = None) -> View:
    """The view that fits: live on a terminal, lines elsewhere or beside other logs, nothing if ``quiet``."""
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
    """The view of a search that is started from Python: live in a notebook, nothing elsewhere."""
    from search.views.notebook import NotebookView, in_notebook

    return GuardedView(NotebookView()) if in_notebook() else QuietView()

"""Which version of unfreeze wrote a ledger, and words for what this one can't read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from search.ledger.attributes import StudyKey
from trainables.errors import LedgerError

LEDGER_FORMAT = 1
"""Changes when an earlier version could no longer understand what this one notes. A ledger without one has format 1."""


def check_format(name: str, attribute: Callable[[str], Any]) -> None:
    """Make sure that no later version has written the ledger of the search ``name``.

    Raises:
        LedgerError: one has.
    """
    found = attribute(StudyKey.FORMAT)
    if found is not None and found != LEDGER_FORMAT:
        raise LedgerError(
            f"name: the ledger of {name!r} was written by a later version of unfreeze (format {found!r}; this one "
            f"reads {LEDGER_FORMAT}). Update this one, or choose another --name."
        )


@contextmanager
def explain_unreadable(name: str) -> Iterator[None]:
    """Say so where what a ledger holds of the search ``name`` is not as this version would have written it.

    Raises:
        LedgerError: it is not.
    """
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LedgerError(
            f"name: what the ledger holds of {name!r} was written by another version of unfreeze, or changed by hand: "
            f"{type(error).__name__}: {error}. Use the version that began it, or begin anew with --fresh, which "
            "deletes nothing."
        ) from error

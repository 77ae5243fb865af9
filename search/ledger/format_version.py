"""Refuses ledgers that this version of unfreeze can't read, and explains why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from search.ledger.attributes import StudyKey
from trainables.errors import LedgerError

LEDGER_FORMAT = 1
"""Version of the format. It increases when an earlier version of unfreeze could not understand what this one writes. A
ledger without this attribute has format 1."""


def check_format(name: str, attribute: Callable[[str], Any]) -> None:
    """Make sure that no later version of unfreeze has written the ledger of the search ``name``.

    Args:
        name: of the search, for the message.
        attribute: returns an attribute of the study by its key (:meth:`search.ledger.ledger.Ledger.attribute`).

    Raises:
        LedgerError: a later version has written it.
    """
    found = attribute(StudyKey.FORMAT)
    if found is not None and found != LEDGER_FORMAT:
        raise LedgerError(
            f"name: the ledger of {name!r} was written by a later version of unfreeze (format {found!r}; this one "
            f"reads {LEDGER_FORMAT}). Update this one, or choose another --name."
        )


@contextmanager
def explain_unreadable(name: str) -> Iterator[None]:
    """Raise a LedgerError if reading what the ledger holds of the search ``name`` fails inside.

    The values in a ledger are JSON, and the format version does not change with every field. An unexpected value
    therefore shows as one of Python's own errors, far from its cause.

    Raises:
        LedgerError: a value is not as this version would have written it.
    """
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LedgerError(
            f"name: the ledger of {name!r} was written by another version of unfreeze, or changed by hand: "
            f"{type(error).__name__}: {error}. Use the version that began it, or begin anew with --fresh, which "
            "deletes nothing."
        ) from error

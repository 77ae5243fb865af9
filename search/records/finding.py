"""Define the result of one check of ``unfreeze doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: a short fixed name of what was checked, such as ``storage`` or ``token``.
        grade: ``ok``, ``warning`` or ``failed``.
        words: what was found, and what to do if something is wrong.
    """

    check: str
    grade: Grade
    words: str


def ok(check: str, words: str) -> Finding:
    """Return a finding without problems."""
    return Finding(check, "ok", words)


def warning(check: str, words: str) -> Finding:
    """Return a finding with which a search would run, but not as well as it could."""
    return Finding(check, "warning", words)


def failed(check: str, words: str) -> Finding:
    """Return a finding with which a search would fail, now or later."""
    return Finding(check, "failed", words)

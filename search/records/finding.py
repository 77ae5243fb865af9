"""What a check says: what it looked at, how that is, and in plain words what is wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Grade = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Finding:
    """What one check found. ``check`` is a short fixed word, such as ``storage`` or ``token``."""

    check: str
    grade: Grade
    words: str


def ok(check: str, words: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", words)


def warning(check: str, words: str) -> Finding:
    """A search would run, but not as well as it could."""
    return Finding(check, "warning", words)


def failed(check: str, words: str) -> Finding:
    """A search would fail, now or later."""
    return Finding(check, "failed", words)

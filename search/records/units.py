"""Lengths of time as people write them: ``90s``, ``30m``, ``1h30m``, or plain seconds."""

from __future__ import annotations

import math
import re

EXPECTED_DURATION = "a length of time such as 90s, 30m, 2h, 1h30m, or a number of seconds above 0"
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_LONGEST = 366 * 86400.0
_PART = r"(\d+(?:\.\d+)?)\s*"
_WORDS = re.compile(rf"(?:{_PART}d\s*)?(?:{_PART}h\s*)?(?:{_PART}m(?:in)?\s*)?(?:{_PART}s)?", re.ASCII)


def parse_duration(value: object) -> float:
    """Seconds in ``value``, a number or text; ValueError says what was expected."""
    seconds = _from_text(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"expected {EXPECTED_DURATION}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"expected {EXPECTED_DURATION}")
    if seconds > _LONGEST:
        raise ValueError("expected at most a year")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """The two largest units of ``seconds``, as in ``4m 05s``; ``0.8s`` below ten seconds."""
    if not math.isfinite(seconds) or seconds < 0:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def _from_text(text: str) -> float | None:
    stripped = text.strip().lower()
    try:
        return float(stripped)
    except ValueError:
        found = _WORDS.fullmatch(stripped)
    if not stripped or found is None:
        return None
    return sum(
        float(part) * _SECONDS[unit] for part, unit in zip(found.groups(), "dhms", strict=True) if part
    )

"""Parse and format durations (``90s``, ``1h30m``) and sizes in bytes (``500 MB``, ``1.5 GiB``)."""

from __future__ import annotations

import math
import re

EXPECTED_SIZE = "a number of bytes such as 500 MB, 2 GB, 1.5 GiB, or 0 for none"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?i?)b?", re.ASCII)


def parse_size(value: object) -> int:
    """Convert a size, a number or a text, into bytes.

    Raises:
        ValueError: the message says what was expected.
    """
    size = _size_from_text(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise ValueError(f"expected {EXPECTED_SIZE}")
    if not 0 <= size < math.inf:
        raise ValueError(f"expected {EXPECTED_SIZE}")
    # Sizes are stored as signed 64-bit integers.
    if size >= 2**63:
        raise ValueError("expected less than 8 EiB")
    return int(size)


def format_size(size: float) -> str:
    """Format ``size`` bytes with at most three digits, as in ``1.5 GB`` or ``320 kB``."""
    if not math.isfinite(size) or size < 0:
        return "–"
    for unit, power in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= 0.9995 * power:
            scaled = size / power
            return f"{scaled:.0f} {unit}" if scaled >= 99.5 else f"{scaled:.3g} {unit}"
    return f"{size:.0f} bytes"


def _size_from_text(text: str) -> float | None:
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None or found[2] == "i":
        return None
    return float(found[1]) * {**_UNITS, **_BINARY}[found[2]]


EXPECTED_DURATION = "a length of time such as 90s, 30m, 2h, 1h30m, or a number of seconds above 0"
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_LONGEST = 366 * 86400.0
_PART = r"(\d+(?:\.\d+)?)\s*"
_WORDS = re.compile(rf"(?:{_PART}d\s*)?(?:{_PART}h\s*)?(?:{_PART}m(?:in)?\s*)?(?:{_PART}s)?", re.ASCII)


def parse_duration(value: object) -> float:
    """Convert a duration, a number or a text, into seconds.

    Raises:
        ValueError: the message says what was expected.
    """
    seconds = _from_text(value) if isinstance(value, str) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"expected {EXPECTED_DURATION}")
    if not 0 < seconds < math.inf:
        raise ValueError(f"expected {EXPECTED_DURATION}")
    if seconds > _LONGEST:
        raise ValueError("expected at most a year")
    return float(seconds)


def format_duration(seconds: float) -> str:
    """Format ``seconds`` with the two largest units, as in ``4m 05s``; below ten seconds as in ``0.8s``."""
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

"""Parse and format durations (``90s``, ``1h30m``) and sizes in bytes (``500 MB``, ``1.5 GiB``)."""

from __future__ import annotations

import math
import re

EXPECTED_SIZE = "a number of bytes such as 500 MB, 2 GB, 1.5 GiB, or 0 for none"
_SIZE = re.compile(r"\d+(\.\d+)?\s*([kmgtp]i?)?b?", re.ASCII)
"""The accepted spellings. Without this check, pydantic's ByteSize would accept bits, too, and ignore trailing text."""


def parse_size(value: object) -> int:
    """Return the number of bytes that ``value`` stands for: a number, or text such as ``500 MB`` or ``1.5 GiB``.

    Units with ``i`` are powers of 1024, others powers of 1000.

    Raises:
        ValueError: it is neither, is negative, or is 8 EiB or more; the text begins with what was expected.
    """
    size = _size_from_text(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int | float) or not 0 <= size < math.inf:
        raise ValueError(f"expected {EXPECTED_SIZE}")
    if size >= 2**63:
        raise ValueError("expected less than 8 EiB")
    return int(size)


def format_size(size: float) -> str:
    """Format ``size`` bytes with at most three digits, as in ``1.5 GB`` or ``320 kB``."""
    if not math.isfinite(size) or size < 0:
        return "–"
    for unit, power in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        # 999.95 kB with three digits would be written as 1e+03 kB: switch to the larger unit a bit earlier.
        if size >= 0.9995 * power:
            scaled = size / power
            return f"{scaled:.0f} {unit}" if scaled >= 99.5 else f"{scaled:.3g} {unit}"
    return f"{size:.0f} bytes"


def _size_from_text(text: str) -> int | None:
    # Imported here: commands that only print sizes start faster without pydantic.
    from pydantic import ByteSize, TypeAdapter, ValidationError

    plain = text.strip().lower()
    if not _SIZE.fullmatch(plain):
        return None
    try:
        return TypeAdapter(ByteSize).validate_python(f"{plain}b" if plain.endswith("i") else plain)
    except ValidationError:  # too many digits
        return None


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

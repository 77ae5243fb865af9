"""Numbers of bytes as people write them: ``500 MB``, ``2GB``, ``1.5 GiB``, or plain bytes."""

from __future__ import annotations

import math
import re

EXPECTED_SIZE = "a number of bytes such as 500 MB, 2 GB, 1.5 GiB, or 0 for none"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}
_WORDS = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?i?)b?", re.ASCII)


def parse_size(value: object) -> int:
    """Bytes in ``value``, a number or text; ValueError says what was expected."""
    size = _from_text(value) if isinstance(value, str) else value
    if isinstance(size, bool) or not isinstance(size, int | float):
        raise ValueError(f"expected {EXPECTED_SIZE}")
    if not 0 <= size < math.inf:
        raise ValueError(f"expected {EXPECTED_SIZE}")
    if size >= 2**63:
        raise ValueError("expected less than 8 EiB")
    return int(size)


def format_size(size: float) -> str:
    """``size`` bytes with three digits or fewer, as in ``1.5 GB`` or ``320 kB``."""
    if not math.isfinite(size) or size < 0:
        return "–"
    for unit, power in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= 0.9995 * power:
            scaled = size / power
            return f"{scaled:.0f} {unit}" if scaled >= 99.5 else f"{scaled:.3g} {unit}"
    return f"{size:.0f} bytes"


def _from_text(text: str) -> float | None:
    found = _WORDS.fullmatch(text.strip().lower())
    if found is None or found[2] == "i":
        return None
    return float(found[1]) * {**_UNITS, **_BINARY}[found[2]]

"""Format numbers, parameters and intervals for the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.records.formatting import short_name
from search.records.metrics import is_fraction
from search.records.record import Interval, ParameterValue

LOGARITHMIC = frozenset(
    {"learning_rate", "weight_decay", "backbone_lr_ratio", "distill_weight", "remember_weight"}
)
"""Parameters with a logarithmic scale."""
THIN_SPACE = "\u202f"


def format_number(value: ParameterValue | None) -> str:
    """Format a number with at most three digits: ``64``, ``0.5``, ``1.2e-3``; a dash for None and non-finite values."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return short_name(value)
    if isinstance(value, int) or value == 0:
        return f"{value:,}" if value else "0"
    if 0.01 <= abs(value) < 10_000:
        return f"{value:.3g}"
    return _scientific(value)


def format_parameter(name: str, value: ParameterValue | None) -> str:
    """Format a parameter's value; one of :data:`LOGARITHMIC` always as ``1.2e-3``."""
    if name not in LOGARITHMIC or isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return format_number(value)
    return _scientific(value)


def _scientific(value: float) -> str:
    # 1.2e-03 as 1.2e-3, and 1.0e-3 as 1e-3.
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def format_percent(fraction: float, digits: int = 1) -> str:
    """Format a fraction as a percentage with a thin space: ``0.955`` as ``95.5 %``."""
    return f"{100 * fraction:.{digits}f}{THIN_SPACE}%" if math.isfinite(fraction) else "–"


def format_interval(interval: Interval) -> str:
    """Format an interval of fractions, as in ``94.3 to 96.5 %``."""
    return f"{100 * interval.low:.1f} to {format_percent(interval.high)}"


def format_metric(metric: str, value: float | None) -> str:
    """Format a value of ``metric``, as a percentage if it is a fraction."""
    if value is None or not math.isfinite(value):
        return "–"
    return format_percent(value) if is_fraction(metric) else f"{value:.4g}"


def label(name: str) -> str:
    """Return the name of a parameter or metric without underscores."""
    return name.replace("val_", "validation ").replace("_", " ")


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Join words: ``a``, ``a and b``, ``a, b and c``."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else ""]))

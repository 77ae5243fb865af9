"""The ends of a gain that has two intervals and nobody knows which is right: the one that reaches further counts."""

from __future__ import annotations

from search.records.record import Interval


class WiderInterval:
    """Mixed into what has a ``gain`` by Student's t and the same gain by ``bootstrap``."""

    gain: Interval
    bootstrap: Interval

    @property
    def low(self) -> float:
        """The lower end of the interval that reaches lower."""
        return min(self.gain.low, self.bootstrap.low)

    @property
    def high(self) -> float:
        """The upper end of the interval that reaches higher."""
        return max(self.gain.high, self.bootstrap.high)

"""Whether one model is cheaper to serve than another, by more than noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from search.sizes import format_size
from trainables.serving.footprint import Footprint

SMALLER = 0.02
"""Files whose sizes differ by less than this share count as of one size."""


@dataclass(frozen=True)
class Savings:
    """What the challenger saves, and what it costs more, in phrases; and what could not be compared."""

    less: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def cheaper(self) -> bool:
        """Something is less and nothing is more."""
        return bool(self.less) and not self.more


def savings(new: Footprint | None, old: Footprint | None) -> Savings:
    """The challenger's footprint against the champion's.

    Size counts, and latency (:meth:`trainables.serving.footprint.Milliseconds.below`), if both were measured
    on the same
    kind of processor.
    """
    if new is None or old is None:
        return Savings(unknown=("size and latency were not measured for both",))
    less, more = [], []
    for words, lower, higher in _pairs(new, old):
        if lower:
            less.append(words)
        if higher:
            more.append(words)
    return Savings(tuple(less), tuple(more), _unknown(new, old))


def same_processor(new: Footprint, old: Footprint) -> bool:
    """Whether latencies can be compared."""
    return new.processor == old.processor


def _pairs(new: Footprint, old: Footprint) -> Iterator[tuple[str, bool, bool]]:
    """A phrase for each cost, whether the challenger's is lower, and whether it is higher."""
    size = f"{format_size(new.file_bytes)} instead of {format_size(old.file_bytes)}"
    a, b = new.file_bytes, old.file_bytes
    yield size, a < (1 - SMALLER) * b, b < (1 - SMALLER) * a
    if not same_processor(new, old):
        return
    for what, mine, theirs in (
        ("for an image", new.latency, old.latency),
        ("for an image of a batch", new.batch_latency, old.batch_latency),
    ):
        phrase = f"{mine.median:.3g} ms instead of {theirs.median:.3g} ms {what}"
        yield phrase, mine.below(theirs), theirs.below(mine)


def _unknown(new: Footprint, old: Footprint) -> tuple[str, ...]:
    if same_processor(new, old):
        return ()
    return (
        f"latencies were measured on other processors ({new.processor} against {old.processor}): only sizes count",
    )

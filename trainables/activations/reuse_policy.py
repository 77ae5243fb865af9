"""Decides whether it pays to keep activations, by comparing seconds and bytes before a trial begins.

Without reuse, each of a trial's E epochs sends N images through the prefix. With reuse, the missing views are computed
and written once, and each epoch reads one view:

    live  = E · (1 + T) · N · p
    reuse = (min(V, E) − K) · N · (p + b/w) + E · (1 + T) · N · b/r

p: seconds of the prefix per image; b: bytes per image; V: number of views, of which K are cached; T: other trials that
may read the same views; w, r: bytes written and read per second. The decision never changes a trial's images or
results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainables.activations.machine_speed import MachineSpeeds

ALWAYS_KEPT_SHARE = 1 / 16
"""A set of views that takes less than this share of the memory is kept without comparing seconds."""

MAX_SHARE = 1 / 2
"""No set of views may take more than this share of the memory budget or of the disk budget."""

CacheLocation = Literal["memory", "disk", "none"]


@dataclass(frozen=True)
class CacheRequest:
    """What a trial needs of one split at one cut.

    Attributes:
        images: number of images.
        bytes_per_image: bytes of one image's activations.
        prefix_seconds: seconds of the prefix per image.
        views: number of views.
        epochs: number of epochs, each of which reads one view.
        sharing: number of other trials that may read the same views.
        kept: number of views that are cached already.
    """

    images: int
    bytes_per_image: int
    prefix_seconds: float
    views: int = 1
    epochs: int = 1
    sharing: int = 0
    kept: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of all views that the trial needs."""
        return self.images * self.bytes_per_image * min(self.views, self.epochs)


@dataclass(frozen=True)
class CacheCapacity:
    """Bytes that activations may take in memory and on disk; 0 if there is no cache on disk."""

    memory: int
    disk: int = 0


@dataclass(frozen=True)
class ReuseDecision:
    """Whether a trial reads cached activations, and why.

    Attributes:
        reuse: whether it does.
        place: where they are kept: ``memory``, ``disk`` or ``none``.
        reason: the reason in words.
        depth: number of blocks above the cut.
        level: augmentation strength.
        views, kept, sharing: as in :class:`CacheRequest`.
        bytes: bytes of all views.
        prefix_rate: images per second of the prefix.
        read_rate: images per second of reading activations.
        live_seconds: predicted seconds without reuse, including trials that share.
        reuse_seconds: predicted seconds with reuse.

    Numbers that were not needed for the decision are 0.
    """

    reuse: bool
    place: CacheLocation
    reason: str
    depth: int = 0
    level: float = 0.0
    views: int = 0
    kept: int = 0
    sharing: int = 0
    bytes: int = 0
    prefix_rate: float = 0.0
    read_rate: float = 0.0
    live_seconds: float = 0.0
    reuse_seconds: float = 0.0

    def describe(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> ReuseDecision:
        """Read what :meth:`describe` returned.

        Raises:
            ValueError: ``values`` is something else.
        """
        expected = asdict(cls(False, "none", ""))
        if values.keys() != expected.keys() or any(
            not isinstance(values[name], (int, float) if type(usual) is float else type(usual))
            for name, usual in expected.items()
        ):
            raise ValueError(f"expected a decision with {', '.join(expected)}, received {dict(values)!r}")
        return cls(**values)

    def __str__(self) -> str:
        way = {"memory": "kept in memory", "disk": "kept on disk", "none": "computed live"}[self.place]
        return f"activations at depth {self.depth}, strength {self.level:g}: {way}; {self.reason}"


def choose_location(request: CacheRequest, capacity: CacheCapacity, speeds: MachineSpeeds) -> CacheLocation:
    """Choose where to keep activations.

    On disk if computing them again takes long, otherwise in memory; ``none`` if neither has room.
    """
    needed, in_memory = request.bytes, request.bytes <= capacity.memory * MAX_SHARE
    computing = request.images * request.prefix_seconds
    if in_memory and computing < speeds.min_seconds_for_file:
        return "memory"
    if needed <= capacity.disk * MAX_SHARE and speeds.disk is not None:
        writing = request.images * request.bytes_per_image / speeds.disk.write
        # A file pays off if computing takes clearly longer than writing: it serves other processes and later searches.
        if computing >= 2 * writing or not in_memory:
            return "disk"
    return "memory" if in_memory else "none"


def decide_reuse(request: CacheRequest, capacity: CacheCapacity, speeds: MachineSpeeds) -> ReuseDecision:
    """Compare the seconds of ``request`` with and without reuse, within ``capacity``."""
    chosen = choose_location(request, capacity, speeds)
    # Without room the numbers of the disk, or of memory, still serve the explanation.
    rates = speeds.memory if chosen == "memory" else speeds.disk or speeds.memory
    # Files beyond the system's cache are read from the disk again in each epoch.
    reading = request.bytes_per_image / (rates.hot if request.bytes <= speeds.file_cache else rates.cold)
    computing = request.prefix_seconds + request.bytes_per_image / rates.write
    # Every trial that shares reads one view an epoch; missing views are computed once for all of them.
    uses = request.epochs * (1 + request.sharing)
    missing = max(0, min(request.views, request.epochs) - request.kept)
    live = uses * request.images * request.prefix_seconds
    reuse = request.images * (missing * computing + uses * reading)
    reuses, reason = _verdict(request, capacity, chosen, live, reuse)
    return ReuseDecision(
        reuse=reuses,
        place=chosen if reuses else "none",
        reason=reason,
        views=request.views,
        kept=request.kept,
        sharing=request.sharing,
        bytes=request.bytes,
        prefix_rate=1 / max(request.prefix_seconds, 1e-12),
        read_rate=1 / max(reading, 1e-12),
        live_seconds=live,
        reuse_seconds=reuse,
    )


def _verdict(
    request: CacheRequest, capacity: CacheCapacity, chosen: CacheLocation, live: float, reuse: float
) -> tuple[bool, str]:
    views = f"{min(request.views, request.epochs)} view(s) of {_bytes(request.bytes)} together"
    if chosen == "none":
        memory, disk = (_bytes(int(room * MAX_SHARE)) for room in (capacity.memory, capacity.disk))
        limits = f"{memory} of memory or {disk} of disk"
        return False, f"{views} exceed {limits}"
    if request.bytes <= capacity.memory * ALWAYS_KEPT_SHARE:
        return True, f"{views} are small"
    comparison = f"{reuse:.2f} s with reuse against {live:.2f} s without"
    return reuse < live, f"{views}, {comparison}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

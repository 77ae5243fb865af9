"""Whether it pays to keep activations: seconds and bytes, compared before a trial begins.

Without reuse, each of a trial's E epochs sends N images through the prefix. With it, the views that are not there yet
are computed and written once, and each epoch reads one view:

    live  = E · (1 + T) · N · p
    reuse = (min(V, E) − K) · N · (p + b/w) + E · (1 + T) · N · b/r

p: seconds of the prefix per image; b: bytes per image; V: views, K of them there already; T: other trials that may read
the same; w, r: bytes written and read per second. Whatever is decided, a trial's images and numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainables.activations.machine_speed import MachineSpeeds

ALWAYS_KEPT_SHARE = 1 / 16
"""A set of views that takes less than this share of the memory is kept without further thought."""

MAX_SHARE = 1 / 2
"""No set of views may take more than this share of the memory or of the disk's budget."""

CacheLocation = Literal["memory", "disk", "none"]


@dataclass(frozen=True)
class CacheRequest:
    """What a trial needs of one split, at one cut: ``epochs`` times one of ``views`` views of ``images`` images.

    ``prefix_seconds`` and ``bytes_per_image`` are per image; ``kept`` views are there already; ``sharing`` other trials
    may read the same.
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
    """Bytes that activations may take in memory and on disk (0 where there is no disk cache)."""

    memory: int
    disk: int = 0


@dataclass(frozen=True)
class ReuseDecision:
    """Whether a trial reads kept activations (``reuse``), where they are, why, and the numbers behind it.

    ``prefix_rate`` and ``read_rate`` are images per second; ``live_seconds`` and ``reuse_seconds`` what both ways were
    expected to take, trials that share included. All numbers are 0 where none was needed.
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
        """All fields as JSON values."""
        return asdict(self)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> ReuseDecision:
        """What :meth:`describe` said.

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
    """Where activations should be kept: on disk if computing them again takes long, else in memory, if anywhere."""
    needed, in_memory = request.bytes, request.bytes <= capacity.memory * MAX_SHARE
    computing = request.images * request.prefix_seconds
    if in_memory and computing < speeds.min_seconds_for_file:
        return "memory"
    if needed <= capacity.disk * MAX_SHARE and speeds.disk is not None:
        writing = request.images * request.bytes_per_image / speeds.disk.write
        if computing >= 2 * writing or not in_memory:
            return "disk"
    return "memory" if in_memory else "none"


def decide(request: CacheRequest, capacity: CacheCapacity, speeds: MachineSpeeds) -> ReuseDecision:
    """Compare both ways of a trial that needs ``request`` where activations may take ``capacity``."""
    chosen = choose_location(request, capacity, speeds)
    rates = speeds.memory if chosen == "memory" else speeds.disk or speeds.memory
    reading = request.bytes_per_image / (rates.hot if request.bytes <= speeds.file_cache else rates.cold)
    computing = request.prefix_seconds + request.bytes_per_image / rates.write
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
        limits = f"{_bytes(int(capacity.memory * MAX_SHARE))} of memory or {_bytes(int(capacity.disk * MAX_SHARE))} of disk"
        return False, f"{views} exceed {limits}"
    if request.bytes <= capacity.memory * ALWAYS_KEPT_SHARE:
        return True, f"{views} are small"
    comparison = f"{reuse:.2f} s with reuse against {live:.2f} s without"
    return reuse < live, f"{views}, {comparison}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"

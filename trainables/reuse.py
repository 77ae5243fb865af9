"""Declares what trials may take over from each other.

By default that is everything. Parts can be switched off to measure what they are worth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainables.errors import UsageError

REUSABLE_PARTS = ("processes", "programs", "activations", "views", "heads")
"""Names of the parts that can be switched off."""

DEFAULT_VIEWS = 8
"""Number of augmented views of each image and augmentation strength that trials share."""


@dataclass(frozen=True)
class Reuse:
    """What a trial takes over from earlier trials and from those that run at the same time.

    Attributes:
        processes: the engine process with TensorFlow and the data; otherwise each trial starts one of its own.
        programs: compiled training and evaluation; otherwise each trial traces its own.
        activations: outputs of a frozen prefix; otherwise every epoch runs it again.
        heads: one batched step for all trials that only train a head; otherwise each has a step of its own.
        views: augmented views of each image that trials and epochs share; 0 for fresh augmentation in every epoch.
        cache: directory of kept activations, or ``off`` for none on disk; None for the default of this machine
            (:func:`trainables.activations.location.default_directory`).
        cache_budget: bytes that the directory may take; None for a share of the disk.
    """

    processes: bool = True
    programs: bool = True
    activations: bool = True
    heads: bool = True
    views: int = DEFAULT_VIEWS
    cache: str | None = None
    cache_budget: int | None = None

    @classmethod
    def of(
        cls,
        parts: Iterable[str],
        views: int = DEFAULT_VIEWS,
        cache: str | None = None,
        cache_budget: int | None = None,
    ) -> Reuse:
        """Return a :class:`Reuse` of the given parts only.

        Args:
            parts: some of :data:`REUSABLE_PARTS`.
            views: number of views, if ``views`` is among the parts.
            cache: see :class:`Reuse`.
            cache_budget: see :class:`Reuse`.

        Raises:
            UsageError: there is no such part.
        """
        wanted = set(parts)
        unknown = sorted(wanted - set(REUSABLE_PARTS))
        if unknown:
            raise UsageError(
                f"reuse: expected some of {', '.join(REUSABLE_PARTS)}, received {', '.join(unknown)}"
            )
        switches = {part: part in wanted for part in REUSABLE_PARTS if part != "views"}
        kept = views if "views" in wanted else 0
        return cls(**switches, views=kept, cache=cache, cache_budget=cache_budget)

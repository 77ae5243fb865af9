"""What trials may take over from each other: all of it, unless somebody wants to know what a part is worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trainables.errors import UsageError

REUSABLE_PARTS = ("processes", "programs", "activations", "views", "heads")
"""What can be switched off by name."""

DEFAULT_VIEWS = 8
"""Views of each augmentation strength, unless another number is asked for."""


@dataclass(frozen=True)
class Reuse:
    """What a trial takes over from those before it or beside it.

    Attributes:
        processes: TensorFlow's process with all that it has loaded; else each trial starts one of its own.
        programs: compiled training and evaluation; else each trial traces its own.
        activations: what a frozen prefix makes of the images; else every epoch runs it again.
        heads: one batched step for all trials that only train heads; else each has a step of its own.
        views: of each augmentation strength, which trials and epochs share; 0 for distortions of its own in every
            epoch.
        cache: directory of kept activations, or ``off`` for none on disk; None for this machine's usual place
            (:func:`trainables.activations.location.default_directory`).
        cache_budget: bytes that it may take; None for a share of the disk.
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
        """Reuse of these of :data:`REUSABLE_PARTS` and of no others.

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

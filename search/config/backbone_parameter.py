"""The backbone as a parameter: what ``--backbone A --backbone B`` adds to the space.

A depth means another thing in another backbone. The Optuna parameter stays ``unfreeze_depth``, in blocks, and its range
ends at the blocks of the trial's own backbone: Optuna allows numeric ranges that differ between trials. What a sampler
makes of that is its own: :mod:`search.ledger.sampling.tpe` compares depths as shares of the backbones' blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from search.config.parameters import Parameter
from search.config.ranges import Choice, IntRange, Range
from trainables.errors import UsageError

BACKBONE = "backbone"
DEPTH = "unfreeze_depth"


def backbone_parameter(names: tuple[str, ...]) -> Parameter:
    """The parameter that chooses among ``names``."""
    return Parameter("name", "which of the backbones is trained", Choice(names), core=True)


def limit_depth(values: Range, blocks: int) -> Range:
    """``values`` of a depth for a backbone of so many blocks."""
    if not isinstance(values, IntRange) or values.high <= blocks:
        return values
    return replace(values, high=values.low + (blocks - values.low) // values.step * values.step)


def check_depths(ranges: Mapping[str, Range], backbones: Mapping[str, int]) -> None:
    """Each backbone that is searched must have the depths.

    Raises:
        UsageError: a range begins above a backbone's blocks, or a list holds a depth that it has not.
    """
    depths, chosen = ranges.get(DEPTH), ranges[BACKBONE]
    if depths is None or not isinstance(chosen, Choice):
        return
    for name in map(str, chosen.values):
        blocks = backbones[name]
        needed = depths.values if isinstance(depths, Choice) else depths.bounds[:1]
        beyond = [value for value in needed if isinstance(value, int | float) and value > blocks]
        if beyond:
            raise UsageError(
                f"{DEPTH}: expected depths that every backbone has (a range ends at each one's own blocks, a list does "
                f"not), received {beyond[0]:g}, but {name} has {blocks} blocks"
            )

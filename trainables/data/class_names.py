"""Compares the class names of a source and a target dataset. It does not load TensorFlow, so reports can use it."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.errors import UsageError


def shared_classes(source: Sequence[str], target: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of ``target`` that ``source`` has too, in the order of ``target``.

    Raises:
        UsageError: they have no class in common.
    """
    shared = tuple(name for name in target if name in set(source))
    if not shared:
        raise UsageError(
            "source: expected a dataset with classes of the target's names, received no class in common: "
            f"{_some(source)} in the source, {_some(target)} in the target"
        )
    return shared


def source_notes(source: Sequence[str], target: Sequence[str]) -> tuple[str, ...]:
    """Return sentences for the user on which classes of ``source`` are not used and which of ``target`` it lacks.

    Raises:
        UsageError: they have no class in common.
    """
    shared = shared_classes(source, target)
    notes = []
    unused = [name for name in source if name not in set(target)]
    if unused:
        notes.append(f"images of {_some(unused)} are left out: the target has no such class")
    absent = [name for name in target if name not in set(source)]
    if absent:
        notes.append(
            f"only {len(shared)} of the target's {len(target)} classes are in it; {_some(absent)} are missing"
        )
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return ", ".join(repr(name) for name in names[:6]) + more

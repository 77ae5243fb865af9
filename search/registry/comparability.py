"""Whether two versions were asked the same question: classes, form of the input, test images."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from search.records.predictions import Answers

SHOWN = 6
"""Names that a sentence lists."""


def differences(new: Answers, old: Answers, new_input: str = "", old_input: str = "") -> list[str]:
    """Why the versions can't be compared, a phrase each, the challenger's first; empty if they can be.

    Args:
        new: of the challenger.
        old: of the champion.
        new_input: form of the challenger's input, as :func:`search.registry.model_package.input_form` writes it.
        old_input: of the champion's.
    """
    found = []
    if new.classes != old.classes:
        found.append(f"other classes: {_classes(new.classes, old.classes)}")
    if new_input != old_input:
        found.append(f"another input: {new_input or 'unknown'} against {old_input or 'unknown'}")
    images = _images(new, old)
    if images:
        found.append(f"other test images: {images}")
    return found


def same_images(new: Answers, old: Answers) -> tuple[Answers, Answers, tuple[str, ...]]:
    """Both with the images in one order, and what to say of it. For versions without :func:`differences`."""
    if new.digest == old.digest:
        return new, old, ()
    place = {image: row for row, image in enumerate(old.images)}
    sizes = " against ".join("{}x{}".format(*answers.image_size) for answers in (new, old))
    note = f"the test images were resized to other sizes ({sizes} pixels): they are paired by their names"
    return new, old.taken([place[image] for image in new.images]), (note,)


def _classes(new: tuple[str, ...], old: tuple[str, ...]) -> str:
    if len(set(new)) == len(new) and set(new) == set(old):
        return f"the same {len(new)} in another order"
    parts = [f"{len(new)} against {len(old)}"]
    for words, names in (("only the challenger has", set(new) - set(old)), ("it lacks", set(old) - set(new))):
        if names:
            parts.append(f"{words} {_listed(sorted(names))}")
    return ", ".join(parts)


def _images(new: Answers, old: Answers) -> str:
    """How the test images differ; empty if they are the same.

    With one size the digests tell. With two, images are known by their names in the data: their pixels differ.
    """
    if new.digest == old.digest:
        return ""
    mine = dict(zip(new.images, new.labels.tolist(), strict=True))
    theirs = dict(zip(old.images, old.labels.tolist(), strict=True))
    common = mine.keys() & theirs.keys()
    digests = f"digests {new.digest[:12]} and {old.digest[:12]}"
    if len(common) < max(len(new.images), len(old.images)):
        return f"{len(new.images):,} against {len(old.images):,}, of which {len(common):,} have one name ({digests})"
    if new.classes == old.classes and (relabelled := sum(mine[name] != theirs[name] for name in common)):
        return f"{relabelled:,} of {len(common):,} have another label ({digests})"
    if new.image_size == old.image_size:
        return f"the same {len(common):,} names, but other pixels ({digests})"
    return ""


def _listed(names: Iterable[str]) -> str:
    some = list(names)
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return ", ".join(repr(name) for name in islice(some, SHOWN)) + more

"""Check whether two model versions can be compared, and whether one is cheaper to serve than the other.

Two versions are comparable if they have the same classes, take the same form of input and were measured on the same
test images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from search.records.predictions import PredictionRecord
from search.records.units import format_size
from trainables.serving.footprint import Footprint

SIZE_TOLERANCE = 0.02
"""Files whose sizes differ by less than this fraction count as equally large."""


@dataclass(frozen=True)
class CostDifference:
    """How the challenger's serving costs differ from the champion's, as phrases.

    Attributes:
        less: costs that are lower.
        more: costs that are higher.
        unknown: what could not be compared, and why.
    """

    less: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def cheaper(self) -> bool:
        """Whether some cost is lower and none is higher."""
        return bool(self.less) and not self.more


def cost_difference(new: Footprint | None, old: Footprint | None) -> CostDifference:
    """Compare the challenger's footprint with the champion's.

    File size is compared always, latency (:meth:`trainables.serving.footprint.Latency.below`) only if both were
    measured on the same kind of processor.
    """
    if new is None or old is None:
        return CostDifference(unknown=("size and latency were not measured for both",))
    less, more = [], []
    for words, lower, higher in _pairs(new, old):
        if lower:
            less.append(words)
        if higher:
            more.append(words)
    return CostDifference(tuple(less), tuple(more), _unknown(new, old))


def same_processor(new: Footprint, old: Footprint) -> bool:
    """Return whether the latencies of two footprints can be compared."""
    return new.processor == old.processor


def _pairs(new: Footprint, old: Footprint) -> Iterator[tuple[str, bool, bool]]:
    """Yield, for each cost, a phrase, whether the challenger's is lower, and whether it is higher."""
    size = f"{format_size(new.file_bytes)} instead of {format_size(old.file_bytes)}"
    a, b = new.file_bytes, old.file_bytes
    yield size, a < (1 - SIZE_TOLERANCE) * b, b < (1 - SIZE_TOLERANCE) * a
    if not same_processor(new, old):
        return
    for what, challenger, champion in (
        ("for an image", new.latency, old.latency),
        ("for an image of a batch", new.batch_latency, old.batch_latency),
    ):
        phrase = f"{challenger.median:.3g} ms instead of {champion.median:.3g} ms {what}"
        yield phrase, challenger.below(champion), champion.below(challenger)


def _unknown(new: Footprint, old: Footprint) -> tuple[str, ...]:
    if same_processor(new, old):
        return ()
    processors = f"{new.processor} and {old.processor}"
    return (f"latencies were measured on different processors ({processors}): only sizes are compared",)


MAX_LISTED_NAMES = 6
"""Number of class names that a message lists."""


def comparability_problems(
    new: PredictionRecord, old: PredictionRecord, new_input: str = "", old_input: str = ""
) -> list[str]:
    """Return the reasons why two versions cannot be compared, one phrase each; empty if they can be.

    Args:
        new: predictions of the challenger.
        old: predictions of the champion.
        new_input: form of the challenger's input, as :func:`search.registry.model_package.input_form` formats it.
        old_input: form of the champion's input.
    """
    found = []
    if new.classes != old.classes:
        found.append(f"different classes: {_classes(new.classes, old.classes)}")
    if new_input != old_input:
        found.append(f"different inputs: {new_input or 'unknown'} and {old_input or 'unknown'}")
    images = _images(new, old)
    if images:
        found.append(f"different test images: {images}")
    return found


def align_images(
    new: PredictionRecord, old: PredictionRecord
) -> tuple[PredictionRecord, PredictionRecord, tuple[str, ...]]:
    """Return both records with their images in the same order, and notes for the user.

    Requires versions without :func:`comparability_problems`.
    """
    if new.digest == old.digest:
        return new, old, ()
    place = {image: row for row, image in enumerate(old.images)}
    sizes = " and ".join("{}x{}".format(*predictions.image_size) for predictions in (new, old))
    note = f"the test images were resized to different sizes ({sizes} pixels), so they are matched by their names"
    return new, old.select_images([place[image] for image in new.images]), (note,)


def _classes(new: tuple[str, ...], old: tuple[str, ...]) -> str:
    if len(set(new)) == len(new) and set(new) == set(old):
        return f"the same {len(new)} in a different order"
    parts = [f"{len(new)} and {len(old)}"]
    for words, names in (
        ("only the challenger has", set(new) - set(old)),
        ("the challenger lacks", set(old) - set(new)),
    ):
        if names:
            parts.append(f"{words} {_listed(sorted(names))}")
    return ", ".join(parts)


def _images(new: PredictionRecord, old: PredictionRecord) -> str:
    """Describe how the test images differ; empty if they are the same.

    If both have one image size, the digests decide. With two sizes the pixels differ, so that images are identified
    by their names in the data.
    """
    if new.digest == old.digest:
        return ""
    challenger = dict(zip(new.images, new.labels.tolist(), strict=True))
    champion = dict(zip(old.images, old.labels.tolist(), strict=True))
    common = challenger.keys() & champion.keys()
    digests = f"digests {new.digest[:12]} and {old.digest[:12]}"
    if len(common) < max(len(new.images), len(old.images)):
        counts = f"{len(new.images):,} and {len(old.images):,}"
        return f"{counts}, of which {len(common):,} have the same name ({digests})"
    if new.classes == old.classes and (
        relabelled := sum(challenger[name] != champion[name] for name in common)
    ):
        return f"{relabelled:,} of {len(common):,} have different labels ({digests})"
    # One size, the same names and labels, but other pixels: the data was changed.
    if new.image_size == old.image_size:
        return f"the same {len(common):,} names, but different pixels ({digests})"
    return ""


def _listed(names: Iterable[str]) -> str:
    some = list(names)
    more = f" and {len(some) - MAX_LISTED_NAMES} more" if len(some) > MAX_LISTED_NAMES else ""
    return ", ".join(repr(name) for name in islice(some, MAX_LISTED_NAMES)) + more

"""Splits are stratified, seeded, and depend on the keys of the images alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.data.checks import check_labelled_listing
from trainables.data.inputs.options import DataOptions
from trainables.data.inputs.source import UNSPLIT, Listing
from trainables.data.splits import assign_splits
from trainables.errors import DataError, UsageError

TRAIN, VALIDATION, TEST = range(3)


def listing(labels: list[int], splits: list[int] | None = None) -> Listing:
    classes = tuple(f"class {label}" for label in range(max(labels) + 1))
    ids = [str(row) for row in range(len(labels))]
    given = [UNSPLIT] * len(labels) if splits is None else splits
    return Listing(ids, np.array(labels, dtype=np.int64), np.array(given, dtype=np.int8), classes)


def digests(contents: list[int]) -> np.ndarray:
    joined = b"".join(hashlib.sha256(str(content).encode()).digest() for content in contents)
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(3, 40), min_size=2, max_size=5),
    fractions=st.tuples(st.floats(0.01, 0.49), st.floats(0.01, 0.49)),
    seed=st.integers(0, 9),
    shuffle=st.randoms(use_true_random=False),
)
def test_every_class_reaches_every_split_whatever_the_order(
    counts: list[int], fractions: tuple[float, float], seed: int, shuffle: object
) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    options = DataOptions(*fractions, seed=seed)
    splits = assign_splits(listing(labels), digests(list(range(len(labels)))), options)
    for label, count in enumerate(counts):
        sizes = np.bincount(splits[np.array(labels) == label], minlength=3)
        assert sizes.sum() == count
        assert sizes.min() >= 1
        assert sizes[VALIDATION] <= max(1, round(count * fractions[0]))
        assert sizes[TEST] <= max(1, round(count * fractions[1]))
    order = list(range(len(labels)))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    again = assign_splits(listing([labels[row] for row in order]), digests(order), options)
    np.testing.assert_array_equal(again, splits[order])


def test_fractions_are_met() -> None:
    labels = [0] * 100 + [1] * 300
    splits = assign_splits(listing(labels), digests(list(range(400))), DataOptions(0.1, 0.25))
    assert np.bincount(splits[:100]).tolist() == [65, 10, 25]
    assert np.bincount(splits[100:]).tolist() == [195, 30, 75]


def test_seeds_differ() -> None:
    labels = [0, 1] * 50
    one, other = (
        assign_splits(listing(labels), digests(list(range(100))), DataOptions(seed=seed)) for seed in (0, 1)
    )
    assert (one != other).any()


def test_identical_images_stay_together() -> None:
    labels = [0] * 60 + [1] * 60
    contents = [row // 3 for row in range(120)]
    splits = assign_splits(listing(labels), digests(contents), DataOptions())
    for content in set(contents):
        assert (
            len({int(split) for split, other in zip(splits, contents, strict=True) if other == content}) == 1
        )


def test_a_class_of_one_image_many_times_is_still_split() -> None:
    splits = assign_splits(listing([0] * 10 + [1] * 10), digests([0] * 10 + [1] * 10), DataOptions())
    assert np.bincount(splits).tolist() == [12, 4, 4]


def test_given_splits_are_kept_and_missing_ones_come_from_train() -> None:
    labels = [0, 1] * 20
    given = [TRAIN] * 30 + [TEST] * 10
    splits = assign_splits(listing(labels, given), digests(list(range(40))), DataOptions())
    assert (splits[30:] == TEST).all()
    assert np.bincount(splits[:30]).tolist() == [24, 6]


@pytest.mark.parametrize("fractions", [(0.0, 0.2), (0.2, 1.0), (-0.1, 0.2), (0.5, 0.5), (float("nan"), 0.2)])
def test_impossible_fractions(fractions: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="fraction"):
        DataOptions(*fractions)


def test_too_few_images_name_the_classes() -> None:
    with pytest.raises(DataError, match=r"12 of 13 classes .*'class 1 \(2\)'.* and 2 more"):
        check_labelled_listing(
            listing([0, 0, 0] + [label for label in range(1, 13) for _ in range(2)]), "here"
        )

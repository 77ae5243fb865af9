"""The view of a task on which the winner of a search is trained on training and validation images together."""

from __future__ import annotations

import numpy as np
import pytest

from trainables.data.refit import ConcatenatedImages, ConcatenatedStrings, RefitTask
from trainables.data.task import Task
from trainables.modalities.image.datasets import prepare


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return prepare("digits", image_size=(8, 8), directory=tmp_path_factory.mktemp("refit"))


def test_the_training_split_holds_the_validation_images_behind_its_own(task: Task) -> None:
    view = RefitTask.of(task)
    train, validation, together = task.split("train"), task.split("validation"), view.split("train")
    assert view.counts["train"] == len(together.images) == len(train.images) + len(validation.images)
    assert np.array_equal(np.asarray(together.images), np.concatenate([train.images, validation.images]))
    assert np.array_equal(together.labels, np.concatenate([train.labels, validation.labels]))
    assert list(together.ids) == [*train.ids, *validation.ids]


def test_other_splits_stay_and_activations_of_the_view_have_a_digest_of_their_own(task: Task) -> None:
    view = RefitTask.of(task)
    for name in ("validation", "test"):
        assert np.array_equal(view.split(name).images, task.split(name).images)
        assert view.counts[name] == task.counts[name]
    assert view.digest != task.digest
    assert view.digest == RefitTask.of(task).digest
    assert (view.classes, view.directory) == (task.classes, task.directory)


PARTS = [np.arange(n * 12, dtype=np.uint8).reshape(n, 2, 2, 3) for n in (5, 3)]
PARTS[1] += 100
WHOLE = np.concatenate(PARTS)


@pytest.mark.parametrize(
    "index",
    [
        0,
        4,
        5,
        -1,
        slice(None),
        slice(1, 3),
        slice(6, 8),
        slice(3, 7),
        slice(7, 2, -2),
        slice(20, 30),
        [7, 0, 5, 5, -8],
        np.array([[0, 7], [5, 4]]),
        np.arange(8) % 3 == 0,
        [],
    ],
    ids=str,
)
def test_images_are_indexed_like_an_array(index: object) -> None:
    wanted = WHOLE[np.asarray(index, np.int64) if isinstance(index, list) else index]  # type: ignore[index]
    found = ConcatenatedImages(PARTS)[index]  # type: ignore[index]
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("index", [8, -9, [0, 8], [0.5]], ids=str)
def test_rows_that_do_not_exist_are_refused(index: object) -> None:
    with pytest.raises(IndexError, match="expected"):
        ConcatenatedImages(PARTS)[index]  # type: ignore[index]


def test_a_slice_within_one_part_copies_nothing() -> None:
    images = ConcatenatedImages(PARTS)
    assert np.shares_memory(images[1:4], PARTS[0])
    assert np.shares_memory(images[5:8], PARTS[1])


def test_strings_are_indexed_like_a_list() -> None:
    strings = ConcatenatedStrings([["a", "b"], ["c"]])
    assert (strings[0], strings[2], strings[-1], strings[1:]) == ("a", "c", "c", ["b", "c"])
    with pytest.raises(IndexError):
        strings[3]

"""Stored test predictions are read as they were written; damaged files are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from search.records.predictions import (
    OldTaskPredictions,
    PredictionRecord,
    image_keys,
    pack_bits,
    read_predictions,
    split_digest,
    unpack_bits,
    write_predictions,
)
from trainables.errors import DataError


def example(seeds: int = 11, scratch: int = 2) -> PredictionRecord:
    random = np.random.default_rng(0)
    return PredictionRecord(
        classes=("null", "eins ü", "字"),
        image_size=(12, 9),
        digest="d" * 64,
        images=image_keys(["a/ü.png", "b.png", "c.png", "d.png"]),
        labels=np.array([0, 2, 2, 1]),
        predicted=random.integers(0, 3, (seeds, 4)),
        chosen=3,
        scratch=random.integers(0, 3, (scratch, 4)),
        predicted_probability=random.random((seeds, 4)).astype(np.float32),
        true_class_probability=random.random((seeds, 4)).astype(np.float32),
    )


@pytest.mark.parametrize("scratch", [0, 2])
def test_predictions_are_read_as_they_were_written(tmp_path: Path, scratch: int) -> None:
    answers = example(scratch=scratch)
    file = tmp_path / "Antworten ü" / "answers.parquet"
    write_predictions(file, answers)
    again = read_predictions(file)
    for name in ("classes", "image_size", "digest", "images", "chosen"):
        assert getattr(again, name) == getattr(answers, name)
    for name in ("labels", "predicted", "scratch", "predicted_probability", "true_class_probability"):
        np.testing.assert_array_equal(getattr(again, name), getattr(answers, name))
    assert pq.read_table(file).num_rows == 4


def test_correct_predictions_and_the_majority_class() -> None:
    answers = example()
    np.testing.assert_array_equal(answers.correct[0], answers.predicted[0] == answers.labels)
    assert answers.majority_correct.tolist() == [False, True, True, False]
    assert example(scratch=0).scratch_correct.shape == (0, 4)


def test_images_can_be_selected_in_another_order() -> None:
    answers = example()
    turned = answers.select_images([3, 0])
    assert turned.images == (answers.images[3], answers.images[0])
    assert turned.labels.tolist() == [1, 0]
    for name in ("predicted", "predicted_probability", "true_class_probability"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(answers, name)[:, [3, 0]])


def test_a_file_of_the_first_format_has_no_probabilities(tmp_path: Path) -> None:
    file = tmp_path / "answers.parquet"
    write_predictions(file, example())
    table = pq.read_table(file)
    probabilities = [name for name in table.column_names if name.startswith(("certain_", "truth_"))]
    assert len(probabilities) == 22
    older = {
        key: value.replace(b'"format": 2', b'"format": 1') for key, value in table.schema.metadata.items()
    }
    pq.write_table(table.drop_columns(probabilities).replace_schema_metadata(older), file)
    again = read_predictions(file)
    assert again.predicted_probability is again.true_class_probability is None
    np.testing.assert_array_equal(again.predicted, example().predicted)
    assert again.select_images([1]).predicted_probability is None


def test_predictions_for_an_old_task_are_stored_with_the_others(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    old = OldTaskPredictions(random.random((11, 29)) < 0.9, random.random((11, 29)) < 0.8)
    file = tmp_path / "answers.parquet"
    write_predictions(file, replace(example(), old_task=old))
    again = read_predictions(file).select_images([3, 0]).old_task
    assert again is not None
    np.testing.assert_array_equal(again.before, old.before)
    np.testing.assert_array_equal(again.after, old.after)
    write_predictions(file, example())
    assert read_predictions(file).old_task is None
    write_predictions(file, replace(example(seeds=4), old_task=old))
    with pytest.raises(
        DataError, match="predictions for the old task after each of 4 training runs, found 11"
    ):
        read_predictions(file)


@pytest.mark.parametrize("damaged", ["", "3", "9:oA==", "x:oA==", "3:o*=="])
def test_bits_that_are_damaged_are_refused(damaged: str) -> None:
    bits = np.array([True, False, True])
    np.testing.assert_array_equal(unpack_bits(pack_bits(bits)), bits)
    with pytest.raises(ValueError, match=r".+"):
        unpack_bits(damaged)


@pytest.mark.parametrize(("before", "after"), [((2, 5), (2, 4)), ((5,), (5,)), ((0, 5), (0, 5))])
def test_predictions_for_an_old_task_need_the_same_images(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="over the same images"):
        OldTaskPredictions(np.zeros(before, bool), np.zeros(after, bool))


def test_keys_differ_for_different_names_and_do_not_reveal_them() -> None:
    keys = image_keys(["patients/Müller.png", "patients/Meier.png"])
    assert len(set(keys)) == 2
    assert not any("patients" in key for key in keys)
    assert image_keys(["patients/Meier.png"]) == keys[1:]


def test_the_digest_changes_with_pixels_labels_and_shape() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3)).astype(np.uint8)
    labels = np.array([0, 1, 2, 1])
    brighter = images.copy()
    brighter[3, 5, 5, 2] ^= 1
    digests = [
        split_digest(images, labels),
        split_digest(brighter, labels),
        split_digest(images, labels[::-1]),
        split_digest(images.reshape(4, 4, 9, 3), labels),
    ]
    assert len(set(digests)) == 4
    assert split_digest(images.copy(), labels.copy()) == digests[0]


@pytest.mark.parametrize("content", [b"", b"PAR1 nonsense", b"{}"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "answers.parquet"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"answers\.parquet: expected a file of test predictions"):
        read_predictions(file)


def test_a_file_of_another_kind_or_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers.parquet"
    write_predictions(file, example())
    table = pq.read_table(file)
    pq.write_table(table.replace_schema_metadata(None), file)
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(file)
    newer = {
        key: value.replace(b'"format": 2', b'"format": 9') for key, value in table.schema.metadata.items()
    }
    pq.write_table(table.replace_schema_metadata(newer), file)
    with pytest.raises(DataError, match="expected format 1 to 2, received 9"):
        read_predictions(file)

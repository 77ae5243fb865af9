"""Samples features of a frozen backbone for scoring, the same images for every backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainables.activations.activations import ActivationCache
from trainables.data.task import Task
from trainables.errors import DataError
from trainables.transferability import (
    h_score,
    knn_correct,
    label_cka,
    logme,
)

SCORED_SPLITS = ("train", "validation")
"""The splits that a score may use. Test images are never used before the end of a search."""


@dataclass(frozen=True)
class FeatureSample:
    """Features of a backbone and the classes of the same images.

    Attributes:
        features: (N, D).
        labels: (N,) class indices. The order of the images is the same for all backbones.
    """

    features: np.ndarray
    labels: np.ndarray


def shared_image_ids(tasks: Sequence[Task], seed: int) -> list[str]:
    """Return the ids of the images that are in train or validation of all ``tasks``, in an order drawn by ``seed``.

    Splits that were made here depend on the pixels, and therefore differ between input sizes.

    Raises:
        DataError: fewer than 4 images are in all of them.
    """
    if not tasks:
        return []
    known = [{i for split in SCORED_SPLITS for i in task.split(split).ids[:]} for task in tasks]
    common = sorted(set.intersection(*known))
    if len(common) < 4:
        raise DataError(
            f"data: expected training and validation images that are the same at the input sizes of all backbones, "
            f"found {len(common)}; give all backbones one --input-size"
        )
    return [common[row] for row in np.random.default_rng(seed).permutation(len(common))]


def score_sample(sample: FeatureSample) -> dict[str, float]:
    """Return the scores that need the target alone, by name; greater is better."""
    return {
        "h_score": h_score(sample.features, sample.labels),
        "logme": logme(sample.features, sample.labels),
        "label_cka": label_cka(sample.features, sample.labels),
        "knn": float(knn_correct(sample.features, sample.labels).mean()),
    }


def extract_features(activations: ActivationCache, task: Task, ids: Sequence[str]) -> FeatureSample:
    """Return features and labels of the images ``ids``, in this order."""
    place = {name: row for row, name in enumerate(ids)}
    parts, labels = [], []
    order: list[int] = []
    for name in SCORED_SPLITS:
        split = task.split(name)
        found = {row: place[i] for row, i in enumerate(split.ids[:]) if i in place}
        if not found:
            continue
        rows = np.fromiter(found, np.int64)
        parts.append(_features(activations, name, split.images, rows))
        labels.append(split.labels[rows])
        order.extend(found.values())
    # The splits were read one after the other; this restores the order of ``ids``.
    back = np.argsort(order)
    return FeatureSample(np.concatenate(parts)[back], np.concatenate(labels)[back])


def _features(activations: ActivationCache, split: str, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the features (n, D) of the images ``rows``.

    If at least half of the split is needed, all of it is computed and cached, because a search needs it anyway.
    """
    whole = activations.cached(split, 0)
    if whole is None and 2 * len(rows) >= len(images):
        whole = np.concatenate(list(activations.chunks(split, 0)))
    if whole is not None:
        return np.asarray(whole[rows], np.float32)
    stages = activations.stages
    pixels = (stages.distort(images[rows[piece]]) for piece in stages.chunk_slices(len(rows)))
    return np.concatenate([stages.run(x, stages.input_depth, 0)[0].numpy() for x in pixels])

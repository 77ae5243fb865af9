"""Fits a head on the frozen backbone, from which trials may start: linear probing, then fine-tuning.

Blocks that are trained below a random head are first distorted to suit it; below a trained head they are not (LP-FT,
Kumar et al. 2022, https://arxiv.org/abs/2202.10054). The probe has the head of the trial, its hidden layer included. A
linear head is the logistic regression of :mod:`trainables.training.probes.frozen_probe` at the top cut. One with a
hidden layer has a recipe of its own: no augmentation, no regularisation, Adam at a few learning rates side by side, and
the weights of the epoch with the lowest validation loss. It depends only on the backbone, the data and the width of the
head, so all trials with such a head share it, whatever their seeds and other parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from trainables.batched_heads.fused import FusedHeads
from trainables.batched_heads.state import HeadEpoch, HeadShape, HeadState
from trainables.compiled.head import initial_weights
from trainables.compiled.shapes import Hyperparameters
from trainables.cost_account import CostAccount
from trainables.errors import Diverged
from trainables.training.probe_cache import Weights
from trainables.training.probes.frozen_probe import linear_probe
from trainables.training.schedule import batch_order, learning_rates, steps_per_epoch

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench

RECIPE_VERSION = 1
"""Version of the recipe. Raise it with every change that makes probes come out differently, or old files are reused."""

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
"""Peak rates, of which the one with the lowest validation loss wins."""

BATCH_SIZE = 32
TARGET_STEPS, EPOCH_LIMITS = 1000, (5, 50)
"""A probe trains about this many steps, but at least 5 and at most 50 epochs."""

SEED = 0
"""The same for all trials, so that they share the probe."""

STACK_BYTES = 64 * 2**20
"""Weights of heads that are trained side by side, in bytes; more of them are trained one after the other."""


def probe_head(bench: Workbench, units: int, account: CostAccount) -> Weights:
    """Return the probe of a head; it is fitted if neither this process nor this machine has it.

    Args:
        bench: backbone and data.
        units: width of the head's hidden layer; 0 for a linear head.
        account: is charged with the seconds.

    Returns:
        Kernels and biases, bottom first: (C, K), (K,) or (C, U), (U,), (U, K), (K,), float32. Several trials share the
        arrays: do not change them.

    Raises:
        Diverged: a feature, or the validation loss at each learning rate, was not finite.
    """
    if units == 0:
        with account.timing("probe"):
            return linear_probe(bench, account)
    shape = HeadShape(
        features=int(bench.backbone.model.output.shape[-1]),
        units=units,
        classes=len(bench.task.classes),
        batch_size=min(BATCH_SIZE, bench.task.counts["train"]),
    )
    with account.timing("probe"):
        key = _key(bench, shape)
        return bench.probes.get(key, shape.arrays, lambda: _train(bench, shape, account), account)


def _key(bench: Workbench, shape: HeadShape) -> str:
    """Return everything that a probe depends on, as a line of JSON."""
    facts = {
        "recipe": RECIPE_VERSION,
        "features": bench.activations.stages.digest(0),
        "data": bench.task.digest,
        "head": shape.arrays,
        "software": f"keras {keras.__version__}, tensorflow {tf.__version__}",
    }
    return json.dumps(facts, sort_keys=True)


def _train(bench: Workbench, shape: HeadShape, account: CostAccount) -> Weights:
    """Train the heads of all learning rates; return the weights with the lowest validation loss."""
    features = [_features(bench, split, account) for split in ("train", "validation")]
    labels = [bench.task.split(split).labels.astype(np.int32) for split in ("train", "validation")]
    size = 4 * sum(map(math.prod, shape.arrays))
    count = min(len(LEARNING_RATES), max(1, STACK_BYTES // size))
    least, best = math.inf, None
    with _compiled(bench, shape, features[0].dtype.name, account) as heads:
        for first in range(0, len(LEARNING_RATES), count):
            states = _epochs(heads, LEARNING_RATES[first : first + count], features[0], labels[0])
            for weights in states:
                losses, _, _ = heads.evaluate(weights, features[1], labels[1])
                for loss, own in zip(map(float, losses), weights, strict=True):
                    if loss < least:
                        least, best = loss, own
    if best is None:
        raise Diverged("linear probe: its validation loss is no finite number at any learning rate")
    return best


def _epochs(
    heads: FusedHeads, rates: Sequence[float], features: np.ndarray, labels: np.ndarray
) -> Iterator[list[Weights]]:
    """Yield the weights of each rate's head after each epoch."""
    shape = heads.shape
    steps = steps_per_epoch(len(labels), shape.batch_size)
    epochs = min(max(round(TARGET_STEPS / steps), EPOCH_LIMITS[0]), EPOCH_LIMITS[1])
    zeros = [np.zeros(s, np.float32) for s in shape.arrays]
    states = [HeadState(initial_weights(shape.arrays, SEED), zeros, zeros, 0) for _ in rates]
    for epoch in range(1, epochs + 1):
        rows = batch_order(len(labels), shape.batch_size, SEED, epoch)
        plans = [learning_rates(rate, epoch, epochs, steps) for rate in rates]
        trained = heads.train(
            [
                HeadEpoch(state, features, rows, labels, plan, Hyperparameters(), (SEED, (epoch - 1) * steps))
                for state, plan in zip(states, plans, strict=True)
            ]
        )
        states = [state for _, state in trained]
        yield [state.weights for state in states]


def _features(bench: Workbench, split: str, account: CostAccount) -> np.ndarray:
    """Return the features of the images of ``split``, not augmented: (N, C) float16 or float32."""
    return np.concatenate(list(bench.activations.chunks(split, 0, account)))


@contextmanager
def _compiled(bench: Workbench, shape: HeadShape, dtype: str, account: CostAccount) -> Iterator[FusedHeads]:
    """Yield the compiled heads of ``shape``, the same that trials use which only train such a head."""
    batcher, seconds = bench.acquire_heads(shape, dtype)
    account.charge("compile", seconds)
    account.counts.add(programs_compiled=int(seconds > 0))
    try:
        yield batcher.fused
    finally:
        bench.release_heads(shape)

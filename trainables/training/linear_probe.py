"""A shared start: the head, trained on the frozen whole backbone before any block is unfrozen.

Linear probing, then fine-tuning (LP-FT, Kumar et al. 2022, https://arxiv.org/abs/2202.10054): blocks that train below a
random head are first pulled out of shape to please it; below a trained one they are not. The probe has the trial's
head, hidden layer included, and a recipe of its own: no augmentation, no regularisation, Adam at a few learning rates
side by side, and of all their epochs the weights with the least validation loss. It depends on backbone, data and the
head's width alone, so that all trials of one head, whatever their seeds and parameters, start from the same.
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
from trainables.training.schedule import batch_order, learning_rates, steps_per_epoch

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench

RECIPE_VERSION = 1
"""Version of everything below; raise it whenever a probe would come out differently."""

LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
BATCH_SIZE = 32
TARGET_STEPS, EPOCH_LIMITS = 1000, (5, 50)
"""About so many steps, in so many epochs at least and at most."""

SEED = 0
STACK_BYTES = 64 * 2**20
"""Weights that train side by side."""


def probe_head(bench: Workbench, units: int, account: CostAccount) -> Weights:
    """The probe of a head with a hidden layer of ``units`` (0: none): kernels and biases, bottom first.

    Trained if neither this process nor this machine has it. Nobody may change the arrays.

    Raises:
        Diverged: its validation loss never was a finite number.
    """
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
    """Everything that a probe depends on."""
    facts = {
        "recipe": RECIPE_VERSION,
        "features": bench.activations.stages.digest(0),
        "data": bench.task.digest,
        "head": shape.arrays,
        "software": f"keras {keras.__version__}, tensorflow {tf.__version__}",
    }
    return json.dumps(facts, sort_keys=True)


def _train(bench: Workbench, shape: HeadShape, account: CostAccount) -> Weights:
    features = [_features(bench, split, account) for split in ("train", "validation")]
    labels = [bench.task.split(split).labels.astype(np.int32) for split in ("train", "validation")]
    size = 4 * sum(map(math.prod, shape.arrays))
    together = min(len(LEARNING_RATES), max(1, STACK_BYTES // size))
    least, best = math.inf, None
    with _compiled(bench, shape, features[0].dtype.name, account) as heads:
        for first in range(0, len(LEARNING_RATES), together):
            states = _epochs(heads, LEARNING_RATES[first : first + together], features[0], labels[0])
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
    """The weights of each rate's head after each epoch."""
    shape = heads.shape
    steps = steps_per_epoch(len(labels), shape.batch_size)
    epochs = min(max(round(TARGET_STEPS / steps), EPOCH_LIMITS[0]), EPOCH_LIMITS[1])
    zeros = [np.zeros(s, np.float32) for s in shape.arrays]
    states = [HeadState(initial_weights(shape.arrays, SEED), zeros, zeros, 0) for _ in rates]
    for epoch in range(1, epochs + 1):
        rows = batch_order(len(labels), shape.batch_size, SEED, epoch)
        plans = [learning_rates(rate, epoch, epochs, steps) for rate in rates]
        ran = heads.train(
            [
                HeadEpoch(state, features, rows, labels, plan, Hyperparameters(), (SEED, (epoch - 1) * steps))
                for state, plan in zip(states, plans, strict=True)
            ]
        )
        states = [state for _, state in ran]
        yield [state.weights for state in states]


def _features(bench: Workbench, split: str, account: CostAccount) -> np.ndarray:
    """What the frozen backbone makes of the undistorted images of ``split``: (N, C), float16 or float32."""
    return np.concatenate(list(bench.activations.chunks(split, 0, account)))


@contextmanager
def _compiled(bench: Workbench, shape: HeadShape, dtype: str, account: CostAccount) -> Iterator[FusedHeads]:
    """What trials that only train such a head use, too."""
    together, seconds = bench.acquire_heads(shape, dtype)
    account.charge("compile", seconds)
    account.counts.add(programs_compiled=int(seconds > 0))
    try:
        yield together.fused
    finally:
        bench.release_heads(shape)

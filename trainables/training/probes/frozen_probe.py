"""The frozen probe: a logistic regression on features that the backbone has without being trained.

It is what a search has to beat, and costs seconds. Features are taken from several cuts of the backbone, because the
topmost ones belong to the task of the pretrained weights: those of a cut are the means of each channel over the image.
At each cut a regression is fitted and judged by cross-validation on the training images
(:mod:`trainables.training.probes.logistic_regression`). At the best cut another one is fitted that also sees augmented
views of these images. The candidate with the lowest cross-entropy wins; of equal ones the first, and the top cut
without augmentation is the first. Validation and test images play no part.

Each candidate is kept like the trained heads of :mod:`trainables.training.linear_probe`. The activations that it reads
are those that trials at the same cut read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import sklearn
import tensorflow as tf

from trainables.activations.augmentation_views import nearest_level
from trainables.backbones.backbone import Backbone
from trainables.cost_account import CostAccount
from trainables.errors import OutOfMemory
from trainables.tracing import BUILD_LOCK
from trainables.training.probe_cache import Weights
from trainables.training.probes.logistic_regression import fit_logistic_regression

if TYPE_CHECKING:
    from trainables.training.workbench import Workbench

RECIPE_VERSION = 1
"""Version of the recipe. Raise it with every change that makes probes come out differently, or old files are reused."""

LOWER_CUTS, LOWEST_SHARE = (1, 2), 1 / 4
"""Cuts below the top one: those under so many blocks, and under this share of all blocks."""

MAX_CUT_BYTES = 256 * 2**20
"""Largest activations of the training images, in bytes, at a cut below the top one. Larger cuts are left out."""

AUGMENTED_VIEWS = 2
"""Augmented versions of each training image that the regression sees besides the image itself."""


@dataclass(frozen=True)
class ProbeCandidate:
    """One way to fit the probe, and how it did in cross-validation.

    Attributes:
        depth: number of blocks above the cut; 0 for the backbone's own features.
        strength: of augmentation, a quantised level.
        views: number of augmented versions of each image.
        penalty: λ of the regression.
        cv_accuracy: share of held-out training images that were classified correctly; None if no class has two images.
        cv_loss: their mean cross-entropy; None likewise.
    """

    depth: int
    strength: float
    views: int
    penalty: float
    cv_accuracy: float | None
    cv_loss: float | None


@dataclass(frozen=True)
class ProbeChoice:
    """The candidate that won, and all candidates in the order of the table.

    Attributes:
        best: the winner.
        cut: name of the block that is the topmost one below its cut.
        candidates: all that were tried.
    """

    best: ProbeCandidate
    cut: str
    candidates: tuple[ProbeCandidate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, as a checkpoint stores them."""
        return {
            "best": asdict(self.best),
            "cut": self.cut,
            "candidates": [asdict(each) for each in self.candidates],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ProbeChoice:
        """Read what :meth:`to_json` returned.

        Raises:
            KeyError, TypeError: it is something else.
        """
        candidates = tuple(ProbeCandidate(**each) for each in values["candidates"])
        return cls(ProbeCandidate(**values["best"]), str(values["cut"]), candidates)

    def describe(self) -> dict[str, float | str]:
        """Return the choice as flat values for the cost of a trial. The keys are stored and must not change."""
        best = self.best
        known = {"probe_cv_accuracy": best.cv_accuracy, "probe_cv_loss": best.cv_loss}
        return {
            "probe_cut": self.cut,
            "probe_depth": best.depth,
            "probe_strength": best.strength,
            "probe_views": best.views,
            "probe_penalty": best.penalty,
            **{name: value for name, value in known.items() if value is not None},
            "probe_candidates": json.dumps([asdict(each) for each in self.candidates]),
        }


def choose_probe(
    bench: Workbench, strength: float, account: CostAccount, depth: int | None = None
) -> tuple[ProbeChoice, Weights]:
    """Fit all candidates, unless this process or this machine has them, and return the best one.

    Args:
        bench: backbone and data.
        strength: of augmentation; 0 to try none. Without views it has no effect.
        account: is charged with the seconds.
        depth: number of blocks above the only cut to try; None to try several.

    Returns:
        The choice; kernel (C, K) and bias (K,) of the winner, float32, which may be shared: do not change them.

    Raises:
        Diverged: a feature is not a finite number.
    """
    with account.timing("probe"):
        # The lowest cut first: the activations at each cut are then computed from those below, in one pass over the
        # images.
        depths = candidate_depths(bench) if depth is None else [depth]
        fitted = {each: _fitted(bench, each, 0.0, account) for each in reversed(depths)}
        tried = [fitted[each] for each in sorted(fitted)]
        best = min(tried, key=_loss)
        level = nearest_level(strength)
        if level > 0 and bench.activations.views > 0:
            tried.append(_fitted(bench, best[0].depth, level, account))
            best = min(tried, key=_loss)
    candidates = tuple(candidate for candidate, _ in tried)
    return ProbeChoice(best[0], _cut_name(bench.backbone, best[0].depth), candidates), best[1]


def linear_probe(bench: Workbench, account: CostAccount) -> Weights:
    """Return kernel (C, K) and bias (K,) of the probe at the top cut without augmentation, float32.

    Several trials share the arrays: do not change them.

    Raises:
        Diverged: a feature is not a finite number.
    """
    return _fitted(bench, 0, 0.0, account)[1]


def candidate_depths(bench: Workbench) -> list[int]:
    """Return the depths of the cuts that are tried, ascending. They depend on sizes alone."""
    stages = bench.activations.stages
    below = {*LOWER_CUTS, math.ceil(LOWEST_SHARE * stages.input_depth)}
    return [0, *(depth for depth in sorted(below) if depth < stages.input_depth and _is_small(bench, depth))]


def pooled(activations: np.ndarray) -> np.ndarray:
    """Return the features (N, C) of activations (N, …, C) at a cut: the means over all axes between.

    Features that have no such axes are returned as they are.
    """
    if activations.ndim == 2:
        return activations
    axes = tuple(range(1, activations.ndim - 1))
    return np.asarray(activations.astype(np.float32).mean(axis=axes))


def pooled_prefix(backbone: Backbone, depth: int) -> Any:
    """Return the Keras model from pixels to the features at the cut of ``depth``; its layers belong to ``backbone``."""
    prefix, _ = backbone.parts(depth)
    if depth == 0:
        return prefix
    with BUILD_LOCK:
        tensor = prefix.outputs[0]
        pools = {4: keras.layers.GlobalAveragePooling2D, 3: keras.layers.GlobalAveragePooling1D}
        pool = pools.get(len(tensor.shape))
        # In float32, because a sum in float16 may overflow.
        features = tensor if pool is None else pool(dtype="float32", name="probe_pool")(tensor)
        return keras.Model(prefix.inputs[0], features, name="prefix")


def _is_small(bench: Workbench, depth: int) -> bool:
    shape = bench.activations.stages.shape(depth)
    return len(shape) <= 3 and 2 * math.prod(shape) * bench.task.counts["train"] <= MAX_CUT_BYTES


def _loss(fitted: tuple[ProbeCandidate, Weights]) -> float:
    loss = fitted[0].cv_loss
    return math.inf if loss is None else loss


def _cut_name(backbone: Backbone, depth: int) -> str:
    return backbone.blocks[len(backbone.blocks) - 1 - depth].name


def _fitted(
    bench: Workbench, depth: int, strength: float, account: CostAccount
) -> tuple[ProbeCandidate, Weights]:
    views = min(AUGMENTED_VIEWS, bench.activations.views) if strength > 0 else 0
    width, classes = bench.activations.stages.shape(depth)[-1], len(bench.task.classes)
    facts = {
        "recipe": f"logistic regression {RECIPE_VERSION}",
        "features": bench.activations.stages.digest(depth),
        "data": bench.task.digest,
        "classes": classes,
        "strength": strength,
        "views": views,
        "software": f"keras {keras.__version__}, tensorflow {tf.__version__}, scikit-learn {sklearn.__version__}",
    }
    kernel, bias, numbers = bench.probes.get(
        json.dumps(facts, sort_keys=True),
        [(width, classes), (classes,), (3,)],
        lambda: _fit(bench, depth, strength, views, account),
        account,
    )
    # NaN stands for what is unknown: files of probes hold numbers alone.
    penalty, accuracy, loss = (None if math.isnan(number) else float(f"{number:.6g}") for number in numbers)
    return ProbeCandidate(depth, strength, views, penalty or 0.0, accuracy, loss), [kernel, bias]


def _fit(bench: Workbench, depth: int, strength: float, views: int, account: CostAccount) -> Weights:
    features = np.concatenate([pooled(chunk) for chunk in bench.activations.chunks("train", depth, account)])
    augmented = tuple(_view(bench, depth, strength, number, account) for number in range(views))
    labels = np.asarray(bench.task.split("train").labels)
    found = fit_logistic_regression(features, labels, len(bench.task.classes), augmented)
    best = found.best
    scores = (math.nan, math.nan) if best is None else (best.accuracy, best.loss)
    return [found.kernel, found.bias, np.array([found.penalty, *scores], np.float32)]


def _view(bench: Workbench, depth: int, strength: float, number: int, account: CostAccount) -> np.ndarray:
    activations = bench.activations.get(
        "train", depth, strength=strength, view=number, account=account, allow_uncached=True
    )
    if activations is None:
        raise OutOfMemory(f"no memory left for the augmented images at depth {depth}")
    return pooled(activations)

"""Scores backbones on a task for ``unfreeze score``, by the features of the frozen backbones, without training.

Everything runs in this process, without Ray. Features are read from and written to the cache of activations, so that a
search on the same data does not compute them again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from search.config.search_config import SearchConfig
from search.ledger.workspace import Workspace
from search.records.scores import BackboneScores, DomainSimilarity, ScoringResult
from search.records.stats.intervals import paired_gain, wilson
from search.study.resolved_inputs import backbone_spec, data_folder, data_options
from search.views.view import View
from trainables.activations.activations import ActivationCache
from trainables.activations.location import default_directory
from trainables.backbones.backbone import Backbone
from trainables.backbones.precision import recast_backbone
from trainables.data.task import Task
from trainables.errors import SearchError
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.numerics import choose_numerics
from trainables.transferability import (
    h_score,
    knn_correct,
    label_cka,
    leep,
    linear_cka,
    logme,
    mmd_test,
    most_probable,
    nce,
    source_probabilities,
)
from trainables.transferability.feature_sample import FeatureSample, extract_features, shared_image_ids
from trainables.transferability.knn import NEIGHBOURS

MMD_MAX_IMAGES = 500
"""Images of each dataset that MMD compares, because its cost grows with the square of their number."""

Result = TypeVar("Result")


@dataclass
class ScoringCandidate:
    """A backbone to score.

    Attributes:
        name: as the user gave it.
        config: the options that a search on this backbone would have.
        task: the target at the backbone's input size.
        source: other data at the same size, if there is any.
        seconds: spent on the backbone, by step.
    """

    name: str
    config: SearchConfig
    backbone: Backbone
    task: Task
    source: Task | None
    seconds: dict[str, float] = field(default_factory=dict)


def score_backbones(
    configs: Mapping[str, SearchConfig], source: str | None, max_images: int, view: View
) -> ScoringResult:
    """Score each backbone on training and validation images of the target, and its similarity to other data.

    Args:
        configs: by name of the backbone the options that a search on it would have; they differ only in backbone and
            weights.
        source: other data to compare with the target; None for none.
        max_images: maximum number of images of each of the two.
        view: shows the progress.

    Raises:
        DataError: the data is unfit, or backbones of several input sizes have no image in common.
        SearchError: no backbone can be scored; the reason is that of the first.
    """
    began = time.monotonic()
    first = next(iter(configs.values()))
    storage = Path(first.storage).absolute()
    _limit_gpu_memory()
    failed: dict[str, str] = {}
    candidates = _for_each_backbone(
        configs, lambda name: _open_candidate(name, configs[name], source, storage, view), failed
    )
    tasks = [c.task for c in candidates.values()]
    sources = [c.source for c in candidates.values() if c.source is not None]
    # All backbones are scored on the same images, or their scores could not be compared.
    common = shared_image_ids(tasks, first.seed)
    ids, other = common[:max_images], shared_image_ids(sources, first.seed)[:max_images]
    samples: dict[str, FeatureSample] = {}
    seen = iter(range(1, len(candidates) + 1))

    def score(name: str) -> tuple[BackboneScores, np.ndarray]:
        view.stage("scoring", next(seen), len(candidates))
        found, correct, samples[name] = _score_candidate(candidates[name], ids, other)
        return found, correct

    scored = _for_each_backbone(candidates, score, failed)
    return ScoringResult(
        task=tasks[0].name,
        source=sources[0].name if sources else None,
        classes=len(np.unique(next(iter(samples.values())).labels)),
        images=len(ids),
        available_images=len(common),
        neighbours=min(NEIGHBOURS, len(ids) - 1),
        backbones=_ranked(scored),
        feature_cka={
            (a, b): linear_cka(samples[a].features, samples[b].features, debiased=True)
            for a, b in combinations(scored, 2)
        },
        failed=failed,
        elapsed=time.monotonic() - began,
    )


def _limit_gpu_memory() -> None:
    """Let TensorFlow take GPU memory as it needs it, because a search may train on the same GPU."""
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)


def _for_each_backbone(
    names: Mapping[str, Any], work: Callable[[str], Result], failed: dict[str, str]
) -> dict[str, Result]:
    """Call ``work`` for each name and collect the results.

    Args:
        failed: receives the reasons of backbones that can't be scored.

    Raises:
        SearchError: ``work`` failed for all of them; the reason is that of the first.
    """
    done: dict[str, Result] = {}
    reason: SearchError | None = None
    for name in names:
        try:
            done[name] = work(name)
        except SearchError as error:
            reason = reason or error
            failed[name] = str(error)
    if not done and reason is not None:
        raise reason
    return done


def _open_candidate(
    name: str, config: SearchConfig, source: str | None, storage: Path, view: View
) -> ScoringCandidate:
    began = time.perf_counter()
    view.event(f"backbone {name}: loading")
    with tempfile.TemporaryDirectory(prefix="unfreeze-") as downloads:
        loaded = load(backbone_spec(config, storage, Path(downloads)))
    backbone = recast_backbone(loaded, choose_numerics(config.precision).precision)
    seconds = {"load": time.perf_counter() - began}
    target = _prepare_task(config, backbone, storage, view)
    other = None if source is None else _prepare_task(config.replace(data=source), backbone, storage, view)
    return ScoringCandidate(name, config, backbone, target, other, seconds)


def _prepare_task(config: SearchConfig, backbone: Backbone, storage: Path, view: View) -> Task:
    """Prepare the data in the folder where a search of the same storage would look for it."""
    return prepare(
        config.data,
        image_size=backbone.input_size,
        directory=Workspace(storage, "").data / data_folder(config, backbone.input_size),
        options=data_options(config),
        progress=lambda done, total: view.stage("data", done, total),
    )


def _score_candidate(
    candidate: ScoringCandidate, ids: Sequence[str], other: Sequence[str]
) -> tuple[BackboneScores, np.ndarray, FeatureSample]:
    """Score one backbone.

    Args:
        ids: of images of the target.
        other: of images of the source.

    Returns:
        The scores, whether k-NN classifies each image correctly (N,), and the features of the target.
    """
    began = time.perf_counter()
    target = _sample(candidate, candidate.task, ids)
    source = None if candidate.source is None else _sample(candidate, candidate.source, other)
    candidate.seconds["features"] = time.perf_counter() - began
    began, backbone = time.perf_counter(), candidate.backbone
    right = knn_correct(target.features, target.labels)
    found = BackboneScores(
        name=candidate.name,
        weights=backbone.weights,
        digest=backbone.digest,
        input_size=backbone.input_size,
        parameters=backbone.parameters,
        features=target.features.shape[1],
        knn=wilson(int(right.sum()), len(right)),
        tied=False,
        logme=logme(target.features, target.labels),
        h_score=h_score(target.features, target.labels),
        label_cka=label_cka(target.features, target.labels),
        likeness=None if source is None else _domain_similarity(source, target),
        seconds=candidate.seconds,
    )
    candidate.seconds["scores"] = time.perf_counter() - began
    return found, right, target


def _domain_similarity(source: FeatureSample, target: FeatureSample) -> DomainSimilarity:
    probabilities = source_probabilities(source.features, source.labels, target.features)
    apart = mmd_test(source.features[:MMD_MAX_IMAGES], target.features[:MMD_MAX_IMAGES])
    return DomainSimilarity(
        leep(probabilities, target.labels),
        nce(most_probable(probabilities), target.labels),
        apart.squared,
        apart.p_value,
    )


def _sample(candidate: ScoringCandidate, task: Task, ids: Sequence[str]) -> FeatureSample:
    config = candidate.config
    cache = default_directory(wanted=config.reuse_settings.cache)
    activations = ActivationCache(
        candidate.backbone, task, directory=cache, disk_budget=config.reuse_settings.cache_budget
    )
    return extract_features(activations, task, ids)


def _ranked(scored: Mapping[str, tuple[BackboneScores, np.ndarray]]) -> tuple[BackboneScores, ...]:
    """Sort by k-NN accuracy, then LogME, and mark backbones that are not significantly worse than the best."""
    found = sorted(scored.values(), key=lambda s: (-s[0].knn.estimate, -s[0].logme))
    best = found[0][1]
    return tuple(
        replace(s, tied=i > 0 and not _significantly_worse(right, best)) for i, (s, right) in enumerate(found)
    )


def _significantly_worse(right: np.ndarray, best: np.ndarray) -> bool:
    return len(best) > 1 and paired_gain(best[None], right[None]).low > 0

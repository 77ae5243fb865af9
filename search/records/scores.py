"""Define the results of ``unfreeze score`` as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search.records.record import Interval

HOW_TO_READ = (
    "Greater is better in every column except MMD². Start with k-NN. Backbones marked ≈ do not differ significantly "
    "from the first one by k-NN; for them, the other columns break the tie."
)
LIMITS = (
    "Scores measure frozen features. They cannot predict what a backbone reaches once blocks are unfrozen, so use them "
    "as a prior and let a search decide. All scores except k-NN are comparable within this table only."
)
P_VALUE_NOTE = (
    "A small p means that the backbone's features distinguish source from target images, which is nearly always the "
    "case; it does not mean that transfer fails."
)


@dataclass(frozen=True)
class DomainSimilarity:
    """How similar source and target are.

    Attributes:
        leep: LEEP (Nguyen et al. 2020), in nats, at most 0.
        nce: negative conditional entropy (Tran et al. 2019), in nats, at most 0.
        mmd_squared: squared maximum mean discrepancy (Gretton et al. 2012) between the features of source and
            target.
        mmd_p_value: p-value of the test that both have the same distribution.
    """

    leep: float
    nce: float
    mmd_squared: float
    mmd_p_value: float


@dataclass(frozen=True)
class BackboneScores:
    """The transferability scores of one backbone (:mod:`trainables.transferability`).

    Attributes:
        name: the name that the user gave.
        weights: the name of the pretrained weights.
        digest: hash of the weights.
        input_size: (H, W) of the backbone's input.
        parameters: number of parameters.
        features: number of features.
        knn: leave-one-out accuracy of k-NN, with its 95 % interval.
        tied: whether the paired difference from the first backbone of the table may be due to chance.
        logme: LogME (You et al. 2021).
        h_score: H-score (Bao et al. 2019).
        label_cka: linear CKA (Kornblith et al. 2019) between features and labels.
        likeness: similarity of source and target in this backbone's features; None without a source.
        seconds: time to load the backbone, to compute features, and to compute the scores.
    """

    name: str
    weights: str
    digest: str
    input_size: tuple[int, int]
    parameters: int
    features: int
    knn: Interval
    tied: bool
    logme: float
    h_score: float
    label_cka: float
    likeness: DomainSimilarity | None
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class ScoringResult:
    """The scores of all backbones on the same images of one task, the best by k-NN first.

    Attributes:
        images: number of images that were scored.
        available_images: number of training and validation images that could be scored at every input size.
        feature_cka: linear CKA between the features of two backbones, by their names.
        failed: reason for each backbone without scores.
    """

    task: str
    source: str | None
    classes: int
    images: int
    available_images: int
    neighbours: int
    backbones: tuple[BackboneScores, ...]
    feature_cka: Mapping[tuple[str, str], float]
    failed: Mapping[str, str]
    elapsed: float

    @property
    def note(self) -> str | None:
        """A warning if there are too few images per class for the scores to be reliable; else None."""
        share = self.images / self.classes
        if share >= 10:
            return None
        more = " (--images N takes more)" if self.images < self.available_images else ""
        return f"{share:.2g} images per class are few{more}: differences may be due to chance"


def scoring_json(scoring: ScoringResult, report: str | None) -> dict[str, Any]:
    """Return the scores as one JSON object; every number is finite or null."""
    return {
        "task": scoring.task,
        "source": scoring.source,
        "classes": scoring.classes,
        "images": scoring.images,
        "known_images": scoring.available_images,
        "neighbours": scoring.neighbours,
        "backbones": [_finite(asdict(scores)) for scores in scoring.backbones],
        "alike": [{"backbones": list(pair), "cka": cka} for pair, cka in scoring.feature_cka.items()],
        "failed": dict(scoring.failed),
        "seconds": round(scoring.elapsed, 3),
        "note": scoring.note,
        "report": report,
        "words": explanations(scoring),
    }


def explanations(scoring: ScoringResult) -> list[str]:
    """Return sentences on how to read the scores, and on their limits."""
    sentences = [HOW_TO_READ, LIMITS, P_VALUE_NOTE if scoring.source is not None else None, scoring.note]
    return [sentence for sentence in sentences if sentence is not None]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

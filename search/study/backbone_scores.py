"""Scores the backbones of a search on its training and validation images, as a prior for the first trials."""

from __future__ import annotations

from collections.abc import Callable

from ray.exceptions import RayTaskError

from search.execution.engines.dispatch import dispatch
from search.execution.engines.jobs import ScoreBackbone
from search.execution.engines.session import Session
from search.ledger.sampling.backbone_prior import PRIOR_SCORE, BackbonePrior
from search.study.preparation import Prepared

MAX_IMAGES = 1000
"""Images on which backbones are scored: enough for stable ranks, and few enough to take seconds."""


def score_prepared(
    prepared: Prepared, session: Session, seed: int, notify: Callable[[str], None]
) -> BackbonePrior | None:
    """Score all backbones of ``prepared``.

    Args:
        seed: of the sample of images.
        notify: receives a line with the result, or the reason why there is none.

    Returns:
        The prior; None if a backbone can't be scored. A search works without it.

    Raises:
        SearchError: the engines crashed repeatedly.
    """
    if prepared.unlabelled:
        notify("prior: no backbone is preferred, because scores need labels of the target")
        return None
    jobs = {name: ScoreBackbone(own.paths, MAX_IMAGES, seed) for name, own in prepared.by_backbone.items()}
    try:
        found = dict(dispatch(session, jobs))
    except RayTaskError as error:  # the job itself raised, for example for lack of memory
        notify(f"prior: no backbone is preferred, because they can't be scored ({_reason(error)})")
        return None
    prior = BackbonePrior(
        scores={name: found[name].scores[PRIOR_SCORE] for name in jobs},
        seconds=max(found[name].seconds for name in jobs),
        other_scores={name: found[name].scores for name in jobs},
    )
    probabilities = prior.probabilities
    ranked = sorted(probabilities, key=lambda name: -probabilities[name])
    shares = ", ".join(f"{name} {100 * probabilities[name]:.0f} %" for name in ranked)
    notify(
        f"prior: H-scores in {prior.seconds:.1f} s; share of each backbone in the first trials: {shares}. The "
        "preference fades as trials end"
    )
    return prior


def _reason(error: RayTaskError) -> str:
    return str(error).strip().splitlines()[-1]

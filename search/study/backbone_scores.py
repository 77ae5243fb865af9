"""The scores behind a prior: the prepared backbones on the search's own training and validation images."""

from __future__ import annotations

from collections.abc import Callable

from ray.exceptions import RayTaskError

from search.execution.engines.dispatch import dispatch
from search.execution.engines.jobs import ScoreBackbone
from search.execution.engines.session import Session
from search.ledger.sampling.backbone_prior import PRIOR_SCORE, BackbonePrior
from search.study.preparation import Prepared

MAX_IMAGES = 1000
"""At most so many are looked at: the scores take seconds then, and the features are those that trials use."""


def score_prepared(
    prepared: Prepared, session: Session, seed: int, notify: Callable[[str], None]
) -> BackbonePrior | None:
    """The prior, or None where a backbone can't be scored, for which ``told`` gets the reason: a search can do without.

    Raises:
        SearchError: the engines died again and again.
    """
    if prepared.unlabelled:
        notify("prior: backbones are scored by labels of the target, which has none, so none is preferred")
        return None
    calls = {name: ScoreBackbone(own.paths, MAX_IMAGES, seed) for name, own in prepared.by_backbone.items()}
    try:
        found = dict(dispatch(session, calls))
    except RayTaskError as error:
        notify(f"prior: backbones can't be scored, so none is preferred ({_reason(error)})")
        return None
    prior = BackbonePrior(
        scores={name: found[name].scores[PRIOR_SCORE] for name in calls},
        seconds=max(found[name].seconds for name in calls),
        other_scores={name: found[name].scores for name in calls},
    )
    chances = prior.probabilities
    ranked = sorted(chances, key=lambda name: -chances[name])
    shares = ", ".join(f"{name} {100 * chances[name]:.0f} %" for name in ranked)
    notify(f"prior: backbones by H-score, in {prior.seconds:.1f} s: {shares} of the first trials; it fades")
    return prior


def _reason(error: RayTaskError) -> str:
    return str(error).strip().splitlines()[-1]

"""A prior on the backbones before the first trial, which fades as trials end.

Scores of transferability rank backbones, and not well (``docs/transferability.md``). The prior therefore uses the ranks
alone, prefers the better ones mildly, and gives every backbone a share. Trial n takes its backbone from the prior with
probability s / (s + n), s being :data:`PRIOR_STRENGTH`, and otherwise from the sampler, which learns from the results
of trials. A wrong prior costs a few trials before the sampler's experience outweighs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from search.config.parameters import BACKBONE
from search.ledger.sampling.proposals import Proposal
from search.records.record import SearchRecord, TrialRecord, rank_key

PRIOR_STRENGTH = 4.0
"""How many trials the prior counts for: after so many, it chooses the backbone of every second one."""

UNIFORM_SHARE = 0.3
"""Share of the probability that is divided equally among all backbones, so that none is excluded by a wrong score."""

PRIOR_SCORE = "h_score"
"""The score that is used. It ranked backbones best in the comparison of ``docs/transferability.md``."""


@dataclass(frozen=True)
class BackbonePrior:
    """Probabilities of the backbones that follow from their scores.

    Attributes:
        scores: by the backbone's name; greater is better.
        seconds: how long it took to compute them.
        other_scores: scores of other kinds, by kind and backbone. They are shown and not used.
    """

    scores: Mapping[str, float]
    seconds: float = 0.0
    other_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def ranks(self) -> dict[str, int]:
        """Ranks by the backbone's name, 1 for the best. Equal scores share the better rank."""
        return {name: 1 + sum(s > own for s in self.scores.values()) for name, own in self.scores.items()}

    @property
    def probabilities(self) -> dict[str, float]:
        """Probabilities by the backbone's name: halved with each rank, and mixed with equal ones."""
        weights = {name: 2.0**-rank for name, rank in self.ranks.items()}
        whole = sum(weights.values())
        return {
            name: (1 - UNIFORM_SHARE) * w / whole + UNIFORM_SHARE / len(weights)
            for name, w in weights.items()
        }

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord] = ()) -> Proposal | None:
        """Return a backbone for trial number ``started`` of a search, or None to leave it to the sampler.

        See :meth:`search.ledger.sampling.proposals.ProposalSource.propose`. The results of trials play no part.
        """
        # The last number keeps these random numbers apart from those of the other sources with the same seed.
        rng = np.random.default_rng([seed, started, 7])
        if rng.random() >= PRIOR_STRENGTH / (PRIOR_STRENGTH + started):
            return None
        names = sorted(self.scores)
        chances = self.probabilities
        chosen = names[int(rng.choice(len(names), p=[chances[n] for n in names]))]
        return Proposal("prior", {BACKBONE: chosen})

    def to_json(self) -> dict[str, Any]:
        """Return the form in which the ledger stores it. ``probabilities`` is for readers."""
        return {
            "score": PRIOR_SCORE,
            "scores": dict(self.scores),
            "others": {name: dict(scores) for name, scores in self.other_scores.items()},
            "probabilities": self.probabilities,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BackbonePrior:
        """Read what :meth:`to_json` has written."""
        return cls(values["scores"], values["seconds"], values["others"])


@dataclass(frozen=True)
class PriorEvaluation:
    """How good the prior of a search was, as far as its trials show.

    Attributes:
        first: the backbone that the prior ranked first.
        best: the backbone of the best trial.
        rank: the rank of ``best`` in the prior.
        backbones: how many backbones the prior ranked.
        trials: number of trials of each backbone.
        values: best objective value of each backbone that has one.
        correlation: Kendall's τ_b between scores and best objective values; None with fewer than three values.
    """

    first: str
    best: str
    rank: int
    backbones: int
    trials: Mapping[str, int]
    values: Mapping[str, float]
    correlation: float | None

    def __str__(self) -> str:
        trials = ", ".join(f"{count} on {name}" for name, count in self.trials.items())
        text = f"the best backbone, {self.best}, was number {self.rank} of {self.backbones} by score; trials: {trials}"
        if self.correlation is None:
            return text
        return f"{text}; rank correlation of scores and best values {self.correlation:+.2f}".replace("-", "−")


def evaluate_prior(record: SearchRecord) -> PriorEvaluation | None:
    """Return how good the prior of a search was; None without a prior or a result."""
    best = record.best
    if record.prior is None or best is None:
        return None
    prior = BackbonePrior.from_json(record.prior)
    values: dict[str, float] = {}
    for name in prior.scores:
        ended = {
            key: trial.value
            for trial in record.trials
            if trial.params.get(BACKBONE) == name and (key := rank_key(trial, record.direction))
        }
        if ended:
            values[name] = float(ended[min(ended)] or 0.0)
    ranks, name = prior.ranks, str(best.params[BACKBONE])
    return PriorEvaluation(
        first=min(ranks, key=lambda n: ranks[n]),
        best=name,
        rank=ranks[name],
        backbones=len(ranks),
        trials={n: sum(t.params.get(BACKBONE) == n for t in record.trials) for n in prior.scores},
        values=values,
        correlation=_correlation(prior.scores, values, record.direction == "maximize"),
    )


def _correlation(scores: Mapping[str, float], values: Mapping[str, float], maximize: bool) -> float | None:
    if len(values) < 3:
        return None
    from scipy.stats import kendalltau

    goodness = [values[n] if maximize else -values[n] for n in values]
    found = float(kendalltau([scores[n] for n in values], goodness).statistic)
    return found if np.isfinite(found) else None  # NaN if all scores or all values are equal

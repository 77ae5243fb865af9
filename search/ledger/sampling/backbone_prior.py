"""What is believed of the backbones before the first trial, and how that fades as trials come in.

Scores of transferability rank backbones, and not well (``docs/transferability.md``): so the belief follows from ranks
alone, is mild, and no backbone is left without a share. It is a mixture in time: trial n takes its backbone from the
prior with probability s / (s + n), and else from the sampler, which learns from what trials reached. So a wrong prior
costs a few trials, and is then outvoted.
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
"""Trials that the prior is worth: after so many, every second one is the sampler's own."""

UNIFORM_SHARE = 0.3
"""Share of the prior that all backbones have alike."""

PRIOR_SCORE = "h_score"
"""Of the scores that are computed the one that ranked best where it was tried: see ``docs/transferability.md``."""


@dataclass(frozen=True)
class BackbonePrior:
    """Scores of the backbones by name, greater is better, and what follows from them.

    ``seconds`` is what the scores took; ``others`` are scores that are told but not used.
    """

    scores: Mapping[str, float]
    seconds: float = 0.0
    others: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def ranks(self) -> dict[str, int]:
        """1 for the best; equal scores share the better rank."""
        return {name: 1 + sum(s > own for s in self.scores.values()) for name, own in self.scores.items()}

    @property
    def probabilities(self) -> dict[str, float]:
        """Half as likely with each rank, mixed with an even choice."""
        weights = {name: 2.0**-place for name, place in self.ranks.items()}
        whole = sum(weights.values())
        return {
            name: (1 - UNIFORM_SHARE) * w / whole + UNIFORM_SHARE / len(weights)
            for name, w in weights.items()
        }

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord] = ()) -> Proposal | None:
        """What trial number ``started`` of a search has from the prior: a backbone, or nothing."""
        rng = np.random.default_rng([seed, started, 7])
        if rng.random() >= PRIOR_STRENGTH / (PRIOR_STRENGTH + started):
            return None
        names = sorted(self.scores)
        chances = self.probabilities
        chosen = names[int(rng.choice(len(names), p=[chances[n] for n in names]))]
        return Proposal("prior", {BACKBONE: chosen})

    def to_json(self) -> dict[str, Any]:
        """JSON values from which :meth:`from_json` makes it again."""
        return {
            "score": PRIOR_SCORE,
            "scores": dict(self.scores),
            "others": {name: dict(scores) for name, scores in self.others.items()},
            "probabilities": self.probabilities,
            "seconds": round(self.seconds, 3),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BackbonePrior:
        """What :meth:`to_json` wrote."""
        return cls(values["scores"], values["seconds"], values["others"])


@dataclass(frozen=True)
class PriorEvaluation:
    """What a prior was worth, as far as the trials tell.

    Attributes:
        first: the backbone that it put first.
        best: the backbone of the best trial. place: its rank in the prior, of ``of``.
        trials: how many trials each backbone had.
        values: the best objective of each that has one.
        correlation: Kendall's τ_b between scores and best objectives; None where there are too few of them.
    """

    first: str
    best: str
    place: int
    of: int
    trials: Mapping[str, int]
    values: Mapping[str, float]
    correlation: float | None

    def __str__(self) -> str:
        spent = ", ".join(f"{count} on {name}" for name, count in self.trials.items())
        said = (
            f"the best backbone, {self.best}, was number {self.place} of {self.of} by score; trials: {spent}"
        )
        if self.correlation is None:
            return said
        return f"{said}; rank correlation of scores and best values {self.correlation:+.2f}".replace("-", "−")


def evaluate_prior(record: SearchRecord) -> PriorEvaluation | None:
    """What the prior of a search was worth; None without a prior or a result."""
    best = record.best
    if record.prior is None or best is None:
        return None
    prior = BackbonePrior.from_json(record.prior)
    values: dict[str, float] = {}
    for name in prior.scores:
        ended = [t for t in record.trials if t.params.get(BACKBONE) == name and rank_key(t, record.direction)]
        if ended:
            top = min(ended, key=lambda t: rank_key(t, record.direction) or (0.0, True, 0.0, 0))
            values[name] = float(top.value or 0.0)
    ranks, name = prior.ranks, str(best.params[BACKBONE])
    return PriorEvaluation(
        first=min(ranks, key=lambda n: ranks[n]),
        best=name,
        place=ranks[name],
        of=len(ranks),
        trials={n: sum(t.params.get(BACKBONE) == n for t in record.trials) for n in prior.scores},
        values=values,
        correlation=_correlation(prior.scores, values, record.direction == "maximize"),
    )


def _correlation(scores: Mapping[str, float], values: Mapping[str, float], greater: bool) -> float | None:
    if len(values) < 3:
        return None
    from scipy.stats import kendalltau

    reached = [values[n] if greater else -values[n] for n in values]
    found = float(kendalltau([scores[n] for n in values], reached).statistic)
    return found if np.isfinite(found) else None

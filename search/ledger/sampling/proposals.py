"""Sources of trials besides the user and the sampler: knowledge from before the first trial has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from search.records.record import ParameterValue, TrialRecord


@dataclass(frozen=True)
class Proposal:
    """Parameters of a new trial.

    Attributes:
        origin: which source proposed them, as the ledger stores it (:attr:`search.records.record.TrialRecord.origin`).
        params: values by name. The sampler chooses the parameters that are missing.
    """

    origin: str
    params: Mapping[str, ParameterValue]


class ProposalSource(Protocol):
    """May propose parameters of each new trial that the user has not enqueued."""

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord]) -> Proposal | None:
        """Propose parameters of the next trial, or return None to leave it to the next source or the sampler.

        The result must be a function of the arguments alone, so that a search that was interrupted proposes what it
        would have proposed without the interruption.

        Args:
            seed: of the search.
            started: how many trials have been started: the number of the new one.
            trials: all trials so far.
        """
        ...


@dataclass(frozen=True)
class ProposalChain:
    """Several sources in order of precedence: the first one that proposes anything decides."""

    sources: Sequence[ProposalSource] = ()

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord]) -> Proposal | None:
        """Return the proposal of the first source that makes one. See :meth:`ProposalSource.propose`."""
        proposals = (source.propose(seed, started, trials) for source in self.sources)
        return next((proposal for proposal in proposals if proposal is not None), None)

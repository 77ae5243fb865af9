"""Who may propose a trial besides the user and the sampler: what is believed before trials tell better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from search.records.record import ParameterValue, TrialRecord


@dataclass(frozen=True)
class Proposal:
    """Parameters of a new trial; those that are left out are the sampler's. ``origin`` is the ledger's word for it."""

    origin: str
    params: Mapping[str, ParameterValue]


class ProposalSource(Protocol):
    """Asked for each new trial that nobody has enqueued."""

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord]) -> Proposal | None:
        """For trial number ``started`` of a search with this ``seed``, or nothing.

        A function of the arguments, so that an interrupted search proposes what it would have proposed.
        """
        ...


@dataclass(frozen=True)
class ProposalChain:
    """Several, asked in turn: the first that proposes something has its way."""

    guides: Sequence[ProposalSource] = ()

    def propose(self, seed: int, started: int, trials: Sequence[TrialRecord]) -> Proposal | None:
        """What the first says that says something."""
        said = (guide.propose(seed, started, trials) for guide in self.guides)
        return next((proposal for proposal in said if proposal is not None), None)

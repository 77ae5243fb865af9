"""What is known of the winner and of other points of the front, in the ledger: it is found out once."""

from __future__ import annotations

from collections.abc import Sequence

from search.ledger.format_version import explaining
from search.records.record import Outcome
from search.records.results import outcome_from_json, outcome_to_json
from search.study.phase import Phase


def keep(search: Phase, outcomes: Sequence[Outcome]) -> None:
    """Write outcomes into the ledger, the winner's last: without it the others count for nothing."""
    search.outcome, search.alternatives = outcomes[0], tuple(outcomes[1:])
    if search.config.objective:
        search.ledger.note("alternatives", [outcome_to_json(o) for o in search.alternatives])
    search.ledger.note("outcome", outcome_to_json(outcomes[0]))


def known_outcomes(search: Phase) -> tuple[Outcome | None, tuple[Outcome, ...]]:
    """The winner's, and those of other points of the front."""
    kept, others = search.ledger.noted("outcome"), search.ledger.noted("alternatives") or []
    with explaining(search.name):
        if not kept:
            return None, ()
        return outcome_from_json(kept), tuple(map(outcome_from_json, others))

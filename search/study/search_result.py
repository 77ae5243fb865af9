"""Defines the result of ``run_search``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from search.records.record import Outcome, SearchRecord, TrialRecord
from search.records.results import trials_table
from search.views.notebook_html import result_html
from trainables.errors import SearchError

if TYPE_CHECKING:
    from search.report.drawing import Drawing


@dataclass(frozen=True, repr=False)
class SearchResult:
    """A finished search. In a notebook it is shown as HTML.

    Attributes:
        record: everything about the search as data.
        model_uri: of the registered winner, such as ``models:/unfreeze-photos/3``; None with ``register_model=False``.
        report_path: of the HTML report.
        model_state: the aliases that the version had in MLflow when the search ended, or why it had none; empty if the
            registry was not asked.
    """

    record: SearchRecord
    model_uri: str | None
    report_path: Path
    model_state: str = ""

    def __repr__(self) -> str:
        """Return a short text for interactive sessions, because the record holds every epoch and images."""
        best = self.record.winner
        found = "no result" if best is None else f"trial {best.number}, {self.record.metric} {best.value}"
        model = f", {self.model_uri}" if self.model_uri else ""
        return f"<SearchResult {self.record.name}: {found}{model}>"

    @property
    def best(self) -> TrialRecord:
        """The winner."""
        best = self.record.winner
        if best is None:
            raise SearchError("no trial of this search has a result")
        return best

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """With several objectives, the trials that no other dominates, the best in the first objective first."""
        return self.record.front

    @property
    def trials(self) -> pa.Table:
        """All trials, one row for each."""
        return trials_table(self.record.trials, self.record.objectives)

    @property
    def tracking_uri(self) -> str:
        """The MLflow store of runs and model, for ``mlflow.set_tracking_uri`` and :mod:`search.registry`."""
        return self.record.tracking_uri

    def figure(self, key: str) -> Drawing:
        """Return a figure of the report (``history``, ``curves``, ``parallel``, ``landscape``, …) for a notebook.

        Raises:
            UsageError: there is no such figure; the message lists the valid names.
        """
        from search.report.drawing import drawing  # altair and vl-convert take a second to import

        return drawing(self.record, key)

    def _repr_html_(self) -> str:
        return result_html(self.record)


def model_uri(outcome: Outcome | None) -> str | None:
    """Return the URI of an outcome's model version; None if it is not registered."""
    if outcome is None or not outcome.model_version:
        return None
    return f"models:/{outcome.model_name}/{outcome.model_version}"

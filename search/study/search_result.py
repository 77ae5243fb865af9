"""What ``run_search`` returns: a finished search."""

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
    """A finished search."""

    record: SearchRecord
    model_uri: str | None
    report_path: Path

    def __repr__(self) -> str:
        """Short, for an interactive session: the record holds every epoch, and images."""
        best = self.record.best
        found = "no result" if best is None else f"trial {best.number}, {self.record.metric} {best.value}"
        model = f", {self.model_uri}" if self.model_uri else ""
        return f"<SearchResult {self.record.name}: {found}{model}>"

    @property
    def best(self) -> TrialRecord:
        """The winner."""
        best = self.record.best
        if best is None:
            raise SearchError("no trial of this search has a result")
        return best

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """Of several objectives, the trials that no other dominates, the best in the first objective first."""
        return self.record.front

    @property
    def trials(self) -> pa.Table:
        """All trials, one row each."""
        return trials_table(self.record.trials, self.record.objectives)

    @property
    def tracking_uri(self) -> str:
        """MLflow's store with the runs and the model, for ``mlflow.set_tracking_uri`` and :mod:`search.registry`."""
        return self.record.tracking_uri

    def figure(self, key: str) -> Drawing:
        """A figure of the report (``history``, ``curves``, ``parallel``, ``landscape``, …) for a notebook.

        Raises:
            UsageError: there is no such figure; the message lists those that there are.
        """
        from search.report.drawing import drawing  # altair and vl-convert take a second to import

        return drawing(self.record, key)

    def _repr_html_(self) -> str:
        return result_html(self.record)


def model_uri(outcome: Outcome | None) -> str | None:
    if outcome is None or not outcome.model_version:
        return None
    return f"models:/{outcome.model_name}/{outcome.model_version}"

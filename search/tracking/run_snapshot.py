"""Find a search's runs in MLflow, and keep a snapshot of what MLflow contains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from search.records.record import SearchRecord
from search.tracking.run_content import PARENT_RUN_TAG, RunContent, search_start

RUNS_PER_PAGE = 1000


@dataclass
class RunSnapshot:
    """One run as MLflow has it. ``points`` are (metric, step) pairs; None until they are read."""

    run_id: str
    status: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: frozenset[str] = frozenset()
    has_dataset: bool = False
    points: set[tuple[str, int]] | None = None

    def is_up_to_date(self, content: RunContent) -> bool:
        """Return whether all of ``content`` was delivered: a run's final status is written last."""
        known = all(self.tags.get(name) == value for name, value in content.tags.items())
        return content.ended and self.status == content.status and known

    def read_points(self, client: MlflowClient) -> set[tuple[str, int]]:
        """Return the points that MLflow already has; they are requested only once."""
        if self.points is None:
            histories = [client.get_metric_history(self.run_id, name) for name in sorted(self.metrics)]
            self.points = {(m.key, m.step) for history in histories for m in history}
        return self.points


@dataclass
class SearchRuns:
    """The runs of one search: the parent, and the children by trial number."""

    parent: RunSnapshot
    children: dict[int, RunSnapshot]


def find_runs(client: MlflowClient, experiment: str, record: SearchRecord) -> SearchRuns | None:
    """Find the runs of ``record``'s search; None if there are none.

    A process that was killed between a request and its answer, or an answer that was lost, may have left a run
    twice. The more complete one is kept and the other one is deleted; MLflow hides deleted runs.

    Args:
        client: the MLflow client.
        experiment: id of the experiment.
        record: the search.
    """
    searches = _search(client, experiment, "tags.`unfreeze.kind` = 'search'")
    parents = [run for run in searches if _belongs_to(run, record)]
    if not parents:
        return None
    candidates = [(run, _children(client, experiment, run.info.run_id)) for run in parents]
    # The run with the most children is kept. Start time and id make the choice the same in every run of the
    # command.
    candidates.sort(key=lambda c: (-len(c[1]), c[0].info.start_time, c[0].info.run_id))
    for duplicate, children in candidates[1:]:
        # A duplicate with children is left alone: deleting it would hide trials.
        if not children:
            client.delete_run(duplicate.info.run_id)
    parent, children = candidates[0]
    return SearchRuns(_snapshot(parent), _by_trial(client, children))


def _belongs_to(run: Any, record: SearchRecord) -> bool:
    tags = run.data.tags
    return (tags.get("unfreeze.search"), tags.get("unfreeze.started")) == (record.name, search_start(record))


def _children(client: MlflowClient, experiment: str, parent: str) -> list[Any]:
    return list(_search(client, experiment, f"tags.`{PARENT_RUN_TAG}` = '{parent}'"))


def _by_trial(client: MlflowClient, runs: list[Any]) -> dict[int, RunSnapshot]:
    found: dict[int, RunSnapshot] = {}
    # The run with the most metrics and params comes first and is kept; the id makes the order unique.
    for run in sorted(runs, key=lambda r: (-len(r.data.metrics), -len(r.data.params), r.info.run_id)):
        trial = run.data.tags.get("unfreeze.trial", "")
        if not trial.isdecimal():
            continue
        if int(trial) in found:
            client.delete_run(run.info.run_id)
        else:
            found[int(trial)] = _snapshot(run)
    return found


def _snapshot(run: Any) -> RunSnapshot:
    return RunSnapshot(
        run_id=run.info.run_id,
        status=run.info.status,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        metrics=frozenset(run.data.metrics),
        has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
    )


def _search(client: MlflowClient, experiment: str, query: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], query, ViewType.ACTIVE_ONLY, RUNS_PER_PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return

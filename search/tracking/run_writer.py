"""Send MLflow the difference between what a run should contain and what it is known to contain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from search.records.record import TaskSummary
from search.tracking.dataset_input import dataset_input
from search.tracking.mlflow_environment import user_name
from search.tracking.run_content import RunContent
from search.tracking.run_metrics import MetricPoint
from search.tracking.run_snapshot import RunSnapshot
from trainables.errors import TrackingError

METRICS_PER_BATCH = 800
PARAMS_PER_BATCH = TAGS_PER_BATCH = 100
"""MLflow accepts 1,000 values per request, at most 100 of them params and 100 tags."""

TEMPORARY_TAGS = ("unfreeze.reason", "unfreeze.error", "unfreeze.winner", "unfreeze.confirmed")
"""Tags that are deleted when they no longer apply: those of a trial that is retried, or of a winner that was beaten.
"""

Item = TypeVar("Item")


class RunWriter:
    """Write the runs of one experiment. Each method updates the snapshot as it updates MLflow."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        self._client = client
        self._experiment = experiment

    def create(self, content: RunContent) -> RunSnapshot:
        """Create a run with the tags by which it is found again, even if the process is killed directly afterwards."""
        origin = {
            "mlflow.user": user_name(),
            "mlflow.source.name": "unfreeze search",
            "mlflow.source.type": "LOCAL",
        }
        # The tags are part of the request that creates the run: a run without them would never be found again.
        tags = {**origin, **content.tags, "unfreeze.state": "running"}
        run = self._client.create_run(self._experiment, content.start, tags, content.name)
        return RunSnapshot(run.info.run_id, "RUNNING", tags, points=set())

    def update(
        self, snapshot: RunSnapshot, content: RunContent, task: TaskSummary, source: TaskSummary | None = None
    ) -> None:
        """Make the run of ``snapshot`` contain ``content``; its status is written last.

        Raises:
            TrackingError: the run has other parameters, so that it belongs to another trial.
        """
        if snapshot.is_up_to_date(content):
            return
        if not snapshot.has_dataset:
            inputs = [dataset_input(task), *([dataset_input(source, "source")] if source else [])]
            self._client.log_inputs(snapshot.run_id, inputs)
            snapshot.has_dataset = True
        # An earlier run of the command may have ended the run (KILLED). It is reopened before anything is
        # added.
        if not content.ended and snapshot.status != content.status:
            self._client.update_run(snapshot.run_id, status=content.status)
            snapshot.status = content.status
        self._send(snapshot, content)
        if content.ended:
            self._client.set_terminated(snapshot.run_id, content.status, content.end)
            snapshot.status = content.status

    def terminate(self, snapshot: RunSnapshot, status: str, state: str, now: int) -> None:
        """End an open run; ``now`` is in milliseconds since 1970."""
        self._client.set_tag(snapshot.run_id, "unfreeze.state", state)
        snapshot.tags["unfreeze.state"] = state
        self._client.set_terminated(snapshot.run_id, status, now)
        snapshot.status = status

    def _send(self, snapshot: RunSnapshot, content: RunContent) -> None:
        # MLflow appends metrics: a value that is sent twice would be stored twice.
        known = snapshot.read_points(self._client)
        points = [p for p in content.points if (p.metric, p.step) not in known]
        params = {k: v for k, v in content.params.items() if k not in snapshot.params}
        wanted = {**content.tags, **_changed(snapshot, content)}
        tags = {k: v for k, v in wanted.items() if snapshot.tags.get(k) != v}
        for batch in _batches(points, list(params.items()), list(tags.items())):
            self._client.log_batch(snapshot.run_id, **batch)
        known.update((p.metric, p.step) for p in points)
        snapshot.params.update(params)
        snapshot.tags.update(tags)
        for name in TEMPORARY_TAGS:
            if name in snapshot.tags and name not in wanted:
                self._client.delete_tag(snapshot.run_id, name)
                del snapshot.tags[name]


def _changed(snapshot: RunSnapshot, content: RunContent) -> dict[str, str]:
    """Return search settings that have changed as tags, since MLflow's params cannot change."""
    changed = {k: v for k, v in content.params.items() if snapshot.params.get(k, v) != v}
    if changed and "unfreeze.trial" in content.tags:
        name, value = next(iter(changed.items()))
        raise TrackingError(
            f"MLflow's run {snapshot.run_id} of trial {content.tags['unfreeze.trial']} has "
            f"{name}={snapshot.params[name]}, but the ledger has {value}: delete that run, or choose another --name"
        )
    return {f"unfreeze.{name}": value for name, value in changed.items()}


def _batches(
    points: Sequence[MetricPoint], params: Sequence[tuple[str, str]], tags: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the arguments of as few ``log_batch`` calls as MLflow's limits allow; tags are sent last."""
    batches: list[dict[str, Any]] = []
    for metrics in _parts(points, METRICS_PER_BATCH):
        batches.append({"metrics": [Metric(p.metric, p.value, p.time, p.step) for p in metrics]})
    for index, pairs in enumerate(_parts(params, PARAMS_PER_BATCH)):
        _put(batches, index, "params", [Param(*pair) for pair in pairs])
    # Tags are sent last: the state of a run must not be ahead of its metrics.
    last = max(len(batches) - 1, 0)
    for index, pairs in enumerate(_parts(tags, TAGS_PER_BATCH)):
        _put(batches, last + index, "tags", [RunTag(*pair) for pair in pairs])
    return batches


def _put(batches: list[dict[str, Any]], index: int, name: str, values: list[Any]) -> None:
    if index == len(batches):
        batches.append({})
    batches[index][name] = values


def _parts(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[i : i + size] for i in range(0, len(items), size)]

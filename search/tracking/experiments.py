"""What MLflow shows of an experiment, the page of a task: what it holds, and views of its runs.

Names of MLflow's experiments: one for the searches of a task, one for each kind of baseline.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from mlflow import MlflowClient

from search.config.choices import BASELINE_SOURCES
from search.records.record import SearchRecord
from search.tracking.experiment_views import VIEW_TAG_PREFIX, is_outdated, view_tags
from search.tracking.run_content import NOTE_TAG

_FAMILY = "unfreeze/"


def experiment_name(task: str, baseline: str = "") -> str:
    """The experiment of a task's searches, or of their baselines of one method."""
    return f"{_FAMILY}{task}{f'/{baseline}' if baseline else ''}"


def is_search_experiment(experiment: str) -> bool:
    """Whether an experiment of this name holds searches, and no baselines."""
    endings = tuple(f"/{method}" for method in BASELINE_SOURCES)
    return experiment.startswith(_FAMILY) and not experiment.removeprefix(_FAMILY.rstrip("/")).endswith(
        endings
    )


_KIND = "mlflow.experimentKind"
_METRIC = "mlflow.experiment.primaryMetric.name"
_GREATER = "mlflow.experiment.primaryMetric.greaterIsBetter"


def describe_experiment(client: MlflowClient, experiment: str, record: SearchRecord) -> bool:
    """Tag the experiment with the id ``experiment`` with what is not said there yet; whether that was anything.

    What a person has written or changed there stays.
    """
    known = client.get_experiment(experiment).tags
    missing = [
        (name, value)
        for name, value in experiment_tags(record, int(time.time() * 1000)).items()
        if _missing(known, name, value)
    ]
    # A server may take its time for each request; a SQLite file is better written by one at a time.
    together = len(missing) if client.tracking_uri.startswith("http") else 1
    with ThreadPoolExecutor(max(1, together)) as pool:
        list(pool.map(lambda tag: client.set_experiment_tag(experiment, *tag), missing))
    return bool(missing)


def experiment_tags(record: SearchRecord, now: int) -> dict[str, str]:
    """What MLflow should say of the experiment; ``now`` in milliseconds since 1970."""
    greater = record.direction == "maximize"
    return {
        NOTE_TAG: experiment_note(record),
        # Without it a UI that looks for traces would take the experiment for one on language models.
        _KIND: "custom_model_development",
        _METRIC: record.metric,
        _GREATER: str(greater),
        **view_tags(record, now),
    }


def experiment_note(record: SearchRecord) -> str:
    """What the experiment holds and how to look at it."""
    task = record.task
    if record.config.get("method") == "scratch":
        return (
            f"Baselines of the searches on `{task.name}`: the same backbones trained from random weights, to see what "
            "transfer is worth."
        )
    return (
        f"Searches on `{task.name}`, made by unfreeze: a run each, with its report as an artifact and its trials below "
        "it. *Views* lists the trials, the best first."
    )


def _missing(known: Mapping[str, str], name: str, value: str) -> bool:
    return is_outdated(known.get(name), value) if name.startswith(VIEW_TAG_PREFIX) else not known.get(name)

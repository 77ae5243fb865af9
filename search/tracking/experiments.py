"""Name and describe MLflow's experiments: one for the searches of a task, one for each kind of baseline."""

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
    """Return the name of the experiment of a task's searches, or of their baselines of one method."""
    return f"{_FAMILY}{task}{f'/{baseline}' if baseline else ''}"


def is_search_experiment(experiment: str) -> bool:
    """Return whether an experiment of this name holds searches, not baselines."""
    endings = tuple(f"/{method}" for method in BASELINE_SOURCES)
    return experiment.startswith(_FAMILY) and not experiment.removeprefix(_FAMILY.rstrip("/")).endswith(
        endings
    )


_KIND = "mlflow.experimentKind"
_METRIC = "mlflow.experiment.primaryMetric.name"
_GREATER = "mlflow.experiment.primaryMetric.greaterIsBetter"


def describe_experiment(client: MlflowClient, experiment: str, record: SearchRecord) -> bool:
    """Tag an experiment with everything that it does not have yet; return whether anything was written.

    What a person has written or changed stays as it is.

    Args:
        client: the MLflow client.
        experiment: id of the experiment.
        record: the search.
    """
    known = client.get_experiment(experiment).tags
    missing = [
        (name, value)
        for name, value in experiment_tags(record, int(time.time() * 1000)).items()
        if _missing(known, name, value)
    ]
    # Requests to a server run in parallel, since each may take long; a SQLite file allows one writer at a time.
    together = len(missing) if client.tracking_uri.startswith("http") else 1
    with ThreadPoolExecutor(max(1, together)) as pool:
        list(pool.map(lambda tag: client.set_experiment_tag(experiment, *tag), missing))
    return bool(missing)


def experiment_tags(record: SearchRecord, now: int) -> dict[str, str]:
    """Return the tags that the experiment should have; ``now`` is in milliseconds since 1970."""
    greater = record.direction == "maximize"
    return {
        NOTE_TAG: experiment_note(record),
        # Without this tag, the UI may show the experiment as one on language models.
        _KIND: "custom_model_development",
        _METRIC: record.metric,
        _GREATER: str(greater),
        **view_tags(record, now),
    }


def experiment_note(record: SearchRecord) -> str:
    """Describe what the experiment contains and how to read it."""
    task = record.task
    if record.config.get("method") == "scratch":
        return (
            f"Baselines of the searches on `{task.name}`: the same backbones trained from random weights, to "
            "measure what transfer is worth."
        )
    return (
        f"Searches on `{task.name}`, made by unfreeze. Each search is a run, with its report as an artifact and "
        "its trials as child runs. *Views* lists the trials, the best first."
    )


def _missing(known: Mapping[str, str], name: str, value: str) -> bool:
    return is_outdated(known.get(name), value) if name.startswith(VIEW_TAG_PREFIX) else not known.get(name)

"""Describe a task as MLflow's dataset input: name, digest and origin."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag

from search.records.record import TaskSummary

MAX_DIGEST_LENGTH = 36
"""MLflow's limit, in characters. The whole digest is the tag ``unfreeze.data_digest`` of the parent run."""


def dataset_input(task: TaskSummary, context: str = "training") -> DatasetInput:
    """Return the dataset input that every run of a search has.

    Args:
        task: the dataset.
        context: ``training``, or ``source`` for the dataset from which knowledge is transferred.
    """
    height, width = task.image_size
    schema = {
        "mlflow_tensorspec": {
            "features": json.dumps([_tensor("uint8", (-1, height, width, 3))]),
            "targets": json.dumps([_tensor("int64", (-1,))]),
        }
    }
    profile = {
        "images": dict(task.counts),
        "num_rows": sum(task.counts.values()),
        "classes": len(task.classes),
        "skipped": task.skipped,
    }
    kind, source = _source(task.source)
    dataset = Dataset(
        name=task.name[:500],
        digest=task.digest[:MAX_DIGEST_LENGTH],
        source_type=kind,
        source=json.dumps(source),
        schema=json.dumps(schema),
        profile=json.dumps(profile),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _source(source: str) -> tuple[str, dict[str, object]]:
    path = Path(source)
    if path.is_absolute():
        return "local", {"uri": str(path)}
    # A built-in dataset has no path: MLflow's source type for data made by code needs no address.
    return "code", {"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": source}}


def _tensor(dtype: str, shape: tuple[int, ...]) -> dict[str, object]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}

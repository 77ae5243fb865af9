"""Register the winner of a search as a version of a registered model, and propose it as challenger."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from search.tracking.client import connect, translate_errors, use_store

# isort: split
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from search.fault_injection import failpoint
from search.records.predictions import read_predictions
from search.records.record import Outcome, SearchRecord
from search.registry.challenger import challenger_obstacle, describe, propose_challenger
from search.registry.model_package import input_form, weights_digest, write_package
from search.registry.versions import NOT_PROPOSED_TAG, Version, check_quotable, ready_versions, to_version
from search.tracking.run_descriptions import model_note, winner_note
from search.tracking.stores import absolute_uri
from search.tracking.tags import (
    INPUT_FORM_TAG,
    TEST_DIGEST_TAG,
    accuracy_tags,
    footprint_tags,
    old_task_tags,
)
from trainables.errors import TrackingError

LOGGED_MODEL_NAME = "model"
"""Name of the logged model in its run."""

_LINEAGE = ("search", "trial", "data_digest", "backbone_digest", "model_digest")


def register(
    record: SearchRecord,
    model: Any,
    *,
    run_id: str,
    examples: np.ndarray,
    model_name: str,
    tracking_uri: str,
    predictions: Path | None = None,
    point: Mapping[str, str] | None = None,
    challenger: bool = True,
) -> Version:
    """Log the winner's model into its run, register it as a version of ``model_name``, and propose it as challenger.

    The version gets the alias ``challenger``, unless :mod:`search.registry.challenger` finds a reason against it. The
    function may be repeated, also after a kill at any point: it neither logs nor registers the same model twice.
    The status of the run does not change.

    Args:
        record: the search, with its outcome.
        model: a Keras model from uint8 images (N, H, W, 3) to probabilities (N, classes), or its file.
        run_id: MLflow's run of the winning trial.
        examples: uint8 images (N, H, W, 3), typical inputs of the model.
        model_name: name of the registered model; it is created if needed.
        tracking_uri: the MLflow store.
        predictions: the file of predictions (:mod:`search.records.predictions`), without which the version cannot be
            compared with another one later.
        point: in a search with several objectives, the tags that say which point of which front it is
            (:mod:`search.registry.front_versions`).
        challenger: whether the version is proposed; the winner is, other points of the front are not.

    Returns:
        The version. If it was not proposed, its tag ``unfreeze.not_proposed`` says why.

    Raises:
        TrackingError: MLflow is unreachable or refuses, or the model has other inputs or outputs.
    """
    outcome = record.outcome
    if outcome is None:
        raise TrackingError("record: expected a search whose winner has been measured, received one without")
    keras_model = _load(model) if isinstance(model, (str, Path)) else model
    classes = record.task.classes
    kept = read_predictions(predictions) if predictions is not None else None
    tags = _tags(record, outcome, weights_digest(keras_model, classes))
    tags |= {INPUT_FORM_TAG: input_form(keras_model, classes), **footprint_tags(outcome.footprint)}
    tags |= {TEST_DIGEST_TAG: kept.digest} if kept else {}
    uri = absolute_uri(tracking_uri)
    client = connect(uri)
    about, weakness = winner_note(record, outcome), challenger_obstacle(outcome)
    with translate_errors(uri):
        check_quotable(model_name)
        _ensure_model(client, model_name, record)
        found = _find_version(client, model_name, tags)
        if found is None:
            model_id = _find_logged_model(client, run_id, tags)
            if model_id is None:
                model_id = _log_model(client, keras_model, run_id, classes, examples, tags, predictions)
            _link_model_to_run(client, run_id, model_id)
            # What is known before is part of the version from the start: a killed process cannot leave it out.
            known = tags | ({NOT_PROPOSED_TAG: weakness} if weakness else {})
            # For a database store, MLflow looks the logged model up in its global store, not in the client's.
            with use_store(uri):
                found = client.create_model_version(
                    model_name,
                    f"models:/{model_id}",
                    run_id,
                    known,
                    description=describe(about, weakness),
                    model_id=model_id,
                )
        # Tags of an existing version are updated, too: its front may have changed since it was registered.
        for key, value in (point or {}).items():
            client.set_model_version_tag(model_name, found.version, key, value)
        version = (
            to_version(client.get_model_version(model_name, found.version)) if point else to_version(found)
        )
        failpoint("version-created")
        if challenger:
            version = propose_challenger(client, version, outcome, about, uri)
    return version


def _tags(record: SearchRecord, outcome: Outcome, digest: str) -> dict[str, str]:
    tags = {
        "search": record.name,
        "trial": str(outcome.trial),
        "task": record.task.name,
        "data_digest": record.task.digest,
        **({"source": record.source.name, "source_digest": record.source.digest} if record.source else {}),
        "backbone": record.backbone_of(outcome.params).name,
        "backbone_digest": record.backbone_of(outcome.params).digest,
        **(
            {"teacher": record.teacher.name, "teacher_digest": record.teacher.digest}
            if record.teacher
            else {}
        ),
        "model_digest": digest,
        **accuracy_tags(outcome),
        "test_accuracy_low": f"{outcome.headline_accuracy.low:.6f}",
        "test_accuracy_high": f"{outcome.headline_accuracy.high:.6f}",
    }
    return {f"unfreeze.{name}": value for name, value in tags.items()} | old_task_tags(outcome)


def _ensure_model(client: MlflowClient, name: str, record: SearchRecord) -> None:
    try:
        client.create_registered_model(name, {"unfreeze.task": record.task.name}, model_note(record))
    except MlflowException as error:
        # Another search may create the same model at the same time: only the attempt itself shows whether it
        # exists.
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find_version(client: MlflowClient, name: str, tags: dict[str, str]) -> Any | None:
    """Return the version of the same model from the same trial, if there is one."""
    lineage = {f"unfreeze.{key}": tags[f"unfreeze.{key}"] for key in _LINEAGE}
    same = [v for v in ready_versions(client, name) if lineage.items() <= v.tags.items()]
    # The newest version comes first, so the version that was registered first is returned.
    return same[-1] if same else None


def _find_logged_model(client: MlflowClient, run_id: str, tags: dict[str, str]) -> str | None:
    """Return the id of the same model if a killed run of the command logged it completely.

    Partly logged models are deleted.
    """
    experiment = client.get_run(run_id).info.experiment_id
    ready = None
    for logged in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if logged.tags.get("unfreeze.model_digest") is None:
            continue
        # A killed run of the command left it half uploaded. No other process uploads it now, because the search has
        # one driver.
        if logged.status.value != "READY":
            client.delete_logged_model(logged.model_id)
        elif all(logged.tags.get(key) == tags.get(key) for key in ("unfreeze.model_digest", TEST_DIGEST_TAG)):
            ready = logged.model_id
    return ready


def _log_model(
    client: MlflowClient,
    model: Any,
    run_id: str,
    classes: tuple[str, ...],
    examples: np.ndarray,
    tags: dict[str, str],
    predictions: Path | None,
) -> str:
    run = client.get_run(run_id)
    logged = client.create_logged_model(
        run.info.experiment_id, LOGGED_MODEL_NAME, run_id, tags, run.data.params
    )
    document = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=run_id,
        model_id=logged.model_id,
    )
    with tempfile.TemporaryDirectory(prefix="unfreeze-model-") as folder:
        write_package(model, Path(folder), classes, examples, document, predictions)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _link_model_to_run(client: MlflowClient, run_id: str, model_id: str) -> None:
    """Make the model an output of its run, unless it already is."""
    outputs = client.get_run(run_id).outputs
    known = {output.model_id for output in outputs.model_outputs} if outputs else set()
    if model_id not in known:
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _load(path: str | Path) -> Any:
    import keras

    return keras.saving.load_model(path, compile=False, safe_mode=True)

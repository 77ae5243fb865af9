"""Download models from the registry: the Keras file, the class names, and the stored test predictions."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from search.tracking.client import connect, translate_errors, use_store

# isort: split
import mlflow
from mlflow.models import Model

from search.records.atomic_file import write_bytes
from search.records.predictions import PREDICTIONS_FILE, PredictionRecord, read_predictions
from search.registry.gate import GateCandidate
from search.registry.model_package import CLASSES_KEY
from search.registry.versions import (
    CHALLENGER,
    CHAMPION,
    Version,
    get_registered_model,
    ready_versions,
    version_with_alias,
)
from search.tracking.stores import absolute_uri
from search.tracking.tags import INPUT_FORM_TAG, TEST_DIGEST_TAG, footprint_of
from trainables.errors import DataError, TrackingError

_ALIASED = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")
_NUMBERED = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[0-9]+)")


def download_backbone(uri: str, directory: Path, tracking_uri: str) -> Path:
    """Download the Keras file of an MLflow model into ``directory``, and return its path.

    An alias is resolved at each call, so that a moved alias is noticed. A version that was downloaded before is not
    downloaded again.

    Args:
        uri: ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``models:/MODEL_ID`` or ``runs:/RUN/PATH``.
        directory: folder for the file.
        tracking_uri: the MLflow store.

    Raises:
        TrackingError: there is no such model, or it does not contain exactly one ``.keras`` file.
    """
    store = absolute_uri(tracking_uri)
    fixed = resolve_alias(uri, store)
    # The name contains the version number, not the alias, so that a moved alias leads to another file.
    target = directory / (re.sub(r"[^\w.-]+", "-", fixed.partition(":/")[2]).strip("-") + ".keras")
    if not target.is_file():
        with _downloaded(fixed, store) as folder:
            # The file is written under another name and renamed, because a file that exists counts as
            # complete.
            write_bytes(target, _keras_file(folder, uri).read_bytes())
    return target


def download_predictions(version: Version, tracking_uri: str) -> PredictionRecord | None:
    """Download what a version predicted for its test images; None if it was registered without predictions.

    Raises:
        TrackingError: the file cannot be read, or it is not the one that was registered.
    """
    digest = version.tags.get(TEST_DIGEST_TAG)
    if digest is None:
        return None
    store = absolute_uri(tracking_uri)
    try:
        with _downloaded(f"{version.uri}/{PREDICTIONS_FILE}", store) as file:
            predictions = read_predictions(file)
    except DataError as error:
        raise TrackingError(f"version {version.version} of model {version.name!r}: {error}") from error
    # Somebody may have replaced the file in the artifact store: the gate must not compare other images.
    if predictions.digest != digest:
        raise TrackingError(
            f"version {version.version} of model {version.name!r}: expected predictions for the test images {digest}, "
            f"as in its tag {TEST_DIGEST_TAG!r}, received those for {predictions.digest}"
        )
    return predictions


def download_candidate(version: Version, tracking_uri: str) -> GateCandidate:
    """Download what the gate needs to know of a version.

    Raises:
        TrackingError: the file of predictions cannot be read, or it is not the one that was registered.
    """
    return GateCandidate(
        version.version,
        download_predictions(version, tracking_uri),
        version.tags.get(INPUT_FORM_TAG, ""),
        footprint_of(version.tags),
    )


def class_names(model_uri: str, tracking_uri: str | None = None) -> tuple[str, ...]:
    """Return the names of a model's classes, in the order of its outputs.

    Args:
        model_uri: address of the model.
        tracking_uri: the MLflow store; MLflow's own setting if not given.

    Raises:
        TrackingError: there is no such model, or it was logged without class names.
    """
    store = absolute_uri(tracking_uri or mlflow.get_tracking_uri())
    with _downloaded(f"{resolve_alias(model_uri, store).rstrip('/')}/MLmodel", store) as file:
        metadata: dict[str, Any] = Model.load(str(file)).metadata or {}
    names = metadata.get(CLASSES_KEY)
    if not names:
        raise TrackingError(
            f"model {model_uri!r} was logged without class names: expected {CLASSES_KEY!r} in its metadata"
        )
    return tuple(str(name) for name in names)


@contextmanager
def downloaded_model(model_uri: str, tracking_uri: str) -> Iterator[Path]:
    """Download an MLflow model to a temporary folder that exists as long as the context.

    Raises:
        TrackingError: there is no such model.
    """
    store = absolute_uri(tracking_uri)
    with _downloaded(resolve_alias(model_uri, store), store) as folder:
        yield folder


def resolve_alias(uri: str, tracking_uri: str) -> str:
    """Return ``models:/NAME@ALIAS`` as ``models:/NAME/VERSION``; any other address is returned unchanged.

    Raises:
        TrackingError: there is no such model or alias.
    """
    match = _ALIASED.fullmatch(uri)
    if match is None:
        return uri
    with translate_errors(tracking_uri):
        client = connect(tracking_uri)
        version = version_with_alias(client, match["name"], match["alias"])
        known = sorted(get_registered_model(client, match["name"]).aliases)
    if version is None:
        promotable = match["alias"] == CHAMPION and CHALLENGER in known
        hint = "; `unfreeze promote` sets it" if promotable else ""
        raise TrackingError(
            f"model {match['name']!r} has no version with the alias {match['alias']!r} "
            f"(it has {', '.join(known) or 'none'}{hint})"
        )
    return version.uri


def check_model_exists(uri: str, tracking_uri: str) -> None:
    """Check that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` exists; other addresses are not checked.

    Raises:
        TrackingError: there is no such model, alias or version; the message lists the existing ones.
    """
    store = absolute_uri(tracking_uri)
    resolve_alias(uri, store)
    match = _NUMBERED.fullmatch(uri)
    if match is not None:
        with translate_errors(store):
            known = [str(v.version) for v in ready_versions(connect(store), match["name"])]
            if not known:
                get_registered_model(connect(store), match["name"])
        if match["version"] not in known:
            raise TrackingError(
                f"model {match['name']!r} has no version {match['version']} (it has {', '.join(known) or 'none'})"
            )


@contextmanager
def _downloaded(uri: str, tracking_uri: str) -> Iterator[Path]:
    connect(tracking_uri)
    folder = tempfile.mkdtemp(prefix="unfreeze-download-")
    try:
        # download_artifacts() takes the address of the tracking store only, not that of the registry.
        with translate_errors(tracking_uri), use_store(tracking_uri):
            path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder)
        yield Path(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keras_file(folder: Path, uri: str) -> Path:
    found = sorted(folder.rglob("*.keras")) if folder.is_dir() else [folder]
    if len(found) != 1 or found[0].suffix != ".keras":
        names = ", ".join(sorted(p.name for p in folder.rglob("*") if p.is_file())[:8]) or "nothing"
        raise TrackingError(f"model {uri!r}: expected one .keras file in it, received {names}")
    return found[0]

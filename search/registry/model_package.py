"""Write a Keras classifier as an MLflow model: signature, input example, class names and pinned requirements."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from search.tracking import mlflow_environment as _first

# isort: split
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from search.records.predictions import PREDICTIONS_FILE
from search.registry.image_package import IMAGES_FOLDER, share_weights, write_image_package
from trainables.errors import TrackingError

CLASSES_FILE = "classes.json"
CLASSES_KEY = "class_names"
REQUIREMENTS = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "scipy")

_first.apply_environment()


def write_package(
    model: Any,
    folder: Path,
    classes: Sequence[str],
    examples: np.ndarray,
    document: Model,
    predictions: Path | None = None,
) -> None:
    """Write ``model`` to the empty ``folder``, with a folder ``images`` in it that serves image files.

    MLflow 3.17's ``log_model`` for Keras fails with an input example because it writes the example before it creates
    the folder. So the folder must exist.

    Args:
        model: Keras model from uint8 images (N, H, W, 3) to probabilities (N, classes).
        folder: an existing, empty folder.
        classes: the name of each output, stored in the metadata of the MLmodel file and in ``classes.json``.
        examples: uint8 images (N, H, W, 3); the first one becomes the input example.
        document: the MLmodel to fill, with the ids of its logged model and run.
        predictions: the file of :mod:`search.records.predictions` to store with the model.
    """
    # Imported here, because it imports TensorFlow.
    import mlflow.keras

    names = list(classes)
    mlflow.keras.save_model(
        model,
        str(folder),
        mlflow_model=document,
        signature=signature(model, names),
        input_example=np.ascontiguousarray(examples[:1]),
        pip_requirements=requirements(),
        metadata={CLASSES_KEY: names},
    )
    (folder / CLASSES_FILE).write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
    keras_file, flavor = folder / "data" / "model.keras", document.flavors["keras"]
    write_image_package(folder / IMAGES_FOLDER, keras_file, names, requirements(), flavor)
    share_weights(folder, document)
    if predictions is not None:
        shutil.copyfile(predictions, folder / PREDICTIONS_FILE)


def input_form(model: Any, classes: Sequence[str]) -> str:
    """Describe the model's input in a word: ``uint8 (-1, -1, -1, 3)``."""
    spec = signature(model, classes).inputs.inputs[0]
    return f"{spec.type} {spec.shape}"


def signature(model: Any, classes: Sequence[str]) -> ModelSignature:
    """Return the signature from uint8 (-1, H, W, 3) to float32 (-1, classes).

    H and W are -1 if the model takes any size.

    Raises:
        TrackingError: the model has other inputs or outputs.
    """
    inputs, outputs = tuple(model.input_shape), tuple(model.output_shape)
    dtype = str(model.inputs[0].dtype)
    if len(model.inputs) != 1 or len(inputs) != 4 or inputs[-1] != 3 or dtype != "uint8":
        raise TrackingError(f"model: expected one input of uint8 (N, H, W, 3), received {dtype} {inputs}")
    if outputs != (None, len(classes)):
        raise TrackingError(
            f"model: expected outputs (None, {len(classes)}), a class each, received {outputs}"
        )
    images = tuple(-1 if size is None else size for size in inputs)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), images)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, len(classes)))]),
    )


def weights_digest(model: Any, classes: Sequence[str]) -> str:
    """Return the SHA-256 of the class names and weights: equal models have equal digests."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    # dtype and shape are hashed as well, so that equal bytes of different arrays do not collide.
    for weights in model.get_weights():
        digest.update(f"{weights.dtype}{weights.shape}".encode())
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()


def requirements() -> list[str]:
    """Return the packages that serving needs, pinned to the installed versions.

    MLflow could infer them, but that takes seconds.
    """
    pinned = []
    for name in REQUIREMENTS:
        try:
            pinned.append(f"{name}=={version(name)}")
        except PackageNotFoundError:  # TensorFlow is installed as tensorflow or as tensorflow-cpu
            continue
    return pinned

"""Write the folder ``images`` of a registered model: the same classifier for ``mlflow models serve``, for image files.

The model itself has the signature uint8 (N, H, W, 3). By this signature MLflow's server converts every request to an
array of numbers, so that it refuses text in base64 before any model sees it. A package therefore holds two MLflow
models that share one file of weights. ``models:/NAME@ALIAS`` is plain Keras and runs no code of the package;
``models:/NAME@ALIAS/images`` runs a copy of :mod:`search.registry.served_images`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from search.tracking import mlflow_environment as _first

# isort: split
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

IMAGES_FOLDER = "images"
INPUT_NAME = "image"
"""Name of the model's input, for requests that name their columns."""

_CODE = Path(__file__).with_name("served_images.py")

_first.apply_environment()


def write_image_package(
    folder: Path, keras_file: Path, classes: Sequence[str], requirements: list[str], flavor: Mapping[str, Any]
) -> None:
    """Write the MLflow model that takes image files to ``folder``, which must not exist yet.

    Args:
        folder: where to write.
        keras_file: the model's weights.
        classes: names of the classes.
        requirements: pip requirements of the plain model.
        flavor: the Keras section of the plain model's MLmodel file, so that Keras can load this model as well.
    """
    import mlflow.pyfunc

    # The Keras section makes the same folder loadable with mlflow.keras, too.
    document = Model().add_flavor("keras", **{**flavor, "data": "data"})
    with warnings.catch_warnings():
        # MLflow recommends an input example; the plain model of this package has one.
        warnings.filterwarnings("ignore", message=".*input example")
        mlflow.pyfunc.save_model(
            str(folder),
            loader_module=_CODE.stem,
            data_path=str(keras_file),
            code_paths=[str(_CODE)],
            mlflow_model=document,
            signature=image_signature(len(classes)),
            pip_requirements=[f"mlflow=={version('mlflow')}", f"pillow=={version('pillow')}", *requirements],
            model_config={"classes": list(classes)},
            metadata={"class_names": list(classes)},
        )


def share_weights(folder: Path, document: Model) -> None:
    """Reduce the package at ``folder`` to one Keras file, the one in its folder :data:`IMAGES_FOLDER`."""
    flavor: dict[str, Any] = document.flavors["keras"]
    shutil.rmtree(folder / flavor["data"])
    flavor["data"] = f"{IMAGES_FOLDER}/data"
    document.save(str(folder / "MLmodel"))


def image_signature(classes: int) -> ModelSignature:
    """Return a signature from any values, which MLflow passes on unchanged, to float32 (-1, classes)."""
    from search.registry.served_images import NAMED

    return ModelSignature(
        # Only dtype object is passed on unchanged; served_images.py checks the values itself.
        inputs=Schema([TensorSpec(np.dtype("object"), (-1,), INPUT_NAME)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
        params=ParamSchema([ParamSpec(NAMED, DataType.boolean, False)]),
    )

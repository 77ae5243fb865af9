"""The folder ``images`` of a registered model: the same classifier for ``mlflow models serve`` that takes image files.

The model itself has the signature uint8 (N, H, W, 3), by which MLflow's server makes an array of numbers of whatever
it is sent: text in base64 is refused before any model sees it. So there are two MLflow models in one package, with one
file of weights between them. ``models:/NAME@ALIAS`` is plain Keras and runs no code of the package;
``models:/NAME@ALIAS/images`` runs :mod:`search.registry.served_images`, of which it holds a copy.
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
"""Name of its input, for requests that name their columns."""

_CODE = Path(__file__).with_name("served_images.py")

_first.apply_environment()


def write_image_package(
    folder: Path, keras_file: Path, classes: Sequence[str], requirements: list[str], flavor: Mapping[str, Any]
) -> None:
    """Write the MLflow model that takes image files to ``folder``, which must not be there yet.

    Args:
        flavor: what the plain model's MLmodel says of Keras; so Keras loads this one, too.
    """
    import mlflow.pyfunc

    document = Model().add_flavor("keras", **{**flavor, "data": "data"})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the plain model has one
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
    """Leave the package at ``folder`` with one Keras file: that of its folder :data:`IMAGES_FOLDER`."""
    flavor: dict[str, Any] = document.flavors["keras"]
    shutil.rmtree(folder / flavor["data"])
    flavor["data"] = f"{IMAGES_FOLDER}/data"
    document.save(str(folder / "MLmodel"))


def image_signature(classes: int) -> ModelSignature:
    """Anything, which MLflow must hand on as it is, to float32 (-1, classes); the code says what it takes."""
    from search.registry.served_images import NAMED

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("object"), (-1,), INPUT_NAME)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
        params=ParamSchema([ParamSpec(NAMED, DataType.boolean, False)]),
    )

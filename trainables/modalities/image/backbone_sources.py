"""Finds image backbones by name: the built-in one, the models of ``keras.applications``, EfficientNet-Lite0, and Keras
files."""

from __future__ import annotations

import contextlib
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import keras

from trainables.backbones.initialization import seeded_initializers
from trainables.backbones.keras_files import WEIGHT_FILES, read_model, read_weights
from trainables.backbones.spec import BUILT_IN, BackboneSpec
from trainables.errors import BackboneError
from trainables.modalities.image.applications import Application, find_application, similar_names
from trainables.modalities.image.efficientnet_lite0 import architecture as efficientnet_lite0
from trainables.modalities.image.efficientnet_lite0.torch_file import read_tensors
from trainables.modalities.image.efficientnet_lite0.weight_packages import (
    WEIGHT_PACKAGES,
    WeightPackage,
    find_weight_package,
)
from trainables.modalities.image.preprocessing import correct_efficientnet

DOWNLOAD_TIMEOUT = 20.0
"""Seconds without data after which a download of weights is aborted."""


@dataclass(frozen=True)
class BackboneSource:
    """A Keras model as it was found, perhaps with a classifier head.

    Attributes:
        name: name of the backbone.
        model: the Keras model.
        weights: where its weights come from: ``shipped``, ``imagenet``, ``none``, ``file``, or a path.
        preprocessing: mode of :func:`trainables.modalities.image.preprocessing.preprocess`.
        random_weights: the weights have yet to be initialised from the seed.
    """

    name: str
    model: Any
    weights: str
    preprocessing: str
    random_weights: bool = False


def find_backbone_source(spec: BackboneSpec) -> BackboneSource:
    """Build or read the model that ``spec`` names.

    Raises:
        BackboneError: there is no such backbone or file, its weights are missing or do not fit, or it can't be read
            safely.
    """
    if spec.input_size is not None and spec.input_size < 1:
        raise BackboneError(f"input_size: expected a positive number of pixels, received {spec.input_size}")
    for family in FAMILIES:
        source = family(spec)
        if source is not None:
            return source
    raise BackboneError(_unknown(spec.name))


def _built_in(spec: BackboneSpec) -> BackboneSource | None:
    if spec.name != BUILT_IN:
        return None
    shipped = resources.files("trainables.modalities.image.print_backbone").joinpath("print.keras")
    with resources.as_file(shipped) as path:
        return _from_file(spec, path, BUILT_IN, "shipped")


def _application(spec: BackboneSpec) -> BackboneSource | None:
    application = find_application(spec.name)
    return None if application is None else _from_application(spec, application)


def _packaged(spec: BackboneSpec) -> BackboneSource | None:
    package = find_weight_package(spec.name)
    return None if package is None else _lite0(spec, package)


def _file(spec: BackboneSpec) -> BackboneSource | None:
    path = Path(spec.name)
    if path.suffix not in WEIGHT_FILES and not path.exists():
        return None
    return _from_file(spec, path, path.stem, "file")


FAMILIES: tuple[Callable[[BackboneSpec], BackboneSource | None], ...] = (
    _built_in,
    _application,
    _packaged,
    _file,
)
"""Where a backbone of a given name is looked for, in this order. A new family is one more function; a new model of
``keras.applications`` is one entry in :mod:`trainables.modalities.image.applications`."""


def _from_file(spec: BackboneSpec, path: Path, name: str, weights: str) -> BackboneSource:
    if spec.weights == "imagenet":
        raise BackboneError(
            f"weights: expected default, none or a file for backbone {name!r}, received 'imagenet'; "
            "only the models that `unfreeze backbones` lists have ImageNet weights"
        )
    model = read_model(path)
    if spec.weights not in ("default", "none"):
        read_weights(model, Path(spec.weights))
        weights = spec.weights
    fresh = spec.weights == "none"
    mode = "none" if spec.preprocessing == "auto" else spec.preprocessing
    return BackboneSource(name, model, "none" if fresh else weights, mode, fresh)


def _from_application(spec: BackboneSpec, application: Application) -> BackboneSource:
    name, size = application.name, spec.input_size or application.input_size
    _check_own(spec, name, application.preprocessing, size, application.min_input_size)
    wanted = "imagenet" if spec.weights == "default" else spec.weights
    if wanted == "imagenet":
        model = _with_imagenet(name, size)
    elif wanted == "none":
        with seeded_initializers(spec.seed):
            model = _build(name, size)
    else:
        model = _with_file(name, size, Path(wanted))
    return BackboneSource(name, model, wanted, application.preprocessing)


def _check_own(spec: BackboneSpec, name: str, preprocessing: str, size: int, min_size: int) -> None:
    """Check the options against what a named network brings itself.

    Raises:
        BackboneError: another preprocessing was chosen, or the images are too small.
    """
    if spec.preprocessing not in ("auto", preprocessing):
        raise BackboneError(
            f"preprocessing: {name} brings its own, expected 'auto', received {spec.preprocessing!r}"
        )
    if size < min_size:
        raise BackboneError(f"input_size: {name} needs {min_size} pixels or more, received {size}")


def _lite0(spec: BackboneSpec, package: WeightPackage) -> BackboneSource:
    name, size = package.backbone, spec.input_size or efficientnet_lite0.INPUT_SIZE
    _check_own(spec, name, efficientnet_lite0.PREPROCESSING, size, efficientnet_lite0.MIN_INPUT_SIZE)
    wanted = "imagenet" if spec.weights == "default" else spec.weights
    # The weights are read first: if they are missing, nothing has to be built to find out.
    tensors = read_tensors(package.path(), package.sha256) if wanted == "imagenet" else {}
    with seeded_initializers(spec.seed):
        model = efficientnet_lite0.build(size)
    if tensors:
        efficientnet_lite0.place_weights(model, tensors)
    elif wanted != "none":
        read_weights(model, Path(wanted))
    return BackboneSource(name, model, wanted, efficientnet_lite0.PREPROCESSING)


def _build(name: str, size: int, **options: Any) -> Any:
    constructor = getattr(keras.applications, name)
    return constructor(
        **{"weights": None, "include_top": False, "pooling": "avg", "input_shape": (size, size, 3)} | options
    )


def _with_imagenet(name: str, size: int) -> Any:
    try:
        with _quiet_download():
            return _build(name, size, weights="imagenet")
    except Exception as error:
        raise BackboneError(
            f"backbone {name}: its ImageNet weights could not be downloaded ({error}); "
            "without internet, pass a local file with --weights FILE, or --weights none for random ones"
        ) from error


def _with_file(name: str, size: int, path: Path) -> Any:
    model = _build(name, size)
    try:
        read_weights(model, path)
    # The file may be that of a whole classifier; its head is removed later.
    except BackboneError as headless:
        try:
            model = _build(name, size, include_top=True, pooling=None, input_shape=None)
            read_weights(model, path)
        except BackboneError:
            raise headless from None
    if name.startswith("EfficientNetB"):
        correct_efficientnet(model)
    return model


@contextlib.contextmanager
def _quiet_download() -> Iterator[None]:
    """Send progress to stderr, time out a dead connection, and suppress Keras' warning about input sizes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`input_shape` is undefined")
            yield
    finally:
        socket.setdefaulttimeout(before)


def _unknown(name: str) -> str:
    if name.startswith("models:/"):
        return f"backbone {name}: expected a file here; a registered model is downloaded first"
    similar = similar_names(name, BUILT_IN, *(package.backbone for package in WEIGHT_PACKAGES))
    hint = f"did you mean {' or '.join(similar)}? " if similar else ""
    return (
        f"backbone: expected the name of a known network or a .keras file, received {name!r}; "
        f"{hint}`unfreeze backbones` lists the names"
    )

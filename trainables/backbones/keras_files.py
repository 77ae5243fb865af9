"""Reads Keras files in safe mode, and writes backbones to files that are complete as soon as they exist."""

from __future__ import annotations

import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from trainables.backbones.keras_internals import is_graph
from trainables.errors import BackboneError

WEIGHT_FILES = (".h5", ".hdf5", ".keras")
"""Suffixes of files from which weights are read (``.weights.h5`` among them)."""


def read_model(path: Path) -> Any:
    """Read the functional or sequential model in a ``.keras`` file, which has one image input and one output.

    Raises:
        BackboneError: there is no such file, it is no Keras file, it contains code (Lambda layers, custom classes), the
            model is subclassed, or it has other than one input (N, H, W, C) and one output.
    """
    if not path.is_file():
        raise BackboneError(f"backbone {path}: no such file")
    if path.suffix != ".keras":
        raise BackboneError(
            f"backbone {path}: expected a .keras file, received {path.suffix or 'no suffix'}; "
            "open the model in Keras and save it with model.save('NAME.keras')"
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise BackboneError(f"backbone {path}: {_reason(error)}") from error
    _check(path, model)
    return model


def read_weights(model: Any, path: Path) -> None:
    """Load the weights in ``path`` (.weights.h5, .h5 or .keras) into ``model``.

    Raises:
        BackboneError: there is no such file, it is of another kind, or the weights belong to another architecture.
    """
    if not path.is_file():
        raise BackboneError(f"weights {path}: no such file")
    if path.suffix not in WEIGHT_FILES:
        raise BackboneError(f"weights {path}: expected a .weights.h5, .h5 or .keras file")
    try:
        # Keras warns about optimizer variables in the file, which are not needed.
        with warnings.catch_warnings(action="ignore"):
            model.load_weights(path)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise BackboneError(f"weights {path}: they do not fit {model.name!r} ({reason})") from error


def write_model(model: Any, path: Path, note: Mapping[str, Any]) -> None:
    """Save ``model`` as ``path`` with the JSON object ``note`` inside; ``path`` is complete as soon as it exists.

    The note is stored as the comment of the zip archive, which Keras ignores.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the folder of the target, so that the final rename stays on one file system and is atomic.
    with tempfile.TemporaryDirectory(prefix=".backbone-", dir=path.parent) as folder:
        draft = Path(folder) / "draft.keras"
        model.save(draft)
        with zipfile.ZipFile(draft, "a") as archive:
            archive.comment = json.dumps(note).encode()
        draft.replace(path)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the ``note`` that :func:`write_model` stored in a file; empty for files that something else wrote."""
    with zipfile.ZipFile(path) as archive:
        text = archive.comment
    return dict(json.loads(text)) if text.startswith(b"{") else {}


def _reason(error: Exception) -> str:
    text = str(error)
    if "Lambda" in text:
        return "it holds a Lambda layer, and code from a file is never run; use a layer of Keras instead"
    if "Could not locate" in text:
        missing = text.partition("Could not locate ")[2].partition(".")[0]
        return f"it needs {missing}, which Keras does not have; only models of Keras' own layers can be read"
    return f"not a readable .keras file ({text.strip().partition(chr(10))[0][:200]})"


def _check(path: Path, model: Any) -> None:
    if not is_graph(model):
        raise BackboneError(
            f"backbone {path}: expected a functional or sequential model, received a subclassed one "
            f"({type(model).__name__}); its graph can't be cut"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise BackboneError(
            f"backbone {path}: the sequential model was never built; give it an Input and save again"
        )
    inputs, outputs = len(model.inputs), len(model.outputs)
    if (inputs, outputs) != (1, 1):
        raise BackboneError(
            f"backbone {path}: expected one input and one output, received {inputs} and {outputs}"
        )
    shape = tuple(model.inputs[0].shape)
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise BackboneError(
            f"backbone {path}: expected images (N, height, width, channels) with 3 or 1 channels, "
            f"received an input of shape {shape}"
        )

"""The table of formats in which a model can be exported, from which validation and conversion follow.

To add a format, write the two functions that :class:`ExportFormat` describes and add one entry to
:data:`EXPORT_FORMATS`. The module imports no TensorFlow, because the command line reads the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.implementations import load_implementation

if TYPE_CHECKING:
    from trainables.serving.exports import Predictor


@dataclass(frozen=True)
class ExportFormat:
    """One format.

    Attributes:
        name: as users write it.
        suffix: suffix of its files; empty for a folder.
        writer: dotted path of a function (model, class names, path) that writes the format.
        opener: dotted path of a function (path) that opens a file with the format's own runtime and returns a function
            from uint8 images (N, H, W, 3) to probabilities (N, classes).
        required_packages: packages that it needs in addition to TensorFlow.
    """

    name: str
    suffix: str
    writer: str
    opener: str
    required_packages: tuple[str, ...] = ()

    def write(self, model: Any, classes: Sequence[str], path: Path) -> None:
        """Write the Keras model ``model`` with these class names to ``path``."""
        load_implementation(self.writer)(model, classes, path)

    def open(self, path: Path) -> Predictor:
        """Open the exported model at ``path``, and return the function that predicts with it."""
        predictor: Predictor = load_implementation(self.opener)(path)
        return predictor


EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    made.name: made
    for made in (
        ExportFormat(
            "savedmodel",
            "",
            "trainables.serving.exports.write_saved_model",
            "trainables.serving.exports.open_saved_model",
        ),
        ExportFormat(
            "tflite",
            ".tflite",
            "trainables.serving.exports.write_tflite",
            "trainables.serving.exports.open_tflite",
        ),
        ExportFormat(
            "onnx",
            ".onnx",
            "trainables.serving.exports.write_onnx",
            "trainables.serving.exports.open_onnx",
            required_packages=("tf2onnx", "onnx", "onnxruntime"),
        ),
    )
}
"""All formats by the name that ``--format`` accepts."""


def format_of_suffix(suffix: str) -> str | None:
    """Return the name of the format whose files have this suffix, such as ``.onnx``; None if there is none."""
    return next(
        (made.name for made in EXPORT_FORMATS.values() if made.suffix and made.suffix == suffix), None
    )

"""Export a registered model to another runtime, after checking that it predicts the same as the Keras model."""

from __future__ import annotations

import importlib.util
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.registry.inference.outputs import check_writable
from trainables.errors import DataError, SearchError, UsageError
from trainables.serving.export_formats import EXPORT_FORMATS, ExportFormat, format_of_suffix

if TYPE_CHECKING:
    from trainables.serving.exports import Images

TOLERANCE = 1e-4
"""Largest accepted difference between two probabilities. Exported models typically differ by about 1e-6."""


@dataclass(frozen=True)
class ExportCheck:
    """How the predictions of an export differ from those of the Keras model.

    Attributes:
        images: number of images that were compared.
        sizes: number of different image sizes among them.
        difference: largest difference between two probabilities.
        changed_classes: number of images whose predicted class differs.
    """

    images: int
    sizes: int
    difference: float
    changed_classes: int


def export_format(output: str, wanted: str | None) -> str:
    """Return the requested format, or the one that the extension of ``output`` implies.

    Raises:
        UsageError: the format is unknown, or the extension implies none.
    """
    if wanted is None:
        wanted = format_of_suffix(Path(output).suffix.lower())
        if wanted is None:
            raise UsageError(f"--format: expected one of {', '.join(EXPORT_FORMATS)}, received none")
    if wanted not in EXPORT_FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(EXPORT_FORMATS)}, received {wanted!r}")
    return wanted


def check_target(output: str, overwrite: bool, name: str) -> Path:
    """Return the path to write, after checking that it is free and that its folder is writable.

    Raises:
        UsageError: it is not.
        SearchError: a package that the format ``name`` needs is not installed.
    """
    missing = [p for p in EXPORT_FORMATS[name].required_packages if importlib.util.find_spec(p) is None]
    if missing:
        raise SearchError(
            f"--format: {name} needs {' and '.join(missing)}, which is not installed: pip install 'unfreeze[export]'"
        )
    target = check_writable(output, overwrite, folders=True)
    if target.is_dir() and not (target / "saved_model.pb").is_file():
        raise UsageError(
            f"--output: expected a new path or an earlier export, received the folder {output!r}"
        )
    return target


def export_model(
    model: Any, classes: Sequence[str], name: str, target: Path, images: Sequence[Images]
) -> ExportCheck:
    """Write ``model`` to ``target`` in the format ``name``, if it predicts the same there as in Keras.

    Args:
        model: the Keras model.
        classes: names of the classes.
        name: the format, one of :data:`~trainables.serving.export_formats.EXPORT_FORMATS`.
        target: file or folder to write.
        images: uint8 images (H, W, 3) of any size, for the comparison.

    Raises:
        SearchError: the model cannot be converted, opened or run, or its probabilities differ by more than
            :data:`TOLERANCE`.
    """
    from trainables.serving.exports import largest_difference

    made = EXPORT_FORMATS[name]
    with _temporary_neighbour(target) as temporary:
        with _conversion_errors(made, "converted"):
            made.write(model, classes, temporary)
        with _conversion_errors(made, "run once it was converted"):
            difference, others = largest_difference(model, made.open(temporary), images)
        # Not "difference > TOLERANCE": a NaN must be refused, too.
        if not difference <= TOLERANCE:
            raise SearchError(
                f"--format: expected predictions in {name} that differ from those of Keras by at most {TOLERANCE:g}, "
                f"received {difference:.2g}; nothing was written"
            )
        # A folder with content cannot be replaced by a rename. The new export is complete and checked at this
        # point.
        if target.is_dir():
            shutil.rmtree(target)
        temporary.replace(target)
    return ExportCheck(len(images), len({image.shape for image in images}), difference, others)


def example_images(folder: Path, size: tuple[int, int]) -> list[Images]:
    """Return the input example of the MLflow model at ``folder``, at its own size and at smaller and larger sizes.

    Args:
        folder: folder of the MLflow model.
        size: (H, W) to which the model resizes.

    Raises:
        DataError: the model has no input example.
    """
    import numpy as np
    from mlflow.models import Model
    from PIL import Image

    example = Model.load(str(folder)).load_input_example(str(folder))
    if example is None:
        raise DataError(
            "--check: expected images to check the export on, since the model has no input example"
        )
    images = [np.asarray(image, np.uint8) for image in example]
    height, width = size
    for first in list(images):
        for other in {
            (width, height),
            (2 * width + 1, 3 * height),
            (max(width // 2, 1), max(height // 3, 1)),
        }:
            images.append(np.asarray(Image.fromarray(first).resize(other)))
    return images


def images_to_check(paths: Sequence[str]) -> list[Images]:
    """Return the images at ``paths``, at their own sizes.

    Raises:
        DataError: an image cannot be read.
    """
    from search.registry.inference.inputs import images_in
    from trainables.modalities.image.images import decode_full_size

    found = []
    for name, encoded in images_in(paths):
        try:
            found.append(decode_full_size(encoded))
        except DataError as error:
            raise DataError(f"--check: {name}: can't be read: {error}") from error
    return found


@contextmanager
def _temporary_neighbour(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``target``; what is there afterwards is deleted."""
    temporary = target.with_name(f".{target.stem[:40]}-{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
    except OSError as error:
        raise SearchError(f"--output: {str(target)!r} can't be written: {error.strerror or error}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        temporary.unlink(missing_ok=True)


@contextmanager
def _conversion_errors(made: ExportFormat, deed: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SearchError):
        raise
    except Exception as error:
        raise SearchError(f"--format: this model can't be {deed} in {made.name}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the important line of a converter's error message, which may be pages long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "error:" in line or "not supported" in line or "Custom ops" in line]
    return f"{type(error).__name__}: {(causes or lines or ['no reason given'])[0][:300]}"

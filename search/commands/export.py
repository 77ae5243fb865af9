"""``unfreeze export``: write a registered model as TensorFlow SavedModel, TFLite or ONNX."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.records.formatting import plural
from search.registry.inference.export import (
    TOLERANCE,
    check_target,
    export_format,
    export_model,
    images_to_check,
)
from search.tracking.stores import model_store
from trainables.serving.export_formats import EXPORT_FORMATS


def parser() -> Parser:
    """Return the parser: the model, the format, where to write, and what to check it on."""
    made = Parser(
        "export",
        "Write a model in another format. The model takes uint8 images (N, H, W, 3) of any size. It is compared with "
        f"the Keras model: no probability may differ by more than {TOLERANCE:g}.",
    )
    made.add_argument(
        "model", metavar="MODEL_URI", help="Registered model, such as models:/unfreeze-digits@champion."
    )
    made.add_argument(
        "--format", metavar="|".join(EXPORT_FORMATS), help="Format (default: from PATH's extension)."
    )
    made.add_argument(
        "--output",
        metavar="PATH",
        required=True,
        help="FILE.tflite, FILE.onnx, or a folder for a SavedModel.",
    )
    made.add_argument("--overwrite", action="store_true", help="Replace PATH if it exists.")
    made.add_argument(
        "--check",
        metavar="PATH",
        nargs="+",
        help="Images, folders or Parquet files on which the two models are compared (default: the model's input "
        "example at four sizes).",
    )
    add_storage_options(made)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Convert the model, compare the two, and print the path."""
    # All arguments are checked before the model is loaded, which takes seconds.
    name = export_format(options.output, options.format)
    target = check_target(options.output, options.overwrite, name)
    images = images_to_check(options.check) if options.check else []
    uri = model_store(options.model, options.tracking_uri, options.storage)
    from search.registry.downloads import downloaded_model
    from search.registry.inference.classifier import load_classifier

    classifier = load_classifier(options.model, uri)
    if not images:
        from search.registry.inference.export import example_images

        with downloaded_model(options.model, uri) as folder:
            images = example_images(folder, classifier.image_size)
    found = export_model(classifier.model, classifier.classes, name, target, images)
    same = (
        "each gets the same class"
        if not found.changed_classes
        else f"{found.changed_classes:,} get another class"
    )
    print(
        f"unfreeze: checked on {plural(found.images, 'image')} of {plural(found.sizes, 'size')}: "
        f"max difference from Keras {found.difference:.2g}, {same}",
        file=sys.stderr,
    )
    print(target.absolute())
    return 0

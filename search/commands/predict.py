"""``unfreeze predict``: images in, classes and probabilities out."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.config.argument_parser import Parser, add_store, add_verbose
from search.config.validation_errors import shown
from search.output_place import expect_writable
from search.records.formatting import plural
from search.records.units import format_duration
from search.registry.inference.outputs import FORMATS, Writer, open_output, output_format, writer_to
from search.tracking.stores import model_store
from trainables.errors import SearchError, UsageError

if TYPE_CHECKING:
    from search.registry.inference.classifier import Classifier, Prediction

NAMED = 100
"""Images that can't be read and are named, at most; the others are counted."""


def parser() -> Parser:
    """The model, the images, where the answers go and in which form."""
    made = Parser("predict", "Classify images: path, class and probability of each.")
    made.add_argument("model", metavar="MODEL_URI", help="such as models:/unfreeze-digits@champion")
    made.add_argument("paths", metavar="PATH", nargs="+", help="images, folders of images, Parquet files")
    made.add_argument("--output", metavar="FILE", help="where to write: FILE.csv, FILE.jsonl or FILE.parquet")
    made.add_argument("--overwrite", action="store_true", help="replace FILE if it is there already")
    made.add_argument(
        "--format", metavar="|".join(FORMATS), help="form of the output [by FILE's extension, else csv]"
    )
    made.add_argument("--all", action="store_true", help="the probability of every class")
    made.add_argument("--image-column", metavar="COLUMN", help="column of images in Parquet files")
    made.add_argument("--batch-size", metavar="N", default="64", help="images at a time [64]")
    add_store(made)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write predictions; images that can't be read are named on stderr at the end, and make it exit with 1."""
    kind = output_format(options.output, options.format)
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", options.batch_size, re.ASCII):
        raise UsageError(
            f"--batch-size: expected a whole number from 1 to 999,999, received {shown(options.batch_size)}"
        )
    from search.predict_progress import Progress
    from search.registry.inference.inputs import count_images, images_in

    images = images_in(options.paths, options.image_column)
    uri = model_store(options.model, options.tracking_uri, options.storage)
    if options.output is not None:
        expect_writable(options.output, options.overwrite)
    elif options.overwrite:
        raise UsageError("--overwrite: expected --output FILE with it, received none")
    from search.registry.inference.classifier import load_classifier

    classifier = load_classifier(options.model, uri)
    predictions = classifier.predict(images, int(options.batch_size))
    told = options.output is not None or (sys.stderr.isatty() and not sys.stdout.isatty())
    progress = Progress(sys.stderr, count_images(options.paths)) if told else None
    with _writer(options, kind, classifier) as writer:
        unread = _write(progress.watch(predictions) if progress else predictions, writer)
    if progress and options.output:
        words = f"{plural(progress.done - len(unread), 'image')} in {format_duration(progress.seconds)}"
        print(f"unfreeze: {words}, {progress.rate}", file=sys.stderr)
        print(Path(options.output).absolute())
    _complain(unread)
    return 1 if unread else 0


@contextmanager
def _writer(options: argparse.Namespace, kind: str, classifier: Classifier) -> Iterator[Writer]:
    if options.output is None:
        writer = writer_to(sys.stdout, kind, classifier.classes, options.all)
        yield writer
        writer.close()
        return
    try:
        with open_output(options.output, kind, classifier.classes, options.all) as writer:
            yield writer
    except OSError as error:
        raise SearchError(f"--output: {options.output!r} can't be written: {error.strerror}") from error


def _write(found: Iterable[Prediction], writer: Writer) -> list[Prediction]:
    """Write what could be read; the others are returned."""
    unread = []
    for prediction in found:
        if prediction.error is None:
            writer.write(prediction)
        else:
            unread.append(prediction)
    return unread


def _complain(unread: Sequence[Prediction]) -> None:
    if not unread:
        return
    print(f"unfreeze: {plural(len(unread), 'image')} can't be read:", file=sys.stderr)
    for prediction in unread[:NAMED]:
        print(f"  {prediction.path}: {prediction.error}", file=sys.stderr)
    if len(unread) > NAMED:
        print(f"  and {len(unread) - NAMED:,} more", file=sys.stderr)

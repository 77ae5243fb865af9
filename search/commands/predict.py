"""``unfreeze predict``: write class and probability of each image."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.config.validation_errors import quote_value
from search.records.formatting import plural
from search.records.units import format_duration
from search.registry.inference.outputs import (
    PREDICTION_FORMATS,
    PredictionWriter,
    check_writable,
    open_output,
    output_format,
    writer_to,
)
from search.tracking.stores import model_store
from trainables.errors import SearchError, UsageError

if TYPE_CHECKING:
    from search.registry.inference.classifier import Classifier, Prediction


MAX_NAMED_IMAGES = 100
"""Of the images that cannot be read, this many are named. The others are counted."""


LINE_SECONDS = 10.0
"""Seconds between two lines of progress."""


BAR_SECONDS = 0.1
"""Seconds between two updates of the progress bar."""


Item = TypeVar("Item")


Show = Callable[[int], float]
"""Shows the number of images that are done and returns the seconds until it should be called again."""


def parser() -> Parser:
    """Return the parser: the model, the images, and the output."""
    made = Parser("predict", "Classify images, and write the path, the class and its probability for each.")
    made.add_argument(
        "model", metavar="MODEL_URI", help="Registered model, such as models:/unfreeze-digits@champion."
    )
    made.add_argument(
        "paths", metavar="PATH", nargs="+", help="Images, folders of images, and Parquet files."
    )
    made.add_argument(
        "--output",
        metavar="FILE",
        help="File to write: FILE.csv, FILE.jsonl or FILE.parquet (default: the terminal).",
    )
    made.add_argument("--overwrite", action="store_true", help="Replace FILE if it exists.")
    made.add_argument(
        "--format",
        metavar="|".join(PREDICTION_FORMATS),
        help="Format of the output (default: from FILE's extension, else csv).",
    )
    made.add_argument("--all", action="store_true", help="Write the probability of every class.")
    made.add_argument(
        "--image-column",
        metavar="COLUMN",
        help="Column of a Parquet file that holds the images (default: found by name and type).",
    )
    made.add_argument(
        "--batch-size", metavar="N", default="64", help="Images that are classified at a time (default: 64)."
    )
    add_storage_options(made)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write the predictions. Images that cannot be read are named on stderr at the end; the exit code is then 1."""
    # All arguments are checked before the model is loaded, which takes seconds.
    kind = output_format(options.output, options.format)
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", options.batch_size, re.ASCII):
        raise UsageError(
            f"--batch-size: expected a whole number from 1 to 999,999, received {quote_value(options.batch_size)}"
        )
    from search.registry.inference.inputs import count_images, images_in

    images = images_in(options.paths, options.image_column)
    uri = model_store(options.model, options.tracking_uri, options.storage)
    if options.output is not None:
        check_writable(options.output, options.overwrite)
    elif options.overwrite:
        raise UsageError("--overwrite: expected --output FILE as well, received none")
    from search.registry.inference.classifier import load_classifier

    classifier = load_classifier(options.model, uri)
    predictions = classifier.predict(images, int(options.batch_size))
    # Predictions that are printed to a terminal need no other progress.
    show_progress = options.output is not None or (sys.stderr.isatty() and not sys.stdout.isatty())
    progress = PredictionProgress(sys.stderr, count_images(options.paths)) if show_progress else None
    with _writer(options, kind, classifier) as writer:
        unread = _write(progress.track(predictions) if progress else predictions, writer)
    if progress and options.output:
        words = f"{plural(progress.done - len(unread), 'image')} in {format_duration(progress.seconds)}"
        print(f"unfreeze: {words}, {progress.rate}", file=sys.stderr)
        print(Path(options.output).absolute())
    _report_unread(unread)
    return 1 if unread else 0


@contextmanager
def _writer(options: argparse.Namespace, kind: str, classifier: Classifier) -> Iterator[PredictionWriter]:
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


def _write(found: Iterable[Prediction], writer: PredictionWriter) -> list[Prediction]:
    """Write the predictions of readable images and return those of the others."""
    unread = []
    for prediction in found:
        if prediction.error is None:
            writer.write(prediction)
        else:
            unread.append(prediction)
    return unread


def _report_unread(unread: Sequence[Prediction]) -> None:
    if not unread:
        return
    print(f"unfreeze: {plural(len(unread), 'image')} can't be read:", file=sys.stderr)
    for prediction in unread[:MAX_NAMED_IMAGES]:
        print(f"  {prediction.path}: {prediction.error}", file=sys.stderr)
    if len(unread) > MAX_NAMED_IMAGES:
        print(f"  and {len(unread) - MAX_NAMED_IMAGES:,} more", file=sys.stderr)


class PredictionProgress:
    """Shows how many images are done: as a bar on a terminal, as a line now and then elsewhere.

    Args:
        stream: where to write.
        total: number of images, or 0 if it is not known.
    """

    def __init__(self, stream: IO[str], total: int) -> None:
        self._stream, self._total = stream, total
        self._began = time.monotonic()
        self.done = 0

    @property
    def seconds(self) -> float:
        """Seconds since the first image was requested."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> str:
        """The mean speed, such as ``410 images/s``."""
        return f"{self.done / max(self.seconds, 1e-3):,.0f} images/s"

    def track(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items`` and count them."""
        self._began = time.monotonic()
        with self._shown() as show:
            due = 0.0
            for item in items:
                self.done += 1
                yield item
                if (now := time.monotonic()) >= due:
                    due = now + show(self.done)

    @contextmanager
    def _shown(self) -> Iterator[Show]:
        if not self._stream.isatty():
            yield self._line
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        shapes = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
        with Bar(*shapes, console=Console(file=self._stream), transient=True) as bar:
            task = bar.add_task("images", total=self._total or None, rate="")

            def draw(done: int) -> float:
                bar.update(task, completed=done, rate=self.rate)
                return BAR_SECONDS

            yield draw

    def _line(self, done: int) -> float:
        if self.seconds >= LINE_SECONDS:
            whole = f" of {self._total:,}" if self._total else ""
            left = self.seconds * (self._total - done) / done
            rest = f", {format_duration(left)} left" if self._total > done else ""
            print(f"unfreeze: {done:,}{whole} images, {self.rate}{rest}", file=self._stream, flush=True)
            return LINE_SECONDS
        return LINE_SECONDS - self.seconds

"""``unfreeze predict``: images in, classes and probabilities out.

How far a prediction of many images has come: a bar on a terminal, lines now and then elsewhere.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from search.config.argument_parser import Parser, add_storage_options, add_verbose_option
from search.config.validation_errors import format_value
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
import time
from collections.abc import Callable
from typing import IO, TypeVar

LINE_SECONDS = 10.0
"""Seconds between two lines."""

BAR_SECONDS = 0.1
"""Seconds between two changes of the bar."""

Item = TypeVar("Item")
Show = Callable[[int], float]
"""Shows how many are done; returns the seconds until it wants to be called again."""


class PredictionProgress:
    """Counts items that go by, and says so on ``stream``; ``total`` 0 where it is not known."""

    def __init__(self, stream: IO[str], total: int) -> None:
        self._stream, self._total = stream, total
        self._began = time.monotonic()
        self.done = 0

    @property
    def seconds(self) -> float:
        """Since the first item was asked for."""
        return time.monotonic() - self._began

    @property
    def rate(self) -> str:
        """``410 images/s``."""
        return f"{self.done / max(self.seconds, 1e-3):,.0f} images/s"

    def track(self, items: Iterable[Item]) -> Iterator[Item]:
        """``items``, unchanged."""
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


MAX_NAMED_IMAGES = 100
"""Images that can't be read and are named, at most; the others are counted."""


def parser() -> Parser:
    """The model, the images, where the answers go and in which form."""
    made = Parser("predict", "Classify images: path, class and probability of each.")
    made.add_argument("model", metavar="MODEL_URI", help="such as models:/unfreeze-digits@champion")
    made.add_argument("paths", metavar="PATH", nargs="+", help="images, folders of images, Parquet files")
    made.add_argument("--output", metavar="FILE", help="where to write: FILE.csv, FILE.jsonl or FILE.parquet")
    made.add_argument("--overwrite", action="store_true", help="replace FILE if it is there already")
    made.add_argument(
        "--format",
        metavar="|".join(PREDICTION_FORMATS),
        help="form of the output [by FILE's extension, else csv]",
    )
    made.add_argument("--all", action="store_true", help="the probability of every class")
    made.add_argument("--image-column", metavar="COLUMN", help="column of images in Parquet files")
    made.add_argument("--batch-size", metavar="N", default="64", help="images at a time [64]")
    add_storage_options(made)
    add_verbose_option(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write predictions; images that can't be read are named on stderr at the end, and make it exit with 1."""
    kind = output_format(options.output, options.format)
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", options.batch_size, re.ASCII):
        raise UsageError(
            f"--batch-size: expected a whole number from 1 to 999,999, received {format_value(options.batch_size)}"
        )
    from search.registry.inference.inputs import count_images, images_in

    images = images_in(options.paths, options.image_column)
    uri = model_store(options.model, options.tracking_uri, options.storage)
    if options.output is not None:
        check_writable(options.output, options.overwrite)
    elif options.overwrite:
        raise UsageError("--overwrite: expected --output FILE with it, received none")
    from search.registry.inference.classifier import load_classifier

    classifier = load_classifier(options.model, uri)
    predictions = classifier.predict(images, int(options.batch_size))
    told = options.output is not None or (sys.stderr.isatty() and not sys.stdout.isatty())
    progress = PredictionProgress(sys.stderr, count_images(options.paths)) if told else None
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
    """Write what could be read; the others are returned."""
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

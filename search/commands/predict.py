"""``unfreeze predict``: images in, classes and probabilities out."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from search.arguments import Parser, add_store, add_verbose
from search.config_errors import shown
from search.stores import default_tracking_uri, known_store
from trainables.errors import UsageError

if TYPE_CHECKING:
    from search.predict import Prediction

_FORMATS = ("csv", "jsonl")


def parser() -> Parser:
    """The model, the images, the form of the output."""
    made = Parser("predict", "Classify images; one line each: path, class, probability.")
    made.add_argument("model", metavar="MODEL_URI", help="such as models:/unfreeze-digits@champion")
    made.add_argument("paths", metavar="PATH", nargs="+", help="images, folders of images, Parquet files")
    made.add_argument("--format", metavar="csv|jsonl", default="csv", help="form of the output [csv]")
    made.add_argument("--all", action="store_true", help="the probability of every class")
    made.add_argument("--image-column", metavar="COLUMN", help="column of images in Parquet files")
    made.add_argument("--batch-size", metavar="N", default="64", help="images at a time [64]")
    add_store(made)
    add_verbose(made)
    return made


def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Write predictions to stdout; images that can't be read are named on stderr and make it exit with 1."""
    if options.format not in _FORMATS:
        raise UsageError(f"--format: expected one of {', '.join(_FORMATS)}, received {options.format!r}")
    if not re.fullmatch(r"0*[1-9][0-9]{0,5}", options.batch_size, re.ASCII):
        raise UsageError(
            f"--batch-size: expected a whole number from 1 to 999,999, received {shown(options.batch_size)}"
        )
    from search.predict import load_classifier
    from search.predict_inputs import images_in

    images = images_in(options.paths, options.image_column)
    if options.model.startswith(("models:/", "runs:/")):
        uri = known_store(options.tracking_uri, options.storage)
    else:
        uri = options.tracking_uri or default_tracking_uri(Path(options.storage))
    classifier = load_classifier(options.model, uri)
    predictions = classifier.predict(images, int(options.batch_size))
    write = _write_csv if options.format == "csv" else _write_jsonl
    return 1 if write(predictions, classifier.classes, options.all, sys.stdout) else 0


def _write_jsonl(found: Iterable[Prediction], classes: Sequence[str], whole: bool, stream: IO[str]) -> int:
    unread = 0
    for prediction in found:
        if prediction.error is not None:
            unread += _complain(prediction)
            continue
        name, probability = prediction.top(classes)
        line: dict[str, object] = {
            "path": prediction.path,
            "class": name,
            "probability": round(probability, 6),
        }
        if whole:
            rounded = (round(p, 6) for p in prediction.probabilities)
            line["probabilities"] = dict(zip(classes, rounded, strict=True))
        print(json.dumps(line, ensure_ascii=False), file=stream)
    return unread


def _write_csv(found: Iterable[Prediction], classes: Sequence[str], whole: bool, stream: IO[str]) -> int:
    unread = 0
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["path", "class", "probability", *(classes if whole else ())])
    for prediction in found:
        if prediction.error is not None:
            unread += _complain(prediction)
            continue
        name, probability = prediction.top(classes)
        rest = [f"{p:.6f}" for p in prediction.probabilities] if whole else []
        writer.writerow([prediction.path, name, f"{probability:.6f}", *rest])
    return unread


def _complain(prediction: Prediction) -> int:
    print(f"unfreeze: {prediction.path}: can't be read: {prediction.error}", file=sys.stderr)
    return 1

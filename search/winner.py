"""The winner: trained again on its own, measured once on test data, compared with the baseline."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from search.answers import Answers, image_keys, split_digest, write_answers
from search.atomic import write_text
from search.confidence import calibration
from search.config import SearchConfig
from search.execution import Halt
from search.intervals import paired_gain, verdict, wilson
from search.progress import View
from search.record import Baseline, ErrorExample, Outcome, TrialRecord
from search.seams import reached
from search.session import Session
from search.spread import spread
from trainables.datasets import Split, Task

EXAMPLES = 12
"""Right and wrong test images, of each at most, that the report shows."""


@dataclass(frozen=True)
class Retrained:
    """One training of a chosen configuration with one seed."""

    seed: int
    model: Path
    val_accuracy: float
    val_loss: float


def retrain(
    trials: Sequence[TrialRecord],
    epochs: Sequence[int],
    config: SearchConfig,
    session: Session,
    place: Mapping[str, str],
    directory: Path,
    view: View,
    halt: Halt,
) -> list[list[Retrained]]:
    """Train each chosen trial's configuration again, live, for its ``epochs``, with ``confirm_seeds`` new seeds.

    Trainings that an interrupted run finished are not repeated: each leaves its model and a JSON file. Returns
    early, with what there is, when ``halt`` says so.
    """
    asked = [(t, e, s) for t, e in zip(trials, epochs, strict=True) for s in confirmation_seeds(config)]
    calls = {
        (n, seed): (
            "train_fully",
            (
                _request(trial, seed, length, config),
                dict(place),
                str(_file(directory, trial, seed, ".keras")),
            ),
        )
        for n, (trial, length, seed) in enumerate(asked)
        if _read(directory, trial, seed) is None
    }
    whole = len(asked)
    left = len(calls)
    view.stage("winner", whole - left, whole)
    for (n, seed), metrics in spread(session, calls, lambda: halt.at_once):
        trial = asked[n][0]
        kept = {k: metrics[k] for k in ("val_accuracy", "val_loss", "epoch")}
        write_text(_file(directory, trial, seed, ".json"), json.dumps({**kept, "params": dict(trial.params)}))
        reached("retrained")
        left -= 1
        view.stage("winner", whole - left, whole)
    done = [[_read(directory, t, s) for s in confirmation_seeds(config)] for t in trials]
    return [[r for r in row if r is not None] for row in done]


def confirmation_seeds(config: SearchConfig) -> tuple[int, ...]:
    """Seeds of the winner's trainings: none that a trial of the search had."""
    return tuple((config.seed * 1_000_003 + 2**30 + k) % 2**31 for k in range(config.confirm_seeds))


def measure(
    trial: TrialRecord,
    runs: Sequence[Retrained],
    baselines: Sequence[tuple[TrialRecord, Sequence[Retrained], int]],
    task: Task,
    session: Session,
) -> Outcome:
    """Read the test split, once: the winner's trainings and the baselines', on the same images.

    Of each of ``baselines`` come the best trial, its trainings and the number of trials; the gain is over the first.
    """
    began = time.monotonic()
    split = task.split("test")
    labels = np.asarray(split.labels)
    models = [r.model for group in (runs, *(others for _, others, _ in baselines)) for r in group]
    calls = {i: ("classify", (str(model), str(task.directory), "test")) for i, model in enumerate(models)}
    known = dict(spread(session, calls))
    said = [known[i] for i in range(len(models))]
    predicted = np.array([classes for classes, *_ in said])
    certain, truth = (np.array([answer[part] for answer in said[: len(runs)]]) for part in (1, 2))
    right = predicted == labels
    best = chosen(runs)
    confusion = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(confusion, (labels, predicted[best]), 1)
    parts = _parts([len(others) for _, others, _ in baselines], len(runs))
    accuracies = [float(a) for a in right.mean(axis=1)]
    compared = tuple(
        Baseline(one.method, dict(one.params), count, tuple(accuracies[part]))
        for (one, others, count), part in zip(baselines, parts, strict=True)
        if others
    )
    gain = paired_gain(right[: len(runs)], right[parts[0]]) if compared else None
    places = {one.method: part for (one, _, _), part in zip(baselines, parts, strict=True)}
    scratch = next((b for b in compared if b.method == "scratch"), None)
    answers_file = runs[best].model.with_name(f"{trial.method}-{trial.number}-answers.parquet")
    from_scratch = predicted[places["scratch"]] if scratch else predicted[:0]
    answers = _answers(task, split, predicted[: len(runs)], best, from_scratch)
    write_answers(answers_file, replace(answers, certain=certain, truth=truth))
    asked = {0: ("footprint", (str(runs[best].model), task.image_size))}
    footprint = dict(spread(session, asked))[0]  # after all else: nothing runs beside it
    return Outcome(
        trial=trial.number,
        params=dict(trial.params),
        seeds=tuple(r.seed for r in runs),
        val_accuracies=tuple(r.val_accuracy for r in runs),
        test_accuracy=wilson(int(right[best].sum()), len(labels)),
        seed_test_accuracies=tuple(accuracies[: len(runs)]),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        scratch_params=scratch.params if scratch else None,
        scratch_trials=scratch.trials if scratch else 0,
        scratch_test_accuracies=scratch.test_accuracies if scratch else (),
        baselines=compared,
        gain=gain,
        verdict=verdict(gain) if gain else None,
        calibration=calibration(certain[best], right[best], truth[best]),
        examples=_examples(split.images, labels, predicted[best], certain[best], task.classes),
        model_file=runs[best].model.name,
        answers_file=answers_file.name,
        footprint=footprint,
        seconds=time.monotonic() - began,
    )


def _parts(counts: Sequence[int], first: int) -> list[slice]:
    """Where groups of so many rows lie, one after another from ``first``."""
    starts = [first + sum(counts[:place]) for place in range(len(counts))]
    return [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]


def chosen(runs: Sequence[Retrained]) -> int:
    """Index of the training that is registered: best on validation data, the lower loss on a tie."""
    return min(range(len(runs)), key=lambda i: (-runs[i].val_accuracy, runs[i].val_loss))


def _answers(task: Task, split: Split, predicted: np.ndarray, best: int, scratch: np.ndarray) -> Answers:
    """What is kept for later comparisons, so that the test split need not be read again."""
    return Answers(
        classes=task.classes,
        image_size=task.image_size,
        digest=split_digest(split.images, split.labels),
        images=image_keys(split.ids),
        labels=np.array(split.labels),
        predicted=predicted,
        chosen=best,
        scratch=scratch,
    )


def _request(trial: TrialRecord, seed: int, epochs: int, config: SearchConfig) -> dict[str, Any]:
    return {
        "method": trial.method,
        "params": dict(trial.params),
        "epochs": epochs,
        "batch_size": trial.batch_size or config.batch_size,
        "seed": seed,
        "metric": config.metric,
        "batch_norm": config.batch_norm,
        "live": True,
    }


def _file(directory: Path, trial: TrialRecord, seed: int, suffix: str) -> Path:
    return directory / f"{trial.method}-{trial.number}-seed-{seed}{suffix}"


def _read(directory: Path, trial: TrialRecord, seed: int) -> Retrained | None:
    model, facts = (_file(directory, trial, seed, suffix) for suffix in (".keras", ".json"))
    try:
        metrics = json.loads(facts.read_text())
        with zipfile.ZipFile(model) as archive:
            if archive.testzip() is not None:
                return None
        return Retrained(seed, model, metrics["val_accuracy"], metrics["val_loss"])
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None  # not there yet, or damaged: it is trained again


def _examples(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    certain: np.ndarray,
    classes: Sequence[str],
) -> tuple[ErrorExample, ...]:
    """The surest wrong answers, then the least sure right ones."""
    wrong = sorted(np.flatnonzero(predicted != labels), key=lambda i: -certain[i])[:EXAMPLES]
    right = sorted(np.flatnonzero(predicted == labels), key=lambda i: certain[i])[:EXAMPLES]
    return tuple(
        ErrorExample(_png(images[i]), classes[labels[i]], classes[predicted[i]], float(certain[i]))
        for i in [*wrong, *right]
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((96, 96))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

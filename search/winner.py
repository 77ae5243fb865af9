"""The winner: trained again on its own, measured once on test data, compared with the baseline."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from search.answers import Answers, image_keys, split_digest, write_answers
from search.atomic import write_text
from search.config import SearchConfig
from search.execution import Halt
from search.intervals import paired_gain, verdict, wilson
from search.progress import View
from search.record import ErrorExample, Outcome, TrialRecord
from search.seams import reached
from search.session import Session
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
    config: SearchConfig,
    session: Session,
    place: Mapping[str, str],
    directory: Path,
    view: View,
    halt: Halt,
) -> list[list[Retrained]]:
    """Train each chosen trial's configuration again, live, with ``confirm_seeds`` new seeds.

    Trainings that an interrupted run finished are not repeated: each leaves its model and a JSON file. Returns
    early, with what there is, when ``halt`` is signalled.
    """
    pending: dict[Any, tuple[TrialRecord, int]] = {}
    for index, (trial, seed) in enumerate((t, s) for t in trials for s in confirmation_seeds(config)):
        if _read(directory, trial, seed) is not None:
            continue
        engine = session.engines[index % len(session.engines)]
        model = _file(directory, trial, seed, ".keras")
        pending[engine.train_fully.remote(_request(trial, seed, config), dict(place), str(model))] = (
            trial,
            seed,
        )
    whole = len(trials) * config.confirm_seeds
    while pending and not halt.signalled.is_set():
        view.stage("winner", whole - len(pending), whole)
        found, _ = ray.wait(list(pending), num_returns=1, timeout=0.5)
        if not found:
            continue
        ready = found[0]
        trial, seed = pending.pop(ready)
        metrics = ray.get(ready)
        kept = {k: metrics[k] for k in ("val_accuracy", "val_loss", "epoch")}
        write_text(_file(directory, trial, seed, ".json"), json.dumps({**kept, "params": dict(trial.params)}))
        reached("retrained")
    view.stage("winner", whole - len(pending), whole)
    done = [[_read(directory, t, s) for s in confirmation_seeds(config)] for t in trials]
    return [[r for r in row if r is not None] for row in done]


def confirmation_seeds(config: SearchConfig) -> tuple[int, ...]:
    """Seeds of the winner's trainings: none that a trial of the search had."""
    return tuple((config.seed * 1_000_003 + 2**30 + k) % 2**31 for k in range(config.confirm_seeds))


def measure(
    trial: TrialRecord,
    runs: Sequence[Retrained],
    scratch: TrialRecord | None,
    scratch_runs: Sequence[Retrained],
    scratch_trials: int,
    task: Task,
    session: Session,
) -> Outcome:
    """Read the test split, once: the winner's trainings and the baseline's, on the same images."""
    began = time.monotonic()
    split = task.split("test")
    labels = np.asarray(split.labels)
    said = ray.get(
        [
            session.engines[i % len(session.engines)].classify.remote(
                str(r.model), str(task.directory), "test"
            )
            for i, r in enumerate([*runs, *scratch_runs])
        ]
    )
    predicted = np.array([classes for classes, _ in said])
    right = predicted == labels
    best = chosen(runs)
    confusion = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(confusion, (labels, predicted[best]), 1)
    gain = paired_gain(right[: len(runs)], right[len(runs) :]) if scratch_runs else None
    accuracies = [float(a) for a in right.mean(axis=1)]
    answers_file = runs[best].model.with_name(f"{trial.method}-{trial.number}-answers.parquet")
    write_answers(answers_file, _answers(task, split, predicted[: len(runs)], best, predicted[len(runs) :]))
    footprint = ray.get(session.engines[0].footprint.remote(str(runs[best].model), task.image_size))
    return Outcome(
        trial=trial.number,
        params=dict(trial.params),
        seeds=tuple(r.seed for r in runs),
        val_accuracies=tuple(r.val_accuracy for r in runs),
        test_accuracy=wilson(int(right[best].sum()), len(labels)),
        seed_test_accuracies=tuple(accuracies[: len(runs)]),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        scratch_params=dict(scratch.params) if scratch else None,
        scratch_trials=scratch_trials,
        scratch_test_accuracies=tuple(accuracies[len(runs) :]),
        gain=gain,
        verdict=verdict(gain) if gain else None,
        examples=_examples(split.images, labels, predicted[best], said[best][1], task.classes),
        model_file=runs[best].model.name,
        answers_file=answers_file.name,
        footprint=footprint,
        seconds=time.monotonic() - began,
    )


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


def _request(trial: TrialRecord, seed: int, config: SearchConfig) -> dict[str, Any]:
    return {
        "method": trial.method,
        "params": dict(trial.params),
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "seed": seed,
        "metric": config.metric,
        "batch_norm": config.batch_norm,
        "live": True,
    }


def _file(directory: Path, trial: TrialRecord, seed: int, suffix: str) -> Path:
    return directory / f"{trial.method}-{trial.number}-seed-{seed}{suffix}"


def _read(directory: Path, trial: TrialRecord, seed: int) -> Retrained | None:
    model, facts = (_file(directory, trial, seed, suffix) for suffix in (".keras", ".json"))
    if not (model.exists() and facts.exists()):
        return None
    metrics = json.loads(facts.read_text())
    return Retrained(seed, model, metrics["val_accuracy"], metrics["val_loss"])


def _examples(
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray,
    certain: Sequence[float],
    classes: Sequence[str],
) -> tuple[ErrorExample, ...]:
    """The surest wrong answers, then the least sure right ones."""
    sure = np.asarray(certain)
    wrong = sorted(np.flatnonzero(predicted != labels), key=lambda i: -sure[i])[:EXAMPLES]
    right = sorted(np.flatnonzero(predicted == labels), key=lambda i: sure[i])[:EXAMPLES]
    return tuple(
        ErrorExample(_png(images[i]), classes[labels[i]], classes[predicted[i]], float(sure[i]))
        for i in [*wrong, *right]
    )


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((96, 96))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

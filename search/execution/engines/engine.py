"""The engine: one process per machine, or per GPU, that owns TensorFlow, the data and everything trials share.

Plain Python, no Ray: :mod:`search.execution.trial_actor` puts it behind a Ray actor. Trials run in its
threads, an epoch at a
time; TensorFlow is imported once, data is loaded once, a shape is compiled once, for all trials of the machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.fault_injection import inject_fault
from trainables.errors import BackboneError, DataError, OutOfMemory, TrialError
from trainables.numerics import choose_numerics
from trainables.reuse import Reuse

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from trainables.epoch_metrics import EpochMetrics
    from trainables.serving.footprint import Footprint
    from trainables.training.training import Training
    from trainables.training.workbench import Workbench

CHECKPOINT = "checkpoint.npz"


class UnknownTrial(Exception):
    """This engine has not begun the trial."""


@dataclass(frozen=True)
class _RunningTrial:
    """A trial under way; ``busy`` is held while it trains."""

    training: Training
    file: Path | None
    busy: threading.Lock = field(default_factory=threading.Lock)


class Engine:
    """Runs the trials of one machine.

    Args:
        threads: processor cores that TensorFlow may use.
        verbose: let TensorFlow print what it likes.
        reuse: what trials take over from each other; everything if not given.
        numerics: ``precision`` and ``jit`` (:func:`trainables.numerics.choose_numerics`); auto if not given.
        copies: read a copy of the data on this machine's own disk (:mod:`trainables.data.node_copy`).
        gpus: those that TensorFlow may see, by CUDA's names; all if not given.
    """

    def __init__(
        self,
        threads: int,
        verbose: bool = False,
        reuse: Reuse | None = None,
        numerics: Mapping[str, str] | None = None,
        copies: bool = False,
        gpus: Sequence[str] | None = None,
    ) -> None:
        quiet_tensorflow(verbose)
        if gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus) or "-1"
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already in this process: its threads stay
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
        self._reuse = reuse or Reuse()
        self._copies = copies
        wanted = numerics or {}
        self._numerics = choose_numerics(wanted.get("precision", "auto"), wanted.get("jit", "auto"))
        self._life = uuid.uuid4().hex
        self._opening = threading.Lock()
        self._benches: dict[tuple[str, ...], Workbench] = {}
        self._running: dict[str, _RunningTrial] = {}
        self._again: dict[str, list[EpochMetrics]] = {}
        self._damaged: dict[str, str] = {}
        self._stillborn: dict[str, dict[str, Any]] = {}

    def prepare_backbone(self, spec: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Load a backbone, save it as one normalised file at ``path`` and describe it."""
        from trainables.backbones.backbone import Backbone, BackboneSpec, load

        file = Path(path)
        try:
            backbone = Backbone.open(file)
        except BackboneError:  # not there yet, or damaged
            backbone = load(BackboneSpec(**spec))
            file.parent.mkdir(parents=True, exist_ok=True)
            backbone.save(file)
        return {
            "name": backbone.name,
            "weights": backbone.weights,
            "digest": backbone.digest,
            "input_size": tuple(backbone.input_size),
            "parameters": backbone.parameters,
            "blocks": tuple(block.name for block in backbone.blocks),
        }

    def ready(self) -> tuple[str, int]:
        """The engine has started: what tells it from one that follows it, and its process."""
        return self._life, os.getpid()

    def open(self, **place: str) -> None:
        """Open backbone and data ahead of the first trial."""
        self._bench(place)

    def begin(
        self, key: str, trial: Mapping[str, Any], place: Mapping[str, str], known: int | None = None
    ) -> int:
        """Begin a trial, from its newest whole checkpoint if there is one; returns the epochs it has done.

        ``trial`` holds the fields of :class:`~trainables.training.training.TrialConfig`; ``place`` the paths
        ``backbone``,
        ``task``, ``source``, ``teacher`` and ``teacher_task`` (for methods that need them), ``remember`` (an old task)
        and ``checkpoints``, and
        ``unlabelled`` where trials may see no labels of the task. The epochs after the ``known`` ones are told again
        before a new one runs, and the last one in any case.
        """
        file = Path(place["checkpoints"]) / CHECKPOINT if place.get("checkpoints") else None
        self.end(key)
        try:
            training = self._begun(key, trial, place, file)
        except Exception as error:  # noqa: BLE001 - told by the first epoch, as the trial's end
            self._stillborn[key] = _failure_result(error)
            return 0
        self._running[key] = _RunningTrial(training, file)
        done = training.epoch
        first = done - 1 if known is None else min(known, done - 1)
        self._again[key] = [metrics for metrics in training.history if metrics.epoch > first]
        return done

    def epoch(self, key: str) -> dict[str, Any]:
        """Run one epoch; returns its metrics, or how the trial ended (``reason``, ``error``).

        After a resume the first calls repeat epochs that may have been saved and never reported (``again``).
        ``damaged`` in the first result names a checkpoint that the trial could not go on from.

        Raises:
            UnknownTrial: it began in an engine before this one.
        """
        damaged = self._damaged.pop(key, None)
        return {**self._epoch(key), **({"damaged": damaged} if damaged else {})}

    def _epoch(self, key: str) -> dict[str, Any]:
        if key in self._stillborn:
            return {**self._stillborn[key], "epoch": 0, "stages": {}}
        running = self._running.get(key)
        if running is None:
            raise UnknownTrial(key)
        with running.busy:
            return self._train(key, running.training, running.file)

    def _train(self, key: str, training: Training, file: Path | None) -> dict[str, Any]:
        again = self._again.get(key) or ([training.last] if training.done and training.last else [])
        if again:
            metrics = again.pop(0)
            return {**vars(metrics), "done": training.done and not again, "again": True, **_cost(training)}
        try:
            inject_fault(key, training.feed.batch_size)
            metrics = training.run_epoch()
            unsaved = _save(training, file)
        except Exception as error:  # noqa: BLE001 - whatever a model does wrong ends its trial, not the search
            return {**_failure_result(error), "epoch": training.epoch, **_cost(training)}
        return {**vars(metrics), "done": training.done, **_cost(training), **unsaved}

    def end(self, key: str) -> None:
        """Free what a trial held; unknown keys are fine.

        Where the trial's own process has died, its epoch may still be running here: that one is waited for.
        """
        self._stillborn.pop(key, None)
        self._again.pop(key, None)
        self._damaged.pop(key, None)
        running = self._running.pop(key, None)
        if running is not None:
            with running.busy:
                running.training.release()

    def train_fully(
        self, trial: Mapping[str, Any], place: Mapping[str, str], model: str | None
    ) -> dict[str, Any]:
        """Train a configuration to its end, keep its best epoch, and save the served model to ``model``."""
        from search.records.predictions import pack_bits
        from trainables.methods.methods import begin
        from trainables.serving.served_model import save_served_model
        from trainables.training.trial_config import TrialConfig

        training = begin(TrialConfig(**trial), self._bench(place))
        try:
            while not training.done:
                training.run_epoch()
            if training.best is None:
                raise DataError("epochs: expected at least 1")
            if model is not None:
                with self._opening:
                    save_served_model(training, Path(model))
            found = {**vars(training.best), "stages": dict(training.stages), **training.old_task("test")}
            old = training.old_answers("test")
            return found if old is None else {**found, "old_right": tuple(map(pack_bits, old))}
        finally:
            training.release()

    def classify(self, model: str, task: str, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a saved model says of the N raw images of ``split``.

        Returns class indices (N,), the probabilities of those classes (N,), and those of the true ones (N,).
        """
        import keras
        import numpy as np

        from trainables.data.datasets import open_task

        loaded = keras.saving.load_model(model, compile=False, safe_mode=True)
        known = open_task(self._data(task)).split(split)
        labels = np.asarray(known.labels)
        parts = []
        for start in range(0, len(labels), 256):
            said = np.asarray(loaded(known.images[start : start + 256], training=False), np.float32)
            true = np.take_along_axis(said, labels[start : start + 256, None], axis=1)[:, 0]
            parts.append((said.argmax(axis=1), said.max(axis=1), true))
        classes, certain, truth = (np.concatenate(part) for part in zip(*parts, strict=True))
        return classes, certain, truth

    def score(self, place: Mapping[str, str], most: int, seed: int) -> dict[str, Any]:
        """How well a frozen backbone's features suit the task: scores by name
        (:func:`search.study.scoring.score_sample`),
        and the seconds that they took. Looks at no test image.
        """
        from trainables.transferability.feature_sample import extract_features, score_sample, shared_image_ids

        bench, began = self._bench(place), time.monotonic()
        images = shared_image_ids([bench.task], seed)[:most]
        found = score_sample(extract_features(bench.activations, bench.task, images))
        return {"scores": found, "images": len(images), "seconds": time.monotonic() - began}

    def footprint(self, model: str, image_size: tuple[int, int]) -> Footprint:
        """What a saved model costs to serve; only worth something while nothing else runs here."""
        from trainables.serving.footprint import measure_footprint

        return measure_footprint(Path(model), image_size)

    def parameters(self, architectures: Sequence[Mapping[str, Any]]) -> list[int]:
        """How many numbers served models of these :class:`~trainables.serving.architecture_costs.Architecture` have."""
        from trainables.serving.architecture_costs import Architecture, parameter_counts

        return parameter_counts([Architecture(**architecture) for architecture in architectures])

    def paired_times(self, architectures: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        """(architectures, rounds) milliseconds for an image, all asked in turn; takes seconds."""
        from trainables.serving.architecture_costs import Architecture, paired_times

        return paired_times([Architecture(**architecture) for architecture in architectures])

    def compiled(self) -> int:
        """How many programs this engine has compiled."""
        return sum(bench.compiled for bench in self._benches.values())

    def _begun(
        self, key: str, trial: Mapping[str, Any], place: Mapping[str, str], file: Path | None
    ) -> Training:
        """A trial as its newest whole checkpoint has it; damaged ones, or of another trial, are removed."""
        from trainables.methods.methods import begin
        from trainables.training.checkpoints import resumable_checkpoints
        from trainables.training.trial_config import TrialConfig

        bench = self._bench(place)
        training = begin(TrialConfig(**trial), bench)
        for saved in resumable_checkpoints(file) if file else ():
            try:
                training.load(saved)
                break
            except DataError:
                self._damaged[key] = str(saved)
                saved.unlink(missing_ok=True)
                training.release()
                training = begin(TrialConfig(**trial), bench)
        return training

    def _bench(self, place: Mapping[str, str]) -> Workbench:
        from trainables.training.workbench import Workbench

        source, teacher = place.get("source", ""), place.get("teacher", "")
        remember = place.get("remember", "")
        key = place["backbone"], place["task"], source, place.get("unlabelled", ""), teacher, remember
        learned = {"backbone": teacher, "task": place.get("teacher_task", "")}
        with self._opening:
            if key not in self._benches:
                self._benches[key] = Workbench.open(
                    Path(place["backbone"]),
                    self._data(place["task"]),
                    self._cache,
                    self._reuse,
                    self._numerics,
                    source=(lambda: self._data(source)) if source else None,
                    unlabelled=bool(place.get("unlabelled")),
                    remember=(lambda: self._data(remember)) if remember else None,
                    teacher=(lambda: self._bench(learned)) if teacher else None,
                )
            return self._benches[key]

    @property
    def _cache(self) -> Path | None:
        from trainables.activations.location import default_directory

        return default_directory(wanted=self._reuse.cache)

    def _data(self, task: str) -> Path:
        """Where to read a task."""
        from trainables.data.node_copy import local_copy

        return local_copy(Path(task), self._cache) if self._copies else Path(task)


def _cost(training: Training) -> dict[str, Any]:
    """Where a trial's time went so far, and what it found, computed and compiled."""
    return {"stages": dict(training.stages), "cost": training.cost()}


def _save(training: Training, file: Path | None) -> dict[str, str]:
    """Write a checkpoint; a disk that takes none ends no trial, but is told of (``unsaved``)."""
    try:
        if file is not None:
            training.save(file)
    except OSError as error:
        return {"unsaved": error.strerror or str(error)}
    return {}


def _failure_result(error: Exception) -> dict[str, Any]:
    """How a trial that raised ``error`` ended."""
    if isinstance(error, MemoryError):  # outside of an epoch's steps, where it is told from others already
        error = OutOfMemory(f"no memory left: {error or 'MemoryError'}")
    if isinstance(error, TrialError):
        return {"done": True, "reason": error.reason, "error": str(error)}
    return {"done": True, "reason": "crashed", "error": traceback.format_exc()}


def quiet_tensorflow(verbose: bool) -> None:
    """Keep TensorFlow's start-up messages off the screen; call before it is imported."""
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")

"""The engine: one process per machine that owns TensorFlow, the data and everything trials share.

Plain Python, no Ray: :mod:`search.trial` puts it behind a Ray actor. Trials run in its threads, an epoch at a
time; TensorFlow is imported once, data is loaded once, a shape is compiled once, for all trials of the machine.
"""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.errors import DataError, TrialError
from trainables.numerics import choose_numerics
from trainables.reuse import Reuse

if TYPE_CHECKING:
    from trainables.footprint import Footprint
    from trainables.training import Training
    from trainables.workbench import Workbench

CHECKPOINT = "checkpoint.npz"


class Engine:
    """Runs the trials of one machine.

    Args:
        threads: processor cores that TensorFlow may use.
        verbose: let TensorFlow print what it likes.
        reuse: what trials take over from each other; everything if not given.
        numerics: ``precision`` and ``jit`` (:func:`trainables.numerics.choose_numerics`); auto if not given.
    """

    def __init__(
        self,
        threads: int,
        verbose: bool = False,
        reuse: Reuse | None = None,
        numerics: Mapping[str, str] | None = None,
    ) -> None:
        quiet_tensorflow(verbose)
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow runs already in this process: its threads stay
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
        self._reuse = reuse or Reuse()
        wanted = numerics or {}
        self._numerics = choose_numerics(wanted.get("precision", "auto"), wanted.get("jit", "auto"))
        self._opening = threading.Lock()
        self._benches: dict[tuple[str, str], Workbench] = {}
        self._running: dict[str, tuple[Training, Path | None]] = {}
        self._resumed: set[str] = set()
        self._stillborn: dict[str, dict[str, Any]] = {}

    def prepare_backbone(self, spec: Mapping[str, Any], path: str) -> dict[str, Any]:
        """Load a backbone, save it as one normalised file at ``path`` and describe it."""
        from trainables.backbones import Backbone, BackboneSpec, load

        file = Path(path)
        backbone = Backbone.open(file) if file.exists() else load(BackboneSpec(**spec))
        if not file.exists():
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

    def open(self, backbone: str, task: str) -> None:
        """Open backbone and data ahead of the first trial."""
        self._bench(backbone, task)

    def begin(self, key: str, trial: Mapping[str, Any], place: Mapping[str, str]) -> int:
        """Begin a trial, from its checkpoint if there is one; returns the epochs it has done.

        ``trial`` holds the fields of :class:`~trainables.training.TrialConfig`; ``place`` the paths ``backbone``,
        ``task`` and ``checkpoints``.
        """
        from trainables.methods import begin
        from trainables.training import TrialConfig

        self.end(key)
        try:
            training = begin(TrialConfig(**trial), self._bench(place["backbone"], place["task"]))
        except Exception as error:  # noqa: BLE001 - told by the first epoch, as the trial's end
            self._stillborn[key] = _ended(error)
            return 0
        file = Path(place["checkpoints"]) / CHECKPOINT if place.get("checkpoints") else None
        self._running[key] = training, file
        if file is not None and file.exists():
            try:
                training.load(file)
                self._resumed.add(key)
            except DataError:
                file.unlink()  # damaged: the trial starts over, under its number
                training.release()
                training = begin(TrialConfig(**trial), self._bench(place["backbone"], place["task"]))
                self._running[key] = training, file
        return training.epoch

    def epoch(self, key: str) -> dict[str, Any]:
        """Run one epoch; returns its metrics, or how the trial ended (``reason``, ``error``).

        After a resume the first call repeats the checkpoint's epoch: it may have been saved and never reported.
        """
        if key in self._stillborn:
            return {**self._stillborn[key], "epoch": 0, "stages": {}}
        training, file = self._running[key]
        if key in self._resumed or training.done:
            self._resumed.discard(key)
            return {**vars(training.last), "done": training.done, **_cost(training)}
        try:
            metrics = training.run_epoch()
            unsaved = _save(training, file)
        except Exception as error:  # noqa: BLE001 - whatever a model does wrong ends its trial, not the search
            return {**_ended(error), "epoch": training.epoch, **_cost(training)}
        return {**vars(metrics), "done": training.done, **_cost(training), **unsaved}

    def end(self, key: str) -> None:
        """Free what a trial held; unknown keys are fine."""
        self._stillborn.pop(key, None)
        self._resumed.discard(key)
        held = self._running.pop(key, None)
        if held is not None:
            held[0].release()

    def train_fully(
        self, trial: Mapping[str, Any], place: Mapping[str, str], model: str | None
    ) -> dict[str, Any]:
        """Train a configuration to its end, keep its best epoch, and save the served model to ``model``."""
        from trainables.methods import begin
        from trainables.serving import export
        from trainables.training import TrialConfig

        training = begin(TrialConfig(**trial), self._bench(place["backbone"], place["task"]))
        try:
            while not training.done:
                training.run_epoch()
            if training.best is None:
                raise DataError("epochs: expected at least 1")
            if model is not None:
                with self._opening:
                    export(training, Path(model))
            return {**vars(training.best), "stages": dict(training.stages)}
        finally:
            training.release()

    def classify(self, model: str, task: str, split: str) -> tuple[list[int], list[float]]:
        """What a saved model says of the raw images of ``split``: (class indices, their probabilities)."""
        import keras

        from trainables.datasets import open_task

        loaded = keras.saving.load_model(model, compile=False, safe_mode=True)
        images = open_task(Path(task)).split(split).images
        classes: list[int] = []
        certain: list[float] = []
        for start in range(0, len(images), 256):
            probabilities = loaded(images[start : start + 256], training=False).numpy()
            classes += probabilities.argmax(axis=1).tolist()
            certain += probabilities.max(axis=1).tolist()
        return classes, certain

    def footprint(self, model: str, image_size: tuple[int, int]) -> Footprint:
        """What a saved model costs to serve; only worth something while nothing else runs here."""
        from trainables.footprint import measure_footprint

        return measure_footprint(Path(model), image_size)

    def compiled(self) -> int:
        """How many programs this engine has compiled."""
        return sum(bench.compiled for bench in self._benches.values())

    def _bench(self, backbone: str, task: str) -> Workbench:
        from trainables.cache.place import default_directory
        from trainables.workbench import Workbench

        with self._opening:
            if (backbone, task) not in self._benches:
                cache = default_directory(wanted=self._reuse.cache)
                self._benches[backbone, task] = Workbench.open(
                    Path(backbone), Path(task), cache, self._reuse, self._numerics
                )
            return self._benches[backbone, task]


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


def _ended(error: Exception) -> dict[str, Any]:
    """How a trial that raised ``error`` ended."""
    if isinstance(error, TrialError):
        return {"done": True, "reason": error.reason, "error": str(error)}
    return {"done": True, "reason": "crashed", "error": traceback.format_exc()}


def quiet_tensorflow(verbose: bool) -> None:
    """Keep TensorFlow's start-up messages off the screen; call before it is imported."""
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
        os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")

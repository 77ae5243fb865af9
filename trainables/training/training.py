"""The training loop that all transfer methods share.

A :class:`Training` takes a :class:`~trainables.training.trial_config.TrialConfig` and a
:class:`~trainables.training.workbench.Workbench`, and trains one epoch at each call of :meth:`Training.run_epoch`. It
does not decide when to stop: Ray Tune, a test or the confirmation of the winner does. What differs between transfer
methods is in :class:`~trainables.training.method_hooks.MethodHooks`; checkpoints are in
:mod:`trainables.training.resuming`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.activations.reuse_policy import ReuseDecision
from trainables.batched_heads.program import HeadProgram
from trainables.batched_heads.state import HeadEpoch
from trainables.compiled.head import head_shapes, initial_weights
from trainables.compiled.program import Program
from trainables.compiled.shapes import Hyperparameters, ProgramShape
from trainables.cost_account import CostAccount
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import Diverged, OutOfMemory
from trainables.training.method_hooks import MethodHooks, TrainingPlan
from trainables.training.old_task import OldTaskScorer
from trainables.training.schedule import block_rate_ratios, learning_rates, trainable_blocks
from trainables.training.trial_config import TrialConfig
from trainables.training.trial_cost import TrialCost
from trainables.training.workbench import Workbench

_SEED_MASK = 0x7FFFFFFF
"""Seeds of TensorFlow's stateless random operations are int32 and must not be negative."""


@dataclass
class Training(MethodHooks):
    """One trial in progress. Call :meth:`release` when it is over, also after an error.

    Attributes:
        config: the trial's configuration.
        bench: backbone, data and programs that the trials of this process share.
        epoch: number of epochs that have run.
        best: metrics of the best epoch so far, by ``config.metric``; of the last one if ``config.keep`` says so.
        last: metrics of the last epoch.
        best_weights: weights of the best epoch: those of the trained blocks, then those of the head.
        history: metrics of all epochs so far.
        account: seconds by stage of work, and what was computed, reused and compiled.
        depth: how many blocks train, counted from the top.
        feed: the data of the trial.
        program: the compiled epoch, which holds the present weights.
        old_task: the accuracy on a task that the backbone shall not forget.
    """

    config: TrialConfig
    bench: Workbench
    epoch: int = 0
    best: EpochMetrics | None = None
    last: EpochMetrics | None = None
    best_weights: list[np.ndarray] = field(default_factory=list)
    history: list[EpochMetrics] = field(default_factory=list)
    account: CostAccount = field(default_factory=CostAccount)

    def __post_init__(self) -> None:
        self.old_task = OldTaskScorer(self.bench, self.account)
        with self.account.timing("start"):
            self._start()

    def _start(self) -> None:
        self._plan = plan = self.plan()
        self.depth = plan.depth
        self.feed = self.make_feed(plan.depth)
        self._units = int(self.config.number("head_units"))
        self.program = self._acquire_program(self._shape(plan))
        shapes = head_shapes(self.bench.features, self._units, len(self.bench.task.classes))
        with guarded():
            head = initial_weights(shapes, self.config.seed)
            self.program.start(plan.suffix_weights, head, self.config.seed)

    def run_epoch(self) -> EpochMetrics:
        """Train one epoch, evaluate it on the validation split, and return its metrics.

        Raises:
            Diverged: the training or validation loss is no longer a finite number.
            OutOfMemory: the device or the host has no memory left.
        """
        # A resumed trial has a number of epochs above 0 here: its checkpoint holds what this call had set up.
        if self.epoch == 0:
            with guarded():
                self.before_first_epoch()
        began = time.perf_counter()
        self.epoch += 1
        with guarded():
            train_loss, val_loss, val_accuracy = self._train_and_evaluate()
            self.after_epoch()
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise Diverged(
                f"epoch {self.epoch}: train_loss={train_loss}, val_loss={val_loss}; expected finite numbers"
            )
        metrics = EpochMetrics(self.epoch, val_accuracy, val_loss, train_loss, time.perf_counter() - began)
        self.last = metrics
        self.history.append(metrics)
        if self.config.keep == "last" or metrics.better_than(self.best, self.config.metric):
            # Copies, because the next epoch overwrites the weights in the program.
            self.best, self.best_weights = metrics, self.program.read_weights()
            self.on_best_epoch()
        if self.done:
            with guarded():
                self.old_task_metrics("validation")  # scored now, so that cost() only reads it
        return metrics

    @property
    def done(self) -> bool:
        """Whether all epochs have run."""
        return self.epoch >= min(self.config.epochs, self.config.stop_epoch or self.config.epochs)

    def evaluate(self, split: str) -> tuple[float, float]:
        """Return (mean cross-entropy, accuracy) on ``split`` with the present weights."""
        labels = self.bench.task.split(split).labels.astype(np.int32)
        loss, correct, seen = 0.0, 0, 0
        for chunk in self.feed.chunks(split):
            with self.account.timing("evaluate"):
                chunk_loss, right, _ = self.program.evaluate(chunk, labels[seen : seen + len(chunk)])
            loss, correct, seen = loss + chunk_loss, correct + right, seen + len(chunk)
        return loss / seen, correct / seen

    def predict(self, split: str) -> np.ndarray:
        """Return probabilities (N, classes) of ``split`` under the best epoch's weights.

        The best epoch's weights become the present ones.
        """
        self.program.write(self.best_weights)
        return self.predict_current(split)

    def predict_current(self, split: str) -> np.ndarray:
        """Return probabilities (N, classes) of ``split`` under the present weights."""
        return np.concatenate([self.predict_inputs(chunk) for chunk in self.feed.chunks(split)])

    def predict_inputs(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities (N, classes) of images or of activations at the cut, under the present weights."""
        return self.program.evaluate(inputs, np.zeros(len(inputs), np.int32))[2]

    def release(self) -> None:
        """Hand the compiled program over to the next trial."""
        self.bench.release_program(self.program)

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds by stage of work (:data:`trainables.cost_account.STAGES`)."""
        return self.account.stage_seconds

    @property
    def decision(self) -> ReuseDecision:
        """Whether this trial reads kept activations, and the estimates behind that decision."""
        return self.feed.decision

    def cost(self) -> TrialCost:
        """Return what this trial reused, computed and compiled so far."""
        # A copy of the counts, because the account goes on counting.
        old = self.old_task_metrics("validation")
        return TrialCost(
            self.decision,
            replace(self.account.counts),
            old_accuracy_before=old.get("old_accuracy_before"),
            old_accuracy=old.get("old_accuracy"),
        )

    def old_task_metrics(self, split: str) -> dict[str, float]:
        """Return the accuracy on the old task's ``split`` before and after training.

        The keys are ``old_accuracy_before`` and ``old_accuracy``. The result is empty without an old task, and before
        all epochs have run.
        """
        correct = self.old_task_correct(split)
        if correct is None:
            return {}
        before, after = correct
        return {"old_accuracy_before": float(before.mean()), "old_accuracy": float(after.mean())}

    def old_task_correct(self, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Return whether each image (N,) of the old task's ``split`` is classified correctly before and after training.

        None without an old task, and before all epochs have run.
        """
        if not self.old_task.available or not self.done or self.best is None:
            return None
        return self.old_task.correct(split, self.depth, self.best_weights)

    def restore_feed(self, described: Mapping[str, Any]) -> None:
        """Make the trial see its images as :meth:`~trainables.training.feed.DataFeed.describe` recorded it earlier.

        Raises:
            ValueError, KeyError, TypeError: the record is of another trial.
        """
        decided = self.feed.decision.reuse
        self.feed.restore(described)
        if self.feed.decision.reuse != decided:
            # The program was compiled for the other kind of input: images instead of activations, or the reverse.
            shape = self.program.shape
            self.bench.release_program(self.program)
            self.program = self._acquire_program(shape)

    def _shape(self, plan: TrainingPlan) -> ProgramShape:
        adapt = plan.adapt and plan.depth > 0  # without trained blocks there is no BatchNorm to adapt
        momentum = _batch_norm_momentum(self.feed.steps) if adapt else 1.0
        return ProgramShape(
            depth=plan.depth,
            classes=len(self.bench.task.classes),
            batch_size=self.feed.batch_size,
            exact=self.feed.exact,
            adapt=adapt,
            momentum=momentum,
            precision=self.bench.numerics.precision,
            jit=self.bench.numerics.jit,
            head_units=self._units if self.bench.numerics.jit else None,
            loss=self.training_loss(),
            gradual=plan.unfreezing_share > 0,
            penalised=plan.penalty is not None,
        )

    def _acquire_program(self, shape: ProgramShape, train_kind: str | None = None) -> Any:
        """Return a program of ``shape``, compiled if necessary.

        Other trials may compile at the same time, and only one of them can: that time is charged to ``wait``.
        """
        default_kind, evaluate_kind = self.feed.input_kinds
        with self.account.timing("wait"):
            program, seconds = self.bench.acquire_program(
                shape, self._units, train_kind or default_kind, evaluate_kind
            )
            self.account.charge("compile", seconds)
        # The penalty is state of the program and not part of its shape: a program that was taken over holds the last
        # trial's.
        if self._plan.penalty is not None and isinstance(program, Program):
            program.set_penalty(self._plan.penalty)
        self.account.counts.add(programs_compiled=int(seconds > 0))
        return program

    def _train_and_evaluate(self) -> tuple[float, float, float]:
        """Run one epoch; return (training loss, validation loss, validation accuracy)."""
        if isinstance(self.program, HeadProgram):
            found = self.feed.activation_epoch(self.epoch)
            if found is not None:
                return self._run_batched_head(self.program, *found)
            self.program = self._leave_batched_heads(self.program)
        return self._train_epoch(self.program), *self.evaluate("validation")

    def _run_batched_head(
        self, program: HeadProgram, activations: np.ndarray, indices: np.ndarray
    ) -> tuple[float, float, float]:
        """Train and evaluate in one batch with other trials that only train such a head."""
        splits = self.bench.task.split("train"), self.bench.task.split("validation")
        training, validation = (split.labels.astype(np.int32) for split in splits)
        epoch = HeadEpoch(
            program.state,
            activations,
            indices,
            training,
            self._rates(),
            self._hyperparameters(),
            self._dropout_seed(),
        )
        # Read before waiting, so that reading is charged to this trial's prefix and not to the batch.
        chunks = list(self.feed.chunks("validation"))
        # The call also waits for the epochs of other trials. Only this trial's share of the batch is charged to work.
        with self.account.timing("wait"):
            result = program.run(epoch, chunks, validation)
            self.account.charge("suffix", result.train_seconds)
            self.account.charge("evaluate", result.evaluate_seconds)
        self.account.counts.add(epochs_together=int(result.batch_size > 1))
        return result.loss / self.feed.steps, result.val_loss, result.val_accuracy

    def _leave_batched_heads(self, head: HeadProgram) -> Program:
        """Return a program of this trial's own with the state of ``head``.

        Heads train in one batch on kept activations only. If the cache cannot keep them any longer, the trial goes on
        alone, on images.
        """
        program: Program = self._acquire_program(head.shape, self.feed.image_kind)
        program.write(*head.read())
        self.bench.release_program(head)
        return program

    def _train_epoch(self, program: Program) -> float:
        """Train one epoch; return its mean loss."""
        steps = self.feed.steps
        rates, hyperparameters = self._rates(), self._hyperparameters()
        scalars, example_inputs = self.loss_scalars(self.epoch), self.example_inputs(self.epoch)
        total, first = 0.0, 0
        for batches in self.feed.batches(self.epoch, example_inputs):
            with self.account.timing("suffix"):
                part = rates[first : first + len(batches.labels)]
                own = None if scalars is None else scalars[first : first + len(part)]
                total += program.train(
                    batches, part, self._block_ratios(), hyperparameters, self._dropout_seed(first), own
                )
                first += len(part)
        return total / steps

    def _dropout_seed(self, step: int = 0) -> tuple[int, int]:
        """The seed of dropout masks from ``step`` of this epoch on: (trial, steps since the first epoch)."""
        return self.config.seed & _SEED_MASK, ((self.epoch - 1) * self.feed.steps + step) & _SEED_MASK

    def _rates(self) -> np.ndarray:
        config = self.config
        return learning_rates(config.number("learning_rate"), self.epoch, config.epochs, self.feed.steps)

    def _block_ratios(self) -> np.ndarray:
        """Learning rates of the trained blocks in this epoch as shares of the head's, (depth,), bottom first."""
        config = self.config
        ratio, decay = config.number("backbone_lr_ratio", 1.0), config.number("layer_lr_decay", 1.0)
        training = trainable_blocks(self.depth, self._plan.unfreezing_share, self.epoch, config.epochs)
        return block_rate_ratios(self.depth, ratio, decay, training)

    def _hyperparameters(self) -> Hyperparameters:
        config = self.config
        return Hyperparameters(
            weight_decay=config.number("weight_decay"),
            dropout=config.number("dropout"),
            label_smoothing=config.number("label_smoothing"),
            strength=self.feed.strength,
            flip=float(self.feed.flip),
        )


@contextmanager
def guarded() -> Iterator[None]:
    """Turn TensorFlow's and Python's out-of-memory errors into :class:`OutOfMemory`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise OutOfMemory(
            f"no memory left: {str(error).splitlines()[0] if str(error) else 'MemoryError'}"
        ) from error


def _batch_norm_momentum(steps: int) -> float:
    """Momentum with which BatchNorm statistics settle within about two epochs of ``steps``.

    Keras' default of 0.99 needs hundreds of steps: on small data sets the statistics would still be the pretrained ones
    when the trial ends.
    """
    return min(0.99, max(0.5, 1.0 - 1.0 / (2 * steps)))

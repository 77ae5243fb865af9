"""A trial's training, one epoch at a time.

:class:`Training` is the loop that every method shares; a method says which blocks train and from which weights
(:meth:`Training.plan`). It takes a configuration and a :class:`~trainables.training.workbench.Workbench` and yields
metrics; whoever runs it (Ray Tune, a test, the final confirmation) decides when to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.activations.reuse_policy import ReuseDecision
from trainables.batched_heads.program import HeadProgram
from trainables.batched_heads.state import HeadEpoch
from trainables.compiled.head import head_shapes, initial_weights
from trainables.compiled.l2sp import WeightPull
from trainables.compiled.objective import TrainingLoss
from trainables.compiled.program import Program
from trainables.compiled.shapes import Hyperparameters, ProgramShape
from trainables.cost_account import CostAccount
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import DataError, Diverged, OutOfMemory, UsageError
from trainables.training.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from trainables.training.feed import DataFeed
from trainables.training.old_task import fitted_old_head, old_correct
from trainables.training.schedule import block_rate_ratios, learning_rates, trainable_blocks
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench


@dataclass(frozen=True)
class TrainingPlan:
    """What a method decides: how deep to train, from which weights, and how BatchNorm behaves.

    ``thawing`` is the share of the epochs over which the blocks begin to train one by one, from the top; ``pull`` draws
    them back to some weights.
    """

    depth: int
    suffix_weights: list[np.ndarray]
    adapt: bool
    thawing: float = 0.0
    pull: WeightPull | None = None


@dataclass
class Training:
    """One trial in progress. Use :meth:`release` when it is over, whatever happened."""

    config: TrialConfig
    bench: Workbench
    epoch: int = 0
    best: EpochMetrics | None = None
    last: EpochMetrics | None = None
    best_weights: list[np.ndarray] = field(default_factory=list)
    history: list[EpochMetrics] = field(default_factory=list)
    """Of all epochs so far."""
    account: CostAccount = field(default_factory=CostAccount)
    _old_answers: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.account.timing("start"):
            self._start()

    needs_labels = True
    """Whether the method can do nothing with a target whose labels trials may not see."""

    def _start(self) -> None:
        if self.needs_labels and self.bench.unlabelled:
            raise UsageError(
                f"method: {self.config.method!r} expected a target with labels, received one whose labels are hidden"
            )
        self._plan = plan = self.plan()
        self.depth = plan.depth
        self.feed = self.make_feed(plan.depth)
        self._units = int(self.config.number("head_units"))
        self.program: Program | HeadProgram = self._taken(self._shape(plan))
        arrays = head_shapes(self.bench.features, self._units, len(self.bench.task.classes))
        with guarded():
            head = initial_weights(arrays, self.config.seed)
            self.program.start(plan.suffix_weights, head, self.config.seed)

    def plan(self) -> TrainingPlan:
        """Which blocks train, and from which weights. Each method has its own."""
        raise TypeError(f"{type(self).__name__} must say what it trains")

    def make_feed(self, depth: int) -> DataFeed:
        """What the trial sees."""
        return DataFeed(self.bench, depth, **self.seeing)

    @property
    def seeing(self) -> dict[str, Any]:
        """Arguments of :class:`~trainables.training.feed.DataFeed` that follow from the configuration."""
        return {
            "epochs": self.config.epochs,
            "batch_size": self.config.batch_size,
            "seed": self.config.seed,
            "strength": self.config.number("augmentation_strength"),
            "flip": bool(self.config.params.get("horizontal_flip", False)),
            "live": self.config.live,
            "account": self.account,
        }

    def objective(self) -> TrainingLoss | None:
        """What a step minimises; None is the mean cross-entropy."""
        return None

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """What the objective asks for beside the images of an epoch (from 1): by name, one row (N, …) a training
        image.
        """
        return {}

    def numbers(self, epoch: int) -> np.ndarray | None:
        """The objective's numbers in each step of an epoch (from 1): (steps, N) float32; None if it asks for none."""
        return None

    def prepare(self) -> None:
        """What a method does before the first epoch, and does not do again when a trial is resumed."""

    def after_epoch(self) -> None:
        """What a method does after each epoch, with its weights."""

    def keep_best(self) -> None:
        """What a method keeps of its best epoch, besides the model's weights."""

    def state(self) -> list[np.ndarray]:
        """What a method must keep from one epoch to the next, besides the model and its optimizers."""
        return []

    state_size = 0
    """How many arrays :meth:`state` returns."""

    def restore(self, state: list[np.ndarray]) -> None:
        """Take what :meth:`state` returned."""

    def run_epoch(self) -> EpochMetrics:
        """Train one epoch and evaluate it.

        Raises:
            Diverged: the loss is no longer a finite number.
            OutOfMemory: the device or the host has no memory left.
        """
        if self.epoch == 0:
            with guarded():
                self.prepare()
        began = time.perf_counter()
        self.epoch += 1
        with guarded():
            train_loss, val_loss, val_accuracy = self._epoch()
            self.after_epoch()
        if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
            raise Diverged(
                f"epoch {self.epoch}: train_loss={train_loss}, val_loss={val_loss}; expected finite numbers"
            )
        metrics = EpochMetrics(self.epoch, val_accuracy, val_loss, train_loss, time.perf_counter() - began)
        self.last = metrics
        self.history.append(metrics)
        if metrics.better_than(self.best, self.config.metric):
            self.best, self.best_weights = metrics, self.program.read_weights()
            self.keep_best()
        if self.done:
            with guarded():
                self.old_task("validation")
        return metrics

    @property
    def done(self) -> bool:
        """Whether all epochs have run."""
        return self.epoch >= self.config.epochs

    def evaluate(self, split: str) -> tuple[float, float]:
        """(mean cross-entropy, accuracy) on ``split`` with the present weights."""
        labels = self.bench.task.split(split).labels.astype(np.int32)
        loss, correct, seen = 0.0, 0, 0
        for chunk in self.feed.chunks(split):
            with self.account.timing("evaluate"):
                chunk_loss, right, _ = self.program.evaluate(chunk, labels[seen : seen + len(chunk)])
            loss, correct, seen = loss + chunk_loss, correct + right, seen + len(chunk)
        return loss / seen, correct / seen

    def predict(self, split: str) -> np.ndarray:
        """Probabilities (N, classes) of ``split`` under the best epoch's weights, which become the present ones."""
        self.program.write(self.best_weights)
        return self.answers(split)

    def answers(self, split: str) -> np.ndarray:
        """Probabilities (N, classes) of ``split`` with the present weights."""
        return np.concatenate([self.probabilities(chunk) for chunk in self.feed.chunks(split)])

    def probabilities(self, inputs: np.ndarray) -> np.ndarray:
        """Probabilities (N, classes) of images or activations at the cut."""
        return self.program.evaluate(inputs, np.zeros(len(inputs), np.int32))[2]

    def save(self, path: Path) -> None:
        """Write a checkpoint: unfrozen blocks, head, optimizers, best epoch; never the frozen prefix."""
        with self.account.timing("checkpoint"):
            present = self.best_weights if self.best is self.last else self.program.read_weights()
            best, last = (vars(m) if m else None for m in (self.best, self.last))
            state = Checkpoint(
                self.epoch,
                present,
                [*self.program.read_optimizer(), *self.state()],
                self.best_weights,
                best,
                last,
                seeing=self.feed.describe(),
                account=self.account.describe(),
                history=[vars(metrics) for metrics in self.history],
            )
            write_checkpoint(path, state)

    def load(self, path: Path) -> None:
        """Go on exactly where :meth:`save` was called, with images seen as they were then.

        Activations that were kept and no longer can be are computed for each epoch, with the same bits. Only where
        the memory can't hold those of one epoch either, the prefix runs in the trial's own steps, with differences
        of float32's last bits.

        Raises:
            DataError: the file is missing, damaged, of another format or of another trial. The training is of no use
                then: release it, and begin another.
        """
        checkpoint = read_checkpoint(path)
        try:
            if checkpoint.seeing is not None:
                self._see_as(checkpoint.seeing)
            if checkpoint.account is not None:
                self.account.carry_over(checkpoint.account)
            own = self._own_state(checkpoint.optimizer)
            self.program.write(
                checkpoint.weights, checkpoint.optimizer[: len(checkpoint.optimizer) - len(own)]
            )
            self.restore(own)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"checkpoint {path}: expected one of this trial, received {error}") from error
        self.epoch = checkpoint.epoch
        self.best_weights = checkpoint.best_weights
        self.best, self.last = (
            EpochMetrics(**m) if m else None  # type: ignore[arg-type]
            for m in (checkpoint.best, checkpoint.last)
        )
        told = checkpoint.history if checkpoint.history is not None else [checkpoint.last or {}]
        self.history = [EpochMetrics(**m) for m in told if m]  # type: ignore[arg-type]

    def _own_state(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The last of a checkpoint's ``arrays``: what :meth:`state` gave it."""
        return arrays[len(arrays) - self.state_size :]

    def release(self) -> None:
        """Hand the compiled program to the next trial."""
        self.bench.give_back(self.program)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage of work (:data:`trainables.cost_account.STAGES`)."""
        return self.account.stages

    def cost(self) -> dict[str, float | str | bool]:
        """Whether activations were kept and why, and what this trial found, computed and compiled: JSON values."""
        return {**self.decision.describe(), **asdict(self.account.counts), **self.old_task("validation")}

    def old_task(self, split: str) -> dict[str, float]:
        """Accuracy on an old task's ``split`` before and after, once all epochs have run; empty without an old task."""
        found = self.old_answers(split)
        if found is None:
            return {}
        before, after = found
        return {"old_accuracy_before": float(before.mean()), "old_accuracy": float(after.mean())}

    def old_answers(self, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Whether each image (N,) of an old task's ``split`` was told right before, and is after; None where
        :meth:`old_task` is empty.
        """
        if self.bench.open_remembered is None or not self.done or self.best is None:
            return None
        if split not in self._old_answers:
            head, bench, account = fitted_old_head(self.bench, self.account), self.bench, self.account
            kept = getattr(self, "kept_head", None) or head
            self._old_answers[split] = (
                old_correct(bench, head, 0, None, split, account),
                old_correct(bench, kept, self.depth, self.best_weights, split, account),
            )
        return self._old_answers[split]

    @property
    def decision(self) -> ReuseDecision:
        """Whether this trial reads activations that are kept, and the numbers behind that."""
        return self.feed.decision

    def _shape(self, plan: TrainingPlan) -> ProgramShape:
        adapt = plan.adapt and plan.depth > 0  # where nothing is unfrozen there is nothing to adapt
        momentum = _momentum(self.feed.steps) if adapt else 1.0
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
            objective=self.objective(),
            gradual=plan.thawing > 0,
            pulled=plan.pull is not None,
        )

    def _see_as(self, described: Mapping[str, Any]) -> None:
        decided = self.feed.decision.reuse
        self.feed.follow(described)
        if self.feed.decision.reuse != decided:
            shape = self.program.shape
            self.bench.give_back(self.program)
            self.program = self._taken(shape)

    def _epoch(self) -> tuple[float, float, float]:
        """Train and evaluate: (training loss, validation loss, validation accuracy)."""
        if isinstance(self.program, HeadProgram):
            rows = self.feed.rows(self.epoch)
            if rows is not None:
                return self._epoch_of_head(self.program, *rows)
            self.program = self._on_images(self.program)
        return self._train_epoch(self.program), *self.evaluate("validation")

    def _epoch_of_head(
        self, program: HeadProgram, source: np.ndarray, indices: np.ndarray
    ) -> tuple[float, float, float]:
        """Beside the other trials that only train such a head."""
        splits = self.bench.task.split("train"), self.bench.task.split("validation")
        training, validation = (split.labels.astype(np.int32) for split in splits)
        seed = self.config.seed & 0x7FFFFFFF, ((self.epoch - 1) * self.feed.steps) & 0x7FFFFFFF
        epoch = HeadEpoch(program.state, source, indices, training, self._rates(), self._hyper(), seed)
        chunks = list(self.feed.chunks("validation"))
        with self.account.timing("wait"):
            ran = program.run(epoch, chunks, validation)
            self.account.spend("suffix", ran.train_seconds)
            self.account.spend("evaluate", ran.evaluate_seconds)
        self.account.counts.add(epochs_together=int(ran.together > 1))
        return ran.loss / self.feed.steps, ran.val_loss, ran.val_accuracy

    def _on_images(self, head: HeadProgram) -> Program:
        """A program of this trial's own that goes on where ``head`` is: its activations are kept no longer."""
        program: Program = self._taken(head.shape, self.feed.images_kind)
        program.write(*head.read())
        self.bench.give_back(head)
        return program

    def _rates(self) -> np.ndarray:
        config = self.config
        return learning_rates(config.number("learning_rate"), self.epoch, config.epochs, self.feed.steps)

    def _ratios(self) -> np.ndarray:
        """Of the unfrozen blocks' learning rates to the head's, this epoch; (depth,), bottom first."""
        config = self.config
        ratio, decay = config.number("backbone_lr_ratio", 1.0), config.number("layer_lr_decay", 1.0)
        return block_rate_ratios(
            self.depth,
            ratio,
            decay,
            trainable_blocks(self.depth, self._plan.thawing, self.epoch, config.epochs),
        )

    def _hyper(self) -> Hyperparameters:
        config = self.config
        return Hyperparameters(
            weight_decay=config.number("weight_decay"),
            dropout=config.number("dropout"),
            label_smoothing=config.number("label_smoothing"),
            strength=self.feed.strength,
            flip=float(self.feed.flip),
        )

    def _train_epoch(self, program: Program) -> float:
        config, steps = self.config, self.feed.steps
        rates, hyper = self._rates(), self._hyper()
        numbers, beside = self.numbers(self.epoch), self.beside(self.epoch)
        total, first = 0.0, 0
        for batches in self.feed.batches(self.epoch, beside):
            with self.account.timing("suffix"):
                part = rates[first : first + len(batches.labels)]
                seed = (config.seed & 0x7FFFFFFF, ((self.epoch - 1) * steps + first) & 0x7FFFFFFF)
                own = None if numbers is None else numbers[first : first + len(part)]
                total += program.train(batches, part, self._ratios(), hyper, seed, own)
                first += len(part)
        return total / steps

    def _taken(self, shape: ProgramShape, train: str | None = None) -> Any:
        """A program, compiled if need be; what passes beside is time for which others compile."""
        kinds = self.feed.kinds
        with self.account.timing("wait"):
            program, seconds = self.bench.take(shape, self._units, train or kinds[0], kinds[1])
            self.account.spend("compile", seconds)
        if self._plan.pull is not None and isinstance(program, Program):
            program.pull(self._plan.pull)
        self.account.counts.add(programs_compiled=int(seconds > 0))
        return program


@contextmanager
def guarded() -> Iterator[None]:
    """Turn TensorFlow's and Python's ways of running out of memory into :class:`OutOfMemory`."""
    try:
        yield
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        raise OutOfMemory(
            f"no memory left: {str(error).splitlines()[0] if str(error) else 'MemoryError'}"
        ) from error


def _momentum(steps: int) -> float:
    """Momentum of BatchNorm statistics that settles within about two epochs of ``steps``."""
    return min(0.99, max(0.5, 1.0 - 1.0 / (2 * steps)))

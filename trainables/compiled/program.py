"""The compiled epoch: everything that trials of one shape share.

A :class:`Program` owns the trainable copy of a backbone's top blocks, a head, their optimizers, and compiled functions
(train, evaluate) that are traced once for each kind of input: images (uint8), which go through the frozen prefix first,
or activations at the cut (float16 or float32). Learning rates, decay, dropout, smoothing and
augmentation strength are arguments, never constants of the graph, and the head's width is a size of its variables, so
the next trial of the same :class:`ProgramShape` traces nothing: it only assigns its weights.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.activations.stages import PrefixStages
from trainables.backbones.backbone import Backbone
from trainables.compiled.adam import Adam
from trainables.compiled.head import Head
from trainables.compiled.l2sp import WeightPull
from trainables.compiled.loss_scale import LossScale
from trainables.compiled.objective_state import LossState
from trainables.compiled.resizable_head import ResizableHead
from trainables.compiled.shapes import AUGMENTED, Batches, Hyperparameters, ProgramShape
from trainables.compiled.suffix import seed_variables, trainable_copy
from trainables.compiled.suffix_training import TrainableSuffix
from trainables.modalities.image.augment import DRAWS_PER_IMAGE
from trainables.tracing import BUILD_LOCK, tracing

GRAPH_BYTES = 2**19
"""Memory of compiled functions for each array of weights: 12 MB for 22 of them, 76 for 140, 60 for 98 were measured."""


class Program:
    """One compiled epoch of ``shape`` over ``backbone``; holds the state of one trial at a time."""

    def __init__(self, backbone: Backbone, shape: ProgramShape, stages: PrefixStages) -> None:
        self.shape = shape
        self.stages = stages
        self.prefix, suffix = backbone.parts(shape.depth)
        self.suffix = None if suffix is None else trainable_copy(suffix, shape.adapt, shape.momentum)
        features = int(backbone.model.output.shape[-1])
        self._head = ResizableHead(features, shape.classes)
        self._head_adam = Adam(self._head.variables)
        self._unfrozen = TrainableSuffix(backbone, self.suffix, shape.depth, shape.gradual, shape.pulled)
        self.objective = LossState(shape.objective, features, shape.classes)
        scales = shape.precision == "mixed_float16" and self.suffix is not None
        self.loss_scale = LossScale() if scales else None
        self.dropout_seeds = seed_variables(self.suffix)
        self.traces = 0
        self.trace_seconds = 0.0
        self._image = backbone.model.inputs[0].shape[1:]
        self._cut = self.prefix.outputs[0].shape[1:]
        self._step = tf.function(self._learn, jit_compile=True) if shape.jit else self._learn
        self._train: dict[str, Any] = {}
        self._evaluate: dict[str, Any] = {}

    @property
    def weights(self) -> list[Any]:
        """Variables that make the model: the suffix with its BatchNorm statistics, then the head."""
        return [*self._suffix_weights, *self._head.part(self._head.variables)]

    @property
    def optimizer_variables(self) -> list[Any]:
        """Steps, rate and moments of the head's optimizer, then of the suffix's; then what the objective trains."""
        steps, rate, *moments = self._head_adam.variables
        head = [v for pair in self._head.part(_pairs(moments)) for v in pair]
        return [steps, rate, *head, *self._unfrozen.optimizer_variables, *self.objective.variables]

    @property
    def head(self) -> Head:
        """The head with its present weights, as Keras layers."""
        with BUILD_LOCK:
            return self._head.keras_head()

    @property
    def bytes(self) -> int:
        """Memory of weights, optimizers and compiled functions, about."""
        variables = [*self.weights, *self.optimizer_variables, *self._unfrozen.anchor_variables]
        return sum(map(_bytes, variables)) + GRAPH_BYTES * len(self.weights)

    def start(self, suffix_weights: list[np.ndarray], head_weights: list[np.ndarray], seed: int = 0) -> None:
        """Begin a new trial: assign its first weights and forget the optimizers' past.

        ``seed`` makes the first values of what the objective trains.
        """
        self.write([*suffix_weights, *head_weights])
        self.objective.start(self._head.units, seed)
        self._head_adam.reset()
        self._unfrozen.reset()
        if self.loss_scale is not None:
            self.loss_scale.reset()

    def pull(self, pull: WeightPull) -> None:
        """From now on, until the next trial, draw the unfrozen blocks as ``pull`` says; only if they are ``pulled``."""
        self._unfrozen.pull(pull)

    def read(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Copies of (weights, optimizer variables and what scales the loss)."""
        return self.read_weights(), self.read_optimizer()

    def read_weights(self) -> list[np.ndarray]:
        """A copy of each of :attr:`weights`."""
        return _copies(self.weights)

    def read_optimizer(self) -> list[np.ndarray]:
        """Copies of the optimizer variables and of what scales the loss."""
        scale = self.loss_scale.variables if self.loss_scale is not None else []
        return _copies([*self.optimizer_variables, *scale])

    def write(self, weights: list[np.ndarray], optimizer: list[np.ndarray] | None = None) -> None:
        """Assign what :meth:`read` returned, here or on a machine of another precision."""
        count = len(self._suffix_weights)
        _assign(self._suffix_weights, weights[:count])
        self._head.assign(weights[count:])
        if optimizer is None:
            return
        count = len(self.optimizer_variables)
        _assign(self.optimizer_variables, optimizer[:count])
        if self.loss_scale is not None and optimizer[count:]:
            _assign(self.loss_scale.variables, optimizer[count:])

    def train(
        self,
        batches: Batches,
        rates: np.ndarray,
        ratios: np.ndarray,
        hyper: Hyperparameters,
        seed: tuple[int, int],
        numbers: np.ndarray | None = None,
    ) -> float:
        """Train on ``batches`` with one learning rate a step; returns the sum of the steps' mean losses.

        ``ratios`` (depth,) scale the rates of the unfrozen blocks, bottom first; ``seed`` (trial, first step) makes the
        dropout masks; ``numbers`` (steps, N) float32 are those that the objective asks for.
        """
        for offset, variable in enumerate(self.dropout_seeds):
            state = np.random.SeedSequence([*seed, offset]).generate_state(2)
            variable.assign(state.astype(variable.dtype))
        drawn = batches.draws
        kind = batches.inputs.dtype.name if drawn is None else AUGMENTED
        if drawn is None:
            drawn = np.zeros((*batches.labels.shape, 0), np.float32)
        total = self._compiled_train(kind)(
            tf.constant(batches.inputs), tf.constant(batches.labels), tf.constant(drawn),
            tf.constant(rates), tf.constant(ratios, tf.float32),
            tf.constant(hyper.as_array()),
            tf.constant([seed[0] & 0x7FFFFFFF, seed[1] & 0x7FFFFFFF], tf.int32),
            *self.objective.arguments(batches.extras, numbers, len(rates)),
        )  # fmt: skip
        return float(total)

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, int, np.ndarray]:
        """(summed cross-entropy, correct answers, probabilities (N, classes)) on images or activations at the cut."""
        loss, correct, probabilities = self._compiled_evaluate(inputs.dtype.name)(
            tf.constant(inputs), tf.constant(labels)
        )
        return float(loss), int(correct), probabilities.numpy()

    def compile(self, train: str, evaluate: str) -> float:
        """Trace what is not traced yet for inputs of the types ``train`` and ``evaluate``; returns the seconds it took.

        ``uint8`` means images, ``distorted`` images that are distorted in the step. Inputs of another type are traced
        when they come. XLA compiles in a first step over blank images, so call this before a trial's weights are
        assigned.
        """
        before, fresh = self.trace_seconds, train not in self._train
        self._compiled_train(train)
        self._compiled_evaluate(evaluate)
        if fresh and self.shape.jit:
            began = time.perf_counter()
            batch = self.shape.batch_size
            self._head.assign(self._head.zeros(self.shape.head_units or 0))
            self._head_adam.reset()
            self.objective.start(self._head.units, 0)
            blank = np.zeros((1, batch, *self._input(train)), _dtype(train))
            labels = np.zeros((1, batch), np.int32)
            draws = np.zeros((1, batch, DRAWS_PER_IMAGE), np.float32) if train == AUGMENTED else None
            extras, numbers = self.objective.blank(1, batch)
            batches = Batches(blank, labels, draws, extras)
            ratios = np.ones(self.shape.depth, np.float32)
            self.train(batches, np.zeros(1, np.float32), ratios, Hyperparameters(), (0, 0), numbers)
            self.trace_seconds += time.perf_counter() - began
        return self.trace_seconds - before

    def _compiled_train(self, kind: str) -> Any:
        if kind not in self._train:
            batch = self.shape.batch_size
            self._train[kind] = self._trace(
                self._train_steps,
                tf.TensorSpec([None, batch, *self._input(kind)], _dtype(kind)),
                tf.TensorSpec([None, batch], tf.int32),
                tf.TensorSpec([None, batch, DRAWS_PER_IMAGE if kind == AUGMENTED else 0], tf.float32),
                tf.TensorSpec([None], tf.float32),
                tf.TensorSpec([self.shape.depth], tf.float32),
                tf.TensorSpec([5], tf.float32),
                tf.TensorSpec([2], tf.int32),
                *self.objective.specs(batch),
            )
        return self._train[kind]

    def _compiled_evaluate(self, dtype: str) -> Any:
        if dtype not in self._evaluate:
            self._evaluate[dtype] = self._trace(
                self._evaluate_steps,
                tf.TensorSpec([None, *self._input(dtype)], dtype),
                tf.TensorSpec([None], tf.int32),
            )
        return self._evaluate[dtype]

    def _input(self, kind: str) -> Any:
        return self._image if _dtype(kind) == "uint8" else self._cut

    @property
    def _suffix_weights(self) -> list[Any]:
        return self.suffix.weights if self.suffix is not None else []

    def _trace(self, function: Any, *specs: Any) -> Any:
        with tracing():
            began = time.perf_counter()
            concrete = tf.function(function, jit_compile=False).get_concrete_function(*specs)
            self.traces += 1
            self.trace_seconds += time.perf_counter() - began
            return concrete

    def _train_steps(
        self,
        inputs: Any,
        labels: Any,
        draws: Any,
        rates: Any,
        ratios: Any,
        hyper: Any,
        seed: Any,
        *asked: Any,
    ) -> Any:
        total = tf.constant(0.0)
        for step in tf.range(tf.shape(rates)[0]):
            mask_seed = tf.stack([seed[0], seed[1] + step])
            drawn = draws[step] if draws.shape[-1] else None
            x = self._at_cut(inputs[step], drawn, hyper[3], hyper[4])
            own = [argument[step] for argument in asked]
            total += self._step(x, labels[step], rates[step], ratios, hyper, mask_seed, *own)
        return total

    def _learn(self, x: Any, y: Any, rate: Any, ratios: Any, hyper: Any, seed: Any, *asked: Any) -> Any:
        """One step of gradient descent on activations at the cut; returns its loss."""
        decay, dropout, smoothing, _, _ = tf.unstack(hyper)
        target = tf.one_hot(y, self.shape.classes) * (1.0 - smoothing) + smoothing / self.shape.classes
        with tf.GradientTape() as tape:
            features = self._unfrozen.features(x, ratios)
            hidden = self._head.hidden(features)
            scores = self._head.scores(hidden, dropout, seed)
            loss = self.objective.loss(features, hidden, scores, y, target, *asked)
            scaled = loss if self.loss_scale is None else self.loss_scale.scaled(loss)
        trained = [*self._head.variables, *self._unfrozen.variables, *self.objective.trained]
        gradients = tape.gradient(scaled, trained)
        if self.loss_scale is None:
            self._update(gradients, rate, ratios, decay)
        else:
            self.loss_scale.apply(gradients, lambda true: self._update(true, rate, ratios, decay))
        return loss

    def _update(self, gradients: list[Any], rate: Any, ratios: Any, decay: Any) -> None:
        head = len(self._head.variables)
        own = head + len(self._unfrozen.variables)
        self._head_adam.apply(gradients[:head], rate, decay)
        self._unfrozen.apply(gradients[head:own], rate, ratios, decay)
        self.objective.apply(gradients[own:], rate, decay)

    def _at_cut(self, x: Any, draws: Any = None, strength: Any = 0.0, flip: Any = 0.0) -> Any:
        """Images, distorted if there are ``draws``, or activations, as float32 activations at the cut."""
        if x.dtype != tf.uint8:
            return tf.cast(x, tf.float32)
        pixels = self.stages.distort(x, draws, strength, flip)
        if self.shape.exact:
            return tf.cast(self.prefix(pixels, training=False), tf.float32)
        return self.stages.run(pixels, self.stages.input_depth, self.shape.depth)[0]

    def _evaluate_steps(self, inputs: Any, labels: Any) -> Any:
        x = self._at_cut(inputs)
        features = x if self.suffix is None else tf.cast(self.suffix(x, training=False), tf.float32)
        scores = self._head(features)
        loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=scores))
        correct = tf.reduce_sum(
            tf.cast(tf.equal(tf.argmax(scores, axis=1, output_type=tf.int32), labels), tf.int32)
        )
        return loss, correct, tf.nn.softmax(scores)


def _dtype(kind: str) -> str:
    return "uint8" if kind == AUGMENTED else kind


def _bytes(variable: Any) -> int:
    """Four a number; the head's sizes are not in its variables' shapes."""
    sizes = list(variable.shape)
    return 4 * (int(tf.size(variable)) if None in sizes else math.prod(sizes))


def _copies(variables: list[Any]) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in variables]


def _pairs(moments: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(moments[::2], moments[1::2], strict=True))


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    if len(variables) != len(values):
        raise ValueError(f"expected {len(variables)} arrays, received {len(values)}")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)

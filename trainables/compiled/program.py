"""Trains and evaluates with functions that are compiled once for all trials of one shape.

A :class:`Program` owns the trainable copy of a backbone's top blocks, a head, their optimizers, and two compiled
functions, one that trains some steps and one that evaluates. Each is traced once for each kind of input: images
(uint8), which go through the frozen prefix first, or activations at the cut (float16 or float32).

Tracing takes seconds, often longer than a trial's epoch. Therefore nothing that differs between trials is a constant of
the graph: learning rates, decay, dropout, label smoothing and augmentation strength are arguments, and the width of the
head is a size of its variables. The next trial of the same :class:`~trainables.compiled.shapes.ProgramShape` only
assigns its weights.
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
from trainables.compiled.loss_scale import LossScale
from trainables.compiled.loss_state import LossState
from trainables.compiled.quadratic_penalty import QuadraticPenalty
from trainables.compiled.resizable_head import ResizableHead
from trainables.compiled.shapes import AUGMENTED, Batches, Hyperparameters, ProgramShape
from trainables.compiled.suffix import seed_variables, trainable_copy
from trainables.compiled.suffix_training import TrainableSuffix
from trainables.modalities.image.augment import DRAWS_PER_IMAGE
from trainables.tracing import BUILD_LOCK, tracing

GRAPH_BYTES = 2**19
"""Estimated memory of compiled functions for each array of weights, in bytes.

Measured: 12 MB for 22 arrays, 76 MB for 140, 60 MB for 98.
"""

_SEED_MASK = 0x7FFFFFFF
"""Seeds of TensorFlow's stateless random operations are int32 and must not be negative."""


class Program:
    """A compiled epoch, which holds the weights and optimizers of one trial at a time.

    Args:
        backbone: its pretrained weights are never changed.
        shape: what the graph depends on.
        stages: computes the frozen prefix with the rounding of kept activations, unless ``shape`` is exact.

    Attributes:
        prefix: the frozen part, from images to activations at the cut.
        suffix: the trainable copy of the blocks above the cut; None if nothing but the head trains.
        loss_state: variables and arguments of the loss.
        loss_scale: scales the loss in float16; None in other precisions.
        traces: how many functions were traced.
        trace_seconds: how long tracing and compiling took.
    """

    def __init__(self, backbone: Backbone, shape: ProgramShape, stages: PrefixStages) -> None:
        self.shape = shape
        self.stages = stages
        self.prefix, suffix = backbone.parts(shape.depth)
        self.suffix = None if suffix is None else trainable_copy(suffix, shape.adapt, shape.momentum)
        features = int(backbone.model.output.shape[-1])
        self._head = ResizableHead(features, shape.classes)
        self._head_adam = Adam(self._head.variables)
        self._trained = TrainableSuffix(backbone, self.suffix, shape.depth, shape.gradual, shape.penalised)
        self.loss_state = LossState(shape.loss, features, shape.classes)
        # bfloat16 has the exponents of float32, so its gradients do not underflow. The head computes in float32.
        scales = shape.precision == "mixed_float16" and self.suffix is not None
        self.loss_scale = LossScale() if scales else None
        self.dropout_seeds = seed_variables(self.suffix)
        self.traces = 0
        self.trace_seconds = 0.0
        self._image = backbone.model.inputs[0].shape[1:]
        self._cut = self.prefix.outputs[0].shape[1:]
        # XLA compiles one step above the cut. The prefix stays outside: fused, it would round in other places, and
        # activations would differ from those in the cache.
        self._step = tf.function(self._train_step, jit_compile=True) if shape.jit else self._train_step
        self._train: dict[str, Any] = {}
        self._evaluate: dict[str, Any] = {}

    @property
    def weights(self) -> list[Any]:
        """Variables of the model: the suffix with its BatchNorm statistics, then the head."""
        return [*self._suffix_weights, *self._head.without_empty(self._head.variables)]

    @property
    def optimizer_variables(self) -> list[Any]:
        """Variables of the head's optimizer (step count, learning rate, moments), of the suffix's, and of the loss."""
        steps, rate, *moments = self._head_adam.variables
        head = [v for pair in self._head.without_empty(_pairs(moments)) for v in pair]
        return [steps, rate, *head, *self._trained.optimizer_variables, *self.loss_state.variables]

    @property
    def head(self) -> Head:
        """The head with its present weights as Keras layers."""
        with BUILD_LOCK:
            return self._head.keras_head()

    @property
    def bytes(self) -> int:
        """Estimated memory of weights, optimizers and compiled functions."""
        variables = [*self.weights, *self.optimizer_variables, *self._trained.penalty_variables]
        return sum(map(_bytes, variables)) + GRAPH_BYTES * len(self.weights)

    def start(self, suffix_weights: list[np.ndarray], head_weights: list[np.ndarray], seed: int = 0) -> None:
        """Begin a new trial: assign its first weights and reset all optimizers.

        Args:
            suffix_weights: one array for each weight of the suffix, in its order; empty at depth 0.
            head_weights: kernels and biases of the head, bottom first; their shapes decide its width.
            seed: decides the first values of the loss's variables.
        """
        # The weights come first: they set the width of the head, from which the variables of the loss and the
        # moments of the optimizer take their sizes.
        self.write([*suffix_weights, *head_weights])
        self.loss_state.start(self._head.units, seed)
        self._head_adam.reset()
        self._trained.reset()
        if self.loss_scale is not None:
            self.loss_scale.reset()

    def set_penalty(self, penalty: QuadraticPenalty) -> None:
        """Hold the trained blocks back by ``penalty`` until the next trial; no effect unless ``shape.penalised``."""
        self._trained.set_penalty(penalty)

    def read(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return copies of :meth:`read_weights` and :meth:`read_optimizer`."""
        return self.read_weights(), self.read_optimizer()

    def read_weights(self) -> list[np.ndarray]:
        """Return a copy of each of :attr:`weights`."""
        return _copies(self.weights)

    def read_optimizer(self) -> list[np.ndarray]:
        """Return copies of :attr:`optimizer_variables`, then of the state of the loss scale, if there is one."""
        scale = self.loss_scale.variables if self.loss_scale is not None else []
        return _copies([*self.optimizer_variables, *scale])

    def write(self, weights: list[np.ndarray], optimizer: list[np.ndarray] | None = None) -> None:
        """Assign what :meth:`read` returned, here or on a machine of another precision.

        Raises:
            ValueError: the arrays are those of another shape.
        """
        count = len(self._suffix_weights)
        _assign(self._suffix_weights, weights[:count])
        self._head.assign(weights[count:])
        if optimizer is None:
            return
        count = len(self.optimizer_variables)
        _assign(self.optimizer_variables, optimizer[:count])
        # A state that was written in another precision has no loss scale: the present one stays.
        if self.loss_scale is not None and optimizer[count:]:
            _assign(self.loss_scale.variables, optimizer[count:])

    def train(
        self,
        batches: Batches,
        rates: np.ndarray,
        ratios: np.ndarray,
        hyper: Hyperparameters,
        seed: tuple[int, int],
        scalars: np.ndarray | None = None,
    ) -> float:
        """Train on ``batches`` and return the sum of the steps' mean losses.

        Args:
            batches: S steps of data.
            rates: (S,) float32 learning rates of the head.
            ratios: (depth,) learning rates of the trained blocks as shares of the head's, bottom first.
            hyper: values that are the same in all steps.
            seed: (trial, first step); the dropout masks are a function of it.
            scalars: (S, number of scalars) float32, if the loss has any.
        """
        # Keras' dropout and stochastic depth draw from state of their own, which is set here: a resumed trial then
        # gets the masks of an uninterrupted one.
        for offset, variable in enumerate(self.dropout_seeds):
            state = np.random.SeedSequence([*seed, offset]).generate_state(2)
            variable.assign(state.astype(variable.dtype))
        drawn = batches.draws
        kind = batches.inputs.dtype.name if drawn is None else AUGMENTED
        # An array without columns: the function then has the same number of arguments for every kind of input.
        if drawn is None:
            drawn = np.zeros((*batches.labels.shape, 0), np.float32)
        total = self._compiled_train(kind)(
            tf.constant(batches.inputs), tf.constant(batches.labels), tf.constant(drawn),
            tf.constant(rates), tf.constant(ratios, tf.float32),
            tf.constant(hyper.as_array()),
            tf.constant([seed[0] & _SEED_MASK, seed[1] & _SEED_MASK], tf.int32),
            *self.loss_state.arguments(batches.example_inputs, scalars, len(rates)),
        )  # fmt: skip
        return float(total)

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, int, np.ndarray]:
        """Evaluate images or activations at the cut with the present weights.

        Args:
            inputs: (N, …) uint8 images, or float16 or float32 activations.
            labels: (N,) int32.

        Returns:
            The summed cross-entropy, the number of correct predictions, and the probabilities (N, classes) float32.
        """
        loss, correct, probabilities = self._compiled_evaluate(inputs.dtype.name)(
            tf.constant(inputs), tf.constant(labels)
        )
        return float(loss), int(correct), probabilities.numpy()

    def compile(self, train: str, evaluate: str) -> float:
        """Trace the functions that are not traced yet, and return the seconds that this took.

        Inputs of other kinds are traced when they come.

        Args:
            train: kind of the training inputs: ``uint8`` for images, :data:`~trainables.compiled.shapes.AUGMENTED` for
                images that are augmented in the step, or the dtype of activations.
            evaluate: dtype of the evaluated inputs.
        """
        before, fresh = self.trace_seconds, train not in self._train
        self._compiled_train(train)
        self._compiled_evaluate(evaluate)
        if fresh and self.shape.jit:
            # XLA compiles at the first call, not when the function is traced. This call trains on blank images and
            # changes weights and statistics, so it comes before a trial's weights are assigned.
            began = time.perf_counter()
            batch = self.shape.batch_size
            self._head.assign(self._head.zeros(self.shape.head_units or 0))
            self._head_adam.reset()
            self.loss_state.start(self._head.units, 0)
            blank = np.zeros((1, batch, *self._input(train)), _dtype(train))
            labels = np.zeros((1, batch), np.int32)
            draws = np.zeros((1, batch, DRAWS_PER_IMAGE), np.float32) if train == AUGMENTED else None
            example_inputs, scalars = self.loss_state.blank(1, batch)
            batches = Batches(blank, labels, draws, example_inputs)
            ratios = np.ones(self.shape.depth, np.float32)
            self.train(batches, np.zeros(1, np.float32), ratios, Hyperparameters(), (0, 0), scalars)
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
                *self.loss_state.specs(batch),
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
        *loss_arguments: Any,
    ) -> Any:
        """Train S steps in a loop inside the graph; return the sum of their mean losses.

        One call for many steps saves the dispatch from Python, which costs more than the step of a small network.
        """
        total = tf.constant(0.0)
        # AutoGraph makes a loop of the graph from this, so the number of steps is not part of it.
        for step in tf.range(tf.shape(rates)[0]):
            # One seed for each step: splitting an epoch into calls does not change its dropout masks.
            mask_seed = tf.stack([seed[0], seed[1] + step])
            drawn = draws[step] if draws.shape[-1] else None
            x = self._cut_activations(inputs[step], drawn, hyper[3], hyper[4])
            own = [argument[step] for argument in loss_arguments]
            total += self._step(x, labels[step], rates[step], ratios, hyper, mask_seed, *own)
        return total

    def _train_step(
        self, x: Any, y: Any, rate: Any, ratios: Any, hyper: Any, seed: Any, *loss_arguments: Any
    ) -> Any:
        """Take one step of gradient descent on activations at the cut; return its mean loss."""
        decay, dropout, smoothing, _, _ = tf.unstack(hyper)
        # A label of -1 (hidden) gives a row without a class.
        target = tf.one_hot(y, self.shape.classes) * (1.0 - smoothing) + smoothing / self.shape.classes
        with tf.GradientTape() as tape:
            features = self._trained.features(x, ratios)
            hidden = self._head.hidden(features)
            scores = self._head.scores(hidden, dropout, seed)
            loss = self.loss_state.loss(features, hidden, scores, y, target, *loss_arguments)
            scaled = loss if self.loss_scale is None else self.loss_scale.scaled(loss)
        trained = [*self._head.variables, *self._trained.variables, *self.loss_state.trained]
        gradients = tape.gradient(scaled, trained)
        if self.loss_scale is None:
            self._update(gradients, rate, ratios, decay)
        else:
            self.loss_scale.apply(gradients, lambda true: self._update(true, rate, ratios, decay))
        return loss

    def _update(self, gradients: list[Any], rate: Any, ratios: Any, decay: Any) -> None:
        """Apply gradients of the head, of the blocks, and of the loss's variables, in this order."""
        head = len(self._head.variables)
        own = head + len(self._trained.variables)
        self._head_adam.apply(gradients[:head], rate, decay)
        self._trained.apply(gradients[head:own], rate, ratios, decay)
        self.loss_state.apply(gradients[own:], rate, decay)

    def _cut_activations(self, x: Any, draws: Any = None, strength: Any = 0.0, flip: Any = 0.0) -> Any:
        """Return float32 activations at the cut of images (augmented if there are ``draws``) or of activations."""
        if x.dtype != tf.uint8:
            return tf.cast(x, tf.float32)
        pixels = self.stages.distort(x, draws, strength, flip)
        if self.shape.exact:
            return tf.cast(self.prefix(pixels, training=False), tf.float32)
        return self.stages.run(pixels, self.stages.input_depth, self.shape.depth)[0]

    def _evaluate_steps(self, inputs: Any, labels: Any) -> Any:
        # Evaluation ignores label smoothing, dropout and the method's own loss: val_loss means the same for all
        # trials.
        x = self._cut_activations(inputs)
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
    """Four bytes a number. The static shapes of the head's variables lack its width, so their present size counts."""
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

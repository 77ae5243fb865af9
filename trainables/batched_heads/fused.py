"""Trains heads of one shape side by side: one compiled epoch for any number of trials.

Weights and Adam's moments of T trials are stacked, (T, C, K). Each trial has its own data order, learning rates, decay,
dropout and label smoothing. The sum of the trials' losses is differentiated: the gradient of one trial's loss with
respect to another trial's weights is zero, so trials do not affect each other, and a NaN in one stays there. T is not
part of the graph, so nothing is traced again when trials join or leave.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.batched_heads.state import HeadEpoch, HeadShape, HeadState
from trainables.compiled.adam import BETAS, EPSILON
from trainables.compiled.shapes import Hyperparameters

MAX_CALL_BYTES = 64 * 2**20
"""Largest input or output of one call of a compiled function, in bytes; longer epochs are split into several calls."""


class FusedHeads:
    """Compiled training and evaluation of heads of ``shape``. Safe to use from several threads."""

    def __init__(self, shape: HeadShape) -> None:
        self.shape = shape
        self._weights, self._momentum, self._velocity, self._update = (
            [_stack_variable(s) for s in shape.arrays] for _ in range(4)
        )
        self._train = tf.function(self._train_steps, reduce_retracing=True)
        self._evaluate = tf.function(self._evaluate_all, reduce_retracing=True)
        self._lock = threading.Lock()

    @property
    def traces(self) -> int:
        """How many times training or evaluation was traced."""
        return sum(int(f.experimental_get_tracing_count()) for f in (self._train, self._evaluate))

    def compile(self, dtype: str, train: bool = True) -> None:
        """Trace evaluation for activations of ``dtype``, and training unless ``train`` is false."""
        one, many = [None], [None, None]
        images = [self.shape.batch_size]
        if train:
            self._train.get_concrete_function(
                tf.TensorSpec([*many, *images, self.shape.features], dtype),
                tf.TensorSpec([*many, *images], tf.int32),
                tf.TensorSpec(many, tf.float32),
                tf.TensorSpec(one, tf.float32),
                tf.TensorSpec([None, 3], tf.float32),
                tf.TensorSpec([None, 2], tf.int32),
            )
        self._evaluate.get_concrete_function(
            [tf.TensorSpec([None, *s], tf.float32) for s in self.shape.arrays],
            tf.TensorSpec([None, self.shape.features], dtype),
            tf.TensorSpec(one, tf.int32),
        )

    def train(self, epochs: Sequence[HeadEpoch]) -> list[tuple[float, HeadState]]:
        """Train one epoch of each trial.

        Args:
            epochs: one for each of T trials, all with equally many steps.

        Returns:
            For each trial the sum of its steps' mean losses, and its new state.
        """
        # All batches use the same variables: no other batch may start between writing them and reading the result.
        with self._lock:
            for variables, name in (
                (self._weights, "weights"), (self._momentum, "momentum"), (self._velocity, "velocity"),
            ):  # fmt: skip
                _assign(variables, [getattr(e.state, name) for e in epochs])
            losses = self._train_parts(epochs)
            weights, momentum, velocity = map(_unstack, (self._weights, self._momentum, self._velocity))
        states = (
            HeadState(weights[i], momentum[i], velocity[i], e.state.steps + len(e.rates), float(e.rates[-1]))
            for i, e in enumerate(epochs)
        )
        return list(zip(map(float, losses), states, strict=True))

    def evaluate(
        self, weights: Sequence[list[np.ndarray]], inputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate T heads on the same images.

        Args:
            weights: kernels and biases of each head.
            inputs: (N, C) activations.
            labels: (N,) int32.

        Returns:
            Summed cross-entropy (T,), number of correct predictions (T,), and probabilities (T, N, classes).
        """
        stacked = [tf.constant(np.stack(arrays)) for arrays in zip(*weights, strict=True)]
        row = 4 * len(weights) * (self.shape.units + self.shape.classes)
        size = max(1, MAX_CALL_BYTES // row)
        parts = [
            self._evaluate(stacked, tf.constant(inputs[i : i + size]), tf.constant(labels[i : i + size]))
            for i in range(0, len(inputs), size)
        ]
        losses, correct, probabilities = (
            [np.asarray(p) for p in column] for column in zip(*parts, strict=True)
        )
        return np.sum(losses, axis=0), np.sum(correct, axis=0), np.concatenate(probabilities, axis=1)

    def _train_parts(self, epochs: Sequence[HeadEpoch]) -> np.ndarray:
        """Train an epoch in calls of at most MAX_CALL_BYTES of input; return the sums of the losses (T,)."""
        steps = len(epochs[0].rates)
        # Trials may read activations of different dtypes; the batch takes the widest, which changes no value.
        dtype = np.result_type(*(e.source.dtype for e in epochs))
        size = max(
            1, MAX_CALL_BYTES // (len(epochs) * self.shape.batch_size * self.shape.features * dtype.itemsize)
        )
        losses = np.zeros(len(epochs))
        for first in range(0, steps, size):
            part = slice(first, first + size)
            rows = [e.indices[part] for e in epochs]
            losses += self._train(
                tf.constant(_gathered(epochs, rows, dtype)),
                tf.constant(np.stack([e.labels[r] for e, r in zip(epochs, rows, strict=True)])),
                tf.constant(np.stack([e.rates[part] for e in epochs])),
                tf.constant([float(e.state.steps + first) for e in epochs]),
                tf.constant(np.stack([_hyper(e.hyper) for e in epochs])),
                tf.constant([(e.seed[0], e.seed[1] + first) for e in epochs], tf.int32),
            ).numpy()
        return losses

    def _train_steps(self, inputs: Any, labels: Any, rates: Any, taken: Any, hyper: Any, seeds: Any) -> Any:
        """Train S steps of T heads inside the graph; return the sums of their mean losses (T,).

        Args:
            inputs: (T, S, B, C) activations.
            labels: (T, S, B) int32.
            rates: (T, S) learning rates.
            taken: (T,) steps that each optimizer has taken, as floats.
            hyper: (T, 3) weight decay, dropout and label smoothing.
            seeds: (T, 2) int32; the first step's seeds of the dropout masks.
        """
        total = tf.zeros_like(taken)
        for step in tf.range(tf.shape(rates)[1]):
            # Its static shape has no T, as T is unknown when this is traced.
            tf.autograph.experimental.set_loop_options(shape_invariants=[(total, tf.TensorShape([None]))])
            x = tf.cast(tf.gather(inputs, step, axis=1), tf.float32)
            masks = seeds + tf.stack([0, step])
            losses, gradients = self._gradients(x, tf.gather(labels, step, axis=1), hyper, masks)
            rate, count = tf.gather(rates, step, axis=1), taken + tf.cast(step, tf.float32) + 1.0
            self._apply(gradients, rate, count, hyper[:, 0])
            total += losses
        return total

    def _gradients(self, x: Any, y: Any, hyper: Any, masks: Any) -> tuple[Any, Any]:
        """Return the mean loss of each head (T,), and the gradients of the stacked weights."""
        smoothing = hyper[:, 2, tf.newaxis, tf.newaxis]
        target = tf.one_hot(y, self.shape.classes) * (1.0 - smoothing) + smoothing / self.shape.classes
        weights = [v.value() for v in self._weights]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            scores = _scores(weights, x, hyper[:, 1], masks)
            crossed = tf.nn.softmax_cross_entropy_with_logits(labels=target, logits=scores)
            losses = tf.reduce_mean(crossed, axis=-1)
            total = tf.reduce_sum(losses)
        return losses, tape.gradient(total, weights)

    def _apply(self, gradients: list[Any], rate: Any, count: Any, decay: Any) -> None:
        """Take one Adam step for each trial, with decoupled decay of the kernels, as :mod:`trainables.compiled.adam`
        does.

        TensorFlow's fused Adam kernel takes a single learning rate. So it updates a variable of zeros at rate 1,
        without bias correction; the result is multiplied by each trial's rate and bias correction and added to the
        weights.
        """
        first, second = BETAS
        scale = rate * tf.sqrt(1.0 - tf.pow(second, count)) / (1.0 - tf.pow(first, count))
        lists = (self._weights, self._momentum, self._velocity, self._update, gradients)
        for weight, momentum, velocity, update, gradient in zip(*lists, strict=True):
            ones = [-1] + [1] * (len(weight.shape) - 1)
            # Only kernels decay: a stacked kernel has three axes, a stacked bias two.
            if len(weight.shape) > 2 and tf.reduce_any(decay > 0.0):
                weight.assign_sub(weight * tf.reshape(rate * decay, ones))
            update.assign(tf.zeros_like(gradient))
            # Powers of zero switch the kernel's own bias correction off.
            tf.raw_ops.ResourceApplyAdam(
                var=update.handle, m=momentum.handle, v=velocity.handle, beta1_power=0.0, beta2_power=0.0,
                lr=1.0, beta1=first, beta2=second, epsilon=EPSILON, grad=gradient,
            )  # fmt: skip
            weight.assign_add(update * tf.reshape(scale, ones))

    def _evaluate_all(self, weights: list[Any], inputs: Any, labels: Any) -> Any:
        scores = _scores(weights, tf.cast(inputs, tf.float32)[tf.newaxis])
        answers = tf.broadcast_to(labels, tf.shape(scores)[:2])
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=answers, logits=scores)
        right = tf.equal(tf.argmax(scores, axis=-1, output_type=tf.int32), answers)
        correct = tf.reduce_sum(tf.cast(right, tf.int32), axis=1)
        return tf.reduce_sum(losses, axis=1), correct, tf.nn.softmax(scores)


def _scores(weights: list[Any], x: Any, dropout: Any = None, masks: Any = None) -> Any:
    """Return scores (T, B, K) of stacked heads on inputs (T or 1, B, C).

    Args:
        weights: stacked kernels (T, …) and biases (T, …), bottom first.
        x: the inputs.
        dropout: (T,) rates at the inputs of the last layer.
        masks: (T, 2) int32 seeds of the dropout masks; None for inference.
    """
    if len(weights) > 2:
        x = tf.nn.relu(tf.matmul(x, weights[0]) + weights[1][:, tf.newaxis])
    if masks is not None:
        x = tf.cond(tf.reduce_any(dropout > 0.0), lambda: _dropped(x, dropout, masks), lambda: x)
    return tf.matmul(x, weights[-2]) + weights[-1][:, tf.newaxis]


def _dropped(x: Any, dropout: Any, seeds: Any) -> Any:
    """Drop inputs (T, B, C) at the rates ``dropout`` (T,), with masks from ``seeds`` (T, 2)."""
    # Drawn trial by trial: the mask of a trial must not depend on how many others are in the batch.
    draws = tf.map_fn(
        lambda seed: tf.random.stateless_uniform(tf.shape(x)[1:], seed), seeds, fn_output_signature=tf.float32
    )
    rate = dropout[:, tf.newaxis, tf.newaxis]
    return tf.where(draws >= rate, x / (1.0 - rate), 0.0)


def _stack_variable(shape: tuple[int, ...]) -> Any:
    """A variable (T, *shape) whose T may change with every assignment."""
    return tf.Variable(np.zeros((1, *shape), np.float32), shape=(None, *shape), trainable=False)


def _assign(variables: list[Any], trials: list[list[np.ndarray]]) -> None:
    """Stack the arrays of all trials into the variables."""
    for variable, arrays in zip(variables, zip(*trials, strict=True), strict=True):
        variable.assign(np.stack(arrays))


def _unstack(variables: list[Any]) -> list[list[np.ndarray]]:
    """Return the arrays of each trial, in memory of their own: a view would keep those of all trials alive."""
    stacked = [v.numpy() for v in variables]
    return [[s[i].copy() for s in stacked] for i in range(len(stacked[0]))]


def _gathered(epochs: Sequence[HeadEpoch], rows: list[np.ndarray], dtype: Any) -> np.ndarray:
    """Return the activations of the given rows (S, B) of each trial: (T, S, B, C)."""
    whole = np.empty((len(epochs), *rows[0].shape, epochs[0].source.shape[1]), dtype)
    for trial, epoch, indices in zip(whole, epochs, rows, strict=True):
        # With the default mode NumPy writes to a buffer first and then copies it to ``out``.
        np.take(epoch.source, indices, axis=0, out=trial, mode="clip")
    return whole


def _hyper(hyper: Hyperparameters) -> np.ndarray:
    return np.array([hyper.weight_decay, hyper.dropout, hyper.label_smoothing], np.float32)

"""Holds what a compiled epoch needs for its loss: variables with their optimizer, and the arguments of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.adam import Adam
from trainables.compiled.loss import LossInputs, TrainingLoss


class LossState:
    """The state of a :class:`~trainables.compiled.loss.TrainingLoss` inside a program.

    Args:
        loss: None for the mean cross-entropy, which needs no arguments and trains no variables.
        features: width C of the pooled features.
        classes: number of classes K.

    Attributes:
        trained: variables that are trained along with the model. Sizes that may differ between trials are 0 until a
            trial begins.
    """

    def __init__(self, loss: TrainingLoss | None, features: int, classes: int) -> None:
        self._loss = loss
        self._sizes = features, classes
        shapes = loss.variable_shapes(features, classes) if loss is not None else ()
        self.trained = [
            tf.Variable(np.zeros([n or 0 for n in shape], np.float32), shape=shape) for shape in shapes
        ]
        self._adam = Adam(self.trained) if self.trained else None

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint needs: the trained variables, then those of their optimizer."""
        return [*self.trained, *self._adam.variables] if self._adam is not None else []

    def start(self, units: int, seed: int) -> None:
        """Begin a trial whose head has ``units`` hidden ones (0: linear)."""
        if self._loss is None or self._adam is None:
            return
        features, classes = self._sizes
        first = self._loss.initial_variables(features, units, classes, seed)
        for variable, value in zip(self.trained, first, strict=True):
            variable.assign(value)
        self._adam.reset()

    def specs(self, batch: int) -> list[Any]:
        """Return the types of the loss's arguments for any number of steps: scalars, then one array per example input.

        Args:
            batch: images in a step.
        """
        if self._loss is None:
            return []
        return [
            tf.TensorSpec([None, len(self._loss.scalars)], tf.float32),
            *(tf.TensorSpec([None, batch, *e.shape], e.dtype) for e in self._loss.example_inputs),
        ]

    def arguments(
        self, example_inputs: Mapping[str, np.ndarray], scalars: np.ndarray | None, steps: int
    ) -> list[Any]:
        """Return the arguments of the types of :meth:`specs` for ``steps`` steps.

        Args:
            example_inputs: (steps, B, …) by name; others than the declared ones are ignored.
            scalars: (steps, number of scalars), or None if the loss has none.
            steps: number of steps.

        Raises:
            ValueError: an array that the loss declares is missing, or ``scalars`` has another shape.
        """
        if self._loss is None:
            return []
        shape = steps, len(self._loss.scalars)
        given = np.zeros(shape, np.float32) if scalars is None and not shape[1] else scalars
        names = [e.name for e in self._loss.example_inputs]
        if given is None or given.shape != shape or not set(names) <= set(example_inputs):
            raise ValueError(
                f"loss: expected scalars {self._loss.scalars} of shape {shape} and the arrays {names}, received "
                f"scalars of shape {None if given is None else given.shape} and {sorted(example_inputs)}"
            )
        arrays = [tf.constant(example_inputs[e.name], e.dtype) for e in self._loss.example_inputs]
        return [tf.constant(given, tf.float32), *arrays]

    def blank(self, steps: int, batch: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Return example inputs and scalars of zeros, for steps that only make XLA compile."""
        if self._loss is None:
            return {}, None
        arrays = {e.name: np.zeros((steps, batch, *e.shape), e.dtype) for e in self._loss.example_inputs}
        return arrays, np.zeros((steps, len(self._loss.scalars)), np.float32)

    def loss(
        self, features: Any, hidden: Any, scores: Any, labels: Any, targets: Any, *arguments: Any
    ) -> Any:
        """Return the scalar that one step minimises; inside the graph.

        ``arguments`` are those of :meth:`arguments`, without their first axis; the others are described at
        :class:`~trainables.compiled.loss.LossInputs`.
        """
        cross_entropy = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=scores)
        if self._loss is None:
            return tf.reduce_mean(cross_entropy)
        numbers, *arrays = arguments
        named = {e.name: array for e, array in zip(self._loss.example_inputs, arrays, strict=True)}
        scalars = {name: numbers[index] for index, name in enumerate(self._loss.scalars)}
        inputs = LossInputs(
            features, hidden, scores, labels, targets, cross_entropy, named, scalars, self.trained
        )
        return self._loss.loss(inputs)

    def apply(self, gradients: Sequence[Any], rate: Any, decay: Any) -> None:
        """Update the trained variables by one optimizer step; inside the graph."""
        if self._adam is not None:
            self._adam.apply(gradients, rate, decay)

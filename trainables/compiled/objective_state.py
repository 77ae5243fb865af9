"""What a compiled epoch holds for its objective: variables with their optimizer, and the arguments of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.adam import Adam
from trainables.compiled.objective import LossInputs, TrainingLoss


class LossState:
    """``objective`` in a program of ``features`` and ``classes``; None stands for the mean cross-entropy, which asks
    for nothing and trains nothing.
    """

    def __init__(self, objective: TrainingLoss | None, features: int, classes: int) -> None:
        self._objective = objective
        self._sizes = features, classes
        shapes = objective.variable_shapes(features, classes) if objective is not None else ()
        self.trained = [
            tf.Variable(np.zeros([n or 0 for n in shape], np.float32), shape=shape) for shape in shapes
        ]
        """Variables that train beside the model; sizes that may differ are 0 until a trial begins."""
        self._adam = Adam(self.trained) if self.trained else None

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint needs: the variables, then their optimizer's."""
        return [*self.trained, *self._adam.variables] if self._adam is not None else []

    def start(self, units: int, seed: int) -> None:
        """Begin a trial whose head has ``units`` hidden ones (0: linear)."""
        if self._objective is None or self._adam is None:
            return
        features, classes = self._sizes
        first = self._objective.initial(features, units, classes, seed)
        for variable, value in zip(self.trained, first, strict=True):
            variable.assign(value)
        self._adam.reset()

    def specs(self, batch: int) -> list[Any]:
        """Types of the arguments that follow the common ones of some steps."""
        if self._objective is None:
            return []
        return [
            tf.TensorSpec([None, len(self._objective.numbers)], tf.float32),
            *(tf.TensorSpec([None, batch, *e.shape], e.dtype) for e in self._objective.extras),
        ]

    def arguments(
        self, extras: Mapping[str, np.ndarray], numbers: np.ndarray | None, steps: int
    ) -> list[Any]:
        """These arguments.

        Raises:
            ValueError: the objective asks for an array that is not there, or for other numbers.
        """
        if self._objective is None:
            return []
        wanted = steps, len(self._objective.numbers)
        given = np.zeros(wanted, np.float32) if numbers is None and not wanted[1] else numbers
        missing = [e.name for e in self._objective.extras if e.name not in extras]
        if given is None or given.shape != wanted or missing:
            shape = None if given is None else given.shape
            raise ValueError(
                f"objective: expected numbers {self._objective.numbers} of shape {wanted} and the arrays "
                f"{[e.name for e in self._objective.extras]}, received numbers of shape {shape} and {sorted(extras)}"
            )
        arrays = [tf.constant(extras[e.name], e.dtype) for e in self._objective.extras]
        return [tf.constant(given, tf.float32), *arrays]

    def blank(self, steps: int, batch: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Extras and numbers that say nothing, for a step that is only compiled."""
        if self._objective is None:
            return {}, None
        extras = {e.name: np.zeros((steps, batch, *e.shape), e.dtype) for e in self._objective.extras}
        return extras, np.zeros((steps, len(self._objective.numbers)), np.float32)

    def loss(
        self, features: Any, hidden: Any, scores: Any, labels: Any, targets: Any, *arguments: Any
    ) -> Any:
        """The scalar to minimise in one step, inside the graph."""
        each = tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=scores)
        if self._objective is None:
            return tf.reduce_mean(each)
        numbers, *arrays = arguments
        extras = {extra.name: array for extra, array in zip(self._objective.extras, arrays, strict=True)}
        named = {name: numbers[place] for place, name in enumerate(self._objective.numbers)}
        step = LossInputs(features, hidden, scores, labels, targets, each, extras, named, self.trained)
        return self._objective.loss(step)

    def apply(self, gradients: Sequence[Any], rate: Any, decay: Any) -> None:
        """One step of the optimizer, inside the graph."""
        if self._adam is not None:
            self._adam.apply(gradients, rate, decay)

"""The stand-in for a :class:`~trainables.compiled.program.Program` in trials that only train a head."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainables.backbones.backbone import Backbone
from trainables.batched_heads.batching import HeadBatcher, HeadEpochRequest, HeadEpochResult
from trainables.batched_heads.state import HeadEpoch, HeadState
from trainables.compiled.head import Head
from trainables.compiled.shapes import ProgramShape
from trainables.tracing import BUILD_LOCK


class HeadProgram:
    """The state of one trial's head; the compiled functions belong to the batcher, which all trials of its shape share.

    It reads and writes the same arrays as a :class:`~trainables.compiled.program.Program` of depth 0, so a checkpoint
    of one is a checkpoint of the other.

    Args:
        backbone: below the head.
        shape: of the program, with depth 0.
        batcher: trains and evaluates the head.
    """

    suffix = None

    def __init__(self, backbone: Backbone, shape: ProgramShape, batcher: HeadBatcher) -> None:
        self.shape = shape
        self.batcher = batcher
        self.prefix, _ = backbone.parts(0)
        self._arrays = batcher.shape.arrays
        self._state = HeadState([], [], [], 0)

    @property
    def state(self) -> HeadState:
        """The present weights and optimizer."""
        return self._state

    @property
    def head(self) -> Head:
        """The head with its present weights as Keras layers."""
        with BUILD_LOCK:
            shape = self.batcher.shape
            head = Head(shape.features, shape.units, shape.classes)
        for variable, value in zip(head.variables, self._state.weights, strict=True):
            variable.assign(value)
        return head

    def start(self, suffix_weights: list[np.ndarray], head_weights: list[np.ndarray], seed: int = 0) -> None:
        """Begin a new trial: take its first weights and reset the optimizer; ``seed`` has no effect."""
        weights = self._checked([*suffix_weights, *head_weights])
        zeros = [np.zeros(shape, np.float32) for shape in self._arrays]
        # States are never changed in place, so both moments may share the zeros.
        self._state = HeadState(weights, zeros, zeros, 0)

    def read(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return copies of :meth:`read_weights` and :meth:`read_optimizer`."""
        return self.read_weights(), self.read_optimizer()

    def read_weights(self) -> list[np.ndarray]:
        """Return a copy of each weight."""
        return [w.copy() for w in self._state.weights]

    def read_optimizer(self) -> list[np.ndarray]:
        """Return copies of the step count, the learning rate, and both moments of each weight."""
        state = self._state
        moments: list[np.ndarray] = []
        for momentum, velocity in zip(state.momentum, state.velocity, strict=True):
            moments += [momentum.copy(), velocity.copy()]
        counts: list[np.ndarray] = [np.array(state.steps, np.int64), np.array(state.rate, np.float32)]
        return [*counts, *moments]

    def write(self, weights: list[np.ndarray], optimizer: list[np.ndarray] | None = None) -> None:
        """Take over what :meth:`read` returned; without ``optimizer`` the present moments stay.

        Raises:
            ValueError: the arrays are those of another shape.
        """
        state, weights = self._state, self._checked(weights)
        if optimizer is None:
            self._state = HeadState(weights, state.momentum, state.velocity, state.steps, state.rate)
            return
        steps, rate, *moments = optimizer
        momentum, velocity = self._checked(moments[::2]), self._checked(moments[1::2])
        self._state = HeadState(weights, momentum, velocity, int(steps), float(rate))

    def run(self, epoch: HeadEpoch, validation: list[np.ndarray], labels: np.ndarray) -> HeadEpochResult:
        """Train one epoch, evaluate it, and make its state the present one.

        Args:
            epoch: the training.
            validation: activations of the validation images, in chunks (n, C).
            labels: (N,) int32, of the validation images.
        """
        result = self.batcher.run(HeadEpochRequest(epoch, validation, labels))
        self._state = result.state
        return result

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, int, np.ndarray]:
        """Evaluate activations (N, C); see :meth:`trainables.compiled.program.Program.evaluate`."""
        found = self.batcher.fused.evaluate([self._state.weights], inputs, labels)
        loss, correct, probabilities = (array[0] for array in found)
        return float(loss), int(correct), probabilities

    def _checked(self, arrays: list[Any]) -> list[np.ndarray]:
        shapes = [np.shape(a) for a in arrays]
        if shapes != self._arrays:
            raise ValueError(f"expected arrays of shapes {self._arrays}, received {shapes}")
        return [np.array(a, np.float32) for a in arrays]

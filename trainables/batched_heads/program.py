"""What a trial that only trains its head holds in place of a :class:`~trainables.compiled.program.Program`."""

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
    """The state of one trial's head; what is compiled belongs to all trials of its shape.

    It reads and writes the same arrays as a :class:`~trainables.compiled.program.Program` of depth 0, so a
    checkpoint of one
    is a checkpoint of the other.
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
        """Weights and optimizer now."""
        return self._state

    @property
    def head(self) -> Head:
        """A head of Keras layers with the present weights."""
        with BUILD_LOCK:
            shape = self.batcher.shape
            head = Head(shape.features, shape.units, shape.classes)
        for variable, value in zip(head.variables, self._state.weights, strict=True):
            variable.assign(value)
        return head

    def start(self, suffix_weights: list[np.ndarray], head_weights: list[np.ndarray], seed: int = 0) -> None:
        """Begin a new trial: take its first weights and forget the optimizer's past."""
        weights = self._checked([*suffix_weights, *head_weights])
        zeros = [np.zeros(shape, np.float32) for shape in self._arrays]
        self._state = HeadState(weights, zeros, zeros, 0)

    def read(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Copies of (weights, optimizer variables)."""
        return self.read_weights(), self.read_optimizer()

    def read_weights(self) -> list[np.ndarray]:
        """A copy of each weight."""
        return [w.copy() for w in self._state.weights]

    def read_optimizer(self) -> list[np.ndarray]:
        """Copies of step count, learning rate, then both moments of each weight."""
        state = self._state
        moments: list[np.ndarray] = []
        for momentum, velocity in zip(state.momentum, state.velocity, strict=True):
            moments += [momentum.copy(), velocity.copy()]
        counts: list[np.ndarray] = [np.array(state.steps, np.int64), np.array(state.rate, np.float32)]
        return [*counts, *moments]

    def write(self, weights: list[np.ndarray], optimizer: list[np.ndarray] | None = None) -> None:
        """Take what :meth:`read` returned."""
        state, weights = self._state, self._checked(weights)
        if optimizer is None:
            self._state = HeadState(weights, state.momentum, state.velocity, state.steps, state.rate)
            return
        steps, rate, *moments = optimizer
        momentum, velocity = self._checked(moments[::2]), self._checked(moments[1::2])
        self._state = HeadState(weights, momentum, velocity, int(steps), float(rate))

    def run(self, epoch: HeadEpoch, validation: list[np.ndarray], labels: np.ndarray) -> HeadEpochResult:
        """Train and evaluate one epoch, which becomes the present state."""
        ran = self.batcher.run(HeadEpochRequest(epoch, validation, labels))
        self._state = ran.state
        return ran

    def evaluate(self, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, int, np.ndarray]:
        """(summed cross-entropy, correct answers, probabilities (N, classes)) on activations (N, C)."""
        found = self.batcher.fused.evaluate([self._state.weights], inputs, labels)
        loss, correct, probabilities = (array[0] for array in found)
        return float(loss), int(correct), probabilities

    def _checked(self, arrays: list[Any]) -> list[np.ndarray]:
        shapes = [np.shape(a) for a in arrays]
        if shapes != self._arrays:
            raise ValueError(f"expected arrays of shapes {self._arrays}, received {shapes}")
        return [np.array(a, np.float32) for a in arrays]

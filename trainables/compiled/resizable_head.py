"""A head of any width in one graph, so that trials whose heads differ share what is compiled.

    scores = [x[:, :G], relu(x · W₁ + b₁)] · W₂ + b₂

A head with a hidden layer of U units has G = 0, a linear one U = 0 and G = all features. U and G are sizes of the
variables, not of the graph. Numbers are those of :class:`~trainables.compiled.head.Head`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.head import Head, head_shapes


class ResizableHead:
    """Variables of a head over ``features`` inputs; linear until :meth:`assign` says otherwise."""

    def __init__(self, features: int, classes: int) -> None:
        self._features, self._classes = features, classes
        now: list[tuple[int, ...]] = [(features, 0), (0,), (features, classes), (classes,)]
        ever = [[features, None], [None], [None, classes], [classes]]
        self.hidden_kernel, self.hidden_bias, self.kernel, self.bias = (
            tf.Variable(np.zeros(size, np.float32), shape=shape)
            for size, shape in zip(now, ever, strict=True)
        )

    @property
    def variables(self) -> list[Any]:
        """All of them, those without elements included."""
        return [self.hidden_kernel, self.hidden_bias, self.kernel, self.bias]

    @property
    def linear(self) -> bool:
        """Whether there is no hidden layer now."""
        return self.units == 0

    @property
    def units(self) -> int:
        """Width of the hidden layer now; 0 without one."""
        return int(self.hidden_bias.numpy().size)

    def part(self, arrays: list[Any]) -> list[Any]:
        """Of one thing a variable, those that a head of this form has: two if it is linear, else four."""
        return arrays[2:] if self.linear else arrays

    def whole(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """The reverse of :meth:`part` for arrays: those without elements are added."""
        if len(arrays) == 4:
            return arrays
        return [np.zeros((self._features, 0), np.float32), np.zeros(0, np.float32), *arrays]

    def zeros(self, units: int) -> list[np.ndarray]:
        """A head with a hidden layer of ``units`` (0: none) that says nothing."""
        shapes = head_shapes(self._features, units, self._classes)
        return [np.zeros(shape, np.float32) for shape in shapes]

    def assign(self, arrays: list[np.ndarray]) -> None:
        """Become the head with these kernels and biases, bottom first: (C, K), (K,) or (C, U), (U,), (U, K), (K,).

        Raises:
            ValueError: they don't fit together.
        """
        units = len(arrays[1]) if len(arrays) == 4 else 0
        wanted, given = head_shapes(self._features, units, self._classes), [np.shape(a) for a in arrays]
        if given != wanted:
            raise ValueError(f"expected arrays of shapes {wanted}, received {given}")
        for variable, array in zip(self.variables, self.whole(arrays), strict=True):
            variable.assign(array)

    def keras_head(self) -> Head:
        """The same head as Keras layers."""
        head = Head(self._features, self.units, self._classes)
        for variable, mine in zip(head.variables, self.part(self.variables), strict=True):
            variable.assign(mine)
        return head

    def hidden(self, features: Any) -> Any:
        """Inputs (B, G + U) of the last layer."""
        hidden = tf.nn.relu(tf.matmul(features, self.hidden_kernel) + self.hidden_bias)
        direct = tf.shape(self.kernel)[0] - tf.shape(hidden)[1]
        return tf.concat([features[:, :direct], hidden], axis=1)

    def scores(self, hidden: Any, dropout: Any = None, seed: Any = None) -> Any:
        """Scores (B, K) before softmax; with ``seed`` (2,) int32, drops ``dropout`` of the last layer's inputs."""
        x = hidden
        if seed is not None:
            keep = tf.random.stateless_uniform(tf.shape(x), seed) >= dropout
            x = tf.where(keep, x / (1.0 - dropout), 0.0)
        return tf.matmul(x, self.kernel) + self.bias

    def __call__(self, features: Any, dropout: Any = None, seed: Any = None) -> Any:
        """:meth:`scores` of :meth:`hidden`."""
        return self.scores(self.hidden(features), dropout, seed)

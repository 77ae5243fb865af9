"""A head whose width is not part of the graph, so that trials with different heads share one compiled program.

    scores = [x[:, :G], relu(x · W₁ + b₁)] · W₂ + b₂

A head with a hidden layer of U units has G = 0; a linear head has U = 0, and G is the number of features. U and G are
sizes of the variables, not of the graph. The results are those of :class:`~trainables.compiled.head.Head`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trainables.compiled.head import Head, head_shapes


class ResizableHead:
    """A head of any width.

    It is linear, with weights of zero, until :meth:`assign` is called.

    Args:
        features: width C of the pooled features.
        classes: number of classes K.
    """

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
        """All variables, those without elements included."""
        return [self.hidden_kernel, self.hidden_bias, self.kernel, self.bias]

    @property
    def linear(self) -> bool:
        """Whether the head has no hidden layer now."""
        return self.units == 0

    @property
    def units(self) -> int:
        """Width of the hidden layer now; 0 without one."""
        return int(self.hidden_bias.numpy().size)

    def without_empty(self, arrays: list[Any]) -> list[Any]:
        """Drop items of variables without elements: of four, one per variable, a linear head keeps the last two."""
        return arrays[2:] if self.linear else arrays

    def with_empty(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Add arrays without elements: the reverse of :meth:`without_empty`."""
        if len(arrays) == 4:
            return arrays
        return [np.zeros((self._features, 0), np.float32), np.zeros(0, np.float32), *arrays]

    def zeros(self, units: int) -> list[np.ndarray]:
        """Return kernels and biases of zeros for a head with a hidden layer of ``units`` (0: linear)."""
        shapes = head_shapes(self._features, units, self._classes)
        return [np.zeros(shape, np.float32) for shape in shapes]

    def assign(self, arrays: list[np.ndarray]) -> None:
        """Take over kernels and biases, bottom first: (C, K), (K,) or (C, U), (U,), (U, K), (K,).

        Raises:
            ValueError: they are no head of these features and classes.
        """
        units = len(arrays[1]) if len(arrays) == 4 else 0
        wanted, given = head_shapes(self._features, units, self._classes), [np.shape(a) for a in arrays]
        if given != wanted:
            raise ValueError(f"expected arrays of shapes {wanted}, received {given}")
        for variable, array in zip(self.variables, self.with_empty(arrays), strict=True):
            variable.assign(array)

    def keras_head(self) -> Head:
        """Return the same head as Keras layers."""
        head = Head(self._features, self.units, self._classes)
        for variable, mine in zip(head.variables, self.without_empty(self.variables), strict=True):
            variable.assign(mine)
        return head

    def hidden(self, features: Any) -> Any:
        """Return the inputs (B, G + U) of the last layer for features (B, C)."""
        hidden = tf.nn.relu(tf.matmul(features, self.hidden_kernel) + self.hidden_bias)
        # G is what the last layer takes beyond the hidden units: 0 with a hidden layer, else all features.
        direct = tf.shape(self.kernel)[0] - tf.shape(hidden)[1]
        return tf.concat([features[:, :direct], hidden], axis=1)

    def scores(self, hidden: Any, dropout: Any = None, seed: Any = None) -> Any:
        """Return scores (B, K) before softmax.

        Args:
            hidden: what :meth:`hidden` returned.
            dropout: rate at these inputs, a scalar tensor.
            seed: (2,) int32, from which the dropout mask is drawn; None for inference.
        """
        x = hidden
        if seed is not None:
            keep = tf.random.stateless_uniform(tf.shape(x), seed) >= dropout
            x = tf.where(keep, x / (1.0 - dropout), 0.0)
        return tf.matmul(x, self.kernel) + self.bias

    def __call__(self, features: Any, dropout: Any = None, seed: Any = None) -> Any:
        """Return :meth:`scores` of :meth:`hidden`."""
        return self.scores(self.hidden(features), dropout, seed)

"""Trains the copy of a backbone's top blocks: forward pass, optimizers, gradual unfreezing and penalty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.backbones.backbone import Backbone
from trainables.compiled.adam import Adam
from trainables.compiled.quadratic_penalty import PenaltyState, QuadraticPenalty
from trainables.compiled.suffix import block_indices, block_models


class TrainableSuffix:
    """The trained blocks of a program with their optimizers.

    Args:
        backbone: of which ``suffix`` is a part.
        suffix: the copy of the top ``depth`` blocks; None if ``depth`` is 0.
        depth: number of blocks.
        gradual: blocks with a learning rate of zero behave as if they were frozen, and each block has an optimizer of
            its own, so that its step count begins when it begins to train. Otherwise one optimizer serves all blocks.
        penalised: a quadratic penalty takes the place of weight decay.

    Attributes:
        variables: those that gradients train.
    """

    def __init__(self, backbone: Backbone, suffix: Any, depth: int, gradual: bool, penalised: bool) -> None:
        self._suffix = suffix
        self._trained = list(suffix.trainable_variables) if suffix is not None else []
        self.variables = [v.value for v in self._trained]
        # Which block each variable belongs to; then, the variables of each optimizer.
        self._owners = block_indices(self._trained, backbone, suffix, depth) if self._trained else []
        groups = sorted({*self._owners}) if gradual else [None] if self._owners else []
        self._parts = [[i for i, of in enumerate(self._owners) if block in (None, of)] for block in groups]
        self._adams = [Adam([self.variables[i] for i in part]) for part in self._parts]
        self._gradual = gradual
        self._blocks = block_models(backbone, suffix, depth) if gradual and self._trained else []
        self._penalty = PenaltyState(self.variables) if penalised and self._trained else None

    @property
    def optimizer_variables(self) -> list[Any]:
        """What a checkpoint needs: step count, learning rate and moments of each optimizer."""
        return [v for adam in self._adams for v in adam.variables]

    @property
    def penalty_variables(self) -> list[Any]:
        """Variables of the penalty. They stay the same during a trial, so a checkpoint does not need them."""
        return self._penalty.variables if self._penalty is not None else []

    def reset(self) -> None:
        """Reset the optimizers."""
        for adam in self._adams:
            adam.reset()

    def set_penalty(self, penalty: QuadraticPenalty) -> None:
        """Hold the weights back by ``penalty`` from now on; no effect unless they are penalised."""
        if self._penalty is not None:
            importance = None if penalty.importance is None else self._select_trained(penalty.importance)
            self._penalty.assign(penalty.strength, self._select_trained(penalty.anchors), importance)

    def features(self, x: Any, ratios: Any) -> Any:
        """Return pooled features (B, C) float32 in training mode; inside a graph.

        Args:
            x: (B, …) activations at the cut.
            ratios: (depth,) learning rates of the blocks as shares of the head's, bottom first.
        """
        if self._suffix is None:
            return x
        if not self._blocks:
            return tf.cast(self._suffix(x, training=True), tf.float32)
        # A block that does not train yet must behave as a frozen one: dropout off, BatchNorm statistics fixed, and no
        # backward pass. tf.cond runs only the branch that is taken, so such a block costs no more than a frozen one.
        for block, ratio in zip(self._blocks, tf.unstack(ratios), strict=True):
            x = tf.cond(ratio > 0.0, partial(block, x, training=True), partial(_frozen, block, x))
        return tf.cast(x, tf.float32)

    def apply(self, gradients: Sequence[Any], rate: Any, ratios: Any, decay: Any) -> None:
        """Take one step of the optimizers; inside a graph.

        Args:
            gradients: one for each of :attr:`variables`.
            rate: learning rate of the head, a scalar.
            ratios: (depth,) shares of it for the blocks, bottom first.
            decay: weight decay, a scalar.
        """
        if self._penalty is not None:
            # The penalty replaces weight decay, which would pull the same weights towards zero instead of their
            # anchors.
            gradients, decay = self._penalty.add_to(gradients), None
        rates = [rate * ratio for ratio in tf.unstack(ratios)]
        for adam, part in zip(self._adams, self._parts, strict=True):
            own = [rates[self._owners[i]] for i in part]
            step = partial(adam.apply, [gradients[i] for i in part], own, decay)
            if self._gradual:
                # A step with a rate of zero would still move Adam's moments and count as a step.
                tf.cond(ratios[self._owners[part[0]]] > 0.0, partial(_as_branch, step), tf.no_op)
            else:
                step()

    def _select_trained(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """From one array for each weight of the suffix, those of the trained weights."""
        places = {id(weight): i for i, weight in enumerate(self._suffix.weights)}
        return [arrays[places[id(v)]] for v in self._trained]


def _frozen(block: Any, x: Any) -> Any:
    """The output of a block in inference mode, through which no gradient passes."""
    return tf.stop_gradient(block(x, training=False))


def _as_branch(step: Callable[[], None]) -> Any:
    """Run ``step`` as a branch of ``tf.cond``, which must return an operation."""
    step()
    return tf.no_op()

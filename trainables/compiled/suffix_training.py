"""What trains of a backbone: the copy of its top blocks, with their optimizers and what pulls them back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from trainables.backbones.backbone import Backbone
from trainables.compiled.adam import Adam
from trainables.compiled.l2sp import L2SPPenalty, WeightPull
from trainables.compiled.suffix import block_models, blocks_of


class TrainableSuffix:
    """``suffix``, a copy of the top ``depth`` blocks of ``backbone``; None where nothing is unfrozen.

    ``gradual`` blocks with a learning rate of zero are as if they were frozen, and each has an optimizer of its own;
    else one serves all. ``pulled`` blocks are drawn towards anchors, in the place of weight decay.

    Attributes:
        variables: those that gradients train.
    """

    def __init__(self, backbone: Backbone, suffix: Any, depth: int, gradual: bool, pulled: bool) -> None:
        self._suffix = suffix
        self._trained = list(suffix.trainable_variables) if suffix is not None else []
        self.variables = [v.value for v in self._trained]
        self._owners = blocks_of(self._trained, backbone, suffix, depth) if self._trained else []
        groups = sorted({*self._owners}) if gradual else [None] if self._owners else []
        self._parts = [[i for i, of in enumerate(self._owners) if block in (None, of)] for block in groups]
        self._adams = [Adam([self.variables[i] for i in part]) for part in self._parts]
        self._gradual = gradual
        self._blocks = block_models(backbone, suffix, depth) if gradual and self._trained else []
        self._anchor = L2SPPenalty(self.variables) if pulled and self._trained else None

    @property
    def optimizer_variables(self) -> list[Any]:
        """What a checkpoint needs: steps, rate and moments of each optimizer."""
        return [v for adam in self._adams for v in adam.variables]

    @property
    def anchor_variables(self) -> list[Any]:
        """What is the same for a whole trial."""
        return self._anchor.variables if self._anchor is not None else []

    def reset(self) -> None:
        """Forget the optimizers' past."""
        for adam in self._adams:
            adam.reset()

    def pull(self, pull: WeightPull) -> None:
        """From now on draw the weights as ``pull`` says; only if they are pulled at all."""
        if self._anchor is not None:
            importance = None if pull.importance is None else self._of_trained(pull.importance)
            self._anchor.assign(pull.strength, self._of_trained(pull.anchors), importance)

    def features(self, x: Any, ratios: Any) -> Any:
        """What the blocks make of activations at the cut while they train, float32; inside a graph.

        ``ratios`` (depth,) of the blocks' learning rates to the head's, bottom first.
        """
        if self._suffix is None:
            return x
        if not self._blocks:
            return tf.cast(self._suffix(x, training=True), tf.float32)
        for block, ratio in zip(self._blocks, tf.unstack(ratios), strict=True):
            x = tf.cond(ratio > 0.0, partial(block, x, training=True), partial(_frozen, block, x))
        return tf.cast(x, tf.float32)

    def apply(self, gradients: Sequence[Any], rate: Any, ratios: Any, decay: Any) -> None:
        """One step of the optimizers, inside a graph."""
        if self._anchor is not None:
            gradients, decay = self._anchor.added(gradients), None
        rates = [rate * ratio for ratio in tf.unstack(ratios)]
        for adam, part in zip(self._adams, self._parts, strict=True):
            own = [rates[self._owners[i]] for i in part]
            step = partial(adam.apply, [gradients[i] for i in part], own, decay)
            if self._gradual:
                tf.cond(ratios[self._owners[part[0]]] > 0.0, partial(_done, step), tf.no_op)
            else:
                step()

    def _of_trained(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of one array for each of the suffix's weights, those of the trained ones."""
        places = {id(weight): i for i, weight in enumerate(self._suffix.weights)}
        return [arrays[places[id(v)]] for v in self._trained]


def _frozen(block: Any, x: Any) -> Any:
    """A block in inference mode that no gradient passes."""
    return tf.stop_gradient(block(x, training=False))


def _done(step: Callable[[], None]) -> Any:
    """``step``, as a branch of a graph."""
    step()
    return tf.no_op()

"""What a search is compared with: training from scratch, training on the source alone, and the frozen probe.

``scratch`` shows what the pretrained weights are worth; ``source`` shows what the target's images are worth; ``probe``
shows what training is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from trainables.batched_heads.state import HeadShape
from trainables.errors import UsageError
from trainables.methods.source_training import SourceTraining
from trainables.training.method_hooks import TrainingPlan
from trainables.training.probes.frozen_probe import ProbeChoice, choose_probe
from trainables.training.probes.probe_program import ProbeFeed, ProbeProgram
from trainables.training.training import Training
from trainables.training.trial_cost import TrialCost


class Scratch(Training):
    """Trains every block of the same architecture from random weights.

    BatchNorm always adapts: without pretrained statistics there is nothing to freeze.
    """

    def plan(self) -> TrainingPlan:
        """All blocks, from random weights that are a function of the trial's seed."""
        backbone = self.bench.backbone
        depth = len(backbone.blocks)
        _, suffix = backbone.parts(depth)
        # The suffix shares its variables with the whole model, so its weights are found by identity.
        fresh = dict(
            zip(map(id, backbone.model.weights), backbone.fresh_weights(self.config.seed), strict=True)
        )
        weights = [fresh[id(w)] for w in suffix.weights] if suffix is not None else []
        return TrainingPlan(depth, weights, adapt=True)


class SourceOnly(SourceTraining):
    """Fine-tunes on the source's images of shared classes alone, and is evaluated on the target."""

    @property
    def _head_init(self) -> object:
        """Random unless the trial says otherwise: a probe would learn from labels of the target."""
        return self.config.params.get("head_init", "random")

    @property
    def share(self) -> float:
        """1: whole batches are from the source."""
        return 1.0

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """``weight``: 1 for each source image of a shared class."""
        return {"weight": self.image_weights(1.0, np.ones(len(self.source.shared_rows("train"))))}


class Probe(Training):
    """Fits the frozen probe, a logistic regression on what the backbone knows already, in one epoch.

    There is no gradient step, and the seed has no influence (:mod:`trainables.training.probes.frozen_probe`).

    The parameters ``unfreeze_depth`` and ``head_units`` are 0. With an ``augmentation_strength`` above 0, a candidate
    that sees augmented images is tried, too. ``probe_depth`` is the number of blocks above the cut, if that has been
    chosen before; otherwise several cuts are tried.
    """

    feed: ProbeFeed

    def plan(self) -> TrainingPlan:
        """Nothing trains.

        Raises:
            UsageError: the trial has blocks to train or a hidden layer.
        """
        for name in ("unfreeze_depth", "head_units"):
            if self.config.number(name) != 0:
                raise UsageError(f"{name}: expected 0 for the probe, received {self.config.params[name]!r}")
        return TrainingPlan(0, [], adapt=False)

    def _start(self) -> None:
        self._plan, self._units, self.depth = self.plan(), 0, 0
        self._acquired = False
        # Replaced once the cut is chosen.
        self.feed = self._make_feed(0, None)

    @property
    def done(self) -> bool:
        """Whether the only epoch has run."""
        return self.epoch >= 1

    def release(self) -> None:
        """Hand the functions that evaluate the head over to the next trial."""
        if self._acquired:
            self._acquired = False
            super().release()

    def cost(self) -> TrialCost:
        """Return what this trial reused and computed so far, and what was chosen."""
        choice = self.feed.choice
        return replace(super().cost(), probe=choice.describe() if choice else None)

    def restore_feed(self, described: Mapping[str, Any]) -> None:
        """Take up the cut that was chosen earlier.

        Raises:
            ValueError, KeyError, TypeError: the record is of another trial.
        """
        self._use(ProbeChoice.from_json(described["probe"]))
        self.feed.restore(described)

    def _train_and_evaluate(self) -> tuple[float, float, float]:
        """Fit the probe; return (training loss, validation loss, validation accuracy)."""
        cut = int(self.config.number("probe_depth")) if "probe_depth" in self.config.params else None
        choice, weights = choose_probe(
            self.bench, self.config.number("augmentation_strength"), self.account, cut
        )
        self._use(choice)
        self.program.write(weights)
        return self._training_loss(), *self.evaluate("validation")

    def _training_loss(self) -> float:
        """Mean cross-entropy of the training images, on the features on which the probe was fitted."""
        labels = self.bench.task.split("train").labels.astype(np.int32)
        loss, seen = 0.0, 0
        for chunk in self.bench.activations.chunks("train", self.feed.depth, self.account):
            with self.account.timing("evaluate"):
                loss += self.program.evaluate(chunk, labels[seen : seen + len(chunk)])[0]
            seen += len(chunk)
        return loss / seen

    def _use(self, choice: ProbeChoice) -> None:
        """Prepare the evaluation at the chosen cut."""
        depth = choice.best.depth
        self.release()
        self.feed = self._make_feed(depth, choice)
        width = self.bench.activations.stages.shape(depth)[-1]
        shape = HeadShape(width, 0, len(self.bench.task.classes), self.feed.batch_size)
        # Pooled features are float32; the backbone's own ones are read as they are kept.
        dtype = self.bench.activations.dtype(0) if depth == 0 and not self.feed.exact else "float32"
        with self.account.timing("wait"):
            batcher, seconds = self.bench.acquire_heads(shape, dtype, train=False)
            self.account.charge("compile", seconds)
        self._acquired = True
        self.account.counts.add(programs_compiled=int(seconds > 0))
        self.program = ProbeProgram(self.bench.backbone, depth, self._shape(self._plan), batcher)
        zeros = [np.zeros(array, np.float32) for array in shape.arrays]
        self.program.start([], zeros)

    def _make_feed(self, depth: int, choice: ProbeChoice | None) -> ProbeFeed:
        options = {**self.feed_options, "epochs": 1, "flip": False}
        if choice is not None:
            options["strength"] = choice.best.strength
        return ProbeFeed(self.bench, depth, **options, choice=choice)

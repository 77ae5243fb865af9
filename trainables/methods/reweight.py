"""Instance transfer: trains on source images, too, each weighted by its similarity to the target.

Weights come from the odds of a domain classifier or from kernel mean matching
(:mod:`trainables.methods.importance_weights`), or they shrink during training as in TrAdaBoost (Dai et al. 2007,
Boosting for transfer learning), where source images that a model of the target gets wrong lose weight:

    w_S ← w_S · β^e,   β = 1 / (1 + √(2 ln n_S / N))

e in [0, 1] is the error on a source image, N the number of rounds. In the paper a round is a weak learner, and the
prediction is a vote of them. Here a round is an epoch of one network, and e is one minus the probability that it gives
to the image's class. The paper also changes the weights of target images, for the vote; here they stay 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from trainables.errors import UsageError
from trainables.methods.importance_weights import importance_weights, kmm_weights, temper_weights
from trainables.methods.parameter_values import LABEL_FREE_WEIGHTINGS, WEIGHTINGS
from trainables.methods.source_features import source_and_target_features, source_log_ratios
from trainables.methods.source_training import SourceTraining
from trainables.training.method_hooks import TrainingPlan


class Reweight(SourceTraining):
    """Fine-tunes on batches that mix target and source, and weights the source's images in the loss.

    Parameters of the trial:

    * ``weighting``: where the weights come from, one of :data:`WEIGHTINGS` (default ``odds``).
    * ``source_share``: share of the source in a batch, above 0 and at most 1 (0.5). It is 1 if the labels of the target
      are hidden.
    * ``weight_clip``: largest weight as a multiple of the mean, at least 1 (10).
    * ``weight_temperature``: above 1 makes the weights more equal, below 1 less (1).
    """

    def plan(self) -> TrainingPlan:
        """Return the plan of fine-tuning, after checking the weighting parameters."""
        if self.weighting not in WEIGHTINGS:
            raise UsageError(
                f"weighting: expected one of {', '.join(WEIGHTINGS)}, received {self.weighting!r}"
            )
        if self.weighting not in LABEL_FREE_WEIGHTINGS and self.bench.unlabelled:
            raise UsageError(
                f"weighting: expected {' or '.join(LABEL_FREE_WEIGHTINGS)} for a target without labels, "
                f"received {self.weighting!r}"
            )
        if not 0 < self.config.number("source_share", 0.5) <= 1:
            raise UsageError(
                f"source_share: expected above 0 and at most 1, received {self.config.params['source_share']!r}"
            )
        return super().plan()

    @property
    def weighting(self) -> str:
        """Where the weights come from, one of :data:`WEIGHTINGS`."""
        return str(self.config.params.get("weighting", "odds"))

    @property
    def share(self) -> float:
        """Share of the source in a batch; 1 if the labels of the target are hidden."""
        return 1.0 if self.bench.unlabelled else self.config.number("source_share", 0.5)

    def before_first_epoch(self) -> None:
        """Start the head as in fine-tuning, and compute the first weights of the source's images."""
        super().before_first_epoch()
        self._weights = self._first_weights()

    def example_inputs(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Return ``weight``, whose mean is 1: over all images with TrAdaBoost, over the source's otherwise.

        TrAdaBoost's weights only shrink. Without the division by the mean the learning rate would shrink with them.
        """
        if self.weighting != "tradaboost":
            return {"weight": self.image_weights(1.0, self._weights)}
        mean = self.share * self._weights.mean() + (1 - self.share)
        return {"weight": self.image_weights(1.0 / mean, self._weights / mean)}

    def after_epoch(self) -> None:
        """With TrAdaBoost, shrink the weights of source images that the trial gets wrong."""
        if self.weighting == "tradaboost":
            rows = self.source.shared_rows("train")
            predicted = self.predict_source("train")[rows]
            # The paper's error is |prediction − label|; for several classes, one minus the probability of the image's
            # class.
            errors = 1.0 - predicted[np.arange(len(rows)), self.source.labels("train")[rows]]
            self._weights = tradaboost_weights(
                self._weights, errors, tradaboost_beta(len(rows), self.config.epochs)
            )

    state_size = 1

    def method_state(self) -> list[np.ndarray]:
        """Return the weights; TrAdaBoost's depend on all earlier epochs."""
        return [self._weights]

    def restore_method_state(self, state: list[np.ndarray]) -> None:
        """Take back the weights."""
        (self._weights,) = state

    def _first_weights(self) -> np.ndarray:
        clip, temperature = (
            self.config.number("weight_clip", 10.0),
            self.config.number("weight_temperature", 1.0),
        )
        if clip < 1 or temperature <= 0:
            raise UsageError(
                f"weight_clip, weight_temperature: expected at least 1 and above 0, received {clip} and {temperature}"
            )
        with self.account.timing("prefix"):
            if self.weighting == "tradaboost":
                return np.ones(len(self.source.shared_rows("train")))
            if self.weighting == "odds":
                ratios = source_log_ratios(self.source, self.bench, "train", self.account)
                return importance_weights(ratios, temperature, clip)
            features = source_and_target_features(self.source, self.bench, "train", self.account)
            # Rounded, so that trials whose values differ by less share one solution.
            made = self.source.compute_once(
                ("kmm", round(clip, 3)), lambda: kmm_weights(*features, round(clip, 3))
            )
            return temper_weights(made, temperature, clip)


def tradaboost_beta(images: int, rounds: int) -> float:
    """Return β for n_S ``images`` of the source and N ``rounds``."""
    return 1.0 / (1.0 + math.sqrt(2.0 * math.log(max(images, 1)) / max(rounds, 1)))


def tradaboost_weights(weights: np.ndarray, errors: np.ndarray, beta: float) -> np.ndarray:
    """Return the source's weights (n_S,) after a round with ``errors`` (n_S,) in [0, 1]."""
    return np.asarray(weights * beta ** np.clip(errors, 0.0, 1.0))

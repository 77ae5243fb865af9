"""Instance transfer: source images train beside the target's, each with a weight of its likeness to the target.

Boosting for transfer: source images that a model of the target gets wrong lose weight (Dai et al. 2007, TrAdaBoost).

    w_S ← w_S · β^e,   β = 1 / (1 + √(2 ln n_S / N))

e in [0, 1] is the error on a source image, N the number of rounds. There a round is a weak learner and the answer a
vote of them; here it is an epoch of one network, e is one minus the probability that the network gives to the image's
class, and the target's own weights, which a vote needs, stay 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from trainables.errors import UsageError
from trainables.methods.importance_weights import importance_weights, kmm_weights, temper_weights
from trainables.methods.source_features import source_and_target_features, source_log_ratios
from trainables.methods.source_training import SourceTraining
from trainables.training.training import TrainingPlan


def tradaboost_beta(images: int, rounds: int) -> float:
    """β for ``images`` of the source (n_S) and ``rounds`` (N)."""
    return 1.0 / (1.0 + math.sqrt(2.0 * math.log(max(images, 1)) / max(rounds, 1)))


def tradaboost_weights(weights: np.ndarray, errors: np.ndarray, beta: float) -> np.ndarray:
    """Source weights (n_S,) after a round with ``errors`` (n_S,) between 0 and 1."""
    return np.asarray(weights * beta ** np.clip(errors, 0.0, 1.0))


WEIGHTINGS = ("odds", "kmm", "tradaboost")
"""Odds of a domain classifier, kernel mean matching, or weights that shrink with the trial's own errors."""


class Reweight(SourceTraining):
    """Fine-tunes on both, ``source_share`` of each batch from the source.

    ``weighting`` says where a source image's weight in the loss comes from; ``weight_clip`` is the most that one may
    have, ``weight_temperature`` makes weights more alike (above 1) or less. Without labels of the target the source
    trains alone.
    """

    def plan(self) -> TrainingPlan:
        """As in fine-tuning."""
        if self.weighting not in WEIGHTINGS:
            raise UsageError(
                f"weighting: expected one of {', '.join(WEIGHTINGS)}, received {self.weighting!r}"
            )
        if self.weighting == "tradaboost" and self.bench.unlabelled:
            raise UsageError(
                "weighting: expected odds or kmm for a target without labels, received 'tradaboost'"
            )
        if not 0 < self.config.number("source_share", 0.5) <= 1:
            raise UsageError(
                f"source_share: expected above 0 and at most 1, received {self.config.params['source_share']!r}"
            )
        return super().plan()

    @property
    def weighting(self) -> str:
        """One of WEIGHTINGS."""
        return str(self.config.params.get("weighting", "odds"))

    @property
    def share(self) -> float:
        """Of the source in a batch."""
        return 1.0 if self.bench.unlabelled else self.config.number("source_share", 0.5)

    def prepare(self) -> None:
        """The first weights."""
        super().prepare()
        self._weights = self._first_weights()

    def beside(self, epoch: int) -> Mapping[str, np.ndarray]:
        """Weights, 1 on average: of all images in boosting, else of the source's."""
        if self.weighting != "tradaboost":
            return {"weight": self.per_image(1.0, self._weights)}
        mean = self.share * self._weights.mean() + (1 - self.share)
        return {"weight": self.per_image(1.0 / mean, self._weights / mean)}

    def after_epoch(self) -> None:
        """In boosting, take weight from the source images that the trial gets wrong."""
        if self.weighting == "tradaboost":
            rows = self.source.rows("train")
            said = self.answers_to_source("train")[rows]
            errors = 1.0 - said[np.arange(len(rows)), self.source.labels("train")[rows]]
            self._weights = tradaboost_weights(
                self._weights, errors, tradaboost_beta(len(rows), self.config.epochs)
            )

    state_size = 1

    def state(self) -> list[np.ndarray]:
        """The weights: those of boosting are the trial's history."""
        return [self._weights]

    def restore(self, state: list[np.ndarray]) -> None:
        """Take the weights as they were."""
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
                return np.ones(len(self.source.rows("train")))
            if self.weighting == "odds":
                ratios = source_log_ratios(self.source, self.bench, "train", self.account)
                return importance_weights(ratios, temperature, clip)
            features = source_and_target_features(self.source, self.bench, "train", self.account)
            made = self.source.once(("kmm", round(clip, 3)), lambda: kmm_weights(*features, round(clip, 3)))
            return temper_weights(made, temperature, clip)

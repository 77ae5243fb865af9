"""Instance transfer: source images train beside the target's, each with a weight of its likeness to the target."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainables.errors import UsageError
from trainables.kernel_mean_matching import matching_weights
from trainables.methods.importance_weights import likeness_weights, tempered
from trainables.methods.source_features import both_features, source_log_ratios
from trainables.methods.source_training import SourceTraining
from trainables.tradaboost import shrinkage, shrunk
from trainables.training.training import Plan

WEIGHTINGS = ("odds", "kmm", "tradaboost")
"""Odds of a domain classifier, kernel mean matching, or weights that shrink with the trial's own errors."""


class Reweight(SourceTraining):
    """Fine-tunes on both, ``source_share`` of each batch from the source.

    ``weighting`` says where a source image's weight in the loss comes from; ``weight_clip`` is the most that one may
    have, ``weight_temperature`` makes weights more alike (above 1) or less. Without labels of the target the source
    trains alone.
    """

    def plan(self) -> Plan:
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
            self._weights = shrunk(self._weights, errors, shrinkage(len(rows), self.config.epochs))

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
                return likeness_weights(ratios, temperature, clip)
            features = both_features(self.source, self.bench, "train", self.account)
            made = self.source.once(
                ("kmm", round(clip, 3)), lambda: matching_weights(*features, round(clip, 3))
            )
            return tempered(made, temperature, clip)

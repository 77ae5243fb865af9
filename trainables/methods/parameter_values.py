"""The valid values of the parameters of methods that are names.

The command line builds the search space from these tuples, so the module imports no TensorFlow. Their order must not
change: Optuna refuses to continue a ledger in which a parameter has the same values in another order.
"""

from __future__ import annotations

HEAD_INITS = ("random", "probe")
"""What the head starts from: random weights, or a trained probe (:mod:`trainables.training.linear_probe`)."""

WEIGHTINGS = ("odds", "kmm", "tradaboost")
"""Odds of a domain classifier, kernel mean matching, or weights that shrink with the trial's errors (TrAdaBoost)."""

LABEL_FREE_WEIGHTINGS = ("odds", "kmm")
"""Those of :data:`WEIGHTINGS` that need no labels of the target. They compare features instead of losses."""

ALIGNMENTS = ("coral", "mmd", "dann")
"""Distances between the domains: of covariances, the maximum mean discrepancy, or a discriminator's success."""

ALIGNMENT_SCHEDULES = ("constant", "ramp")
"""How λ changes during training: not at all, or from 0 to its value as in DANN."""

ALIGNMENT_LAYERS = ("features", "hidden")
"""Where the domains are compared: at the backbone's output, or at the hidden layer of the head."""

DISTILLATIONS = ("plain", "relational", "both")
"""What the student learns from the teacher: its predictions, the relations that it sees between images, or both."""

REMEMBERINGS = ("ewc", "lwf", "rehearsal")
"""How the old task is kept: elastic weight consolidation, learning without forgetting, or old images in each batch."""

NOT_REMEMBERING = "none"
"""Value of ``remembering`` for a trial that only measures what is forgotten. No search space holds it."""

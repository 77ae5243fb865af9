"""The names that options accept, each with a line for the help page. Every list of valid names lives here.

What a search is compared with, in words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

BASELINE_SOURCES: Mapping[str, str] = {
    "scratch": "scratch",
    "finetune": "the target alone",
    "source": "the source alone",
}
"""What each trains from."""


def baseline_phrase(method: str) -> str:
    """``training from scratch`` and the like."""
    return f"training from {BASELINE_SOURCES.get(method, method)}"


MAX_EPOCH_FACTOR = 10.0


def baseline_epoch_factor(target: int, source: int) -> float:
    """How many times as many epochs training images of the ``target`` alone get as those of both, ten at most.

    An epoch of both has as many more batches; a baseline of fewer steps would be beaten for that alone.
    """
    return min((target + source) / target, MAX_EPOCH_FACTOR)


_LONGEST = 60
"""Letters of a word that are compared with the names: no name is as long."""


@dataclass(frozen=True)
class Method:
    """A way to train.

    ``transfers`` says whether it starts from the backbone's pretrained weights; ``needs`` are options without which it
    can do nothing. ``labels`` is whether it needs the target's. A ``rival`` is one that ``--method all`` chooses from.
    """

    words: str
    transfers: bool
    needs: tuple[str, ...] = ()
    labels: bool = True
    rival: bool = True


METHODS: Mapping[str, Method] = {
    "finetune": Method("start from the pretrained weights, train the head and the top blocks", True),
    "reweight": Method(
        "train on source images too, weighted by their likeness to the target", True, ("source",), False
    ),
    "align": Method("train so that the features of source and target look alike", True, ("source",), False),
    "distill": Method(
        "learn from the labels and from a larger backbone: its answers, and the relations it sees between images",
        True,
        ("teacher",),
    ),
    "source": Method("train on the source alone: a baseline", True, ("source",), False, rival=False),
    "scratch": Method("start from random weights: the baseline that transfers nothing", False, rival=False),
}
REQUIRED_OPTIONS: Mapping[str, str] = {
    "source": "--source DATA, which it transfers from",
    "teacher": "--teacher BACKBONE, which it learns from",
}
"""What options are for that a method can't do without."""

ALL_METHODS = "all"
"""The method is a parameter of the search."""

METHOD_NAMES: Mapping[str, str] = {
    **{name: method.words for name, method in METHODS.items()},
    ALL_METHODS: "let the search choose among those that can run",
}
SPACES: Mapping[str, str] = {
    "core": "unfreeze_depth, learning_rate, head_units, augmentation_strength",
    "full": "core and weight_decay, dropout, label_smoothing, backbone_lr_ratio, horizontal_flip, head_init, l2sp, "
    "layer_lr_decay, gradual_unfreezing",
}
SAMPLERS: Mapping[str, str] = {
    "tpe": "tree-structured Parzen estimator: learns from every finished trial",
    "random": "independent random configurations",
    "qmc": "quasi-Monte Carlo: an even cover of the space",
    "cmaes": "covariance matrix adaptation, for numeric spaces",
    "nsga2": "a genetic algorithm",
}
SCHEDULERS: Mapping[str, str] = {
    "asha": "asynchronous successive halving: stops weak trials early",
    "hyperband": "several successive halvings, from bold to careful",
    "median": "stops a trial that is below the median of the others",
    "none": "trains every trial to its last epoch",
}
PREPROCESSING: Mapping[str, str] = {
    "auto": "what the backbone was trained with",
    "none": "raw pixels, 0 to 255",
    "tf": "scaled to -1 to 1",
    "torch": "scaled to 0 to 1, then by ImageNet's mean and deviation",
    "caffe": "BGR, ImageNet's mean taken off",
    "unit": "scaled to 0 to 1",
}
BATCH_NORM: Mapping[str, str] = {
    "auto": "adapt, unless batches hold fewer than 8 images",
    "adapt": "the unfrozen part learns the statistics of the new data",
    "frozen": "the pretrained statistics everywhere",
}
PRECISION: Mapping[str, str] = {
    "auto": "mixed_float16 on GPUs with tensor cores, else float32",
    "float32": "32 bits throughout",
    "mixed_float16": "the backbone computes in float16, weights and scores in float32",
    "mixed_bfloat16": "the same in bfloat16, which has a wider range and fewer digits",
}
PRIOR: Mapping[str, str] = {
    "on": "of several backbones those with better scores are tried more often at first",
    "off": "no backbone is preferred before trials tell",
}
JIT: Mapping[str, str] = {
    "auto": "on where there is a GPU",
    "on": "XLA compiles the training step",
    "off": "TensorFlow runs it operation by operation",
}


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the name most like ``word``, or nothing."""
    found = difflib.get_close_matches(word[:_LONGEST].lower(), list(names), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""

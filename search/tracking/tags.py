"""Convert facts about a model version to tags and back: accuracy, input, test images, serving costs, old task."""

from __future__ import annotations

from collections.abc import Mapping

from search.records.record import OldTask, Outcome
from trainables.serving.footprint import Footprint, Latency

INPUT_FORM_TAG = "unfreeze.input"
TEST_DIGEST_TAG = "unfreeze.test_digest"
"""Digest of the test images whose predictions are stored with the model; missing if there are none."""

FORGOTTEN_TAG = "unfreeze.forgotten"
"""Accuracy on an old task that the version's backbone has lost. With the suffixes ``_mean``, ``_low`` and ``_high``:
the mean over the winner's training runs, and its 95 % interval.
"""

_PREFIX = "unfreeze."
_LATENCIES = ("latency_ms", "batch_latency_ms")


def accuracy_tags(outcome: Outcome) -> dict[str, str]:
    """Return what a version and a search's run say of the accuracy, without the prefix of tags.

    ``test_accuracy`` is the mean over seeds, as everywhere; ``registered_test_accuracy`` is that of the registered
    model alone.
    """
    tags = {
        "test_accuracy": f"{outcome.headline_accuracy.estimate:.6f}",
        "registered_test_accuracy": f"{outcome.test_accuracy.estimate:.6f}",
        "majority_accuracy": f"{outcome.majority_accuracy:.6f}",
    }
    if outcome.gain is not None:
        tags |= {"gain": f"{outcome.gain.estimate:.6f}", "verdict": str(outcome.verdict)}
    if outcome.probe_gain is not None:
        gain = outcome.probe_gain
        tags |= {"probe_gain": f"{gain.estimate:.6f}", "probe_gain_low": f"{gain.low:.6f}"}
        tags["probe_gain_high"] = f"{gain.high:.6f}"
    if outcome.probe is not None:
        tags["probe_is_enough"] = str(outcome.probe_won).lower()
    return tags


def footprint_tags(footprint: Footprint | None) -> dict[str, str]:
    """Return a version's tags for its footprint; empty if it was not measured."""
    if footprint is None:
        return {}
    tags = {
        "model_bytes": str(footprint.file_bytes),
        "parameters": str(footprint.parameters),
        "load_seconds": f"{footprint.load_seconds:.4g}",
        "processor": footprint.processor,
    }
    for name, time in zip(_LATENCIES, (footprint.latency, footprint.batch_latency), strict=True):
        tags |= {
            name: f"{time.median:.5g}",
            f"{name}_fastest": f"{time.fastest:.5g}",
            f"{name}_upper": f"{time.upper:.5g}",
        }
    return {f"{_PREFIX}{name}": value for name, value in tags.items()}


def footprint_of(tags: Mapping[str, str]) -> Footprint | None:
    """Read the footprint from a version's tags; None if it is missing or incomplete."""
    kept = {name.removeprefix(_PREFIX): value for name, value in tags.items() if name.startswith(_PREFIX)}
    try:
        latency, batch = (
            Latency(float(kept[name]), float(kept[f"{name}_fastest"]), float(kept[f"{name}_upper"]))
            for name in _LATENCIES
        )
        return Footprint(
            file_bytes=int(kept["model_bytes"]),
            parameters=int(kept["parameters"]),
            load_seconds=float(kept["load_seconds"]),
            latency=latency,
            batch_latency=batch,
            processor=kept["processor"],
        )
    except (KeyError, ValueError):
        return None


def old_task_tags(outcome: Outcome) -> dict[str, str]:
    """Return a version's or a run's tags for its old task; empty if the search had none."""
    old = outcome.old_task
    if old is None:
        return {}
    tags = {
        f"{_PREFIX}old_accuracy_before": f"{old.before:.6f}",
        f"{_PREFIX}old_accuracy": f"{old.after[old.chosen]:.6f}",
        FORGOTTEN_TAG: f"{old.forgotten:.6f}",
    }
    if old.lost is not None:
        mean = {"mean": old.lost.estimate, "low": old.lost.low, "high": old.lost.high}
        tags |= {f"{FORGOTTEN_TAG}_{name}": f"{value:.6f}" for name, value in mean.items()}
    return tags


def old_task_of(tags: Mapping[str, str]) -> OldTask | None:
    """Read the accuracies on the old task from a version's tags; None if they are missing."""
    try:
        before, after = (float(tags[f"{_PREFIX}{name}"]) for name in ("old_accuracy_before", "old_accuracy"))
    except (KeyError, ValueError):
        return None
    return OldTask(before, (after,), 0)


def forgotten_of(tags: Mapping[str, str]) -> float | None:
    """Read the accuracy that a version has lost on the old task; None if its tags do not contain it."""
    try:
        return float(tags[FORGOTTEN_TAG])
    except (KeyError, ValueError):
        return None

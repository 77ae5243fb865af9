"""The numbers behind a judgement, flat, for the history of a model."""

from __future__ import annotations

from search.registry.gate import MAJORITY, SCRATCH, Comparison, Judgement

_NAMES = {SCRATCH: "scratch", MAJORITY: "majority"}

Number = float | int | str


def numbers(judgement: Judgement) -> dict[str, Number]:
    """Names and values; accuracies and gains are fractions, sizes bytes, latencies milliseconds."""
    found: dict[str, Number] = {"margin": judgement.margin}
    if judgement.accuracy is not None:
        found |= {
            "images": judgement.images,
            "seeds": judgement.seeds,
            "accuracy": round(judgement.accuracy, 6),
        }
    for other in judgement.comparisons:
        found |= _compared(_NAMES.get(other.other, "champion"), other)
    if (old := judgement.retention) is not None:
        found |= {
            "old_images": old.images,
            "old_accuracy_before": round(old.before, 6),
            "old_accuracy": round(old.after, 6),
            "old_gain": round(old.gain.estimate, 6),
            "old_gain_low": round(old.gain.low, 6),
            "old_gain_high": round(old.gain.high, 6),
            "old_bootstrap_low": round(old.bootstrap.low, 6),
            "old_bootstrap_high": round(old.bootstrap.high, 6),
            "old_mcnemar_p": float(f"{old.served.p_value:.4g}"),
        }
    for name, footprint in zip(("challenger", "champion"), judgement.footprints, strict=True):
        if footprint is not None:
            found |= {
                f"{name}_bytes": footprint.file_bytes,
                f"{name}_latency_ms": round(footprint.latency.median, 4),
                f"{name}_batch_latency_ms": round(footprint.batch_latency.median, 4),
            }
    return found


def _compared(name: str, other: Comparison) -> dict[str, Number]:
    values: dict[str, Number] = {
        f"{name}_accuracy": round(other.accuracy, 6),
        f"{name}_seeds": other.seeds,
        f"{name}_gain": round(other.gain.estimate, 6),
        f"{name}_gain_low": round(other.gain.low, 6),
        f"{name}_gain_high": round(other.gain.high, 6),
        f"{name}_bootstrap_low": round(other.bootstrap.low, 6),
        f"{name}_bootstrap_high": round(other.bootstrap.high, 6),
    }
    if other.served is not None:
        values |= {
            "only_challenger_right": other.served.first_only,
            "only_champion_right": other.served.second_only,
            "mcnemar_p": float(f"{other.served.p_value:.4g}"),
        }
    return values

"""Run the contender unfreeze through ``run_search``, as a user does.

The baseline from scratch and the registration are left out. Included, because every search has them, are the ledger,
MLflow, checkpoints, one training of the winner on live images, its test and the report. Activations are cached in a
new, empty folder. BatchNorm stays frozen, as in the peers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.trial_times import TrialTimes
from benchmarks.workloads.workload import Workload


def run(work: Workload, **changes: Any) -> list[TrialTimes]:
    """Run all configurations of ``work``, ``work.concurrent`` at a time. ``changes`` are fields of SearchConfig."""
    os.environ["UNFREEZE_CACHE"] = str(work.folder / "activations")
    from search import SearchConfig, run_search

    result = run_search(SearchConfig.model_validate({**settings(work), **changes}))
    failed = [t for t in result.record.trials if t.state == "failed"]
    if failed:
        raise RuntimeError(f"trial {failed[0].number} failed: {failed[0].error or failed[0].reason}")
    return [
        TrialTimes(t.started.timestamp(), t.ended.timestamp(), float(t.value or 0.0), dict(t.stages))
        for t in result.record.trials
        if t.started and t.ended
    ]


def settings(work: Workload) -> Mapping[str, Any]:
    """The fields of SearchConfig for this work."""
    return {
        "data": str(work.images),
        "backbone": str(work.backbone),
        "storage": str(work.folder / "unfreeze"),
        "name": "same-work",
        "enqueue": str(work.enqueued),
        "trials": len(work.configurations),
        "epochs": work.epochs,
        "batch_size": work.batch_size,
        "batch_norm": "frozen",
        "scheduler": "none",
        "baseline_trials": 0,
        "confirm_seeds": 1,
        "register_model": False,
        "max_concurrent": work.concurrent,
        "seed": work.seed,
    }

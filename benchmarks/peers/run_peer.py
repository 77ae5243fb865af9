"""Run one contender in this process: ``python -m benchmarks.peers.run_peer NAME FOLDER RESULT.json [CHANGES]``.

Each contender has its own process, on as many cores as trials run at once, so that none benefits from another's
imports. ``CHANGES`` are fields of SearchConfig as a JSON object; only unfreeze uses them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.workloads.workload import Workload

MODULES = {
    "unfreeze": "benchmarks.peers.unfreeze_search",
    "ray-tune": "benchmarks.peers.ray_tune_function",
    "ray-tune-reuse": "benchmarks.peers.ray_tune_actors",
    "keras-tuner": "benchmarks.peers.keras_tuner_search",
}


def main(name: str, folder: str, result: str, changes: str = "{}") -> None:
    """Run the contender and write the times of its trials to ``result``."""
    work = Workload.open(Path(folder))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.concurrent])
    trials = importlib.import_module(MODULES[name]).run(work, **json.loads(changes))
    Path(result).write_text(json.dumps([asdict(t) for t in trials]))


if __name__ == "__main__":
    main(*sys.argv[1:])

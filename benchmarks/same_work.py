"""Compare tools on the same work: fixed configurations, identical epochs and data, no early stopping.

    python -m benchmarks.same_work --repeats 3 --output same_work.jsonl

The work is 48 configurations of MobileNetV2 (alpha 0.35, 32 pixels, pretrained for 10 epochs on 897 digits that are
in no split, which is not timed), 5 epochs, 600 training and 150 validation images of handwritten digits, two trials
at a time on two cores (KerasTuner: one after another, with both cores). The configurations are a seeded design
(:mod:`benchmarks.workloads.configurations`): unfreeze depths 0, 1, a quarter and half of the blocks, equally often,
in random order; learning rate, head units and augmentation strength as in a random search.

The contenders (:mod:`benchmarks.peers.run_peer`) run in turns, each in its own process:

- ``unfreeze``: a whole search by ``run_search``, without baseline and registration
  (:mod:`benchmarks.peers.unfreeze_search`);
- ``ray-tune``: a function trainable with ``fit`` (:mod:`benchmarks.peers.ray_tune_function`);
- ``ray-tune-reuse``: a class trainable with ``reuse_actors`` (:mod:`benchmarks.peers.ray_tune_actors`);
- ``keras-tuner``: its GridSearch over the same list (:mod:`benchmarks.peers.keras_tuner_search`).

:mod:`benchmarks.peers.keras_training` describes how the peers train and what differs from unfreeze. *Whole* is the
time of the whole process from its start to its end: imports, start of Ray, trials, and for unfreeze also the
confirmation of the winner, its test and the report. *Trials* is the time from the start of the first trial to the end
of the last one. :mod:`benchmarks.measurement.measure` explains the other columns. The numbers are medians over the
repeats, including those that ``--output`` already contains if the work was the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measurement.measure import append, measure, read
from benchmarks.measurement.tables import processor, stages, table
from benchmarks.peers.run_peer import MODULES
from benchmarks.workloads.build_workload import WorkloadSpec, make_workload


def options() -> argparse.ArgumentParser:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="The same trials under unfreeze and its peers.")
    parser.add_argument("--trials", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--depths", default="0,1,1/4,1/2", help="unfreeze depths: blocks, or shares of all blocks"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrent", type=int, default=2, help="number of trials at a time, and of cores")
    parser.add_argument(
        "--only", action="append", choices=MODULES, help="run only this contender; may be repeated"
    )
    parser.add_argument("--without", action="append", choices=MODULES, default=[])
    parser.add_argument("--output", type=Path, default=Path("same_work.jsonl"))
    return parser


def workload_spec(given: argparse.Namespace) -> WorkloadSpec:
    """The specification of the workload from the command line."""
    return WorkloadSpec(
        options=(("alpha", 0.35),),
        depths=tuple(given.depths.split(",")),
        trials=given.trials,
        epochs=given.epochs,
        concurrent=given.concurrent,
        seed=given.seed,
    )


def conditions() -> str:
    """Machine and versions as one line of text."""
    packages = ("tensorflow", "keras", "ray", "keras-tuner")
    # KerasTuner is optional: without it, --without keras-tuner still compares the others.
    versions = ", ".join(f"{name} {version(name)}" for name in packages if find_spec(name.replace("-", "_")))
    return f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {versions}"


def main() -> None:
    given = options().parse_args()
    wanted, names = workload_spec(given), [n for n in given.only or MODULES if n not in given.without]
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="same-work-") as folder:
        work = make_workload(Path(folder) / "work", wanted)
        for _ in range(given.repeats):
            for name in names:
                found = measure(name, work.folder, repr(wanted))
                append(given.output, found)
                print(f"{name}: {found.whole:.1f} s whole, {found.trials_seconds:.1f} s trials", flush=True)
                print(processor(found), flush=True)
                if found.stages:
                    print(stages(found, wanted.concurrent), flush=True)
    print(table((m for m in read(given.output) if m.work == repr(wanted)), base="unfreeze"))


if __name__ == "__main__":
    main()

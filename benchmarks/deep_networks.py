"""Measure deeper networks: ResNet50 and EfficientNetB0 at 96 pixels, with evenly spread depths.

    python -m benchmarks.deep_networks --repeats 3 --output deeper.jsonl

Trials unfreeze none, a quarter, half, three quarters and all of the blocks, equally often, on few images and without
augmentation. The weights are random, with settled BatchNorm statistics. The contenders are those of
:mod:`benchmarks.same_work`.

For each backbone the script prints the table of :mod:`benchmarks.same_work`; the ceiling; and the share of our
trials' time that was spent in training steps (``suffix`` in the ledger's stages, of all seconds of all lanes). The
ceiling is the largest speed-up that caching alone can give, computed from the operations below each cut
(:func:`benchmarks.measurement.forward_flops.ceiling`), once if each trial computes its own activations and once if
all trials share them. It counts only operations of convolutions. The start of processes, tracing and ``fit`` are
saved as well, so the measured ratio may exceed the ceiling.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.measurement.forward_flops import ceiling, shares_below
from benchmarks.measurement.measure import Measurement, append, measure, read
from benchmarks.measurement.tables import stages, table
from benchmarks.same_work import conditions
from benchmarks.workloads.build_workload import WorkloadSpec, make_workload
from benchmarks.workloads.digit_images import Counts
from benchmarks.workloads.workload import Workload

CONTENDERS = ("unfreeze", "ray-tune")
BACKBONES = ("ResNet50", "EfficientNetB0")


def main() -> None:
    parser = argparse.ArgumentParser(description="Deep networks, depths spread evenly.")
    parser.add_argument("--backbone", action="append", choices=BACKBONES)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument(
        "--images",
        type=int,
        default=200,
        help="training images; a quarter more for validation",
    )
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--depths", default="0,1/4,1/2,3/4,1/1")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("deeper.jsonl"))
    given = parser.parse_args()
    print(conditions(), flush=True)
    for backbone in given.backbone or BACKBONES:
        wanted = WorkloadSpec(
            backbone=backbone,
            size=given.size,
            pretraining=0,
            counts=Counts(given.images, given.images // 4, given.images // 4),
            depths=tuple(given.depths.split(",")),
            strengths=(0.0,),
            trials=given.trials,
            epochs=given.epochs,
            seed=given.seed,
        )
        with tempfile.TemporaryDirectory(prefix="deeper-") as folder:
            compare(make_workload(Path(folder) / "work", wanted), wanted, given.repeats, given.output)


def compare(work: Workload, wanted: WorkloadSpec, repeats: int, output: Path) -> None:
    """Measure both contenders on ``work`` and print the tables."""
    for _ in range(repeats):
        for name in CONTENDERS:
            found = measure(name, work.folder, repr(wanted))
            append(output, found)
            print(f"{wanted.backbone}, {name}: {found.trials_seconds:.1f} s trials", flush=True)
    rows = [m for m in read(output) if m.work == repr(wanted)]
    ours, theirs = ([m for m in rows if m.contender == name] for name in CONTENDERS)
    print(
        f"\n## {wanted.backbone}\n\n{table(rows, base=CONTENDERS[0])}\n\n{stages(ours[-1], work.concurrent)}\n"
    )
    depths = [c["unfreeze_depth"] for c in work.configurations]
    shares = shares_below(work.backbone, depths)
    listed = ", ".join(f"{d}: {p:.2f}" for d, p in sorted(shares.items()))
    alone, shared = (ceiling((shares[d] for d in depths), work.epochs, sharing) for sharing in (False, True))
    measured = _median(theirs) / _median(ours)
    print(f"share of operations below each depth: {listed}")
    print(f"ceiling from caching alone: {alone:.2f}x each trial by itself, {shared:.2f}x shared")
    print(f"measured over the trials: {measured:.2f}x, {measured / shared:.0%} of the shared ceiling")
    inside = median(m.stages["suffix"] / (m.trials_seconds * work.concurrent) for m in ours)
    print(f"inside training steps: {inside:.0%} of the lanes' time", flush=True)


def _median(rows: list[Measurement]) -> float:
    return median(m.trials_seconds for m in rows)


if __name__ == "__main__":
    main()

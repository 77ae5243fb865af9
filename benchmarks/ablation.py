"""Measure what each kind of reuse saves: the work of :mod:`benchmarks.same_work` with one kind switched off at a time.

    python -m benchmarks.ablation --repeats 3 --output ablation.jsonl

The rows are: everything on; without processes (each trial starts a process that imports TensorFlow); without programs
(each trial traces its own); without activations (every epoch runs the frozen prefix); without views (each trial has
its own distortions, so activations of augmented images cannot be cached); without heads (each head-only trial has its
own step); everything off. The configurations are the same in all rows, and so are the accuracies, except without
views, where each trial sees other distortions. The columns are those of :mod:`benchmarks.same_work`; ``÷`` is the
time relative to the first row.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.measurement.measure import append, measure, read
from benchmarks.measurement.tables import stages, table
from benchmarks.same_work import conditions, options, workload_spec
from benchmarks.workloads.build_workload import make_workload
from trainables.reuse import REUSABLE_PARTS

ALL_ON = "all on"


def rows() -> dict[str, str]:
    """Values of ``SearchConfig.reuse`` by the name of the row."""
    without = {f"without {part}": ",".join(p for p in REUSABLE_PARTS if p != part) for part in REUSABLE_PARTS}
    return {ALL_ON: ",".join(REUSABLE_PARTS), **without, "all off": "none"}


def main() -> None:
    parser = options()
    parser.description = "What each kind of reuse is worth."
    parser.set_defaults(output=Path("ablation.jsonl"))
    parser.add_argument("--row", action="append", choices=rows(), help="run only this row; may be repeated")
    given = parser.parse_args()
    wanted = workload_spec(given)
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="ablation-") as folder:
        work = make_workload(Path(folder) / "work", wanted)
        for _ in range(given.repeats):
            for name in given.row or rows():
                found = measure("unfreeze", work.folder, repr(wanted), {"reuse": rows()[name]}, label=name)
                append(given.output, found)
                print(f"{name}: {found.whole:.1f} s whole, {found.trials_seconds:.1f} s trials", flush=True)
                print(stages(found, wanted.concurrent), flush=True)
    print(table((m for m in read(given.output) if m.work == repr(wanted)), base=ALL_ON))


if __name__ == "__main__":
    main()

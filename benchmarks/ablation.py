"""Ablation: the work of :mod:`same_work` under unfreeze, with each kind of reuse switched off in turn.

    python benchmarks/ablation.py --repeats 3 --output ablation.jsonl

Rows: everything on; then without processes (each trial starts a process that imports TensorFlow), programs (each trial
traces its own), activations (every epoch runs the frozen prefix), views (each trial has distortions of its own, so that
activations of augmented images can't be kept), heads (each head-only trial has a step of its own); then everything
off. The configurations are the same, the numbers only where distortions are: without views each trial sees others.
Columns as in :mod:`same_work`; ``÷`` says how many times as long it took as with everything on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from making import make_workload
from measuring import append, measure, read
from same_work import asked, conditions, options
from tables import stages, table

from trainables.reuse import REUSABLE_PARTS

ALL_ON = "all on"


def rows() -> dict[str, str]:
    """Values of ``SearchConfig.reuse`` by the name of their row."""
    without = {f"without {part}": ",".join(p for p in REUSABLE_PARTS if p != part) for part in REUSABLE_PARTS}
    return {ALL_ON: ",".join(REUSABLE_PARTS), **without, "all off": "none"}


def main() -> None:
    parser = options()
    parser.description = "What each kind of reuse is worth."
    parser.set_defaults(output=Path("ablation.jsonl"))
    parser.add_argument("--row", action="append", choices=rows(), help="this row; may be repeated")
    given = parser.parse_args()
    wanted = asked(given)
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

"""Measure how soon a search reaches the accuracy that Ray Tune with OptunaSearch and ASHA reaches in its whole run.

    python -m benchmarks.time_to_quality --seeds 5 --output time_to_quality.jsonl

For each seed: the task ``digits`` with the built-in backbone, the core space, at most 20 epochs per trial, two trials
at a time. The peer (:mod:`benchmarks.peers.ray_tune_optuna`) runs 24 trials; the best validation accuracy of any of
its epochs is the required quality. unfreeze uses its defaults (its own ASHA, its choice of the BatchNorm mode) and
twice as many trials, because the budget is time, not trials. Images and seed are the same.

Seconds count from the start of the process, including imports and the start of Ray, until an epoch of at least this
quality is reported (Ray Tune: to its callback; unfreeze: to its view, at most five times per second). There are two
ratios: to the peer's own first epoch of this quality, which is fairer, and to its whole run, which is how long one has
to wait to know the quality. A search that never reaches it counts with its whole time, marked by ``>``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.measurement.measure import QUIET, ROOT
from benchmarks.same_work import conditions
from benchmarks.workloads.digits_task import make_digits

ROUNDING = 1e-6
"""Tolerance for accuracies that a contender stores in single precision."""


@dataclass(frozen=True)
class Curve:
    """Best validation accuracy over time, as (seconds since the start of the process, accuracy), and the end."""

    improvements: tuple[tuple[float, float], ...]
    whole: float

    @property
    def best(self) -> float:
        """The final accuracy."""
        return self.improvements[-1][1]

    def reaches(self, quality: float) -> float | None:
        """Seconds until ``quality`` is reached, or None."""
        return next((seconds for seconds, value in self.improvements if value >= quality - ROUNDING), None)


@dataclass(frozen=True)
class Race:
    """Both searches of one seed."""

    seed: int
    peer: Curve
    ours: Curve

    @property
    def seconds(self) -> tuple[float, float, bool]:
        """Seconds of the peer and of unfreeze until the peer's best accuracy, and whether unfreeze reached it."""
        reached = self.ours.reaches(self.peer.best)
        return self.peer.reaches(self.peer.best) or self.peer.whole, reached or self.ours.whole, bool(reached)


def run(name: str, folder: Path, trials: int) -> Curve:
    """Run one search in a separate process."""
    result, log = folder / f"{name}.json", folder / f"{name}.txt"
    began = time.time()
    with log.open("w") as output:
        code = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.peers.run_quality_search",
                name,
                str(folder),
                str(trials),
                str(result),
            ],
            stdout=output,
            stderr=output,
            env={**os.environ, **QUIET},
            cwd=ROOT,
        ).returncode
    if code:
        raise RuntimeError(f"{name} ended with code {code}:\n{log.read_text()[-3000:]}")
    improvements = json.loads(result.read_text())
    return Curve(tuple((moment - began, value) for moment, value in improvements), time.time() - began)


def table(races: Sequence[Race]) -> str:
    """A Markdown table with one row per seed, and the medians."""
    head = "| seed | quality | Ray Tune reaches, s | whole, s | unfreeze reaches, s | its best | ÷ reaches | ÷ whole |"
    lines = [head, "| " + " | ".join(["---:"] * 8) + " |"]
    to_reach, to_end = [], []
    for race in races:
        theirs, ours, reached = race.seconds
        to_reach.append(theirs / ours)
        to_end.append(race.peer.whole / ours)
        lines.append(
            f"| {race.seed} | {race.peer.best:.3f} | {theirs:.1f} | {race.peer.whole:.1f} "
            f"| {'' if reached else '>'}{ours:.1f} | {race.ours.best:.3f} "
            f"| {theirs / ours:.1f}× | {race.peer.whole / ours:.1f}× |"
        )
    return "\n".join([*lines, f"| median | | | | | | {median(to_reach):.1f}× | {median(to_end):.1f}× |"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds until a peer's best validation accuracy.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=24, help="trials of the peer")
    parser.add_argument("--our-trials", type=int, help="trials of unfreeze [twice as many as the peer]")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path("time_to_quality.jsonl"))
    given = parser.parse_args()
    print(conditions(), flush=True)
    races = []
    for seed in range(given.first_seed, given.first_seed + given.seeds):
        with tempfile.TemporaryDirectory(prefix="time-to-quality-") as folder:
            work = make_digits(Path(folder), given.epochs, seed)
            peer = run("ray-tune", work.folder, given.trials)
            ours = run("unfreeze", work.folder, given.our_trials or 2 * given.trials)
        races.append(Race(seed, peer, ours))
        with given.output.open("a") as output:
            output.write(json.dumps({**asdict(races[-1]), "load": os.getloadavg()[0]}) + "\n")
        print(table(races), flush=True)


if __name__ == "__main__":
    main()

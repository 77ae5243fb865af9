"""Measure what a sampler learns from trials that cannot work, in simulated searches without training.

Configurations above a line of unfreeze depth and head width run out of memory; learning rates above another line
diverge. ``unfreeze`` reports both to the sampler as infeasible. Ray Tune's OptunaSearch reports a trial that raised an
exception as failed, which TPE ignores, and a trial whose loss is NaN not at all. The script prints the share of
infeasible proposals in the first and in the second half of the trials.

    python -m benchmarks.studies.infeasible_proposals --trials 60 --seeds 20
"""

from __future__ import annotations

import argparse
import math
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna

from search.config.space import core_space
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.samplers import make_sampler
from trainables.epoch_metrics import EpochMetrics

BLOCKS = 16


def fate(params: dict[str, Any]) -> str | None:
    """Why the configuration cannot work, or None if it can. About three quarters of all cannot."""
    if params["unfreeze_depth"] > 6 or (params["unfreeze_depth"] > 3 and params["head_units"] > 128):
        return "out_of_memory"
    return "diverged" if params["learning_rate"] > 3e-3 else None


def quality(params: dict[str, Any]) -> float:
    """Validation accuracy of a configuration that works. It is best near the edge of what works."""
    depth = params["unfreeze_depth"] / 6
    rate = -abs(math.log10(params["learning_rate"]) + 2.7) / 4
    return 0.8 + 0.1 * depth + 0.1 * rate - 0.05 * abs(params["augmentation_strength"] - 0.5)


def ours(trials: int, seed: int, folder: Path) -> list[bool]:
    """Whether each proposal was infeasible, with unfreeze's ledger."""
    space = core_space(BLOCKS)
    ledger = Ledger(
        sqlite_url(folder / f"{seed}.db"),
        "simulated",
        direction="maximize",
        metric="val_accuracy",
        method="finetune",
        sampler="tpe",
        seed=seed,
    )
    infeasible = []
    for _ in range(trials):
        record = ledger.start(space.suggest)
        reason = fate(dict(record.params))
        infeasible.append(reason is not None)
        if reason is not None:
            ledger.finish(record.number, "pruned", reason=reason)
            continue
        ledger.report(record.number, EpochMetrics(1, quality(dict(record.params)), 1.0, 1.0, 1.0))
        ledger.finish(record.number, "complete")
    return infeasible


def theirs(trials: int, seed: int) -> list[bool]:
    """Whether each proposal was infeasible, with the reports of Ray Tune's OptunaSearch."""
    space = core_space(BLOCKS)
    study = optuna.create_study(direction="maximize")
    infeasible = []
    for number in range(trials):
        study.sampler = make_sampler("tpe", seed, number)
        trial = study.ask()
        params = dict(space.suggest(trial))
        reason = fate(params)
        infeasible.append(reason is not None)
        if reason == "out_of_memory":
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif reason is None:
            study.tell(trial, quality(params))
    return infeasible


def halves(infeasible: list[bool]) -> tuple[float, float]:
    """Share of infeasible proposals in the first and in the second half."""
    middle = len(infeasible) // 2
    return statistics.fmean(infeasible[:middle]), statistics.fmean(infeasible[middle:])


def main() -> None:
    """Run all seeds and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=20)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| who | first half | second half |\n| --- | ---: | ---: |")
    with TemporaryDirectory() as folder:
        ways = {
            "unfreeze": [halves(ours(asked.trials, s, Path(folder))) for s in range(asked.seeds)],
            "OptunaSearch's way": [halves(theirs(asked.trials, s)) for s in range(asked.seeds)],
        }
    for name, found in ways.items():
        first, second = (statistics.fmean(column) for column in zip(*found, strict=True))
        print(f"| {name} | {first:.2f} | {second:.2f} |")


if __name__ == "__main__":
    main()

"""Run a search's own ledger, sampler, proposals and trials in this process, without Ray Tune and its fixed cost.

Trials run one at a time and to their last epoch, as with ``--max-concurrent 1 --scheduler none``. Trials of one
backbone share activations and compiled programs, also across tasks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from search.config.parameters import BACKBONE
from search.config.space import Space
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.proposals import ProposalChain
from search.ledger.sampling.warm_start import TransferredConfig
from search.records.record import TrialRecord
from trainables.activations.activations import ActivationCache
from trainables.data.task import Task
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import Diverged
from trainables.methods.methods import begin
from trainables.training.probe_cache import ProbeCache
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

Told = Callable[[float], float]


@dataclass(frozen=True)
class Searched:
    """The trials by number, and the test accuracy of the best one so far after each of them."""

    trials: tuple[TrialRecord, ...]
    tests: tuple[float, ...]

    @property
    def best(self) -> list[float]:
        """Best validation accuracy so far, of shape (trials,)."""
        return np.maximum.accumulate([t.value or 0.0 for t in self.trials]).tolist()


def bench_for_task(bench: Workbench, task: Task) -> Workbench:
    """The same backbone on another task; of tasks with as many classes, programs are shared."""
    kept = ActivationCache(bench.backbone, task, stages=bench.activations.stages)
    other = replace(bench, task=task, activations=kept, probes=ProbeCache())
    other.idle = bench.idle
    return other


def search(
    benches: Mapping[str | None, Workbench],
    space: Space,
    trials: int,
    epochs: int,
    seed: int,
    guides: ProposalChain | None = None,
    first: Sequence[TransferredConfig] = (),
    told: Told = float,
) -> Searched:
    """Run a search with TPE for the validation accuracy, or for what ``told`` returns for it.

    Args:
        benches: by the backbone that a trial names; None where there is one.
        guides: asked for each trial before the sampler is.
        first: what of earlier searches is tried first.
    """
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(
            sqlite_url(Path(folder) / "ledger.db"),
            "s",
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler="tpe",
            seed=seed,
        )
        ledger.proposal_source = guides or ProposalChain()
        if first:
            ledger.enqueue([lesson.params for lesson in first], [lesson.origin for lesson in first])
        tests: list[float] = []
        with ledger.wal_mode():
            for _ in range(trials):
                tests.append(_trial(ledger, benches, space, epochs, told, tests))
        return Searched(ledger.trials, tuple(tests))


def _trial(
    ledger: Ledger,
    benches: Mapping[str | None, Workbench],
    space: Space,
    epochs: int,
    told: Told,
    tests: Sequence[float],
) -> float:
    """Run the next trial; returns the test accuracy of the best trial so far."""
    before = max((t.value or 0.0 for t in ledger.trials), default=-1.0)
    record = ledger.start(space.suggest)
    name = record.params.get(BACKBONE)
    bench = benches[None if name is None else str(name)]
    training = begin(TrialConfig("finetune", record.params, epochs=epochs, seed=record.seed), bench)
    test = tests[-1] if tests else 0.0
    try:
        while not training.done:
            epoch = training.run_epoch()
            ledger.report(
                record.number,
                EpochMetrics(
                    epoch.epoch,
                    told(epoch.val_accuracy),
                    epoch.val_loss,
                    epoch.train_loss,
                    epoch.epoch_seconds,
                ),
            )
        if (ledger.trial(record.number).value or 0.0) > before:
            labels = bench.task.split("test").labels
            test = float((training.predict("test").argmax(axis=1) == labels).mean())
        ledger.finish(record.number, "complete")
    except Diverged:
        ledger.finish(record.number, "pruned", reason="diverged")
    finally:
        training.release()
    return test


def gain(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Mean and half of a 95 % interval (Student's t) of paired differences, in points."""
    values = 100 * (np.array(ours) - np.array(theirs))
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.1f} ± {half:.1f}".replace("-", "−")

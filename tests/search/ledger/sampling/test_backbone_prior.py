"""Test the prior on the backbones: it excludes none, saves trials if it is right and costs few if it is wrong."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.config.space import core_space
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.backbone_prior import BackbonePrior, evaluate_prior
from search.ledger.sampling.tpe import IncrementalTPESampler, new_shared_space
from search.records.record import BackboneSummary, SearchRecord, TaskSummary, TrialRecord
from trainables.epoch_metrics import EpochMetrics

LEVELS = {"poor": 0.80, "fair": 0.84, "good": 0.88, "best": 0.94}
"""The best accuracy that each backbone can reach in the artificial task."""

SPACE = core_space(4, backbones=dict.fromkeys(LEVELS, 4))
RIGHT = BackbonePrior(LEVELS)
WRONG = BackbonePrior({name: -level for name, level in LEVELS.items()})
TRIALS, SEEDS = 24, 24


def accuracy(params: dict[str, Any]) -> float:
    rate = np.log10(float(params["learning_rate"])) + 2.7
    depth = int(params["unfreeze_depth"]) / 4 - 0.6
    return float(LEVELS[str(params["backbone"])] - 0.08 * depth**2 - 0.04 * rate**2)


def search(prior: BackbonePrior | None, seed: int, trials: int = TRIALS) -> list[float]:
    """Run a search with our sampler and return the best value so far after each trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, common, best = optuna.create_study(direction="maximize"), new_shared_space(), [-1.0]
    for number in range(trials):
        study.sampler = IncrementalTPESampler(1000 * seed + number, common)
        if prior is not None and (proposal := prior.propose(seed, number)):
            study.enqueue_trial(dict(proposal.params))
        trial = study.ask()
        value = accuracy(SPACE.suggest(trial))
        study.tell(trial, value)
        best.append(max(best[-1], value))
    return best[1:]


@pytest.fixture(scope="module")
def curves() -> dict[str, np.ndarray]:
    """The best values so far, of shape (seeds, trials), for each prior."""
    kinds = {"none": None, "right": RIGHT, "wrong": WRONG}
    return {kind: np.array([search(p, seed) for seed in range(SEEDS)]) for kind, p in kinds.items()}


def trials_until(curve: np.ndarray, level: float) -> float:
    return float(np.mean([np.argmax(row >= level) + 1 if row[-1] >= level else TRIALS + 1 for row in curve]))


@pytest.mark.slow
def test_a_right_prior_saves_trials(curves: dict[str, np.ndarray]) -> None:
    needed = {kind: trials_until(curve, 0.9) for kind, curve in curves.items()}
    assert needed["right"] <= needed["none"] - 1.5, needed


def test_a_wrong_prior_costs_little(curves: dict[str, np.ndarray]) -> None:
    final = {kind: curve[:, -1].mean() for kind, curve in curves.items()}
    assert final["wrong"] >= 0.98 * final["none"], final
    assert trials_until(curves["wrong"], 0.9) <= trials_until(curves["none"], 0.9) + 4


def test_every_backbone_has_a_share_and_the_prior_fades() -> None:
    assert sum(RIGHT.probabilities.values()) == pytest.approx(1)
    assert min(RIGHT.probabilities.values()) > 0.3 / 4
    early = [RIGHT.propose(seed, 0) for seed in range(400)]
    assert set(Counter(p.params["backbone"] for p in early if p)) == set(LEVELS)
    late = [RIGHT.propose(seed, 96) for seed in range(400)]
    assert sum(bool(p) for p in late) < 0.1 * 400


def test_probabilities_depend_on_the_order_of_the_scores_only() -> None:
    close = BackbonePrior({"a": 3.001, "b": 3.0, "c": 2.999})
    apart = BackbonePrior({"a": 9.0, "b": 1.0, "c": -50.0})
    assert close.probabilities == apart.probabilities
    assert BackbonePrior({"a": 1.0, "b": 1.0}).probabilities == pytest.approx({"a": 0.5, "b": 0.5})
    assert BackbonePrior.from_json(apart.to_json()) == apart


def test_the_ledger_stores_which_trials_the_prior_chose_and_a_resumed_search_chooses_the_same(
    tmp_path: Path,
) -> None:
    def opened() -> Ledger:
        ledger = Ledger(
            sqlite_url(tmp_path / "ledger.db"),
            "s",
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler="random",
            seed=5,
        )
        ledger.proposal_source = RIGHT
        return ledger

    ledger = opened()
    ledger.enqueue([{"backbone": "poor", "unfreeze_depth": 1}])
    for number in range(12):
        if number == 6:
            ledger = opened()
        record = ledger.start(SPACE.suggest)
        assert record.number == number
        ledger.report(number, EpochMetrics(1, accuracy(dict(record.params)), 0.1, 0.1, 0.1))
        ledger.finish(number, "complete")
    assert ledger.trial(0).origin is None
    for number in range(1, 12):
        proposed = RIGHT.propose(5, number)
        assert ledger.trial(number).origin == ("prior" if proposed else None)
        assert not proposed or ledger.trial(number).params["backbone"] == proposed.params["backbone"]
    assert opened().trials == ledger.trials


def made(prior: BackbonePrior | None, *values: tuple[str, float]) -> SearchRecord:
    trials = [
        TrialRecord(n, "complete", "finetune", {"backbone": name}, value)
        for n, (name, value) in enumerate(values)
    ]
    backbone = BackboneSummary("poor", "w", "d", (8, 8), 10, ("a",))
    task = TaskSummary("t", "d", ("a", "b"), {"train": 4}, (8, 8), "here")
    return SearchRecord(
        "s",
        "val_accuracy",
        "maximize",
        task,
        backbone,
        {},
        tuple(trials),
        len(trials),
        started=datetime.now(UTC),
        prior=prior.to_json() if prior else None,
    )


def test_a_prior_is_evaluated_by_the_trials() -> None:
    tried = [("best", 0.9), ("good", 0.95), ("fair", 0.8), ("poor", 0.7), ("best", 0.91)]
    evaluation = evaluate_prior(made(RIGHT, *tried))
    assert evaluation is not None
    assert (evaluation.first, evaluation.best, evaluation.rank, evaluation.backbones) == (
        "best",
        "good",
        2,
        4,
    )
    assert evaluation.trials == {"poor": 1, "fair": 1, "good": 1, "best": 2}
    assert evaluation.correlation == pytest.approx(2 / 3)  # five of six pairs agree
    assert "good, was number 2 of 4 by score" in str(evaluation)
    assert "best values +0.67" in str(evaluation)
    few = evaluate_prior(made(RIGHT, ("best", 0.9)))
    assert few is not None
    assert few.correlation is None
    assert evaluate_prior(made(None, *tried)) is None

"""Test what is taken over from earlier searches: the best first, then near them, and little if they mislead."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search.config.search_config import SearchConfig
from search.config.space import Space, core_space, full_space
from search.ledger.attributes import StudyKey
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.proposals import ProposalChain
from search.ledger.sampling.tpe import IncrementalTPESampler, new_shared_space
from search.ledger.sampling.warm_start import (
    configs_from_json,
    configs_to_json,
    first_configs,
    task_similarity,
    transferred_configs,
    translate_config,
)
from search.ledger.sampling.warm_start_prior import WarmStartPrior, is_misleading, warm_start_summary
from search.ledger.workspace import Workspace
from search.records.record import BackboneSummary, SearchRecord, TaskSummary, TrialRecord
from search.study.early_checks import check_inputs
from search.study.resolved_inputs import DataSources
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError, UsageError

SPACE = core_space(4)
BACKBONE = BackboneSummary("print", "default", "d1", (32, 32), 1000, ("a", "b", "c", "d"))
DEEP = BackboneSummary("deep", "imagenet", "d2", (32, 32), 9000, tuple("abcdefgh"))
TASK = TaskSummary("digits", "t1", tuple("0123456789"), {"train": 100}, (32, 32), "here")
OWN: dict[str | None, BackboneSummary] = {None: BACKBONE}
TRIALS, SEEDS = 24, 24


def objective(params: dict[str, Any]) -> float:
    """An artificial objective whose optimum is a learning rate of 1e-3 and three of four blocks."""
    rate, depth = math.log10(float(params["learning_rate"])) + 3, int(params["unfreeze_depth"]) / 4 - 0.75
    strength = float(params["augmentation_strength"])
    return 0.95 - 0.12 * rate**2 - 0.2 * depth**2 - 0.04 * strength


def searched(
    seed: int, prior: WarmStartPrior | None = None, sign: int = 1, trials: int = TRIALS
) -> list[TrialRecord]:
    """The trials of a search with TPE for the objective, or with ``sign=-1`` for its opposite."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, common, done = optuna.create_study(direction="maximize"), new_shared_space(), list[TrialRecord]()
    queue = [(le.params, le.origin) for le in first_configs(prior.configs, trials)] if prior else []
    for number in range(trials):
        study.sampler = IncrementalTPESampler(1000 * seed + number, common)
        origin = None
        if queue:
            params, origin = queue.pop(0)
            study.enqueue_trial(dict(params))
        elif prior is not None and (proposal := prior.propose(seed, number, done)):
            origin = proposal.origin
            study.enqueue_trial(dict(proposal.params))
        trial = study.ask()
        found = SPACE.suggest(trial)
        value = sign * objective(found)
        study.tell(trial, value)
        done.append(TrialRecord(number, "complete", "finetune", found, value, origin=origin))
    return done


def earlier(trials: list[TrialRecord], name: str = "before", **changes: Any) -> SearchRecord:
    record = SearchRecord(
        name, "val_accuracy", "maximize", TASK, BACKBONE, {"method": "finetune"}, tuple(trials), len(trials)
    )
    return replace(record, **changes)


def warm(record: SearchRecord, space: Space = SPACE) -> WarmStartPrior:
    return WarmStartPrior(transferred_configs([record], space, TASK, OWN), space, "maximize")


@pytest.fixture(scope="module")
def bests() -> dict[str, np.ndarray]:
    """Best values so far, of shape (seeds, trials): without a warm start, from the same task, from its opposite."""
    cases: dict[str, list[list[TrialRecord]]] = {"none": [], "same": [], "opposite": []}
    for seed in range(SEEDS):
        cases["none"].append(searched(seed))
        cases["same"].append(searched(seed, warm(earlier(searched(500 + seed)))))
        cases["opposite"].append(searched(seed, warm(earlier(searched(500 + seed, sign=-1)))))
    return {
        kind: np.maximum.accumulate([[t.value or 0.0 for t in run] for run in runs], axis=1)
        for kind, runs in cases.items()
    }


@pytest.mark.slow
def test_a_misleading_earlier_search_costs_less_than_five_percent(bests: dict[str, np.ndarray]) -> None:
    without, misleading = (bests[kind][:, -1].mean() for kind in ("none", "opposite"))
    assert misleading >= 0.95 * without
    assert misleading >= without - 0.02  # and far less where there are this many trials
    half = [bests[kind][:, TRIALS // 2].mean() for kind in ("none", "opposite")]
    assert half[1] >= 0.95 * half[0]


@pytest.mark.slow
def test_an_earlier_search_on_the_same_task_saves_trials(bests: dict[str, np.ndarray]) -> None:
    reached = {kind: np.mean([np.argmax(run >= 0.92) + 1 if run[-1] >= 0.92 else TRIALS + 1 for run in b])
               for kind, b in bests.items()}  # fmt: skip
    assert reached["same"] <= reached["none"] / 2
    assert bests["same"][:, -1].mean() >= bests["none"][:, -1].mean() - 0.001


def test_few_configurations_are_taken_over_and_draws_stop_when_they_mislead() -> None:
    prior = warm(earlier(searched(1)))
    assert [len(first_configs(prior.configs, n)) for n in (1, 10, 24, 400)] == [1, 1, 2, 3]
    counts = [sum(bool(t.origin) for t in searched(seed, prior)) for seed in range(12)]
    assert np.mean(counts) <= 2 + 0.2 * TRIALS
    opposite = searched(3, warm(earlier(searched(2, sign=-1))))
    assert is_misleading(opposite, "maximize")
    assert not is_misleading(searched(3, prior), "maximize")
    nothing = earlier(opposite, warm_start=(), config={"warm_start": ["a", "b"]})
    assert str(warm_start_summary(nothing)).startswith("no configuration of a, b fits this search's space")
    summary = warm_start_summary(earlier(opposite, warm_start=tuple(configs_to_json(prior.configs))))
    assert summary is not None
    assert "misleading here" in summary
    beaten = [trial(n, 0.5 if n else 0.9) for n in range(5)]
    beaten[0] = replace(beaten[0], origin="warm start: x #1")
    assert is_misleading(beaten, "minimize")
    assert not is_misleading(beaten, "maximize")
    assert not is_misleading(beaten[:3], "minimize")  # too few for a comparison


def test_proposals_lie_in_the_space_and_are_reproducible() -> None:
    prior = warm(earlier(searched(1)))
    own = [trial(number, 0.9) for number in range(3)]
    proposals = [prior.propose(seed, 1, own) for seed in range(200)]
    made = [p for p in proposals if p]
    assert 60 < len(made) < 140
    assert all(SPACE.check(p.params) == p.params for p in made)
    assert len({p.params["learning_rate"] for p in made}) > 20
    assert [prior.propose(seed, 1, own) for seed in range(200)] == proposals
    again = WarmStartPrior(configs_from_json(configs_to_json(prior.configs)), SPACE, "maximize")
    assert again.propose(1, 0, own) == prior.propose(1, 0, own) is not None
    early = [prior.propose(seed, 1, own[:2]) for seed in range(200)]
    assert not any(early)  # too few of the sampler's own trials for a comparison


def trial(number: int, value: float | None, **params: Any) -> TrialRecord:
    return TrialRecord(number, "complete" if value is not None else "failed", "finetune", params, value)


def test_the_best_of_each_search_come_first_without_duplicates_and_failed_trials() -> None:
    good = {"unfreeze_depth": 2, "learning_rate": 1e-3, "head_units": 0, "augmentation_strength": 0.0}
    other = {**good, "learning_rate": 3e-3}
    near = earlier([trial(0, 0.7, **other), trial(1, 0.9, **good), trial(2, None, **good)], "near")
    far_task = replace(TASK, name="far", classes=("x", "y"), digest="t9", counts={"train": 5000})
    far = earlier([trial(0, 0.99, **good), trial(1, 0.5, **{**good, "head_units": 64})], "far", task=far_task)
    found = transferred_configs([far, near], SPACE, TASK, OWN)
    assert [(le.search, le.trial) for le in found] == [("near", 1), ("near", 0), ("far", 1)]
    assert found[0].similarity == 1.0
    assert 0 < found[2].similarity < 0.5
    assert found[0].origin == "warm start: near #1"


def test_similarity_falls_with_every_difference_of_the_tasks() -> None:
    before = earlier([])
    assert task_similarity(TASK, [BACKBONE], before) == pytest.approx(1.0)
    assert task_similarity(TASK, [DEEP], before) == pytest.approx(0.6)
    fewer = replace(TASK, counts={"train": 25})
    renamed = replace(TASK, classes=tuple("abcdefghij"))
    assert task_similarity(fewer, [BACKBONE], before) < task_similarity(TASK, [BACKBONE], before)
    assert task_similarity(renamed, [BACKBONE], before) == pytest.approx(0.7)


def test_parameters_are_translated_into_the_new_space() -> None:
    full = {"unfreeze_depth": 2, "learning_rate": 1e-3, "head_units": 0, "augmentation_strength": 0.5}
    old = trial(0, 0.9, **full, weight_decay=1e-4)
    record = earlier([old])
    assert (
        translate_config(old, record, SPACE, OWN) == full
    )  # parameters that the space does not have are left out
    assert translate_config(old, record, full_space(4), OWN) == {**full, "weight_decay": 1e-4}
    deeper = translate_config(old, record, core_space(8), {None: DEEP})
    assert deeper is not None
    assert deeper["unfreeze_depth"] == 4  # half of the blocks, as in the earlier search
    several = core_space(8, backbones={"print": 4, "deep": 8})
    chosen = translate_config(old, record, several, {"deep": DEEP, "print": BACKBONE})
    assert chosen == {"backbone": "print", **full}
    assert translate_config(replace(old, method="distill"), record, SPACE, OWN) is None
    assert translate_config(trial(0, 0.9, learning_rate=0.5), record, SPACE, OWN) is None  # out of range


def kept(folder: Path, name: str, metric: str = "val_accuracy", trials: int = 3) -> Path:
    """Write the ledger of a search into the storage ``folder``."""
    from search.ledger.format_version import LEDGER_FORMAT
    from search.ledger.reader import about_to_json

    workspace = Workspace(folder, name)
    workspace.create()
    ledger = Ledger(
        sqlite_url(workspace.ledger),
        name,
        direction="maximize",
        metric=metric,
        method="finetune",
        sampler="random",
        seed=1,
    )
    for number in range(trials):
        record = ledger.start(SPACE.suggest)
        ledger.report(number, EpochMetrics(1, objective(dict(record.params)), 0.1, 0.1, 0.1))
        ledger.finish(number, "complete")
    ledger.set_attribute(StudyKey.FORMAT, LEDGER_FORMAT)
    ledger.set_attribute("started", "2026-01-01T00:00:00+00:00")
    ledger.set_attribute("about", about_to_json(earlier([], name, metric=metric)))
    return folder


@pytest.mark.parametrize(
    ("named", "changes", "error", "words"),
    [
        ("absent", {}, LedgerError, "warm_start: expected a search in .*received 'absent'"),
        ("own", {}, UsageError, "warm_start: expected another search than this one, received 'own'"),
        ("other", {}, UsageError, "warm_start: expected a search for val_accuracy.*objective is val_loss"),
        ("empty", {}, LedgerError, "warm_start: expected a search with a result of --method finetune"),
        ("good", {"method": "scratch"}, LedgerError, "with a result of --method scratch, received 'good'"),
    ],
)
def test_earlier_searches_that_can_not_be_used_are_refused(
    tmp_path: Path, named: str, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    kept(tmp_path, "good")
    kept(tmp_path, "other", metric="val_loss")
    kept(tmp_path, "empty", trials=0)
    config = SearchConfig(name="own", storage=str(tmp_path), warm_start=[named], **changes)
    with pytest.raises(error, match=words):
        check_inputs(config, Workspace(tmp_path, "own"), DataSources(tmp_path))


def test_warm_start_takes_one_name_or_several() -> None:
    assert SearchConfig(warm_start="a").warm_start == ("a",)
    assert SearchConfig(warm_start=["a", "b", "a"]).warm_start == ("a", "b")
    assert SearchConfig().warm_start is None
    with pytest.raises(UsageError, match="warm_start: expected a name that can be a folder's"):
        SearchConfig(warm_start=["../a"])


def test_the_ledger_stores_the_origin_of_each_transferred_trial_once(tmp_path: Path) -> None:
    def opened() -> Ledger:
        ledger = Ledger(
            sqlite_url(tmp_path / "ledger.db"),
            "s",
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler="tpe",
            seed=2,
        )
        ledger.enqueue([{"unfreeze_depth": 1}])
        few = first_configs(prior.configs, 30)
        ledger.enqueue([le.params for le in few], [le.origin for le in few])
        ledger.proposal_source = ProposalChain([prior])
        return ledger

    prior = warm(earlier(searched(1)))
    ledger = opened()
    for number in range(8):
        ledger = opened() if number in (1, 5) else ledger
        record = ledger.start(SPACE.suggest)
        ledger.report(number, EpochMetrics(1, objective(dict(record.params)), 0.1, 0.1, 0.1))
        ledger.finish(number, "complete")
    origins = [t.origin for t in ledger.trials]
    assert origins[0] is None  # the user's configurations come first
    assert origins[1:4] == [le.origin for le in first_configs(prior.configs, 30)]
    assert all(o is None or o.startswith("warm start: near before #") for o in origins[4:])
    assert ledger.trial(1).params == prior.configs[0].params

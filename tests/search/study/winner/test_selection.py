"""The winner is chosen by the mean over new seeds; the frozen probe wins unless another model is clearly better."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_records import outcome, search, trial

from search import SearchConfig
from search.execution.engines.jobs import ValidationResult
from search.records.predictions import pack_bits, pack_floats
from search.records.record import Outcome, SearchRecord, Selection, TrialRecord
from search.study.winner.confirmation import ConfirmationCandidate, training_config
from search.study.winner.selection import (
    Contest,
    SelectionPlan,
    ValidatedTrial,
    ValidationRun,
    choose_winner,
    hold_contests,
    plan_selection,
    read_validation,
    validate_trials,
)
from trainables.epoch_metrics import EpochMetrics

IMAGES = 100


def finished_trial(number: int, value: float = 0.8, method: str = "finetune") -> TrialRecord:
    return replace(trial(number), state="complete", method=method, value=value, number=number)


def validated(number: int, *right: int, method: str = "finetune", loss: float = 0.5) -> ValidatedTrial:
    """A trial whose trainings classify the first ``right`` images correctly, one number for each seed; -1 diverged."""
    runs = [
        ValidationRun(0, np.zeros(0, bool), np.zeros(0, np.float32))
        if count < 0
        else ValidationRun(5 + seed, np.arange(IMAGES) < count, np.full(IMAGES, loss, np.float32))
        for seed, count in enumerate(right)
    ]
    return ValidatedTrial(finished_trial(number, 0.95, method), tuple(runs))


def chosen(*candidates: ValidatedTrial, metric: str = "val_accuracy") -> Selection:
    found = choose_winner(candidates, metric, "maximize" if metric == "val_accuracy" else "minimize")
    assert found is not None
    return found


def test_the_best_mean_over_seeds_wins_and_not_the_best_single_training() -> None:
    selection = chosen(validated(1, 99, 80, 82), validated(2, 90, 91, 92))
    assert selection.chosen == 2
    assert [f.trial for f in selection.finalists] == [2, 1]
    winner = selection.winner
    assert winner.values == (0.90, 0.91, 0.92)
    assert winner.mean.low < winner.mean.estimate < winner.mean.high
    assert winner.mean.estimate == pytest.approx(0.91)
    assert winner.epochs == (5, 6, 7)
    assert selection.optimism(winner) == pytest.approx(0.04)
    assert selection.over_probe is None


def test_the_probe_wins_within_one_standard_error() -> None:
    # Two images of 100 differ: the standard error of the difference is 1.4 points.
    near = chosen(validated(1, 81, 81, 81), validated(0, 80, 80, 80, method="probe"))
    assert (near.chosen, near.probe_preferred) == (0, True)
    assert near.over_probe is not None
    assert near.over_probe.estimate == pytest.approx(0.01)
    far = chosen(validated(1, 90, 90, 90), validated(0, 80, 80, 80, method="probe"))
    assert (far.chosen, far.probe_preferred) == (1, False)


def test_seeds_that_differ_much_cannot_beat_the_probe() -> None:
    probe = validated(0, 80, 80, 80, method="probe")
    assert chosen(validated(1, 86, 86, 86), probe).chosen == 1
    assert chosen(validated(1, 99, 99, 60), probe).chosen == 0  # the same mean


def test_a_probe_with_the_best_mean_is_not_merely_preferred() -> None:
    selection = chosen(validated(1, 70, 70), validated(0, 80, 80, method="probe"))
    assert (selection.chosen, selection.probe_preferred) == (0, False)
    assert selection.over_probe is not None
    assert selection.over_probe.estimate < 0


def test_ties_go_to_the_lower_loss_then_to_the_probe_then_to_the_better_trial() -> None:
    assert chosen(validated(1, 80, loss=0.5), validated(2, 80, loss=0.4)).chosen == 2
    assert chosen(validated(1, 80), validated(0, 80, method="probe")).finalists[0].trial == 0
    assert chosen(validated(7, 80), validated(3, 80)).chosen == 7


def test_a_loss_is_compared_by_its_values() -> None:
    selection = chosen(validated(1, 90, 90, loss=0.9), validated(2, 50, 50, loss=0.3), metric="val_loss")
    assert selection.chosen == 2
    assert selection.winner.values == pytest.approx((0.3, 0.3))
    assert selection.optimism(selection.winner) == pytest.approx(0.3 - 0.95)
    near = chosen(validated(1, 90, loss=0.9), validated(0, 50, loss=0.3, method="probe"), metric="val_loss")
    assert (near.chosen, near.probe_preferred) == (0, False)


def test_a_configuration_that_diverges_with_a_new_seed_cannot_win() -> None:
    selection = chosen(validated(1, 99, -1), validated(2, 70, 70))
    assert (selection.chosen, selection.failed) == (2, (1,))
    assert choose_winner([validated(1, -1, -1)], "val_accuracy", "maximize") is None


def test_one_validation_image_cannot_beat_the_probe() -> None:
    def single(number: int, right: bool, method: str) -> ValidatedTrial:
        run = ValidationRun(1, np.array([right]), np.array([0.1], np.float32))
        return ValidatedTrial(finished_trial(number, 1.0, method), (run, run))

    selection = chosen(single(1, True, "finetune"), single(0, False, "probe"))
    assert (selection.chosen, selection.images, selection.over_probe) == (0, 1, None)


def test_the_mean_best_epoch_is_a_whole_number_of_at_least_one() -> None:
    assert validated(1, 80, 80, 80).best_epochs == 6
    assert validated(1, 80).best_epochs == 5


# The plan


def record(*values: float, probe: float | None = None) -> SearchRecord:
    trials = [finished_trial(n + 1, value) for n, value in enumerate(values)]
    if probe is not None:
        trials.insert(0, finished_trial(0, probe, "probe"))
    return replace(search(), trials=tuple(trials))


def planned(known: SearchRecord, **options: Any) -> SelectionPlan:
    return plan_selection(known, SearchConfig(**options))


def numbers(plan: SelectionPlan) -> list[int]:
    return [finalist.number for finalist in plan.finalists]


def test_the_best_trials_and_the_probe_are_finalists() -> None:
    known = record(0.7, 0.9, 0.8, 0.85, probe=0.1)
    plan = planned(known)
    assert numbers(plan) == [2, 4, 3, 0]
    assert (plan.validated, plan.refit) == (True, True)
    assert numbers(planned(known, finalists=1)) == [2, 0]
    assert numbers(planned(record(0.7, 0.9, probe=0.8), finalists=2)) == [2, 0]
    assert numbers(planned(record(0.7, 0.9), finalists=100)) == [2, 1]


def test_without_finalists_probe_and_refit_the_best_trial_is_confirmed_as_it_is() -> None:
    plan = planned(record(0.7, 0.9), finalists=1, refit=False)
    assert (numbers(plan), plan.validated, plan.refit) == ([2], False, False)
    assert planned(record(0.7, 0.9), finalists=1).validated  # a refit has to know for how many epochs


def test_hidden_validation_labels_allow_neither_a_choice_nor_a_refit() -> None:
    known = record(0.7, 0.9, 0.8)
    config = SearchConfig(data="a/", source="b/", unlabelled_target=True, method="reweight")
    plan = plan_selection(known, config)
    assert (numbers(plan), plan.validated, plan.refit) == ([2], False, False)


def test_a_search_without_any_result_has_no_finalist() -> None:
    plan = planned(record())
    assert plan.finalists == ()
    assert plan.is_done(None, ())


def measured(plan: SelectionPlan, winner: int, refit: bool = True, **changes: Any) -> Outcome:
    candidates = [validated(t.number, 80, 80, method=t.method) for t in plan.finalists]
    selection = replace(chosen(*candidates), chosen=winner)
    changes = {"selection": selection, "refit": refit, **changes}
    return outcome(next(t for t in plan.ranked if t.number == winner), **changes)


def test_a_plan_is_done_once_its_finalists_were_compared() -> None:
    plan = planned(record(0.7, 0.9, 0.8, probe=0.6))
    assert not plan.is_done(None, ())
    assert plan.is_done(measured(plan, winner=3), ())
    assert not plan.is_done(measured(plan, winner=3, refit=False), ())
    more = planned(
        record(0.7, 0.9, 0.8, 0.99, probe=0.6)
    )  # the search was extended, and has a new best trial
    assert not more.is_done(measured(plan, winner=3), ())


def test_an_outcome_of_an_earlier_version_is_kept() -> None:
    known = record(0.7, 0.9, 0.8)
    old = outcome(known.trials[1])
    assert old.selection is None
    assert planned(known).is_done(old, ())
    assert not planned(record(0.7, 0.9, 0.99)).is_done(old, ())


# The trainings


def contest(*trials: TrialRecord, first: int = 1) -> Contest:
    return Contest(trials[:first], trials, lambda known: 10)


def test_the_next_trial_follows_only_if_all_before_it_diverged() -> None:
    asked: list[list[int]] = []

    def validate(candidates: Any) -> list[ValidatedTrial]:
        asked.append([c.trial.number for c in candidates])
        return [validated(n, -1 if n in (1, 2, 5) else 80) for n in asked[-1]]

    first = contest(*map(finished_trial, (1, 2, 3, 4)))
    others = contest(*map(finished_trial, (6, 7))), contest(finished_trial(5))
    found = hold_contests([first, *others], validate)
    assert asked == [[1, 6, 5], [2], [3]]
    assert [[v.trial.number for v in group] for group in found] == [[1, 2, 3], [6], [5]]


class Dispatched:
    """Stands for the engines: it trains nothing and counts what it is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configs: list[Any] = []
        monkeypatch.setattr("search.study.winner.confirmation.dispatch", self)

    def __call__(self, session: Any, jobs: Any, ends: Any = None) -> Any:
        for index, job in jobs.items():
            self.configs.append(job.config)
            metrics = EpochMetrics(4, 0.5, 0.7, 0.6, 0.1)
            bits, losses = np.array([True, False]), np.array([0.25, 1.5], np.float32)
            yield (
                index,
                None
                if job.config.seed % 2
                else ValidationResult(metrics, pack_bits(bits), pack_floats(losses)),
            )


class Silent:
    """Stands for view and stop request."""

    immediate = False

    def stage(self, *told: Any) -> None:
        pass


def trained(directory: Path, config: SearchConfig) -> list[ValidatedTrial]:
    silent: Any = Silent()
    candidates = [ConfirmationCandidate(finished_trial(n), 12) for n in (3, 1)]
    return validate_trials(candidates, config, silent, lambda _: silent, directory, silent, silent)


def test_each_training_leaves_its_file_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatched, config = Dispatched(monkeypatch), SearchConfig(confirm_seeds=2)
    first = trained(tmp_path / "winner", config)
    assert [(c.method, c.epochs, c.live, c.keep, c.stop_epoch) for c in dispatched.configs] == [
        ("finetune", 12, False, "best", None)
    ] * 4
    assert [v.trial.number for v in first] == [3, 1]
    assert all(v.diverged and len(v.runs) == 2 for v in first)  # one of two seeds is odd
    came_through = next(run for run in first[0].runs if run.epoch)
    assert came_through.correct.tolist() == [True, False]
    assert came_through.losses.tolist() == [0.25, 1.5]

    trained(tmp_path / "winner", config)
    assert len(dispatched.configs) == 4

    files = sorted((tmp_path / "winner").iterdir())
    files[0].write_text("{")
    files[1].write_text(
        json.dumps({**json.loads(files[1].read_text()), "losses": pack_floats(np.zeros(9, np.float32))})
    )
    trained(tmp_path / "winner", config)
    assert len(dispatched.configs) == 6


@pytest.mark.parametrize(("strength", "views"), [(0.0, 0), (0.5, 2)])
def test_a_probe_is_trained_again_at_the_cut_that_it_chose(strength: float, views: int) -> None:
    cost = {"probe_depth": 2, "probe_strength": strength, "probe_views": views}
    params = {"unfreeze_depth": 0, "head_units": 0, "augmentation_strength": 0.5}
    probe = replace(finished_trial(0, method="probe"), params=params, cost=cost)
    found = training_config(ConfirmationCandidate(probe, 1, 1), 7, SearchConfig()).params
    assert found == {**params, "probe_depth": 2, "augmentation_strength": strength}
    other = replace(finished_trial(1), params=params, cost=cost)
    assert training_config(ConfirmationCandidate(other, 4, 2), 7, SearchConfig()).params == params


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"epoch": 1, "correct": "x", "losses": "!"}', "null", "\0"]
)
def test_a_damaged_file_counts_as_missing(tmp_path: Path, text: str) -> None:
    known = finished_trial(3)
    (tmp_path / f"{known.method}-3-seed-7-validation.json").write_text(text)
    assert read_validation(tmp_path, known, 7) is None

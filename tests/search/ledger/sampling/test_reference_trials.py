"""Test that samplers propose what they would propose without the reference trials of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase

from search.config.choices import SAMPLERS
from search.config.space import core_space
from search.ledger.ledger import Ledger, sqlite_url
from search.ledger.sampling.reference_trials import ReferenceBlindSampler
from search.ledger.sampling.samplers import make_sampler
from search.ledger.trial_records import is_reference_trial
from trainables.epoch_metrics import EpochMetrics

PROBE = {"unfreeze_depth": 0, "head_units": 0, "augmentation_strength": 0.25}
SPACE = core_space(4)


def blind(sampler: BaseSampler) -> ReferenceBlindSampler:
    return ReferenceBlindSampler(sampler, is_reference_trial)


class TestBlindBasics(BasicSamplerTestCase):
    """What Optuna expects of any sampler."""

    @pytest.fixture
    def sampler(self) -> Any:
        return lambda: blind(make_sampler("random", 3))


def study_of(sampler: str, probe: bool, trials: int) -> optuna.Study:
    """Return a study of what a sampler proposes, with or without a probe as its first trial."""
    study = optuna.create_study(direction="maximize")
    if probe:
        study.enqueue_trial(PROBE, user_attrs={"method": "probe"})
        study.sampler = blind(make_sampler(sampler, 3, 0))
        study.tell(study.ask(), 1.0)  # better than all others
    for number in range(trials):
        study.sampler = blind(make_sampler(sampler, 3, number))
        trial = study.ask()
        params = SPACE.suggest(trial)
        study.tell(trial, -abs(params["unfreeze_depth"] - 2) - float(params["learning_rate"]))
    return study


def probe_params(trial: optuna.Trial) -> dict[str, Any]:
    SPACE.suggest_given(trial, PROBE)
    return PROBE


def proposals(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials if trial.user_attrs.get("method") != "probe"]


# The random numbers of CMA-ES also depend on the number of the trial.
@pytest.mark.parametrize("sampler", sorted({*SAMPLERS} - {"cmaes"}))
def test_a_probe_changes_no_proposal(sampler: str) -> None:
    assert proposals(study_of(sampler, True, 14)) == proposals(study_of(sampler, False, 14))


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "cmaes"])
def test_all_parameters_are_proposed_jointly_although_the_probe_lacks_some(sampler: str) -> None:
    study = study_of(sampler, True, 3)
    joint = blind(make_sampler(sampler, 3, 4))
    assert set(joint.infer_relative_search_space(study, study.trials[-1])) == set(SPACE.ranges)


def test_nothing_is_proposed_for_the_probe() -> None:
    study = study_of("qmc", True, 2)
    qmc = blind(make_sampler("qmc", 3, 4))
    assert qmc.infer_relative_search_space(study, study.trials[0]) == {}


def test_importances_and_proposals_of_a_ledger_leave_the_probe_out(tmp_path: Path) -> None:
    ledger = Ledger(
        sqlite_url(tmp_path / "l.db"), "s", direction="maximize", metric="val_accuracy", method="finetune",
        sampler="tpe", seed=0,
    )  # fmt: skip
    ledger.enqueue_references([PROBE], "probe")
    for number in range(12):
        record = ledger.start(SPACE.suggest if number else probe_params)
        ledger.report(record.number, EpochMetrics(1, 0.9 - number / 100, 0.5, 0.5, 0.1))
        ledger.finish(record.number, "complete")
    assert set(ledger.importances()) == set(SPACE.ranges)
    assert [set(trial.params) for trial in ledger.trials[1:]] == [set(SPACE.ranges)] * 11

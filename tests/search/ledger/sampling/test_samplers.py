"""Test the samplers with Optuna's conformance tests, and that the private API that ours uses exists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import pytest
from optuna import Study
from optuna.samplers import BaseSampler, TPESampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from search.config.choices import SAMPLERS
from search.ledger.sampling.samplers import make_sampler
from search.ledger.sampling.tpe import IncrementalTPESampler, check_private_api, new_shared_space
from trainables.errors import SearchError
from trainables.implementations import load_implementation

MakeSampler = Callable[[], BaseSampler]
OURS = ("tpe",)
"""Samplers with code of ours. Optuna tests its own."""
SINGLE_OBJECTIVE = {name for name, sampler in SAMPLERS.items() if sampler.single_objective_only}


def test_every_sampler_that_can_be_chosen_can_be_made() -> None:
    for sampler in SAMPLERS.values():
        assert callable(load_implementation(sampler.implementation))


class TestBasics(BasicSamplerTestCase):
    """What Optuna expects of any sampler."""

    @pytest.fixture(params=OURS)
    def sampler(self, request: pytest.FixtureRequest) -> MakeSampler:
        return partial(make_sampler, request.param, 3)


class TestIncrementalTPE(RelativeSamplerTestCase):
    """What Optuna expects of a sampler that proposes parameters jointly; without random trials at first."""

    @pytest.fixture
    def sampler(self) -> MakeSampler:
        return lambda: IncrementalTPESampler(3, new_shared_space(), n_startup_trials=0)


class TestSeveralObjectives(MultiObjectiveSamplerTestCase):
    """What Optuna expects of a sampler for several objectives."""

    @pytest.fixture(params=OURS)
    def sampler(self, request: pytest.FixtureRequest) -> MakeSampler:
        return partial(make_sampler, request.param, 3)


class TestOneObjective(SingleOnlySamplerTestCase):
    """Samplers that we refuse for several objectives are refused by Optuna too."""

    @pytest.fixture(params=tuple(sorted(SINGLE_OBJECTIVE)))
    def sampler(self, request: pytest.FixtureRequest) -> MakeSampler:
        return partial(make_sampler, request.param, 3)


def test_the_installed_optuna_has_the_private_api_of_tpe() -> None:
    check_private_api.cache_clear()
    check_private_api()
    assert isinstance(TPESampler()._random_sampler, optuna.samplers.RandomSampler)


def test_tpe_calls_the_methods_that_are_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    class Spy(IncrementalTPESampler):
        def _sample_relative(self, *arguments: Any) -> dict[str, Any]:
            called.append("_sample_relative")
            return super()._sample_relative(*arguments)

    read = Study._get_trials

    def get_trials(self: Study, *arguments: Any, **options: Any) -> Any:
        called.append("_get_trials")
        return read(self, *arguments, **options)

    monkeypatch.setattr(Study, "_get_trials", get_trials)
    study = optuna.create_study(sampler=Spy(3, new_shared_space(), n_startup_trials=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    called.clear()
    study.ask().suggest_float("x", 0, 1)
    assert {"_sample_relative", "_get_trials"} <= {*called}


@pytest.mark.parametrize("gone", [(TPESampler, "_sample_relative"), (Study, "_get_trials")])
def test_another_optuna_is_refused_before_anything_is_proposed(
    gone: tuple[type, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(*gone)
    check_private_api.cache_clear()
    try:
        with pytest.raises(SearchError, match=rf"optuna: expected one of .*{gone[1]}.*pip install 'optuna=="):
            IncrementalTPESampler(3, new_shared_space())
    finally:
        check_private_api.cache_clear()

"""The cost account of each trial holds its own costs, also if trials run in several threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trainables.activations.activations import ActivationCache
from trainables.compiled.program import Program
from trainables.cost_account import STAGES, CostAccount
from trainables.methods.methods import begin
from trainables.reuse import Reuse
from trainables.training.training import Training
from trainables.training.trial_config import TrialConfig
from trainables.training.workbench import Workbench

EPOCHS = 2


def opened(source: Workbench, reuse: Reuse | None = None) -> Workbench:
    """The same backbone and data, with nothing computed or compiled."""
    reuse = reuse or Reuse()
    budget = 2**30 if reuse.activations else 0
    activations = ActivationCache(source.backbone, source.task, budget=budget, views=reuse.views)
    return Workbench(source.backbone, source.task, activations, reuse)


def run(bench: Workbench, seed: int = 1, depth: int = 0, strength: float = 0.0, **params: Any) -> Training:
    known = {
        "unfreeze_depth": depth,
        "learning_rate": 3e-3,
        "head_units": 0,
        "augmentation_strength": strength,
    }
    training = begin(TrialConfig("finetune", {**known, **params}, epochs=EPOCHS, seed=seed), bench)
    while not training.done:
        training.run_epoch()
    training.release()
    return training


def test_a_stage_excludes_time_charged_inside_it() -> None:
    account, began = CostAccount(), time.perf_counter()
    with account.timing("start"):
        time.sleep(0.02)
        with account.timing("prefix"):
            time.sleep(0.04)
            with account.timing("wait"):
                time.sleep(0.08)
        account.charge("compile", 0.01)
    passed = time.perf_counter() - began
    for stage, least in {"start": 0.01, "prefix": 0.04, "wait": 0.08, "compile": 0.01}.items():
        assert account.stage_seconds[stage] >= least
    assert account.stage_seconds["compile"] == pytest.approx(0.01)
    assert sum(account.stage_seconds.values()) <= passed
    assert set(account.stage_seconds) <= set(STAGES)


def test_stages_are_charged_if_the_block_raises() -> None:
    account = CostAccount()
    with pytest.raises(KeyError), account.timing("prefix"), account.timing("wait"):
        raise KeyError
    assert account.stage_seconds.keys() == {"prefix", "wait"}


def test_the_first_trial_computes_and_the_second_reuses(print_bench: Workbench) -> None:
    bench = opened(print_bench)
    first, second = (run(bench, seed).cost() for seed in (1, 2))
    assert (first.counts.misses, first.counts.hits, first.counts.programs_compiled) == (2, 2 * EPOCHS - 2, 1)
    assert (second.counts.misses, second.counts.hits, second.counts.programs_compiled) == (0, 2 * EPOCHS, 0)
    assert first.counts.bytes_written > 0 == second.counts.bytes_written
    assert second.counts.bytes_read == EPOCHS * first.counts.bytes_written
    assert second.counts.saved_seconds > first.counts.saved_seconds > 0
    lower = run(bench, depth=1).cost()
    assert (lower.counts.misses, lower.counts.derived) == (2, 0)
    assert first.decision.reuse is True
    assert first.decision.reason


def test_a_higher_cut_is_counted_as_derived(print_bench: Workbench) -> None:
    bench = opened(print_bench)
    run(bench, depth=1)
    assert run(bench, depth=0).cost().counts.derived == 2


def test_of_simultaneous_trials_one_computes_and_the_others_wait(print_bench: Workbench) -> None:
    bench = opened(print_bench)
    assert bench.activations.get("validation", 0) is not None  # builds and traces the prefix
    everybody = threading.Barrier(4)

    def ask(account: CostAccount) -> CostAccount:
        everybody.wait()
        with account.timing("prefix"):
            assert bench.activations.get("train", 0, strength=0.5, account=account) is not None
        return account

    with ThreadPoolExecutor(4) as pool:
        first, *others = sorted(pool.map(ask, [CostAccount() for _ in range(4)]), key=lambda a: a.counts.hits)
    assert (first.counts.misses, first.counts.hits) == (1, 0)
    assert [(a.counts.misses, a.counts.hits) for a in others] == [(0, 1)] * 3
    assert max(a.stage_seconds["wait"] for a in others) > 0.3 * first.stage_seconds["prefix"]
    assert first.stage_seconds["wait"] < first.stage_seconds["prefix"]
    assert (bench.activations.misses, bench.activations.hits) == (2, 3)


class TestSwitches:
    def test_without_programs_each_trial_compiles_its_own(self, print_bench: Workbench) -> None:
        bench = opened(print_bench, Reuse(programs=False))
        compiled = [
            run(bench, seed, depth).cost().counts.programs_compiled for seed in (1, 2) for depth in (0, 1)
        ]
        assert compiled == [1, 1, 1, 1]

    def test_without_activations_every_epoch_runs_the_prefix(self, print_bench: Workbench) -> None:
        bench = opened(print_bench, Reuse(activations=False))
        cost = run(bench).cost()
        assert (cost.decision.reuse, cost.counts.hits, cost.counts.bytes_written) == (False, 0, 0)
        assert cost.counts.misses == EPOCHS  # each evaluation
        assert bench.activations.bytes == {"memory": 0, "disk": 0}
        assert "no room" in cost.decision.reason

    def test_without_heads_each_trial_has_its_own_program(self, print_bench: Workbench) -> None:
        training = run(opened(print_bench, Reuse(heads=False)))
        assert isinstance(training.program, Program)
        assert training.decision.reuse
        assert not isinstance(run(print_bench).program, Program)

    @pytest.mark.parametrize("strength", [0.1, 0.6])
    def test_without_views_every_epoch_is_augmented_anew(
        self, print_bench: Workbench, strength: float
    ) -> None:
        training = run(opened(print_bench, Reuse(views=0)), strength=strength)
        assert training.feed.strength == strength
        assert not training.decision.reuse
        assert "distortions of its own" in training.decision.reason

    def test_numbers_are_the_same_whatever_is_switched_off(self, print_bench: Workbench) -> None:
        usual = run(print_bench, depth=1, strength=0.5).last
        for reuse in (Reuse(programs=False), Reuse(activations=False), Reuse(heads=False)):
            found = run(opened(print_bench, reuse), depth=1, strength=0.5).last
            assert found is not None
            assert usual is not None
            assert found.train_loss == pytest.approx(usual.train_loss, rel=1e-3)

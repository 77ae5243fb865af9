"""Several objectives: the options, the ledger, Optuna's study, and the serving costs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search.config.config_file import load_config
from search.config.ranges import Choice, IntRange
from search.config.search_config import SearchConfig
from search.config.space import core_space, make_space
from search.execution.engines.jobs import CountParameters
from search.ledger.ledger import Ledger, check_same_settings, sqlite_url
from search.records.record import pareto_trials
from search.study.serving_costs import ArchitectureJob, BackboneFile, ServingCosts
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError, UsageError

SPACE = core_space(4)
TWO = ("val_accuracy", "parameters")
THREE = ("val_accuracy", "latency_ms", "val_loss")


def epoch(number: int, accuracy: float, loss: float = 0.5) -> EpochMetrics:
    return EpochMetrics(number, accuracy, loss, loss, 0.1)


def open_ledger(folder: Path, objectives: tuple[str, ...] = TWO, **changes: Any) -> Ledger:
    settings: dict[str, Any] = {"metric": objectives[0], "direction": "maximize", "method": "finetune"}
    settings |= {"sampler": "tpe", "seed": 3, "objectives": objectives}
    ledger = Ledger(sqlite_url(folder / "ledger.db"), "a search", **{**settings, **changes})
    ledger.serving_costs = lambda params: {
        "parameters": 1000.0 + float(params["head_units"]),
        "latency_ms": 2.0 + float(params["head_units"]) / 64,
    }
    return ledger


def fill(ledger: Ledger, trials: int) -> None:
    for _ in range(trials):
        trial = ledger.start(SPACE.suggest)
        accuracy = (
            0.5 + float(trial.params["head_units"]) / 1000 - abs(float(trial.params["learning_rate"]) - 0.01)
        )
        ledger.report(trial.number, epoch(1, accuracy / 2, 0.9))
        ledger.report(trial.number, epoch(2, accuracy, 0.4))
        ledger.finish(trial.number, "complete")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": ["val_acuracy", "latency_ms"]},
            r"objective: expected one of .*did you mean 'val_accuracy'",
        ),
        ({"objective": ["val_accuracy", "latency"]}, r"objective: expected .*did you mean 'latency_ms'"),
        (
            {"objective": ["val_accuracy", "latency_ms", "val_accuracy"]},
            r"val_accuracy is given twice, received \[",
        ),
        ({"objective": ["latency_ms", "val_accuracy"]}, r"expected the first to be a metric of training"),
        ({"objective": "latency_ms"}, r"expected the first to be a metric of training .*received"),
        ({"objective": ["val_accuracy", 3]}, r"objective: expected one of"),
        (
            {"objective": ["val_accuracy", "parameters"], "metric": "val_loss"},
            r"objective, metric: .*'val_loss'",
        ),
        ({"objective": "val_accuracy", "metric": "val_loss"}, r"objective, metric: expected one of the two"),
        (
            {"objective": ["val_accuracy", "parameters"], "sampler": "cmaes"},
            r"sampler: expected one of tpe, .*'cmaes'",
        ),
        ({"confirm_points": 0}, r"confirm_points: expected a whole number from 1"),
    ],
)
def test_invalid_objectives_are_refused_with_a_message(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchConfig(**settings)


def test_one_objective_is_the_metric() -> None:
    plain = SearchConfig(metric="val_loss")
    assert (
        SearchConfig(objective=["val_loss"])
        == SearchConfig(objective="VAL_LOSS ", metric="val_loss")
        == plain
    )
    assert plain.objective is None
    assert plain.objectives == ("val_loss",)
    assert SearchConfig(objective="val_loss", sampler="cmaes").direction == "minimize"
    several = SearchConfig(objective=["val_loss", "megabytes"])
    assert (several.metric, several.objectives) == ("val_loss", ("val_loss", "megabytes"))
    assert several.directions == ("minimize", "minimize")
    assert several.replace(trials=3).objective == several.objective
    assert several.replace(objective=None) == plain


def test_metric_and_objective_flags_override_both_keys_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("metric: val_loss\n")
    (tmp_path / "two.yaml").write_text("objective: [val_accuracy, parameters]\n")
    config = load_config(tmp_path / "one.yaml", {"objective": ["val_accuracy", "latency_ms"]})
    assert config.objectives == ("val_accuracy", "latency_ms")
    assert load_config(tmp_path / "two.yaml").objectives == TWO
    assert load_config(tmp_path / "two.yaml", {"metric": "val_loss"}).objectives == ("val_loss",)
    with pytest.raises(UsageError, match=r"--objective, --metric: "):
        load_config(None, {"objective": ["val_accuracy", "latency_ms"], "metric": "val_loss"})


@pytest.mark.parametrize("objectives", [TWO, THREE])
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsga2"])
def test_optuna_s_best_trials_of_the_study_are_our_pareto_front(
    tmp_path: Path, sampler: str, objectives: tuple[str, ...]
) -> None:
    ledger = open_ledger(tmp_path, objectives, sampler=sampler)
    fill(ledger, 14)
    lost = ledger.start(SPACE.suggest).number
    ledger.report(lost, epoch(1, math.nan, math.nan))
    ledger.finish(lost, "pruned", reason="diverged")
    early = ledger.start(SPACE.suggest).number
    ledger.finish(early, "pruned", reason="scheduler", epoch=epoch(1, 0.99))
    empty = ledger.start(SPACE.suggest).number
    ledger.finish(empty, "complete")
    fill(ledger, 6)
    study = optuna.load_study(study_name="a search", storage=sqlite_url(tmp_path / "ledger.db"))
    assert [d.name for d in study.directions] == ["MAXIMIZE", *["MINIMIZE"] * (len(objectives) - 1)]
    ours = pareto_trials(ledger.trials, objectives)
    assert {t.number for t in ours} == {t.number for t in study.best_trials}
    assert len(ours) >= 1
    for trial in study.trials:
        known = ledger.trial(trial.number)
        assert trial.values == (
            [known.objectives[n] for n in objectives] if known.state == "complete" else None
        )
    assert [ledger.trial(n).state for n in (lost, early, empty)] == ["pruned"] * 3
    assert study.trials[lost].constraints == {"trains": 1.0}
    assert ledger.importances().keys() <= set(SPACE.ranges)


def test_proposals_equal_those_of_optuna_s_sampler(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    fill(ledger, 12)
    lost = ledger.start(SPACE.suggest).number
    ledger.finish(lost, "pruned", reason="out_of_memory")
    for _ in range(3):
        fill(ledger, 1)
        number = len(ledger.trials) - 1
        study = optuna.load_study(study_name="a search", storage=sqlite_url(tmp_path / "ledger.db"))
        again = optuna.create_study(directions=["maximize", "minimize"])
        again.add_trials(study.trials[:number])
        state = int(np.random.SeedSequence([3, number]).generate_state(1)[0])
        again.sampler = optuna.samplers.TPESampler(seed=state)
        assert SPACE.suggest(again.ask()) == ledger.trials[number].params


def test_depths_of_several_backbones_are_learned_as_fractions_of_their_blocks(tmp_path: Path) -> None:
    space = make_space("core", 12, backbones={"deep": 12, "flat": 2})
    ledger = open_ledger(tmp_path)
    for _ in range(40):
        trial = ledger.start(space.suggest)
        blocks = 12 if trial.params["backbone"] == "deep" else 2
        assert 0 <= int(trial.params["unfreeze_depth"]) <= blocks
        share = int(trial.params["unfreeze_depth"]) / blocks
        ledger.finish(
            trial.number, "complete", epoch=epoch(1, 1 - share)
        )  # the smaller the share, the better
    late = ledger.trials[20:]
    shares = [int(t.params["unfreeze_depth"]) / (12 if t.params["backbone"] == "deep" else 2) for t in late]
    assert np.mean(shares) < 0.3


def test_a_reopened_ledger_holds_all_values_and_the_costs_of_an_interrupted_trial(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    fill(ledger, 2)
    lost = ledger.start(SPACE.suggest)
    ledger.report(lost.number, epoch(1, 0.4))
    assert lost.objectives.keys() == {"parameters"}
    after = open_ledger(tmp_path)
    assert after.trials[:2] == ledger.trials[:2]
    after.serving_costs = lambda params: {"parameters": -1.0}  # a new measurement would give another number
    resumed = after.resume(lost.number, SPACE.suggest)
    assert resumed.objectives == {"val_accuracy": 0.4, **lost.objectives}
    after.finish(lost.number, "complete", epoch=epoch(2, 0.6))
    assert open_ledger(tmp_path).trials[2].objectives == {"val_accuracy": 0.6, **lost.objectives}


def test_other_objectives_under_the_same_name_are_refused_with_the_difference(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    check_same_settings(ledger, {"metric": "val_accuracy", "objective": list(TWO)})
    with pytest.raises(
        LedgerError, match=r"objective: expected \['val_accuracy', 'parameters'\], received none"
    ):
        check_same_settings(ledger, {"metric": "val_accuracy"})
    for other in (["val_accuracy", "latency_ms"], [*TWO, "val_loss"]):
        with pytest.raises(LedgerError, match=re.escape(f"received {other}")):
            check_same_settings(ledger, {"metric": "val_accuracy", "objective": other})


class Asked:
    """An engine that records its jobs: a head of n units has 100 + n parameters and takes 2 + n / 64 ms."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[tuple[str, int]]]] = []

    def __call__(self, job: ArchitectureJob) -> Any:
        known = [(a.backbone, a.head_units) for a in job.architectures]
        counting = isinstance(job, CountParameters)
        self.calls.append(("parameters" if counting else "paired_times", known))
        if counting:
            return [100 + units + (1000 if file == "big" else 0) for file, units in known]
        times = [2.0 + units / 64 + (4.0 if file == "big" else 0.0) for file, units in known]
        return np.array(times)[:, None] * np.ones((1, 40))


def serving_costs(
    ledger: Ledger, asked: Asked, objectives: tuple[str, ...] = ("val_accuracy", "latency_ms")
) -> ServingCosts:
    backbones = {None: BackboneFile("aa", "small"), "Big": BackboneFile("bb", "big")}
    return ServingCosts(ledger, objectives, backbones, 10, asked, lambda line: None)


def test_each_architecture_is_measured_once_in_a_search(tmp_path: Path) -> None:
    asked = Asked()
    first = serving_costs(open_ledger(tmp_path), asked)
    first.measure_all({"head_units": IntRange(0, 128, step=64), "backbone": Choice((None, "Big"))})
    assert [len(architectures) for _, architectures in asked.calls] == [6, 6]
    assert first.costs_of({"head_units": 64}) == {"latency_ms": 3.0}
    assert first.costs_of({"head_units": 64, "backbone": "Big"}) == {"latency_ms": 7.0}
    again = serving_costs(open_ledger(tmp_path), asked)
    again.measure_all({"head_units": IntRange(0, 128, step=64)})
    assert again.costs_of({}) == {"latency_ms": 2.0}
    assert len(asked.calls) == 2
    assert again.costs_of({"head_units": 640}) == {
        "latency_ms": 12.0
    }  # not in the space: it is measured when a trial first has it
    method, architectures = asked.calls[-1]
    assert (method, architectures[-1]) == ("paired_times", ("small", 640))
    assert len(architectures) == 5
    assert serving_costs(open_ledger(tmp_path), asked).costs_of({"head_units": 640}) == {"latency_ms": 12.0}


def test_sizes_are_computed_without_timing_a_model(tmp_path: Path) -> None:
    asked = Asked()
    found = serving_costs(open_ledger(tmp_path), asked, ("val_accuracy", "parameters", "megabytes"))
    found.measure_all({"head_units": IntRange(0, 65_536)})  # too many to measure in advance
    assert asked.calls == []
    assert found.costs_of({"head_units": 28}) == pytest.approx({"parameters": 128.0, "megabytes": 512e-6})
    assert [method for method, _ in asked.calls] == ["parameters"]


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_objectives import SPACE, epoch, fill, open_ledger
ledger = open_ledger(Path(sys.argv[1]))
with ledger.wal_mode():
    fill(ledger, 3)
    number = ledger.start(SPACE.suggest).number
    ledger.report(number, epoch(1, 0.5))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_no_objective_is_lost_when_the_driver_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False).returncode == -9
    after = open_ledger(tmp_path)
    assert after.interrupted() == [3]
    assert [set(t.objectives) for t in after.trials] == [set(TWO)] * 4

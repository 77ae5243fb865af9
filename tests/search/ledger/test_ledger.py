"""Test that the ledger stores every trial, that it resumes them after a kill, and which trials it starts."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import time
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search.config.ranges import Choice
from search.config.space import Space, core_space, full_space
from search.ledger.ledger import Ledger, check_same_settings, sqlite_url, trial_seed
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import LedgerError, UsageError

SPACE = core_space(4)


def open_ledger(folder: Path, **changes: Any) -> Ledger:
    settings: dict[str, Any] = {
        "direction": "maximize",
        "metric": "val_accuracy",
        "method": "finetune",
        "sampler": "tpe",
        "seed": 3,
    }
    return Ledger(sqlite_url(folder / "ledger.db"), "a search", **{**settings, **changes})


def epoch(number: int, accuracy: float, loss: float = 0.5) -> EpochMetrics:
    return EpochMetrics(number, accuracy, loss, loss, 0.1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    weird = tmp_path / "a b ü 字 'q' #1 50%"
    weird.mkdir()
    return weird


def fill(ledger: Ledger, trials: int) -> None:
    for _ in range(trials):
        number = ledger.start(SPACE.suggest).number
        ledger.report(number, epoch(1, 0.5 + number / 100))
        ledger.finish(number, "complete")


def test_a_reopened_ledger_has_all_trials(folder: Path) -> None:
    ledger = open_ledger(folder)
    first = ledger.start(SPACE.suggest)
    ledger.report(first.number, epoch(1, 0.5))
    ledger.report(first.number, epoch(2, 0.75))
    ledger.report(first.number, epoch(3, 0.625))
    ledger.record_cost(first.number, {"suffix": 1.5}, {"reuse": True, "reason": "small", "hits": 3})
    ledger.finish(first.number, "complete")
    second = ledger.start(SPACE.suggest)
    ledger.report(second.number, epoch(1, 0.1, math.nan))
    ledger.finish(second.number, "pruned", reason="diverged", error="val_loss=nan")
    third = ledger.start(SPACE.suggest)
    ledger.finish(third.number, "failed", reason="crashed", error="Traceback …")
    again = open_ledger(folder).trials
    assert [t.state for t in again] == ["complete", "pruned", "failed"]
    assert again[0] == ledger.trials[0]
    assert again[2] == ledger.trials[2]
    assert [t.params for t in again] == [t.params for t in ledger.trials]
    assert again[0].value == 0.75
    assert [e.val_accuracy for e in again[0].epochs] == [0.5, 0.75, 0.625]
    assert again[0].stages == {"suffix": 1.5}
    assert again[0].cost == {"reuse": True, "reason": "small", "hits": 3}
    assert math.isnan(again[1].epochs[0].val_loss)
    assert (again[1].reason, again[2].reason, again[2].error) == ("diverged", "crashed", "Traceback …")
    assert [t.seed for t in again] == [trial_seed(3, n) for n in range(3)]


def test_an_interrupted_trial_is_resumed_under_its_number(folder: Path) -> None:
    before = open_ledger(folder)
    lost = before.start(SPACE.suggest)
    before.report(lost.number, epoch(1, 0.4))
    after = open_ledger(folder)
    assert after.interrupted() == [lost.number]
    resumed = after.resume(lost.number, SPACE.suggest)
    assert (resumed.number, resumed.params, resumed.seed) == (lost.number, lost.params, lost.seed)
    after.report(lost.number, epoch(1, 0.9))  # the ledger has it already
    after.report(lost.number, epoch(2, 0.6))
    after.finish(lost.number, "complete")
    assert [e.val_accuracy for e in after.trials[0].epochs] == [0.4, 0.6]
    assert after.interrupted() == []
    assert len(open_ledger(folder).trials) == 1


def test_a_trial_is_written_whole_or_not_at_all(folder: Path) -> None:
    ledger = open_ledger(folder)

    def dies_half_way(trial: Any) -> dict[str, Any]:
        trial.suggest_int("unfreeze_depth", 0, 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.start(dies_half_way)
    assert open_ledger(folder).trials == ()


def test_resume_suggests_parameters_that_are_missing(folder: Path) -> None:
    open_ledger(folder)
    elsewhere = optuna.load_study(study_name="a search", storage=sqlite_url(folder / "ledger.db"))
    elsewhere.ask().suggest_int("unfreeze_depth", 0, 4)
    after = open_ledger(folder)
    record = after.resume(after.interrupted()[0], SPACE.suggest)
    assert set(record.params) == set(SPACE.ranges)
    assert record.number == 0


PROBE = {"unfreeze_depth": 0, "head_units": 0, "augmentation_strength": 0.25}


def suggest_probe(trial: Any) -> dict[str, Any]:
    SPACE.suggest_given(trial, PROBE)
    return PROBE


def test_reference_trials_come_first_and_have_exactly_their_parameters(folder: Path) -> None:
    ledger = open_ledger(folder)
    ledger.head_init = "probe"
    ledger.enqueue_references([PROBE], "probe")
    ledger.enqueue([{"unfreeze_depth": 3}])
    waiting = ledger.trials[0]
    assert (waiting.state, waiting.method, waiting.params) == ("waiting", "probe", PROBE)
    first = ledger.start(suggest_probe)
    assert (first.number, first.method, first.params, first.seed) == (0, "probe", PROBE, trial_seed(3, 0))
    assert optuna.load_study(study_name="a search", storage=ledger.url).trials[0].params == PROBE
    after = open_ledger(folder)
    resumed = after.resume(0, suggest_probe)
    assert (resumed.method, resumed.params, resumed.seed) == ("probe", PROBE, first.seed)
    after.report(0, epoch(1, 0.75))
    after.finish(0, "complete")
    second = after.start(SPACE.suggest)
    assert (second.method, second.params["unfreeze_depth"]) == ("finetune", 3)
    again = open_ledger(folder).trials
    assert (again[0].method, again[0].params, again[0].value) == ("probe", PROBE, 0.75)
    assert again[0].state == "complete"
    assert [trial.head_init for trial in again] == ["random", "random"]  # ``after`` was not told otherwise


def test_reference_trials_are_added_once_and_only_to_an_empty_ledger(folder: Path) -> None:
    ledger = open_ledger(folder)
    ledger.enqueue_references([PROBE, {**PROBE, "backbone": "b"}], "probe")
    ledger.enqueue_references([PROBE], "probe")
    open_ledger(folder).enqueue_references([PROBE], "probe")
    assert [trial.params.get("backbone") for trial in open_ledger(folder).trials] == [None, "b"]
    other = folder / "other"
    other.mkdir()
    earlier = open_ledger(other)
    fill(earlier, 1)
    earlier.enqueue_references([PROBE], "probe")
    assert [trial.method for trial in earlier.trials] == ["finetune"]


def test_reference_trials_fit_spaces_that_do_not_contain_them(folder: Path) -> None:
    strengths = SPACE.ranges["augmentation_strength"]
    space = Space({"unfreeze_depth": Choice((2, 3)), "augmentation_strength": strengths}, 4)
    ledger = open_ledger(folder)
    ledger.enqueue_references([PROBE], "probe")
    for number in range(3):

        def suggest(trial: Any, first: bool = number == 0) -> Any:
            return space.suggest_given(trial, PROBE) if first else space.suggest(trial)

        record = ledger.start(suggest)
        ledger.finish(record.number, "complete", epoch=epoch(1, 0.5))
    assert [trial.params["unfreeze_depth"] in (2, 3) for trial in ledger.trials] == [False, True, True]
    assert open_ledger(folder).trials[0].params == ledger.trials[0].params == PROBE
    known = optuna.load_study(study_name="a search", storage=ledger.url).trials[0].params
    assert known == {"augmentation_strength": 0.25}


def test_a_trial_keeps_what_its_head_starts_from(folder: Path) -> None:
    before = open_ledger(folder)
    assert before.start(SPACE.suggest).head_init == "random"
    before.head_init = "probe"
    assert before.start(SPACE.suggest).head_init == "probe"
    after = open_ledger(folder)
    after.head_init = "probe"
    assert [after.resume(number, SPACE.suggest).head_init for number in (0, 1)] == ["random", "probe"]
    assert [trial.head_init for trial in open_ledger(folder).trials] == ["random", "probe"]


def test_optuna_reads_what_the_ledger_wrote(folder: Path) -> None:
    ledger = open_ledger(folder)
    with ledger.wal_mode():
        fill(ledger, 3)
        number = ledger.start(SPACE.suggest).number
        ledger.report(number, epoch(1, 0.5))
        ledger.finish(number, "pruned", reason="scheduler")
    read = optuna.load_study(study_name="a search", storage=sqlite_url(folder / "ledger.db")).trials
    assert [t.state.name for t in read] == ["COMPLETE"] * 3 + ["PRUNED"]
    assert [t.params for t in read] == [t.params for t in ledger.trials]
    assert [t.value for t in read] == [t.value for t in ledger.trials]
    assert read[3].intermediate_values == {1: 0.5}
    assert [t.datetime_start.astimezone(UTC) for t in read if t.datetime_start] == [
        t.started for t in ledger.trials
    ]


def test_curves_of_several_chunks_are_read_back(folder: Path) -> None:
    ledger = open_ledger(folder)
    number = ledger.start(SPACE.suggest).number
    for step in range(1, 76):
        ledger.report(number, epoch(step, step / 100))
    again = open_ledger(folder)
    assert again.trials == ledger.trials
    again.resume(number, SPACE.suggest)
    again.report(number, epoch(76, 0.99))
    ledger = open_ledger(folder)
    assert [e.epoch for e in ledger.trials[0].epochs] == list(range(1, 77))
    assert ledger.trials[0].value == 0.99


def test_a_curve_in_the_format_of_the_first_versions_is_continued(folder: Path) -> None:
    open_ledger(folder)
    elsewhere = optuna.load_study(study_name="a search", storage=sqlite_url(folder / "ledger.db"))
    trial = elsewhere.ask()
    trial.set_user_attr("curve", [[n, n / 100, "nan", 0.5, 0.1] for n in range(1, 41)])
    ledger = open_ledger(folder)
    ledger.resume(0, SPACE.suggest)
    ledger.report(0, epoch(41, 0.6))
    values = [e.val_accuracy for e in open_ledger(folder).trials[0].epochs]
    assert values == [n / 100 for n in range(1, 41)] + [0.6]


KILLED = """
import os, signal, sys
from pathlib import Path
from search.ledger.ledger import Ledger, sqlite_url
from search.records.record import EpochMetrics
from search.config.space import core_space
ledger = Ledger(sqlite_url(Path(sys.argv[1])), "a search", direction="maximize", metric="val_accuracy",
                method="finetune", sampler="random", seed=3)
with ledger.wal_mode():
    numbers = [ledger.start(core_space(4).suggest).number for _ in range(3)]
    for epoch in range(1, 8):
        for number in numbers:
            ledger.report(number, EpochMetrics(epoch, 0.5, 0.5, 0.5, 0.1))
    ledger.finish(numbers[0], "complete")
    ledger.report(numbers[1], EpochMetrics(8, 0.5, 0.5, 0.5, 0.1))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_driver_loses_nothing_that_was_reported(folder: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(folder / "ledger.db")])
    assert ended.returncode == -9
    after = open_ledger(folder)
    assert after.interrupted() == [1, 2]
    assert after.trials[0].state == "complete"
    assert [len(t.epochs) for t in after.trials] == [7, 8, 7]


def test_readers_and_the_driver_do_not_block_each_other(folder: Path) -> None:
    ledger = open_ledger(folder)
    with ledger.wal_mode():
        fill(ledger, 2)
        with sqlite3.connect(folder / "ledger.db") as reader:
            rows = reader.execute("SELECT number FROM trials")
            rows.fetchone()  # leaves the read unfinished
            began = time.monotonic()
            fill(ledger, 2)
            assert time.monotonic() - began < 2
            rows.fetchall()
        reader.close()
    assert sorted(p.name for p in folder.iterdir()) == ["ledger.db"]


def test_an_interrupted_search_proposes_the_same_trials_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir()
    halves.mkdir()
    fill(open_ledger(whole), 16)
    fill(open_ledger(halves), 7)
    fill(open_ledger(halves), 9)
    assert [t.params for t in open_ledger(whole).trials] == [t.params for t in open_ledger(halves).trials]


def test_proposals_equal_those_of_optuna_s_own_tpe_sampler(folder: Path) -> None:
    ledger = open_ledger(folder)
    fill(ledger, 14)
    space = full_space(4)  # its parameters are others, and some of them are not in all trials
    for _ in range(14):
        number = ledger.start(space.suggest).number
        ledger.finish(number, "complete", epoch=epoch(1, 0.5 + number / 100))
        study = optuna.load_study(study_name="a search", storage=sqlite_url(folder / "ledger.db"))
        again = optuna.create_study(direction="maximize")
        again.add_trials(study.trials[:number])
        state = int(np.random.SeedSequence([3, number]).generate_state(1)[0])
        again.sampler = optuna.samplers.TPESampler(seed=state)
        assert space.suggest(again.ask()) == ledger.trials[number].params


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "nsga2"])
def test_each_sampler_proposes_different_points_within_the_space(folder: Path, sampler: str) -> None:
    ledger = open_ledger(folder, sampler=sampler)
    fill(ledger, 8)
    assert len({tuple(t.params.items()) for t in ledger.trials}) > 4
    for trial in ledger.trials:
        assert SPACE.check(trial.params) == trial.params


def test_an_unknown_sampler_is_refused_with_the_valid_names(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"sampler: expected one of tpe, .*received 'grid'"):
        open_ledger(folder, sampler="grid").start(SPACE.suggest)


def test_enqueued_configurations_are_started_first_and_once(folder: Path) -> None:
    wanted = [{"unfreeze_depth": 1, "learning_rate": 0.01}, {"unfreeze_depth": 1, "learning_rate": 0.01}]
    open_ledger(folder).enqueue(wanted)
    ledger = open_ledger(folder)
    ledger.enqueue(wanted)
    assert [t.state for t in ledger.trials] == ["waiting", "waiting"]
    assert ledger.started() == 0
    fill(ledger, 3)
    assert [t.params["learning_rate"] == 0.01 for t in ledger.trials] == [True, True, False]


def test_different_settings_are_refused_with_the_difference(folder: Path) -> None:
    ledger = open_ledger(folder)
    check_same_settings(ledger, {"data": "abc", "epochs": 5, "space": {"a": (1, 2)}})
    check_same_settings(ledger, {"data": "abc", "epochs": 5, "space": {"a": [1, 2]}})
    with pytest.raises(LedgerError, match=r"epochs: expected 5, received 6"):
        check_same_settings(ledger, {"data": "abc", "epochs": 6, "space": {"a": [1, 2]}})


def test_trials_without_a_finite_value_can_be_finished(folder: Path) -> None:
    ledger = open_ledger(folder)
    for reason in ("diverged", "out_of_memory"):
        number = ledger.start(SPACE.suggest).number
        ledger.report(number, epoch(1, math.nan, math.nan))
        ledger.finish(number, "pruned", reason=reason)
    fill(ledger, 12)
    assert [t.value for t in ledger.trials[:2]] == [None, None]
    assert ledger.importances().keys() <= set(SPACE.ranges)


@pytest.mark.parametrize(
    "url", ["sqlite:////no/such/folder/x.db", "nonsense://x", "mysql://nobody@localhost/x"]
)
def test_the_message_for_a_database_that_can_not_be_opened_names_it(url: str) -> None:
    with pytest.raises(LedgerError, match="ledger: expected a database that can be opened"):
        Ledger(
            url, "x", direction="maximize", metric="val_accuracy", method="finetune", sampler="tpe", seed=0
        )


def test_the_message_for_a_damaged_file_names_it(folder: Path) -> None:
    (folder / "ledger.db").write_bytes(b"this is not a database at all" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        open_ledger(folder)


def test_a_reader_does_not_write_into_a_database_without_tables(folder: Path) -> None:
    (folder / "ledger.db").touch()
    settings: dict[str, Any] = {"direction": "maximize", "metric": "val_accuracy", "method": "finetune"}
    url = sqlite_url(folder / "ledger.db")
    with pytest.raises(LedgerError):
        Ledger(url, "a search", sampler="tpe", seed=0, create=False, **settings)
    assert (folder / "ledger.db").stat().st_size == 0
    fill(open_ledger(folder), 1)
    with pytest.raises(LedgerError, match="received 'another'"):
        Ledger(url, "another", sampler="tpe", seed=0, create=False, **settings)


def test_a_reader_does_not_write_into_unfinished_tables(folder: Path) -> None:
    url = sqlite_url(folder / "ledger.db")
    open_ledger(folder)
    with sqlite3.connect(folder / "ledger.db") as connection:
        connection.execute("DELETE FROM alembic_version")
        connection.execute("DELETE FROM version_info")
    with pytest.raises(LedgerError, match="expected a search that was begun"):
        Ledger(
            url,
            "a search",
            direction="maximize",
            metric="val_accuracy",
            method="finetune",
            sampler="tpe",
            seed=0,
            create=False,
        )
    with sqlite3.connect(folder / "ledger.db") as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM version_info").fetchone() == (0,)


def test_several_searches_can_create_one_new_database_at_the_same_moment(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "shared.db")
    program = (
        "import sys; from search.ledger.ledger import Ledger; sys.stdin.readline();"
        "Ledger(sys.argv[1], sys.argv[2], direction='maximize', metric='m', method='f', sampler='tpe', seed=0)"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, url, f"search {n}"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("now\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=60) for process in started]
    assert [p.returncode for p in started] == [0] * 4, ended

"""The log files of driver and engines, and the page that ``unfreeze logs`` prints from them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from search import SearchConfig, cli, run_search
from search.commands.logs import logs_page, read_trial_log
from search.records.event_log import DRIVER_LOG, EventLog, format_line, read_lines, truncate_log
from search.records.record import BackboneSummary, SearchRecord, TaskSummary, TrialRecord
from search.views.logged import LoggedView
from search.views.view import QuietView
from trainables.epoch_metrics import EpochMetrics

DIES = """
import os, sys
from search.records.event_log import EventLog, redirect_output
folder = sys.argv[1]
redirect_output(folder)
log = EventLog()
print("before anybody", flush=True)
log.start_trial("finetune-3", folder, "begins: learning_rate=0.1")
os.write(2, b"native words about 3\\n")
log.start_trial("finetune-4", folder, "begins: learning_rate=0.2")
log.write("finetune-3", "crashed: Traceback\\nValueError: no")
log.end_trial("finetune-3", "leaves the engine")
os.write(2, b"native words about 4\\n")
os.abort()
"""


def trial(number: int) -> TrialRecord:
    epochs = (EpochMetrics(1, 0.5, 0.7, 0.9, 1.25), EpochMetrics(2, 0.75, 0.6, float("nan"), 1.0))
    began = datetime(2026, 3, 1, 12, tzinfo=UTC)
    return TrialRecord(
        number,
        "failed",
        "finetune",
        {"learning_rate": 0.1},
        0.75,
        epochs,
        reason="crashed",
        error="Traceback\nValueError: no",
        started=began,
        node="größe-1",
    )


def record(*trials: TrialRecord) -> SearchRecord:
    task = TaskSummary("t", "d", ("a", "b"), {"train": 10}, (8, 8), "here")
    backbone = BackboneSummary("print", "default", "d", (32, 32), 1000, ("one",))
    return SearchRecord("größe", "val_accuracy", "maximize", task, backbone, {}, trials, 9)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the logs of an engine that crashed with one of its two trials, and of a driver."""
    folder: Path = tmp_path_factory.mktemp("logs ü 字") / "logs"
    done = subprocess.run([sys.executable, "-c", DIES, str(folder)], check=False, timeout=60)
    assert done.returncode < 0
    view = LoggedView(QuietView(), folder)
    view.event("trial 3 goes on from its checkpoint (1 of 2)")
    view.event("trials 13 and 33 do something else")
    view.event("an engine process crashed while running 2 trials; retrying them one at a time")
    return folder


def test_a_trial_log_holds_the_events_and_output_of_the_trial_only(logs: Path) -> None:
    log = read_trial_log(trial(3), logs)
    assert [e.message for e in log.events] == [
        "begins: learning_rate=0.1",
        "crashed: Traceback | ValueError: no",
        "leaves the engine",
        "trial 3 goes on from its checkpoint (1 of 2)",
    ]
    assert [e.source == "driver" for e in log.events] == [False, False, False, True]
    ((engine, printed),) = log.output
    assert printed == ("native words about 3",)
    assert engine == log.events[0].source


def test_the_last_output_of_a_crashed_engine_is_kept(logs: Path) -> None:
    ((_, printed),) = read_trial_log(trial(4), logs).output
    assert "native words about 4" in printed
    assert any("Fatal Python error: Aborted" in line for line in printed)
    assert any("in <module>" in line for line in printed)


def test_a_trial_without_log_files_has_an_empty_log(tmp_path: Path) -> None:
    log = read_trial_log(trial(7), tmp_path / "no such folder")
    assert (log.events, log.output) == ((), ())


def test_the_page_shows_state_epochs_error_and_output(logs: Path) -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(logs_page(record(trial(3)), read_trial_log(trial(3), logs)), soft_wrap=True)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for words in (
        "größe, trial 3",
        "state     crashed, val_accuracy 0.7500",
        "node      größe-1",
        "learning_rate=0.1",
        "trial 3 goes on from its checkpoint (1 of 2)",
        "    2          0.75       0.6           –     1.00",
        "ValueError: no",
        "native words about 3",
    ):
        assert words in text, text


def test_log_lines_may_hold_any_characters(tmp_path: Path) -> None:
    file = tmp_path / "x.log"
    file.write_bytes(
        format_line("finetune-1", "a\nb [c] ü").encode() + b"\xff\xfe\n2026-01-01 no line of ours\n\n"
    )
    first, *others = read_lines(file)
    assert (first.trial, first.message) == ("finetune-1", "a | b [c] ü")
    assert [line.moment for line in others] == [None, None]


def test_a_log_that_is_too_large_loses_its_older_part(tmp_path: Path) -> None:
    file = tmp_path / "ü-1.log"
    with file.open("a", encoding="utf-8") as log:
        log.writelines(format_line("finetune-1", f"ü {n}") for n in range(1000))
        log.flush()
        truncate_log(file, max_bytes=file.stat().st_size, kept=100)
        assert len(list(read_lines(file))) == 1000
        truncate_log(file, max_bytes=file.stat().st_size - 1, kept=100)
        log.write(format_line("finetune-2", "begins"))
    assert file.stat().st_size < 300
    words = [line.message for line in read_lines(file)]
    assert words == ["older lines were cut off here: the log had grown too large", "ü 998", "ü 999", "begins"]


def test_an_unwritable_log_folder_does_not_affect_trials(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = EventLog()
    log.start_trial("finetune-1", str(tmp_path / "file" / "logs"), "begins")
    log.write("finetune-1", "goes on")
    log.end_trial("finetune-1", "leaves the engine")
    LoggedView(QuietView(), tmp_path / "file" / "logs").event("words")


@pytest.mark.slow
def test_logs_can_be_read_after_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SearchConfig(
        storage=str(tmp_path),
        name="ü",
        trials=2,
        epochs=2,
        baseline_trials=1,
        confirm_seeds=1,
        scheduler="none",
        register_model=False,
        probe="off",
        finalists=1,
        refit=False,
    )
    result = run_search(config)
    assert all(t.node for t in result.record.trials)
    assert "training it again" in (tmp_path / "ü" / "logs" / DRIVER_LOG).read_text()
    assert cli.main(["logs", "ü", "1", "--storage", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["trial"], said["state"], len(said["epochs"])) == (1, "complete", 2)
    assert said["node"] == result.record.trials[1].node
    assert [h["words"].split(":")[0] for h in said["happenings"] if h["source"] != "driver"] == [
        "begins",
        "leaves the engine",
    ]
    assert cli.main(["logs", "ü", "0", "--baseline", "--storage", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["search"], said["state"], len(said["epochs"])) == ("ü-scratch", "complete", 2)
    assert [h["words"].split(":")[0] for h in said["happenings"]] == ["begins", "leaves the engine"]
    assert "unfreeze_depth" not in said["params"]
    assert cli.main(["logs", "ü", "1", "--baseline", "--storage", str(tmp_path)]) == 2
    assert "expected 0 to 0" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "ü" / "baseline")
    assert cli.main(["logs", "ü", "0", "--baseline", "--storage", str(tmp_path)]) == 1
    assert "with a baseline" in capsys.readouterr().err
    for wrong, words in (("2", "expected 0 to 1"), ("x", "expected the number"), ("-1", "TRIAL")):
        assert cli.main(["logs", "ü", wrong, "--storage", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err

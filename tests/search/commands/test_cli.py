"""The command ``unfreeze``: help, usage errors, exit codes, and commands that need no search."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from search import cli
from search.commands import search as search_command
from search.config.argument_parser import Parser
from search.config.config_file import load_config
from search.config.option_types import GROUPS
from search.config.options import options_of
from search.config.search_config import SearchConfig
from search.tracking.stores import default_tracking_uri
from search.views.quiet_libraries import quiet_libraries
from trainables.errors import DataError, UsageError

HEAVY = ("tensorflow", "keras", "mlflow", "ray", "optuna", "sklearn", "pandas", "numpy", "pydantic", "rich")


def unfreeze(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "search.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        check=False,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    """Return a command called ``fake`` that behaves as the test sets it, installed like a module of search.commands."""
    monkeypatch.setitem(cli.COMMANDS, "fake", "does what it is told")
    monkeypatch.setitem(sys.modules, "search.commands.fake", Fake)  # type: ignore[arg-type]
    return Fake


class Fake:
    error: BaseException | None = None
    seen: argparse.Namespace

    @staticmethod
    def parser() -> Parser:
        made = Parser("fake", "Behaves as the test sets it.")
        made.add_argument("--place", metavar="DIR")
        made.add_argument("--verbose", action="store_true")
        return made

    @staticmethod
    def run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
        Fake.seen = options
        if Fake.error is not None:
            raise Fake.error
        return 0


def test_importing_the_command_line_loads_no_large_library() -> None:
    script = f"import sys, search.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_of_each_command_loads_no_large_library(name: str) -> None:
    script = (
        f"import sys, search.cli\nassert search.cli.main([{name!r}, '--help']) == 0\n"
        f"print([m for m in {HEAVY[:7]!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert f"unfreeze {name}" in done.stdout


def test_help_is_fast_and_lists_all_commands(record_property: pytest.RecordProperty) -> None:
    began, before = time.monotonic(), os.times()
    done = unfreeze("--help")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    record_property("cpu_seconds", round(cpu, 3))
    print(f"unfreeze --help: {cpu:.3f} s of CPU, {time.monotonic() - began:.3f} s on the clock")
    assert done.returncode == 0
    assert "unfreeze search --data photos/" in done.stdout
    for name, words in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(words)}$", done.stdout, re.MULTILINE)
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert unfreeze().stdout == done.stdout


def test_version() -> None:
    assert re.fullmatch(r"unfreeze \d+\.\d+\.\d+\n", unfreeze("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serch"], "serch: unknown command (did you mean 'search'?)"),
        (["--trials", "3"], "--trials: unknown command"),
        (["search", "--trails", "3"], "--trails: unknown argument (did you mean '--trials'?)"),
        (["search", "--trials"], "--trials: expected one argument"),
        (
            ["search", "--trials", "many"],
            "--trials: expected a whole number from 1 to 1,000,000, received 'many'",
        ),
        (["search", "--tri", "3"], "--tri: unknown argument"),
        (["search", "--gpus-per-trial", "1.5", "--seed", "x"], "--seed: expected a whole number"),
        (["search", "a.yaml", "b.yaml"], "b.yaml: unknown argument"),
        (["search", "no such file.yaml"], "config file 'no such file.yaml': no such file"),
        (["status"], "NAME"),
        (["predict", "models:/x@champion"], "PATH"),
        (["predict", "models:/x@champion", "none.png"], "received 'none.png': no such file"),
        (["predict", "models:/x@champion", ".", "--format", "xml"], "--format: expected one of csv, jsonl"),
        (["ui", "--storage", "no runs here"], "has no mlflow.db"),
        (["ui", "--port", "http"], "--port: expected a number"),
    ],
)
def test_wrong_usage_gives_exit_code_2_and_a_message_without_traceback(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UsageError("trials: expected 1"), 2, "unfreeze: trials: expected 1"),
        (DataError("no images in 'ü'"), 1, "unfreeze: no images in 'ü'"),
        (KeyboardInterrupt(), 130, "unfreeze: interrupted"),
    ],
)
def test_exit_codes(
    command: type[Fake], error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command.error = error
    assert cli.main(["fake"]) == code
    err = capsys.readouterr().err
    assert err.strip() == words
    command.error = None
    assert cli.main(["fake"]) == 0


def test_an_unexpected_error_leaves_its_traceback_in_a_file(
    command: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    command.error = ZeroDivisionError("seven by nothing")
    assert cli.main(["fake"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: seven by nothing" in err
    assert "Traceback (most recent" not in err
    log = Path(re.search(r"traceback is in (.+\.log)", err).group(1))  # type: ignore[union-attr]
    assert "Traceback (most recent" in log.read_text()
    log.unlink()
    assert cli.main(["fake", "--verbose"]) == 1
    assert "Traceback (most recent" in capsys.readouterr().err
    command.error = None


def test_an_error_that_ray_has_wrapped_keeps_its_message(
    command: type[Fake], capsys: pytest.CaptureFixture[str]
) -> None:
    class WrappedError(DataError):
        cause = DataError("label column missing")

    command.error = WrappedError("ray::Engine.open() (pid=7)\n  File …\nDataError: label column missing")
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr().err.strip() == "unfreeze: label column missing"
    command.error = None


def test_paths_may_hold_any_characters(command: type[Fake], weird_folder: Path) -> None:
    assert cli.main(["fake", "--place", str(weird_folder)]) == 0
    assert command.seen.place == str(weird_folder)
    assert cli.main(["fake", f"--place=-{weird_folder.name}"]) == 0
    assert command.seen.place == f"-{weird_folder.name}"


def test_every_field_of_the_config_is_one_option() -> None:
    shown = {action.dest for action in search_command.parser()._actions}
    assert set(SearchConfig.model_fields) <= shown
    names = [option.name for group in GROUPS for option in options_of(group)]
    assert sorted(names) == sorted(SearchConfig.model_fields)


def test_flags_and_file_make_the_same_config(tmp_path: Path) -> None:
    words = {
        "data": "my photos/ü",
        "trials": 7,
        "gpus_per_trial": 0.5,
        "time_budget": "30m",
        "space": "full",
        "skip_bad_images": True,
        "register": False,
        "storage": "runs here",
    }
    file = tmp_path / "c ü.yaml"
    file.write_text(yaml.safe_dump(words, allow_unicode=True), encoding="utf-8")
    line = [
        *("--data", "my photos/ü", "--trials", "7", "--gpus-per-trial", "0.5", "--time-budget", "30m"),
        *("--space", "full", "--skip-bad-images", "--no-register", "--storage", "runs here"),
    ]
    options = search_command.parser().parse(line)
    assert load_config(None, search_command.given_options(options)) == load_config(file)
    both = search_command.parser().parse([str(file), "--trials", "9", "--register"])
    config = load_config(both.config, search_command.given_options(both))
    assert (config.trials, config.register_model, config.data) == (9, True, "my photos/ü")


def test_native_messages_are_hidden_unless_the_process_fails(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from search.views.quiet_libraries import quiet_libraries\n"
        "try:\n"
        "    with quiet_libraries():\n"
        "        os.write(2, b'WARNING from C++\\n')\n"
        "        print('from Python', file=sys.stderr)\n"
        "        if len(sys.argv) > 1: raise ValueError('bad')\n"
        "except ValueError as error: print(error.__notes__, file=sys.stderr)\n"
        "os.write(2, b'afterwards\\n')\n"
    )
    quiet = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert quiet.stderr == "from Python\nafterwards\n"
    crash = subprocess.run([sys.executable, "-c", script, "x"], capture_output=True, text=True, check=True)
    assert "WARNING from C++" in crash.stderr.partition("native messages")[2]


def test_quieting_leaves_a_replaced_stderr_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stderr
    with quiet_libraries():
        print("seen", file=sys.stderr)
        assert sys.stderr is before
    assert capsys.readouterr().err == "seen\n"


def test_a_closed_pipe_is_not_an_error() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; '{sys.executable}' -m search.cli backbones | head -n 1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_backbones_are_listed_for_people_and_programs() -> None:
    # Below the table there may be notes on weights that are not installed.
    table = unfreeze("backbones").stdout.partition("\n\n")[0].splitlines()
    assert table[0].split() == ["name", "input", "parameters", "blocks"]
    listed = json.loads(unfreeze("backbones", "--json").stdout)
    assert listed[0]["name"] == "print"
    assert {"MobileNetV2", "ResNet50", "EfficientNetB0", "VGG16"} <= {entry["name"] for entry in listed}
    assert len(table) == len(listed) + 1


def test_status_and_report_of_a_missing_search_list_the_searches(tmp_path: Path) -> None:
    (tmp_path / "unfreeze-runs" / "cats").mkdir(parents=True)
    (tmp_path / "unfreeze-runs" / "cats" / "ledger.db").touch()
    for name in ("status", "report", "curves"):
        done = unfreeze(name, "dogs", cwd=tmp_path)
        assert done.returncode == 1
        assert "dogs" in done.stderr
        assert "cats" in done.stderr
        assert "Traceback" not in done.stderr


def test_every_command_is_a_module() -> None:
    for name in cli.COMMANDS:
        module = importlib.import_module(f"search.commands.{name}")
        assert isinstance(module.parser(), Parser)
        assert callable(module.run)


@pytest.mark.slow
def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    wrong = unfreeze(
        "doctor", "--json", "--tracking-uri", "http://127.0.0.1:9", "--storage", str(tmp_path / "runs")
    )
    assert wrong.returncode == 1
    findings = {f["check"]: f for f in json.loads(wrong.stdout)}
    assert findings["tracking"]["grade"] == "failed"
    assert "http://127.0.0.1:9 does not answer" in findings["tracking"]["words"]
    assert {name: findings[name]["grade"] for name in ("packages", "storage", "ray")} == dict.fromkeys(
        ("packages", "storage", "ray"), "ok"
    )
    assert not (tmp_path / "runs").exists()


def test_the_ui_refuses_a_port_that_another_server_uses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert cli.main(["ui", "--storage", str(tmp_path), "--port", str(port)]) == 2
    assert f"can't listen on 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_ui_serves_the_runs_of_a_storage_until_sigterm(weird_folder: Path) -> None:
    storage = weird_folder / "runs for the ui"
    storage.mkdir()
    import mlflow

    uri = default_tracking_uri(storage)
    experiment = mlflow.MlflowClient(uri).create_experiment("unfreeze/ü")
    mlflow.MlflowClient(uri).create_experiment("unfreeze/ü/scratch")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "search.cli", "ui", "--storage", str(storage), "--port", str(port)]
    shown = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert shown.stdout is not None
        page = f"http://127.0.0.1:{port}/#/experiments/{experiment}/runs?workflowType=machine_learning"
        assert page in shown.stdout.readline()
        found = mlflow.MlflowClient(f"http://127.0.0.1:{port}").get_experiment_by_name("unfreeze/ü")
        assert found is not None
        shown.send_signal(signal.SIGTERM)
        assert shown.wait(timeout=60) == 0
    finally:
        shown.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)

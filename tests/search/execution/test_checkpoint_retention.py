"""Test which checkpoints of a search stay on disk, and how a trial continues when the disk is full."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config.search_config import SearchConfig
from search.execution.checkpoint_retention import (
    CheckpointRetention,
    checkpoint_folder,
    default_checkpoint_budget,
)
from search.execution.engines.engine import Engine
from search.execution.engines.messages import TrialRequest, WorkbenchPaths
from search.execution.engines.trials import CHECKPOINT
from search.ledger.reader import read_record
from search.records.record import State, TrialRecord
from search.records.units import format_size, parse_size
from trainables.backbones.spec import BackboneSpec
from trainables.epoch_metrics import EpochMetrics
from trainables.errors import DataError, UsageError
from trainables.modalities.image.backbones import load
from trainables.modalities.image.datasets import prepare
from trainables.training.checkpoints import (
    Checkpoint,
    previous_checkpoint,
    read_checkpoint,
    remove_partial_files,
    resumable_checkpoints,
    write_checkpoint,
)
from trainables.training.trial_config import TrialConfig

SIZE = 1000


def record(number: int, value: float | None, state: State = "complete") -> TrialRecord:
    epochs = () if value is None else (EpochMetrics(1, value, 1 - value, 1.0, 0.1),)
    return TrialRecord(number, state, "finetune", {}, value, epochs)


def put(root: Path, number: int, size: int = SIZE) -> Path:
    folder = checkpoint_folder(root, number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKPOINT).write_bytes(b"x" * size)
    return folder


def numbers(root: Path) -> list[int]:
    return sorted(int(p.name) for p in root.iterdir()) if root.exists() else []


class Disk:
    """A folder of checkpoints with its budget, and the messages about it."""

    def __init__(self, root: Path, budget: int = 100 * SIZE) -> None:
        self.root = root / "a ü 字" / "checkpoints"
        self.messages: list[str] = []
        self.kept = CheckpointRetention(budget, self.messages.append)

    def end(self, number: int, value: float | None, state: State = "complete", keep: int = 3) -> None:
        folder = checkpoint_folder(self.root, number)
        self.kept.trial_ended(folder, record(number, value, state), "maximize", keep)

    def write(self, number: int, size: int = SIZE) -> None:
        self.kept.checkpoint_written(put(self.root, number, size))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_the_checkpoints_of_the_best_ended_trials_stay(disk: Disk) -> None:
    for number, value in enumerate((0.5, 0.9, 0.4, 0.8, 0.7, 0.6)):
        disk.write(number)
        disk.end(number, value)
    assert numbers(disk.root) == [1, 3, 4]
    assert disk.messages == []


def test_failed_trials_trials_without_a_value_and_keep_best_0_leave_no_checkpoint(disk: Disk) -> None:
    for number in range(4):
        disk.write(number)
    disk.end(0, 0.9, "failed")
    disk.end(1, None, "pruned")
    disk.end(2, 0.9, keep=0)
    assert numbers(disk.root) == [3]


def test_a_trial_without_a_checkpoint_can_end(disk: Disk) -> None:
    disk.end(7, 0.9)
    assert numbers(disk.root) == []


def test_the_worst_checkpoints_are_removed_when_a_running_trial_needs_the_budget(tmp_path: Path) -> None:
    disk = Disk(tmp_path, budget=3 * SIZE)
    for number, value in enumerate((0.7, 0.9, 0.8)):
        disk.write(number)
        disk.end(number, value)
    disk.write(3)
    assert numbers(disk.root) == [1, 2, 3]
    disk.write(3, 2 * SIZE)
    assert numbers(disk.root) == [1, 3]
    assert disk.messages == []


def test_running_trials_may_exceed_the_budget_and_this_is_reported_once(tmp_path: Path) -> None:
    disk = Disk(tmp_path, budget=3 * SIZE)
    disk.write(0)
    disk.end(0, 0.9)
    for number in range(1, 5):
        disk.write(number)
    disk.write(4)
    assert numbers(disk.root) == [1, 2, 3, 4]
    assert len(disk.messages) == 1
    assert "4 running trials take 4 kB, more than checkpoint_budget (3 kB)" in disk.messages[0]
    disk.end(1, 0.1)
    assert numbers(disk.root) == [2, 3, 4]


def test_previous_checkpoints_are_removed_first_and_when_their_trial_ends(
    tmp_path: Path,
) -> None:
    disk = Disk(tmp_path, budget=4 * SIZE)
    for number in range(2):
        folder = put(disk.root, number)
        previous_checkpoint(folder / CHECKPOINT).write_bytes(b"x" * SIZE)
        disk.kept.checkpoint_written(folder)
    assert [len(resumable_checkpoints(checkpoint_folder(disk.root, n) / CHECKPOINT)) for n in range(2)] == [
        2,
        2,
    ]
    disk.write(2)
    assert [len(resumable_checkpoints(checkpoint_folder(disk.root, n) / CHECKPOINT)) for n in range(3)] == [
        1,
        1,
        1,
    ]
    previous_checkpoint(checkpoint_folder(disk.root, 0) / CHECKPOINT).write_bytes(b"x")
    disk.end(0, 0.5)
    assert len(resumable_checkpoints(checkpoint_folder(disk.root, 0) / CHECKPOINT)) == 1
    assert disk.messages == []


def test_the_baseline_shares_the_budget_and_keeps_no_checkpoint(tmp_path: Path) -> None:
    disk = Disk(tmp_path, budget=2 * SIZE)
    for number, value in enumerate((0.8, 0.9)):
        disk.write(number)
        disk.end(number, value)
    baseline = tmp_path / "baseline" / "checkpoints"
    disk.kept.scan(baseline, [], "maximize", 0)
    disk.kept.checkpoint_written(put(baseline, 0))
    assert (numbers(disk.root), numbers(baseline)) == ([1], [0])
    disk.kept.trial_ended(checkpoint_folder(baseline, 0), record(0, 0.99), "maximize", 0)
    assert (numbers(disk.root), numbers(baseline)) == ([1], [])


def test_a_scan_finds_what_a_killed_process_left(disk: Disk) -> None:
    """Checkpoints of running and of the best trials stay; those of other trials and partial files are removed."""
    for number in range(8):
        put(disk.root, number)
    (checkpoint_folder(disk.root, 6) / CHECKPOINT).rename(disk.root / "00006" / ".checkpoint-abc.tmp")
    (disk.root / "00000" / ".checkpoint-def.tmp").write_bytes(b"half")
    (disk.root / "notes").mkdir()
    trials = [
        record(0, 0.1, "running"),
        record(1, 0.5),
        record(2, 0.9, "failed"),
        record(3, 0.7, "pruned"),
        record(4, 0.6),
        record(5, None, "waiting"),
        record(6, 0.99),
    ]
    disk.kept.scan(disk.root, trials, "maximize", 2)
    assert sorted(p.name for p in disk.root.iterdir()) == ["00000", "00003", "00004", "notes"]
    assert [p.name for p in (disk.root / "00000").iterdir()] == [CHECKPOINT]
    assert disk.messages == []


EVENTS = st.lists(
    st.tuples(st.integers(0, 11), st.floats(0, 1), st.integers(1, 4), st.booleans()), max_size=24
)


@given(events=EVENTS, keep=st.integers(0, 4), budget=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_a_second_scan_changes_nothing_and_running_trials_are_never_touched(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], keep: int, budget: int
) -> None:
    disk = Disk(tmp_path_factory.mktemp("d"), budget * SIZE)
    known: dict[int, TrialRecord] = {}
    for number, value, size, ends in events:
        if known.get(number, record(0, None, "running")).finished:
            continue
        disk.write(number, size * SIZE)
        known[number] = record(number, value, "complete" if ends else "running")
        if ends:
            disk.kept.trial_ended(checkpoint_folder(disk.root, number), known[number], "maximize", keep)
    left = numbers(disk.root)
    live = {n for n, trial in known.items() if trial.state == "running"}
    assert live <= set(left)
    assert len(set(left) - live) <= keep
    taken = sum((checkpoint_folder(disk.root, n) / CHECKPOINT).stat().st_size for n in left)
    assert taken <= budget * SIZE or set(left) == live
    again = CheckpointRetention(budget * SIZE, disk.messages.append)
    again.scan(disk.root, known.values(), "maximize", keep)
    assert numbers(disk.root) == left


def test_a_folder_that_cannot_be_removed_is_reported_once(disk: Disk) -> None:
    disk.root.mkdir(parents=True)
    for number in range(2):
        checkpoint_folder(disk.root, number).write_text("a file where a folder should be")
        disk.end(number, 0.5)
    assert len(disk.messages) == 1
    assert disk.messages[0].startswith("checkpoints: can't remove ")
    assert str(disk.root) in disk.messages[0]


def test_the_default_budget_counts_existing_checkpoints_as_free_space(tmp_path: Path) -> None:
    nowhere = tmp_path / "not" / "yet"
    before = default_checkpoint_budget(nowhere)
    assert 0 < before <= 20 * 10**9
    for number in range(3):
        put(nowhere, number)
    assert default_checkpoint_budget(nowhere) == pytest.approx(before, rel=0.2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2 GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("1 k", 1000), (12, 12), ("0", 0)],
)
def test_sizes_are_read_in_usual_spellings(text: object, expected: int) -> None:
    assert parse_size(text) == expected
    assert SearchConfig(checkpoint_budget=text).checkpoint_budget == expected


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1.2.3 GB", "2 XB", True, "1 ib", "9" * 25, [1], "5 kbit", "2 GB x", ".5 GB"]
)
def test_an_invalid_size_is_refused(text: object) -> None:
    with pytest.raises(UsageError, match="checkpoint_budget: expected "):
        SearchConfig(checkpoint_budget=text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (999_600, "1 MB"), (2e9, "2 GB")]
)
def test_sizes_are_formatted_briefly(size: float, text: str) -> None:
    assert format_size(size) == text


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Set the system's limit on file sizes, so that writing fails in the middle of a file, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 100, 5000, 30_000])
def test_a_checkpoint_is_written_completely_or_not_at_all(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "ü 字" / CHECKPOINT
    weights = [np.arange(10_000.0)]
    write_checkpoint(path, Checkpoint(1, weights, weights, [], None, None))
    with files_of_at_most(limit), pytest.raises(OSError):
        write_checkpoint(path, Checkpoint(2, weights, weights, [], None, None))
    assert [p.name for p in path.parent.iterdir()] == [CHECKPOINT]
    assert read_checkpoint(path).epoch == 1


def test_the_previous_checkpoint_stays_next_to_the_newest(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    for epoch in (1, 2, 3):
        write_checkpoint(
            path, Checkpoint(epoch, [np.zeros(3)], [], [], None, None, history=[{"epoch": epoch}])
        )
    assert [read_checkpoint(p).epoch for p in resumable_checkpoints(path)] == [3, 2]
    assert read_checkpoint(path).history == [{"epoch": 3}]
    assert len(list(tmp_path.iterdir())) == 2


@given(place=st.floats(0, 1), bits=st.integers(1, 255), cut=st.floats(0, 1) | st.just(1.0))
@settings(max_examples=200, deadline=None)
def test_a_damaged_checkpoint_is_refused_or_reads_as_before(
    tmp_path_factory: pytest.TempPathFactory, place: float, bits: int, cut: float
) -> None:
    path = tmp_path_factory.mktemp("damage") / CHECKPOINT
    whole = Checkpoint(2, [np.arange(6.0), np.zeros((2, 3))], [np.ones(2)], [], {"epoch": 1.0}, None)
    write_checkpoint(path, whole)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= bits
    path.write_bytes(content[: int(cut * len(content))])
    try:
        found = read_checkpoint(path)
    except DataError:
        return
    assert (found.epoch, found.best, found.last) == (2, {"epoch": 1.0}, None)
    for name in ("weights", "optimizer", "best_weights"):
        for ours, theirs in zip(getattr(found, name), getattr(whole, name), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_only_partial_files_are_removed(tmp_path: Path) -> None:
    for name in (CHECKPOINT, ".checkpoint-1.tmp", "mine.tmp"):
        (tmp_path / name).write_text("x")
    remove_partial_files(tmp_path)
    remove_partial_files(tmp_path / "nowhere")
    assert {p.name for p in tmp_path.iterdir()} == {CHECKPOINT, "mine.tmp"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> WorkbenchPaths:
    folder: Path = tmp_path_factory.mktemp("budget ü 字")
    load(BackboneSpec("print")).save(folder / "backbone.keras")
    task = prepare("digits", image_size=(32, 32), directory=folder / "digits")
    return WorkbenchPaths(folder / "backbone.keras", task.directory)


def test_a_trial_continues_without_checkpoints_and_resumes_from_its_last_complete_one(
    paths: WorkbenchPaths, tmp_path: Path
) -> None:
    engine = Engine(threads=2)
    params = {"unfreeze_depth": 0, "learning_rate": 1e-2, "head_units": 0, "augmentation_strength": 0.0}
    trial = TrialRequest(
        "t", TrialConfig("finetune", params, epochs=3, seed=4), paths, checkpoints=tmp_path / "00001"
    )
    engine.begin(trial)
    assert engine.epoch("t").unsaved is None
    with files_of_at_most(1000):
        results = [engine.epoch("t"), engine.epoch("t")]
    assert [r.unsaved for r in results] == ["File too large"] * 2
    assert [r.epoch for r in results] == [2, 3]
    assert results[-1].done
    assert not any(r.reason for r in results)
    engine.end("t")
    assert engine.begin(trial) == 1
    assert [engine.epoch("t").epoch for _ in range(3)] == [1, 2, 3]
    engine.end("t")


def test_a_refused_write_is_reported_once_with_path_and_reason(disk: Disk) -> None:
    for number in range(3):
        disk.kept.checkpoint_not_written(checkpoint_folder(disk.root, number), "No space left on device")
    assert len(disk.messages) == 1
    assert str(disk.root / "00000") in disk.messages[0]
    assert "No space left on device" in disk.messages[0]


COMMAND = [
    *(sys.executable, "-m", "search.cli", "search", "--name", "s", "--storage", "store ü", "--quiet"),
    *("--epochs", "1", "--baseline-trials", "1", "--confirm-seeds", "1", "--scheduler", "none"),
    *("--space", "space.yaml", "--trials", "4", "--keep-best", "2", "--no-register"),
    *("--probe", "off", "--finalists", "1", "--no-refit"),
]


@pytest.mark.slow
def test_a_search_keeps_the_best_checkpoints_and_a_rerun_cleans_up_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("learning_rate: [0.0001, 0.001, 0.01]\n")
    environment = {**os.environ, "UNFREEZE_KILL_AT": "ended:3"}
    killed = subprocess.run(COMMAND, cwd=tmp_path, env=environment, check=False)
    assert killed.returncode < 0
    root = tmp_path / "store ü" / "s" / "checkpoints"
    assert len(numbers(root)) >= 3
    put(root, 77)
    subprocess.run(COMMAND, cwd=tmp_path, check=True)
    trials = read_record("s", str(tmp_path / "store ü")).trials
    best = sorted(trials, key=lambda t: (-(t.value or 0), t.epochs[-1].val_loss, t.number))
    assert numbers(root) == sorted(t.number for t in best[:2])
    assert numbers(root.parent / "baseline" / "checkpoints") == []

"""Files of probes are written as a whole, checked when read, and trained by the first process that needs them."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainables.cost_account import CostAccount
from trainables.errors import DataError, Diverged
from trainables.training.probe_cache import ProbeCache, ProbeFolder, read_weights, write_weights

KEY = '{"data": "ü", "recipe": 1}'
SHAPES = [(5, 3), (3,)]
spawn = multiprocessing.get_context("spawn")


def weights(seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=shape).astype(np.float32) for shape in SHAPES]


def assert_equal(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, theirs)


class Teacher:
    """Counts how many times it trains."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> list[np.ndarray]:
        self.calls += 1
        return weights()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cäche 字 it's" / "deep"


def kept(folder: Path) -> Path:
    store = ProbeFolder(folder)
    store.get(KEY, SHAPES, weights, CostAccount())
    return store.path(KEY)


def test_written_weights_are_read_bit_for_bit(tmp_path: Path) -> None:
    file, strange = tmp_path / "ö", weights()
    strange[1][:] = [-0.0, 1e-45, 3e38]
    write_weights(file, KEY, strange)
    read = read_weights(file, KEY, SHAPES)
    assert_equal(read, strange)
    assert np.signbit(read[1][0])
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("place", [0, 40, -1])
def test_one_flipped_bit_is_detected(tmp_path: Path, place: int) -> None:
    file = tmp_path / "probe"
    write_weights(file, KEY, weights())
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="as they were written"):
        read_weights(file, KEY, SHAPES)


def test_another_key_or_other_shapes_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "probe"
    write_weights(file, KEY, weights())
    with pytest.raises(DataError, match="another key"):
        read_weights(file, KEY.replace("1", "2"), SHAPES)
    with pytest.raises(DataError, match="another key"):
        read_weights(file, KEY, [(3, 5), (3,)])
    with pytest.raises(DataError, match="bytes, received"):
        read_weights(file, KEY, SHAPES[:1])


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def overwrite(file: Path) -> None:
    file.write_bytes(b"\0" * len(file.read_bytes()))


@pytest.mark.parametrize("damage", [truncate, empty, overwrite])
def test_a_damaged_file_is_trained_again_and_repaired(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(kept(folder))
    store, teacher = ProbeFolder(folder), Teacher()
    assert_equal(store.get(KEY, SHAPES, teacher, CostAccount()), weights())
    assert teacher.calls == 1
    assert "it is trained again" in store.notes[0]
    again = ProbeFolder(folder)
    assert_equal(again.get(KEY, SHAPES, teacher, CostAccount()), weights())
    assert teacher.calls == 1
    assert again.notes == []


def no_folder(folder: Path) -> None:
    folder.parent.mkdir()
    folder.touch()


def no_lock(folder: Path) -> None:
    ProbeFolder(folder).path(KEY).with_suffix(".lock").mkdir(parents=True)


def no_file(folder: Path) -> None:
    ProbeFolder(folder).path(KEY).mkdir(parents=True)


def no_partial(folder: Path) -> None:
    Path(f"{ProbeFolder(folder).path(KEY)}.partial").mkdir(parents=True)


@pytest.mark.parametrize("obstacle", [no_folder, no_lock, no_file, no_partial])
def test_probes_are_kept_in_memory_if_the_folder_is_not_writable(
    folder: Path, obstacle: Callable[[Path], None]
) -> None:
    obstacle(folder)
    files = ProbeFolder(folder)
    store, teacher = ProbeCache(files), Teacher()
    for _ in range(3):
        assert_equal(store.get(KEY, SHAPES, teacher, CostAccount()), weights())
    assert teacher.calls == 1
    assert "going on without keeping them on disk" in " ".join(files.notes)


def test_waiting_for_a_lock_times_out(folder: Path) -> None:
    from filelock import FileLock

    folder.mkdir(parents=True)
    files, teacher = ProbeFolder(folder, wait=0.2), Teacher()
    account = CostAccount()
    with FileLock(files.path(KEY).with_suffix(".lock")):
        files.get(KEY, SHAPES, teacher, account)
    assert teacher.calls == 1
    assert account.stage_seconds["wait"] >= 0.2
    assert "another process" in files.notes[0]
    assert not files.path(KEY).exists()


def test_two_threads_train_one_probe(folder: Path) -> None:
    store, found = ProbeCache(ProbeFolder(folder)), []

    def slowly() -> list[np.ndarray]:
        time.sleep(0.2)
        return weights()

    def ask() -> None:
        found.append(store.get(KEY, SHAPES, slowly, CostAccount()))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.trained == 1
    assert len(found) == 4


def ask_from_a_process(folder: str, marks: str) -> None:
    def train() -> list[np.ndarray]:
        Path(marks, str(os.getpid())).touch()
        time.sleep(0.5)
        return weights()

    ProbeFolder(Path(folder)).get(KEY, SHAPES, train, CostAccount())


def test_two_processes_train_one_probe(folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    processes = [spawn.Process(target=ask_from_a_process, args=(str(folder), str(marks))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(marks.iterdir())) == 1


def test_a_failed_training_raises_and_keeps_nothing(folder: Path) -> None:
    store, teacher = ProbeCache(ProbeFolder(folder)), Teacher()

    def fail() -> list[np.ndarray]:
        raise Diverged("nan")

    with pytest.raises(Diverged):
        store.get(KEY, SHAPES, fail, CostAccount())
    store.get(KEY, SHAPES, teacher, CostAccount())
    assert (store.trained, teacher.calls) == (1, 1)


def test_the_oldest_files_are_removed_first(folder: Path) -> None:
    kept(folder)
    size = ProbeFolder(folder).path(KEY).stat().st_size
    files = ProbeFolder(folder, budget=2 * size + size // 2)
    keys = [KEY, *(f"{KEY} {n}" for n in range(3))]
    for age, key in enumerate(keys):
        files.get(key, SHAPES, weights, CostAccount())
        os.utime(files.path(key), (age, age))
    assert [files.path(key).exists() for key in keys] == [False, False, True, True]
    small, teacher = ProbeFolder(folder, budget=10), Teacher()
    small.get(KEY, SHAPES, teacher, CostAccount())
    assert teacher.calls == 1
    assert not files.path(KEY).exists()


def test_without_memory_and_folder_a_probe_is_trained_again() -> None:
    store, teacher = ProbeCache(budget=0), Teacher()
    for _ in range(2):
        assert_equal(store.get(KEY, SHAPES, teacher, CostAccount()), weights())
    assert teacher.calls == 2

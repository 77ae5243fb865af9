"""The cache on disk: entries are complete or absent, verified when they are opened, and never removed while in use."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from trainables.activations.entry_file import EntryWriter, read_entry
from trainables.activations.key import EntryKey
from trainables.activations.location import default_cache_budget, default_directory
from trainables.activations.store import DiskCache
from trainables.errors import DataError, UsageError

KEY = EntryKey(
    prefix="f00d",
    data="beef",
    split="train",
    input_size=(8, 8),
    level=0.5,
    flip=False,
    view=3,
    chunk=4,
    software="keras 3, tensorflow 2, CPU",
)
ROWS, SHAPE = 10, (3, 5, 2)
spawn = multiprocessing.get_context("spawn")


def values(rows: int = ROWS, dtype: str = "float16", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, *SHAPE)).astype(dtype)


def chunks(array: np.ndarray, size: int = 4) -> Iterator[np.ndarray]:
    return (array[start : start + size] for start in range(0, len(array), size))


def key(view: int) -> EntryKey:
    return replace(KEY, view=view)


def fill(store: DiskCache, entry: EntryKey = KEY, array: np.ndarray | None = None) -> np.ndarray | None:
    array = values() if array is None else array
    return store.get_or_compute(entry, len(array), array.shape[1:], lambda: chunks(array))


def written(folder: Path, array: np.ndarray, *more: np.ndarray) -> Path:
    draft = EntryWriter(folder / "draft.partial", KEY, len(array) + sum(map(len, more)), SHAPE)
    for part in (array, *more):
        draft.append(part)
    draft.finish(folder / "entry.arrow")
    draft.close()
    return folder / "entry.arrow"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cäche 字 it's" / "deep"
    made.mkdir(parents=True)
    return made


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_entry_is_read_back_bit_for_bit(folder: Path, dtype: str) -> None:
    array = values(dtype=dtype)
    array[0, 0, 0] = [np.inf, np.nan]
    read = read_entry(written(folder, array), KEY)
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)
    assert not read.flags.writeable
    assert sorted(p.name for p in folder.iterdir()) == ["entry.arrow"]


def test_any_arrow_reader_can_read_an_entry(folder: Path) -> None:
    array = values()
    with pa.memory_map(str(written(folder, array))) as source:
        table = pa.ipc.open_file(source).read_all()
        assert table.schema.metadata[b"unfreeze.key"].decode() == KEY.text
        found = np.array(table["values"].to_pylist(), np.float16)
    np.testing.assert_array_equal(found.reshape(array.shape), array)


def test_an_entry_becomes_float32_when_rows_need_it(folder: Path) -> None:
    narrow, wide = values(), values(3, "float32") * 1e6
    read = read_entry(written(folder, narrow, wide, values(2)), KEY)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(
        read, np.concatenate([narrow.astype(np.float32), wide, values(2).astype(np.float32)])
    )


def test_an_incomplete_entry_is_refused_and_removed(folder: Path) -> None:
    draft = EntryWriter(folder / "draft.partial", KEY, ROWS, SHAPE)
    draft.append(values(4))
    with pytest.raises(ValueError, match="rows: expected 10, received 4"):
        draft.finish(folder / "entry.arrow")
    draft.close()
    assert list(folder.iterdir()) == []


def test_a_flipped_byte_never_changes_the_values_read(folder: Path) -> None:
    path = written(folder, values())
    whole = path.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            read = read_entry(path, KEY)
        except DataError:
            noticed += 1
        else:  # a byte that means nothing
            np.testing.assert_array_equal(read, values())
    body = values().nbytes + 4 * ROWS
    assert noticed > body // 7


@pytest.mark.parametrize("damage", ["empty", "garbage", "zeros", "half", "one byte short", "one byte more"])
def test_a_damaged_file_is_found_and_built_again(folder: Path, damage: str) -> None:
    store = DiskCache(folder, 10**6)
    fill(store)
    path = store.path(KEY)
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "garbage": np.random.default_rng(0).bytes(len(whole)),
        "zeros": bytes(len(whole)),
        "half": whole[: len(whole) // 2],
        "one byte short": whole[:-1],
        "one byte more": whole + b"\0",
    }[damage]
    path.write_bytes(damaged)
    for opened in (
        DiskCache(folder, 10**6),
        store,
    ):  # another process, and the one that has checked it before
        path.write_bytes(damaged)
        assert opened.open(KEY) is None
        assert [path.name in note and "computed again" in note for note in opened.notes] == [True]
        np.testing.assert_array_equal(fill(opened), values())
    assert path.read_bytes() == whole


def test_a_flipped_value_is_found_by_its_checksum(folder: Path) -> None:
    fill(DiskCache(folder, 10**6))
    path = DiskCache(folder, 10**6).path(KEY)
    whole = bytearray(path.read_bytes())
    whole[whole.index(values().tobytes()) + 77] ^= 1
    path.write_bytes(whole)
    store = DiskCache(folder, 10**6)
    assert store.open(KEY) is None
    assert "received 1 that differ" in store.notes[0]


def test_an_entry_with_another_key_is_not_read(folder: Path) -> None:
    store = DiskCache(folder, 10**6)
    fill(store, key(1))
    store.path(key(1)).rename(store.path(key(2)))
    assert store.open(key(2)) is None


@pytest.mark.parametrize("change", EntryKey.__dataclass_fields__)
def test_every_field_of_the_key_changes_the_entry(change: str) -> None:
    other: dict[str, Any] = {"input_size": (8, 9), "level": 0.75, "flip": True, "view": 4, "chunk": 8}
    changed = replace(KEY, **{change: other.get(change, "another")})
    assert changed.digest != KEY.digest
    assert replace(KEY).digest == KEY.digest


def test_an_existing_entry_is_not_computed_again(folder: Path) -> None:
    fill(DiskCache(folder, 10**6))
    again = DiskCache(folder, 10**6).get_or_compute(KEY, ROWS, SHAPE, lambda: pytest.fail("computed again"))
    np.testing.assert_array_equal(again, values())


def test_an_error_of_the_computation_is_raised_and_leaves_no_file(folder: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield values(4)
        raise KeyError("the computation")

    store = DiskCache(folder, 10**6)
    with pytest.raises(KeyError, match="the computation"):
        store.get_or_compute(KEY, ROWS, SHAPE, broken)
    assert not list(folder.glob("*.arrow")) + list(folder.glob("*.partial"))
    np.testing.assert_array_equal(fill(store), values())


BIG = (64, 1024)
"""Rows of which ten take 1.3 MB."""


def big(view: int) -> np.ndarray:
    return np.full((10, *BIG), view, np.float16)


def held(store: DiskCache) -> list[int]:
    return [view for view in range(6) if key(view) in store]


def test_the_least_recently_used_entries_are_evicted_first(folder: Path) -> None:
    store = DiskCache(folder, 4_500_000)
    for view in range(3):
        fill(store, key(view), big(view))
    assert store.open(key(0)) is not None  # used again: now 1 is the oldest
    fill(store, key(3), big(3))
    assert held(store) == [0, 2, 3]
    fill(store, key(4), big(4))
    assert held(store) == [0, 3, 4]
    assert store.bytes <= store.budget
    assert store.notes == []


def test_an_entry_in_use_is_never_evicted(folder: Path) -> None:
    store = DiskCache(folder, 4_500_000)
    used = fill(store, key(0), big(0))
    assert used is not None
    part = used[3:5, 7]  # a part of it is enough
    del used
    for view in range(1, 6):
        fill(store, key(view), big(view))
    assert held(store) == [0, 4, 5]
    assert (part == 0).all()
    del part
    gc.collect()
    fill(store, key(1), big(1))
    assert held(store) == [1, 4, 5]


def test_when_all_entries_are_in_use_the_caller_continues_without_the_cache(folder: Path) -> None:
    store = DiskCache(folder, 3_000_000)
    used = [fill(store, key(view), big(view)) for view in range(2)]
    assert fill(store, key(2), big(2)) is None
    assert fill(store, key(3), big(3)) is None
    assert ["no room for 1.3 MB within 3.0 MB" in note for note in store.notes] == [True]
    assert held(store) == [0, 1]
    del used


def test_an_entry_larger_than_the_budget_evicts_nothing(folder: Path) -> None:
    store = DiskCache(folder, 2_000_000)
    fill(store, key(0), big(0))
    assert store.get_or_compute(key(1), 40, BIG, lambda: pytest.fail("computed")) is None
    assert held(store) == [0]


def _hold(folder: str, opened: Any, release: Any) -> None:
    array = DiskCache(Path(folder), 3_000_000).open(key(0))
    opened.put(array is not None)
    release.wait(60)


def test_an_entry_that_another_process_uses_is_never_evicted(folder: Path) -> None:
    store = DiskCache(folder, 3_000_000)
    fill(store, key(0), big(0))
    opened, release = spawn.Queue(), spawn.Event()
    reader = spawn.Process(target=_hold, args=(str(folder), opened, release))
    reader.start()
    assert opened.get(timeout=60)
    for view in range(1, 4):
        fill(store, key(view), big(view))
        gc.collect()
    assert held(store) == [0, 3]
    release.set()
    reader.join(60)
    fill(store, key(4), big(4))
    assert held(store) == [3, 4]


def _compute(folder: str, log: str, start: Any, results: Any) -> None:
    def slowly() -> Iterator[np.ndarray]:
        with Path(log).open("a") as file:
            file.write("computed\n")
        for chunk in chunks(values()):
            time.sleep(0.3)
            yield chunk

    start.wait(60)
    array = DiskCache(Path(folder), 10**6).get_or_compute(KEY, ROWS, SHAPE, slowly)
    results.put(None if array is None else array.sum(dtype=np.float64).item())


def test_of_two_concurrent_processes_one_computes_and_both_read(folder: Path, tmp_path: Path) -> None:
    log, start, results = tmp_path / "log", spawn.Event(), spawn.Queue()
    both = [spawn.Process(target=_compute, args=(str(folder), str(log), start, results)) for _ in range(2)]
    for process in both:
        process.start()
    start.set()
    expected = values().sum(dtype=np.float64).item()
    assert [results.get(timeout=60) for _ in both] == [expected, expected]
    for process in both:
        process.join(60)
    assert log.read_text() == "computed\n"


def _write_forever(folder: str, begun: Any) -> None:
    def endless() -> Iterator[np.ndarray]:
        yield values(4)
        begun.set()
        time.sleep(600)
        yield values(6)

    DiskCache(Path(folder), 10**6).get_or_compute(KEY, ROWS, SHAPE, endless)


@pytest.fixture
def writer(folder: Path) -> Iterator[Any]:
    """A process that has written the first rows of an entry and does not go on."""
    begun = spawn.Event()
    process = spawn.Process(target=_write_forever, args=(str(folder), begun))
    process.start()
    assert begun.wait(60)
    yield process
    if process.is_alive():
        process.kill()
    process.join(60)


def test_the_draft_of_a_killed_writer_is_ignored(folder: Path, writer: Any) -> None:
    store = DiskCache(folder, 10**6)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(60)
    assert len(list(folder.glob("*.partial"))) == 1
    assert store.open(KEY) is None
    np.testing.assert_array_equal(fill(store), values())
    assert list(folder.glob("*.partial")) == []
    assert store.notes == []


def test_a_lock_timeout_continues_without_the_cache(folder: Path, writer: Any) -> None:
    store = DiskCache(folder, 10**6, wait=0.3)
    began = time.monotonic()
    assert store.get_or_compute(KEY, ROWS, SHAPE, lambda: pytest.fail("computed")) is None
    assert time.monotonic() - began < 5
    assert "another process has been computing" in store.notes[0]
    np.testing.assert_array_equal(fill(store, key(9)), values())  # other entries are not affected
    assert len(list(folder.glob("*.partial"))) == 1  # and the living writer keeps its draft


@pytest.fixture
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    gc.collect()
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_continues_without_the_cache(tiny_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = DiskCache(tiny_disk, 10**8)
    np.testing.assert_array_equal(fill(store, key(0)), values())
    assert fill(store, key(1), big(1)) is None
    assert not store.usable
    assert fill(store, key(2), big(2)) is None
    assert len(store.notes) == len(caplog.records) == 1
    assert "the disk is full" in store.notes[0]
    assert list(tiny_disk.glob("*.partial")) == []
    np.testing.assert_array_equal(store.open(key(0)), values())  # what is there can still be read


def test_a_read_only_disk_serves_its_entries(tiny_disk: Path) -> None:
    fill(DiskCache(tiny_disk, 10**6))
    gc.collect()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    store = DiskCache(tiny_disk, 10**6)
    np.testing.assert_array_equal(store.open(KEY), values())
    assert store.notes == []
    assert fill(store, key(1)) is None
    assert fill(store, key(2)) is None
    assert ["can't write" in note for note in store.notes] == [True]


def _limited(folder: str, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    store = DiskCache(Path(folder), 10**8)
    filled = fill(store, key(1), big(1))
    results.put((filled is None, store.notes, [p.name for p in Path(folder).glob("*.partial")]))


def test_a_limit_on_file_sizes_continues_without_the_cache(folder: Path) -> None:
    results = spawn.Queue()
    process = spawn.Process(target=_limited, args=(str(folder), results))
    process.start()
    gone_on, notes, left = results.get(timeout=60)
    process.join(60)
    assert gone_on
    assert ["the disk is full" in note for note in notes] == [True]
    assert left == []


def test_a_folder_that_cannot_be_created_continues_without_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = DiskCache(tmp_path / "file" / "cache", 10**6)
    assert store.open(KEY) is None
    assert fill(store) is None
    assert store.notes


def test_without_a_budget_nothing_is_written(folder: Path) -> None:
    store = DiskCache(folder, 0)
    assert fill(store) is None
    assert list(folder.iterdir()) == []


def test_the_folder_is_marked_as_a_cache(folder: Path) -> None:
    fill(DiskCache(folder, 10**6))
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_the_default_directory_follows_the_environment(tmp_path: Path) -> None:
    assert default_directory({}) == Path.home() / ".cache/unfreeze/activations"
    assert default_directory({"UNFREEZE_CACHE": str(tmp_path / "ü")}) == tmp_path / "ü"
    assert default_directory({"UNFREEZE_CACHE": "~/c"}) == Path.home() / "c"
    assert default_directory({"UNFREEZE_CACHE": "off"}) is None


def test_an_invalid_default_directory_is_refused() -> None:
    with pytest.raises(
        UsageError, match="UNFREEZE_CACHE: expected a directory or 'off', received '~no-such-user/c'"
    ):
        default_directory({"UNFREEZE_CACHE": "~no-such-user/c"})


def test_a_folder_that_cannot_be_looked_at_has_no_budget(tmp_path: Path) -> None:
    assert default_cache_budget(tmp_path / ("x" * 300) / "cache") == 0


def test_the_default_budget_is_a_share_of_what_is_free(tmp_path: Path) -> None:
    budget = default_cache_budget(tmp_path / "not" / "yet")
    assert 0 < budget <= 10 * 10**9
    assert DiskCache(tmp_path / "not" / "yet").budget == pytest.approx(budget, rel=0.1)

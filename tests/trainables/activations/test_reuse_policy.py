"""When activations are kept, and where: the comparison of seconds and bytes, and the measured speeds behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.activations.machine_speed import RATES_FILE, MeasuredSpeeds, Rates, disk_rates, memory_rates
from trainables.activations.reuse_policy import CacheCapacity, CacheRequest, choose_location, decide_reuse

GB = 10**9
MEMORY, DISK = Rates(4e9, 4e9, 4e9), Rates(5e8, 1e8, 2e9)


@dataclass(frozen=True)
class Fixed:
    """A machine of known speeds."""

    memory: Rates = MEMORY
    disk: Rates | None = DISK
    file_cache: int = 8 * GB
    min_seconds_for_file: float = 0.25


ROOM = CacheCapacity(memory=2 * GB, disk=10 * GB)
# 10,000 images, 4,000 bytes of activations each, 100 images a second through the prefix
SLOW = CacheRequest(images=10_000, bytes_per_image=4_000, prefix_seconds=0.01, views=8, epochs=20)


def test_a_slow_prefix_over_small_tensors_is_kept_on_disk() -> None:
    decision = decide_reuse(SLOW, ROOM, Fixed())
    assert decision.reuse
    assert decision.place == "disk"
    assert decision.prefix_rate == pytest.approx(100)
    assert decision.live_seconds == pytest.approx(20 * 10_000 * 0.01)
    assert decision.reuse_seconds == pytest.approx(
        8 * 10_000 * (0.01 + 4_000 / 5e8) + 20 * 10_000 * 4_000 / 2e9
    )
    assert "kept on disk" in str(decision)
    assert "against 2000.00 s without" in decision.reason
    assert decision.describe()["bytes"] == 8 * 10_000 * 4_000


def test_a_fast_prefix_over_large_tensors_is_computed_live() -> None:
    fast = replace(SLOW, bytes_per_image=60_000, prefix_seconds=1e-5)
    decision = decide_reuse(fast, ROOM, Fixed())
    assert not decision.reuse
    assert decision.place == "none"
    assert "computed live" in str(decision)


def test_sharing_between_trials_can_make_reuse_pay_off() -> None:
    alone = replace(SLOW, epochs=4, bytes_per_image=50_000)
    assert not decide_reuse(alone, ROOM, Fixed()).reuse  # four epochs, four views: nothing is read twice
    assert decide_reuse(replace(alone, sharing=1), ROOM, Fixed()).reuse


def test_cached_views_cost_no_computation() -> None:
    fresh, half = (decide_reuse(replace(SLOW, kept=kept), ROOM, Fixed()) for kept in (0, 4))
    assert half.reuse_seconds < fresh.reuse_seconds
    assert half.kept == 4


def test_a_set_larger_than_the_systems_file_cache_is_read_from_the_disk_itself() -> None:
    large = replace(SLOW, bytes_per_image=40_000)
    hot, cold = (decide_reuse(large, ROOM, Fixed(file_cache=size)) for size in (8 * GB, GB))
    assert hot.read_rate == pytest.approx(20 * cold.read_rate)


@pytest.mark.parametrize(
    ("demand", "room", "expected"),
    [
        (replace(SLOW, prefix_seconds=1e-6), ROOM, "memory"),  # computed again sooner than a file is opened
        (SLOW, ROOM, "disk"),
        (SLOW, CacheCapacity(memory=2 * GB), "memory"),
        (replace(SLOW, bytes_per_image=40_000), CacheCapacity(memory=2 * GB), "none"),
        (replace(SLOW, bytes_per_image=40_000), ROOM, "disk"),
        (replace(SLOW, bytes_per_image=400_000), ROOM, "none"),
        (replace(SLOW, bytes_per_image=40_000, prefix_seconds=1e-6), ROOM, "disk"),  # too large for memory
    ],
)
def test_choose_location(demand: CacheRequest, room: CacheCapacity, expected: str) -> None:
    assert choose_location(demand, room, Fixed()) == expected


def test_without_a_disk_that_can_be_measured_memory_remains() -> None:
    assert choose_location(SLOW, ROOM, Fixed(disk=None)) == "memory"


def test_small_sets_are_kept_whatever_they_cost() -> None:
    small = CacheRequest(images=100, bytes_per_image=8_000, prefix_seconds=1e-9, views=8, epochs=2)
    decision = decide_reuse(small, ROOM, Fixed())
    assert decision.reuse
    assert decision.place == "memory"
    assert "small" in decision.reason


def test_too_much_is_refused_with_the_limits() -> None:
    decision = decide_reuse(replace(SLOW, bytes_per_image=400_000), ROOM, Fixed())
    assert not decision.reuse
    assert "8 view(s) of 32.0 GB together exceed 1.0 GB of memory or 5.0 GB of disk" in decision.reason


def test_only_the_views_that_a_trial_reaches_count() -> None:
    assert decide_reuse(replace(SLOW, epochs=3), ROOM, Fixed()).bytes == 3 * 10_000 * 4_000


demands = st.builds(
    CacheRequest,
    images=st.integers(1, 100_000),
    bytes_per_image=st.integers(2, 1_000_000),
    prefix_seconds=st.floats(1e-7, 1.0),
    views=st.integers(1, 16),
    epochs=st.integers(1, 100),
    sharing=st.integers(0, 50),
)


@given(demands)
def test_reuse_never_exceeds_half_of_the_capacity_and_never_costs_more_than_live(
    demand: CacheRequest,
) -> None:
    decision = decide_reuse(demand, ROOM, Fixed())
    if decision.reuse:
        assert decision.bytes <= {"memory": ROOM.memory, "disk": ROOM.disk}[decision.place] / 2
        small = decision.bytes <= ROOM.memory / 16
        assert small or decision.reuse_seconds < decision.live_seconds
    assert str(decision)


@given(demands, st.integers(1, 50))
def test_more_sharing_trials_never_prevent_reuse(demand: CacheRequest, more: int) -> None:
    before = decide_reuse(demand, ROOM, Fixed())
    after = decide_reuse(replace(demand, sharing=demand.sharing + more), ROOM, Fixed())
    slower_to_read = demand.prefix_seconds < demand.bytes_per_image / 1e8
    assert after.reuse or not before.reuse or slower_to_read


def test_this_machines_rates_are_measured_and_plausible(tmp_path: Path) -> None:
    rates = disk_rates(tmp_path / "ü")
    for rate in (rates.write, rates.cold, rates.hot, memory_rates().hot):
        assert 1e6 < rate < 1e12
    assert [p.name for p in (tmp_path / "ü").iterdir()] == [RATES_FILE]


def test_rates_are_kept_for_a_week(tmp_path: Path) -> None:
    first = disk_rates(tmp_path, now=1e9)
    assert disk_rates(tmp_path, now=1e9 + 6 * 86400) == first
    written = (tmp_path / RATES_FILE).read_text()
    disk_rates(tmp_path, now=1e9 + 8 * 86400)
    assert (tmp_path / RATES_FILE).read_text() != written


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"write": 1}', '{"write": 0, "cold": 0, "hot": 0, "measured": 1e9}']
)
def test_damaged_rates_are_measured_again(tmp_path: Path, damage: str) -> None:
    (tmp_path / RATES_FILE).write_text(damage)
    assert disk_rates(tmp_path, now=1e9).write > 1e6


def test_a_machine_without_a_writable_folder_has_no_disk(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert MeasuredSpeeds(tmp_path / "file" / "cache").disk is None
    assert MeasuredSpeeds(None).disk is None
    assert MeasuredSpeeds(tmp_path).disk is not None
    assert MeasuredSpeeds(tmp_path).file_cache > 0
    assert MeasuredSpeeds(tmp_path).min_seconds_for_file > 0

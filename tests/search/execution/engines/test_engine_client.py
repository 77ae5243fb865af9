"""Test how a trial finds out why its engine died, with real processes of Ray and a small engine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.air.execution import FixedResourceManager, ResourceRequest
from ray.air.execution._internal.actor_manager import RayActorManager

from search.execution.cluster.oom_kills import is_oom_message
from search.execution.engines.engine_client import (
    ENGINE_DIED,
    ENGINE_HUNG,
    ENGINE_OUT_OF_MEMORY,
    Deadline,
    EngineLost,
    SharedEngine,
)
from search.execution.engines.messages import EngineIdentity
from search.execution.engines.trials import UnknownTrial
from search.execution.tune_patches import oom_kills_as_crashes

pytestmark = pytest.mark.cluster


class SmallEngine:
    """An engine that trains nothing."""

    def __init__(self) -> None:
        self._instance, self._keys = uuid.uuid4().hex, set[str]()

    def ready(self) -> EngineIdentity:
        return EngineIdentity(self._instance, os.getpid())

    def begin(self, key: str) -> None:
        self._keys.add(key)

    def take(self, count: int) -> int:
        return len(b"x" * count)

    def epoch(self, key: str) -> str:
        if key not in self._keys:
            raise UnknownTrial(key)
        if key == "never ends":
            time.sleep(1e6)
        return key


def start() -> SharedEngine:
    options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 8, "max_restarts": -1}
    return SharedEngine(ray.remote(SmallEngine).options(**options).remote())


@pytest.fixture(scope="module")
def own_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def engine(own_ray: None) -> SharedEngine:
    engine = start()
    engine.wait_until_ready()
    engine.call("begin", "a trial")
    engine.call("begin", "never ends")
    return engine


def lost(engine: SharedEngine, key: str, seconds: float | None = None) -> EngineLost:
    with pytest.raises(EngineLost) as caught:
        engine.call("epoch", key, seconds=seconds)
    return caught.value


@pytest.mark.parametrize("when", ["during a call", "between two calls"])
def test_a_dead_engine_is_distinguished_from_its_successor(engine: SharedEngine, when: str) -> None:
    instance, pid = engine.instance, engine.call("ready").pid
    if when == "during a call":
        threading.Timer(1, os.kill, (pid, signal.SIGKILL)).start()
        assert lost(engine, "never ends").reason == ENGINE_DIED
    else:
        os.kill(pid, signal.SIGKILL)
        assert lost(engine, "a trial").reason == ENGINE_DIED
    engine.wait_until_ready()
    assert engine.instance != instance
    assert lost(engine, "a trial").reason == ENGINE_DIED  # begun in an earlier instance
    engine.call("begin", "a trial")
    assert engine.call("epoch", "a trial") == "a trial"


@pytest.mark.parametrize("stopped", [False, True], ids=["one call hangs", "the whole process hangs"])
def test_an_engine_that_does_not_answer_in_time_is_killed(engine: SharedEngine, stopped: bool) -> None:
    instance, pid = engine.instance, engine.call("ready").pid
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    assert lost(engine, "a trial" if stopped else "never ends", seconds=1.5).reason == ENGINE_HUNG
    engine.wait_until_ready()
    assert engine.instance != instance
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_several_calls_share_a_deadline() -> None:
    assert Deadline(None).remaining is None
    deadline = Deadline(0.2)
    first = deadline.remaining
    time.sleep(0.3)
    assert first is not None
    assert 0 < (deadline.remaining or 0) < first <= 0.2


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group whose processes may use 60 MB of memory."""
    found = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    roots = {"memory": Path("/sys/fs/cgroup/memory"), "": Path("/sys/fs/cgroup")}
    for _, controllers, own in found:
        group = (
            roots.get(controllers, Path("/nowhere")) / own.lstrip("/") / f"unfreeze-{uuid.uuid4().hex[:8]}"
        )
        with contextlib.suppress(OSError):
            group.mkdir()
            limits = [group / "memory.limit_in_bytes", group / "memory.max"]
            for limit in filter(Path.exists, limits):
                limit.write_text("60000000")
                yield group
                time.sleep(1)
                group.rmdir()
                return
            group.rmdir()
    pytest.skip("needs a memory control group that may be made: root, outside of an unprivileged container")


def test_a_kill_by_the_kernel_for_lack_of_memory_is_recognised(
    engine: SharedEngine, small_group: Path
) -> None:
    (small_group / "cgroup.procs").write_text(str(engine.call("ready").pid))
    with pytest.raises(EngineLost) as caught:
        engine.call("take", 300_000_000)
    assert caught.value.reason == ENGINE_OUT_OF_MEMORY
    assert "the kernel killed the engine" in str(caught.value)


def test_a_kill_by_rays_memory_monitor_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's memory monitor with a threshold that any use of memory exceeds at its first check."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "8000")
    ray.shutdown()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        engine = start()
        engine.wait_until_ready()
        engine.call("begin", "never ends")
        error = lost(engine, "never ends", seconds=120)
        assert error.reason == ENGINE_OUT_OF_MEMORY
        assert "running low on memory" in str(error)
    finally:
        ray.shutdown()


def test_tune_survives_a_kill_of_a_trial_process_by_the_memory_monitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.001")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "8000")
    ray.shutdown()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    errors: list[Exception] = []
    try:
        manager = RayActorManager(resource_manager=FixedResourceManager())
        options: dict[str, Any] = {
            "cls": SmallEngine,
            "kwargs": {},
            "resource_request": ResourceRequest([{"CPU": 1}]),
        }
        actor = manager.add_actor(**options, on_error=lambda actor, error: errors.append(error))
        while not manager.is_actor_started(actor):
            manager.next(timeout=1)
        manager.schedule_actor_task(actor, "begin", ("never ends",))
        manager.schedule_actor_task(actor, "epoch", ("never ends",))
        with oom_kills_as_crashes():
            while not errors:
                manager.next(timeout=1)
    finally:
        ray.shutdown()
    assert is_oom_message(str(errors[0]))

"""The doctor names problems of single nodes of a real cluster, with the node, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from raylets import LIMIT, Doctor, Findings, Raylets

import search
import trainables

pytestmark = pytest.mark.cluster

DEAF = """
import os
with open("/proc/self/cmdline", "rb") as file:
    if b"default_worker" in file.read():
        os._exit(1)
"""
AHEAD = """
import time
with open("/proc/self/cmdline", "rb") as file:
    if b"default_worker" in file.read():
        now = time.time
        time.time = lambda: now() + 300
"""
"""Only Ray's workers see it; Ray itself need not work with it."""
TOO_MUCH = """
import ray, sys, time
ray.init(sys.argv[1], logging_level="ERROR", log_to_driver=False)
waits = ray.remote(num_cpus=64)(lambda: None).remote()
open(sys.argv[2], "w").close()
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared ü") / "runs"


@pytest.fixture(scope="module")
def findings(
    raylets: Raylets, doctor: Doctor, storage: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Findings]:
    """Of a cluster with a good node and three on which something is wrong; a task waits there for 64 processors."""
    folder = tmp_path_factory.mktemp("faults")
    late, old, deaf, cache = (folder / name for name in ("late", "old", "deaf", "cache"))
    for made in (late, old / "tensorflow-2.20.0.dist-info", deaf, cache):
        made.mkdir(parents=True)
    (late / "sitecustomize.py").write_text(AHEAD)
    (deaf / "sitecustomize.py").write_text(DEAF)
    for package in (search, trainables):
        name, source = package.__name__, Path(str(package.__file__)).parent
        shutil.copytree(source, late / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (late / "search" / "sizes.py").open("a") as file:
        file.write("# as it was last week\n")
    metadata = "Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.20.0\n"
    (old / "tensorflow-2.20.0.dist-info" / "METADATA").write_text(metadata)
    shared = f"'{storage.parent}'"
    raylets.add("good")
    raylets.add("deaf", environment={"PYTHONPATH": str(deaf)})
    raylets.add("late", environment={"PYTHONPATH": str(late)}, mounts=[f"-t tmpfs none {shared}"])
    raylets.add(
        "old",
        gpus=1,
        environment={"PYTHONPATH": str(old), "UNFREEZE_CACHE": str(cache)},
        mounts=[
            f"-t tmpfs -o size=64m none '{cache}'",
            f"--bind {shared} {shared}",
            f"-o remount,bind,ro {shared}",
        ],
    )
    waiting, asked = folder / "waiting", [sys.executable, "-c", TOO_MUCH, raylets.address]
    with subprocess.Popen([*asked, str(waiting)], env=raylets.environment, stdin=subprocess.PIPE) as process:
        while not waiting.exists():
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(1)  # the head hears of it within a second
        arguments = ["--address", raylets.address, "--storage", str(storage), "--gpus-per-trial", "2"]
        yield doctor(*arguments, environment=raylets.environment)
        process.kill()


def words(findings: Findings, check: str, grade: str) -> str:
    return "\n".join(f["words"] for f in findings if (f["check"], f["grade"]) == (check, grade))


def test_a_storage_that_a_node_does_not_share_is_reported(findings: Findings, storage: Path) -> None:
    said = words(findings, "storage", "failed")
    assert f"{storage} is not shared: node late has no such folder" in said.replace(
        "has a folder of its own there", "has no such folder"
    )


def test_a_storage_that_a_node_can_not_write_is_reported(findings: Findings, storage: Path) -> None:
    assert f"{storage} can't be written from node old: Read-only file system" in words(
        findings, "storage", "failed"
    )
    assert not list(storage.parent.iterdir())


def test_different_versions_are_reported(findings: Findings) -> None:
    said = words(findings, "versions", "failed")
    assert "node old has tensorflow 2.20.0, this machine 2.21" in said
    assert "node late has other files of unfreeze" in said


def test_a_clock_that_is_ahead_is_reported(findings: Findings) -> None:
    assert "node late is 300 s ahead of this machine" in words(findings, "clock", "warning")


def test_a_disk_that_is_too_small_for_the_cache_is_reported(findings: Findings) -> None:
    said = words(findings, "cache", "warning")
    assert "node old: " in said
    assert "0.1 GB free, too little for the cache" in said
    assert "node late" not in said


def test_a_gpu_that_tensorflow_does_not_see_is_reported(findings: Findings) -> None:
    assert "node old has 1 GPU but TensorFlow sees none" in words(findings, "gpu", "failed")


def test_trials_that_would_stay_pending_are_reported(findings: Findings) -> None:
    said = words(findings, "requests", "failed")
    assert "a trial asks for 1 CPU and 2 GPU and no node has that: trials would stay PENDING" in said
    assert "The largest of 5 nodes has 1 CPU and 1 GPU" in said


def test_a_task_that_waits_in_vain_is_reported(findings: Findings) -> None:
    assert "stays PENDING, because no node has 64 CPU (1 waiting)" in words(findings, "requests", "failed")


def test_a_node_on_which_no_process_starts_is_reported(findings: Findings) -> None:
    said = words(findings, "nodes", "failed")
    assert "Ray could not start a process on node deaf: no answer within 20 s" in said


def test_healthy_nodes_have_no_findings(findings: Findings) -> None:
    wrong = [f["words"] for f in findings if f["grade"] != "ok"]
    assert not [w for w in wrong if "node good" in w or "node head" in w]
    assert words(findings, "ray", "ok")


LOOK = """
import sys
from pathlib import Path
from search.config.search_config import SearchConfig
from search.doctor.joining import ray_connection
from search.doctor.startup_checks import StartupChecks
from trainables.errors import ClusterError

with ray_connection(sys.argv[1]):
    checks = StartupChecks(SearchConfig(address=sys.argv[1]), Path(sys.argv[2]), print)
    checks.start_node_checks().join()
    try:
        checks.raise_if_fatal()
    except ClusterError as error:
        print("refused:", error)
"""


def test_a_search_is_refused_before_trials_start_on_nodes_that_do_not_share_its_storage(
    raylets: Raylets, findings: Findings, storage: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, raylets.address, str(storage)],
        env=raylets.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert "node late has other files of unfreeze" in done.stdout
    assert f"refused: storage: {storage}" in done.stdout
    assert "node old: Read-only file system" in done.stdout

"""The files of ``cluster/`` on four hosts: one cluster, from ``ray up`` to ``ray down``, searches and faults between.

The tests are steps of one story and run in this order.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from laboratory import HOME, SHARED, Host, Laboratory

from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError

PATIENCE = float(os.environ.get("UNFREEZE_LABORATORY_PATIENCE", "300"))
"""Seconds for what takes a tenth of it on a quiet machine."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3 * PATIENCE)]

TRIALS, EPOCHS = 16, 6
HALF_WAY = 3
"""Trials that have ended when something is done to the cluster."""

WORKERS = ("worker-1", "worker-2")
SPACE = """
learning_rate: {low: 1e-4, high: 1e-2, log: true}
unfreeze_depth: 1
head_units: 0
augmentation_strength: 0
"""
"""All trials of one shape: nothing is compiled twice on a machine."""

# Runs on the head, whose servers can be reached from there alone.
_ASK = """
import json, pathlib, sys, urllib.request
url, body = sys.argv[1], sys.argv[2].encode() or None
token = pathlib.Path("~/.ray/auth_token").expanduser().read_text().strip()
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
print(urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).read().decode())
"""
_RAY, _MLFLOW = "http://127.0.0.1:8265/api/v0", "http://127.0.0.1:5000/api/2.0/mlflow"


def until(holds: Callable[[], bool], words: str, pause: float = 1) -> None:
    """Wait for it; AssertionError with ``words`` if it does not come."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {words}"
        time.sleep(pause)


def up(laboratory: Laboratory) -> None:
    """``ray up`` as the owner of the laptop calls it, until all nodes are there."""
    laptop = laboratory.hosts["laptop"]
    laptop.run("bash", "-c", "cd ~/unfreeze/cluster && ray up -y cluster.yaml", timeout=PATIENCE)
    all_nodes_are_there(laboratory)


def all_nodes_are_there(laboratory: Laboratory) -> None:
    def joined() -> bool:
        nodes = ask(laboratory.hosts["head"], f"{_RAY}/nodes")["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" for node in nodes) == 1 + len(WORKERS)

    until(joined, "a head and two workers")


def submit(laboratory: Laboratory, name: str) -> subprocess.Popen[str]:
    """``ray submit cluster.yaml search.py -- …``, with spaces in the name and in the name of a file."""
    (laboratory.shared / "the space.yaml").write_text(SPACE)
    line = f"""ray submit cluster.yaml search.py -- --name '"{name}"' --space '"{SHARED}/the space.yaml"' """
    line += f"--trials {TRIALS} --epochs {EPOCHS} --scheduler none --baseline-trials 0 --confirm-seeds 1"
    log = laboratory.folder / f"{name}.txt"
    return laboratory.hosts["laptop"].start("bash", "-c", f"cd ~/unfreeze/cluster && {line}", log=log)


def record_of(laboratory: Laboratory, name: str) -> SearchRecord | None:
    """The search as its ledger has it; None before it has begun."""
    try:
        return read_record(name, str(laboratory.shared / "runs"))
    except LedgerError:
        return None


def half_way(laboratory: Laboratory, name: str, running: subprocess.Popen[str]) -> None:
    """Wait until some trials have ended and others run."""

    def ended() -> int:
        assert running.poll() is None, said(laboratory, name)
        record = record_of(laboratory, name)
        return sum(trial.ended is not None for trial in record.trials) if record else 0

    until(lambda: ended() >= HALF_WAY, f"{HALF_WAY} trials of {name!r}", pause=0.1)
    assert ended() < TRIALS, f"{name!r} was too quick to be disturbed half-way"


def said(laboratory: Laboratory, name: str) -> str:
    return (laboratory.folder / f"{name}.txt").read_text(errors="replace")[-5000:]


def ask(head: Host, url: str, body: object = None) -> dict[str, Any]:
    """What a server on the head answers."""
    return dict(json.loads(head.run("python", "-c", _ASK, url, "" if body is None else json.dumps(body))))


def check_whole(laboratory: Laboratory, name: str) -> None:
    """Every trial is in the ledger and in MLflow, once, with all its epochs; the winner is registered."""
    record = record_of(laboratory, name)
    assert record is not None
    assert [trial.number for trial in record.trials] == list(range(TRIALS))
    assert [(t.number, t.state, t.error) for t in record.trials if t.state != "complete"] == []
    assert all([e.epoch for e in trial.epochs] == list(range(1, EPOCHS + 1)) for trial in record.trials)
    head = laboratory.hosts["head"]
    experiment = ask(head, f"{_MLFLOW}/experiments/get-by-name?experiment_name=unfreeze%2Fdigits")[
        "experiment"
    ]
    wanted = {
        "experiment_ids": [experiment["experiment_id"]],
        "filter": f"tags.`unfreeze.search` = '{name}'",
        "max_results": 1000,
    }
    runs = ask(head, f"{_MLFLOW}/runs/search", wanted)["runs"]
    assert [run["info"]["status"] for run in runs] == ["FINISHED"] * (TRIALS + 1)
    found = ask(head, f"{_MLFLOW}/registered-models/alias?name=unfreeze-digits&alias=challenger")[
        "model_version"
    ]
    assert {tag["key"]: tag["value"] for tag in found["tags"]}["unfreeze.search"] == name


def trained_on(host: Host) -> int:
    """Processes that ran trials on it since it was started."""
    logs = (host.folder / "tmp" / "ray").glob("session_2*/logs/worker-*.out")
    return sum(":actor_name:TrialActor" in log.read_text() for log in logs)


def ray_processes(host: Host) -> list[str]:
    return [
        line for line in host.run("ps", "-eo", "args").splitlines() if "raylet" in line or "ray::" in line
    ]


def test_up_installs_unfreeze_on_every_node_and_starts_all_workers(laboratory: Laboratory) -> None:
    up(laboratory)
    for name in ("head", *WORKERS):
        host = laboratory.hosts[name]
        where = host.run("python", "-c", "import search; print(search.__file__)").strip()
        assert where.startswith(f"{HOME}/.unfreeze/venv/")
        assert (host.home / ".ray" / "auth_token").stat().st_mode & 0o77 == 0


def test_a_search_runs_on_both_workers(laboratory: Laboratory) -> None:
    running = submit(laboratory, "both of them")
    assert running.wait(PATIENCE) == 0, said(laboratory, "both of them")
    check_whole(laboratory, "both of them")
    assert [trained_on(laboratory.hosts[name]) for name in WORKERS] == [2, 2]
    assert trained_on(laboratory.hosts["head"]) == 0


def test_a_worker_that_loses_power_half_way_costs_nothing(laboratory: Laboratory) -> None:
    running = submit(laboratory, "one without power")
    half_way(laboratory, "one without power", running)
    laboratory.hosts["worker-2"].cut_power()
    laboratory.bring_back("worker-2")
    assert running.wait(PATIENCE) == 0, said(laboratory, "one without power")
    check_whole(laboratory, "one without power")
    all_nodes_are_there(laboratory)


def test_a_worker_that_is_cut_off_half_way_costs_nothing(laboratory: Laboratory) -> None:
    running = submit(laboratory, "one cut off")
    half_way(laboratory, "one cut off", running)
    laboratory.cut_off("worker-1")
    assert running.wait(PATIENCE) == 0, said(laboratory, "one cut off")
    laboratory.plug_in("worker-1")
    check_whole(laboratory, "one cut off")


def test_a_head_that_loses_power_half_way_goes_on_with_the_same_commands(laboratory: Laboratory) -> None:
    running = submit(laboratory, "a new head")
    half_way(laboratory, "a new head", running)
    laboratory.hosts["head"].cut_power()
    assert running.wait(PATIENCE) == 1
    before = record_of(laboratory, "a new head")
    assert before is not None
    laboratory.bring_back("head")
    up(laboratory)
    again = submit(laboratory, "a new head")
    assert again.wait(PATIENCE) == 0, said(laboratory, "a new head")
    check_whole(laboratory, "a new head")
    after = record_of(laboratory, "a new head")
    assert after is not None
    assert {t.number: t for t in before.trials if t.ended}.items() <= {
        t.number: t for t in after.trials
    }.items()


def test_a_job_ships_its_folder_and_takes_any_argument(laboratory: Laboratory) -> None:
    clone, laptop = laboratory.hosts["laptop"].home / "unfreeze", laboratory.hosts["laptop"]
    (clone / "cluster" / "a job.yaml").write_text(
        "trials: 2\nepochs: 1\nbaseline_trials: 0\nconfirm_seeds: 1\n"
    )
    script = """
    cd ~/unfreeze/cluster
    ray dashboard cluster.yaml >/tmp/dashboard.txt 2>&1 </dev/null &
    forwarding=$!
    trap 'kill $forwarding' EXIT
    for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/8265) 2>/dev/null && break; sleep 0.5; done
    export RAY_AUTH_MODE=token
    ray job submit --address http://localhost:8265 --working-dir . -- \
        python search.py 'a job.yaml' --name 'a job; $HOME' --no-register
    """
    laptop.run("bash", "-c", script, timeout=PATIENCE)
    status = laboratory.hosts["head"].run("unfreeze", "status", "a job; $HOME", "--json")
    assert json.loads(status)["search"] == "a job; $HOME"
    record = record_of(laboratory, "a job; $HOME")
    assert record is not None
    assert [trial.state for trial in record.trials] == ["complete"] * 2


def test_down_leaves_no_process_of_ray(laboratory: Laboratory) -> None:
    laboratory.hosts["laptop"].run("bash", "-c", "cd ~/unfreeze/cluster && ray down -y cluster.yaml")
    for host in laboratory.hosts.values():
        until(lambda host=host: not ray_processes(host), f"Ray ends on {host.name}: {ray_processes(host)}")


def test_a_search_without_a_cluster_says_so_and_starts_none(laboratory: Laboratory) -> None:
    head, script = laboratory.hosts["head"], f"{HOME}/.unfreeze/repository/cluster/search.py"
    running = head.start("python", script, "--name", "nowhere", log=laboratory.folder / "nowhere.txt")
    assert running.wait(PATIENCE) == 1
    assert "address: expected a running Ray cluster, received 'auto'" in said(laboratory, "nowhere")
    assert ray_processes(head) == []
    assert record_of(laboratory, "nowhere") is None


def test_the_laboratory_leaves_nothing_behind(laboratory: Laboratory) -> None:
    ours = [host.pid for host in laboratory.hosts.values()]
    laboratory.close()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ours) and time.monotonic() < end:
        time.sleep(0.1)  # the kernel ends what ran on a host, one after another
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]
    assert not [
        line for line in Path("/proc/mounts").read_text().splitlines() if str(laboratory.folder) in line
    ]

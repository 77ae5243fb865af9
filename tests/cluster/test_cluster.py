"""Test the files of ``cluster/`` on four hosts, from ``ray up`` to ``ray down``, with searches and faults in between.

The tests share one cluster and depend on this order.
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
from virtual_network import HOME, SHARED, Host, VirtualNetwork

from search.ledger.reader import read_record
from search.records.record import SearchRecord
from trainables.errors import LedgerError
from trainables.methods.methods import PROBE

PATIENCE = float(os.environ.get("UNFREEZE_CLUSTER_TEST_SECONDS", "300"))
"""Time limit of each step in seconds. On an idle machine a step takes a tenth of it."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3 * PATIENCE)]

TRIALS, EPOCHS = 16, 6
HALF_WAY = 3
"""Number of ended trials at which a test disturbs the cluster."""

WORKERS = ("worker-1", "worker-2")
SPACE = """
learning_rate: {low: 1e-4, high: 1e-2, log: true}
unfreeze_depth: 1
head_units: 0
augmentation_strength: 0
"""
"""All trials have the same shape, so each machine compiles only once."""

TRIALS_ONLY = "--probe off --finalists 1 --no-refit"
ALL_STAGES = "--probe on --finalists 2 --refit"

# This script runs on the head, because the servers of the head only accept local connections.
_ASK = """
import json, pathlib, sys, urllib.request
url, body = sys.argv[1], sys.argv[2].encode() or None
token = pathlib.Path("~/.ray/auth_token").expanduser().read_text().strip()
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
print(urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60).read().decode())
"""
_RAY, _MLFLOW = "http://127.0.0.1:8265/api/v0", "http://127.0.0.1:5000/api/2.0/mlflow"


def until(holds: Callable[[], bool], words: str, pause: float = 1) -> None:
    """Wait until ``holds`` returns true. Raises AssertionError with ``words`` after :data:`PATIENCE` seconds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {words}"
        time.sleep(pause)


def up(network: VirtualNetwork) -> None:
    """Run ``ray up`` on the laptop and wait until all nodes have joined."""
    laptop = network.hosts["laptop"]
    laptop.run("bash", "-c", "cd ~/unfreeze/cluster && ray up -y cluster.yaml", timeout=PATIENCE)
    all_nodes_are_there(network)


def all_nodes_are_there(network: VirtualNetwork) -> None:
    def joined() -> bool:
        nodes = ask(network.hosts["head"], f"{_RAY}/nodes")["data"]["result"]["result"]
        return sum(node["state"] == "ALIVE" for node in nodes) == 1 + len(WORKERS)

    until(joined, "a head and two workers")


def submit(network: VirtualNetwork, name: str, stages: str = TRIALS_ONLY) -> subprocess.Popen[str]:
    """Run ``ray submit cluster.yaml search.py -- …``, with spaces in the search's name and in a file name."""
    (network.shared / "the space.yaml").write_text(SPACE)
    line = f"""ray submit cluster.yaml search.py -- --name '"{name}"' --space '"{SHARED}/the space.yaml"' """
    line += (
        f"--trials {TRIALS} --epochs {EPOCHS} --scheduler none --baseline-trials 0 --confirm-seeds 1 {stages}"
    )
    log = network.folder / f"{name}.txt"
    return network.hosts["laptop"].start("bash", "-c", f"cd ~/unfreeze/cluster && {line}", log=log)


def record_of(network: VirtualNetwork, name: str) -> SearchRecord | None:
    """The search's record from its ledger, or None if it has not begun."""
    try:
        return read_record(name, str(network.shared / "runs"))
    except LedgerError:
        return None


def half_way(network: VirtualNetwork, name: str, running: subprocess.Popen[str]) -> None:
    """Wait until some trials have ended and others run."""

    def ended() -> int:
        assert running.poll() is None, said(network, name)
        record = record_of(network, name)
        return sum(trial.ended is not None for trial in record.trials) if record else 0

    until(lambda: ended() >= HALF_WAY, f"{HALF_WAY} trials of {name!r}", pause=0.1)
    assert ended() < TRIALS, f"{name!r} ended before it could be disturbed"


def said(network: VirtualNetwork, name: str) -> str:
    return (network.folder / f"{name}.txt").read_text(errors="replace")[-5000:]


def ask(head: Host, url: str, body: object = None) -> dict[str, Any]:
    """Send a request to a server on the head and return its answer."""
    return dict(json.loads(head.run("python", "-c", _ASK, url, "" if body is None else json.dumps(body))))


def check_whole(network: VirtualNetwork, name: str) -> None:
    """Check that ledger and MLflow hold every trial once, with all epochs, and that the winner is registered."""
    record = record_of(network, name)
    assert record is not None
    assert [trial.number for trial in record.trials] == list(range(TRIALS))
    assert [(t.number, t.state, t.error) for t in record.trials if t.state != "complete"] == []
    for trial in record.trials:
        last = 1 if trial.method == PROBE else EPOCHS
        assert [e.epoch for e in trial.epochs] == list(range(1, last + 1))
    head = network.hosts["head"]
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
    """Number of processes that ran trials on the host since it was started."""
    logs = (host.folder / "tmp" / "ray").glob("session_2*/logs/worker-*.out")
    return sum(":actor_name:TrialActor" in log.read_text() for log in logs)


def ray_processes(host: Host) -> list[str]:
    return [
        line for line in host.run("ps", "-eo", "args").splitlines() if "raylet" in line or "ray::" in line
    ]


def test_ray_up_installs_unfreeze_on_every_node_and_starts_all_workers(network: VirtualNetwork) -> None:
    up(network)
    for name in ("head", *WORKERS):
        host = network.hosts[name]
        where = host.run("python", "-c", "import search; print(search.__file__)").strip()
        assert where.startswith(f"{HOME}/.unfreeze/venv/")
        assert (host.home / ".ray" / "auth_token").stat().st_mode & 0o77 == 0


def test_a_search_runs_on_both_workers(network: VirtualNetwork) -> None:
    running = submit(network, "both of them", ALL_STAGES)
    assert running.wait(PATIENCE) == 0, said(network, "both of them")
    check_whole(network, "both of them")
    assert [trained_on(network.hosts[name]) for name in WORKERS] == [2, 2]
    assert trained_on(network.hosts["head"]) == 0


def test_a_power_failure_of_a_worker_costs_nothing(network: VirtualNetwork) -> None:
    running = submit(network, "one without power")
    half_way(network, "one without power", running)
    network.hosts["worker-2"].cut_power()
    network.bring_back("worker-2")
    assert running.wait(PATIENCE) == 0, said(network, "one without power")
    check_whole(network, "one without power")
    all_nodes_are_there(network)


def test_a_disconnected_worker_costs_nothing(network: VirtualNetwork) -> None:
    running = submit(network, "one cut off")
    half_way(network, "one cut off", running)
    network.cut_off("worker-1")
    assert running.wait(PATIENCE) == 0, said(network, "one cut off")
    network.plug_in("worker-1")
    check_whole(network, "one cut off")


def test_after_a_power_failure_of_the_head_the_same_commands_resume(network: VirtualNetwork) -> None:
    running = submit(network, "a new head")
    half_way(network, "a new head", running)
    network.hosts["head"].cut_power()
    assert running.wait(PATIENCE) == 1
    before = record_of(network, "a new head")
    assert before is not None
    network.bring_back("head")
    up(network)
    again = submit(network, "a new head")
    assert again.wait(PATIENCE) == 0, said(network, "a new head")
    check_whole(network, "a new head")
    after = record_of(network, "a new head")
    assert after is not None
    assert {t.number: t for t in before.trials if t.ended}.items() <= {
        t.number: t for t in after.trials
    }.items()


def test_a_job_uploads_its_folder_and_accepts_any_argument(network: VirtualNetwork) -> None:
    clone, laptop = network.hosts["laptop"].home / "unfreeze", network.hosts["laptop"]
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
    status = network.hosts["head"].run("unfreeze", "status", "a job; $HOME", "--json")
    assert json.loads(status)["search"] == "a job; $HOME"
    record = record_of(network, "a job; $HOME")
    assert record is not None
    assert [trial.state for trial in record.trials] == ["complete"] * 2


def test_ray_down_leaves_no_ray_process(network: VirtualNetwork) -> None:
    network.hosts["laptop"].run("bash", "-c", "cd ~/unfreeze/cluster && ray down -y cluster.yaml")
    for host in network.hosts.values():
        until(lambda host=host: not ray_processes(host), f"Ray ends on {host.name}: {ray_processes(host)}")


def test_a_search_without_a_cluster_is_an_error_and_starts_none(network: VirtualNetwork) -> None:
    head, script = network.hosts["head"], f"{HOME}/.unfreeze/repository/cluster/search.py"
    running = head.start("python", script, "--name", "nowhere", log=network.folder / "nowhere.txt")
    assert running.wait(PATIENCE) == 1
    assert "address: expected a running Ray cluster, received 'auto'" in said(network, "nowhere")
    assert ray_processes(head) == []
    assert record_of(network, "nowhere") is None


def test_a_closed_network_leaves_nothing_behind(network: VirtualNetwork) -> None:
    ours = [host.pid for host in network.hosts.values()]
    network.close()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in ours) and time.monotonic() < end:
        time.sleep(0.1)  # the kernel ends the processes of a host one after another
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if str(network.folder) in line]

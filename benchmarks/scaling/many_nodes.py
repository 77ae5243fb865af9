"""Measure how busy a search keeps many nodes, and what this costs its driver, with trials that only wait.

    python -m benchmarks.scaling.many_nodes --nodes 4 8 16 32 --epoch-seconds 1

Each node is a raylet with one CPU on this machine. The head runs no trials. Each epoch of a trial sleeps, so nodes need
memory (about 0.3 GB each) and almost no processor time, and everything except the training is measured.

    bare    Ray Tune alone: a class trainable, reused actors, its own random search, no loggers
    search  the same trainable under the whole driver: ledger, TPE, Ray Tune and MLflow, both stores in SQLite files

``busy`` is the share of the nodes' time that was spent in epochs, from the end of the first trial to the end of the
last one, and results per second follow from it. Processor times are in ms per result (an epoch of a trial): of the
driver's main thread, of the thread that delivers to MLflow, of the whole driver process, and of Ray's head (its GCS).
``start`` is ms per new trial, for sampler and ledger. ``rest`` is the time in seconds to deliver the remaining data to
MLflow after the last trial has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import ray
from ray import tune
from ray.cluster_utils import Cluster

from benchmarks.scaling.driver_overhead import Clocks, Ends, epoch_result, phase_of
from search.config.search_config import SearchConfig
from search.execution.engines.messages import SessionSpec
from search.execution.engines.session import RAY_ENVIRONMENT, Session
from search.tracking.delivery import Delivery
from search.tracking.experiments import experiment_name
from search.tracking.stores import default_tracking_uri

EPOCHS = 5
CASES = ("bare", "search")
ATTEMPTS = 5
"""How often to start a node. Ray allows it 30 s, which is too little on a busy machine."""


@dataclass(frozen=True)
class Fixed:
    """An engine pool without engines, with a fixed number of nodes."""

    capacity: int
    engines: tuple[Any, ...] = ()


class Waiting(tune.Trainable):
    """A trial whose epochs sleep for the seconds in an environment variable."""

    def setup(self, config: dict[str, Any]) -> None:
        self._epoch, self._seconds = 0, float(os.environ["EPOCH_SECONDS"])

    def step(self) -> dict[str, Any]:
        time.sleep(self._seconds)
        self._epoch += 1
        return epoch_result(self._epoch).to_tune()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epoch = 0
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "epoch").write_text(str(self._epoch))


def bare(trials: int, nodes: int, folder: Path) -> dict[str, Any]:
    """Run the trials under Ray Tune alone."""
    ends, clocks = Ends(), Clocks()
    tune.Tuner(
        tune.with_resources(Waiting, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(1e-5, 1e-1), "unfreeze_depth": tune.randint(0, 5)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=nodes, reuse_actors=True),
        run_config=tune.RunConfig(name="run", storage_path=str(folder), callbacks=[ends], verbose=0),
    ).fit()
    return {"moments": ends.moments, "clocks": clocks.read(), "rest": 0.0}


def search(trials: int, nodes: int, folder: Path) -> dict[str, Any]:
    """Run the trials under the whole driver."""
    config = SearchConfig(trials=trials, epochs=EPOCHS, scheduler="none", storage=str(folder), address="auto")
    session = Session(SessionSpec("many"), Fixed(nodes))  # type: ignore[arg-type]
    phase: Any = phase_of(config, session, folder)
    phase.trainable = Waiting
    uri = default_tracking_uri(folder)

    def mirror() -> Any:
        from search.tracking.mirror import Mirror

        return Mirror(uri, experiment=experiment_name("digits"), storage=folder)

    delivery = Delivery(mirror, print)
    phase.told = delivery.publish
    phase.news(now=True)
    delivery.call(lambda _: None)  # import MLflow and create its database before the clock starts
    clocks = Clocks()
    clocks.watch(phase.ledger, "start")
    phase.run()
    read, ended = clocks.read(), time.time()
    delivery.finish(phase.record(), "FINISHED", timeout=600)
    moments = sorted(t.ended.timestamp() for t in phase.ledger.trials if t.ended)
    return {"moments": moments, "clocks": read, "rest": time.time() - ended}


def start_nodes(nodes: int, folder: Path) -> Cluster:
    """Start a head that runs no trials and ``nodes`` with one CPU each. Ray's files go to ``folder``."""
    options = {"num_cpus": 0, "include_dashboard": False, "temp_dir": str(folder / "ray")}
    cluster = Cluster(initialize_head=True, head_node_args=options)
    for _ in range(nodes):
        for attempt in range(ATTEMPTS):
            try:
                cluster.add_node(num_cpus=1)
                break
            except Exception as error:
                if attempt == ATTEMPTS - 1 or "timed out during startup" not in str(error):
                    raise
    return cluster


def seconds_of_head() -> float:
    """Processor seconds of Ray's head since its start."""
    heads = [p for p in psutil.Process().children(recursive=True) if p.name() == "gcs_server"]
    return sum(sum(p.cpu_times()[:2]) for p in heads)


def run_here(case: str, nodes: int, trials: int) -> None:
    """Run one measurement and print it as JSON."""
    os.environ.update(RAY_ENVIRONMENT)
    with tempfile.TemporaryDirectory(prefix="many-") as place:
        cluster = start_nodes(nodes, Path(place))
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        head = seconds_of_head()
        result = {"bare": bare, "search": search}[case](trials, nodes, Path(place))
        result["clocks"]["head"] = seconds_of_head() - head
        ray.shutdown()
        cluster.shutdown()
    print("RESULT" + json.dumps(result))


def measure(case: str, nodes: int, trials: int) -> dict[str, Any]:
    """Run one measurement in a separate process."""
    command = [sys.executable, "-m", "benchmarks.scaling.many_nodes", "--only", case, str(nodes), str(trials)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.rpartition("RESULT")[2])
    return found


def line(case: str, nodes: int, trials: int, seconds: float, result: dict[str, Any]) -> str:
    """Format a row of the table."""
    ends, clocks = sorted(result["moments"]), result["clocks"]
    steady = ends[nodes - 1 :]  # the first trials waited for their processes
    rate = EPOCHS * (len(steady) - 1) / (steady[-1] - steady[0])
    ms = {name: 1000 * clocks[name] / (EPOCHS * trials) for name in ("driver", "mlflow", "process", "head")}
    start = f"{1000 * clocks['start'] / trials:>7.1f}" if "start" in clocks else f"{'':>7}"
    return (
        f"{case:<7} {nodes:>5} {trials:>6} {rate:>10.1f} {rate * seconds / nodes:>6.0%}  "
        + " ".join(f"{ms[name]:>8.2f}" for name in ("driver", "mlflow", "process", "head"))
        + f" {start} {result['rest']:>6.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--epoch-seconds", type=float, default=1.0)
    parser.add_argument("--trials-per-node", type=int, default=6)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        run_here(options.only[0], int(options.only[1]), int(options.only[2]))
        return
    os.environ["EPOCH_SECONDS"] = str(options.epoch_seconds)
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores; an epoch is {options.epoch_seconds:g} s, "
        f"a trial {EPOCHS} epochs"
    )
    print("case    nodes trials  results/s   busy    driver   mlflow  process     head   start   rest")
    for nodes in options.nodes:
        for case in options.cases:
            trials = nodes * options.trials_per_node
            result = measure(case, nodes, trials)
            row = line(case, nodes, trials, options.epoch_seconds, result)
            print(f"{row}  load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()

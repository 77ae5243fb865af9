"""Measure what a trial costs the driver, and whether this grows with the number of trials, which do nothing.

    python -m benchmarks.scaling.driver_overhead --trials 100 300 1000

Each trial reports five epochs at once; two trials run at a time. Every run has its own process.

    bare       Ray Tune alone: a class trainable, reused actors, its own random search, no loggers
    random     the same trainable under the whole driver: ledger, Ray Tune and MLflow, both stores in SQLite files
    tpe        the same with the default sampler
    untracked  ``random`` without MLflow
    engine     ``random`` with real trial actors and an engine that computes nothing

The cost of a trial is the time between the ends of two trials; first and last mean the first and the last tenth of the
trials. ``rest`` is the time to deliver the remaining data to MLflow after the last trial has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.config.search_config import SearchConfig
from search.execution.checkpoint_retention import CheckpointRetention
from search.execution.engines.engine_actor import NAMESPACE
from search.execution.engines.messages import EngineIdentity, EpochResult, SessionSpec, TrialRequest
from search.execution.engines.session import RAY_ENVIRONMENT, Session
from search.execution.stop_request import StopRequest
from search.ledger.backup import LedgerBackup
from search.ledger.ledger import Ledger, sqlite_url
from search.records.epoch_plan import EpochPlan
from search.records.record import BackboneSummary, TaskSummary
from search.study.phase import Phase
from search.study.preparation import Prepared
from search.tracking.delivery import Delivery
from search.tracking.experiments import experiment_name
from search.tracking.stores import default_tracking_uri
from trainables.epoch_metrics import EpochMetrics
from trainables.modalities.image.datasets import prepare

EPOCHS, AT_ONCE = 5, 2
CASES = ("bare", "random", "tpe", "untracked", "engine")
PROCESSORS = ("process", "driver", "mlflow")


def epoch_result(epoch: int) -> EpochResult:
    """The report of an epoch that trained nothing."""
    value = 1 / (1 + epoch)
    return EpochResult(epoch, epoch >= EPOCHS, EpochMetrics(epoch, value, value, value, value))


class NoTraining(tune.Trainable):
    """A trial with five reports and no training."""

    def setup(self, config: dict[str, Any]) -> None:
        self._epoch = 0

    def step(self) -> dict[str, Any]:
        self._epoch += 1
        return epoch_result(self._epoch).to_tune()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._epoch = 0
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write nothing. Ray Tune asks for a checkpoint at the end of a trial by default."""
        (Path(checkpoint_dir) / "epoch").write_text(str(self._epoch))


class NoEngines:
    """An engine pool without engines."""

    capacity = AT_ONCE
    engines = ()


class NoEngine:
    """A fake engine that only counts the epochs of each trial."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}

    def ready(self) -> EngineIdentity:
        """As :meth:`search.execution.engines.engine.Engine.ready`."""
        return EngineIdentity("instance", os.getpid())

    def begin(self, request: TrialRequest) -> int:
        self._epochs[request.key] = 0
        return 0

    def epoch(self, key: str) -> EpochResult:
        self._epochs[key] += 1
        return replace(epoch_result(self._epochs[key]), stages={"suffix": 0.001, "evaluate": 0.001})

    def end(self, key: str) -> None:
        self._epochs.pop(key, None)


class Ends(tune.Callback):
    """Records when each trial of the bare case ended."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.moments.append(time.time())


class Clocks:
    """Wall-clock seconds since creation, and processor seconds by consumer."""

    def __init__(self) -> None:
        self._calls: dict[str, float] = {}
        self._before = self._now()

    def watch(self, owner: Any, method: str) -> None:
        """Count the time that ``owner.method`` and everything it calls take in the driver's main thread."""
        call: Callable[..., Any] = getattr(owner, method)

        def counted(*args: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*args, **options)
            finally:
                self._calls[method] = self._calls.get(method, 0.0) + time.thread_time() - began

        setattr(owner, method, counted)

    def read(self) -> dict[str, float]:
        """The seconds by name."""
        now = self._now()
        return {name: now[name] - self._before[name] for name in now} | self._calls

    def _now(self) -> dict[str, float]:
        return {
            "wall": time.time(),
            "process": time.process_time(),
            "driver": time.thread_time(),
            "mlflow": thread_seconds("unfreeze-tracking"),
        }


def bare(trials: int, folder: Path) -> dict[str, Any]:
    ends, clocks = Ends(), Clocks()
    tune.Tuner(
        tune.with_resources(NoTraining, {"cpu": 1}),
        param_space={"learning_rate": tune.loguniform(1e-5, 1e-1), "unfreeze_depth": tune.randint(0, 5)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=AT_ONCE, reuse_actors=True),
        run_config=tune.RunConfig(name="run", storage_path=str(folder), callbacks=[ends], verbose=0),
    ).fit()
    return {"moments": ends.moments, "clocks": clocks.read(), "rest": 0.0}


def driver(case: str, trials: int, folder: Path) -> dict[str, Any]:
    """Run the trials under the whole driver."""
    session = Session(SessionSpec("growth"), NoEngines())  # type: ignore[arg-type]
    node = ray.get_runtime_context().get_node_id()
    name = f"{session.spec.name}/engine/{node}"
    engine = (
        ray.remote(NoEngine).options(name=name, namespace=NAMESPACE, num_cpus=0, max_concurrency=8).remote()
    )
    ray.get(engine.__ray_ready__.remote())
    sampler, tracked = "tpe" if case == "tpe" else "random", case != "untracked"
    config = SearchConfig(
        trials=trials, epochs=EPOCHS, sampler=sampler, scheduler="none", storage=str(folder)
    )
    phase = phase_of(config, session, folder)
    if case != "engine":
        phase.trainable = NoTraining
    uri = default_tracking_uri(folder)

    def mirror() -> Any:
        from search.tracking.mirror import Mirror

        return Mirror(uri, experiment=experiment_name("digits"), storage=folder)

    delivery = Delivery(mirror, print)
    if tracked:
        phase.notify = delivery.publish
    phase.publish(now=True)
    delivery.call(lambda _: None)  # import MLflow and create its database before the clock starts
    clocks = Clocks()
    for method in ("start", "report", "finish"):
        clocks.watch(phase.ledger, method)
    clocks.watch(phase, "publish")
    phase.run()
    read, ended = clocks.read(), time.time()
    if tracked:
        delivery.finish(phase.record(), "FINISHED", timeout=600)
    moments = sorted(t.ended.timestamp() for t in phase.ledger.trials if t.ended)
    return {"moments": moments, "clocks": read, "rest": time.time() - ended}


def phase_of(config: SearchConfig, session: Session, folder: Path) -> Phase:
    task = prepare("digits", image_size=(8, 8), directory=folder / "data")
    blocks = ("stem", "one", "two", "three")
    backbone = BackboneSummary("none", "none", "0" * 16, (8, 8), 0, blocks)
    counts = dict(task.counts)
    summary = TaskSummary("digits", task.digest, tuple(task.classes), counts, task.image_size, task.source)
    return Phase(
        config=config,
        name="growth",
        ledger=Ledger(
            sqlite_url(folder / "ledger.db"),
            "growth",
            direction=config.direction,
            metric=config.metric,
            method=config.method,
            sampler=config.sampler,
            seed=config.seed,
        ),
        prepared=Prepared(task, summary, backbone, folder / "backbone.keras"),
        session=session,
        stop_request=StopRequest(),
        checkpoints=folder / "checkpoints",
        logs=folder / "logs",
        storage=folder,
        tracking_uri=default_tracking_uri(folder),
        notify=lambda record: None,
        limit=config.trials,
        retention=CheckpointRetention(10**9, print),
        backup=LedgerBackup(folder / "ledger.db", print),
        epoch_plan=EpochPlan(EPOCHS),
    )


def thread_seconds(name: str) -> float:
    """Processor seconds of a thread of this process since its start."""
    known = {t.name: t.native_id for t in threading.enumerate()}
    if name not in known:
        return 0.0
    fields = Path(f"/proc/self/task/{known[name]}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_here(case: str, trials: int) -> None:
    """Run one measurement and print it as JSON."""
    os.environ.update(RAY_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ray.init(include_dashboard=False, num_cpus=AT_ONCE, log_to_driver=False, logging_level="ERROR")
        result = bare(trials, folder) if case == "bare" else driver(case, trials, folder)
        ray.shutdown()
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT" + json.dumps(result))


def measure(case: str, trials: int) -> dict[str, Any]:
    """Run one measurement in a separate process."""
    command = [sys.executable, "-m", "benchmarks.scaling.driver_overhead", "--only", case, str(trials)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.rpartition("RESULT")[2])
    return found


def line(case: str, trials: int, result: dict[str, Any]) -> str:
    ends = result["moments"][AT_ONCE:]  # the first trials waited for their processes
    tenth = max(1, len(ends) // 10)
    ms = [1000 * (b - a) / n for a, b, n in (
        (ends[0], ends[tenth], tenth), (ends[-1 - tenth], ends[-1], tenth), (ends[0], ends[-1], len(ends) - 1)
    )]  # fmt: skip
    clocks = {name: 1000 * seconds / trials for name, seconds in result["clocks"].items()}
    clocks.pop("wall")
    return (
        f"{case:<9} {trials:>6} {ms[2]:>7.1f} {ms[0]:>7.1f} {ms[1]:>7.1f} {ms[1] / ms[0]:>6.2f} "
        f"{result['clocks']['wall']:>7.1f} {result['rest']:>7.1f} {result['memory']:>6.0f}  "
        + "".join(f" {clocks.pop(name):>9.1f}" for name in PROCESSORS)
        + "  "
        + "  ".join(f"{name} {spent:.2f}" for name, spent in clocks.items())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        run_here(options.only[0], int(options.only[1]))
        return
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(
        "ms a trial (mean, first and last tenth), seconds (all trials, then the rest of MLflow), MB; then ms of"
    )
    print("processor a trial: process, its driver's thread, its MLflow thread, some calls")
    heads = "".join(f" {name:>9}" for name in PROCESSORS)
    print(f"case      trials    mean   first    last  ratio    loop    rest     MB  {heads}")
    for trials in options.trials:
        for case in options.cases:
            result = measure(case, trials)
            print(line(case, trials, result), f" load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()

"""Test which GPUs and how many threads the engines of a real cluster have, as nodes join and leave."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray

from search.config.search_config import SearchConfig
from search.execution.engines.dispatch import dispatch
from search.execution.engines.engine_actor import connect_engine
from search.execution.engines.messages import SessionSpec
from search.execution.engines.session import Session, connect
from trainables.errors import ClusterError

# The module travels to Ray's workers, which do not have tests/services on their import path: nothing from there may be
# imported when this module is.
if TYPE_CHECKING:
    from local_cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalCluster]:
    """A node without GPUs, and one that claims to have two."""
    from local_cluster import local_cluster

    with local_cluster() as made:
        made.add(cpus=2)
        made.add(cpus=3, gpus=2)
        yield made


def facts(engine: Any) -> dict[str, Any]:
    """What the process of an engine sees."""
    import tensorflow as tf

    return {
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "server": {k: v for k, v in os.environ.items() if "TRACKING" in k},
    }


def asked(session: Session) -> list[dict[str, Any]]:
    return list(ray.get([engine.__ray_call__.remote(facts) for engine in session.engines]))


class Trial:
    """An actor that finds its engine as a trial does."""

    def engine(self, session: SessionSpec) -> dict[str, Any]:
        engine = connect_engine(session)
        engine.wait_until_ready()
        found: dict[str, Any] = engine.call("__ray_call__", facts)
        return found


def test_trials_that_request_no_gpu_see_none_and_each_node_has_its_own_number_of_threads(
    nodes: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://only.the.driver.knows:5000")
    cpu, gpu = (worker.node_id for worker in nodes.workers[:2])
    with connect(SearchConfig(address=nodes.address, max_concurrent=1)) as session:
        assert session.capacity == 5
        found = {facts["node"]: facts for facts in asked(session)}
        assert {node: f["threads"] for node, f in found.items()} == {cpu: 2, gpu: 3}
        assert {f["gpus"] for f in found.values()} == {"-1"}
        assert all(f["server"] == {} for f in found.values())
        assert "driver" not in str(session.spec)
        with session.engine_pool.on_driver_node() as engine:  # the head itself runs no trials
            assert ray.get(engine.__ray_call__.remote(facts))["node"] == nodes.cluster.head_node.node_id
        joined = nodes.add(cpus=4)
        session.engine_pool.refresh()
        assert session.capacity == 9
        assert joined.node_id in {f["node"] for f in asked(session)}
        nodes.cluster.remove_node(joined)
        while session.capacity == 9:
            session.engine_pool.refresh()
        assert len(asked(session)) == 2


def test_trials_that_share_a_gpu_share_the_engine_that_owns_it(nodes: LocalCluster) -> None:
    gpu = nodes.workers[1].node_id
    with connect(SearchConfig(address=nodes.address, gpus_per_trial=0.5)) as session:
        assert session.capacity == 3  # as many as the node's CPUs allow
        engines = asked(session)
        assert {f["node"] for f in engines} == {gpu}
        assert sorted(f["gpus"] for f in engines) == ["0", "1"]
        actors = [ray.remote(Trial).options(num_cpus=0, num_gpus=0.5).remote() for _ in range(4)]
        found = ray.get([actor.engine.remote(session.spec) for actor in actors])
        assert sorted(f["gpus"] for f in found) == ["0", "0", "1", "1"]
        assert {(f["gpus"], f["pid"]) for f in found} == {(f["gpus"], f["pid"]) for f in engines}


def test_a_request_that_no_node_can_fulfil_is_refused(nodes: LocalCluster) -> None:
    words = r"expected a node with 1 CPUs and 4 GPUs free .* received nodes with .*3 CPUs and 2 GPUs"
    with (
        pytest.raises(ClusterError, match=words),
        connect(SearchConfig(address=nodes.address, gpus_per_trial=4)),
    ):
        pass


@dataclass(frozen=True)
class Facts:
    """A job that returns what the engine's process sees."""

    def run(self, workbenches: Any) -> Any:
        return facts(None)


@dataclass(frozen=True)
class WaitFor:
    """A job that writes down on which node it runs, then waits for a file."""

    folder: Path

    def run(self, workbenches: Any) -> Any:
        node = str(ray.get_runtime_context().get_node_id())
        (self.folder / node).touch()
        while not (self.folder / "go").exists():
            time.sleep(0.05)
        return node


def test_a_job_whose_node_dies_is_repeated_on_another_node(nodes: LocalCluster, tmp_path: Path) -> None:
    known = {worker.node_id: worker for worker in nodes.workers[:2]}
    with connect(SearchConfig(address=nodes.address)) as session:
        jobs = {"a": WaitFor(tmp_path), "b": Facts()}
        killed = None

        def kill_the_first() -> bool:
            nonlocal killed
            if killed is None and (found := [name for name in known if (tmp_path / name).exists()]):
                killed = found[0]
                nodes.kill(known[killed])
                (tmp_path / "go").touch()
            return False

        answers = dict(dispatch(session, jobs, kill_the_first))
        assert killed is not None
        assert answers["a"] in set(known) - {killed}
        assert answers["b"]["gpus"] == "-1"

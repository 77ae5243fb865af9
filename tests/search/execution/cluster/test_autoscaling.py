"""Test how many trials fit on the present nodes and on those that an autoscaler may add."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.config.search_config import SearchConfig
from search.execution.cluster.autoscaling import AutoscalingLimits, find_autoscaling_limits
from search.execution.cluster.nodes import Node

CLOUD = """\
cluster_name: c
max_workers: 6
head_node_type: head
provider: {type: aws, region: r}
available_node_types:
  head: {resources: {CPU: 4}, node_config: {}}
  small: {resources: {CPU: 4}, max_workers: 10, node_config: {}}
  gpu: {resources: {CPU: 8, GPU: 2}, max_workers: 2, node_config: {}}
"""
LOCAL = """\
max_workers: 2
head_node_type: local.cluster.node
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}
available_node_types:
  local.cluster.node: {resources: {}, min_workers: 2, max_workers: 2, node_config: {}}
"""


def limits_of(tmp_path: Path, content: str, living: int = 1) -> AutoscalingLimits | None:
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(content)
    return find_autoscaling_limits(lambda: False, living, file)


def test_the_capacity_is_that_of_the_largest_possible_cluster(tmp_path: Path) -> None:
    found = limits_of(tmp_path, CLOUD)
    assert found is not None
    assert found.trial_capacity(SearchConfig(), now=4) == 2 * 8 + 4 * 4
    assert found.trial_capacity(SearchConfig(gpus_per_trial=0.5), now=0) == 2 * 4
    assert found.trial_capacity(SearchConfig(), now=100) == 100
    assert found.can_fit(SearchConfig(gpus_per_trial=2))
    assert not found.can_fit(SearchConfig(gpus_per_trial=4))
    assert (
        found.description
        == "up to 6 of 'small' with 4 CPUs and 0 GPUs; up to 2 of 'gpu' with 8 CPUs and 2 GPUs"
    )


def test_a_list_of_machines_grows_until_all_have_joined(tmp_path: Path) -> None:
    found = limits_of(tmp_path, LOCAL, living=2)
    assert found is not None
    assert found.can_fit(SearchConfig(gpus_per_trial=1))  # their size is unknown
    assert found.trial_capacity(SearchConfig(), now=1) == 2
    assert limits_of(tmp_path, LOCAL, living=3) is None


@pytest.mark.parametrize(
    "content", ["", "[1, 2]", "max_workers: many", "a: b: c", "max_workers: 3\navailable_node_types: {}"]
)
def test_an_invalid_cluster_file_sets_no_limit(tmp_path: Path, content: str) -> None:
    assert limits_of(tmp_path, content) is None
    assert find_autoscaling_limits(lambda: False, 1, tmp_path / "absent") is None
    assert find_autoscaling_limits(lambda: True, 1, tmp_path / "absent") == AutoscalingLimits()


def test_without_a_stated_limit_the_cluster_grows_step_by_step() -> None:
    assert AutoscalingLimits().can_fit(SearchConfig(gpus_per_trial=8))
    assert [AutoscalingLimits().trial_capacity(SearchConfig(), now) for now in (0, 2, 16)] == [4, 4, 32]


def test_trial_capacity_engines_and_threads_of_a_node() -> None:
    node = Node("id", "host", 1, cpus=16, gpus=4)

    def facts(demand: SearchConfig) -> tuple[int, int, int]:
        return node.trial_capacity(demand), node.engine_count(demand), node.threads_per_trial(demand)

    assert facts(SearchConfig()) == (16, 1, 1)
    assert facts(SearchConfig(max_concurrent=3)) == (16, 1, 5)
    assert facts(SearchConfig(gpus_per_trial=0.5)) == (8, 4, 2)
    assert facts(SearchConfig(gpus_per_trial=2, cpus_per_trial=4)) == (2, 2, 8)
    assert Node("id", "host", 1, cpus=16, gpus=0).trial_capacity(SearchConfig(gpus_per_trial=0.5)) == 0

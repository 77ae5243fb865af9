"""Tests that fail when a new version of Ray changes the private API that this project uses."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import ray

from search import SearchConfig
from search.execution import tune_patches
from search.execution.cluster import head_check
from search.execution.cluster.ray_internals import (
    TESTED_RAY,
    drop_cluster_errors,
    private_api,
    require_private_api,
    resolve_head,
)
from search.execution.engines.session import connect
from search.execution.tune_patches import oom_kills_as_crashes
from trainables.errors import ClusterError

ROOT = Path(__file__).parents[4]
PRIVATE = re.compile(r"(from|import) ray(\.\w+)*\.(_\w+|core\.generated)")


def test_the_installed_ray_is_a_tested_version() -> None:
    assert ray.__version__.rpartition(".")[0] in TESTED_RAY


def test_the_private_functions_of_ray_have_the_parameters_that_we_pass() -> None:
    from ray._private.services import canonicalize_bootstrap_address
    from ray._private.state import GlobalState, available_resources_per_node, state
    from ray.autoscaler._private.util import prepare_config, validate_config

    assert not inspect.signature(available_resources_per_node).parameters
    assert next(iter(inspect.signature(canonicalize_bootstrap_address).parameters)) == "addr"
    assert tuple(inspect.signature(prepare_config).parameters) == ("config",)
    assert tuple(inspect.signature(validate_config).parameters) == ("config",)
    assert isinstance(state, GlobalState)
    assert tuple(inspect.signature(GlobalState._connect_and_get_accessor).parameters) == ("self",)


def test_the_records_of_dead_workers_have_the_fields_that_we_read() -> None:
    from ray._raylet import GlobalStateAccessor
    from ray.core.generated.common_pb2 import WorkerExitType
    from ray.core.generated.gcs_pb2 import WorkerTableData

    assert callable(GlobalStateAccessor.get_worker_table)
    assert WorkerExitType.NODE_OUT_OF_MEMORY != WorkerExitType.SYSTEM_ERROR
    worker = WorkerTableData()
    assert (worker.pid, worker.is_alive, worker.exit_detail) == (0, False, "")
    assert worker.worker_address.node_id.hex() == ""


def test_the_head_answers_the_request_with_which_we_check_it() -> None:
    from ray.core.generated import gcs_service_pb2

    service, method = head_check._METHOD.removeprefix("/ray.rpc.").split("/")
    assert method in gcs_service_pb2.DESCRIPTOR.services_by_name[service].methods_by_name


def test_the_filter_that_drops_the_cluster_s_errors_drops_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private.ray_logging import LogDeduplicator, stdout_deduplicator

    monkeypatch.setattr(stdout_deduplicator, "skip_re", None)
    drop_cluster_errors()
    assert stdout_deduplicator.skip_re.search("(raylet) A worker died")
    assert "self.skip_re.search(line)" in inspect.getsource(LogDeduplicator.deduplicate)


def test_actor_handles_have_an_id() -> None:
    assert "_ray_actor_id" in inspect.getsource(ray.actor.ActorHandle)
    assert isinstance(inspect.getattr_static(ray.actor.ActorHandle, "_actor_id"), property)


def test_tune_s_patched_methods_have_the_parameters_that_the_patch_passes_on() -> None:
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.tune.experiment import Trial

    before = RayActorManager._actor_task_failed, Trial._get_default_result_or_future
    with oom_kills_as_crashes():
        assert (RayActorManager._actor_task_failed, Trial._get_default_result_or_future) != before
    assert (RayActorManager._actor_task_failed, Trial._get_default_result_or_future) == before
    assert "_default_result_or_future" in inspect.getsource(Trial)
    assert "isinstance(exception, RayActorError)" in inspect.getsource(before[0])


def test_a_changed_signature_is_refused_with_the_tested_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune_patches, "_FAILED", ("self", "another"))
    with (
        pytest.raises(ClusterError, match=rf"{ray.__version__} has changed .*{TESTED_RAY[-1]}.*pip install"),
        oom_kills_as_crashes(),
    ):
        pass


def call_what_is_gone() -> None:
    with private_api("ray._private.gone"):
        from ray import _private

        _private.gone()


def test_a_missing_attribute_is_refused_with_its_name() -> None:
    with pytest.raises(ClusterError, match=r"the private API ray\._private\.gone.*Tested versions"):
        call_what_is_gone()


@pytest.mark.parametrize(
    "gone",
    [
        "ray._private.state.available_resources_per_node",
        "ray._private.services.canonicalize_bootstrap_address",
        "ray._private.ray_logging.stdout_deduplicator",
        "ray.actor.ActorHandle._actor_id",
    ],
)
def test_a_search_checks_the_private_api_before_it_starts(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require_private_api()
    monkeypatch.delattr(gone)
    with pytest.raises(ClusterError, match="Tested versions"), connect(SearchConfig()):
        pass


def test_another_major_version_is_refused_before_a_search_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "3.0.0")
    with pytest.raises(ClusterError, match=r"ray: .*received 3\.0\.0"), connect(SearchConfig()):
        pass


def test_an_address_that_is_none_stays_an_error_of_the_address() -> None:
    with pytest.raises((ValueError, ConnectionError)):
        resolve_head("no address")


def test_private_api_of_ray_is_used_in_two_modules_only() -> None:
    using = {
        str(path.relative_to(ROOT))
        for path in ROOT.glob("search/**/*.py")
        if PRIVATE.search(path.read_text(encoding="utf-8"))
    }
    assert using == {"search/execution/cluster/ray_internals.py", "search/execution/tune_patches.py"}

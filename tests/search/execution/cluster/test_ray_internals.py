"""Tests that fail when a new version of Ray changes the private API that this project uses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import ray

from search import SearchConfig
from search.execution import tune_patches
from search.execution.cluster.ray_internals import (
    CLUSTER_ID_METHOD,
    TESTED_RAY,
    call_in_actor,
    cluster_status,
    drop_cluster_errors,
    private_api,
    require_private_api,
    resolve_head,
)
from search.execution.engines.session import connect
from search.execution.tune_patches import actor_of, error_file, oom_kills_as_crashes, require_trial_state
from trainables.errors import ClusterError

ROOT = Path(__file__).parents[4]
PRIVATE = re.compile(
    r"(from|import) ray(\.\w+)*\.(_\w+|core\.generated|autoscaler)"
    r"|ray\.rpc|\.(temporary_state|error_file|__ray_call__)\b"
)

STATUS_FIELDS: Mapping[str, set[str]] = {
    "ClusterStatus": {"active_nodes", "idle_nodes", "resource_demands"},
    "NodeInfo": {"node_id", "ray_node_type_name"},
    "ResourceDemandSummary": {"ray_task_actor_demand"},
    "RayTaskActorDemand": {"bundles_by_count"},
    "ResourceRequestByCount": {"bundle", "count"},
}
"""What is read from the autoscaler's status of a cluster, by the class of Ray that holds it."""


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

    service, method = CLUSTER_ID_METHOD.removeprefix("/ray.rpc.").split("/")
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


def test_tune_s_trials_have_the_attributes_that_we_read(tmp_path: Path) -> None:
    from ray.tune.experiment import Trial

    trial, actor = Trial("trainable", stub=True), MagicMock()
    trial.storage = MagicMock(trial_driver_staging_path=str(tmp_path))
    assert actor_of(trial) is None
    trial.set_ray_actor(actor)
    assert actor_of(trial) is actor
    assert error_file(trial) is None
    trial.run_metadata.error_filename = "error.txt"
    assert error_file(trial) == tmp_path / "error.txt"


def test_actors_run_a_function_that_is_sent_to_them() -> None:
    class Probe:
        """An actor's class without methods of its own."""

    actor = ray.remote(Probe)
    assert hasattr(actor, "__ray_call__")
    assert tuple(inspect.signature(actor.__ray_call__).parameters)[:1] == ("fn",)
    with pytest.raises(ClusterError, match=r"ActorHandle\.__ray_call__"):
        call_in_actor(object(), str)


def test_the_status_of_the_cluster_has_the_fields_that_we_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.autoscaler.v2 import schema, sdk

    assert next(iter(inspect.signature(sdk.get_cluster_status).parameters)) == "gcs_address"
    for kind, used in STATUS_FIELDS.items():
        assert used <= {field.name for field in fields(getattr(schema, kind))}
    monkeypatch.delattr(sdk, "get_cluster_status")
    with pytest.raises(ClusterError, match=r"ray\.autoscaler\.v2\.sdk\.get_cluster_status.*Tested versions"):
        cluster_status("127.0.0.1:1")


@pytest.mark.parametrize("gone", ["Trial.error_file", "trial._TemporaryTrialState"])
def test_trials_of_another_tune_are_refused_before_they_run(
    gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_trial_state()
    monkeypatch.delattr(f"ray.tune.experiment.{gone}")
    with pytest.raises(ClusterError, match=r"Trial\.error_file.*Tested versions"):
        require_trial_state()


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

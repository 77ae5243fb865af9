"""Ray and KubeRay accept the files for clouds and Kubernetes. None of them was run on a cloud."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from search.doctor.targets import CheckTargets
from search.records.finding import Finding

CLUSTER = Path(__file__).parents[3] / "cluster"
RAY_FILES = ("aws.yaml", "gcp.yaml")
FULL_SCHEMA = os.environ.get("KUBERAY_RAYJOB_CRD")
"""Path of KubeRay's ``ray.io_rayjobs.yaml``, 1.4 MB, which is not ours to ship: with it the whole schema is checked."""


def content(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))
    return read


def filled(value: Any) -> Any:
    """``value`` as it is when everything is filled in."""
    if isinstance(value, dict):
        return {k: filled(v) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v) for v in value]
    return re.sub(r"FILL-IN-[A-Z-]+", "10.0.0.2", value) if isinstance(value, str) else value


def findings(file: Path, gpus: float = 1.0, cpus: float = 1.0) -> list[Finding]:
    from search.doctor.cluster_file import check_cluster_file

    return list(
        check_cluster_file(
            CheckTargets(file.parent, cluster_file=file, cpus_per_trial=cpus, gpus_per_trial=gpus)
        )
    )


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_the_file_and_fills_in_its_defaults(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(copy.deepcopy(content(name)))
    validate_config(whole)
    assert whole["available_node_types"]["gpu"]["min_workers"] == 0
    assert whole["available_node_types"]["gpu"]["max_workers"] == whole["max_workers"] > 1
    assert whole["available_node_types"]["gpu"]["resources"]["GPU"] == 1
    assert whole["head_setup_commands"][: len(whole["setup_commands"])] == whole["setup_commands"]


@pytest.mark.parametrize("name", RAY_FILES)
def test_every_command_has_valid_shell_syntax(name: str) -> None:
    for key, commands in content(name).items():
        for command in commands if key.endswith("_commands") else ():
            read = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
            assert (read.returncode, read.stderr) == (0, ""), command


@pytest.mark.parametrize("name", RAY_FILES)
def test_workers_are_spot_machines_and_all_nodes_share_a_folder_and_a_token(name: str) -> None:
    file = content(name)
    node = file["available_node_types"]["gpu"]["node_config"]
    assert (
        node.get("InstanceMarketOptions") == {"MarketType": "spot"}
        or {"preemptible": True} in node["scheduling"]
    )
    assert "-v /mnt/unfreeze:/mnt/unfreeze" in file["docker"]["run_options"]
    assert any("mount -t nfs" in c and "/mnt/unfreeze" in c for c in file["initialization_commands"])
    assert any("UNFREEZE_STORAGE=/mnt/unfreeze/" in c for c in file["setup_commands"])
    assert file["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_AUTH_MODE=token ray start" in " ".join(c.split()) for c in file[key])


def test_versions_are_those_of_the_constraints() -> None:
    pinned = re.search(r"^ray==(\S+)$", (CLUSTER.parent / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    for file in (*RAY_FILES, "kuberay.yaml", "Dockerfile"):
        named = re.findall(r"rayproject/ray:([\d.]+)|rayVersion: \"([\d.]+)\"", (CLUSTER / file).read_text())
        assert {a or b for a, b in named} == {pinned.group(1)}, file


@pytest.mark.parametrize("name", [*RAY_FILES, "kuberay.yaml"])
def test_the_doctor_names_the_placeholders_and_nothing_else(name: str, tmp_path: Path) -> None:
    blank = findings(CLUSTER / name)
    assert "still to be filled in" in blank[0].words
    assert "FILL-IN" in blank[0].words
    file = tmp_path / "cluster" / name
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(filled(content(name))))
    complaints = [f for f in findings(file) if f.grade != "ok" and f.check not in ("token", "key")]
    assert not [f for f in complaints if "file_mounts" not in f.words]


@pytest.mark.parametrize("name", [*RAY_FILES, "kuberay.yaml"])
def test_the_doctor_reports_that_no_machine_has_the_resources_of_a_trial(name: str) -> None:
    said = [f.words for f in findings(CLUSTER / name, gpus=2) if f.check == "requests"]
    assert "a trial asks for 1 CPU and 2 GPU and no " in said[0]


def test_the_parts_of_the_rayjob_agree() -> None:
    from search.doctor.rayjob import problems

    job = content("kuberay.yaml")
    assert list(problems(job)) == []
    spec = job["spec"]["rayClusterSpec"]
    assert spec["authOptions"] == {"mode": "token"}
    (worker,) = spec["workerGroupSpecs"]
    assert (worker["minReplicas"], worker["maxReplicas"]) == (0, 8)
    claims = {
        group["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        for group in (spec["headGroupSpec"], worker)
    }
    assert len(claims) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.pop("entrypoint"), "spec.entrypoint: expected, and missing"),
        (lambda s: s.pop("rayClusterSpec"), "spec.rayClusterSpec: expected a cluster"),
        (lambda s: s.update(entryPoint="x"), "spec.entryPoint: did you mean entrypoint?"),
        (lambda s: s.update(backoffLimit="3"), "spec.backoffLimit: expected int, received str"),
        (
            lambda s: s["rayClusterSpec"]["workerGroupSpecs"][0].update(minReplicas=9),
            "workerGroupSpecs.gpu: minReplicas 9 is more than maxReplicas 8",
        ),
        (
            lambda s: s["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(volumes=[]),
            "headGroupSpec.ray-head.volumeMounts: storage: no volume of the pod has this name",
        ),
        (
            lambda s: s["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(containers=[]),
            "headGroupSpec.template.spec.containers: expected at least one",
        ),
    ],
)
def test_errors_in_a_rayjob_are_named(change: Any, words: str) -> None:
    from search.doctor.rayjob import problems

    job = content("kuberay.yaml")
    change(job["spec"])
    assert words in list(problems(job))


@pytest.mark.skipif(not FULL_SCHEMA, reason="KUBERAY_RAYJOB_CRD names no schema of the operator")
def test_the_rayjob_fits_the_operators_whole_schema() -> None:
    import jsonschema

    known = yaml.load(Path(str(FULL_SCHEMA)).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = [v for v in known["spec"]["versions"] if v["name"] == "v1"]
    job = content("kuberay.yaml")
    strict = _strict(version["schema"]["openAPIV3Schema"])
    jsonschema.validate(job, strict)
    job["spec"]["entryPoint"] = job["spec"].pop("entrypoint")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, strict)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Fields that are not listed are errors; ``x-kubernetes-int-or-string`` means what it says."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    made = dict(schema)
    if "properties" in made:
        made["properties"] = {k: _strict(v) for k, v in made["properties"].items()}
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    elif isinstance(made.get("additionalProperties"), dict):
        made["additionalProperties"] = _strict(made["additionalProperties"])
    if isinstance(made.get("items"), dict):
        made["items"] = _strict(made["items"])
    return made

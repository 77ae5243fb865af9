"""Checks a RayJob for KubeRay: what Kubernetes would refuse, or accept and never start.

The operator's own schema has megabytes. This module lists the fields that the job of a search uses (KubeRay 1.4 and
later, ``ray.io/v1``). An unknown field is an error only if it looks like a known one misspelt, because Kubernetes drops
such fields silently.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.doctor.demand import Resources, fits, resources_text
from search.doctor.targets import CheckTargets
from search.records.finding import Finding, failed, ok, warning

Content = Mapping[str, Any]

JOB_FIELDS = {
    "entrypoint": str,
    "runtimeEnvYAML": str,
    "jobId": str,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "submissionMode": str,
    "suspend": bool,
    "rayClusterSpec": dict,
    "clusterSelector": dict,
    "submitterPodTemplate": dict,
}
CLUSTER_FIELDS = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "authOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
    "gcsFaultToleranceOptions": dict,
}
HEAD_FIELDS = {"rayStartParams": dict, "template": dict, "serviceType": str}
WORKER_FIELDS = {
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "rayStartParams": dict,
    "template": dict,
    "idleTimeoutSeconds": int,
}
WORKER_REQUIRED = ("groupName", "minReplicas", "maxReplicas", "template")
CONTAINER_FIELDS = {
    "name": str,
    "image": str,
    "imagePullPolicy": str,
    "command": list,
    "args": list,
    "env": list,
    "envFrom": list,
    "ports": list,
    "resources": dict,
    "volumeMounts": list,
    "securityContext": dict,
    "workingDir": str,
    "lifecycle": dict,
}


def check_rayjob(file: Path, content: Content, targets: CheckTargets) -> Iterator[Finding]:
    """Check a RayJob as far as its file tells.

    Args:
        file: for messages.
        content: of the file.
        targets: with the resources of a trial.
    """
    if (content.get("apiVersion"), content.get("kind")) != ("ray.io/v1", "RayJob"):
        yield failed(
            "file", f"{file}: expected apiVersion ray.io/v1 and kind RayJob, received "
            f"{content.get('apiVersion')} and {content.get('kind')}"
        )  # fmt: skip
        return
    wrong = list(problems(content))
    if wrong:
        yield failed("file", f"{file}: {'; '.join(wrong)}")
        return
    yield ok("file", f"{file} is a RayJob")
    cluster = content["spec"]["rayClusterSpec"]
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield warning(
            "token",
            "rayClusterSpec.authOptions.mode: expected token: anybody who reaches the head may run programs",
        )
    else:
        yield ok("token", "the operator makes it and gives it to all pods")
    yield from _check_groups(cluster, targets)


def problems(content: Content) -> Iterator[str]:
    """Fields that are missing, misspelt or of another type, and mounts without a volume; each with its path."""
    spec = content.get("spec")
    if not isinstance(spec, dict) or not isinstance(spec.get("rayClusterSpec"), dict):
        yield "spec.rayClusterSpec: expected a cluster"
        return
    yield from _fields(spec, JOB_FIELDS, "spec", ("entrypoint",))
    cluster = spec["rayClusterSpec"]
    yield from _fields(cluster, CLUSTER_FIELDS, "rayClusterSpec", ("headGroupSpec",))
    groups: list[tuple[str, Content, Mapping[str, type], tuple[str, ...]]] = [
        ("headGroupSpec", cluster.get("headGroupSpec") or {}, HEAD_FIELDS, ("template",))
    ]
    for group in cluster.get("workerGroupSpecs") or ():
        groups.append(
            (f"workerGroupSpecs.{group.get('groupName', '?')}", group, WORKER_FIELDS, WORKER_REQUIRED)
        )
    for place, group, known, needs in groups:
        yield from _fields(group, known, place, needs)
        yield from _pod(group.get("template") or {}, place)
        lowest, highest = group.get("minReplicas", 0), group.get("maxReplicas", 0)
        if isinstance(lowest, int) and isinstance(highest, int) and lowest > highest:
            yield f"{place}: minReplicas {lowest} is more than maxReplicas {highest}"


def _fields(values: Content, known: Mapping[str, type], place: str, needed: tuple[str, ...]) -> Iterator[str]:
    for name in needed:
        if name not in values:
            yield f"{place}.{name}: expected, and missing"
    for name, value in values.items():
        if name in known:
            # In Python a bool is an int, in Kubernetes it is not.
            if not isinstance(value, known[name]) or (isinstance(value, bool) and known[name] is int):
                yield f"{place}.{name}: expected {known[name].__name__}, received {type(value).__name__}"
        elif near := difflib.get_close_matches(name, known, 1, 0.8):
            yield f"{place}.{name}: did you mean {near[0]}?"


def _pod(template: Content, place: str) -> Iterator[str]:
    spec = template.get("spec") or {}
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    if not spec.get("containers"):
        yield f"{place}.template.spec.containers: expected at least one"
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        here = f"{place}.{container.get('name', 'container')}"
        yield from _fields(container, CONTAINER_FIELDS, here, ("name", "image"))
        for mount in container.get("volumeMounts") or ():
            if mount.get("name") not in volumes:
                yield f"{here}.volumeMounts: {mount.get('name')}: no volume of the pod has this name"


def _check_groups(cluster: Content, targets: CheckTargets) -> Iterator[Finding]:
    """Check that a trial fits a pod."""
    wanted = targets.trial_resources
    groups = {
        group["groupName"]: _resources(group)
        for group in cluster.get("workerGroupSpecs") or ()
        if group["maxReplicas"] > 0
    }
    fitting = [name for name, has in groups.items() if fits(wanted, has)]
    if fitting:
        yield ok("requests", f"a trial's {resources_text(wanted)} fit pods of {', '.join(fitting)}")
    else:
        shown = "; ".join(f"{name}: {resources_text(has)}" for name, has in groups.items()) or "there is none"
        yield failed(
            "requests", f"a trial asks for {resources_text(wanted)} and no group of workers has that "
            f"({shown}): trials would "
            "stay PENDING"
        )  # fmt: skip


def _resources(group: Content) -> Resources:
    """Return the resources that Ray assigns to a pod.

    They are the limits of its first container, unless rayStartParams differ.
    """
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    params = group.get("rayStartParams") or {}
    cpus = params.get("num-cpus", limits.get("cpu", 0))
    gpus = params.get("num-gpus", limits.get("nvidia.com/gpu", 0))
    return {"CPU": _quantity(cpus), "GPU": _quantity(gpus)}


def _quantity(value: object) -> float:
    text = str(value)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)

"""Checks the nodes of a running cluster: versions, shared storage, clocks, caches and GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from search.doctor import node_probe
from search.doctor.machine import TENSORFLOW_SECONDS, gpu_finding
from search.doctor.node_probe import SLOW_START
from search.doctor.probed_nodes import ANSWER_SECONDS, ProbedNodes
from search.doctor.storage import cache_finding, shared_probe
from search.doctor.targets import CheckTargets
from search.records.finding import Finding, failed, ok, warning
from search.records.formatting import plural

CLOCK_SECONDS = 2.0
"""Differences of clocks below this are not reported."""

PACKAGES = ("unfreeze", "ray", "tensorflow", "keras")
"""Packages that must have the same version on all machines."""

_LOGS = "/tmp/ray/session_latest/logs"


def check_nodes(nodes: ProbedNodes, targets: CheckTargets) -> Iterator[Finding]:
    """Run all checks of nodes; the last finding names the nodes that could not be asked."""
    # Importing TensorFlow takes longest, so it runs on the nodes while the other checks are made.
    tensorflow = nodes.begin(lambda node, probe: probe.gpus.remote(nodes.gpus[node], TENSORFLOW_SECONDS))
    yield check_versions(nodes)
    yield from check_shared(nodes, targets.storage)
    yield check_clocks(nodes)
    yield from check_caches(nodes, targets.cache)
    yield from check_gpus(nodes, tensorflow)
    if nodes.unreachable:
        reasons = "; ".join(f"{nodes.label(node)}: {why}" for node, why in nodes.unreachable.items())
        yield failed(
            "nodes",
            f"Ray could not start a process on {reasons}. Read the logs in {_LOGS} there (memory, disk, environment)",
        )


def check_versions(nodes: ProbedNodes) -> Finding:
    """Check that all nodes have this machine's Python, packages and files of unfreeze."""
    local = node_probe.NodeProbe().versions(PACKAGES)
    answers = nodes.ask(lambda node, probe: probe.versions.remote(PACKAGES))
    wrong = []
    for node, remote in answers.items():
        label = nodes.label(node)
        if not remote["unfreeze"] or not remote["code"]:
            wrong.append(f"{label} has no unfreeze")
            continue
        others = [n for n in ("python", *PACKAGES) if remote[n] != local[n]]
        wrong += [
            f"{label} has {n} {remote[n] or 'missing'}, this machine {local[n] or 'none'}" for n in others
        ]
        if not others and remote["code"] != local["code"]:
            wrong.append(
                f"{label} has other files of unfreeze {local['unfreeze']} ({remote['code']}) than this machine "
                f"({local['code']})"
            )
    if wrong:
        return failed(
            "versions", f"{'; '.join(wrong)}: install the same ones on every node (constraints.txt pins them), then "
            "start Ray again there"
        )  # fmt: skip
    versions = ", ".join(f"{n} {local[n]}" for n in PACKAGES)
    return ok("versions", f"{plural(len(answers), 'node')} with {versions}")


def check_shared(nodes: ProbedNodes, storage: Path) -> Iterator[Finding]:
    """Check that the storage is one folder for this machine and all nodes, and that all of them can write to it."""
    try:
        with shared_probe(storage) as probe:
            folder, content = str(probe.folder), probe.content
            answers = nodes.ask(lambda node, actor: actor.storage.remote(folder, content, node))
            wrong = {nodes.label(node): answer for node, answer in answers.items()}
            yield from probe.findings(wrong, {nodes.label(node): node for node in answers})
    except OSError as error:
        yield failed("storage", f"{storage} can't be written from this machine ({error.strerror})")


def check_clocks(nodes: ProbedNodes) -> Finding:
    """Check that the nodes' clocks agree with this machine's."""
    skews = {node: skew for node in list(nodes.probes) if (skew := _skew(nodes, node)) is not None}
    wrong = [
        f"{nodes.label(node)} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine"
        for node, skew in skews.items()
        if abs(skew) > CLOCK_SECONDS
    ]
    if wrong:
        return warning(
            "clock", f"{'; '.join(wrong)}: times of trials and logs will not match, and object stores refuse requests "
            "from machines with wrong clocks: run an NTP client there (chrony, systemd-timesyncd)"
        )  # fmt: skip
    most = max(map(abs, skews.values()), default=0.0)
    return ok("clock", f"{plural(len(skews), 'node')} within {max(most, 0.1):.1f} s")


def _skew(nodes: ProbedNodes, node: str) -> float | None:
    """Seconds by which a node's clock is ahead of this machine's; None if it does not answer.

    The quickest of three answers counts, and the node is assumed to have read its clock in the middle of it
    (F. Cristian, "Probabilistic clock synchronization", 1989).
    """
    best, skew = float("inf"), None
    for _ in range(3):
        began, before = time.time(), time.monotonic()
        answers = nodes.ask_one(node, lambda probe: probe.clock.remote())
        took = time.monotonic() - before
        if answers and took < best:
            best, skew = took, answers[node] - began - took / 2
    return skew


def check_caches(nodes: ProbedNodes, wanted: str | None) -> Iterable[Finding]:
    """Check that each node's disk has room for kept activations; one finding if all have."""
    answers = nodes.ask(lambda node, probe: probe.cache.remote(wanted))
    found = [cache_finding(f"{nodes.label(node)}: ", *answer) for node, answer in answers.items()]
    return [f for f in found if f.grade != "ok"] or [
        ok("cache", f"{plural(len(found), 'node')} with room for it")
    ]


def check_gpus(nodes: ProbedNodes, asked: Mapping[Any, str]) -> Iterable[Finding]:
    """Check that TensorFlow sees the GPUs of each node.

    Args:
        asked: the pending answers of :meth:`NodeProbe.gpus`, by :meth:`ProbedNodes.begin`.
    """
    answers = nodes.wait(asked, TENSORFLOW_SECONDS + ANSWER_SECONDS / 2)
    found = []
    for node, (there, seen, visible, wrong) in answers.items():
        if wrong:
            grade = warning if SLOW_START in wrong else failed  # a slow start may mean a busy node
            found.append(grade("gpu", f"{nodes.label(node)}: TensorFlow could not be checked: {wrong}"))
        else:
            found.append(gpu_finding(nodes.label(node), there, seen, visible))
    there, seen = (sum(answer[i] for answer in answers.values()) for i in (0, 1))
    words = (
        f"TensorFlow sees {seen} of {plural(there, 'GPU')}"
        if there
        else "no node has one: trials run on the CPU"
    )
    return [f for f in found if f.grade != "ok"] or [ok("gpu", words)]

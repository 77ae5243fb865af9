"""Runs the checks of ``unfreeze doctor``: what a search needs, before anything is spent or when something hangs.

Each check returns findings that name the problem and what to do about it. An error inside a check ends that check only
and becomes a finding itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from search.doctor.targets import CheckTargets
from search.records.finding import Finding, failed


def run_checks(targets: CheckTargets) -> Iterator[Finding]:
    """Run all checks, the quick ones first, and yield each finding as soon as it is known."""
    for name, check in _checks(targets):
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - one broken check must not hide the findings of the others
            yield failed(name, f"could not be checked ({type(error).__name__}: {_first_line(error)})")


def _checks(targets: CheckTargets) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    from search.doctor import machine, storage, tracking

    yield "packages", lambda: [machine.check_packages()]
    yield "storage", lambda: [storage.check_storage(targets.storage)]
    yield "cache", lambda: [storage.check_cache(targets.cache)]
    yield "memory", lambda: [machine.check_memory()]
    yield "tracking", lambda: [tracking.check_tracking(targets.tracking_uri)]
    if targets.cluster_file is not None:
        from search.doctor.cluster_file import check_cluster_file

        yield "file", lambda: check_cluster_file(targets)
    if targets.address is not None:
        from search.doctor.cluster import check_cluster

        yield "ray", lambda: check_cluster(targets)
    elif targets.cluster_file is None:
        yield "gpu", lambda: [machine.check_gpu()]
        yield "ray", lambda: [machine.check_ray(targets)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]

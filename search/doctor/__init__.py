"""Looks at what a search needs before anything is spent, and when something hangs.

Each check says in plain words what is wrong and what to do. Whatever a check itself meets ends that check alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from search.doctor.targets import CheckTargets
from search.records.finding import Finding, Grade, failed

__all__ = ["CheckTargets", "Finding", "Grade", "run_checks"]


def run_checks(places: CheckTargets) -> Iterator[Finding]:
    """All findings, the quick checks first; each is handed out as soon as it is known."""
    for name, check in _checks(places):
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - a check that fails in its own way is a finding, too
            yield failed(name, f"could not be checked ({type(error).__name__}: {_first_line(error)})")


def _checks(places: CheckTargets) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    from search.doctor import machine, storage, tracking

    yield "packages", lambda: [machine.check_packages()]
    yield "storage", lambda: [storage.check_storage(places.storage)]
    yield "cache", lambda: [storage.check_cache(places.cache)]
    yield "memory", lambda: [machine.check_memory()]
    yield "tracking", lambda: [tracking.check_tracking(places.tracking_uri)]
    if places.cluster_file is not None:
        from search.doctor.cluster_file import check_cluster_file

        yield "file", lambda: check_cluster_file(places)
    if places.address is not None:
        from search.doctor.cluster import check_cluster

        yield "ray", lambda: check_cluster(places)
    elif places.cluster_file is None:
        from search.doctor.machine import check_ray

        yield "gpu", lambda: [machine.check_gpu()]
        yield "ray", lambda: [check_ray(places)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no words"])[0]

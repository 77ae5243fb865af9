"""Check of Ray on this machine, where no cluster is named."""

from __future__ import annotations

from search.doctor.demand import check_request
from search.doctor.places import Places
from search.records.finding import Finding, failed


def check_ray(places: Places) -> Finding:
    """Whether Ray starts here, and could run a trial."""
    from search.doctor.joining import joined
    from trainables.errors import ClusterError

    try:
        with joined(None):
            import ray

            found = check_request(places, [n["Resources"] for n in ray.nodes() if n["Alive"]], {})
            return Finding("ray", found.grade, f"this machine: {found.words}")
    except ClusterError as error:
        return failed("ray", str(error))

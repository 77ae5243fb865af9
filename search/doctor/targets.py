"""What the doctor is asked to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckTargets:
    """The places that a search would use, and what each of its trials would ask for.

    ``address`` is a running Ray cluster, ``cluster_file`` what one is started from; without either, this machine.
    ``cache`` is as in ``unfreeze search --cache``.
    """

    storage: Path
    tracking_uri: str | None = None
    address: str | None = None
    cluster_file: Path | None = None
    cache: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0

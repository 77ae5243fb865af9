"""Describes what the doctor checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckTargets:
    """The services and folders that a search would use, and the resources that each of its trials would request.

    Attributes:
        storage: folder of the searches.
        tracking_uri: MLflow server or database; None for the file in the storage.
        address: a running Ray cluster. Without ``address`` and ``cluster_file`` this machine is checked.
        cluster_file: file from which ``ray up`` or Kubernetes starts a cluster.
        cache: folder of kept activations, as in ``unfreeze search --cache``.
        cpus_per_trial: CPU cores for one trial.
        gpus_per_trial: GPUs for one trial; fractions share a GPU.
    """

    storage: Path
    tracking_uri: str | None = None
    address: str | None = None
    cluster_file: Path | None = None
    cache: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0

    @property
    def trial_resources(self) -> dict[str, float]:
        """The resources of one trial by Ray's names."""
        return {"CPU": self.cpus_per_trial, "GPU": self.gpus_per_trial}

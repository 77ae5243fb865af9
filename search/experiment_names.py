"""Names of MLflow's experiments: one for the searches of a task, one for each kind of baseline."""

from __future__ import annotations

from search.baselines import BASELINES

_FAMILY = "unfreeze/"


def experiment_name(task: str, baseline: str = "") -> str:
    """The experiment of a task's searches, or of their baselines of one method."""
    return f"{_FAMILY}{task}{f'/{baseline}' if baseline else ''}"


def is_search(experiment: str) -> bool:
    """Whether an experiment of this name holds searches, and no baselines."""
    endings = tuple(f"/{method}" for method in BASELINES)
    return experiment.startswith(_FAMILY) and not experiment.removeprefix(_FAMILY.rstrip("/")).endswith(
        endings
    )
